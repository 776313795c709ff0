//! One segment: learning, ageing, moves, static addresses, eviction, floods and what no bridge forwards.

use std::time::Duration;

use podwire_control::model::{Bridge, Mac, Object};
use podwire_tests::NodePlan;
use podwire_tests::packet::Packet;
use podwire_tests::sim::{HOST, SimPort, SimSwitch, bridge, static_mac};
use podwire_vswitch::id::BridgeId;
use podwire_vswitch::limits::{FLOODS_PER_PORT_PER_SECOND, MAC_AGEING_SECONDS, MAC_MOVES_PER_SECOND, MACS_PER_BRIDGE};
use podwire_vswitch::outcome::{DropReason, Verdict};
use podwire_vswitch::stats::Event;

use super::{a, address, b, check, check_events, frame, node, plain, stranger};

/// A switch with bridge `lan` and unguarded ports `x`, `y` and `z` on it.
fn lan(change: impl FnOnce(&mut Bridge)) -> SimSwitch {
    let mut lan = bridge("lan", None, &[]);
    change(&mut lan);
    let mut switch = SimSwitch::planned(1);
    switch.state([Object::Bridge(lan)]);
    for name in ["x", "y", "z"] {
        switch.port(SimPort::pod(name, &[]).unguarded().bridge("lan"));
    }
    switch
}

/// A frame that is flooded on `lan`.
#[track_caller]
fn floods(switch: &mut SimSwitch, from: &str, bytes: &[u8]) {
    let others = ["x", "y", "z"].into_iter().filter(|port| *port != from);
    let out: Vec<_> = others.map(|port| (port, frame(bytes))).collect();
    check(switch, (from, frame(bytes)), "flood", &out);
}

#[track_caller]
fn forwards(switch: &mut SimSwitch, from: &str, to: &str, bytes: &[u8]) {
    check(switch, (from, frame(bytes)), "forward", &[(to, frame(bytes))]);
}

#[test]
fn a_station_is_flooded_to_until_it_has_spoken() {
    let mut switch = lan(|_| {});
    let (one, two) = (stranger(1), stranger(2));
    floods(&mut switch, "x", &plain(two, one));
    forwards(&mut switch, "y", "x", &plain(one, two));
    forwards(&mut switch, "x", "y", &plain(two, one));
}

#[test]
fn a_silent_station_is_forgotten_after_300_seconds() {
    let mut switch = lan(|_| {});
    let (one, two) = (stranger(1), stranger(2));
    floods(&mut switch, "x", &plain(two, one));
    switch.advance(Duration::from_secs(MAC_AGEING_SECONDS - 1));
    forwards(&mut switch, "y", "x", &plain(one, two));
    switch.advance(Duration::from_secs(1));
    floods(&mut switch, "z", &plain(one, stranger(3)));
    // What speaks stays known.
    forwards(&mut switch, "x", "y", &plain(two, one));
    switch.advance(Duration::from_secs(MAC_AGEING_SECONDS - 1));
    forwards(&mut switch, "y", "x", &plain(one, two));
}

#[test]
fn a_station_that_moves_is_followed_and_counted() {
    let mut switch = lan(|_| {});
    floods(&mut switch, "x", &plain(Mac::BROADCAST, stranger(1)));
    let moved = plain(Mac::BROADCAST, stranger(1));
    let out = [("x", frame(moved.clone())), ("y", frame(moved.clone()))];
    let events = [(Event::MacMoves, 1)];
    check_events(&mut switch, ("z", frame(moved)), "flood", &out, &events);
    forwards(&mut switch, "x", "z", &plain(stranger(1), stranger(2)));
}

#[test]
fn moves_beyond_the_rate_are_counted_and_ignored() {
    let mut switch = lan(|_| {});
    // Where it stays put, every second frame comes from where it is known.
    for turn in 0..=MAC_MOVES_PER_SECOND + 5 {
        switch.inject(if turn % 2 == 0 { "x" } else { "y" }, frame(plain(stranger(9), stranger(1))));
        switch.run();
    }
    let totals = switch.totals();
    let moves = [Event::MacMoves, Event::MacMovesLimited].map(|event| totals.event(event));
    assert_eq!(moves, [MAC_MOVES_PER_SECOND, 3]);
    // A second later it may move again.
    switch.advance(Duration::from_secs(1)).inject("z", frame(plain(stranger(9), stranger(1)))).run();
    assert_eq!(switch.totals().event(Event::MacMoves), MAC_MOVES_PER_SECOND + 1);
}

#[test]
fn a_pinned_station_neither_moves_nor_ages() {
    let mut switch = lan(|_| {});
    switch.state([static_mac(Some("lan"), stranger(1), "x")]);
    floods(&mut switch, "y", &plain(Mac::BROADCAST, stranger(1)));
    switch.advance(Duration::from_secs(10 * MAC_AGEING_SECONDS));
    forwards(&mut switch, "z", "x", &plain(stranger(1), stranger(3)));
    let key = static_mac(Some("lan"), stranger(1), "x").key();
    switch.withdraw(&key);
    floods(&mut switch, "z", &plain(stranger(1), stranger(3)));
}

#[test]
fn a_reused_slot_inherits_nothing() {
    let mut switch = lan(|_| {});
    floods(&mut switch, "x", &plain(Mac::BROADCAST, stranger(1)));
    let slot = switch.port_id("x");
    switch.remove_port("x").state([]);
    switch.port(SimPort::pod("w", &[]).unguarded().bridge("lan"));
    assert_eq!(switch.port_id("w"), slot, "the slot is used again");
    let bytes = plain(stranger(1), stranger(2));
    let out = [("w", frame(bytes.clone())), ("z", frame(bytes.clone()))];
    check(&mut switch, ("y", frame(bytes)), "flood", &out);
}

#[test]
fn a_full_table_takes_from_the_port_that_holds_most() {
    let mut switch = lan(|_| {});
    let mac = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        Mac([2, 0xaa, 0, b, c, d])
    };
    let stations = u32::try_from(2 * MACS_PER_BRIDGE).expect("a small table");
    for number in 0..stations {
        // To itself, so that nothing is flooded.
        switch.inject("x", frame(plain(mac(number), mac(number))));
        if number % 1_000 == 999 {
            switch.run();
            drop(switch.take_all());
        }
    }
    switch.run();
    drop(switch.take_all());
    let evicted_before = switch.totals().event(Event::MacEvictions);
    assert!(evicted_before > 0, "x gives up its own for its own");
    // A modest port still gets in.
    let bytes = plain(Mac::BROADCAST, stranger(1));
    let out = [("x", frame(bytes.clone())), ("z", frame(bytes.clone()))];
    let events = [(Event::MacEvictions, 1)];
    check_events(&mut switch, ("y", frame(bytes)), "flood", &out, &events);
    let bytes = plain(stranger(1), stranger(3));
    let events = [(Event::MacEvictions, 1)];
    check_events(&mut switch, ("z", frame(bytes.clone())), "forward", &[("y", frame(bytes))], &events);
}

#[test]
fn what_lies_behind_the_port_it_came_from_is_not_sent_back() {
    let mut switch = lan(|_| {});
    floods(&mut switch, "x", &plain(Mac::BROADCAST, stranger(1)));
    check(&mut switch, ("x", frame(plain(stranger(1), stranger(2)))), "drop:hairpin", &[]);
    // To itself.
    check(&mut switch, ("x", frame(plain(stranger(4), stranger(4)))), "drop:hairpin", &[]);
    check(&mut node(), ("a", frame(plain(a(), a()))), "drop:hairpin", &[]);
}

#[test]
fn link_local_control_frames_go_nowhere() {
    for last in [0x00, 0x02, 0x0e, 0x0f] {
        let bytes = plain(Mac([0x01, 0x80, 0xc2, 0, 0, last]), stranger(1));
        check(&mut lan(|_| {}), ("x", frame(bytes)), "drop:link_local_control", &[]);
    }
    floods(&mut lan(|_| {}), "x", &plain(Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]), stranger(1)));
}

#[test]
fn group_reports_of_the_pod_segment_go_to_the_node_only() {
    for (group, mac, own) in [
        ("224.0.0.22", Mac([1, 0, 0x5e, 0, 0, 0x16]), address(1, 10, false)),
        ("ff02::16", Mac([0x33, 0x33, 0, 0, 0, 0x16]), address(1, 10, true)),
    ] {
        let report = Packet::udp(own, group.parse().unwrap(), b"report").macs(mac, a());
        check(&mut node(), ("a", report.frame()), "punt:gateway", &[(HOST, report.frame())]);
        // On other segments a router may be anywhere.
        floods(&mut lan(|_| {}), "x", &report.bytes());
    }
    let other = Packet::udp(address(1, 10, false), "225.0.0.22".parse().unwrap(), b"hello");
    let other = other.macs(Mac([1, 0, 0x5e, 0, 0, 0x16]), a());
    check(&mut node(), ("a", other.frame()), "flood", &[("b", other.frame()), (HOST, other.frame())]);
}

#[test]
fn tags_pass_only_where_the_bridge_is_transparent() {
    let tagged = Packet::udp(address(1, 10, false), address(1, 11, false), b"tagged").macs(b(), a()).vlan(100);
    check(&mut node(), ("a", tagged.frame()), "drop:vlan_not_allowed", &[]);
    check(&mut lan(|_| {}), ("x", tagged.frame()), "drop:vlan_not_allowed", &[]);
    let double = tagged.clone().vlan(7);
    for bytes in [tagged.bytes(), double.bytes()] {
        floods(&mut lan(|lan| lan.vlan_transparent = true), "x", &bytes);
    }
}

#[test]
fn a_flood_reaches_every_other_member_and_nobody_else() {
    let mut switch = lan(|_| {});
    switch.pod("a", &NodePlan(1).pod(10));
    for dst in [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), stranger(77)] {
        floods(&mut switch, "x", &plain(dst, stranger(1)));
    }
    let bytes = plain(Mac::BROADCAST, a());
    check(&mut switch, ("a", frame(bytes.clone())), "flood", &[(HOST, frame(bytes))]);
}

#[test]
fn a_member_alone_floods_to_nobody() {
    let mut switch = lan(|_| {});
    switch.remove_port("y").remove_port("z");
    check(&mut switch, ("x", frame(plain(Mac::BROADCAST, stranger(1)))), "drop:flood_nowhere", &[]);
}

#[test]
fn a_port_may_flood_so_much_a_second() {
    let mut switch = lan(|_| {});
    for number in 0..FLOODS_PER_PORT_PER_SECOND {
        switch.inject("x", frame(plain(Mac::BROADCAST, stranger(1))));
        if number % 1_000 == 999 {
            switch.run();
            drop(switch.take_all());
        }
    }
    assert_eq!(switch.totals().outcome(Verdict::Flood(BridgeId(0))), FLOODS_PER_PORT_PER_SECOND);
    check(&mut switch, ("x", frame(plain(Mac::BROADCAST, stranger(1)))), "drop:flood_limit", &[]);
    // The other ports have theirs, and a millisecond brings twenty more.
    floods(&mut switch, "y", &plain(Mac::BROADCAST, stranger(2)));
    switch.advance(Duration::from_millis(1));
    for _ in 0..20 {
        floods(&mut switch, "x", &plain(Mac::BROADCAST, stranger(1)));
    }
    check(&mut switch, ("x", frame(plain(Mac::BROADCAST, stranger(1)))), "drop:flood_limit", &[]);
    assert_eq!(switch.totals().outcome(Verdict::Drop(DropReason::FloodLimit)), 2);
}

#[test]
fn a_bridged_frame_is_never_cut() {
    let mut switch = node();
    switch.port(SimPort::pod("b", &NodePlan(1).pod(11)).mtu(1_280));
    let of = |len| Packet::udp(address(1, 10, false), address(1, 11, false), &vec![7; len]).macs(b(), a());
    let (fits, too_long) = (of(1_252), of(1_253).may_fragment());
    check(&mut switch, ("a", fits.frame()), "forward", &[("b", fits.frame())]);
    check(&mut switch, ("a", too_long.frame()), "drop:l2_too_big", &[]);
}
