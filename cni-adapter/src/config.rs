//! The network configuration (docs/cni.md has every key). Keys of others are left alone.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use podwire_control::client::SOCKET;
use podwire_control::model::{AttachmentKey, NetworkName, PORT_MTU_MIN, PortKind, Text};
use podwire_control::spool;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::field::Field;
use crate::result::CniResult;
use crate::version::Version;
use crate::wanted::Wanted;

/// How long podwired may take for one call unless `timeout` says otherwise.
const TIMEOUT_SECONDS: u64 = 10;
/// What `timeout` may be at most; podwired gives up a call then itself.
const TIMEOUT_SECONDS_MAX: u64 = 30;
/// The IPAM that is podwired's own.
const OWN_IPAM: &str = "podwire";

/// The network configuration: what it takes to reach podwired is read, the rest when it is asked for, so that nothing but
/// what a DEL needs can stand in its way.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    root: Field<'a>,
    pub(crate) version: Version,
    pub(crate) socket: PathBuf,
    pub(crate) spool_dir: PathBuf,
    pub(crate) timeout: Duration,
}

impl<'a> Config<'a> {
    pub(crate) fn read(version: Version, value: &'a Value) -> Result<Self, Failure> {
        let root = Field::root(value);
        Ok(Self {
            version,
            socket: path(&root.get("socket")?)?.unwrap_or_else(|| SOCKET.into()),
            spool_dir: path(&root.get("spoolDir")?)?.unwrap_or_else(|| spool::DIR.into()),
            timeout: timeout(&root.get("timeout")?)?,
            root,
        })
    }

    pub(crate) fn name(&self) -> Result<NetworkName, Failure> {
        let (field, remedy) = (self.root.get("name")?, NetworkName::REMEDY);
        let given = field.read(remedy, |value| value.as_str()?.parse().ok())?;
        given.ok_or_else(|| field.wrong(remedy))
    }

    /// The plugin that gives addresses; none when podwired leases them.
    pub(crate) fn ipam(&self) -> Result<Option<&'a str>, Failure> {
        let plugin = self.root.get("ipam")?.get("type")?;
        match plugin.text()? {
            None | Some("" | OWN_IPAM) => Ok(None),
            Some(name) if name.contains('/') || name.starts_with('.') => {
                Err(plugin.wrong("write a plugin's name, such as host-local, or leave `ipam` out"))
            }
            Some(name) if is_own(name) => Err(plugin.wrong("leave `ipam` out to have podwired lease the addresses")),
            Some(name) => Ok(Some(name)),
        }
    }

    pub(crate) fn kind(&self) -> Result<PortKind, Failure> {
        let kinds = PortKind::ALL.map(PortKind::name).join("\" or \"");
        let of = |name: &str| PortKind::ALL.into_iter().find(|kind| kind.name() == name);
        let given = self.root.get("port")?.read(&format!("write \"{kinds}\""), |value| value.as_str().and_then(of))?;
        Ok(given.unwrap_or(PortKind::Tap))
    }

    /// 0 is none, as with the reference plugins.
    pub(crate) fn mtu(&self) -> Result<Option<u16>, Failure> {
        let remedy = format!("write bytes, {PORT_MTU_MIN} to {}", u16::MAX);
        let given = self.root.get("mtu")?.read(&remedy, |value| {
            value.as_u64().and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu == 0 || *mtu >= PORT_MTU_MIN)
        })?;
        Ok(given.filter(|mtu| *mtu != 0))
    }

    pub(crate) fn dns(&self) -> Result<Option<&'a Map<String, Value>>, Failure> {
        self.root.get("dns")?.read("write an object, as the specification has it", Value::as_object)
    }

    pub(crate) fn wanted(&self) -> Result<Wanted, Failure> {
        Wanted::read(&self.root)
    }

    /// What the plugins before this one made.
    pub(crate) fn previous(&self) -> Result<Option<CniResult>, Failure> {
        let field = self.root.get("prevResult")?;
        field.value.map(|_| CniResult::read(&field)).transpose()
    }

    /// The attachments that are to stay, for GC. libcni writes an empty list as `null`; one that is missing is no list.
    pub(crate) fn valid(&self) -> Result<Vec<AttachmentKey>, Failure> {
        const KEY: &str = "cni.dev/valid-attachments";
        let field = self.root.get(KEY)?;
        if self.root.value.is_none_or(|config| config.get(KEY).is_none()) {
            return Err(field.wrong("the runtime has to list the attachments that are to stay"));
        }
        let key = |item: &Field<'_>| {
            let (container, ifname) = (item.get("containerID")?, item.get("ifname")?);
            let container = container.read("write a container's id", |value| value.as_str()?.parse().ok())?;
            let ifname = ifname.text()?.map(str::to_owned);
            let both = container.zip(ifname).map(|(container, ifname)| AttachmentKey { container, ifname });
            both.ok_or_else(|| item.wrong("write an object with containerID and ifname"))
        };
        field.items()?.iter().map(key).collect()
    }
}

fn path(field: &Field<'_>) -> Result<Option<PathBuf>, Failure> {
    field.read("write an absolute path", |value| value.as_str().map(PathBuf::from).filter(|path| path.is_absolute()))
}

fn timeout(field: &Field<'_>) -> Result<Duration, Failure> {
    let seconds = field.read(&format!("write seconds, 1 to {TIMEOUT_SECONDS_MAX}"), |value| {
        value.as_u64().filter(|seconds| (1..=TIMEOUT_SECONDS_MAX).contains(seconds))
    })?;
    Ok(Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS)))
}

/// Whether a plugin of this name is the one that runs, which would run itself for ever.
fn is_own(name: &str) -> bool {
    let program = env::args_os().next().map(PathBuf::from);
    program.is_some_and(|program| program.file_name().is_some_and(|own| own == name))
}
