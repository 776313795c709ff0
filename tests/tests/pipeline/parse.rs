//! Frames that contradict themselves end in the name of their fault, from a pod as from a tunnel.

use podwire_tests::packet::{L4, Packet, Sum, arp};
use podwire_tests::sim::UPLINK;
use podwire_vswitch::frame::{Checksum, Gso, GsoKind, Offload};
use podwire_vswitch::port::memory::MemoryFrame;

use super::{a, address, b, check, frame, from_node2, node};

/// A sound packet from `a` to `b`.
fn sound(v6: bool) -> Packet {
    Packet::udp(address(1, 10, v6), address(1, 11, v6), &[7; 40]).macs(b(), a())
}

/// The packet's bytes with some of them, counted from the IP header, replaced.
fn with(packet: &Packet, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = packet.bytes();
    all[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    all
}

/// An IPv4 packet with a changed header whose checksum is right again.
fn v4_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = with(&sound(false), at, bytes);
    all[24..26].copy_from_slice(&[0, 0]);
    let sum = all[14..34].chunks(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = u16::try_from(!folded & 0xffff).expect("16 bits");
    all[24..26].copy_from_slice(&check.to_be_bytes());
    all
}

/// An IPv6 packet whose payload begins with these bytes of this protocol.
fn v6_of(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let l4 = L4::Raw { protocol };
    Packet::new(address(1, 10, true), address(1, 11, true), l4, payload).macs(b(), a()).bytes()
}

/// The frame is dropped for this reason, by whatever port it comes.
#[track_caller]
fn faulty(reason: &str, bytes: &[u8]) {
    check(&mut node(), ("a", frame(bytes)), reason, &[]);
    if bytes.len() >= 14 {
        check(&mut node(), (UPLINK, from_node2(bytes)), reason, &[]);
    }
}

#[test]
fn ethernet_and_its_tags() {
    for len in [0, 1, 13] {
        faulty("drop:ethernet_truncated", &sound(false).bytes()[..len]);
    }
    faulty("drop:ethernet_truncated", &sound(false).vlan(1).bytes()[..17]);
    faulty("drop:vlan_too_deep", &sound(false).vlan(1).vlan(2).vlan(3).bytes());
}

#[test]
fn arp_packets() {
    let sound = arp(b(), 1, (a(), address(1, 10, false)), (b(), address(1, 11, false)));
    faulty("drop:arp_malformed", &sound[..41]);
    for (at, byte) in [(15, 2), (16, 9), (18, 8), (19, 16)] {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        faulty("drop:arp_malformed", &bytes);
    }
}

#[test]
fn ipv4_headers() {
    let reason = "drop:ipv4_malformed";
    faulty(reason, &sound(false).bytes()[..33]);
    faulty(reason, &sound(false).bytes()[..81]);
    faulty(reason, &v4_with(0, &[0x55]));
    faulty(reason, &v4_with(0, &[0x44]));
    for total_len in [0_u16, 19, 69, 0xffff] {
        faulty(reason, &v4_with(2, &total_len.to_be_bytes()));
    }
    faulty("drop:ipv4_checksum", &with(&sound(false), 10, &[0xde, 0xad]));
}

#[test]
fn ipv6_headers() {
    let reason = "drop:ipv6_malformed";
    faulty(reason, &sound(true).bytes()[..53]);
    faulty(reason, &with(&sound(true), 0, &[0x40]));
    for payload_len in [0_u16, 49, 0xffff] {
        faulty(reason, &with(&sound(true), 4, &payload_len.to_be_bytes()));
    }
    let options = [&[60, 0, 1, 4, 0, 0, 0, 0].repeat(9)[..], &[59, 0, 1, 4, 0, 0, 0, 0]].concat();
    faulty("drop:ipv6_extensions", &v6_of(60, &options));
    faulty("drop:ipv6_extensions", &v6_of(60, &[17, 200, 1, 4, 0, 0, 0, 0]));
    faulty("drop:ipv6_extensions", &v6_of(44, &[17, 0, 0, 0]));
}

#[test]
fn fragments() {
    let reason = "drop:fragment_malformed";
    // 48 bytes at 65,504 end beyond the largest packet; 44 bytes with more to follow are no multiple of eight.
    faulty(reason, &v4_with(6, &(65_504_u16 / 8).to_be_bytes()));
    let uneven = Packet { fragment: Some((0, true)), payload: vec![7; 36], ..sound(false) }.may_fragment();
    faulty(reason, &uneven.bytes());
    let uneven = Packet { fragment: Some((0, true)), payload: vec![7; 36], ..sound(true) };
    faulty(reason, &uneven.bytes());
    faulty(reason, &Packet { fragment: Some((65_528, false)), ..sound(true) }.bytes());
}

#[test]
fn transport_headers() {
    let reason = "drop:l4_malformed";
    for v6 in [false, true] {
        let of = |protocol, payload: &[u8]| {
            let l4 = L4::Raw { protocol };
            Packet::new(address(1, 10, v6), address(1, 11, v6), l4, payload).macs(b(), a()).bytes()
        };
        faulty(reason, &of(6, &[0; 19]));
        faulty(reason, &of(6, &[0; 40]));
        faulty(reason, &of(17, &[0; 7]));
        faulty(reason, &of(17, &[0, 1, 0, 2, 0, 7, 0, 0]));
        faulty(reason, &of(17, &[0, 1, 0, 2, 0, 9, 0, 0]));
    }
    let icmp = |address: fn(u8, u8, bool) -> std::net::IpAddr, protocol, v6, len| {
        let l4 = L4::Raw { protocol };
        Packet::new(address(1, 10, v6), address(1, 11, v6), l4, &vec![0; len]).macs(b(), a()).bytes()
    };
    faulty(reason, &icmp(address, 1, false, 7));
    faulty(reason, &icmp(address, 58, true, 3));
}

#[test]
fn what_the_device_says_of_a_frame_must_be_true_of_its_bytes() {
    let tcp = Packet::tcp(address(1, 10, false), address(1, 11, false), 5, 0, &[7; 4_000]).macs(b(), a());
    let good = tcp.super_frame(1_000);
    let lie = |offload: Offload, packet: &Packet| {
        check(&mut node(), ("a", packet.frame().with_offload(offload)), "drop:offload_invalid", &[]);
    };
    let gso = |kind, size| Offload { gso: Some(Gso { kind, size, header_len: 54 }), ..good.offload };
    lie(gso(GsoKind::Tcp6, 1_000), &tcp);
    lie(gso(GsoKind::Udp, 1_000), &tcp);
    lie(gso(GsoKind::Tcp4, 0), &tcp);
    lie(Offload { checksum: Checksum::Unknown, ..good.offload }, &tcp);
    for (start, offset) in [(33, 16), (34, 6), (34, 0xffff), (4_034, 16)] {
        lie(Offload { checksum: Checksum::Partial { start, offset }, gso: None }, &tcp);
    }
    let fragment = Packet { fragment: Some((0, true)), ..sound(false).may_fragment() };
    lie(Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: None }, &fragment);
    let padded = MemoryFrame { bytes: [good.bytes.clone(), vec![0]].concat(), ..good };
    check(&mut node(), ("a", padded), "drop:offload_invalid", &[]);
}

#[test]
fn a_wrong_transport_checksum_is_the_receivers_affair() {
    for v6 in [false, true] {
        let packet = sound(v6).sum(Sum::Is(0xdead));
        check(&mut node(), ("a", packet.frame()), "forward", &[("b", packet.frame())]);
    }
}
