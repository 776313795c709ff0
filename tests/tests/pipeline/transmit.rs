//! What a device refuses: the frame's outcome says so, and a path that turned out to be narrow is remembered.

use podwire_control::model::Mac;
use podwire_tests::NodePlan;
use podwire_tests::packet::Packet;
use podwire_tests::sim::{HOST, SimPort, SimSwitch, UPLINK};
use podwire_vswitch::port::TxError;
use podwire_vswitch::stats::Event;

use super::{a, address, b, check, check_events, frame, gateway, node, plain, tunnelled, vtep};

fn to_b() -> Packet {
    Packet::udp(address(1, 10, false), address(1, 11, false), b"refused").macs(b(), a())
}

fn to_node2(v6: bool, len: usize) -> Packet {
    let header = if v6 { 48 } else { 28 };
    Packet::udp(address(1, 10, v6), address(2, 10, v6), &vec![7; len - header]).macs(gateway(), a())
}

fn answering(port: &str, error: TxError) -> SimSwitch {
    let switch = node();
    switch.peer(port).answer_with(Some(error));
    switch
}

#[test]
fn each_refusal_is_the_frames_outcome() {
    let cases = [
        (TxError::Full, "drop:tx_full"),
        (TxError::Down, "drop:tx_down"),
        (TxError::Refused, "drop:tx_refused"),
        (TxError::TooBig { path_mtu: None }, "drop:tx_too_big"),
    ];
    for (error, outcome) in cases {
        let mut switch = answering("b", error);
        check(&mut switch, ("a", to_b().frame()), outcome, &[]);
        let (at_a, at_b) = (switch.counters("a"), switch.counters("b"));
        assert_eq!((at_a.drops(), at_b.tx_drops, at_b.tx.frames), (1, 1, 0), "{outcome}");
        check(&mut answering(UPLINK, error), ("a", to_node2(false, 100).frame()), outcome, &[]);
        let outside = Packet { dst: super::outside(false), ..to_b() }.macs(gateway(), a());
        check(&mut answering(HOST, error), ("a", outside.frame()), outcome, &[]);
    }
}

#[test]
fn a_queue_that_is_full_takes_what_fits() {
    let mut switch = node();
    switch.port(SimPort::pod("b", &NodePlan(1).pod(11)).queue(3));
    for _ in 0..5 {
        switch.inject("a", to_b().frame());
    }
    switch.run();
    assert_eq!((switch.take("b").len(), switch.counters("a").drops()), (3, 2));
}

#[test]
fn an_answer_that_can_not_be_sent_is_a_drop() {
    let echo = Packet::echo_request(address(1, 10, false), address(1, 1, false), b"ping").macs(gateway(), a());
    check(&mut answering("a", TxError::Full), ("a", echo.frame()), "drop:tx_full", &[]);
    // An error that can not be sent was not originated; the packet's own reason stays.
    let lost = Packet { dst: address(1, 77, false), ..to_b() }.macs(gateway(), a());
    check(&mut answering("a", TxError::Full), ("a", lost.frame()), "drop:no_such_pod", &[]);
}

#[test]
fn a_flood_counts_what_each_member_took() {
    let mut switch = answering("b", TxError::Full);
    let bytes = plain(Mac::BROADCAST, a());
    let events = [(Event::FloodDrops, 1)];
    check_events(&mut switch, ("a", frame(bytes.clone())), "flood", &[(HOST, frame(bytes))], &events);
    assert_eq!(switch.counters("b").tx_drops, 1);
}

#[test]
fn a_path_that_turns_out_to_be_narrow_is_remembered_and_told() {
    for (v6, overhead, kind, code) in [(false, 50, 3, 4), (true, 70, 2, 0)] {
        let mut switch = answering(UPLINK, TxError::TooBig { path_mtu: Some(1_400) });
        let long = to_node2(v6, 1_420);
        let lowered = [(Event::PathMtuLowered, 1)];
        // Told at once, with the packet as the router had made it; and again by the router itself.
        let mtu = 1_400 - overhead;
        let quoted = long.clone().ttl(63);
        let told = Packet::icmp_error(address(1, 1, v6), &quoted, kind, code, mtu).macs(a(), gateway());
        check_events(&mut switch, ("a", long.frame()), "drop:tx_too_big", &[("a", told.frame())], &lowered);
        switch.peer(UPLINK).answer_with(None);
        let told = Packet::icmp_error(address(1, 1, v6), &long, kind, code, mtu).macs(a(), gateway());
        check(&mut switch, ("a", long.frame()), "drop:too_big", &[("a", told.frame())]);
        let fits = to_node2(v6, usize::from(mtu));
        let out = tunnelled(fits.clone().routed(vtep(2), vtep(1)).frame(), v6, 0);
        check(&mut switch, ("a", fits.frame()), "forward", &[(UPLINK, out)]);
        // It outlives what else is stated.
        switch.pod("c", &NodePlan(1).pod(12));
        check(&mut switch, ("a", long.frame()), "drop:too_big", &[("a", told.frame())]);
    }
}

#[test]
fn no_path_is_believed_to_be_narrower_than_its_family_allows() {
    // (underlay is IPv6, what is told, the MTU pods are left with)
    for (v6, told, mtu) in
        [(false, 0, 68), (false, 117, 68), (false, 552, 502), (true, 68, 1_210), (true, 1_279, 1_210)]
    {
        let mut switch = answering(UPLINK, TxError::TooBig { path_mtu: Some(told) });
        let lowered = [(Event::PathMtuLowered, 1)];
        let long = to_node2(v6, 1_420);
        let answer = |quoted: &Packet| {
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            Packet::icmp_error(address(1, 1, v6), quoted, kind, code, mtu).macs(a(), gateway()).frame()
        };
        let first = answer(&long.clone().ttl(63));
        check_events(&mut switch, ("a", long.frame()), "drop:tx_too_big", &[("a", first)], &lowered);
        switch.peer(UPLINK).answer_with(None);
        let above = to_node2(v6, usize::from(mtu) + 1);
        check(&mut switch, ("a", above.frame()), "drop:too_big", &[("a", answer(&above))]);
        let fits = to_node2(v6, usize::from(mtu));
        let out = tunnelled(fits.clone().routed(vtep(2), vtep(1)).frame(), v6, 0);
        check(&mut switch, ("a", fits.frame()), "forward", &[(UPLINK, out)]);
        // Cut as small as that, fragments still carry something.
        if !v6 {
            let pieces = above.clone().may_fragment();
            let fragments = pieces.clone().routed(vtep(2), vtep(1)).fragments(usize::from(mtu));
            let out: Vec<_> = fragments.iter().map(|piece| (UPLINK, tunnelled(piece.frame(), v6, 0))).collect();
            check(&mut switch, ("a", pieces.frame()), "forward", &out);
        }
    }
}

#[test]
fn a_packet_that_may_be_fragmented_is_not_complained_about() {
    let mut switch = answering(UPLINK, TxError::TooBig { path_mtu: Some(1_400) });
    let long = to_node2(false, 1_420).may_fragment();
    let lowered = [(Event::PathMtuLowered, 1)];
    check_events(&mut switch, ("a", long.frame()), "drop:tx_too_big", &[], &lowered);
    switch.peer(UPLINK).answer_with(None);
    let fragments = long.clone().routed(vtep(2), vtep(1)).fragments(1_350);
    let out: Vec<_> = fragments.iter().map(|piece| (UPLINK, tunnelled(piece.frame(), false, 0))).collect();
    check(&mut switch, ("a", long.frame()), "forward", &out);
}

#[test]
fn a_path_is_never_widened_by_a_refusal() {
    let mut switch = answering(UPLINK, TxError::TooBig { path_mtu: Some(1_400) });
    let small = to_node2(false, 100);
    let lowered = [(Event::PathMtuLowered, 1)];
    check_events(&mut switch, ("a", small.frame()), "drop:tx_too_big", &[], &lowered);
    switch.peer(UPLINK).answer_with(Some(TxError::TooBig { path_mtu: Some(1_450) }));
    check(&mut switch, ("a", small.frame()), "drop:tx_too_big", &[]);
    let told = Packet::icmp_error(address(1, 1, false), &to_node2(false, 1_351), 3, 4, 1_350).macs(a(), gateway());
    check(&mut switch, ("a", to_node2(false, 1_351).frame()), "drop:too_big", &[("a", told.frame())]);
}

#[test]
fn a_port_that_comes_up_again_takes_frames_again() {
    let mut switch = answering("b", TxError::Down);
    check(&mut switch, ("a", to_b().frame()), "drop:tx_down", &[]);
    switch.peer("b").answer_with(None);
    check(&mut switch, ("a", to_b().frame()), "forward", &[("b", to_b().frame())]);
}
