//! What an owner can state: ports, bridges, static MACs, routes and VTEPs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Bandwidth, BridgeName, Mac, PortName, Vni, VtepName};

/// Who stated an object. Where two state the same one, the owner that stands earlier here wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// The daemon's configuration file.
    File,
    /// The CLI, or another direct user of the API.
    Cli,
    /// The CNI plugin.
    Cni,
    /// The Kubernetes API.
    Kubernetes,
    /// etcd.
    Etcd,
    /// The kernel's routes.
    Kernel,
}

impl Owner {
    /// All, in order of precedence.
    pub const ALL: [Self; 6] = [Self::File, Self::Cli, Self::Cni, Self::Kubernetes, Self::Etcd, Self::Kernel];

    /// The name the CLI shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Cli => "cli",
            Self::Cni => "cni",
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Kernel => "kernel",
        }
    }

    /// Whether the owner states its objects through the API; the others are the daemon's own sources.
    #[must_use]
    pub fn may_use_api(self) -> bool {
        !matches!(self, Self::File | Self::Kernel)
    }
}

/// The device behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortKind {
    /// A TAP with super-frames, inside the pod's network namespace.
    Tap,
    /// A veth pair whose other end the switch serves with AF_XDP: for small packets.
    VethXdp,
}

impl PortKind {
    /// All of them, the usual one first.
    pub const ALL: [Self; 2] = [Self::Tap, Self::VethXdp];

    /// The name in commands, files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::VethXdp => "veth-xdp",
        }
    }
}

/// Whether a port may send with other source addresses than its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Own MAC and IP addresses only, and these prefixes beside them.
    On {
        /// Source prefixes allowed beside the port's own addresses.
        allowed: Vec<IpNet>,
    },
    /// Anything.
    Off,
}

/// One pod's interface on the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Unique name.
    pub name: PortName,
    /// Device.
    pub kind: PortKind,
    /// Path of the pod's network namespace (an nsfs file, such as `/run/netns/a`).
    pub netns: PathBuf,
    /// Interface name inside the namespace.
    pub ifname: String,
    /// Addresses with the prefix length the pod sees, such as 10.244.1.10/24.
    pub addresses: Vec<IpNet>,
    /// MAC; derived from the first address (or the name) when not given.
    pub mac: Option<Mac>,
    /// MTU in bytes; the tunnel's when not given.
    pub mtu: Option<u16>,
    /// Bridge; the node's pod segment when not given.
    pub bridge: Option<BridgeName>,
    /// Spoof guard.
    pub guard: Guard,
    /// How fast it may be.
    pub bandwidth: Bandwidth,
}

/// An L2 segment beside the node's pod segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// Unique name.
    pub name: BridgeName,
    /// Present when the segment is stretched over VXLAN to other nodes.
    pub vni: Option<Vni>,
    /// VTEPs that broadcast, unknown unicast and multicast are sent to; only with a VNI.
    pub flood: Vec<VtepName>,
    /// Whether tagged frames pass.
    pub vlan_transparent: bool,
}

/// A MAC address pinned to a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticMac {
    /// Bridge; the node's pod segment when not given.
    pub bridge: Option<BridgeName>,
    /// Address.
    pub mac: Mac,
    /// Where it lives.
    pub port: PortName,
}

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// To another node.
    Vtep(VtepName),
    /// To a pod behind this port (the port's MAC is the next hop's).
    Port(PortName),
    /// To the node's own stack.
    Host,
    /// Nowhere, silently.
    Blackhole,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destination; host bits are zero.
    pub prefix: IpNet,
    /// Next hop.
    pub via: Via,
}

/// One address of a remote VTEP and the MAC its inner frames are addressed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint<A> {
    /// Underlay address.
    pub remote: A,
    /// Inner destination MAC.
    pub mac: Mac,
}

/// A remote tunnel endpoint: at least one of the two families is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vtep {
    /// Unique name, usually the node's.
    pub name: VtepName,
    /// Endpoint reached over IPv4; carries inner IPv4, and inner IPv6 when alone.
    pub v4: Option<Endpoint<Ipv4Addr>>,
    /// Endpoint reached over IPv6; carries inner IPv6, and inner IPv4 when alone.
    pub v6: Option<Endpoint<Ipv6Addr>>,
    /// VNI when it differs from the configured one.
    pub vni: Option<Vni>,
}

/// One object.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Object {
    Port(Port),
    Bridge(Bridge),
    Mac(StaticMac),
    Route(Route),
    Vtep(Vtep),
}

/// What names an object: two objects with one key are the same object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Key {
    Bridge(BridgeName),
    Vtep(VtepName),
    Port(PortName),
    Mac { bridge: Option<BridgeName>, mac: Mac },
    Route(IpNet),
}

impl Object {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Port(port) => Key::Port(port.name.clone()),
            Self::Bridge(bridge) => Key::Bridge(bridge.name.clone()),
            Self::Mac(mac) => Key::Mac { bridge: mac.bridge.clone(), mac: mac.mac },
            Self::Route(route) => Key::Route(route.prefix),
            Self::Vtep(vtep) => Key::Vtep(vtep.name.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(name) => write!(f, "port {name}"),
            Self::Bridge(name) => write!(f, "bridge {name}"),
            Self::Vtep(name) => write!(f, "vtep {name}"),
            Self::Route(prefix) => write!(f, "route {prefix}"),
            Self::Mac { bridge: None, mac } => write!(f, "mac {mac}"),
            Self::Mac { bridge: Some(bridge), mac } => write!(f, "mac {mac} on bridge {bridge}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no owner.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no owner: use file, cli, cni, kubernetes, etcd or kernel")]
pub struct OwnerError(pub String);

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        Self::ALL.into_iter().find(|owner| owner.name() == text).ok_or_else(|| OwnerError(text.to_owned()))
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vtep(name) => write!(f, "{name}"),
            Self::Port(name) => write!(f, "port {name}"),
            Self::Host => f.write_str("host"),
            Self::Blackhole => f.write_str("blackhole"),
        }
    }
}

impl Port {
    /// The MAC it has: the one stated, else the one that follows from its first address or its name.
    #[must_use]
    pub fn mac_in_force(&self) -> Mac {
        self.mac.unwrap_or_else(|| match self.addresses.first() {
            Some(first) => Mac::of_ip(first.addr()),
            None => Mac::of_name("port", self.name.as_str()),
        })
    }
}

impl Vtep {
    /// The endpoint for an inner packet of `inner`'s family: its own family's, else the other.
    #[must_use]
    pub fn endpoint(&self, inner_is_v6: bool) -> Option<Endpoint<IpAddr>> {
        let v4 = self.v4.map(|end| Endpoint { remote: IpAddr::V4(end.remote), mac: end.mac });
        let v6 = self.v6.map(|end| Endpoint { remote: IpAddr::V6(end.remote), mac: end.mac });
        if inner_is_v6 { v6.or(v4) } else { v4.or(v6) }
    }
}
