//! What the switch says about its state and its tables: plain answers, free of the protocol's types.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Bandwidth, Guard, Mac, Owner, Route, Vni};

/// Where the tunnels leave the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// `udp` or `xdp`.
    pub kind: String,
    /// Our VTEP addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Device, where the kind has one.
    pub device: Option<String>,
    /// The underlay's MTU in bytes.
    pub mtu: u32,
    /// How it receives, when it is `xdp`.
    pub xdp: Option<XdpReport>,
}

/// How an `xdp` uplink receives and sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpReport {
    /// `zerocopy`, `native` or `generic`; `udp` when the NIC can do none of them and the UDP sockets serve alone.
    pub mode: String,
    /// Why each better mode was passed over, in the order they were tried.
    pub passed_over: Vec<String>,
    /// Receive queues served.
    pub queues: u32,
    /// `udp` or `xdp`.
    pub tx: String,
    /// Why it sends so.
    pub tx_why: String,
    /// Whether workers have the NIC's driver look for packets themselves, and if not all do, why.
    pub busy_poll: String,
}

/// One worker.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerReport {
    /// Number, from 0.
    pub id: u32,
    /// CPU it is pinned to; none when unpinned.
    pub cpu: Option<u32>,
    /// `busy`, `adaptive` or `interrupt`.
    pub poll: String,
    /// Frames received since start.
    pub frames: u64,
    /// Passes since start.
    pub passes: u64,
    /// Recent frames a pass: the load, since CPU use says nothing when polling.
    pub frames_per_pass: f64,
}

/// One offload and why it is as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffloadReport {
    /// Name, as in `udp_segment`.
    pub name: String,
    /// Whether it is used.
    pub on: bool,
    /// Probed, switched off by hand, switched itself off on an error.
    pub why: String,
}

/// How many objects there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ObjectCounts {
    pub ports: u64,
    pub bridges: u64,
    pub routes: u64,
    pub vteps: u64,
    pub macs: u64,
}

/// What the switch is and how it is doing.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// podwired's version.
    pub version: String,
    /// Number of the snapshot that every worker uses.
    pub generation: u64,
    /// Seconds since start.
    pub uptime_s: u64,
    /// MAC that other nodes address inner frames to.
    pub vtep_mac: Mac,
    /// The same for the IPv6 endpoint, only where it differs.
    pub vtep_mac6: Option<Mac>,
    /// The gateway's MAC.
    pub gateway_mac: Mac,
    /// This node's pod subnets.
    pub pod_cidrs: Vec<IpNet>,
    /// What the node routes through the switch.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where the tunnels leave; none when there is no uplink.
    pub uplink: Option<Uplink>,
    /// Largest inner packet in bytes.
    pub tunnel_mtu: u32,
    /// Configured VNI.
    pub vni: Vni,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// The node's own interface on the switch.
    pub host_interface: String,
    /// Workers.
    pub workers: Vec<WorkerReport>,
    /// Offloads.
    pub offloads: Vec<OffloadReport>,
    /// Counts of objects.
    pub counts: ObjectCounts,
    /// What an operator should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Frames as the device gave them, segments, bytes and drops of one port, in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_frames: u64,
    pub rx_segments: u64,
    pub rx_bytes: u64,
    pub rx_drops: u64,
    pub tx_frames: u64,
    pub tx_segments: u64,
    pub tx_bytes: u64,
    pub tx_drops: u64,
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortRole {
    /// A pod's interface.
    Pod,
    /// The node's own.
    Host,
    /// Where tunnels leave the node.
    Uplink,
    /// A remote VTEP.
    Tunnel,
}

impl PortRole {
    /// The word the CLI shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Host => "host",
            Self::Uplink => "uplink",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Whether frames pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortState {
    /// They do.
    Up,
    /// They do not.
    Closed {
        /// Why, as in `its namespace is gone`.
        reason: String,
    },
}

/// A port of any role, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortReport {
    /// Slot in the switch.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Who stated it.
    pub owner: Owner,
    /// What it is for.
    pub role: PortRole,
    /// Device behind it: `tap`, `udp`, `xdp`.
    pub device: String,
    /// Namespace, where it has one.
    pub netns: Option<PathBuf>,
    /// Interface name, where it has one.
    pub ifname: Option<String>,
    /// Addresses with prefix length.
    pub addresses: Vec<IpNet>,
    /// MAC in force, where it has one.
    pub mac: Option<Mac>,
    /// MTU in force, in bytes.
    pub mtu: u32,
    /// Bridge; none for the node's pod segment.
    pub bridge: Option<String>,
    /// Spoof guard, where there is one to speak of.
    pub guard: Option<Guard>,
    /// How fast it may be.
    pub bandwidth: Bandwidth,
    /// Whether frames pass.
    pub state: PortState,
    /// Its counters since it was added.
    pub counters: PortCounters,
}

/// A bridge, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BridgeReport {
    /// Name.
    pub name: String,
    /// Who stated it.
    pub owner: Owner,
    /// VNI when stretched.
    pub vni: Option<Vni>,
    /// VTEPs flooded to.
    pub flood: Vec<String>,
    /// Whether tagged frames pass.
    pub vlan_transparent: bool,
    /// Members.
    pub ports: Vec<String>,
    /// MACs known on it.
    pub macs: u64,
}

/// A MAC in a bridge's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MacReport {
    /// Bridge.
    pub bridge: String,
    /// Address.
    pub mac: Mac,
    /// Where it lives.
    pub port: String,
    /// Who pinned it; none when it was learned.
    pub pinned_by: Option<Owner>,
    /// Seconds since it was seen.
    pub age_s: u64,
}

/// A route and whether it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteReport {
    /// The route.
    pub route: Route,
    /// Who stated it.
    pub owner: Owner,
    /// Another owner's route for the same prefix wins.
    pub shadowed: bool,
}

/// The route that an address takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteMatch {
    /// Longest matching prefix and its next hop.
    pub route: Route,
    /// Who stated it.
    pub owner: Owner,
}

/// One endpoint of a remote VTEP, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointReport {
    /// Underlay address.
    pub remote: IpAddr,
    /// Inner destination MAC.
    pub mac: Mac,
    /// Largest outer packet in bytes known to reach it.
    pub path_mtu: u32,
    /// `udp` or `xdp`: what tunnels to it are sent through.
    pub sent_by: String,
    /// The next hop of `xdp`, or why it is `udp` where `xdp` is asked for; else empty.
    pub sent_by_why: String,
}

/// A remote VTEP, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VtepReport {
    /// Name.
    pub name: String,
    /// Who stated it.
    pub owner: Owner,
    /// VNI in force.
    pub vni: Vni,
    /// One or two.
    pub endpoints: Vec<EndpointReport>,
    /// Frames to and from it.
    pub counters: PortCounters,
}
