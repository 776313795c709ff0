//! Random packets, cut and put together again.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ip4() -> impl Strategy<Value = Ip> {
    // Options as a whole number of words: NOPs, a copied one (security), one that is not (timestamp), and an end.
    let option = prop_oneof![
        Just(vec![1, 1, 1, 1]),
        Just(vec![0x82, 4, 0xab, 0xcd]),
        Just(vec![0x44, 8, 5, 0, 1, 2, 3, 4]),
        Just(vec![0x94, 4, 0, 0]),
    ];
    let end = prop_oneof![Just(vec![]), Just(vec![0, 0, 0, 0])];
    (vec(option, 0..4), end, any::<u16>(), any::<bool>()).prop_map(|(options, end, id, dont_fragment)| Ip::V4 {
        options: [options.concat(), end].concat(),
        id,
        dont_fragment,
    })
}

fn ip6() -> impl Strategy<Value = Ip> {
    // Destination options, padded (RFC 8200, 4.6); the fixture writes the next header.
    let padded = vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    prop_oneof![Just(vec![]), Just(vec![0, 0, 1, 4, 0, 0, 0, 0]), Just(padded)]
        .prop_map(|extensions| Ip::V6 { extensions })
}

fn transport() -> impl Strategy<Value = Transport> {
    let options = (0..=10usize).prop_map(|words| vec![1; words * 4]);
    let tcp = (options, any::<u32>(), any::<u8>()).prop_map(|(options, sequence, flags)| Transport::Tcp {
        options,
        sequence,
        flags,
    });
    prop_oneof![3 => tcp, 1 => Just(Transport::Udp)]
}

fn packet(ip: impl Strategy<Value = Ip>, len_max: usize) -> impl Strategy<Value = Packet> {
    (0..=2usize, ip, transport(), vec(any::<u8>(), 1..len_max)).prop_map(|(tags, ip, transport, payload)| Packet {
        tags,
        ip,
        transport,
        payload,
    })
}

/// A parser that is not ours finds nothing wrong with the packet.
fn check_with_etherparse(bytes: &[u8]) {
    let packet = SlicedPacket::from_ethernet(bytes).unwrap();
    match (packet.net.unwrap(), packet.transport.unwrap()) {
        (NetSlice::Ipv4(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(header.source, header.destination).unwrap());
                }
                TransportSlice::Udp(udp) => {
                    let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), right);
                }
                _ => panic!("neither TCP nor UDP"),
            }
        }
        (NetSlice::Ipv6(ip), transport) => {
            let header = ip.header().to_header();
            match transport {
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(header.source, header.destination).unwrap());
                }
                TransportSlice::Udp(udp) => {
                    let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), right);
                }
                _ => panic!("neither TCP nor UDP"),
            }
        }
        _ => panic!("not IP"),
    }
}

/// Groups what was sent into the fragments of each packet.
fn by_packet(packets: Vec<Vec<u8>>, l3: usize) -> Vec<Vec<Vec<u8>>> {
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in packets {
        match groups.last_mut() {
            Some(group) if be16(&packet, l3 + 6) & 0x1fff != 0 => group.push(packet),
            _ => groups.push(vec![packet]),
        }
    }
    groups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn segments_are_the_packets_they_stand_for(
        packet in prop_oneof![packet(ip4(), 20_000).boxed(), packet(ip6(), 20_000).boxed()],
        size in 88..9_000u16,
        good in any::<bool>(),
    ) {
        let mut frame = packet.super_frame(size);
        if good {
            // A super-frame whose checksum someone verified: its field says nothing about the segments.
            frame.offload.checksum = Checksum::Good;
        }
        let sent = sent(frame, &packet.headers(), u16::MAX).unwrap();
        let expected: Vec<_> = packet.segments(size).iter().map(Packet::bytes).collect();
        prop_assert_eq!(&sent, &expected);
        for segment in &sent {
            check_with_etherparse(segment);
        }
    }

    #[test]
    fn fragments_of_fragments_are_the_packet(
        packet in packet(ip4(), 12_000),
        wide in 600..4_000u16,
        narrow in 88..600u16,
    ) {
        let packet = packet.with_df_clear();
        let headers = packet.headers();
        let wide_fragments = sent(packet.partial_frame(), &headers, wide).unwrap();
        let narrow_fragments: Vec<_> = wide_fragments
            .iter()
            .flat_map(|bytes| sent(frame_of(bytes), &headers_of_fragment(&headers, bytes), narrow).unwrap())
            .collect();
        // As `complete` does it: the kernel writes a computed 0 as 0xffff.
        let mut expected = packet.partial_frame();
        crate::segment::complete(&mut expected, &headers).unwrap();
        prop_assert_eq!(reassemble(&wide_fragments, packet.l3(), wide), expected.bytes());
        prop_assert_eq!(reassemble(&narrow_fragments, packet.l3(), narrow), expected.bytes());
        check_with_etherparse(expected.bytes());
    }

    #[test]
    fn segments_too_long_for_the_path_are_fragmented_each(
        packet in packet(ip4(), 12_000),
        size in 88..4_000u16,
        mtu in 88..1_500u16,
    ) {
        let packet = packet.with_df_clear();
        let sent = sent(packet.super_frame(size), &packet.headers(), mtu).unwrap();
        let whole: Vec<_> = by_packet(sent, packet.l3())
            .iter()
            .map(|fragments| reassemble(fragments, packet.l3(), mtu))
            .collect();
        let expected: Vec<_> = packet.segments(size).iter().map(Packet::bytes).collect();
        prop_assert_eq!(whole, expected);
    }

    #[test]
    fn no_headers_and_no_offload_make_it_panic(
        packet in prop_oneof![packet(ip4(), 400).boxed(), packet(ip6(), 400).boxed()],
        other in prop_oneof![packet(ip4(), 400).boxed(), packet(ip6(), 400).boxed()],
        len in 0..600usize,
        (l3_offset, l4_offset, size, mtu) in (0..200u16, 0..200u16, 0..300u16, 0..700u16),
        (start, offset, move_offsets, gso) in (0..700u16, 0..40u16, any::<bool>(), any::<bool>()),
    ) {
        let mut frame = packet.super_frame(size.max(1));
        frame.set_len(len);
        let mut headers = other.headers();
        if move_offsets {
            (headers.l3_offset, headers.l4_offset) = (l3_offset, l4_offset);
            frame.offload.checksum = Checksum::Partial { start, offset };
        }
        match (&mut frame.offload.gso, gso) {
            (Some(gso), true) => gso.size = size,
            (gso, _) => *gso = None,
        }
        let _ = crate::segment::verify_l4(frame.bytes(), &headers);
        if let Ok(packets) = sent(frame, &headers, mtu) {
            prop_assert!(!packets.is_empty());
        }
    }
}
