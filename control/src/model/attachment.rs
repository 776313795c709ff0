//! A container's interface on the switch, as the CNI plugin asks for it (CNI specification 1.1.0): who it is for, what it
//! is to have, and what it got.
//!
//! The port that comes of it is an object of the owner `cni` like any other; what stands here is what only a container
//! runtime speaks of.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Bandwidth, ContainerId, Mac, NetworkName, PortKind, PortName};

/// What names an attachment: no container has two interfaces of one name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AttachmentKey {
    /// The container; of a pod, its sandbox.
    pub container: ContainerId,
    /// Interface name inside the namespace.
    pub ifname: String,
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {}", self.ifname, self.container)
    }
}

/// A Kubernetes pod, to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodName {
    /// Namespace, in the API's sense.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where an attachment's addresses come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressSource {
    /// podwired leases them: one of each family the node has pod CIDRs of.
    Lease {
        /// Addresses asked for, at most one a family, instead of the next free ones.
        wanted: Vec<IpAddr>,
    },
    /// Another IPAM plugin has given them, with the prefix length the pod sees.
    Given(Vec<IpNet>),
}

/// Transport of a host port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The name the CNI conventions and nftables give it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to one of the pod (CNI conventions, `portMappings`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// The node's address it is open on; all of them when not given.
    pub host_ip: Option<IpAddr>,
    /// Port of the node; never 0.
    pub host_port: u16,
    /// Port of the pod; never 0.
    pub container_port: u16,
    /// Transport.
    pub transport: Transport,
}

/// What a container's interface is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachRequest {
    /// Whose it is.
    pub key: AttachmentKey,
    /// Name of the CNI network.
    pub network: NetworkName,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// The pod it belongs to, where the runtime says so.
    pub pod: Option<PodName>,
    /// Device.
    pub kind: PortKind,
    /// Its addresses.
    pub addresses: AddressSource,
    /// MAC; derived from the first address when not given.
    pub mac: Option<Mac>,
    /// MTU in bytes; the tunnel's when not given.
    pub mtu: Option<u16>,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// How fast it may be.
    pub bandwidth: Bandwidth,
}

/// A container's interface, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Whose it is.
    pub key: AttachmentKey,
    /// Name of the CNI network.
    pub network: NetworkName,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// The pod it belongs to, where the runtime said so.
    pub pod: Option<PodName>,
    /// The switch's port.
    pub port: PortName,
    /// Device.
    pub kind: PortKind,
    /// Addresses, with the prefix length the pod sees.
    pub addresses: Vec<IpNet>,
    /// Whether podwired leased them; else another IPAM plugin gave them.
    pub leased: bool,
    /// Gateways, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// MAC.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u16,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// How fast it may be.
    pub bandwidth: Bandwidth,
}

/// Whether containers can be attached, and how those that are fare.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// Why no container can be attached at the moment, and what to do; none when it can.
    pub cannot_attach: Option<String>,
    /// What those that are attached suffer from, and what to do; none when they are fine.
    pub pods_suffer: Option<String>,
}
