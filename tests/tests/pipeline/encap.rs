//! Into the tunnel: endpoint, identifier, TOS and entropy; and bridges stretched over it.

use std::collections::HashSet;

use podwire_control::model::{Mac, Object, Vni};
use podwire_tests::NodePlan;
use podwire_tests::packet::Packet;
use podwire_tests::sim::{SimPort, SimSwitch, UPLINK, bridge, planned_spec, route, vtep as state_vtep};
use podwire_vswitch::frame::Encap;
use podwire_vswitch::id::VtepId;
use podwire_vswitch::port::memory::MemoryFrame;

use super::{FAMILIES, a, address, check, datagram, frame, gateway, node, plain, stranger, tunnelled};
use super::{underlay, vtep};

fn to_node2(v6: bool) -> Packet {
    Packet::udp(address(1, 10, v6), address(2, 10, v6), b"into the tunnel").macs(gateway(), a())
}

fn on_the_wire(packet: &Packet) -> MemoryFrame {
    packet.clone().routed(vtep(2), vtep(1)).frame()
}

#[test]
fn an_endpoint_of_the_other_family_carries_what_has_none_of_its_own() {
    for over_v6 in FAMILIES {
        let mut switch = SimSwitch::planned(1);
        switch.pod("a", &NodePlan(1).pod(10));
        let only = state_vtep("node2", &[(underlay(2, over_v6), vtep(2))]);
        let routes = ["10.244.2.0/24", "fd00:244:2::/64"].map(|prefix| route(prefix, "node2"));
        switch.state(routes).state([Object::Vtep(only)]);
        for v6 in FAMILIES {
            let out = tunnelled(on_the_wire(&to_node2(v6)), over_v6, 0);
            check(&mut switch, ("a", to_node2(v6).frame()), "forward", &[(UPLINK, out)]);
        }
    }
}

#[test]
fn each_endpoint_has_its_own_mac_and_a_vtep_may_have_its_own_identifier() {
    let mut switch = node();
    let mut second = state_vtep("node2", &[(underlay(2, false), stranger(4)), (underlay(2, true), stranger(6))]);
    second.vni = Some(Vni::try_from(5_000).expect("a VNI"));
    switch.state([Object::Vtep(second)]);
    for (v6, mac) in [(false, stranger(4)), (true, stranger(6))] {
        let mut out = tunnelled(to_node2(v6).routed(mac, vtep(1)).frame(), v6, 0);
        out.encap.as_mut().expect("a tunnel").vni = Vni::try_from(5_000).expect("a VNI");
        check(&mut switch, ("a", to_node2(v6).frame()), "forward", &[(UPLINK, out)]);
    }
}

#[test]
fn ecn_is_copied_to_the_outer_header_and_dscp_where_asked_for() {
    for copy_dscp in [false, true] {
        let mut switch = SimSwitch::new(podwire_vswitch::compile::NodeSpec { copy_dscp, ..planned_spec(NodePlan(1)) });
        switch.host().uplink().pod("a", &NodePlan(1).pod(10));
        switch.state(podwire_tests::sim::peer_of_plan(NodePlan(2)));
        for v6 in FAMILIES {
            for ecn in 0..4 {
                let packet = to_node2(v6).tos(0xb8 | ecn);
                let outer = if copy_dscp { 0xb8 | ecn } else { ecn };
                let out = tunnelled(on_the_wire(&packet), v6, outer);
                check(&mut switch, ("a", packet.frame()), "forward", &[(UPLINK, out)]);
            }
        }
    }
}

#[test]
fn entropy_differs_by_flow_and_is_the_same_within_one() {
    let mut switch = node();
    let mut of = |packet: &Packet| {
        switch.inject("a", packet.frame()).run();
        let sent = switch.take(UPLINK);
        sent[0].encap.expect("a tunnel").entropy
    };
    let flows = (0..64_u16).map(|port| {
        let l4 = podwire_tests::packet::L4::Udp { src: 40_000 + port, dst: 53 };
        let one = of(&Packet { l4: l4.clone(), ..to_node2(port % 2 == 0) });
        let other = Packet { l4, payload: vec![1; 700], ..to_node2(port % 2 == 0) };
        assert_eq!(one, of(&other), "one flow");
        one % 1_024
    });
    let ports: HashSet<u32> = flows.collect();
    assert!(ports.len() > 55, "64 flows share {} source ports", ports.len());
    // Fragments of one packet travel together.
    let fragments = Packet { payload: vec![7; 3_000], ..to_node2(false) }.may_fragment().fragments(1_400);
    let travelled: HashSet<u32> = fragments.iter().map(&mut of).collect();
    assert_eq!(travelled.len(), 1);
}

/// Node 1 with bridge `wide`, stretched to nodes 2 and 3 as VNI 100, and unguarded ports `x` and `y` on it.
fn stretched() -> SimSwitch {
    let mut switch = SimSwitch::planned(1);
    for number in [2, 3] {
        let remote = state_vtep(&format!("node{number}"), &[(underlay(number, false), vtep(number))]);
        switch.state([Object::Vtep(remote)]);
    }
    switch.state([Object::Bridge(bridge("wide", Some(100), &["node2", "node3"]))]);
    for name in ["x", "y"] {
        switch.port(SimPort::pod(name, &[]).unguarded().bridge("wide").mtu(1_450));
    }
    switch
}

/// A frame bridged to a node.
fn bridged_to(node: u8, bytes: &[u8]) -> MemoryFrame {
    let vni = Vni::try_from(100).expect("a VNI");
    let encap = Encap { vtep: VtepId(u16::from(node) - 2), remote: underlay(node, false), vni, tos: 0, entropy: 0 };
    MemoryFrame { encap: Some(encap), ..frame(bytes) }
}

#[test]
fn a_stretched_bridge_floods_to_its_nodes_and_learns_where_stations_are() {
    let mut switch = stretched();
    let (near, far) = (stranger(1), stranger(2));
    let bytes = plain(far, near);
    let out = [("y", frame(bytes.clone())), (UPLINK, bridged_to(2, &bytes)), (UPLINK, bridged_to(3, &bytes))];
    check(&mut switch, ("x", frame(bytes)), "flood", &out);
}

#[test]
fn a_stretched_bridge_forwards_to_the_node_a_station_spoke_from() {
    let mut switch = stretched();
    let (near, far) = (stranger(1), stranger(2));
    let bytes = plain(Mac::BROADCAST, far);
    let out = [("x", frame(bytes.clone())), ("y", frame(bytes.clone()))];
    // Split horizon: what a tunnel brought goes into no tunnel.
    check(&mut switch, (UPLINK, datagram(3, 100, 0, &bytes)), "flood", &out);
    let bytes = plain(far, near);
    check(&mut switch, ("x", frame(bytes.clone())), "forward", &[(UPLINK, bridged_to(3, &bytes))]);
    let bytes = plain(near, far);
    check(&mut switch, (UPLINK, datagram(3, 100, 0, &bytes)), "forward", &[("x", frame(bytes))]);
    // For a station behind another tunnel there is a direct way.
    check(&mut switch, (UPLINK, datagram(2, 100, 0, &plain(far, stranger(3)))), "drop:tunnel_to_tunnel", &[]);
    check(&mut switch, (UPLINK, datagram(3, 100, 0, &plain(far, far))), "drop:hairpin", &[]);
}

#[test]
fn a_bridged_frame_too_long_for_its_tunnel_is_dropped() {
    let mut switch = stretched();
    switch.port(SimPort::pod("x", &[]).unguarded().bridge("wide").mtu(1_500));
    let hello = plain(Mac::BROADCAST, stranger(2));
    let out = [("x", frame(hello.clone())), ("y", frame(hello.clone()))];
    check(&mut switch, (UPLINK, datagram(2, 100, 0, &hello)), "flood", &out);
    let of = |len: usize| [plain(stranger(2), stranger(1)), vec![7; len - 46]].concat();
    let fits = of(1_450);
    check(&mut switch, ("x", frame(fits.clone())), "forward", &[(UPLINK, bridged_to(2, &fits))]);
    check(&mut switch, ("x", frame(of(1_451))), "drop:l2_too_big", &[]);
}

#[test]
fn routed_and_bridged_identifiers_do_not_mix() {
    let packet = Packet::udp(address(2, 10, false), address(1, 10, false), b"routed").macs(vtep(1), vtep(2));
    let bytes = packet.bytes();
    let out = [("x", frame(bytes.clone())), ("y", frame(bytes.clone()))];
    check(&mut stretched(), (UPLINK, datagram(2, 100, 0, &bytes)), "flood", &out);
}
