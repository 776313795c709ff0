//! Everything the pipeline may read: immutable, numbered, published whole.
//!
//! `compile` builds snapshots, `switch` publishes them, workers read them. Tables are separate `Arc`s, so that a
//! change rebuilds only what it touched. What changes inside is each bridge's [`MacTable`], each tunnel's path MTU and
//! how far each port's limits are spent, which survive snapshots and are atomic.

mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use ipnet::IpNet;
use podwire_control::model::{Endpoint, Mac, Vni};

use crate::id::{BridgeId, PortId, VtepId};
use crate::table::fast_map::FastMap;
use crate::table::fib::Fib;
use crate::table::mac::MacTable;
use crate::wire::vxlan;

pub use ports::{Inlet, PortBrief, PortEntry, PortLimits, PortTable, SourceGuard};

/// One generation of the switch's configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Number of this generation; the first published is 1.
    pub generation: u64,
    /// When its tables changed last.
    pub epochs: Epochs,
    /// The node's own addresses.
    pub node: Arc<Node>,
    /// Ports, by slot.
    pub ports: Arc<PortTable>,
    /// Bridges, by slot; slot 0 is the node's pod segment.
    pub bridges: Arc<Vec<Option<BridgeEntry>>>,
    /// Routes.
    pub fib: Arc<RouteTable>,
    /// Remote tunnel endpoints.
    pub vteps: Arc<VtepTable>,
}

/// A table of a snapshot that a decision may rest on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// [`Snapshot::node`].
    Node,
    /// [`Snapshot::bridges`], but for who belongs to them: a member that comes or goes changes floods only.
    Bridges,
    /// [`Snapshot::fib`].
    Fib,
    /// [`Snapshot::vteps`], but for their path MTUs.
    Vteps,
}

/// A set of [`Table`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tables(u8);

impl Tables {
    /// The node alone, which every decision rests on.
    pub const NODE: Self = Self(1 << Table::Node as u8);

    /// With one more.
    #[must_use]
    pub const fn and(self, table: Table) -> Self {
        Self(self.0 | 1 << table as u8)
    }
}

/// The generation in which each table became what it is, so that what was concluded from some of them outlives
/// changes of the others. A port has its own, [`PortEntry::epoch`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Epochs {
    tables: [u64; 4],
    /// The latest of each set of tables.
    latest: [u64; 16],
}

impl Epochs {
    /// Each table's, in the order of [`Table`].
    #[must_use]
    pub fn new(tables: [u64; 4]) -> Self {
        let member = |set: usize, at: usize| if set >> at & 1 == 1 { tables[at] } else { 0 };
        let latest = |set: usize| (0..4).map(|at| member(set, at)).max().unwrap_or(0);
        Self { tables, latest: std::array::from_fn(latest) }
    }

    /// The generation in which a table became what it is.
    #[must_use]
    pub fn of(&self, table: Table) -> u64 {
        self.tables[table as usize]
    }

    /// The latest generation in which one of these tables changed.
    #[inline]
    #[must_use]
    pub fn latest(&self, tables: Tables) -> u64 {
        self.latest[usize::from(tables.0 & 0xf)]
    }
}

/// The node's pod segment.
pub const POD_SEGMENT: BridgeId = BridgeId(0);

/// What the switch knows of its own node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// The gateway's MAC; the host port bears it.
    pub gateway_mac: Mac,
    /// Inner source MAC of routed tunnel traffic, and what remote nodes address.
    pub vtep_mac: Mac,
    /// Gateway and router address over IPv4.
    pub v4: Option<Gateway<Ipv4Addr>>,
    /// Gateway and router address over IPv6.
    pub v6: Option<Gateway<Ipv6Addr>>,
    /// VNI of routed traffic between nodes.
    pub vni: Vni,
    /// Destinations the host port may resolve: what the node routes through the switch.
    pub cluster_cidrs: Vec<IpNet>,
    /// The host port, when there is one.
    pub host: Option<PortId>,
    /// The uplink port, when there is one.
    pub uplink: Option<PortId>,
    /// MTU of the underlay in bytes, outer IP header included.
    pub underlay_mtu: u16,
    /// Copy the inner DSCP to the outer header as well (RFC 2983 uniform model).
    pub copy_dscp: bool,
}

/// One family's addresses of the node on its pod segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gateway<A> {
    /// What pods use as next hop, and the host port bears: the first address of the pod CIDR.
    pub address: A,
    /// What the switch itself speaks from towards the host, which would refuse packets from its own address:
    /// the pod CIDR's network address, as flannel's tunnel devices have it.
    pub router: A,
}

impl Node {
    /// Largest inner L3 packet towards a remote address, by the underlay's MTU alone.
    #[must_use]
    pub fn tunnel_mtu(&self, remote: IpAddr) -> u16 {
        inner_mtu(self.underlay_mtu, remote)
    }
}

/// Largest inner L3 packet for an underlay MTU.
#[must_use]
pub fn inner_mtu(underlay_mtu: u16, remote: IpAddr) -> u16 {
    let overhead = if remote.is_ipv6() { vxlan::OVERHEAD_V6 } else { vxlan::OVERHEAD_V4 };
    usize::from(underlay_mtu).saturating_sub(overhead).try_into().unwrap_or(0)
}

/// The least that a path is believed to carry, outer IP header included, whatever the underlay says of it. Over IPv4
/// what leaves the inner packet the 68 bytes that every path has to carry (RFC 791, section 3.2; RFC 1191, section 3:
/// never below); over IPv6 the smallest MTU a link may have (RFC 8201, section 4: never below).
#[must_use]
pub fn path_mtu_min(remote: IpAddr) -> u16 {
    match remote {
        IpAddr::V4(_) => 68 + 50,
        IpAddr::V6(_) => 1_280,
    }
}

/// What a port is to the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A pod's interface.
    Pod,
    /// The node's own interface.
    Host,
    /// Where tunnelled datagrams come in and go out.
    Uplink,
    /// A remote VTEP, seen as a port.
    Tunnel(VtepId),
}

/// One L2 segment.
#[derive(Clone, Debug)]
pub struct BridgeEntry {
    /// Name, as configured.
    pub name: String,
    /// Local members.
    pub members: Vec<PortId>,
    /// Tunnel ports that floods are sent to.
    pub flood_tunnels: Vec<PortId>,
    /// Its VNI, when it is stretched over VXLAN.
    pub vni: Option<Vni>,
    /// Whether tagged frames pass.
    pub vlan_transparent: bool,
    /// Learned and static addresses; shared by all workers and generations.
    pub macs: Arc<MacTable>,
}

impl BridgeEntry {
    /// Whether it is the same bridge, whoever belongs to it.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let spec = |entry: &Self| (entry.vni, entry.vlan_transparent);
        self.name == other.name && spec(self) == spec(other) && Arc::ptr_eq(&self.macs, &other.macs)
    }
}

/// Where a routed packet goes next; fully resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// A pod on this node.
    Local {
        /// Its port.
        port: PortId,
        /// Its MAC.
        mac: Mac,
    },
    /// An address of the node's pod subnet that no pod has.
    NoSuchPod,
    /// Another node.
    Vtep(VtepId),
    /// The node's own stack, for a destination a route gives to it.
    Host,
    /// The node's own stack, for a destination outside the cluster.
    Outside,
    /// A cluster address nobody has said the way to.
    NoRoute,
    /// Nowhere, silently.
    Blackhole,
}

/// The routes of both families over one array of next hops.
#[derive(PartialEq, Eq, Debug)]
pub struct RouteTable {
    /// IPv4 prefixes to indices of `next_hops`.
    pub v4: Fib<Ipv4Addr>,
    /// IPv6 prefixes to indices of `next_hops`.
    pub v6: Fib<Ipv6Addr>,
    /// Next hops.
    pub next_hops: Vec<NextHop>,
}

impl RouteTable {
    /// The way to an address, with the length of the prefix that decided it.
    #[must_use]
    pub fn lookup_prefix(&self, address: IpAddr) -> Option<(u8, NextHop)> {
        let (len, index) = match address {
            IpAddr::V4(v4) => self.v4.lookup_prefix(v4)?,
            IpAddr::V6(v6) => self.v6.lookup_prefix(v6)?,
        };
        Some((len, *self.next_hops.get(index as usize)?))
    }

    /// The way to an address.
    #[must_use]
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<NextHop> {
        let index = match address {
            IpAddr::V4(v4) => self.v4.lookup(v4)?,
            IpAddr::V6(v6) => self.v6.lookup(v6)?,
        };
        self.next_hops.get(index as usize).copied()
    }
}

/// A remote tunnel endpoint.
#[derive(Debug)]
pub struct VtepEntry {
    /// Name, as configured.
    pub name: String,
    /// Its logical port.
    pub port: PortId,
    /// Endpoint for inner IPv4, then for inner IPv6; each its own family's, else the other.
    pub endpoints: [Option<Endpoint<IpAddr>>; 2],
    /// VNI of routed traffic to it.
    pub vni: Vni,
    /// Underlay MTU towards it as the underlay has told, `u16::MAX` while it has told nothing; survives snapshots.
    pub path_mtu: Arc<AtomicU16>,
}

impl VtepEntry {
    /// The endpoint for an inner packet's family.
    #[must_use]
    pub fn endpoint(&self, inner_is_v6: bool) -> Option<Endpoint<IpAddr>> {
        self.endpoints[usize::from(inner_is_v6)]
    }

    /// Largest inner L3 packet towards it over the endpoint at `remote`.
    #[must_use]
    pub fn mtu(&self, node: &Node, remote: IpAddr) -> u16 {
        node.tunnel_mtu(remote).min(inner_mtu(self.path_mtu(remote), remote))
    }

    /// What the underlay is believed to carry to the endpoint at `remote`; `u16::MAX` while it has told nothing. Both
    /// endpoints share what was told of either, which may be less than the other's family can have.
    #[must_use]
    pub fn path_mtu(&self, remote: IpAddr) -> u16 {
        self.path_mtu.load(Ordering::Relaxed).max(path_mtu_min(remote))
    }
}

/// The same VTEP with the same path MTU, not one that happens to be equal now.
impl PartialEq for VtepEntry {
    fn eq(&self, other: &Self) -> bool {
        let spec = |entry: &Self| (entry.port, entry.endpoints, entry.vni);
        self.name == other.name && spec(self) == spec(other) && Arc::ptr_eq(&self.path_mtu, &other.path_mtu)
    }
}

/// Remote VTEPs, by slot and by underlay address.
#[derive(PartialEq, Debug, Default)]
pub struct VtepTable {
    /// By slot.
    pub entries: Vec<Option<VtepEntry>>,
    /// By underlay address.
    pub by_remote: FastMap<IpAddr, VtepId>,
    /// Stretched bridges, by VNI.
    pub bridge_by_vni: FastMap<Vni, BridgeId>,
    /// VNIs of routed traffic: the configured one, and those of VTEPs with one of their own.
    pub routed_vnis: Vec<Vni>,
}

impl VtepTable {
    /// The VTEP in a slot.
    #[must_use]
    pub fn get(&self, id: VtepId) -> Option<&VtepEntry> {
        self.entries.get(id.index())?.as_ref()
    }
}

impl Snapshot {
    /// The port in a slot.
    #[must_use]
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(id.index())?.as_ref()
    }

    /// The bridge in a slot.
    #[must_use]
    #[inline]
    pub fn bridge(&self, id: BridgeId) -> Option<&BridgeEntry> {
        self.bridges.get(id.index())?.as_ref()
    }
}
