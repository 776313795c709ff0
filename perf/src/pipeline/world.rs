//! The switch that is measured: a node with as many pods as a large one has, in a cluster of a hundred others.
//!
//! Compiled from objects as the daemon does it; only the devices are missing.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::{Bandwidth, Endpoint, Guard, Mac, Object, Port, PortKind, Route, Via, Vtep};
use podwire_vswitch::compile::{Device, HOST_PORT, Inputs, NodeSpec, UPLINK_PORT, compile, empty};
use podwire_vswitch::id::PortId;
use podwire_vswitch::port::PortCaps;
use podwire_vswitch::snapshot::{POD_SEGMENT, Snapshot};
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::table::mac::MacTable;

/// Pods of the node.
pub(super) const PODS: usize = 250;
/// Other nodes.
pub(super) const REMOTE_NODES: usize = 100;

const MTU: u16 = 1_450;

/// A switch and what stands in its tables.
#[derive(Debug)]
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    /// Stations learned behind the pods' ports, beside the pods.
    pub(super) stations: Vec<Mac>,
    /// Prefixes routed to other nodes, beside theirs.
    pub(super) prefixes: Vec<Ipv4Net>,
    /// The same of IPv6.
    pub(super) prefixes6: Vec<Ipv6Net>,
}

impl World {
    /// A switch with `tables` more MACs and routes than the pods and nodes need.
    pub(super) fn new(tables: usize) -> Self {
        let node = node();
        let prefixes: Vec<Ipv4Net> = (0..tables).map(prefix).collect();
        let prefixes6: Vec<Ipv6Net> = (0..tables).map(prefix6).collect();
        let objects = objects(&prefixes, &prefixes6);
        let references: Vec<&Object> = objects.iter().collect();
        let previous = empty(&node);
        let inputs = Inputs { node: &node, objects: &references, devices: &devices(), previous: &previous };
        let compiled = compile(&inputs);
        let mut snapshot = compiled.snapshot;

        let now_s = mono_now().seconds();
        let stations: Vec<Mac> = (0..tables).map(station).collect();
        if let Some(Some(segment)) = Arc::make_mut(&mut snapshot.bridges).get_mut(POD_SEGMENT.index()) {
            if tables > segment.macs.capacity() / 2 {
                segment.macs = Arc::new(MacTable::new(2 * tables));
            }
            for pinned in &compiled.pinned {
                segment.macs.insert_static(pinned.mac, pinned.port, now_s);
            }
            let behind = &segment.members[1..];
            for (mac, port) in stations.iter().zip(behind.iter().cycle()) {
                segment.macs.learn(*mac, *port, now_s);
            }
        }
        Self { snapshot, stations, prefixes, prefixes6 }
    }

    /// The slot of a pod's port.
    pub(super) fn port(&self, pod: usize) -> PortId {
        let name = pod_name(pod);
        let slot = self.snapshot.ports.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.name == name));
        slot.and_then(|slot| u16::try_from(slot).ok()).map_or(PortId::NONE, PortId)
    }

    /// All slots that have a port.
    pub(super) fn ports(&self) -> impl Iterator<Item = PortId> {
        let slots = self.snapshot.ports.iter().zip(0..).filter(|(entry, _)| entry.is_some());
        slots.map(|(_, slot)| PortId(slot))
    }
}

/// A pod's address.
pub(super) fn pod_ip(pod: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 1, octet(2 + pod % PODS))
}

/// The address of a pod of another node.
pub(super) fn remote_pod_ip(node: usize, pod: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, octet(2 + node % REMOTE_NODES), octet(2 + pod % PODS))
}

/// A pod's IPv6 address.
pub(super) fn pod_ip6(pod: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, u16::from(octet(2 + pod % PODS)))
}

/// The IPv6 address of a pod of another node.
pub(super) fn remote_pod_ip6(node: usize, pod: usize) -> Ipv6Addr {
    let subnet = u16::from(octet(2 + node % REMOTE_NODES));
    Ipv6Addr::new(0xfd00, 0x244, subnet, 0, 0, 0, 0, u16::from(octet(2 + pod % PODS)))
}

/// Another node's underlay address.
pub(super) fn remote_ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, octet(2 + node % REMOTE_NODES))
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn pod_name(pod: usize) -> String {
    format!("pod-{pod:03}")
}

fn node_name(node: usize) -> String {
    format!("node-{:03}", node % REMOTE_NODES)
}

/// A /24 far from the cluster's own subnets.
fn prefix(number: usize) -> Ipv4Net {
    let base = u32::from(Ipv4Addr::new(64, 0, 0, 0)) + (u32::try_from(number).unwrap_or(0) << 8);
    Ipv4Net::new_assert(Ipv4Addr::from(base), 24)
}

/// A /64 that has nothing in common with its neighbours.
fn prefix6(number: usize) -> Ipv6Net {
    let scattered = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3 | 1 << 61;
    Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::from(scattered) << 64), 64)
}

fn station(number: usize) -> Mac {
    let [_, _, _, _, _, a, b, c] = (number as u64).to_be_bytes();
    Mac([0x02, 0xaa, 0x00, a, b, c])
}

fn node() -> NodeSpec {
    NodeSpec {
        name: "node1".to_owned(),
        pod_cidrs: vec![
            IpNet::new_assert(Ipv4Addr::new(10, 244, 1, 0).into(), 24),
            IpNet::new_assert(Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 0).into(), 64),
        ],
        cluster_cidrs: vec![
            IpNet::new_assert(Ipv4Addr::new(10, 244, 0, 0).into(), 16),
            IpNet::new_assert(Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0).into(), 32),
        ],
        vni: 1.try_into().unwrap_or_else(|_| unreachable!("1 is a VNI")),
        underlay_mtu: MTU + 50,
        copy_dscp: false,
    }
}

fn devices() -> HashMap<String, Device> {
    let device = |mac, caps| Device { mac, mtu: MTU, caps };
    let pods = (0..PODS).map(|pod| (pod_name(pod), device(Mac::of_ip(pod_ip(pod).into()), PortCaps::ALL)));
    let own = [
        (HOST_PORT.to_owned(), device(node().gateway_mac(), PortCaps::ALL)),
        (UPLINK_PORT.to_owned(), device(Mac::ZERO, PortCaps::NONE)),
    ];
    pods.chain(own).collect()
}

/// What the CNI plugin and the routes' source would state.
fn objects(prefixes: &[Ipv4Net], prefixes6: &[Ipv6Net]) -> Vec<Object> {
    let pods = (0..PODS).map(|pod| {
        Object::Port(Port {
            name: name(&pod_name(pod)),
            kind: PortKind::Tap,
            netns: "/run/netns/none".into(),
            ifname: "eth0".to_owned(),
            addresses: vec![IpNet::new_assert(pod_ip(pod).into(), 24), IpNet::new_assert(pod_ip6(pod).into(), 64)],
            mac: None,
            mtu: Some(MTU),
            bridge: None,
            guard: Guard::On { allowed: Vec::new() },
            bandwidth: Bandwidth::default(),
        })
    });
    let vteps = (0..REMOTE_NODES).map(|node| {
        let endpoint = Endpoint { remote: remote_ip(node), mac: Mac::of_name("vtep", &node_name(node)) };
        Object::Vtep(Vtep { name: name(&node_name(node)), v4: Some(endpoint), v6: None, vni: None })
    });
    let subnets = (0..REMOTE_NODES).map(|node| Ipv4Net::new_assert(remote_pod_ip(node, 0), 24).trunc());
    let subnets6 = (0..REMOTE_NODES).map(|node| Ipv6Net::new_assert(remote_pod_ip6(node, 0), 64).trunc());
    let routed = subnets.chain(prefixes.iter().copied()).map(IpNet::V4).enumerate();
    let routed6 = subnets6.chain(prefixes6.iter().copied()).map(IpNet::V6).enumerate();
    let routes = routed
        .chain(routed6)
        .map(|(number, prefix)| Object::Route(Route { prefix, via: Via::Vtep(name(&node_name(number))) }));
    pods.chain(vteps).chain(routes).collect()
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| unreachable!("the names made here are names"))
}

#[cfg(test)]
mod tests {
    use podwire_vswitch::snapshot::NextHop;

    use super::*;

    #[test]
    fn the_tables_hold_what_was_asked_for() {
        let world = World::new(3_000);
        let fib = &world.snapshot.fib;
        assert!(fib.v4.len() >= 3_000 + REMOTE_NODES + PODS);
        assert!(matches!(fib.lookup(pod_ip(249).into()), Some(NextHop::Local { .. })));
        for prefix in [&world.prefixes[0], &world.prefixes[2_999]] {
            assert!(matches!(fib.lookup(prefix.addr().into()), Some(NextHop::Vtep(_))));
        }
        let macs = &world.snapshot.bridge(POD_SEGMENT).unwrap().macs;
        let now_s = mono_now().seconds();
        assert!(world.stations.iter().all(|mac| macs.lookup(*mac, now_s).is_some()));
        assert_eq!(macs.lookup(Mac::of_ip(pod_ip(7).into()), now_s), Some(world.port(7)));
    }
}
