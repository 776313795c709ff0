//! From what is wanted and what is there to a [`Snapshot`]: pure, and deterministic in its inputs.
//!
//! Slots of objects that stay are kept from the previous snapshot, as are their MAC tables and learned path MTUs.
//! Objects were checked against each other before (the daemon's ledger); what still does not fit, such as a port
//! whose device is not open, is left out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use ipnet::IpNet;
use podwire_control::model::{self, Guard, Key, Mac, Object, Via, Vni};

use crate::id::{BridgeId, PortId, VtepId};
use crate::limits::{BRIDGES_MAX, MACS_PER_BRIDGE, PORTS_MAX, VTEPS_MAX};
use crate::port::PortCaps;
use crate::snapshot::{
    BridgeEntry, Epochs, Gateway, NextHop, Node, POD_SEGMENT, PortEntry, PortLimits, PortTable, Role, RouteTable,
    Snapshot, SourceGuard, Table, VtepEntry, VtepTable,
};
use crate::table::fib::Fib;
use crate::table::mac::MacTable;

/// Name of the host port's slot.
pub const HOST_PORT: &str = "host";
/// Name of the uplink port's slot.
pub const UPLINK_PORT: &str = "uplink";
/// Name of the node's pod segment.
pub const POD_SEGMENT_NAME: &str = "pods";

/// What is said of the node by its configuration and its kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// Name; VTEP MACs derive from it.
    pub name: String,
    /// Pod subnets, at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// What the node routes through the switch.
    pub cluster_cidrs: Vec<IpNet>,
    /// VNI of routed traffic.
    pub vni: Vni,
    /// Underlay MTU in bytes.
    pub underlay_mtu: u16,
    /// Copy the DSCP to the outer header.
    pub copy_dscp: bool,
}

impl NodeSpec {
    /// The gateway's MAC: derived from its IPv4 address, else its IPv6 address.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        let first = self.gateways().find(IpAddr::is_ipv4).or_else(|| self.gateways().next());
        first.map_or_else(|| Mac::of_name("gateway", &self.name), Mac::of_ip)
    }

    /// The MAC remote nodes address routed traffic to.
    #[must_use]
    pub fn vtep_mac(&self) -> Mac {
        Mac::of_name("vtep", &self.name)
    }

    /// The first address of each pod subnet.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.pod_cidrs.iter().map(|cidr| first_address(*cidr))
    }
}

/// The address behind the network address.
fn first_address(cidr: IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).saturating_add(1))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).saturating_add(1))),
    }
}

/// An open device behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its MAC.
    pub mac: Mac,
    /// Largest L3 packet in bytes.
    pub mtu: u16,
    /// What it carries.
    pub caps: PortCaps,
}

/// Everything a snapshot is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The node.
    pub node: &'a NodeSpec,
    /// What all owners together want, no key twice, in key order.
    pub objects: &'a [&'a Object],
    /// Open devices by port name, [`HOST_PORT`] and [`UPLINK_PORT`] among them.
    pub devices: &'a HashMap<String, Device>,
    /// What is published now.
    pub previous: &'a Snapshot,
}

/// A MAC that is pinned to a port; the publisher brings the bridges' tables in line with these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PinnedMac {
    /// Bridge.
    pub bridge: BridgeId,
    /// Address.
    pub mac: Mac,
    /// Port.
    pub port: PortId,
}

/// A snapshot to publish, and the MACs to pin.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The snapshot, numbered one above the previous.
    pub snapshot: Snapshot,
    /// Pinned MACs, sorted.
    pub pinned: Vec<PinnedMac>,
    /// Ports, VTEPs and bridges without a place: those that go with this snapshot keep their slots until the next one.
    pub left_out: Vec<Key>,
}

/// The snapshot of a switch with nothing in it.
#[must_use]
pub fn empty(node: &NodeSpec) -> Snapshot {
    let compiler = Compiler::default();
    Snapshot {
        generation: 0,
        epochs: Epochs::default(),
        node: Arc::new(compiler.node(node)),
        ports: Arc::default(),
        bridges: Arc::default(),
        fib: Arc::new(RouteTable { v4: Fib::build([]), v6: Fib::build([]), next_hops: Vec::new() }),
        vteps: Arc::default(),
    }
}

/// Makes the next snapshot.
#[must_use]
pub fn compile(inputs: &Inputs<'_>) -> Compiled {
    let mut compiler = Compiler::default();
    compiler.assign_slots(inputs);
    let mut pinned = Vec::new();
    let vteps = compiler.vteps(inputs);
    let bridges = compiler.bridges(inputs, &mut pinned);
    let previous = inputs.previous;
    let generation = previous.generation + 1;
    let ports = compiler.ports(inputs, generation);
    let fib = compiler.routes(inputs);
    pinned.sort_unstable();
    let mut snapshot = Snapshot {
        generation,
        epochs: Epochs::default(),
        node: keep(&previous.node, compiler.node(inputs.node)),
        ports: keep(&previous.ports, PortTable::new(ports)),
        bridges: Arc::new(bridges),
        fib: keep(&previous.fib, fib),
        vteps: keep(&previous.vteps, vteps),
    };
    snapshot.epochs = epochs(previous, &snapshot);
    Compiled { snapshot, pinned, left_out: compiler.left_out(inputs) }
}

/// When the tables of `next` changed last.
fn epochs(previous: &Snapshot, next: &Snapshot) -> Epochs {
    let epoch = |table, same| if same { previous.epochs.of(table) } else { next.generation };
    let bridge_is_same = |(old, new): (&Option<BridgeEntry>, &Option<BridgeEntry>)| match (old, new) {
        (Some(old), Some(new)) => old.is_as(new),
        (old, new) => old.is_none() && new.is_none(),
    };
    let (old, new) = (&previous.bridges, &next.bridges);
    let bridges_are_same = old.len() == new.len() && old.iter().zip(new.iter()).all(bridge_is_same);
    Epochs::new([
        epoch(Table::Node, Arc::ptr_eq(&previous.node, &next.node)),
        epoch(Table::Bridges, bridges_are_same),
        epoch(Table::Fib, Arc::ptr_eq(&previous.fib, &next.fib)),
        epoch(Table::Vteps, Arc::ptr_eq(&previous.vteps, &next.vteps)),
    ])
}

/// The old `Arc` when nothing changed in it.
fn keep<T: PartialEq>(old: &Arc<T>, new: T) -> Arc<T> {
    if **old == new { Arc::clone(old) } else { Arc::new(new) }
}

/// Names to slots, while a snapshot is made.
#[derive(Default)]
struct Compiler {
    ports: HashMap<String, PortId>,
    tunnels: HashMap<String, (VtepId, PortId)>,
    bridges: HashMap<String, BridgeId>,
}

/// Gives each name the slot it had, and new names the lowest slots nobody has or had, while there are some.
fn slots(wanted: Vec<String>, had: &HashMap<String, usize>, max: usize) -> HashMap<String, usize> {
    let taken: HashSet<usize> = had.values().copied().collect();
    let mut fresh = (0..max).filter(|slot| !taken.contains(slot));
    wanted
        .into_iter()
        .filter_map(|name| {
            let slot = had.get(&name).copied().or_else(|| fresh.next())?;
            Some((name, slot))
        })
        .collect()
}

fn tunnel_key(name: &str) -> String {
    // A slash can not stand in a name, so a tunnel never takes a port's slot for its own.
    format!("vtep/{name}")
}

fn slot_u16(slot: usize) -> u16 {
    u16::try_from(slot).unwrap_or(u16::MAX)
}

impl Compiler {
    fn assign_slots(&mut self, inputs: &Inputs<'_>) {
        let previous = inputs.previous;
        let mut wanted: Vec<String> = Vec::new();
        for reserved in [HOST_PORT, UPLINK_PORT] {
            if inputs.devices.contains_key(reserved) {
                wanted.push(reserved.to_owned());
            }
        }
        let mut vtep_names = Vec::new();
        let mut bridge_names = vec![POD_SEGMENT_NAME.to_owned()];
        for object in inputs.objects {
            match object {
                Object::Port(port) if inputs.devices.contains_key(port.name.as_str()) => {
                    wanted.push(port.name.to_string());
                }
                Object::Vtep(vtep) => {
                    wanted.push(tunnel_key(vtep.name.as_str()));
                    vtep_names.push(vtep.name.to_string());
                }
                Object::Bridge(bridge) => bridge_names.push(bridge.name.to_string()),
                _ => {}
            }
        }
        let had: HashMap<String, usize> = occupied(&previous.ports)
            .map(|(slot, port)| match port.role {
                Role::Tunnel(_) => (tunnel_key(&port.name), slot),
                _ => (port.name.clone(), slot),
            })
            .collect();
        let ports = slots(wanted, &had, PORTS_MAX);
        let had = occupied(&previous.vteps.entries).map(|(slot, vtep)| (vtep.name.clone(), slot)).collect();
        for (name, slot) in slots(vtep_names, &had, VTEPS_MAX) {
            if let Some(&port) = ports.get(&tunnel_key(&name)) {
                self.tunnels.insert(name, (VtepId(slot_u16(slot)), PortId(slot_u16(port))));
            }
        }
        let had = occupied(&previous.bridges).map(|(slot, bridge)| (bridge.name.clone(), slot)).collect();
        let bridges = slots(bridge_names, &had, BRIDGES_MAX);
        self.bridges = bridges.into_iter().map(|(name, slot)| (name, BridgeId(slot_u16(slot)))).collect();
        let ports = ports.into_iter().filter(|(name, _)| !name.contains('/'));
        self.ports = ports.map(|(name, slot)| (name, PortId(slot_u16(slot)))).collect();
    }

    fn left_out(&self, inputs: &Inputs<'_>) -> Vec<Key> {
        let placed = |object: &Object| match object {
            Object::Port(port) => {
                let name = port.name.as_str();
                !inputs.devices.contains_key(name) || self.ports.contains_key(name)
            }
            Object::Vtep(vtep) => self.tunnels.contains_key(vtep.name.as_str()),
            Object::Bridge(bridge) => self.bridges.contains_key(bridge.name.as_str()),
            Object::Mac(_) | Object::Route(_) => true,
        };
        inputs.objects.iter().filter(|object| !placed(object)).map(|object| object.key()).collect()
    }

    fn node(&self, spec: &NodeSpec) -> Node {
        let mut v4 = None;
        let mut v6 = None;
        for &cidr in &spec.pod_cidrs {
            match (cidr.network(), first_address(cidr)) {
                (IpAddr::V4(router), IpAddr::V4(address)) => v4 = Some(Gateway { address, router }),
                (IpAddr::V6(router), IpAddr::V6(address)) => v6 = Some(Gateway { address, router }),
                _ => {}
            }
        }
        Node {
            gateway_mac: spec.gateway_mac(),
            vtep_mac: spec.vtep_mac(),
            v4,
            v6,
            vni: spec.vni,
            cluster_cidrs: spec.cluster_cidrs.clone(),
            host: self.ports.get(HOST_PORT).copied(),
            uplink: self.ports.get(UPLINK_PORT).copied(),
            underlay_mtu: spec.underlay_mtu,
            copy_dscp: spec.copy_dscp,
        }
    }

    fn vteps(&self, inputs: &Inputs<'_>) -> VtepTable {
        let mut table = VtepTable { routed_vnis: vec![inputs.node.vni], ..VtepTable::default() };
        for vtep in vteps(inputs) {
            let Some(&(id, port)) = self.tunnels.get(vtep.name.as_str()) else { continue };
            let endpoints = [vtep.endpoint(false), vtep.endpoint(true)];
            let before = inputs.previous.vteps.get(id).filter(|old| old.endpoints == endpoints);
            let path_mtu = before.map_or_else(|| Arc::new(AtomicU16::new(u16::MAX)), |old| Arc::clone(&old.path_mtu));
            let vni = vtep.vni.unwrap_or(inputs.node.vni);
            for endpoint in endpoints.into_iter().flatten() {
                table.by_remote.insert(endpoint.remote, id);
            }
            if !table.routed_vnis.contains(&vni) {
                table.routed_vnis.push(vni);
            }
            put(
                &mut table.entries,
                id.index(),
                VtepEntry { name: vtep.name.to_string(), port, endpoints, vni, path_mtu },
            );
        }
        for bridge in bridges(inputs) {
            if let (Some(vni), Some(&id)) = (bridge.vni, self.bridges.get(bridge.name.as_str())) {
                table.bridge_by_vni.insert(vni, id);
            }
        }
        table
    }

    fn bridges(&self, inputs: &Inputs<'_>, pinned: &mut Vec<PinnedMac>) -> Vec<Option<BridgeEntry>> {
        let mut entries = Vec::new();
        let segment = model::Bridge {
            name: POD_SEGMENT_NAME.parse().unwrap_or_else(|_| unreachable!("the segment's name is a name")),
            vni: None,
            flood: Vec::new(),
            vlan_transparent: false,
        };
        let stated = bridges(inputs);
        for bridge in std::iter::once(&segment).chain(stated) {
            let Some(&id) = self.bridges.get(bridge.name.as_str()) else { continue };
            let old = inputs.previous.bridge(id);
            let macs = old.map_or_else(|| Arc::new(MacTable::new(MACS_PER_BRIDGE)), |old| Arc::clone(&old.macs));
            let tunnels = bridge.flood.iter().filter_map(|name| Some(self.tunnels.get(name.as_str())?.1));
            let entry = BridgeEntry {
                name: bridge.name.to_string(),
                members: Vec::new(),
                flood_tunnels: tunnels.collect(),
                vni: bridge.vni,
                vlan_transparent: bridge.vlan_transparent,
                macs,
            };
            put(&mut entries, id.index(), entry);
        }
        self.join_members(inputs, &mut entries, pinned);
        entries
    }

    fn join_members(&self, inputs: &Inputs<'_>, entries: &mut [Option<BridgeEntry>], pinned: &mut Vec<PinnedMac>) {
        let mut join = |bridge: BridgeId, port: PortId, mac: Option<Mac>| {
            if let Some(Some(entry)) = entries.get_mut(bridge.index()) {
                entry.members.push(port);
                pinned.extend(mac.map(|mac| PinnedMac { bridge, mac, port }));
            }
        };
        if let Some(&host) = self.ports.get(HOST_PORT) {
            join(POD_SEGMENT, host, Some(inputs.node.gateway_mac()));
        }
        for port in ports(inputs) {
            if let Some((id, bridge)) = self.member(port) {
                join(bridge, id, matches!(port.guard, Guard::On { .. }).then(|| port.mac_in_force()));
            }
        }
        for mac in macs(inputs) {
            let bridge = self.bridge_id(mac.bridge.as_ref());
            if let (Some(bridge), Some(&port)) = (bridge, self.ports.get(mac.port.as_str())) {
                pinned.push(PinnedMac { bridge, mac: mac.mac, port });
            }
        }
    }

    fn bridge_id(&self, name: Option<&model::BridgeName>) -> Option<BridgeId> {
        name.map_or(Some(POD_SEGMENT), |name| self.bridges.get(name.as_str()).copied())
    }

    /// The slot and the bridge of a port whose device is open.
    fn member(&self, port: &model::Port) -> Option<(PortId, BridgeId)> {
        Some((*self.ports.get(port.name.as_str())?, self.bridge_id(port.bridge.as_ref())?))
    }

    fn ports(&self, inputs: &Inputs<'_>, generation: u64) -> Vec<Option<PortEntry>> {
        let mut entries = Vec::new();
        let plain = |name: &str, role, bridge, device: Device| PortEntry {
            name: name.to_owned(),
            role,
            bridge,
            mac: device.mac,
            mtu: device.mtu,
            caps: device.caps,
            guard: None,
            limits: PortLimits::default(),
            epoch: generation,
        };
        for (name, role, bridge) in [(HOST_PORT, Role::Host, Some(POD_SEGMENT)), (UPLINK_PORT, Role::Uplink, None)] {
            if let (Some(id), Some(&device)) = (self.ports.get(name), inputs.devices.get(name)) {
                put(&mut entries, id.index(), plain(name, role, bridge, device));
            }
        }
        for (name, &(vtep, port)) in &self.tunnels {
            let none = Device { mac: Mac::ZERO, mtu: u16::MAX, caps: PortCaps::NONE };
            put(&mut entries, port.index(), plain(name, Role::Tunnel(vtep), None, none));
        }
        for port in ports(inputs) {
            if let (Some((id, bridge)), Some(&device)) = (self.member(port), inputs.devices.get(port.name.as_str())) {
                let entry = PortEntry {
                    guard: source_guard(port, device.mac),
                    limits: PortLimits::new(port.bandwidth),
                    ..plain(port.name.as_str(), Role::Pod, Some(bridge), device)
                };
                put(&mut entries, id.index(), entry);
            }
        }
        for (entry, old) in entries.iter_mut().zip(inputs.previous.ports.iter()) {
            if let (Some(entry), Some(old)) = (entry, old) {
                entry.limits = std::mem::take(&mut entry.limits).or_old(&old.limits);
                let is_as_it_was = PortEntry { epoch: old.epoch, ..entry.clone() } == *old;
                entry.epoch = if is_as_it_was { old.epoch } else { generation };
            }
        }
        entries
    }

    fn routes(&self, inputs: &Inputs<'_>) -> RouteTable {
        let mut next_hops = Vec::new();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        let mut add = |prefix: IpNet, hop: NextHop| {
            let index = u32::try_from(next_hops.len()).unwrap_or(u32::MAX);
            next_hops.push(hop);
            match prefix {
                IpNet::V4(net) => v4.push((net, index)),
                IpNet::V6(net) => v6.push((net, index)),
            }
        };
        // Later entries win over earlier ones with the same prefix: what somebody states over what follows by itself.
        for &cidr in &inputs.node.cluster_cidrs {
            add(cidr, NextHop::NoRoute);
        }
        for &cidr in &inputs.node.pod_cidrs {
            add(cidr, NextHop::NoSuchPod);
        }
        for port in ports(inputs) {
            let Some((id, POD_SEGMENT)) = self.member(port) else { continue };
            for address in &port.addresses {
                add(IpNet::from(address.addr()), NextHop::Local { port: id, mac: port.mac_in_force() });
            }
        }
        for route in routes(inputs) {
            // What a closed port or a missing VTEP would have got goes nowhere; a wider route is another one's.
            add(route.prefix, self.next_hop(inputs, &route.via).unwrap_or(NextHop::NoRoute));
        }
        RouteTable { v4: Fib::build(v4), v6: Fib::build(v6), next_hops }
    }

    fn next_hop(&self, inputs: &Inputs<'_>, via: &Via) -> Option<NextHop> {
        match via {
            Via::Host => Some(NextHop::Host),
            Via::Blackhole => Some(NextHop::Blackhole),
            Via::Vtep(name) => Some(NextHop::Vtep(self.tunnels.get(name.as_str())?.0)),
            Via::Port(name) => {
                let mac = inputs.devices.get(name.as_str())?.mac;
                Some(NextHop::Local { port: *self.ports.get(name.as_str())?, mac })
            }
        }
    }
}

fn source_guard(port: &model::Port, mac: Mac) -> Option<Arc<SourceGuard>> {
    let Guard::On { allowed } = &port.guard else { return None };
    let mut guard = SourceGuard { allowed: allowed.clone(), ..SourceGuard::default() };
    for address in &port.addresses {
        match address.addr() {
            IpAddr::V4(v4) => guard.v4.push(v4),
            IpAddr::V6(v6) => guard.v6.push(v6),
        }
    }
    guard.v6.push(link_local(mac));
    Some(Arc::new(guard))
}

/// The link-local address a kernel gives an interface (modified EUI-64, RFC 4291 appendix A).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

macro_rules! objects_of {
    ($($name:ident = $variant:ident($type:ty),)+) => {
        $(fn $name<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a $type> + use<'a> {
            inputs.objects.iter().filter_map(|object| match object {
                Object::$variant(it) => Some(it),
                _ => None,
            })
        })+
    };
}

objects_of! {
    ports = Port(model::Port),
    bridges = Bridge(model::Bridge),
    vteps = Vtep(model::Vtep),
    routes = Route(model::Route),
    macs = Mac(model::StaticMac),
}

fn occupied<T>(slots: &[Option<T>]) -> impl Iterator<Item = (usize, &T)> {
    slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
}

fn put<T>(slots: &mut Vec<Option<T>>, at: usize, entry: T) {
    if slots.len() <= at {
        slots.resize_with(at + 1, || None);
    }
    slots[at] = Some(entry);
}

#[cfg(test)]
mod tests;
