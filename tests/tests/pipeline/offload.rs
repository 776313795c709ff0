//! Super-frames, checksums and fragments: carried where the egress takes them, cut or completed where it does not.

use podwire_tests::NodePlan;
use podwire_tests::packet::{Packet, Sum, flag};
use podwire_tests::sim::{HOST, SimPort, SimSwitch, UPLINK};
use podwire_vswitch::frame::Checksum;
use podwire_vswitch::port::memory::MemoryFrame;
use podwire_vswitch::port::{PortCaps, TxError};
use podwire_vswitch::stats::Event;

use super::{FAMILIES, a, address, b, check, check_events, gateway, node, outside, tunnelled, vtep};

/// TCP with every flag that belongs to one segment only.
fn tcp(v6: bool, dst: std::net::IpAddr, len: usize) -> Packet {
    let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
    let flags = flag::FIN | flag::PSH | flag::ACK | flag::CWR;
    Packet::tcp(address(1, 10, v6), dst, 0xffff_f000, flags, &payload).macs(gateway(), a())
}

fn udp(v6: bool, dst: std::net::IpAddr, len: usize) -> Packet {
    let payload: Vec<u8> = (0..=255).rev().cycle().take(len).collect();
    Packet::udp(address(1, 10, v6), dst, &payload).macs(gateway(), a())
}

/// Node 1 whose pod `b` has these offloads and this MTU.
fn with_b(caps: PortCaps, mtu: u16) -> SimSwitch {
    let mut switch = node();
    switch.port(SimPort::pod("b", &NodePlan(1).pod(11)).caps(caps).mtu(mtu));
    switch
}

fn good(mut frame: MemoryFrame) -> MemoryFrame {
    frame.offload.checksum = Checksum::Good;
    frame
}

#[test]
fn a_super_frame_between_two_taps_is_not_touched() {
    for v6 in FAMILIES {
        for make in [tcp, udp] {
            let packet = make(v6, address(1, 11, v6), 60_000);
            let bridged = packet.clone().macs(b(), a()).super_frame(1_370);
            check(&mut node(), ("a", bridged.clone()), "forward", &[("b", bridged)]);
            let routed = packet.clone().routed(b(), gateway()).super_frame(1_370);
            check(&mut node(), ("a", packet.super_frame(1_370)), "forward", &[("b", routed)]);
            let outside = make(v6, outside(v6), 60_000).super_frame(1_370);
            check(&mut node(), ("a", outside.clone()), "punt:outside", &[(HOST, outside)]);
        }
    }
}

#[test]
fn a_super_frame_that_a_device_refuses_after_all_is_sent_in_pieces() {
    for v6 in FAMILIES {
        for make in [tcp, udp] {
            let mut switch = node();
            switch.peer("b").refuse_super_frames();
            let packet = make(v6, address(1, 11, v6), 10_000).macs(b(), a());
            let out: Vec<_> = packet.segments(1_370).iter().map(|piece| ("b", piece.frame())).collect();
            assert_eq!(out.len(), 8);
            let events = [(Event::SuperFramesRefused, 1)];
            check_events(&mut switch, ("a", packet.super_frame(1_370)), "forward", &out, &events);
            // What is no super-frame and refused is dropped, as ever.
            let small = make(v6, address(1, 11, v6), 100).macs(b(), a()).frame();
            switch.peer("b").answer_with(Some(TxError::Refused));
            check(&mut switch, ("a", small), "drop:tx_refused", &[]);
        }
    }
}

#[test]
fn a_super_frame_is_cut_for_the_uplink() {
    for v6 in FAMILIES {
        for make in [tcp, udp] {
            let packet = make(v6, address(2, 10, v6), 10_000);
            let segments = packet.clone().routed(vtep(2), vtep(1)).segments(1_370);
            let out: Vec<_> = segments.iter().map(|piece| (UPLINK, tunnelled(piece.frame(), v6, 0))).collect();
            assert_eq!(out.len(), 8);
            check(&mut node(), ("a", packet.super_frame(1_370)), "forward", &out);
        }
    }
}

#[test]
fn a_super_frame_is_cut_for_a_port_that_takes_none_of_its_kind() {
    let without = |lacking: fn(&mut PortCaps)| {
        let mut caps = PortCaps::ALL;
        lacking(&mut caps);
        caps
    };
    type Make = fn(bool, std::net::IpAddr, usize) -> Packet;
    let cases: [(PortCaps, bool, Make, bool); 7] = [
        (without(|caps| caps.tcp4 = false), false, tcp, true),
        (without(|caps| caps.tcp4 = false), true, tcp, false),
        (without(|caps| caps.tcp6 = false), true, tcp, true),
        (without(|caps| caps.udp = false), false, udp, true),
        (without(|caps| caps.udp = false), true, udp, true),
        (without(|caps| caps.udp = false), true, tcp, false),
        (without(|caps| caps.checksum = false), false, tcp, true),
    ];
    for (caps, v6, make, cut) in cases {
        let packet = make(v6, address(1, 11, v6), 5_000);
        let routed = packet.clone().routed(b(), gateway());
        let out: Vec<_> = match cut {
            true => routed.segments(1_000).iter().map(|piece| ("b", piece.frame())).collect(),
            false => vec![("b", routed.super_frame(1_000))],
        };
        check(&mut with_b(caps, 1_430), ("a", packet.super_frame(1_000)), "forward", &out);
    }
}

#[test]
fn a_super_frame_of_more_pieces_than_a_worker_holds_is_not_cut() {
    let packet = tcp(false, address(2, 10, false), 60_000);
    check(&mut node(), ("a", packet.super_frame(16)), "drop:uncuttable", &[]);
    check(&mut node(), ("a", packet.super_frame(64)), "forward", &{
        let segments = packet.clone().routed(vtep(2), vtep(1)).segments(64);
        segments.iter().map(|piece| (UPLINK, tunnelled(piece.frame(), false, 0))).collect::<Vec<_>>()
    });
}

#[test]
fn a_partial_checksum_is_carried_to_those_who_take_it_and_completed_for_others() {
    for v6 in FAMILIES {
        for make in [tcp, udp] {
            let packet = make(v6, address(1, 11, v6), 700);
            let partial = packet.clone().sum(Sum::Partial);
            let carried = partial.clone().routed(b(), gateway()).frame();
            check(&mut node(), ("a", partial.frame()), "forward", &[("b", carried)]);
            let completed = good(packet.routed(b(), gateway()).frame());
            check(&mut with_b(PortCaps::NONE, 1_430), ("a", partial.frame()), "forward", &[("b", completed)]);

            let packet = make(v6, address(2, 10, v6), 701);
            let completed = good(packet.clone().routed(vtep(2), vtep(1)).frame());
            let out = [(UPLINK, tunnelled(completed, v6, 0))];
            check(&mut node(), ("a", packet.sum(Sum::Partial).frame()), "forward", &out);
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let packet = udp(false, address(2, 10, false), 33).sum(Sum::Is(0));
    let out = tunnelled(packet.clone().routed(vtep(2), vtep(1)).frame(), false, 0);
    check(&mut node(), ("a", packet.frame()), "forward", &[(UPLINK, out)]);
}

#[test]
fn a_long_packet_without_df_is_fragmented() {
    let options = vec![
        // Record route, not copied; router alert, copied; end.
        7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0,
    ];
    let plain = udp(false, address(2, 10, false), 4_000).may_fragment();
    let routed = plain.clone().routed(vtep(2), vtep(1));
    let out: Vec<_> = fragments_for_uplink(&routed, 1_450);
    assert_eq!(out.len(), 3);
    check(&mut node(), ("a", plain.frame()), "forward", &out);

    let optioned = Packet { options: options.clone(), ..plain };
    let routed = optioned.clone().routed(vtep(2), vtep(1));
    let mut fragments = routed.fragments(1_450);
    for later in &mut fragments[1..] {
        // Header length stays; what is not copied becomes no-operation.
        later.options[..7].fill(1);
    }
    let out: Vec<_> = fragments.iter().map(|piece| (UPLINK, tunnelled(piece.frame(), false, 0))).collect();
    check(&mut node(), ("a", optioned.frame()), "forward", &out);
}

fn fragments_for_uplink(routed: &Packet, mtu: usize) -> Vec<(&'static str, MemoryFrame)> {
    routed.fragments(mtu).iter().map(|piece| (UPLINK, tunnelled(piece.frame(), false, 0))).collect()
}

#[test]
fn a_fragment_that_is_too_long_is_fragmented_again() {
    let whole = udp(false, address(2, 10, false), 4_000).may_fragment();
    for fragment in whole.fragments(2_020) {
        let routed = fragment.clone().routed(vtep(2), vtep(1));
        let out = fragments_for_uplink(&routed, 1_450);
        assert_eq!(out.len(), if fragment.fragment == Some((0, true)) { 2 } else { out.len() });
        if routed.ip_bytes().len() > 1_450 {
            check(&mut node(), ("a", fragment.frame()), "forward", &out);
        }
    }
}

#[test]
fn a_partial_checksum_is_completed_before_the_packet_is_fragmented() {
    let packet = udp(false, address(1, 11, false), 3_000).may_fragment();
    let fragments = packet.clone().routed(b(), gateway()).fragments(1_280);
    let out: Vec<_> = fragments.iter().map(|piece| ("b", piece.frame())).collect();
    check(&mut with_b(PortCaps::ALL, 1_280), ("a", packet.sum(Sum::Partial).frame()), "forward", &out);
}

#[test]
fn segments_longer_than_the_egress_are_fragmented_where_df_is_clear() {
    let packet = tcp(false, address(1, 11, false), 4_000).may_fragment();
    let segments = packet.clone().routed(b(), gateway()).segments(2_000);
    let pieces = segments.iter().flat_map(|segment| segment.fragments(1_280));
    let out: Vec<_> = pieces.map(|piece| ("b", piece.frame())).collect();
    check(&mut with_b(PortCaps::ALL, 1_280), ("a", packet.super_frame(2_000)), "forward", &out);
}

#[test]
fn ethernet_padding_is_carried_and_no_part_of_the_checksum() {
    let packet = udp(false, address(1, 11, false), 1);
    let padded = |frame: MemoryFrame| MemoryFrame { bytes: [frame.bytes, vec![0xee; 17]].concat(), ..frame };
    let partial = padded(packet.clone().sum(Sum::Partial).frame());
    let completed = padded(good(packet.routed(b(), gateway()).frame()));
    check(&mut with_b(PortCaps::NONE, 1_430), ("a", partial), "forward", &[("b", completed)]);
}
