//! What holds of compiling whatever the topology: lookups are linear scans, the way to a configuration does not
//! matter, and what stays keeps its slot.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::{Key, Object, Route, Via};
use podwire_tests::sim::{self, SimSwitch};
use podwire_vswitch::snapshot::NextHop;
use proptest::prelude::*;

use crate::frames::{Shape, shapes};
use crate::topology::{Topology, topologies};
use crate::{Duel, check};

/// Cases of each law.
const CASES: u32 = 100;

/// A prefix out of few bits, so that many nest.
fn prefixes() -> BoxedStrategy<IpNet> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, len)| {
        let address = Ipv4Addr::from_bits(bits & 0x0303_0303 | 0x0a00_0000);
        IpNet::from(Ipv4Net::new_assert(address, len).trunc())
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, len)| {
        let mask = 0x0003_0003_0000_0000_0000_0003_0000_0003;
        let address = Ipv6Addr::from_bits(bits & mask | 0xfd << 120);
        IpNet::from(Ipv6Net::new_assert(address, len).trunc())
    });
    prop_oneof![v4, v6].boxed()
}

/// The last address of a prefix, or the first one behind it.
fn edge(prefix: IpNet, behind: bool) -> IpAddr {
    match prefix.broadcast() {
        IpAddr::V4(last) => IpAddr::from(Ipv4Addr::from_bits(last.to_bits().wrapping_add(u32::from(behind)))),
        IpAddr::V6(last) => IpAddr::from(Ipv6Addr::from_bits(last.to_bits().wrapping_add(u128::from(behind)))),
    }
}

#[test]
fn a_routing_lookup_is_a_linear_scan() {
    check(CASES, &prop::collection::vec((prefixes(), any::<bool>()), 1..200), |stated| {
        let routes: BTreeMap<IpNet, bool> = stated.into_iter().collect();
        let objects = routes.iter().map(|(&prefix, &host)| {
            Object::Route(Route { prefix, via: if host { Via::Host } else { Via::Blackhole } })
        });
        let mut spec = sim::planned_spec(podwire_tests::NodePlan(1));
        (spec.pod_cidrs, spec.cluster_cidrs) = (Vec::new(), Vec::new());
        let mut switch = SimSwitch::new(spec);
        switch.state(objects);
        let addresses = routes.keys().flat_map(|&prefix| [prefix.network(), edge(prefix, false), edge(prefix, true)]);
        for address in addresses {
            let covering = routes.iter().filter(|(prefix, _)| prefix.contains(&address));
            let longest = covering.max_by_key(|(prefix, _)| prefix.prefix_len());
            let scanned = longest
                .map(|(prefix, &host)| (prefix.prefix_len(), if host { NextHop::Host } else { NextHop::Blackhole }));
            prop_assert_eq!(switch.snapshot().fib.lookup_prefix(address), scanned, "{}", address);
            let hop = scanned.map(|(_, hop)| hop);
            prop_assert_eq!(switch.snapshot().fib.lookup(address), hop, "{}", address);
        }
        Ok(())
    });
}

/// Shows a switch frames, and holds it to the topology's reference.
fn forwards_as(topology: &Topology, switch: SimSwitch, shapes: &[Shape]) -> Result<(), TestCaseError> {
    let mut duel = Duel { switch, reference: topology.reference() };
    for built in shapes.iter().filter_map(|shape| shape.build(topology)) {
        let Some((expected, found)) = duel.show(&built) else { continue };
        prop_assert_eq!(found, expected, "the engine (left) and the reference (right) part at {:?}", built);
    }
    Ok(())
}

#[test]
fn the_order_in_which_objects_are_stated_does_not_matter() {
    let order = prop::collection::vec(any::<u32>(), 64);
    check(CASES, &(topologies(), order, prop::collection::vec(shapes(), 1..40)), |(topology, order, shapes)| {
        let mut switch = SimSwitch::new(topology.spec());
        let mut steps: Vec<Step> = topology.sim_ports().into_iter().map(|port| Step::Port(Box::new(port))).collect();
        let stated = topology.objects().into_iter().filter(|object| !matches!(object, Object::Port(_)));
        let (bridges, others): (Vec<_>, Vec<_>) = stated.partition(|object| matches!(object, Object::Bridge(_)));
        // A port can not come before its bridge; all else can.
        switch.state(bridges);
        steps.extend(others.into_iter().map(Step::State));
        let mut numbered: Vec<_> = order.iter().cycle().zip(steps).collect();
        numbered.sort_by_key(|(number, _)| **number);
        for (_, step) in numbered {
            match step {
                Step::Port(port) => switch.port(*port),
                Step::State(object) => switch.state([object]),
            };
        }
        forwards_as(&topology, switch, &shapes)
    });
}

enum Step {
    Port(Box<sim::SimPort>),
    State(Object),
}

#[test]
fn a_switch_that_was_another_before_forwards_as_one_that_was_not() {
    let cases = (topologies(), topologies(), prop::collection::vec(shapes(), 1..40));
    check(CASES, &cases, |(before, now, shapes)| {
        // The node itself does not change while it runs.
        let now = Topology { closed: 0, ..now };
        let before = Topology { pods: before.pods, vteps: before.vteps, routes: before.routes, ..now.clone() };
        let mut switch = before.switch();
        let wanted: Vec<Key> = now.objects().iter().map(Object::key).collect();
        for gone in before.objects().iter().map(Object::key).filter(|key| !wanted.contains(key)) {
            match &gone {
                Key::Port(name) => switch.remove_port(name.as_str()),
                other => switch.withdraw(other),
            };
        }
        switch.state(now.objects().into_iter().filter(|object| !matches!(object, Object::Port(_))));
        // The pods last, so that nothing that follows puts right what one of them broke.
        for port in now.sim_ports().into_iter().rev() {
            switch.port(port);
        }
        forwards_as(&now, switch, &shapes)
    });
}

#[test]
fn a_guarded_pod_that_moves_to_another_bridge_is_found_there() {
    let pod = |n: u8| sim::SimPort::pod(&format!("pod{n}"), &podwire_tests::NodePlan(1).pod(n));
    let mut switch = SimSwitch::planned(1);
    switch.state([Object::Bridge(sim::bridge("red", None, &[]))]);
    switch.port(pod(10).bridge("red")).port(pod(12).bridge("red")).port(pod(11)).port(pod(11).bridge("red"));
    let mac = |n: u8| podwire_control::model::Mac::of_ip(podwire_tests::NodePlan(1).pod(n)[0].addr());
    let frame = [&mac(11).0[..], &mac(10).0, &[0x88, 0xb5, 1, 2, 3]].concat();
    switch.inject("pod10", podwire_vswitch::port::memory::MemoryFrame::new(frame)).run();
    let sent: Vec<String> = switch.take_all().into_keys().collect();
    assert_eq!(sent, ["pod11"]);
}

/// The slot of everything that has a name.
fn slots(switch: &SimSwitch) -> BTreeMap<String, usize> {
    let snapshot = switch.snapshot();
    let ports =
        snapshot.ports.iter().enumerate().filter_map(|(at, port)| Some((format!("port {}", port.as_ref()?.name), at)));
    let vteps = snapshot
        .vteps
        .entries
        .iter()
        .enumerate()
        .filter_map(|(at, vtep)| Some((format!("vtep {}", vtep.as_ref()?.name), at)));
    let bridges = snapshot
        .bridges
        .iter()
        .enumerate()
        .filter_map(|(at, bridge)| Some((format!("bridge {}", bridge.as_ref()?.name), at)));
    ports.chain(vteps).chain(bridges).collect()
}

#[test]
fn what_stays_keeps_its_slot_and_unchanged_tables_are_kept_whole() {
    check(CASES, &topologies(), |topology| {
        let mut switch = topology.switch();
        let (slots_before, before) = (slots(&switch), switch.snapshot().clone());
        switch.state([]);
        let after = switch.snapshot();
        prop_assert_eq!(after.generation, before.generation + 1);
        prop_assert!(Arc::ptr_eq(&after.node, &before.node), "the node was made anew");
        prop_assert!(Arc::ptr_eq(&after.ports, &before.ports), "the ports were made anew");
        for (new, old) in after.bridges.iter().flatten().zip(before.bridges.iter().flatten()) {
            prop_assert!(Arc::ptr_eq(&new.macs, &old.macs), "bridge {} forgot its stations", old.name);
        }
        for (new, old) in after.vteps.entries.iter().flatten().zip(before.vteps.entries.iter().flatten()) {
            prop_assert!(Arc::ptr_eq(&new.path_mtu, &old.path_mtu), "vtep {} forgot its path MTU", old.name);
        }
        // A newcomer whose name sorts before all others moves nobody, nor does its going.
        let remote = (IpAddr::from([172, 31, 0, 77]), topology.pod_mac(0));
        let newcomer = Object::Vtep(sim::vtep("a", &[remote]));
        switch.state([newcomer.clone(), Object::Bridge(sim::bridge("a", None, &[]))]);
        let with = slots(&switch);
        prop_assert!(
            slots_before.iter().all(|(name, slot)| with[name] == *slot),
            "{:?} became {:?}",
            slots_before,
            with
        );
        switch.withdraw(&newcomer.key());
        let without = slots(&switch);
        prop_assert!(slots_before.iter().all(|(name, slot)| without[name] == *slot), "{:?}", without);
        Ok(())
    });
}
