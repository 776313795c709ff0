//! Packets as a test writes them down: every field plain, all bytes made by slow code of its own.
//!
//! Independent of the engine's writers on purpose.

mod cut;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;
use podwire_vswitch::frame::{Checksum, Offload};
use podwire_vswitch::port::memory::MemoryFrame;

/// TCP flags.
#[allow(missing_docs)]
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const CWR: u8 = 0x80;
}

/// Transport header.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        sequence: u32,
        flags: u8,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// The payload has it all.
    Raw {
        protocol: u8,
    },
}

/// How the checksum field of the transport header is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    /// Right.
    Complete,
    /// The pseudo-header's sum only.
    Partial,
    /// This.
    Is(u16),
}

/// One packet in its frame.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Packet {
    pub dst_mac: Mac,
    pub src_mac: Mac,
    /// EtherType and control word of each tag, outermost first.
    pub tags: Vec<(u16, u16)>,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Identification; the low 16 bits over IPv4.
    pub id: u32,
    pub dont_fragment: bool,
    /// Offset in bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// IPv4 options, padded to words.
    pub options: Vec<u8>,
    pub l4: L4,
    pub payload: Vec<u8>,
    pub sum: Sum,
}

impl Packet {
    /// A packet with TTL 64, DF, and no MACs yet.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, l4: L4, payload: &[u8]) -> Self {
        Self {
            dst_mac: Mac::ZERO,
            src_mac: Mac::ZERO,
            tags: Vec::new(),
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x4321,
            dont_fragment: true,
            fragment: None,
            options: Vec::new(),
            l4,
            payload: payload.to_vec(),
            sum: Sum::Complete,
        }
    }

    /// A UDP datagram from port 1000 to port 2000.
    #[must_use]
    pub fn udp(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Self {
        Self::new(src, dst, L4::Udp { src: 1_000, dst: 2_000 }, payload)
    }

    /// A TCP segment from port 1000 to port 2000.
    #[must_use]
    pub fn tcp(src: IpAddr, dst: IpAddr, sequence: u32, flags: u8, payload: &[u8]) -> Self {
        Self::new(src, dst, L4::Tcp { src: 1_000, dst: 2_000, sequence, flags }, payload)
    }

    /// An echo request of the addresses' family.
    #[must_use]
    pub fn echo_request(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Self {
        Self::icmp(src, dst, if src.is_ipv6() { 128 } else { 8 }, 0, [0, 9, 0, 1], payload)
    }

    /// An echo reply of the addresses' family.
    #[must_use]
    pub fn echo_reply(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Self {
        Self::icmp(src, dst, if src.is_ipv6() { 129 } else { 0 }, 0, [0, 9, 0, 1], payload)
    }

    /// An ICMP message of the addresses' family.
    #[must_use]
    pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        Self::new(src, dst, L4::Icmp { kind, code, rest }, body)
    }

    /// An ICMP error as the switch writes it, quoting the beginning of `quoted`'s IP packet.
    #[must_use]
    pub fn icmp_error(from: IpAddr, quoted: &Self, kind: u8, code: u8, mtu: u16) -> Self {
        let packet = quoted.ip_bytes();
        let room = if from.is_ipv6() { 1_280 - 48 } else { 576 - 28 };
        let [high, low] = mtu.to_be_bytes();
        let error = Self::icmp(from, quoted.src, kind, code, [0, 0, high, low], &packet[..packet.len().min(room)]);
        Self { tos: if from.is_ipv6() { 0 } else { 0xc0 }, id: 0, dont_fragment: false, ..error }
    }

    /// Between these stations.
    #[must_use]
    pub fn macs(mut self, dst: Mac, src: Mac) -> Self {
        (self.dst_mac, self.src_mac) = (dst, src);
        self
    }

    /// The packet behind a router: new MACs, one hop less to live.
    #[must_use]
    pub fn routed(self, dst: Mac, src: Mac) -> Self {
        let ttl = self.ttl - 1;
        self.macs(dst, src).ttl(ttl)
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With this TOS or traffic class.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// That routers may fragment.
    #[must_use]
    pub fn may_fragment(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// With the checksum field filled so.
    #[must_use]
    pub fn sum(mut self, sum: Sum) -> Self {
        self.sum = sum;
        self
    }

    /// In an 802.1Q VLAN.
    #[must_use]
    pub fn vlan(mut self, vid: u16) -> Self {
        self.tags.push((0x8100, vid));
        self
    }

    /// Bytes of the IP header with its options or fragment header.
    #[must_use]
    pub fn ip_header_len(&self) -> usize {
        match self.src {
            IpAddr::V4(_) => 20 + self.options.len(),
            IpAddr::V6(_) => 40 + if self.fragment.is_some() { 8 } else { 0 },
        }
    }

    /// Bytes of the transport header.
    #[must_use]
    pub fn l4_header_len(&self) -> usize {
        match self.l4 {
            L4::Tcp { .. } => 20,
            L4::Udp { .. } | L4::Icmp { .. } => 8,
            L4::Raw { .. } => 0,
        }
    }

    /// Where the transport header starts in the frame.
    #[must_use]
    pub fn l4_offset(&self) -> usize {
        14 + 4 * self.tags.len() + self.ip_header_len()
    }

    fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
            L4::Icmp { .. } if self.src.is_ipv6() => 58,
            L4::Icmp { .. } => 1,
            L4::Raw { protocol } => protocol,
        }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.dst_mac.0, self.src_mac.0].concat();
        for (ethertype, control) in &self.tags {
            bytes.extend([ethertype.to_be_bytes(), control.to_be_bytes()].concat());
        }
        bytes.extend(if self.src.is_ipv6() { [0x86, 0xdd] } else { [0x08, 0x00] });
        bytes.extend(self.ip_bytes());
        bytes
    }

    /// The IP packet's bytes.
    #[must_use]
    pub fn ip_bytes(&self) -> Vec<u8> {
        let l4 = self.l4_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => [self.v4_header(src, dst, l4.len()), l4].concat(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => [self.v6_header(src, dst, l4.len()), l4].concat(),
            _ => panic!("two families in one packet"),
        }
    }

    fn v4_header(&self, src: Ipv4Addr, dst: Ipv4Addr, l4_len: usize) -> Vec<u8> {
        let header_len = self.ip_header_len();
        let total = u16::try_from(header_len + l4_len).expect("an IP packet");
        let (offset, more) = self.fragment.unwrap_or_default();
        let fragment = (offset / 8) | (u16::from(more) << 13) | (u16::from(self.dont_fragment) << 14);
        let words = u8::try_from(header_len / 4).expect("at most 15 words");
        let id = u16::try_from(self.id & 0xffff).expect("16 bits");
        let mut header = vec![0x40 | words, self.tos];
        header.extend([total.to_be_bytes(), id.to_be_bytes(), fragment.to_be_bytes()].concat());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend([src.octets(), dst.octets()].concat());
        header.extend(&self.options);
        let check = !ones_sum(&header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        header
    }

    fn v6_header(&self, src: Ipv6Addr, dst: Ipv6Addr, l4_len: usize) -> Vec<u8> {
        let payload = u16::try_from(self.ip_header_len() - 40 + l4_len).expect("an IP packet");
        let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        header.extend(payload.to_be_bytes());
        header.extend([if self.fragment.is_some() { 44 } else { self.protocol() }, self.ttl]);
        header.extend([src.octets(), dst.octets()].concat());
        if let Some((offset, more)) = self.fragment {
            header.extend([self.protocol(), 0]);
            header.extend((offset | u16::from(more)).to_be_bytes());
            header.extend(self.id.to_be_bytes());
        }
        header
    }

    /// Transport header and payload.
    #[must_use]
    pub fn l4_bytes(&self) -> Vec<u8> {
        let mut bytes = match self.l4 {
            L4::Raw { .. } => return self.payload.clone(),
            L4::Tcp { src, dst, sequence, flags } => {
                let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
                [&ports[..], &sequence.to_be_bytes(), &[0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]].concat()
            }
            L4::Udp { src, dst } => {
                let len = u16::try_from(8 + self.payload.len()).expect("a datagram");
                [src, dst, len, 0].map(u16::to_be_bytes).concat()
            }
            L4::Icmp { kind, code, rest } => [&[kind, code, 0, 0][..], &rest].concat(),
        };
        bytes.extend(&self.payload);
        let at = self.sum_offset();
        let pseudo = if self.protocol() == 1 { 0 } else { self.pseudo_sum(bytes.len()) };
        let field = match self.sum {
            Sum::Is(field) => field,
            Sum::Partial => pseudo,
            Sum::Complete => {
                let check = !ones_sum(&[&pseudo.to_be_bytes()[..], &bytes].concat());
                if check == 0 && self.protocol() == 17 { 0xffff } else { check }
            }
        };
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    fn sum_offset(&self) -> usize {
        match self.l4 {
            L4::Tcp { .. } => 16,
            L4::Udp { .. } => 6,
            L4::Icmp { .. } | L4::Raw { .. } => 2,
        }
    }

    fn pseudo_sum(&self, l4_len: usize) -> u16 {
        let mut bytes = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => [src.octets(), dst.octets()].concat(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => [src.octets(), dst.octets()].concat(),
            _ => panic!("two families in one packet"),
        };
        bytes.extend(u32::try_from(l4_len).expect("a packet").to_be_bytes());
        bytes.extend([0, self.protocol()]);
        ones_sum(&bytes)
    }

    /// As a port gives it, with its checksum state.
    #[must_use]
    pub fn frame(&self) -> MemoryFrame {
        let narrow = |number: usize| u16::try_from(number).expect("16 bits");
        let checksum = match self.sum {
            Sum::Partial => Checksum::Partial { start: narrow(self.l4_offset()), offset: narrow(self.sum_offset()) },
            _ => Checksum::Unknown,
        };
        MemoryFrame::new(self.bytes()).with_offload(Offload { checksum, gso: None })
    }
}

/// An ARP packet in its frame.
#[must_use]
pub fn arp(dst: Mac, operation: u16, sender: (Mac, IpAddr), target: (Mac, IpAddr)) -> Vec<u8> {
    let mut bytes = [dst.0, sender.0.0].concat();
    bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    bytes.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        let IpAddr::V4(address) = address else { panic!("ARP is for IPv4") };
        bytes.extend(mac.0);
        bytes.extend(address.octets());
    }
    bytes
}

/// A neighbour solicitation for an address, from `src` (the unspecified address when probing), without MACs.
#[must_use]
pub fn solicitation(src: IpAddr, target: IpAddr, source_mac: Option<Mac>) -> Packet {
    let IpAddr::V6(asked) = target else { panic!("ND is for IPv6") };
    let [.., a, b, c] = asked.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let option = source_mac.map(|mac| [&[1, 1][..], &mac.0].concat()).unwrap_or_default();
    Packet::icmp(src, group.into(), 135, 0, [0; 4], &[&asked.octets()[..], &option].concat())
        .ttl(255)
        .macs(Mac([0x33, 0x33, 0xff, a, b, c]), source_mac.unwrap_or_default())
}

/// A neighbour advertisement that `target` is at `mac`, with these flags in the first byte, without MACs.
#[must_use]
pub fn advertisement(src: IpAddr, dst: IpAddr, flags: u8, target: IpAddr, mac: Mac) -> Packet {
    let IpAddr::V6(said) = target else { panic!("ND is for IPv6") };
    let body = [&said.octets()[..], &[2, 1], &mac.0].concat();
    Packet::icmp(src, dst, 136, 0, [flags, 0, 0, 0], &body).ttl(255)
}

/// A VXLAN datagram's payload around a frame.
#[must_use]
pub fn vxlan(vni: u32, inner: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), inner].concat()
}

/// The folded ones' complement sum, two bytes at a time.
fn ones_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let folded = words.fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16));
    u16::try_from(folded).expect("folded")
}
