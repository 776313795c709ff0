//! What one parse of a frame finds, as plain values; the pipeline's stages read these and not the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

use super::{arp, icmp, ipv6, udp};

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// VLAN identifier, 12 bits.
    pub vid: u16,
    /// Priority code point, 3 bits.
    pub priority: u8,
}

/// All headers of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// Destination MAC.
    pub dst: Mac,
    /// Source MAC.
    pub src: Mac,
    /// Outermost tag, if any.
    pub vlan: Option<VlanTag>,
    /// EtherType behind all tags (or a length below 1536: an 802.3 frame).
    pub ethertype: u16,
    /// Where the L3 header starts, counted from the frame's first byte.
    pub l3_offset: u16,
    /// Network layer.
    pub l3: L3,
    /// Where the L4 header starts; the end of the L3 packet's headers when there is none.
    pub l4_offset: u16,
    /// Transport layer.
    pub l4: L4,
}

/// Network layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L3 {
    /// Neither ARP nor IP.
    #[default]
    Other,
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp(Arp),
    /// IPv4 (RFC 791).
    V4(Ipv4),
    /// IPv6 (RFC 8200).
    V6(Ipv6),
}

/// ARP for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// Where a fragment lies in its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Bytes in front of it.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
}

/// IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header length in bytes, options included: 20 to 60.
    pub header_len: u8,
    /// Total length in bytes as the header says. A super-frame's may be 0: see [`Headers::packet_len`].
    pub total_len: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Present when this is a fragment (offset not 0, or more to follow).
    pub fragment: Option<Fragment>,
}

/// IPv6 header with its extension headers walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Protocol behind the extension headers.
    pub protocol: u8,
    /// Bytes of the extension headers.
    pub extensions_len: u16,
    /// Payload length as the header says (extension headers included). A super-frame's may be 0, as above.
    pub payload_len: u16,
    /// Present when there is a fragment header.
    pub fragment: Option<Fragment>,
}

/// Transport layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L4 {
    /// None that we read: another protocol, or a fragment that is not the first.
    #[default]
    None,
    /// TCP (RFC 9293).
    Tcp(TcpHeader),
    /// UDP (RFC 768).
    Udp(UdpHeader),
    /// ICMP for IPv4 (RFC 792).
    Icmp4(IcmpHeader),
    /// ICMPv6 (RFC 4443), neighbour discovery included.
    Icmp6(IcmpHeader),
}

/// What is read of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Header length in bytes, options included: 20 to 60.
    pub header_len: u8,
    /// FIN is bit 0, CWR bit 7.
    pub flags: u8,
}

/// What is read of a UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length field; a super-frame's may be 0 or stale.
    pub len: u16,
}

/// What is read of an ICMP or ICMPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

impl Headers {
    /// Bytes from the frame's first to its L4 payload: all headers. For a super-frame the part every segment repeats.
    /// Of ICMPv6 it counts the four bytes that all messages have, of ICMP eight.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        let l4_len = match self.l4 {
            L4::None => 0,
            L4::Tcp(tcp) => usize::from(tcp.header_len),
            L4::Udp(_) => udp::HEADER_LEN,
            L4::Icmp4(_) => icmp::HEADER_LEN,
            L4::Icmp6(_) => icmp::HEADER_LEN_MIN_V6,
        };
        usize::from(self.l4_offset) + l4_len
    }

    /// Where the L4 payload starts, counted from the frame's first byte; the same number as [`Self::header_len`].
    #[inline]
    #[must_use]
    pub fn payload_offset(&self) -> usize {
        self.header_len()
    }

    /// Bytes of the L3 packet, counted from `l3_offset`, in a frame of `frame_len` bytes: without the padding that
    /// Ethernet may add, and for a super-frame without a length in its IP header the whole.
    #[inline]
    #[must_use]
    pub fn packet_len(&self, frame_len: usize) -> usize {
        let whole = frame_len.saturating_sub(usize::from(self.l3_offset));
        match self.l3 {
            L3::Other => whole,
            L3::Arp(_) => arp::PACKET_LEN,
            L3::V4(Ipv4 { total_len: 0, .. }) => whole,
            L3::V4(v4) => usize::from(v4.total_len),
            L3::V6(v6) if v6.payload_len == 0 && v6.protocol != ipv6::NO_NEXT_HEADER => whole,
            L3::V6(v6) => ipv6::HEADER_LEN + usize::from(v6.payload_len),
        }
    }

    /// The L4 header and what follows it in `frame`, without Ethernet padding.
    #[inline]
    #[must_use]
    pub fn l4_bytes<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let end = usize::from(self.l3_offset) + self.packet_len(frame.len());
        frame.get(usize::from(self.l4_offset)..end).unwrap_or_default()
    }

    /// Whether the packet is IPv6.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        matches!(self.l3, L3::V6(_))
    }

    /// Source address of an IP packet.
    #[inline]
    #[must_use]
    pub fn src_ip(&self) -> Option<IpAddr> {
        match self.l3 {
            L3::V4(v4) => Some(v4.src.into()),
            L3::V6(v6) => Some(v6.src.into()),
            L3::Other | L3::Arp(_) => None,
        }
    }

    /// Destination address of an IP packet.
    #[inline]
    #[must_use]
    pub fn dst_ip(&self) -> Option<IpAddr> {
        match self.l3 {
            L3::V4(v4) => Some(v4.dst.into()),
            L3::V6(v6) => Some(v6.dst.into()),
            L3::Other | L3::Arp(_) => None,
        }
    }

    /// Whether and where the packet is a fragment.
    #[inline]
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        match self.l3 {
            L3::V4(v4) => v4.fragment,
            L3::V6(v6) => v6.fragment,
            L3::Other | L3::Arp(_) => None,
        }
    }

    /// Source and destination port of TCP or UDP.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.l4 {
            L4::Tcp(tcp) => Some((tcp.src_port, tcp.dst_port)),
            L4::Udp(udp) => Some((udp.src_port, udp.dst_port)),
            L4::None | L4::Icmp4(_) | L4::Icmp6(_) => None,
        }
    }

    /// A hash of the flow and its direction: addresses, protocol and ports, or the MACs when it is not IP. All
    /// fragments of a packet have the same, since none counts its ports. Spreads load; it is no defence against
    /// someone who looks for collisions.
    #[inline]
    #[must_use]
    pub fn flow_hash(&self) -> u32 {
        let (src_port, dst_port) = self.ports().unwrap_or_default();
        let ports = u32::from(src_port) << 16 | u32::from(dst_port);
        // Not the protocol either: over IPv6 only the first fragment may show it.
        let of_packet = |protocol| if self.fragment().is_none() { (protocol, ports) } else { (0, 0) };
        match self.l3 {
            L3::V4(v4) => {
                let addresses = u64::from(v4.src.to_bits()) << 32 | u64::from(v4.dst.to_bits());
                let (protocol, ports) = of_packet(v4.protocol);
                flow_hash_v4(addresses, protocol, ports)
            }
            L3::V6(v6) => {
                let ([a, b], [c, d]) = (halves(v6.src), halves(v6.dst));
                let (protocol, ports) = of_packet(v6.protocol);
                flow_hash_v6([a, b, c, d], protocol, ports)
            }
            L3::Other | L3::Arp(_) => folded(mix(self.src.to_u64(), self.dst.to_u64())),
        }
    }
}

/// The flow hash of an IPv4 packet: addresses and ports as numbers, the source's in the upper half.
#[inline]
pub(super) fn flow_hash_v4(addresses: u64, protocol: u8, ports: u32) -> u32 {
    folded(mix(addresses, u64::from(protocol) << 32 | u64::from(ports)))
}

/// The flow hash of an IPv6 packet: addresses in halves, the source's first.
#[inline]
pub(super) fn flow_hash_v6([a, b, c, d]: [u64; 4], protocol: u8, ports: u32) -> u32 {
    folded(mix(mix(a, c) ^ mix(b, d), u64::from(protocol) << 32 | u64::from(ports)))
}

/// Both halves of an address.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn folded(mixed: u64) -> u32 {
    (mixed >> 32) as u32 ^ mixed as u32
}

/// Multiplies to 128 bits and folds the halves (wyhash's step), so that each bit of both touches all of the result.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let (low, high) = (a ^ A).carrying_mul(b ^ B, 0);
    low ^ high
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const V4: Ipv4 = Ipv4 {
        src: Ipv4Addr::new(10, 244, 1, 2),
        dst: Ipv4Addr::new(10, 244, 2, 3),
        tos: 0,
        ttl: 64,
        protocol: 6,
        header_len: 20,
        total_len: 52,
        dont_fragment: true,
        fragment: None,
    };
    const V6: Ipv6 = Ipv6 {
        src: Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 2),
        dst: Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, 3),
        traffic_class: 0,
        hop_limit: 64,
        flow_label: 0,
        protocol: 17,
        extensions_len: 0,
        payload_len: 20,
        fragment: None,
    };

    fn headers(l3: L3, l4: L4) -> Headers {
        Headers { ethertype: 0x0800, l3_offset: 14, l4_offset: 34, l3, l4, ..Headers::default() }
    }

    fn tcp(src_port: u16, dst_port: u16) -> L4 {
        L4::Tcp(TcpHeader { src_port, dst_port, header_len: 32, flags: 0 })
    }

    #[test]
    fn lengths_come_from_the_headers_and_not_from_the_padding() {
        let udp = L4::Udp(UdpHeader { src_port: 1, dst_port: 2, len: 20 });
        let icmp = IcmpHeader { kind: 8, code: 0 };
        let v4 = |total_len| L3::V4(Ipv4 { total_len, ..V4 });
        let v6 = |payload_len, protocol| L3::V6(Ipv6 { payload_len, protocol, ..V6 });
        for (l3, l4, header_len, packet_len) in [
            (L3::Other, L4::None, 34, 86),
            (v4(52), tcp(1, 2), 66, 52),
            (v4(0), tcp(1, 2), 66, 86),
            (v4(48), udp, 42, 48),
            (v4(60), L4::Icmp4(icmp), 42, 60),
            (v6(20, 17), udp, 42, 60),
            (v6(0, 17), udp, 42, 86),
            (v6(0, 59), L4::None, 34, 40),
            (v6(20, 58), L4::Icmp6(icmp), 38, 60),
        ] {
            let headers = headers(l3, l4);
            assert_eq!((headers.header_len(), headers.packet_len(100)), (header_len, packet_len), "{headers:?}");
            assert_eq!(headers.payload_offset(), header_len);
        }
        assert_eq!(headers(L3::Other, L4::None).packet_len(3), 0);
        let frame: Vec<u8> = (0..100).collect();
        assert_eq!(headers(v4(30), udp).l4_bytes(&frame), &frame[34..44]);
        assert!(headers(v4(99), udp).l4_bytes(&frame).is_empty(), "cut off");
    }

    #[test]
    fn addresses_and_ports_are_those_of_the_packet() {
        let v6 = headers(L3::V6(V6), tcp(7, 8));
        assert!(v6.is_v6() && v6.src_ip() == Some(V6.src.into()) && v6.dst_ip() == Some(V6.dst.into()));
        assert_eq!(v6.ports(), Some((7, 8)));
        let v4 = headers(L3::V4(V4), L4::None);
        assert!(!v4.is_v6() && v4.src_ip() == Some(V4.src.into()) && v4.dst_ip() == Some(V4.dst.into()));
        assert_eq!(v4.ports(), None);
        assert_eq!(headers(L3::Other, L4::None).src_ip(), None);
    }

    #[test]
    fn flows_spread_over_every_part_of_the_hash() {
        for l3 in [L3::V4(V4), L3::V6(V6)] {
            let hashes: Vec<u32> =
                (0..4_096).map(|n| headers(l3, tcp(40_000 + n % 64, 80 + n / 64)).flow_hash()).collect();
            for shift in [0, 8, 16, 24] {
                let buckets: HashSet<u32> = hashes.iter().map(|hash| hash >> shift & 0xff).collect();
                assert_eq!(buckets.len(), 256, "bits {shift} and up of {l3:?}");
            }
            assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        }
    }

    #[test]
    fn every_part_of_a_flow_counts_and_so_does_its_direction() {
        let base = headers(L3::V6(V6), tcp(1, 2)).flow_hash();
        let others = [
            headers(L3::V6(Ipv6 { src: V6.dst, dst: V6.src, ..V6 }), tcp(2, 1)),
            headers(L3::V6(Ipv6 { src: Ipv6Addr::LOCALHOST, ..V6 }), tcp(1, 2)),
            headers(L3::V6(Ipv6 { dst: Ipv6Addr::LOCALHOST, ..V6 }), tcp(1, 2)),
            headers(L3::V6(Ipv6 { protocol: 6, ..V6 }), tcp(1, 2)),
            headers(L3::V6(V6), tcp(1, 3)),
            headers(L3::V6(V6), tcp(2, 2)),
        ];
        assert!(others.iter().all(|other| other.flow_hash() != base));
        let frame = |src, dst| Headers {
            src: Mac([2, 0, 0, 0, 0, src]),
            dst: Mac([2, 0, 0, 0, 0, dst]),
            ..headers(L3::Other, L4::None)
        };
        assert_ne!(frame(1, 2).flow_hash(), frame(2, 1).flow_hash());
    }

    #[test]
    fn all_fragments_of_a_packet_have_one_hash() {
        let piece =
            |offset, protocol| L3::V6(Ipv6 { protocol, fragment: Some(Fragment { offset, more: true, id: 9 }), ..V6 });
        let first = headers(piece(0, 17), tcp(1, 2)).flow_hash();
        assert_eq!(first, headers(piece(1_448, 60), L4::None).flow_hash());
    }
}
