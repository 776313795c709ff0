//! Single cases, byte by byte.

use super::*;
use crate::limits::PIECES_MAX;
use crate::segment::{complete, verify_l4};

const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];

fn flags_of(packets: &[Vec<u8>], packet: &Packet) -> Vec<u8> {
    packets.iter().map(|bytes| bytes[packet.l4() + 13]).collect()
}

#[test]
fn a_tcp_segment_byte_by_byte() {
    let packet = Packet { payload: b"abcdefgh".to_vec(), ..Packet::tcp4(0) };
    let sent = sent(packet.super_frame(5), &packet.headers(), 1_500).unwrap();
    #[rustfmt::skip]
    let second = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
        0x45, 0xb9, 0, 43, 0xff, 0xff, 0x40, 0, 61, 6, 0x1f, 0x01, 10, 1, 2, 3, 10, 9, 8, 7,
        0x30, 0x39, 0x01, 0xbb, 0xff, 0xff, 0xff, 0x05, 0x0a, 0x0b, 0x0c, 0x0d,
        0x50, 0x10, 0x72, 0x10, 0x0a, 0x2d, 0, 7, b'f', b'g', b'h',
    ];
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1], second);
}

#[test]
fn fin_and_psh_are_on_the_last_segment_and_cwr_on_the_first() {
    let mut packet = Packet::tcp4(2_500);
    packet.transport = Transport::Tcp { options: TIMESTAMPS.to_vec(), sequence: 7, flags: 0xff };
    let sent = sent(packet.super_frame(1_000), &packet.headers(), 1_500).unwrap();
    assert_eq!(flags_of(&sent, &packet), [0xf6, 0x76, 0x7f]);
    let sequences: Vec<_> = sent.iter().map(|bytes| be16(bytes, packet.l4() + 6)).collect();
    assert_eq!(sequences, [7, 1_007, 2_007]);
}

#[test]
fn the_identification_counts_up_and_wraps_also_with_df() {
    let packet = Packet::udp4(2_100);
    let sent = sent(packet.super_frame(600), &packet.headers(), 1_500).unwrap();
    let ids: Vec<_> = sent.iter().map(|bytes| be16(bytes, packet.l3() + 4)).collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0, 1]);
    let lengths: Vec<_> = sent.iter().map(|bytes| be16(bytes, packet.l4() + 4)).collect();
    assert_eq!(lengths, [608, 608, 608, 308]);
}

#[test]
fn a_computed_udp_checksum_of_zero_is_sent_as_ones() {
    let mut packet = Packet::udp4(4);
    packet.payload = vec![0, 0, 0, 0];
    // With the checksum of the packet as a payload word, the sum is all ones.
    let check = be16(&packet.bytes(), packet.l4() + 6);
    packet.payload[..2].copy_from_slice(&check.to_be_bytes());
    for sent in [
        sent(packet.super_frame(4), &packet.headers(), 1_500).unwrap(),
        sent(packet.partial_frame(), &packet.headers(), 1_500).unwrap(),
    ] {
        assert_eq!(be16(&sent[0], packet.l4() + 6), 0xffff);
        assert!(verify_l4(&sent[0], &packet.headers()));
    }
}

#[test]
fn an_egress_that_takes_the_frame_gets_it_untouched() {
    let only = |change: fn(&mut PortCaps)| {
        let mut caps = PortCaps { checksum: true, ..PortCaps::NONE };
        change(&mut caps);
        caps
    };
    let cases = [
        (Packet::tcp4(4_000), only(|caps| caps.tcp4 = true), only(|caps| caps.tcp6 = true)),
        (Packet::tcp4(4_000).over_v6(&[]), only(|caps| caps.tcp6 = true), only(|caps| caps.tcp4 = true)),
        (Packet::udp4(4_000), only(|caps| caps.udp = true), only(|caps| caps.tcp4 = true)),
        (Packet::udp4(4_000).over_v6(&[]), only(|caps| caps.udp = true), only(|caps| caps.tcp6 = true)),
        (Packet::tcp4(4_000), PortCaps::ALL, PortCaps { checksum: false, ..PortCaps::ALL }),
    ];
    for (packet, takes, lacks) in cases {
        let mut arena = Arena::new();
        let mut frame = packet.super_frame(1_000);
        let before = (frame.bytes().to_vec(), frame.offload);
        assert_eq!(prepare(&mut frame, &packet.headers(), takes, 1_100, &mut arena), Ok(Prepared::Whole));
        assert_eq!((frame.bytes().to_vec(), frame.offload), before);
        assert_eq!(prepare(&mut frame, &packet.headers(), lacks, 1_100, &mut arena), Ok(Prepared::Cut));
        assert_eq!(arena.pieces().list.len(), 4);
    }
}

#[test]
fn a_partial_checksum_is_completed_only_where_the_egress_can_not() {
    for packet in [Packet::tcp4(301), Packet::udp4(300), Packet::tcp4(3).over_v6(&[0, 0, 1, 4, 0, 0, 0, 0])] {
        let mut frame = packet.partial_frame();
        let before = frame.bytes().to_vec();
        let mut arena = Arena::new();
        assert!(!verify_l4(frame.bytes(), &packet.headers()));
        assert_eq!(prepare(&mut frame, &packet.headers(), PortCaps::ALL, 1_500, &mut arena), Ok(Prepared::Whole));
        assert_eq!(frame.bytes(), before);
        assert_eq!(prepare(&mut frame, &packet.headers(), PortCaps::NONE, 1_500, &mut arena), Ok(Prepared::Whole));
        assert_eq!(frame.bytes(), packet.bytes());
        assert_eq!(frame.offload.checksum, Checksum::Good);
        assert!(verify_l4(frame.bytes(), &packet.headers()));
    }
}

#[test]
fn a_super_frame_with_one_segment_is_one_piece() {
    for payload_len in [0, 500, 1_000] {
        let packet = Packet::tcp4(payload_len);
        assert_eq!(sent(packet.super_frame(1_000), &packet.headers(), 1_500).unwrap(), [packet.bytes()]);
    }
}

#[test]
fn what_may_not_be_fragmented_is_refused() {
    let long4 = Packet::udp4(1_473);
    let long6 = Packet::udp4(1_453).over_v6(&[]);
    for packet in [&long4, &long6] {
        let headers = packet.headers();
        assert_eq!(sent(packet.partial_frame(), &headers, 1_500), Err(DropReason::Uncuttable));
        assert_eq!(sent(packet.partial_frame(), &headers, 1_501).map(|packets| packets.len()), Ok(1));
        assert_eq!(sent(packet.partial_frame(), &headers, u16::MAX).map(|packets| packets.len()), Ok(1));
        assert_eq!(sent(packet.super_frame(1_453), &headers, 1_480), Err(DropReason::Uncuttable));
    }
    let other = Headers { l3_offset: 14, l4_offset: 14, ethertype: 0x88cc, ..Headers::default() };
    assert_eq!(sent(frame_of(&[0; 1_515]), &other, 1_500), Err(DropReason::L2TooBig));
    assert_eq!(sent(frame_of(&[0; 1_514]), &other, 1_500).map(|packets| packets.len()), Ok(1));
    let tiny = Packet::udp4(100).with_df_clear();
    assert_eq!(sent(tiny.partial_frame(), &tiny.headers(), 27), Err(DropReason::Uncuttable));
    assert!(sent(tiny.partial_frame(), &tiny.headers(), 28).is_ok());
}

#[test]
fn a_last_fragment_uses_the_whole_mtu() {
    // 1480 bytes fit behind the IPv4 header of an MTU of 1500, and all the last one has; 1476 must be a multiple of 8.
    let packet = Packet::udp4(2 * 1_472 - 8 + 1_476).with_df_clear();
    let lengths = |mtu| -> Vec<_> {
        sent(packet.partial_frame(), &packet.headers(), mtu).unwrap().iter().map(|bytes| be16(bytes, 16)).collect()
    };
    assert_eq!(lengths(1_496), [1_492, 1_492, 1_496]);
    assert_eq!(lengths(1_495), [1_492, 1_492, 1_492, 24]);
}

#[test]
fn only_copied_options_are_in_later_fragments() {
    let mut packet = Packet::udp4(100).with_df_clear();
    let options = vec![1, 0x82, 4, 7, 8, 0x44, 8, 5, 0, 1, 2, 3, 4, 0, 0x44, 0x44];
    packet.ip = Ip::V4 { options: options.clone(), id: 5, dont_fragment: false };
    let sent = sent(packet.partial_frame(), &packet.headers(), 88).unwrap();
    assert_eq!(sent[0][34..50], options);
    assert_eq!(sent[1][34..50], [1, 0x82, 4, 7, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0x44, 0x44]);
    assert_eq!(reassemble(&sent, 14, 88), packet.bytes());
}

#[test]
fn a_fragment_that_is_not_the_first_keeps_the_options_it_came_with() {
    let mut packet = Packet::udp4(100).with_df_clear();
    packet.ip = Ip::V4 { options: vec![0x44, 4, 5, 0], id: 5, dont_fragment: false };
    let mut bytes = packet.bytes();
    bytes[20..22].copy_from_slice(&[0x20, 10]);
    let headers = headers_of_fragment(&packet.headers(), &bytes);
    assert_eq!(sent(frame_of(&bytes), &headers, 88), Err(DropReason::FragmentMalformed), "more follow a part of 108");
    bytes[20] = 0;
    let headers = headers_of_fragment(&packet.headers(), &bytes);
    let sent = sent(frame_of(&bytes), &headers, 88).unwrap();
    assert_eq!(sent.iter().map(|bytes| be16(bytes, 20)).collect::<Vec<_>>(), [0x2000 | 10, 10 + 8]);
    assert!(sent.iter().all(|bytes| bytes[34..38] == [0x44, 4, 5, 0]));
}

#[test]
fn padding_is_neither_summed_nor_fragmented() {
    let packet = Packet::udp4(200).with_df_clear();
    let padded = || {
        let mut frame = packet.partial_frame();
        let len = frame.len();
        frame.set_len(len + 400);
        frame.bytes_mut()[len..].fill(0xee);
        frame
    };
    let mut frame = padded();
    complete(&mut frame, &packet.headers()).unwrap();
    assert_eq!(frame.bytes()[..packet.bytes().len()], packet.bytes());
    assert_eq!(reassemble(&sent(padded(), &packet.headers(), 100).unwrap(), 14, 100), packet.bytes());
    assert_eq!(sent(padded(), &packet.headers(), 300).unwrap(), [packet.bytes()], "longer than the MTU by padding");
}

#[test]
fn the_pseudo_header_under_a_routing_header_is_the_senders() {
    // The destination in the pseudo-header is the last hop's (RFC 8200, 8.1), which only the field tells.
    let packet = Packet::tcp4(1_500).over_v6(&[0, 0, 1, 4, 0, 0, 0, 0]);
    let mut headers = packet.headers();
    let L3::V6(ip) = &mut headers.l3 else { panic!("not IPv6") };
    ip.dst = "fd00::77".parse().unwrap();
    let expected: Vec<_> = packet.segments(1_000).iter().map(Packet::bytes).collect();
    assert_eq!(sent(packet.super_frame(1_000), &headers, 1_500).unwrap(), expected);
}

#[test]
fn too_many_pieces_are_refused_and_the_smallest_mss_is_not() {
    let packet = Packet::tcp4(65_000);
    assert_eq!(sent(packet.super_frame(88), &packet.headers(), 1_500).unwrap().len(), 65_000usize.div_ceil(88));
    assert_eq!(sent(packet.super_frame(63), &packet.headers(), 1_500), Err(DropReason::Uncuttable));
    let all = Packet::tcp4(64 * PIECES_MAX - 600);
    assert_eq!(sent(all.super_frame(64), &all.headers(), 1_500).unwrap().len(), PIECES_MAX - 9);
}

#[test]
fn offloads_that_contradict_the_frame_are_refused() {
    let packet = Packet::tcp4(3_000);
    let check = |what: &str, change: fn(&mut Frame, &mut Headers)| {
        let (mut frame, mut headers) = (packet.super_frame(1_000), packet.headers());
        change(&mut frame, &mut headers);
        assert_eq!(sent(frame, &headers, 1_500), Err(DropReason::OffloadInvalid), "{what}");
    };
    assert!(sent(packet.super_frame(1_000), &packet.headers(), 1_500).is_ok());
    check("UDP segments of a TCP frame", |frame, _| frame.offload.gso.as_mut().unwrap().kind = GsoKind::Udp);
    check("IPv6 segments of an IPv4 frame", |frame, _| frame.offload.gso.as_mut().unwrap().kind = GsoKind::Tcp6);
    check("segments of nothing", |frame, _| frame.offload.gso.as_mut().unwrap().size = 0);
    check("no L4 header", |_, headers| headers.l4 = L4::None);
    check("headers cut off", |frame, _| frame.set_len(50));
    check("a checksum elsewhere", |frame, _| frame.offload.checksum = Checksum::Partial { start: 14, offset: 16 });
    check("a fragment", |_, headers| {
        let L3::V4(ip) = &mut headers.l3 else { panic!("not IPv4") };
        ip.fragment = Some(Fragment { offset: 0, more: true, id: 1 });
    });
    let mut frame = Packet::udp4(10).partial_frame();
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 17 };
    assert_eq!(complete(&mut frame, &Packet::udp4(10).headers()), Err(DropReason::OffloadInvalid));
}

#[test]
fn verification_tells_right_from_wrong_and_from_unknown() {
    for packet in [Packet::tcp4(99), Packet::udp4(100), Packet::tcp4(1).over_v6(&[]), Packet::udp4(0).over_v6(&[])] {
        let (mut bytes, headers) = (packet.bytes(), packet.headers());
        assert!(verify_l4(&bytes, &headers));
        bytes[packet.l4() + 1] ^= 4;
        assert!(!verify_l4(&bytes, &headers));
        bytes[packet.l4() + 1] ^= 4;
        assert!(!verify_l4(&bytes[..packet.header_len() - 1], &headers), "cut off");
        packet.put_check(&mut bytes, 0);
        let absent = packet.protocol() == 17 && matches!(packet.ip, Ip::V4 { .. });
        assert_eq!(verify_l4(&bytes, &headers), absent, "a field of 0");
    }
    let packet = Packet::udp4(100);
    assert!(!verify_l4(&packet.bytes(), &headers_of_fragment(&packet.headers(), &packet.bytes())));
}

#[test]
fn a_reused_arena_does_not_move_and_forgets_the_frame_before() {
    let mut arena = Arena::new();
    let packet = Packet::tcp4(60_000);
    let place = |arena: &Arena| (arena.pieces().headers.as_ptr(), arena.pieces().list.as_ptr());
    let before = place(&arena);
    for size in [100, 1_448, 9_000, 70] {
        let mut frame = packet.super_frame(size);
        assert_eq!(
            prepare(&mut frame, &packet.headers(), PortCaps::NONE, u16::MAX, &mut arena),
            Ok(Prepared::Cut),
            "segments of {size} bytes"
        );
        assert_eq!(arena.pieces().list.len(), 60_000usize.div_ceil(size.into()));
        assert_eq!(place(&arena), before);
    }
    let mut frame = packet.super_frame(10);
    let refused = prepare(&mut frame, &packet.headers(), PortCaps::NONE, u16::MAX, &mut arena);
    assert_eq!(refused, Err(DropReason::Uncuttable));
    assert!(arena.pieces().list.is_empty());
}
