//! The daemon's configuration, `podwired --config podwired.toml`: what is true of the node as a whole.
//!
//! A [`Config`] exists only when every value in the file was checked, so nothing else checks them again. Ports,
//! routes and VTEPs are not configuration but intent, see `ledger`. `docs/configuration.md` is the page for users.

mod check;
mod document;
mod ipam;
mod keys;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::{IpRange, Vni, VtepName};

pub use keys::{KEYS, KeySpec};

use crate::port::xdp::{UplinkTx, XdpMode};

/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/podwire/podwired.toml";

/// The whole file, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// How the node itself hangs on the switch.
    pub host: Host,
    /// How other nodes are reached; without it the switch serves this node's pods only.
    pub uplink: Option<Uplink>,
    /// Which addresses pods get.
    pub ipam: Ipam,
    /// The tunnel's numbers.
    pub vxlan: Vxlan,
    /// What kernel and switch leave to each other.
    pub offloads: Offloads,
    /// The forwarding threads.
    pub workers: Workers,
    /// The control service.
    pub control: Control,
}

/// `[node]`. At least one of the two pod CIDRs is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// The node's name, under which other nodes know its VTEP; its VTEP MAC derives from it.
    pub name: VtepName,
    /// The pods' IPv4 subnet, /8 to /30.
    pub pod_v4: Option<Ipv4Net>,
    /// The pods' IPv6 subnet, /32 to /126.
    pub pod_v6: Option<Ipv6Net>,
    /// What the node itself routes through the switch. Of the families named here, each covers the pod CIDR.
    pub cluster_cidrs: Vec<IpNet>,
    /// Directories below which the namespaces of pods have to be; absolute, at least one.
    pub netns_dirs: Vec<PathBuf>,
}

/// `[host]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Name of the node's own interface on the switch.
    pub interface: String,
    /// Whether pods leave the cluster with an address of the node.
    pub masquerade: bool,
}

/// The device behind the uplink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UplinkKind {
    /// Kernel UDP sockets; no NIC is touched.
    Udp,
    /// AF_XDP sockets on a NIC's receive queues, with UDP sockets beside.
    Xdp(XdpUplink),
}

impl UplinkKind {
    /// The name in the file and in status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Xdp(_) => "xdp",
        }
    }
}

/// What only `uplink.kind = "xdp"` has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpUplink {
    /// The NIC.
    pub device: String,
    /// The one mode that will do; none for the best there is.
    pub mode: Option<XdpMode>,
    /// How tunnels are sent.
    pub tx: UplinkTx,
    /// Whether workers have the driver look for packets themselves.
    pub busy_poll: bool,
}

/// MTU of the network between the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UplinkMtu {
    /// The MTU of the interface that bears the uplink's address.
    Auto,
    /// This many bytes, outer IP header included.
    Bytes(u16),
}

/// `[uplink]`. At least one of the two addresses is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Device.
    pub kind: UplinkKind,
    /// Our VTEP's IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Our VTEP's IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The NIC, where one is named; `udp` does not look at it.
    pub device: Option<String>,
    /// MTU of the underlay.
    pub mtu: UplinkMtu,
    /// Microseconds it is left alone after a small burst in the midst of a stream; 0 is not at all.
    pub hold_us: u32,
}

/// `[ipam]`. All of it lies inside the pod CIDRs, and no two ranges overlap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ipam {
    /// Where pods' addresses are leased from, in the order they are tried.
    pub ranges: Vec<IpRange>,
    /// Addresses that a pod only gets by asking for them.
    pub reserved: Vec<IpRange>,
}

/// `[vxlan]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vxlan {
    /// Network identifier of the routed tunnel.
    pub vni: Vni,
    /// UDP port that tunnels are received on and sent to; not 0.
    pub port: u16,
    /// Whether the inner DSCP goes into the outer header (RFC 6040 leaves that open); ECN always does.
    pub dscp_copy: bool,
    /// Whether outer UDP datagrams bear a checksum.
    pub outer_checksum: bool,
}

/// `[offloads]`: what kernel and switch may leave to each other. What the kernel does not have is off in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of its own in the file")]
pub struct Offloads {
    /// Checksums that are left open on pods' and host interfaces; `tso` rests on it.
    pub checksum: bool,
    /// TCP super-frames on those; `uso` rests on it.
    pub tso: bool,
    /// UDP super-frames on those.
    pub uso: bool,
    /// Many datagrams in one send on the uplink (`UDP_SEGMENT`).
    pub udp_segment: bool,
    /// Datagrams merged by the kernel on the uplink (`UDP_GRO`).
    pub udp_gro: bool,
}

/// How a worker waits for frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Spins while there is work, sleeps and then blocks when there is none.
    Adaptive,
    /// Never sleeps.
    Busy,
    /// Always blocks.
    Interrupt,
}

/// A list of CPUs, such as `0-1,3`, as written and as numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuList {
    /// As written.
    pub text: String,
    /// The CPUs in the order written, none twice, at least one.
    pub cpus: Vec<usize>,
}

/// `[workers]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workers {
    /// One worker is pinned to each of these; without it there is one worker, pinned where that is allowed.
    pub cpus: Option<CpuList>,
    /// How workers wait.
    pub poll: Poll,
    /// Flows each worker's cache keeps; 0 switches it off.
    pub flow_cache: usize,
}

/// `[control]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// Path of the gRPC service's Unix socket; absolute.
    pub socket: PathBuf,
    /// Directory of the store; absolute.
    pub state_dir: PathBuf,
}

impl Control {
    /// Where the CNI plugin notes what it could not say to podwired.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }
}

/// One thing wrong in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Line, from 1, where the file has one for it.
    pub line: Option<usize>,
    /// The key, as in `node.pod_cidrs`; empty when the file is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// The file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can not be read at all.
    #[error("cannot read the configuration {}: {source}; {}", path.display(), remedy_for_reading(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read, and these things are wrong in it: all that could be found at once.
    #[error("{}", list(path, faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// In the order of the file, those without a line last.
        faults: Vec<Fault>,
    },
}

/// What a reload will change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReloadPlan {
    /// The configuration to run with from now on.
    pub config: Config,
    /// Keys that changed, such as `workers.poll`; empty when nothing did.
    pub changed: Vec<&'static str>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]: the file can not be read, or all that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with all that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::config(text).map_err(|mut faults| {
            faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
            ConfigError::Faults { path: path.to_owned(), faults }
        })
    }

    /// Compares the running configuration with a new one.
    ///
    /// # Errors
    /// The changed keys that need a restart; then nothing of the new configuration is to be used.
    pub fn reload_from(&self, new: Self) -> Result<ReloadPlan, Vec<&'static str>> {
        let changed = || KEYS.iter().filter(|key| (key.differs)(self, &new));
        let stuck: Vec<_> = changed().filter(|key| !key.reloads).map(|key| key.name).collect();
        if !stuck.is_empty() {
            return Err(stuck);
        }
        let changed = changed().map(|key| key.name).collect();
        Ok(ReloadPlan { config: new, changed })
    }

    /// The pods' IPv4 gateway: the first address of their subnet.
    #[must_use]
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.node.pod_v4.map(|net| Ipv4Addr::from_bits(net.network().to_bits() | 1))
    }

    /// The pods' IPv6 gateway: the first address of their subnet.
    #[must_use]
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.node.pod_v6.map(|net| Ipv6Addr::from_bits(net.network().to_bits() | 1))
    }

    /// The gateways of both families, IPv4 first.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.gateway_v4().map(IpAddr::V4);
        v4.into_iter().chain(self.gateway_v6().map(IpAddr::V6))
    }
}

impl Node {
    /// The pod CIDRs of both families, IPv4 first.
    pub fn pod_cidrs(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.pod_v4.map(IpNet::V4).into_iter().chain(self.pod_v6.map(IpNet::V6))
    }
}

impl Uplink {
    /// What only an `xdp` uplink has.
    #[must_use]
    pub fn xdp(&self) -> Option<&XdpUplink> {
        match &self.kind {
            UplinkKind::Xdp(xdp) => Some(xdp),
            UplinkKind::Udp => None,
        }
    }

    /// Our VTEP's addresses of both families, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

fn list(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    lines.join("\n")
}

fn remedy_for_reading(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "write one as docs/configuration.md shows, or name another with --config PATH",
        std::io::ErrorKind::PermissionDenied => "make it readable for podwired's user, or run podwired as root",
        std::io::ErrorKind::InvalidData => "save it as UTF-8 text",
        _ => "name a readable file with --config PATH",
    }
}

#[cfg(test)]
mod tests;
