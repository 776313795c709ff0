//! The commands: each asks podwired, and the IPAM plugin where there is one.

mod add;

use std::io::Write;

use podwire_control::client::ClientError;
use podwire_control::model::{AttachmentKey, Readiness};

use crate::away;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::environment::{Command, Environment};
use crate::failure::{Code, Failure};
use crate::ipam::Ipam;
use crate::link;
use crate::version::Version;

/// One request of the runtime.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) config: &'a Config<'a>,
    /// The configuration as it came.
    pub(crate) text: &'a [u8],
}

impl Command {
    /// The first version that has it.
    fn since(self) -> Version {
        match self {
            Self::Add | Self::Del => Version::V0_3_1,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }

    /// Carries a request out; a result goes to `out`.
    pub(crate) fn run(self, request: &Request<'_>, out: &mut dyn Write) -> Result<(), Failure> {
        let version = request.config.version;
        if version < self.since() {
            let msg = format!("cniVersion {} has no {}", version.name(), self.name());
            let remedy = format!("write cniVersion {} or later into the network configuration", self.since().name());
            return Err(Failure::new(Code::INCOMPATIBLE_VERSION, msg, remedy));
        }
        match self {
            Self::Add => request.add(out),
            Self::Del => request.del(),
            Self::Check => request.check(),
            Self::Gc => request.collect(),
            Self::Status => request.status(),
        }
    }
}

impl Request<'_> {
    fn connect(&self) -> Result<Daemon, ClientError> {
        Daemon::connect(&self.config.socket, self.config.timeout)
    }

    fn ipam(&self) -> Result<Option<Ipam<'_>>, Failure> {
        self.config.ipam()?.map(|name| Ipam::find(name, self.environment.path.as_deref(), self.text)).transpose()
    }

    fn tell_ipam(&self, command: Command) -> Result<(), Failure> {
        self.ipam()?.map_or(Ok(()), |ipam| ipam.tell(command))
    }

    /// The addresses are given back only after the interface that uses them is gone.
    fn del(&self) -> Result<(), Failure> {
        self.detach(&self.environment.key()?)?;
        if let Err(wrong) = self.config.ipam() {
            // No ADD gets past that, so no other plugin has given anything.
            eprintln!("podwire-cni: {wrong}");
            return Ok(());
        }
        self.tell_ipam(Command::Del)
    }

    /// Has an interface taken away: by podwired or, while it is away, as far as goes without it.
    fn detach(&self, key: &AttachmentKey) -> Result<(), Failure> {
        let detached = self.connect().and_then(|daemon| daemon.call(async |client| client.detach(key).await));
        match detached {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.remove_left_over(key);
                Ok(())
            }
            Err(ClientError::Unreachable { .. }) => {
                away::detach(key, self.environment.netns.as_deref(), &self.config.spool_dir)
            }
            Err(error) => Err(Failure::of(&error, &format!("detach {key}"))),
        }
    }

    /// Removes what a crash left of an attachment that podwired knows no more. Else it goes with its namespace.
    fn remove_left_over(&self, key: &AttachmentKey) {
        if let Some(netns) = self.environment.netns.as_deref()
            && let Err(error) = link::remove_left_over(netns, &key.ifname)
        {
            eprintln!("podwire-cni: cannot see to {key} in {}: {error}", netns.display());
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let (key, netns) = (self.environment.key()?, self.environment.netns()?);
        let missing = |what: &str| {
            Failure::new(Code::INVALID_CONFIG, what, "the runtime has to give the result of the last ADD as prevResult")
        };
        let previous = self.config.previous()?.ok_or_else(|| missing("prevResult is missing"))?;
        let told = previous
            .addresses_of(&key)
            .ok_or_else(|| missing(&format!("prevResult has no interface {} in a sandbox", key.ifname)))?;
        let attempt = format!("check {key}");
        let daemon = self.connect().map_err(|error| Failure::of(&error, &attempt))?;
        let drifted =
            |drifts: &[String]| Failure::new(Code::DRIFTED, format!("{key} is not as it was made"), drifts.join("; "));
        match daemon.call(async |client| client.check_attachment(&key, &netns, &told).await) {
            Ok(drifts) if drifts.is_empty() => self.tell_ipam(Command::Check),
            Ok(drifts) => Err(drifted(&drifts)),
            Err(error @ ClientError::NotFound(_)) => Err(drifted(&error.sentences())),
            Err(error) => Err(Failure::of(&error, &attempt)),
        }
    }

    fn collect(&self) -> Result<(), Failure> {
        let (name, valid) = (self.config.name()?, self.config.valid()?);
        let collected = self
            .connect()
            .and_then(|daemon| daemon.call(async |client| client.collect_attachments(&name, &valid).await));
        collected.map_err(|error| Failure::of(&error, &format!("collect the attachments of network {name}")))?;
        self.tell_ipam(Command::Gc)
    }

    /// Keys that would fail an ADD fail this.
    fn status(&self) -> Result<(), Failure> {
        let _ = (self.config.name()?, self.config.kind()?, self.config.mtu()?, self.config.dns()?, self.config.ipam()?);
        let unfit = |why: String| Failure::new(Code::NOT_AVAILABLE, "podwired cannot attach pods", why);
        let asked = self.connect().and_then(|daemon| daemon.call(async |client| client.readiness().await));
        let Readiness { cannot_attach, pods_suffer } = asked.map_err(|error| unfit(error.sentences().join("; ")))?;
        match (cannot_attach, pods_suffer) {
            (None, None) => self.tell_ipam(Command::Status),
            (Some(why), None) => Err(unfit(why)),
            (why, Some(suffering)) => {
                let mut all: Vec<String> = why.into_iter().chain([suffering]).collect();
                all.dedup();
                Err(Failure::new(Code::PODS_SUFFER, "pods that are attached suffer", all.join("; ")))
            }
        }
    }
}
