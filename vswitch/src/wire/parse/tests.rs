//! Frame by frame: what is a fault and which, what is not, and what is read.

use std::collections::BTreeSet;

use etherparse::{PacketBuilder, PacketBuilderStep};

use super::*;
use crate::wire::VlanTag;

const PLAIN: Offload = Offload { checksum: Checksum::Unknown, gso: None };
/// Where things lie in the untagged frames of this file.
const V4: usize = 14;
const V4_L4: usize = 34;
const V6_L4: usize = 54;

fn ethernet2() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn ip4() -> PacketBuilderStep<etherparse::IpHeaders> {
    ethernet2().ipv4([10, 244, 1, 2], [10, 244, 2, 3], 64)
}

fn ip6() -> PacketBuilderStep<etherparse::IpHeaders> {
    ethernet2().ipv6([0xfd; 16], [0xfe; 16], 64)
}

/// 54 bytes of headers.
fn tcp4(payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip4().tcp(40_000, 80, 1, 1_000).write(&mut bytes, &vec![7; payload_len]).unwrap();
    bytes
}

/// 74 bytes of headers.
fn tcp6(payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip6().tcp(40_000, 80, 1, 1_000).write(&mut bytes, &vec![7; payload_len]).unwrap();
    bytes
}

/// 42 bytes of headers.
fn udp4(payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip4().udp(40_000, 53).write(&mut bytes, &vec![7; payload_len]).unwrap();
    bytes
}

/// 62 bytes of headers.
fn udp6(payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip6().udp(40_000, 53).write(&mut bytes, &vec![7; payload_len]).unwrap();
    bytes
}

/// An IPv6 packet of a protocol that is given a payload as it is.
fn raw6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The builder wants to know extension headers in full, and these shall be broken: name them afterwards.
    ip6().write(&mut bytes, etherparse::IpNumber(253), payload).unwrap();
    with(bytes, V4 + 6, &[next_header])
}

fn raw4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip4().write(&mut bytes, etherparse::IpNumber(253), payload).unwrap();
    with(bytes, V4 + 9, &[protocol])
}

/// Puts bytes at an offset and makes the checksum of an IPv4 header right again.
fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    if let Some(mut view) = ipv4::ViewMut::new(&mut bytes[V4..]) {
        view.fill_checksum();
    }
    bytes
}

fn cut(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.truncate(len);
    bytes
}

/// A fragment of `frame` as its flags and offset say.
fn fragment4(frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    with(frame, V4 + 6, &(offset >> 3 | u16::from(more) << 13).to_be_bytes())
}

fn fragment6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    raw6(ipv6::FRAGMENT, &[&[next, 0, high, low, 0, 0, 0, 9], payload].concat())
}

fn tagged(ethertypes: &[u16], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    for ethertype in ethertypes {
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend([0x60, 0x05]);
    }
    bytes.truncate(bytes.len() - 2);
    bytes.extend(rest);
    bytes
}

fn partial(start: usize, offset: usize) -> Offload {
    let narrow = |at: usize| u16::try_from(at).unwrap();
    Offload { checksum: Checksum::Partial { start: narrow(start), offset: narrow(offset) }, gso: None }
}

fn gso(kind: GsoKind, size: u16, start: usize, offset: usize) -> Offload {
    Offload { gso: Some(Gso { kind, size, header_len: 0 }), ..partial(start, offset) }
}

/// Name, frame, what the device says of it, and the fault.
type Case = (&'static str, Vec<u8>, Offload, DropReason);

/// A bit of the IPv4 header flipped, its checksum left as it was.
fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[V4 + 15] ^= 1;
    bytes
}

fn link_and_packet_faults() -> Vec<Case> {
    use DropReason::*;
    vec![
        ("nothing", vec![], PLAIN, EthernetTruncated),
        ("13 bytes", cut(tcp4(0), 13), PLAIN, EthernetTruncated),
        ("half a tag", tagged(&[0x8100, 0x0800], &[])[..17].to_vec(), PLAIN, EthernetTruncated),
        ("a second tag cut off", tagged(&[0x88a8, 0x8100, 0x0800], &[])[..19].to_vec(), PLAIN, EthernetTruncated),
        ("three tags", tagged(&[0x88a8, 0x8100, 0x8100, 0x0800], &[0; 40]), PLAIN, VlanTooDeep),
        ("ARP of 27 bytes", tagged(&[0x0806], &[0, 1, 8, 0, 6, 4].repeat(5)[..27]), PLAIN, ArpMalformed),
        ("ARP for another protocol", tagged(&[0x0806], &[0, 1, 8, 6, 6, 4].repeat(5)), PLAIN, ArpMalformed),
        ("IPv4 of 19 bytes", cut(tcp4(0), 33), PLAIN, Ipv4Malformed),
        ("version 5", with(tcp4(0), V4, &[0x55]), PLAIN, Ipv4Malformed),
        ("IHL 4", with(tcp4(0), V4, &[0x44]), PLAIN, Ipv4Malformed),
        ("IHL beyond the frame", with(udp4(0), V4, &[0x4f]), PLAIN, Ipv4Malformed),
        ("total length beyond the frame", with(tcp4(0), V4 + 2, &[0, 41]), PLAIN, Ipv4Malformed),
        ("total length below the header's", with(tcp4(0), V4 + 2, &[0, 19]), PLAIN, Ipv4Malformed),
        ("total length 0 without GSO", with(tcp4(0), V4 + 2, &[0, 0]), PLAIN, Ipv4Malformed),
        ("total length 0 with a checksum to complete", with(tcp4(9), V4 + 2, &[0, 0]), partial(34, 16), Ipv4Malformed),
        ("a flipped bit", flipped(tcp4(0)), PLAIN, Ipv4Checksum),
        ("a flipped bit of a super-frame", flipped(tcp4(3_000)), gso(GsoKind::Tcp4, 1_448, 34, 16), Ipv4Checksum),
        ("IPv6 of 39 bytes", cut(tcp6(0), 53), PLAIN, Ipv6Malformed),
        ("version 4 behind IPv6's EtherType", with(tcp6(0), V4, &[0x45]), PLAIN, Ipv6Malformed),
        ("payload length beyond the frame", with(udp6(0), V4 + 4, &[0, 9]), PLAIN, Ipv6Malformed),
        ("payload length 0 without GSO", with(udp6(0), V4 + 4, &[0, 0]), PLAIN, Ipv6Malformed),
        ("a jumbogram", with(raw6(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]), V4 + 4, &[0, 0]), PLAIN, Ipv6Malformed),
    ]
}

fn extension_fragment_and_transport_faults() -> Vec<Case> {
    use DropReason::*;
    let destination_options = |count: usize| [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
    vec![
        ("an extension header cut off", raw6(60, &[17, 1, 0, 0, 0, 0, 0, 0]), PLAIN, Ipv6Extensions),
        ("nine extension headers", raw6(60, &destination_options(9)), PLAIN, Ipv6Extensions),
        ("a fragment header cut off", raw6(44, &[17, 0, 0, 1, 0, 0, 0]), PLAIN, Ipv6Extensions),
        ("a fragment that reaches too far", fragment4(udp4(0), 65_528, false), PLAIN, FragmentMalformed),
        ("seven bytes and more to come", fragment4(raw4(17, &[0; 7]), 8, true), PLAIN, FragmentMalformed),
        ("IPv6: reaches too far", fragment6(17, 65_528, false, &[0; 8]), PLAIN, FragmentMalformed),
        ("IPv6: nine bytes and more to come", fragment6(17, 0, true, &[0; 9]), PLAIN, FragmentMalformed),
        ("TCP of 19 bytes", raw4(6, &[0x50; 19]), PLAIN, L4Malformed),
        ("data offset 4", with(tcp4(0), V4_L4 + 12, &[0x40]), PLAIN, L4Malformed),
        ("data offset beyond the packet", with(tcp4(3), V4_L4 + 12, &[0x60]), PLAIN, L4Malformed),
        ("data offset into the padding", [with(tcp4(0), V4_L4 + 12, &[0x60]), vec![0; 6]].concat(), PLAIN, L4Malformed),
        (
            "data offset 4 in a first fragment",
            fragment4(with(tcp4(4), V4_L4 + 12, &[0x40]), 0, true),
            PLAIN,
            L4Malformed,
        ),
        ("UDP of 7 bytes", raw6(17, &[0; 7]), PLAIN, L4Malformed),
        ("UDP length 7", with(udp4(0), V4_L4 + 4, &[0, 7]), PLAIN, L4Malformed),
        ("UDP length 0", with(udp6(0), V6_L4 + 4, &[0, 0]), PLAIN, L4Malformed),
        ("UDP length beyond the packet", with(udp4(3), V4_L4 + 4, &[0, 12]), PLAIN, L4Malformed),
        ("UDP length 7 in a first fragment", fragment4(with(udp4(8), V4_L4 + 4, &[0, 7]), 0, true), PLAIN, L4Malformed),
        (
            "UDP length beyond an atomic fragment",
            fragment6(17, 0, false, &[0, 1, 0, 2, 0, 9, 0, 0]),
            PLAIN,
            L4Malformed,
        ),
        ("ICMP of 7 bytes", raw4(1, &[8; 7]), PLAIN, L4Malformed),
        ("ICMPv6 of 3 bytes", raw6(58, &[128; 3]), PLAIN, L4Malformed),
        ("a checksum to complete of nothing", tagged(&[0x88b5], &[0; 60]), partial(14, 0), OffloadInvalid),
    ]
}

#[test]
fn the_first_fault_is_named() {
    let mut seen = BTreeSet::new();
    for (name, bytes, offload, expected) in
        link_and_packet_faults().into_iter().chain(extension_fragment_and_transport_faults())
    {
        assert_eq!(parse(&bytes, &offload).err(), Some(expected), "{name}");
        seen.insert(expected);
    }
    let group = DropReason::ALL[..=DropReason::OffloadInvalid.index()].iter().copied().collect();
    assert_eq!(seen, group, "every reason of the parse has a case");
}

#[test]
fn what_a_device_says_must_be_true_of_the_frame() {
    let (tcp4_gso, tcp6_gso) = (gso(GsoKind::Tcp4, 1_448, 34, 16), gso(GsoKind::Tcp6, 1_428, 54, 16));
    let udp4_gso = gso(GsoKind::Udp, 1_400, 34, 6);
    let padded = [tcp4(3_000), vec![0]].concat();
    for (name, bytes, offload, agrees) in [
        ("TCP to complete", tcp4(9), partial(34, 16), true),
        ("UDP to complete", udp6(9), partial(54, 6), true),
        ("ICMPv6 to complete", raw6(58, &[128, 0, 0, 0, 0, 0, 0, 0]), partial(54, 2), true),
        ("another protocol to complete", raw4(132, &[0; 12]), partial(34, 8), true),
        ("its field beyond the packet", raw4(132, &[0; 12]), partial(34, 11), false),
        ("its field beyond everything", raw4(132, &[0; 12]), partial(34, 65_535), false),
        ("the wrong start", tcp4(9), partial(33, 16), false),
        ("TCP's field for UDP", udp4(30), partial(34, 16), false),
        ("a fragment to complete", fragment4(udp4(8), 0, true), partial(34, 6), false),
        ("a later fragment to complete", fragment4(udp4(8), 8, true), partial(34, 6), false),
        ("a super-frame of each kind: TCP", tcp4(3_000), tcp4_gso, true),
        ("TCP over IPv6", tcp6(3_000), tcp6_gso, true),
        ("UDP", udp4(3_000), udp4_gso, true),
        ("UDP over IPv6", udp6(3_000), gso(GsoKind::Udp, 1_400, 54, 6), true),
        ("a super-frame of one segment", tcp4(1), tcp4_gso, true),
        ("no length in the header", with(tcp4(3_000), V4 + 2, &[0, 0]), tcp4_gso, true),
        ("no length in the IPv6 header", with(tcp6(3_000), V4 + 4, &[0, 0]), tcp6_gso, true),
        ("a stale UDP length", with(udp4(3_000), V4_L4 + 4, &[0, 0]), udp4_gso, true),
        ("another length in the header", with(tcp4(3_000), V4 + 2, &[0, 200]), tcp4_gso, false),
        ("a byte behind the packet", padded, tcp4_gso, false),
        ("TCP over the other IP", tcp6(3_000), gso(GsoKind::Tcp4, 1_448, 54, 16), false),
        ("UDP that is TCP", tcp4(3_000), gso(GsoKind::Udp, 1_448, 34, 16), false),
        ("TCP that is UDP", udp4(3_000), gso(GsoKind::Tcp4, 1_448, 34, 6), false),
        ("segments of 0 bytes", tcp4(3_000), gso(GsoKind::Tcp4, 0, 34, 16), false),
        ("no payload", tcp4(0), tcp4_gso, false),
        ("a checksum that is complete", tcp4(3_000), Offload { checksum: Checksum::Good, ..tcp4_gso }, false),
        ("a checksum nobody spoke of", tcp4(3_000), Offload { checksum: Checksum::Unknown, ..tcp4_gso }, false),
        ("a fragment", fragment4(udp4(3_200), 0, true), udp4_gso, false),
        ("ARP", tagged(&[0x0806], &[0, 1, 8, 0, 6, 4].repeat(5)), gso(GsoKind::Udp, 8, 14, 6), false),
    ] {
        let result = parse(&bytes, &offload);
        assert_eq!(result.err(), (!agrees).then_some(DropReason::OffloadInvalid), "{name}");
        if let Ok(headers) = result {
            assert_eq!(usize::from(headers.l3_offset) + headers.packet_len(bytes.len()), bytes.len(), "{name}");
        }
    }
}

#[test]
fn a_super_frames_header_length_is_the_headers_own() {
    let mut bytes = Vec::new();
    let options = [etherparse::TcpOptionElement::Timestamp(1, 2)];
    ip4().tcp(1, 2, 3, 4).options(&options).unwrap().write(&mut bytes, &[7; 4_000]).unwrap();
    let headers = parse(&bytes, &gso(GsoKind::Tcp4, 1_448, 34, 16)).unwrap();
    assert_eq!((headers.header_len(), headers.l4_offset), (14 + 20 + 32, 34));
}

#[test]
fn padding_is_no_part_of_the_packet() {
    let mut bytes = udp4(3);
    bytes.resize(60, 0xee);
    let headers = parse(&bytes, &PLAIN).unwrap();
    assert_eq!((headers.packet_len(bytes.len()), headers.payload_offset()), (31, 42));
}

#[test]
fn the_outermost_tag_is_reported_and_the_innermost_ethertype() {
    let packet = &udp4(0)[14..];
    for (ethertypes, vlan, l3_offset) in [
        (&[0x0800][..], None, 14),
        (&[0x8100, 0x0800], Some(VlanTag { vid: 5, priority: 3 }), 18),
        (&[0x88a8, 0x8100, 0x0800], Some(VlanTag { vid: 5, priority: 3 }), 22),
    ] {
        let mut bytes = tagged(ethertypes, packet);
        if ethertypes.len() == 3 {
            // The inner tag says something else.
            bytes[18..20].copy_from_slice(&[0xe0, 0x09]);
        }
        let headers = parse(&bytes, &PLAIN).unwrap();
        assert_eq!((headers.vlan, headers.l3_offset, headers.ethertype), (vlan, l3_offset, 0x0800));
        assert_eq!((headers.l4_offset, headers.ports()), (l3_offset + 20, Some((40_000, 53))));
    }
}

#[test]
fn what_is_neither_arp_nor_ip_passes_unread() {
    for (ethertype, rest) in [(0x0026, &[0x42; 38][..]), (1_535, &[]), (0x88cc, &[1, 2, 3]), (0x9100, &[0; 4])] {
        let headers = parse(&tagged(&[ethertype], rest), &PLAIN).unwrap();
        assert_eq!((headers.l3, headers.l4), (L3::Other, L4::None));
        assert_eq!((headers.ethertype, headers.l3_offset, headers.l4_offset), (ethertype, 14, 14));
    }
}

#[test]
fn fragments_show_their_l4_header_where_they_hold_it_in_full() {
    let udp = [0x9c, 0x40, 0, 53, 0xff, 0xff, 0, 0];
    let options_then_udp = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &udp].concat();
    let long_tcp = with(tcp4(4), V4_L4 + 12, &[0xf0]);
    for (name, bytes, ports, l4_offset) in [
        ("a first one, its datagram longer than it", fragment4(raw4(17, &udp), 0, true), Some((40_000, 53)), 34),
        ("the same over IPv6", fragment6(17, 0, true, &udp), Some((40_000, 53)), 62),
        ("behind options too", fragment6(60, 0, true, &options_then_udp), Some((40_000, 53)), 70),
        ("a later one", fragment4(raw4(17, &udp), 8, false), None, 34),
        ("a later one over IPv6", fragment6(60, 8, true, &udp), None, 62),
        ("a last one of odd length", fragment4(raw4(17, &udp[..3]), 8, false), None, 34),
        ("a first one that cuts TCP's ports off", fragment4(raw4(6, &[0x50; 8]), 0, true), None, 34),
        ("a first one that cuts TCP's options off", fragment4(long_tcp, 0, true), None, 34),
        ("the furthest", fragment4(raw4(17, &udp[..7]), 65_528, false), None, 34),
    ] {
        let headers = parse(&bytes, &PLAIN).unwrap_or_else(|fault| panic!("{name}: {}", fault.name()));
        assert_eq!((headers.ports(), headers.l4_offset), (ports, l4_offset), "{name}");
        assert!(headers.fragment().is_some(), "{name}");
    }
}

#[test]
fn protocols_we_do_not_read_are_named_and_left_alone() {
    let bare = with(raw6(59, &[]), V4 + 4, &[0, 0]);
    for (bytes, protocol) in [
        (raw4(50, &[1, 2, 3]), 50),
        (raw4(58, &[128]), 58),
        (raw4(51, &[6; 24]), 51),
        (raw6(50, &[1, 2, 3]), 50),
        (raw6(1, &[8]), 1),
        (raw6(59, &[1, 2, 3]), 59),
        (bare, 59),
    ] {
        let headers = parse(&bytes, &PLAIN).unwrap();
        let found = match headers.l3 {
            L3::V4(v4) => v4.protocol,
            L3::V6(v6) => v6.protocol,
            other => panic!("{other:?}"),
        };
        assert_eq!((found, headers.l4), (protocol, L4::None));
        assert_eq!(headers.header_len(), usize::from(headers.l4_offset));
    }
}
