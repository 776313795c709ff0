//! What a sender is told when its packet goes nowhere: the right error, the right quote, not too often, and never
//! about what must not be answered.

use std::net::IpAddr;
use std::time::Duration;

use podwire_tests::NodePlan;
use podwire_tests::packet::Packet;
use podwire_tests::sim::{HOST, SimPort, SimSwitch, UPLINK};
use podwire_vswitch::limits::ICMP_ERRORS_PER_SECOND;
use podwire_vswitch::port::memory::MemoryFrame;
use podwire_vswitch::stats::Event;

use super::{FAMILIES, a, address, check, check_events, from_node2, gateway, ip, node, tunnelled, vtep};

/// An address of node 1 that no pod has.
fn nobody(v6: bool) -> IpAddr {
    address(1, 77, v6)
}

/// A cluster address that no route covers.
fn nowhere(v6: bool) -> IpAddr {
    address(77, 10, v6)
}

fn from_a(dst: IpAddr, len: usize) -> Packet {
    Packet::udp(address(1, 10, dst.is_ipv6()), dst, &vec![7; len]).macs(gateway(), a())
}

/// The error as `a` gets it.
fn told(packet: &Packet, kind: u8, code: u8, mtu: u16) -> MemoryFrame {
    let from = address(1, 1, packet.src.is_ipv6());
    Packet::icmp_error(from, packet, kind, code, mtu).macs(a(), gateway()).frame()
}

fn silent(switch: &mut SimSwitch, packet: &Packet, outcome: &str) {
    check(switch, ("a", packet.frame()), outcome, &[]);
}

#[test]
fn each_problem_has_its_type_and_code() {
    for v6 in FAMILIES {
        let (unreachable, net, host, exceeded) = if v6 { (1, 0, 3, 3) } else { (3, 0, 1, 11) };
        let cases = [
            (from_a(nobody(v6), 30), "drop:no_such_pod", unreachable, host),
            (from_a(nowhere(v6), 30), "drop:no_route", unreachable, net),
            (from_a(address(1, 11, v6), 30).ttl(1), "drop:ttl_exceeded", exceeded, 0),
            (from_a(address(2, 10, v6), 30).ttl(0), "drop:ttl_exceeded", exceeded, 0),
        ];
        for (packet, outcome, kind, code) in cases {
            let answer = told(&packet, kind, code, 0);
            check(&mut node(), ("a", packet.frame()), outcome, &[("a", answer)]);
        }
    }
}

#[test]
fn a_packet_that_is_too_long_goes_back_with_the_mtu() {
    for (v6, tunnel, kind, code) in [(false, 1_450_u16, 3, 4), (true, 1_430, 2, 0)] {
        let header = if v6 { 48 } else { 28 };
        let fits = from_a(address(2, 10, v6), usize::from(tunnel) - header);
        let out = tunnelled(fits.clone().routed(vtep(2), vtep(1)).frame(), v6, 0);
        check(&mut node(), ("a", fits.frame()), "forward", &[(UPLINK, out)]);
        let long = from_a(address(2, 10, v6), usize::from(tunnel) - header + 1);
        check(&mut node(), ("a", long.frame()), "drop:too_big", &[("a", told(&long, kind, code, tunnel))]);

        let mut switch = node();
        switch.port(SimPort::pod("b", &NodePlan(1).pod(11)).mtu(1_280));
        let long = from_a(address(1, 11, v6), 1_300);
        check(&mut switch, ("a", long.frame()), "drop:too_big", &[("a", told(&long, kind, code, 1_280))]);

        let super_frame = Packet::tcp(address(1, 10, v6), address(2, 10, v6), 1, 0x10, &[7; 9_000]);
        let super_frame = super_frame.macs(gateway(), a()).super_frame(1_440);
        let quoted = Packet::tcp(address(1, 10, v6), address(2, 10, v6), 1, 0x10, &[7; 9_000]);
        let quoted = quoted.macs(gateway(), a()).sum(podwire_tests::packet::Sum::Partial);
        check(&mut node(), ("a", super_frame), "drop:too_big", &[("a", told(&quoted, kind, code, tunnel))]);
    }
}

#[test]
fn the_quote_is_as_much_as_the_rules_allow_and_no_more() {
    // RFC 1812, 4.3.2.3: at most 576 bytes in all; RFC 4443, 2.4 (c): at most 1,280.
    for (v6, header, error_header, most, kind, code) in [(false, 28, 28, 576_usize, 3, 1), (true, 48, 48, 1_280, 1, 3)]
    {
        for over in [-1_isize, 0, 1, 100] {
            let len = (most - error_header - header).checked_add_signed(over).expect("a length");
            let packet = from_a(nobody(v6), len);
            let answer = told(&packet, kind, code, 0);
            let expected = (error_header + packet.ip_bytes().len()).min(most);
            assert_eq!(answer.bytes.len() - 14, expected, "what the test itself expects");
            check(&mut node(), ("a", packet.frame()), "drop:no_such_pod", &[("a", answer)]);
        }
    }
}

#[test]
fn ethernet_padding_is_not_quoted() {
    let packet = from_a(nobody(false), 1);
    let padded = [packet.bytes(), vec![0; 31]].concat();
    check(&mut node(), ("a", MemoryFrame::new(padded)), "drop:no_such_pod", &[("a", told(&packet, 3, 1, 0))]);
}

#[test]
fn the_host_is_told_by_the_router_address() {
    for v6 in FAMILIES {
        let packet = Packet::udp(address(1, 1, v6), nowhere(v6), b"lost").macs(vtep(1), gateway());
        let (kind, code) = if v6 { (1, 0) } else { (3, 0) };
        let answer = Packet::icmp_error(address(1, 0, v6), &packet, kind, code, 0).macs(gateway(), vtep(1));
        check(&mut node(), (HOST, packet.frame()), "drop:no_route", &[(HOST, answer.frame())]);
    }
}

#[test]
fn a_remote_sender_is_told_through_its_tunnel() {
    for v6 in FAMILIES {
        let packet = Packet::udp(address(2, 10, v6), nobody(v6), b"lost").macs(vtep(1), vtep(2));
        let (kind, code) = if v6 { (1, 3) } else { (3, 1) };
        let answer = Packet::icmp_error(address(1, 1, v6), &packet, kind, code, 0).macs(vtep(2), vtep(1));
        let out = [(UPLINK, tunnelled(answer.frame(), v6, 0))];
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "drop:no_such_pod", &out);
        // One that came through a tunnel, and whose address no tunnel leads to, is not told.
        let packet = Packet::udp(super::outside(v6), nobody(v6), b"lost").macs(vtep(1), vtep(2));
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "drop:no_such_pod", &[]);
    }
}

#[test]
fn nothing_is_said_about_errors() {
    for (v6, kinds) in [(false, &[3, 4, 5, 11, 12][..]), (true, &[1, 2, 3, 4, 100, 127, 137][..])] {
        for &kind in kinds {
            if kind == 137 {
                continue; // A pod's redirect is refused by the guard.
            }
            let error = Packet::icmp(address(1, 10, v6), nobody(v6), kind, 0, [0; 4], &[0; 40]);
            silent(&mut node(), &error.macs(gateway(), a()), "drop:no_such_pod");
        }
        let request = Packet::echo_request(address(1, 10, v6), nobody(v6), &[7; 8]).macs(gateway(), a());
        let (kind, code) = if v6 { (1, 3) } else { (3, 1) };
        let answer = told(&request, kind, code, 0);
        check(&mut node(), ("a", request.frame()), "drop:no_such_pod", &[("a", answer)]);
    }
}

#[test]
fn of_a_fragmented_packet_only_the_first_fragment_is_answered() {
    for v6 in FAMILIES {
        let fragments = from_a(nobody(v6), 3_000).may_fragment().fragments(1_400);
        let (kind, code) = if v6 { (1, 3) } else { (3, 1) };
        let mut switch = node();
        let answer = told(&fragments[0], kind, code, 0);
        check(&mut switch, ("a", fragments[0].frame()), "drop:no_such_pod", &[("a", answer)]);
        for later in &fragments[1..] {
            silent(&mut switch, later, "drop:no_such_pod");
        }
    }
}

#[test]
fn groups_get_no_answers() {
    let mut switch = node();
    for dst in ["224.0.0.251", "255.255.255.255", "ff02::fb"] {
        silent(&mut switch, &from_a(ip(dst), 20).ttl(1), "drop:not_routable");
    }
}

#[test]
fn errors_are_limited_to_so_many_a_second() {
    let mut switch = node();
    let packet = from_a(nobody(false), 20);
    let error = [("a", told(&packet, 3, 1, 0))];
    for _ in 0..ICMP_ERRORS_PER_SECOND {
        check(&mut switch, ("a", packet.frame()), "drop:no_such_pod", &error);
    }
    let suppressed = [(Event::IcmpSuppressed, 1)];
    check_events(&mut switch, ("a", packet.frame()), "drop:no_such_pod", &[], &suppressed);
    // Each millisecond brings one more.
    switch.advance(Duration::from_millis(1));
    check(&mut switch, ("a", packet.frame()), "drop:no_such_pod", &error);
    check_events(&mut switch, ("a", packet.frame()), "drop:no_such_pod", &[], &suppressed);
}
