//! The switch answers ARP and neighbour solicitations for the gateway and for pods it knows, and for the cluster
//! towards the host; never about the asker.

use std::net::IpAddr;

use podwire_control::model::Mac;
use podwire_tests::packet::{Packet, Sum, advertisement, arp, solicitation};
use podwire_tests::sim::{HOST, SimSwitch};

use super::{a, address, b, check, frame, gateway, ip, node, vtep};

const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Who asks by ARP, for whom, and at which MAC that is said to be.
#[track_caller]
fn arp_is_answered(switch: &mut SimSwitch, port: &str, (mac, own): (Mac, IpAddr), asked: IpAddr, at: Mac) {
    let question = arp(Mac::BROADCAST, 1, (mac, own), (Mac::ZERO, asked));
    check(switch, (port, frame(question)), "reply", &[(port, frame(arp(mac, 2, (at, asked), (mac, own))))]);
}

#[track_caller]
fn arp_is_flooded(port: &str, asker: (Mac, IpAddr), asked: IpAddr, to: &[&str]) {
    let question = arp(Mac::BROADCAST, 1, asker, (Mac::ZERO, asked));
    let out: Vec<_> = to.iter().map(|port| (*port, frame(question.clone()))).collect();
    check(&mut node(), (port, frame(question)), "flood", &out);
}

#[track_caller]
fn nd_is_answered(port: &str, (mac, own): (Mac, IpAddr), asked: IpAddr, at: Mac, flags: u8) {
    let question = solicitation(own, asked, Some(mac));
    let answer = advertisement(asked, own, flags, asked, at).macs(mac, at);
    check(&mut node(), (port, question.frame()), "reply", &[(port, answer.frame())]);
}

#[track_caller]
fn nd_is_flooded(port: &str, question: &Packet, to: &[&str]) {
    let out: Vec<_> = to.iter().map(|port| (*port, question.frame())).collect();
    check(&mut node(), (port, question.frame()), "flood", &out);
}

#[test]
fn a_pod_hears_where_the_gateway_is() {
    arp_is_answered(&mut node(), "a", (a(), address(1, 10, false)), address(1, 1, false), gateway());
    // Router, solicited, override.
    nd_is_answered("a", (a(), address(1, 10, true)), address(1, 1, true), gateway(), 0xe0);
}

#[test]
fn a_pod_hears_where_another_pod_is() {
    arp_is_answered(&mut node(), "a", (a(), address(1, 10, false)), address(1, 11, false), b());
    nd_is_answered("a", (a(), address(1, 10, true)), address(1, 11, true), b(), 0x60);
}

#[test]
fn the_host_hears_where_its_pods_are_and_that_the_cluster_is_behind_the_vtep() {
    let host = (gateway(), address(1, 1, false));
    arp_is_answered(&mut node(), HOST, host, address(1, 10, false), a());
    // A pod of node 2, and a cluster address nobody routes: the switch says so itself when the packet comes.
    for asked in [address(2, 10, false), address(77, 10, false)] {
        arp_is_answered(&mut node(), HOST, host, asked, vtep(1));
    }
    let host = (gateway(), address(1, 1, true));
    nd_is_answered(HOST, host, address(1, 10, true), a(), 0x60);
    nd_is_answered(HOST, host, address(2, 10, true), vtep(1), 0x60);
}

#[test]
fn a_pod_hears_nothing_of_other_nodes_and_of_addresses_nobody_has() {
    let asker = (a(), address(1, 10, false));
    for asked in [address(2, 10, false), address(1, 77, false), ip("192.0.2.7")] {
        arp_is_flooded("a", asker, asked, &["b", HOST]);
    }
    let asked = solicitation(address(1, 10, true), address(2, 10, true), Some(a()));
    nd_is_flooded("a", &asked, &["b", HOST]);
    arp_is_flooded(HOST, (gateway(), address(1, 1, false)), ip("192.0.2.7"), &["a", "b"]);
}

#[test]
fn nobody_is_told_about_itself() {
    // Announcements, and questions for one's own address, reach the others.
    arp_is_flooded("a", (a(), address(1, 10, false)), address(1, 10, false), &["b", HOST]);
    arp_is_flooded(HOST, (gateway(), address(1, 1, false)), address(1, 1, false), &["a", "b"]);
    nd_is_flooded("a", &solicitation(ip("::"), address(1, 10, true), None).macs(ALL_NODES, a()), &["b", HOST]);
    let host_probe = solicitation(ip("::"), address(1, 1, true), None).macs(ALL_NODES, gateway());
    nd_is_flooded(HOST, &host_probe, &["a", "b"]);
}

#[test]
fn a_probe_for_a_taken_address_is_answered_to_all_nodes() {
    let probe = solicitation(ip("::"), address(1, 11, true), None).macs(ALL_NODES, a());
    let answer = advertisement(address(1, 11, true), ip("ff02::1"), 0x20, address(1, 11, true), b());
    check(&mut node(), ("a", probe.frame()), "reply", &[("a", answer.macs(ALL_NODES, b()).frame())]);
    arp_is_answered(&mut node(), "a", (a(), ip("0.0.0.0")), address(1, 11, false), b());
}

#[test]
fn a_solicitation_that_a_receiver_must_discard_is_not_answered() {
    // RFC 4861, 7.1.1: a hop limit of 255, and a right checksum.
    let question = solicitation(address(1, 10, true), address(1, 11, true), Some(a()));
    nd_is_flooded("a", &question.clone().ttl(254), &["b", HOST]);
    nd_is_flooded("a", &question.sum(Sum::Is(0x1234)), &["b", HOST]);
}

#[test]
fn an_arp_reply_to_the_gateway_is_the_hosts() {
    let reply = frame(arp(gateway(), 2, (a(), address(1, 10, false)), (gateway(), address(1, 1, false))));
    check(&mut node(), ("a", reply.clone()), "punt:gateway", &[(HOST, reply)]);
}

#[test]
fn a_pod_that_has_left_is_not_answered_for() {
    let mut switch = node();
    switch.remove_port("b");
    let question = arp(Mac::BROADCAST, 1, (a(), address(1, 10, false)), (Mac::ZERO, address(1, 11, false)));
    check(&mut switch, ("a", frame(question.clone())), "flood", &[(HOST, frame(question))]);
}
