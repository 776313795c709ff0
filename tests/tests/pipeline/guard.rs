//! A guarded pod speaks only as itself; an unguarded one as anybody.

use podwire_control::model::Mac;
use podwire_tests::NodePlan;
use podwire_tests::packet::{Packet, advertisement, arp, solicitation};
use podwire_tests::sim::{HOST, SimPort, SimSwitch};

use super::{FAMILIES, a, address, b, check, frame, gateway, ip, node, plain, stranger};

/// What `a` sends to `b` over the bridge, as this station with this source address.
fn to_b(src_mac: Mac, src: &str) -> Packet {
    let src = ip(src);
    Packet::udp(src, address(1, 11, src.is_ipv6()), b"spoken").macs(b(), src_mac)
}

#[test]
fn a_pods_own_addresses_pass() {
    for v6 in FAMILIES {
        let packet = to_b(a(), &address(1, 10, v6).to_string());
        check(&mut node(), ("a", packet.frame()), "forward", &[("b", packet.frame())]);
    }
}

#[test]
fn another_stations_mac_is_refused() {
    check(&mut node(), ("a", to_b(stranger(9), "10.244.1.10").frame()), "drop:spoofed_mac", &[]);
    check(&mut node(), ("a", frame(plain(b(), gateway()))), "drop:spoofed_mac", &[]);
    for invalid in [Mac::ZERO, Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1])] {
        check(&mut node(), ("a", frame(plain(b(), invalid))), "drop:source_mac_invalid", &[]);
        check(&mut node(), (HOST, frame(plain(b(), invalid))), "drop:source_mac_invalid", &[]);
    }
}

#[test]
fn another_ip_source_is_refused_in_both_families() {
    for src in ["10.244.1.11", "10.244.1.1", "0.0.0.0", "127.0.0.1", "fd00:244:1::b", "::", "fe80::1"] {
        check(&mut node(), ("a", to_b(a(), src).frame()), "drop:spoofed_ip", &[]);
    }
    let tagged = to_b(a(), "10.244.1.11").vlan(5);
    check(&mut node(), ("a", tagged.frame()), "drop:spoofed_ip", &[]);
}

#[test]
fn the_link_local_address_that_follows_from_the_mac_is_the_pods_own() {
    // 0a:58:0a:f4:01:0a, the universal bit flipped.
    let packet = to_b(a(), "fe80::858:aff:fef4:10a");
    check(&mut node(), ("a", packet.frame()), "forward", &[("b", packet.frame())]);
}

#[test]
fn arp_must_be_about_the_pod_itself() {
    let (own, other) = (address(1, 10, false), address(1, 11, false));
    let asks = |sender: (Mac, _)| {
        let mut question = arp(Mac::BROADCAST, 1, sender, (Mac::ZERO, ip("10.244.1.77")));
        question[6..12].copy_from_slice(&a().0);
        frame(question)
    };
    let (yes, no) = ("flood", "drop:spoofed_arp");
    for (sender, outcome) in [
        ((a(), own), yes),
        ((a(), other), no),
        ((b(), own), no),
        // A probe (RFC 5227) has no sender address.
        ((a(), ip("0.0.0.0")), yes),
    ] {
        let out = [("b", asks(sender)), (HOST, asks(sender))];
        check(&mut node(), ("a", asks(sender)), outcome, if outcome == yes { &out } else { &[] });
    }
    let reply = frame(arp(b(), 2, (a(), ip("0.0.0.0")), (b(), other)));
    check(&mut node(), ("a", reply), no, &[]);
}

#[test]
fn neighbour_discovery_must_be_about_the_pod_itself() {
    let (own, other) = (address(1, 10, true), address(1, 11, true));
    let group = ip("ff02::1");
    let all = Mac([0x33, 0x33, 0, 0, 0, 1]);
    for lie in [
        // Somebody else's address, or MAC.
        advertisement(own, group, 0x20, other, a()).macs(all, a()),
        advertisement(own, group, 0x20, own, b()).macs(all, a()),
        solicitation(own, other, Some(b())).macs(all, a()),
        // Only routers say these.
        Packet::icmp(own, group, 134, 0, [0; 4], &[0; 8]).ttl(255).macs(all, a()),
        Packet::icmp(own, group, 137, 0, [0; 4], &[0; 32]).ttl(255).macs(all, a()),
        // Cut off.
        Packet::icmp(own, group, 135, 0, [0; 4], &[0; 8]).ttl(255).macs(all, a()),
    ] {
        check(&mut node(), ("a", lie.frame()), "drop:spoofed_nd", &[]);
    }
    let truth = advertisement(own, group, 0x20, own, a()).macs(all, a());
    check(&mut node(), ("a", truth.frame()), "flood", &[("b", truth.frame()), (HOST, truth.frame())]);
}

#[test]
fn allowed_prefixes_pass_beside_the_own_addresses() {
    let mut switch = node();
    let allowed = ["10.96.0.0/12", "2001:db8::/32"].map(|prefix| prefix.parse().expect("a prefix"));
    switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).allowed(&allowed));
    for src in ["10.97.3.4", "10.244.1.10", "2001:db8::5", "fd00:244:1::a"] {
        let packet = to_b(a(), src);
        check(&mut switch, ("a", packet.frame()), "forward", &[("b", packet.frame())]);
    }
    check(&mut switch, ("a", to_b(a(), "10.112.0.1").frame()), "drop:spoofed_ip", &[]);
}

#[test]
fn without_its_guard_a_port_may_be_anybody() {
    let mut switch = node();
    switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).unguarded());
    for packet in [to_b(stranger(9), "198.51.100.1"), to_b(a(), "fd00:244:1::77")] {
        check(&mut switch, ("a", packet.frame()), "forward", &[("b", packet.frame())]);
    }
}

#[test]
fn a_port_that_is_not_configured_any_more_is_heard_no_more() {
    let mut switch = node();
    let (id, key) = (switch.port_id("a"), podwire_control::model::Key::Port("a".parse().expect("a name")));
    switch.withdraw(&key).inject("a", to_b(a(), "10.244.1.10").frame());
    assert_eq!(unpublished_turn(&mut switch, id), 1);
}

fn unpublished_turn(switch: &mut SimSwitch, id: podwire_vswitch::id::PortId) -> u64 {
    switch.turn(id);
    assert!(switch.take_all().is_empty());
    let unknown = podwire_vswitch::outcome::DropReason::UnknownPort;
    switch.totals().outcome(podwire_vswitch::outcome::Verdict::Drop(unknown))
}
