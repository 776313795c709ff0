//! Out of the tunnel: who may send, what is for us, ECN, and the checksum state of what comes from a wire.

use podwire_control::model::{Object, Vni};
use podwire_tests::NodePlan;
use podwire_tests::packet::{Packet, Sum, vxlan};
use podwire_tests::plan::VNI;
use podwire_tests::sim::{SimPort, UPLINK, vtep as state_vtep};
use podwire_vswitch::frame::{Checksum, Outer};
use podwire_vswitch::port::PortCaps;
use podwire_vswitch::port::memory::MemoryFrame;
use podwire_vswitch::stats::Event;

use super::{
    FAMILIES, a, address, check, check_events, datagram, frame, from_node2, gateway, ip, node, underlay, vtep,
};

fn to_a(v6: bool) -> Packet {
    Packet::udp(address(2, 10, v6), address(1, 10, v6), b"through the tunnel").macs(vtep(1), vtep(2))
}

fn at_a(packet: &Packet) -> Packet {
    packet.clone().routed(a(), gateway())
}

#[test]
fn a_datagram_that_is_too_short_is_named() {
    let whole = vxlan(VNI, &to_a(false).bytes());
    let outer = Outer { remote: underlay(2, false), tos: 0 };
    for len in 0..22 {
        check(&mut node(), (UPLINK, frame(&whole[..len]).with_outer(outer)), "drop:vxlan_truncated", &[]);
    }
    check(&mut node(), (UPLINK, frame(whole)), "drop:vxlan_truncated", &[]);
}

#[test]
fn the_flag_of_the_network_identifier_must_be_set_and_reserved_bits_are_ignored() {
    let with = |at: usize, byte| {
        let mut datagram = from_node2(&to_a(false).bytes());
        datagram.bytes[at] = byte;
        datagram
    };
    for flags in [0x00, 0xf7, 0x80] {
        check(&mut node(), (UPLINK, with(0, flags)), "drop:vxlan_flags", &[]);
    }
    for (at, byte) in [(0, 0xff), (1, 0xff), (3, 1), (7, 0xff)] {
        check(&mut node(), (UPLINK, with(at, byte)), "forward", &[("a", at_a(&to_a(false)).frame())]);
    }
}

#[test]
fn only_known_vteps_are_heard_and_by_any_of_their_addresses() {
    let strange = datagram(3, VNI, 0, &to_a(false).bytes());
    check(&mut node(), (UPLINK, strange), "drop:vxlan_unknown_vtep", &[]);
    for over_v6 in FAMILIES {
        for v6 in FAMILIES {
            let outer = Outer { remote: underlay(2, over_v6), tos: 0 };
            let datagram = frame(vxlan(VNI, &to_a(v6).bytes())).with_outer(outer);
            check(&mut node(), (UPLINK, datagram), "forward", &[("a", at_a(&to_a(v6)).frame())]);
        }
    }
}

#[test]
fn only_known_network_identifiers_are_heard() {
    for vni in [0, VNI + 1, 0xff_ff_ff] {
        let strange = datagram(2, vni, 0, &to_a(false).bytes());
        check(&mut node(), (UPLINK, strange), "drop:vxlan_unknown_vni", &[]);
    }
    let mut switch = node();
    let mut third = state_vtep("node3", &[(underlay(3, false), vtep(3))]);
    third.vni = Some(Vni::try_from(77).expect("a VNI"));
    switch.state([Object::Vtep(third)]);
    let own = datagram(3, 77, 0, &to_a(false).bytes());
    check(&mut switch, (UPLINK, own), "forward", &[("a", at_a(&to_a(false)).frame())]);
}

#[test]
fn what_is_addressed_to_another_vtep_is_not_for_us() {
    for mac in [vtep(2), gateway(), a()] {
        let packet = to_a(false).macs(mac, vtep(2));
        check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "drop:vxlan_not_for_us", &[]);
    }
}

#[test]
fn a_tunnel_inside_the_tunnel_is_a_pods_own_affair() {
    let nested = vxlan(VNI, &to_a(false).bytes());
    let packet = Packet { payload: nested, ..to_a(false) };
    check(&mut node(), (UPLINK, from_node2(&packet.bytes())), "forward", &[("a", at_a(&packet).frame())]);
}

/// RFC 6040, figure 4: what leaves by the inner codepoint (rows) and the outer one (columns), in order of their
/// values: Not-ECT, ECT(1), ECT(0), CE.
const ECN: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn ecn_is_combined_as_rfc_6040_says() {
    for (inner, row) in (0_u8..).zip(ECN) {
        for (outer, left) in (0_u8..).zip(row) {
            for v6 in FAMILIES {
                // A DSCP on either side stays where it is.
                let packet = to_a(v6).tos(0x28 | inner);
                let datagram = datagram(2, VNI, 0xb8 | outer, &packet.bytes());
                match left {
                    Some(ecn) => {
                        let out = at_a(&packet).tos(0x28 | ecn).frame();
                        check(&mut node(), (UPLINK, datagram), "forward", &[("a", out)]);
                    }
                    None => check(&mut node(), (UPLINK, datagram), "drop:ecn_illegal", &[]),
                }
            }
        }
    }
}

#[test]
fn a_bare_pseudo_header_sum_from_the_wire_is_a_checksum_to_complete() {
    let events = [(Event::PartialFromWire, 1)];
    for v6 in FAMILIES {
        let (src, dst) = (address(2, 10, v6), address(1, 10, v6));
        let tcp = Packet::tcp(src, dst, 9, 0x18, &[7; 99]).macs(vtep(1), vtep(2));
        for packet in [tcp, to_a(v6)] {
            let partial = packet.clone().sum(Sum::Partial);
            let datagram = from_node2(&partial.bytes());
            // Carried to a port that completes it, completed for one that does not.
            let out = at_a(&partial).frame();
            check_events(&mut node(), (UPLINK, datagram.clone()), "forward", &[("a", out)], &events);
            let mut switch = node();
            switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).caps(PortCaps::NONE));
            let out = good(at_a(&packet).frame());
            check_events(&mut switch, (UPLINK, datagram), "forward", &[("a", out)], &events);
        }
    }
}

fn good(mut frame: MemoryFrame) -> MemoryFrame {
    frame.offload.checksum = podwire_vswitch::frame::Checksum::Good;
    frame
}

#[test]
fn a_packet_from_the_wire_that_no_tunnel_could_carry_is_a_super_frame() {
    let events = [(Event::PartialFromWire, 1), (Event::OversizeFromWire, 1)];
    for v6 in FAMILIES {
        let packet = Packet::tcp(address(2, 10, v6), address(1, 10, v6), 77, 0x18, &[9; 7_000]);
        let packet = packet.macs(vtep(1), vtep(2));
        let datagram = from_node2(&packet.clone().sum(Sum::Partial).bytes());
        // The tunnel over IPv4, which it came by, carries 1,450 bytes. Nobody knows the real size of the segments: where
        // the egress carries less, that is as good a guess.
        for mtu in [1_280, 1_430, 1_450, 9_000] {
            let size = mtu.min(1_450) - if v6 { 60 } else { 40 };
            let mut switch = node();
            switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).mtu(mtu));
            let out = at_a(&packet).super_frame(size);
            check_events(&mut switch, (UPLINK, datagram.clone()), "forward", &[("a", out)], &events);

            switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).mtu(mtu).caps(PortCaps::NONE));
            let segments = at_a(&packet).segments(size.into());
            let out: Vec<_> = segments.iter().map(|segment| ("a", segment.frame())).collect();
            check_events(&mut switch, (UPLINK, datagram.clone()), "forward", &out, &events);
        }
    }
}

/// What an uplink has put together, with its tunnel header in front.
fn joined(packet: &Packet, size: u16) -> MemoryFrame {
    let mut frame = packet.super_frame(size);
    let mut datagram = from_node2(&frame.bytes);
    if let (Checksum::Partial { start, .. }, Some(gso)) = (&mut frame.offload.checksum, &mut frame.offload.gso) {
        *start += 8;
        gso.header_len += 8;
    }
    datagram.offload = frame.offload;
    datagram
}

#[test]
fn segments_that_the_uplink_joined_are_one_frame_or_cut_again() {
    let size = 1_000;
    for v6 in FAMILIES {
        let packet = Packet::tcp(address(2, 10, v6), address(1, 10, v6), 77, 0x18, &[9; 7_500]).macs(vtep(1), vtep(2));
        let events = [(Event::Coalesced, 8)];
        let out = at_a(&packet).super_frame(size);
        let mut switch = node();
        check_events(&mut switch, (UPLINK, joined(&packet, size)), "forward", &[("a", out)], &events);
        let (uplink, a) = (switch.counters(UPLINK), switch.counters("a"));
        assert_eq!((uplink.rx.frames, uplink.rx.segments), (1, 8));
        assert_eq!((a.tx.frames, a.tx.segments), (1, 8));

        let mut switch = node();
        switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).caps(PortCaps::NONE));
        let segments = at_a(&packet).segments(size.into());
        let out: Vec<_> = segments.iter().map(|segment| ("a", segment.frame())).collect();
        check_events(&mut switch, (UPLINK, joined(&packet, size)), "forward", &out, &events);
        assert_eq!(switch.counters("a").tx.segments, 8);
    }
}

/// Kernel peers' super-frames have no mark; several that were joined are cut as one is.
#[test]
fn joined_segments_that_no_tunnel_could_carry_are_cut_anew() {
    for v6 in FAMILIES {
        let packet = Packet::tcp(address(2, 10, v6), address(1, 10, v6), 77, 0x18, &[9; 14_000]).macs(vtep(1), vtep(2));
        let out = at_a(&packet).super_frame(1_450 - if v6 { 60 } else { 40 });
        let events = [(Event::Coalesced, 2), (Event::OversizeFromWire, 1)];
        let mut switch = node();
        switch.port(SimPort::pod("a", &NodePlan(1).pod(10)).mtu(1_450));
        check_events(&mut switch, (UPLINK, joined(&packet, 7_000)), "forward", &[("a", out)], &events);
    }
}

#[test]
fn an_inner_frame_that_is_no_ip_is_not_routed() {
    let arp = podwire_tests::packet::arp(vtep(1), 1, (vtep(2), ip("10.244.2.1")), (vtep(1), ip("10.244.1.1")));
    check(&mut node(), (UPLINK, from_node2(&arp)), "drop:not_routable", &[]);
}
