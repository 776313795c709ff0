//! The router: what is sent to the gateway's MAC, and to this node's VTEP.

use podwire_control::model::Mac;
use podwire_tests::NodePlan;
use podwire_tests::packet::{Packet, Sum};
use podwire_tests::sim::{
    HOST, SimPort, SimSwitch, UPLINK, blackhole, host_route, peer_of_plan, planned_spec, port_route, route,
};

use super::{FAMILIES, a, address, b, check, frame, from_node2, gateway, ip, node, outside, plain, tunnelled, vtep};

/// What `a` sends to the gateway's MAC for this address.
fn from_a(dst: &str) -> Packet {
    let dst = ip(dst);
    Packet::udp(address(1, 10, dst.is_ipv6()), dst, b"routed").macs(gateway(), a())
}

#[test]
fn a_pod_of_this_node_is_one_hop_away() {
    for v6 in FAMILIES {
        let packet = from_a(&address(1, 11, v6).to_string());
        let out = packet.clone().routed(b(), gateway());
        check(&mut node(), ("a", packet.frame()), "forward", &[("b", out.frame())]);
    }
}

#[test]
fn a_pod_of_another_node_is_behind_the_tunnel_of_its_family() {
    for v6 in FAMILIES {
        let packet = from_a(&address(2, 10, v6).to_string());
        let out = packet.clone().routed(vtep(2), vtep(1));
        check(&mut node(), ("a", packet.frame()), "forward", &[(UPLINK, tunnelled(out.frame(), v6, 0))]);
    }
}

#[test]
fn the_host_reaches_pods_through_the_vteps_mac() {
    for v6 in FAMILIES {
        let packet = Packet::udp(address(1, 1, v6), address(2, 10, v6), b"from the node").macs(vtep(1), gateway());
        let out = packet.clone().routed(vtep(2), vtep(1));
        check(&mut node(), (HOST, packet.frame()), "forward", &[(UPLINK, tunnelled(out.frame(), v6, 0))]);
        let packet = Packet::udp(address(1, 1, v6), address(1, 10, v6), b"bridged").macs(a(), gateway());
        check(&mut node(), (HOST, packet.frame()), "forward", &[("a", packet.frame())]);
    }
}

#[test]
fn what_comes_out_of_a_tunnel_is_routed_on() {
    for v6 in FAMILIES {
        let src = address(2, 10, v6);
        let packet = Packet::udp(src, address(1, 10, v6), b"from node 2").macs(vtep(1), vtep(2));
        let out = packet.clone().routed(a(), gateway());
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "forward", &[("a", out.frame())]);
        // The node itself: not one hop less, since the host is the router.
        let packet = Packet::udp(src, address(1, 1, v6), b"to the node").macs(vtep(1), vtep(2));
        let out = packet.clone().macs(gateway(), vtep(1));
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "punt:gateway", &[(HOST, out.frame())]);
    }
}

#[test]
fn an_echo_request_to_the_gateway_is_answered_in_place() {
    for v6 in FAMILIES {
        let (pod, router) = (address(1, 10, v6), address(1, 1, v6));
        let request = Packet::echo_request(pod, router, &[7; 56]).ttl(3).tos(0x20).macs(gateway(), a());
        let reply = Packet::echo_reply(router, pod, &[7; 56]).tos(0x20).macs(a(), gateway());
        check(&mut node(), ("a", request.frame()), "reply", &[("a", reply.frame())]);
    }
}

#[test]
fn an_echo_request_that_arrived_damaged_is_left_to_the_host() {
    for v6 in FAMILIES {
        let request = Packet::echo_request(address(1, 10, v6), address(1, 1, v6), &[7; 56]).macs(gateway(), a());
        let damaged = request.sum(Sum::Is(0x1234));
        check(&mut node(), ("a", damaged.frame()), "punt:gateway", &[(HOST, damaged.frame())]);
    }
}

#[test]
fn all_else_for_the_gateway_is_the_hosts() {
    for v6 in FAMILIES {
        let packet = from_a(&address(1, 1, v6).to_string());
        check(&mut node(), ("a", packet.frame()), "punt:gateway", &[(HOST, packet.frame())]);
        let fragment = &Packet::echo_request(address(1, 10, v6), address(1, 1, v6), &[7; 2_000])
            .may_fragment()
            .macs(gateway(), a())
            .fragments(1_400)[0];
        check(&mut node(), ("a", fragment.frame()), "punt:gateway", &[(HOST, fragment.frame())]);
    }
    // Link-local: never beyond the segment, but the gateway is on it.
    let packet = Packet::udp(ip("fe80::858:aff:fef4:10a"), ip("fe80::1"), b"near").macs(gateway(), a());
    check(&mut node(), ("a", packet.frame()), "punt:gateway", &[(HOST, packet.frame())]);
}

#[test]
fn what_no_pod_subnet_covers_is_the_hosts_to_masquerade() {
    for v6 in FAMILIES {
        let packet = from_a(&outside(v6).to_string());
        // It is the host that routes: the TTL is its affair, even the last one.
        for packet in [packet.clone(), packet.ttl(1)] {
            check(&mut node(), ("a", packet.frame()), "punt:outside", &[(HOST, packet.frame())]);
        }
    }
}

#[test]
fn stated_routes_lead_where_they_say_and_the_longest_wins() {
    let mut switch = node();
    switch.state([
        host_route("10.9.0.0/16"),
        blackhole("10.9.1.0/24"),
        port_route("10.9.1.8/32", "b"),
        route("10.9.2.0/24", "node2"),
        blackhole("fd09::/16"),
    ]);
    let packet = from_a("10.9.7.7");
    check(&mut switch, ("a", packet.frame()), "punt:host_route", &[(HOST, packet.frame())]);
    check(&mut switch, ("a", from_a("10.9.1.7").frame()), "drop:blackhole", &[]);
    check(&mut switch, ("a", from_a("fd09::7").frame()), "drop:blackhole", &[]);
    let packet = from_a("10.9.1.8");
    let out = packet.clone().routed(b(), gateway());
    check(&mut switch, ("a", packet.frame()), "forward", &[("b", out.frame())]);
    let packet = from_a("10.9.2.2");
    let out = tunnelled(packet.clone().routed(vtep(2), vtep(1)).frame(), false, 0);
    check(&mut switch, ("a", packet.frame()), "forward", &[(UPLINK, out)]);
    switch.withdraw(&port_route("10.9.1.8/32", "b").key());
    check(&mut switch, ("a", from_a("10.9.1.8").frame()), "drop:blackhole", &[]);
}

#[test]
fn addresses_that_can_not_be_on_a_network_go_nowhere() {
    let unguarded = |packet: &Packet, reason| {
        let mut switch = node();
        let pod = SimPort::pod("a", &NodePlan(1).pod(10));
        switch.port(pod.unguarded());
        check(&mut switch, ("a", packet.frame()), reason, &[]);
    };
    let between = |src: &str, dst: &str| Packet::udp(ip(src), ip(dst), b"lost").macs(gateway(), a());
    for (src, dst) in [
        ("127.0.0.1", "10.244.2.10"),
        ("0.0.0.0", "10.244.2.10"),
        ("224.0.0.1", "10.244.2.10"),
        ("255.255.255.255", "10.244.2.10"),
        ("10.244.1.10", "127.0.0.1"),
        ("10.244.1.10", "0.0.0.0"),
        ("10.244.1.10", "10.244.1.10"),
        ("10.244.1.1", "10.244.1.1"),
        ("::1", "fd00:244:2::a"),
        ("::", "fd00:244:2::a"),
        ("ff02::1", "fd00:244:2::a"),
        ("fd00:244:1::a", "::1"),
        ("fd00:244:1::a", "fd00:244:1::a"),
    ] {
        unguarded(&between(src, dst), "drop:martian");
    }
    for (src, dst) in [
        ("10.244.1.10", "224.0.0.251"),
        ("10.244.1.10", "255.255.255.255"),
        ("fd00:244:1::a", "ff02::fb"),
        ("fe80::858:aff:fef4:10a", "fd00:244:2::a"),
    ] {
        unguarded(&between(src, dst), "drop:not_routable");
    }
    check(&mut node(), ("a", frame(plain(gateway(), a()))), "drop:not_routable", &[]);
    let near = Packet::udp(ip("fe80::2"), ip("fe80::858:aff:fef4:10a"), b"near").macs(vtep(1), vtep(2));
    check(&mut node(), (UPLINK, from_node2(&near.bytes())), "drop:not_routable", &[]);
}

#[test]
fn a_route_back_to_where_it_came_from_is_not_taken() {
    let mut switch = node();
    switch.state([port_route("10.9.0.0/16", "a")]);
    check(&mut switch, ("a", from_a("10.9.0.9").frame()), "drop:hairpin", &[]);
    for v6 in FAMILIES {
        let packet = Packet::udp(address(1, 10, v6), address(2, 11, v6), b"round").macs(vtep(1), vtep(2));
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "drop:tunnel_to_tunnel", &[]);
    }
}

#[test]
fn a_route_without_a_way_is_named() {
    // Knows node 2, but has no uplink.
    let mut switch = SimSwitch::new(planned_spec(NodePlan(1)));
    switch.host().pod("a", &NodePlan(1).pod(10));
    switch.state(peer_of_plan(NodePlan(2)));
    for v6 in FAMILIES {
        check(&mut switch, ("a", from_a(&address(2, 10, v6).to_string()).frame()), "drop:no_uplink", &[]);
    }
}

#[test]
fn a_frame_to_nobodys_mac_is_not_routed() {
    let packet = from_a("10.244.1.11").macs(Mac([2, 0, 0, 0, 0, 0x99]), a());
    check(&mut node(), ("a", packet.frame()), "flood", &[("b", packet.frame()), (HOST, packet.frame())]);
}
