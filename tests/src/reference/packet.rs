//! What the reference switch reads of a frame, and the slow ways it changes one: every checksum is summed anew.
//!
//! Reads with etherparse and plain indices, and knows only frames that are well formed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{ArpPacketSlice, IpSlice, Ipv6ExtensionSlice};
use podwire_control::model::Mac;

/// Protocol numbers, as IANA has them.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;

/// A frame's headers.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) dst: Mac,
    pub(super) src: Mac,
    pub(super) tagged: bool,
    /// Where the network layer starts.
    pub(super) l3: usize,
    pub(super) net: Net,
}

/// The network layer.
#[derive(Clone, Debug)]
pub(super) enum Net {
    Other,
    Arp(Arp),
    Ip(Ip),
}

/// An ARP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    pub(super) request: bool,
    pub(super) sender_mac: Mac,
    pub(super) sender_ip: Ipv4Addr,
    pub(super) target_ip: Ipv4Addr,
}

/// An IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    /// Bytes of the packet, without Ethernet padding.
    pub(super) len: usize,
    /// Where the payload of all IP headers starts in the frame, and what it is.
    pub(super) l4: usize,
    pub(super) protocol: u8,
    /// Part of a packet, and the bytes in front of it.
    pub(super) fragment: Option<usize>,
}

impl Ip {
    pub(super) fn is_v6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// Whether the payload starts with the header of its protocol.
    pub(super) fn shows_l4(&self) -> bool {
        self.fragment.is_none_or(|offset| offset == 0)
    }

    /// Type of the ICMP message, of either version, when it shows.
    pub(super) fn icmp_kind(&self, bytes: &[u8]) -> Option<u8> {
        let own = if self.is_v6() { ICMP6 } else { ICMP };
        (self.protocol == own && self.shows_l4()).then(|| bytes[self.l4])
    }

    /// The bytes behind all IP headers, without Ethernet padding.
    pub(super) fn payload<'a>(&self, l3: usize, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.l4..l3 + self.len]
    }
}

/// Reads a well-formed frame; none for any other.
pub(super) fn read(bytes: &[u8]) -> Option<Seen> {
    let mac = |at: usize| bytes.get(at..at + 6).and_then(|six| six.try_into().ok()).map(Mac);
    let (dst, src) = (mac(0)?, mac(6)?);
    let mut l3 = 14;
    let ethertype = |end: usize| bytes.get(end - 2..end).map(|two| u16::from_be_bytes([two[0], two[1]]));
    while matches!(ethertype(l3)?, 0x8100 | 0x88a8) {
        l3 += 4;
    }
    let packet = bytes.get(l3..)?;
    let net = match ethertype(l3)? {
        0x0800 | 0x86dd => Net::Ip(read_ip(l3, packet)?),
        0x0806 => Net::Arp(read_arp(packet)?),
        _ => Net::Other,
    };
    Some(Seen { dst, src, tagged: l3 > 14, l3, net })
}

fn read_arp(packet: &[u8]) -> Option<Arp> {
    let arp = ArpPacketSlice::from_slice(packet).ok()?;
    Some(Arp {
        request: arp.operation() == etherparse::ArpOperation::REQUEST,
        sender_mac: Mac(arp.sender_hw_addr().try_into().ok()?),
        sender_ip: Ipv4Addr::from(<[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?),
        target_ip: Ipv4Addr::from(<[u8; 4]>::try_from(arp.target_protocol_addr()).ok()?),
    })
}

fn read_ip(l3: usize, packet: &[u8]) -> Option<Ip> {
    let ip = IpSlice::from_slice(packet).ok()?;
    let payload = ip.payload();
    let (tos, ttl, dont_fragment, offset) = match &ip {
        IpSlice::Ipv4(v4) => {
            let header = v4.header();
            let tos = packet[1];
            (tos, header.ttl(), header.dont_fragment(), usize::from(header.fragments_offset().value()) * 8)
        }
        IpSlice::Ipv6(v6) => {
            let offset = v6.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(part) => Some(usize::from(part.fragment_offset().value()) * 8),
                _ => None,
            });
            (v6.header().traffic_class(), v6.header().hop_limit(), true, offset.unwrap_or(0))
        }
    };
    // The payload ends where the packet ends, so its place tells the headers' length.
    let l4 = l3 + packet.len() - packet_tail(packet, &ip) - payload.payload.len();
    Some(Ip {
        src: ip.source_addr(),
        dst: ip.destination_addr(),
        tos,
        ttl,
        dont_fragment,
        len: packet.len() - packet_tail(packet, &ip),
        l4,
        protocol: payload.ip_number.0,
        fragment: payload.fragmented.then_some(offset),
    })
}

/// Bytes of padding behind a packet.
fn packet_tail(packet: &[u8], ip: &IpSlice<'_>) -> usize {
    let len = match ip {
        IpSlice::Ipv4(v4) => usize::from(v4.header().total_len()),
        IpSlice::Ipv6(v6) => 40 + usize::from(v6.header().payload_length()),
    };
    packet.len() - len
}

/// The checksum of RFC 1071 over all parts laid end to end; every part but the last is even.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum: u64 = 0;
    for pair in parts.concat().chunks(2) {
        sum += u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| u64::from(low));
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    let value = u16::try_from(0xffff - sum).expect("the sum is below 2^16");
    value.to_be_bytes()
}

/// The pseudo-header of TCP, UDP and ICMPv6.
pub(super) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(u32::try_from(len).expect("a packet is shorter").to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Sums the IPv4 header at `l3` anew.
pub(super) fn fill_ipv4_checksum(bytes: &mut [u8], l3: usize) {
    let end = l3 + usize::from(bytes[l3] & 0x0f) * 4;
    bytes[l3 + 10..l3 + 12].fill(0);
    let sum = checksum(&[&bytes[l3..end]]);
    bytes[l3 + 10..l3 + 12].copy_from_slice(&sum);
}

/// Writes both MAC addresses.
pub(super) fn set_macs(bytes: &mut [u8], dst: Mac, src: Mac) {
    bytes[..6].copy_from_slice(&dst.0);
    bytes[6..12].copy_from_slice(&src.0);
}

/// Takes one off the TTL or hop limit.
pub(super) fn count_hop(bytes: &mut [u8], l3: usize, is_v6: bool) {
    if is_v6 {
        bytes[l3 + 7] -= 1;
    } else {
        bytes[l3 + 8] -= 1;
        fill_ipv4_checksum(bytes, l3);
    }
}

/// Writes TOS or traffic class.
pub(super) fn set_tos(bytes: &mut [u8], l3: usize, is_v6: bool, tos: u8) {
    if is_v6 {
        bytes[l3] = bytes[l3] & 0xf0 | tos >> 4;
        bytes[l3 + 1] = bytes[l3 + 1] & 0x0f | tos << 4;
    } else {
        bytes[l3 + 1] = tos;
        fill_ipv4_checksum(bytes, l3);
    }
}

/// A packet of 20 or 40 bytes of IP header and this payload.
pub(super) struct Fresh<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) payload: &'a [u8],
}

impl Fresh<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let len16 = |len: usize| u16::try_from(len).expect("a packet is shorter").to_be_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = vec![0x45, self.tos];
                header.extend(len16(20 + self.payload.len()));
                header.extend([0, 0, 0, 0, self.ttl, self.protocol, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                fill_ipv4_checksum(&mut header, 0);
                [&header, self.payload].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                header.extend(len16(self.payload.len()));
                header.extend([self.protocol, self.ttl]);
                header.extend(src.octets());
                header.extend(dst.octets());
                [&header, self.payload].concat()
            }
            _ => unreachable!("both addresses are of one family"),
        }
    }
}

/// An ICMP message of the addresses' version, its checksum filled in.
pub(super) fn icmp_message(src: IpAddr, dst: IpAddr, head: [u8; 8], body: &[u8]) -> Vec<u8> {
    let mut message = [&head[..], body].concat();
    message[2..4].fill(0);
    let before = if src.is_ipv6() { pseudo(src, dst, ICMP6, message.len()) } else { Vec::new() };
    let sum = checksum(&[&before, &message]);
    message[2..4].copy_from_slice(&sum);
    message
}

/// Cuts an IPv4 packet of a frame into fragments of at most `mtu` bytes (RFC 791, 3.2).
pub(super) fn fragments(bytes: &[u8], l3: usize, ip: &Ip, mtu: usize) -> Vec<Vec<u8>> {
    let header = &bytes[..ip.l4];
    let payload = ip.payload(l3, bytes);
    let step = (mtu - (ip.l4 - l3)) / 8 * 8;
    let word = u16::from_be_bytes([bytes[l3 + 6], bytes[l3 + 7]]);
    let (more_before, offset_before) = (word & 0x2000 != 0, word & 0x1fff);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        // The last piece may use the room that is no multiple of eight.
        let room = mtu - (ip.l4 - l3);
        let len = if payload.len() - at <= room { payload.len() - at } else { step };
        let mut piece = [header, &payload[at..at + len]].concat();
        let more = more_before || at + len < payload.len();
        let offset = offset_before + u16::try_from(at / 8).expect("a packet is shorter");
        let word = if more { 0x2000 } else { 0 } | offset;
        piece[l3 + 6..l3 + 8].copy_from_slice(&word.to_be_bytes());
        let total = u16::try_from(piece.len() - l3).expect("a packet is shorter");
        piece[l3 + 2..l3 + 4].copy_from_slice(&total.to_be_bytes());
        fill_ipv4_checksum(&mut piece, l3);
        pieces.push(piece);
        at += len;
    }
    pieces
}

/// Whether an address is a link-local one.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// The link-local address that follows from a MAC (RFC 4291, appendix A).
pub(super) fn link_local_of(mac: Mac) -> Ipv6Addr {
    let m = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 0x02, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]])
}
