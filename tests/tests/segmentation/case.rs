//! What is cut: frames of every kind, built here byte by byte, and the checksum arithmetic they need.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};
use podwire_control::model::Mac;
use podwire_tests::probe::pattern::Pattern;
use podwire_vswitch::frame::{Checksum, Frame, Gso, GsoKind, Offload};

const SOURCE4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
const TARGET4: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 0xa);
const TARGET6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, 0xa);
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_BYTES: usize = 14;
/// First sequence number of the TCP cases; it wraps within most.
pub(crate) const SEQUENCE: u32 = 0xffff_f000;

/// Transport of a case.
#[derive(Clone, Debug)]
pub(crate) enum L4 {
    Tcp { flags: fn(&mut TcpHeader), options: &'static [u8] },
    Udp,
}

/// One frame and how it is to be cut.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) v6: bool,
    pub(crate) l4: L4,
    /// Payload bytes of a segment; none for an ordinary packet, which may be too long for the tunnel.
    size: Option<u16>,
    payload: usize,
    id: u16,
    dont_fragment: bool,
    ip_options: &'static [u8],
}

const PLAIN: L4 = L4::Tcp { flags: |tcp| tcp.psh = true, options: &[] };
/// Two of no operation, then a timestamp option (RFC 7323).
const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
/// An experimental option for the first fragment only, and one for every fragment (RFC 4727, 791).
const IP_OPTIONS: &[u8] = &[0x5e, 4, 0xaa, 0xbb, 0xde, 4, 0xcc, 0xdd];

impl Case {
    fn tcp(name: &'static str, v6: bool, size: u16, payload: usize) -> Self {
        let size = Some(size);
        Self { name, v6, l4: PLAIN, size, payload, id: 0xfffd, dont_fragment: true, ip_options: &[] }
    }

    fn udp(name: &'static str, v6: bool, size: u16, payload: usize) -> Self {
        Self { l4: L4::Udp, ..Self::tcp(name, v6, size, payload) }
    }

    fn flags(self, flags: fn(&mut TcpHeader), options: &'static [u8]) -> Self {
        Self { l4: L4::Tcp { flags, options }, ..self }
    }

    /// Too long for the tunnel, and allowed to be fragmented.
    fn fragmented(self) -> Self {
        Self { dont_fragment: false, ..self }
    }

    fn ip_options(self, ip_options: &'static [u8]) -> Self {
        Self { ip_options, ..self }
    }

    /// One packet, not a super-frame.
    fn ordinary(self) -> Self {
        Self { size: None, ..self }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        Pattern::bytes(self.payload as u64, self.payload)
    }

    /// The frame with these addresses and this TTL, its L4 checksum left open.
    pub(crate) fn frame(&self, dst: Mac, src: Mac, ttl: u8) -> Frame {
        let l4 = self.l4_header();
        let ip = self.ip_header(ttl, l4.len());
        let l4_offset = ETHERNET_BYTES + ip.len();
        let (field, protocol) = match self.l4 {
            L4::Tcp { .. } => (16, IpNumber::TCP),
            L4::Udp => (6, IpNumber::UDP),
        };
        let ether_type = if self.v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        let ethernet = Ethernet2Header { destination: dst.0, source: src.0, ether_type };
        let mut bytes = [&ethernet.to_bytes()[..], &ip, &l4, &self.payload()].concat();
        let pseudo = pseudo_sum(self.v6, protocol, l4.len() + self.payload);
        bytes[l4_offset + field..l4_offset + field + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut frame = Frame::new();
        frame.fill(&bytes);
        let at = |offset: usize| u16::try_from(offset).unwrap();
        let kind = match (&self.l4, self.v6) {
            (L4::Tcp { .. }, false) => GsoKind::Tcp4,
            (L4::Tcp { .. }, true) => GsoKind::Tcp6,
            (L4::Udp, _) => GsoKind::Udp,
        };
        let header_len = at(l4_offset + l4.len());
        frame.offload = Offload {
            checksum: Checksum::Partial { start: at(l4_offset), offset: at(field) },
            gso: self.size.map(|size| Gso { kind, size, header_len }),
        };
        frame
    }

    fn l4_header(&self) -> Vec<u8> {
        match self.l4 {
            L4::Tcp { flags, options } => {
                let mut tcp = TcpHeader::new(40_000, 80, SEQUENCE, 4_321);
                tcp.ack = true;
                tcp.acknowledgment_number = 77;
                flags(&mut tcp);
                tcp.set_options_raw(options).unwrap();
                tcp.to_bytes().to_vec()
            }
            L4::Udp => {
                let length = u16::try_from(8 + self.payload).unwrap();
                UdpHeader { source_port: 40_000, destination_port: 53, length, checksum: 0 }.to_bytes().to_vec()
            }
        }
    }

    fn ip_header(&self, ttl: u8, l4_len: usize) -> Vec<u8> {
        let len = u16::try_from(l4_len + self.payload).unwrap();
        let protocol = if matches!(self.l4, L4::Udp) { IpNumber::UDP } else { IpNumber::TCP };
        if self.v6 {
            let flow_label = Ipv6FlowLabel::try_new(0xabcde).unwrap();
            let (source, destination) = (SOURCE6.octets(), TARGET6.octets());
            let header = Ipv6Header {
                traffic_class: 0x28,
                flow_label,
                payload_length: len,
                next_header: protocol,
                hop_limit: ttl,
                source,
                destination,
            };
            return header.to_bytes().to_vec();
        }
        let mut header = Ipv4Header::new(len, ttl, protocol, SOURCE4.octets(), TARGET4.octets()).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        header.dscp = 10.try_into().unwrap();
        header.options = self.ip_options.try_into().unwrap();
        header.set_payload_len(len.into()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::tcp("TCP over IPv4", false, 1_398, 60_000),
        Case::tcp("TCP over IPv6", true, 1_378, 60_000),
        Case::tcp("TCP with timestamps", false, 1_386, 40_000).flags(|tcp| tcp.psh = true, TIMESTAMPS),
        Case::tcp("TCP with timestamps over IPv6", true, 1_366, 40_000).flags(|_| (), TIMESTAMPS),
        Case::tcp("only the last segment ends the stream", false, 1_000, 5_001).flags(|tcp| tcp.fin = true, &[]),
        Case::tcp("congestion window reduced, echo", false, 1_000, 4_500)
            .flags(|tcp| (tcp.cwr, tcp.ece) = (true, true), &[]),
        Case::tcp("congestion window reduced over IPv6", true, 1_000, 4_500).flags(|tcp| tcp.cwr = true, &[]),
        Case::tcp("a whole number of segments", false, 1_398, 1_398 * 7),
        Case::tcp("a last segment of one byte", true, 1_378, 1_378 * 7 + 1),
        Case::tcp("tiny segments of odd length", false, 7, 100),
        Case::tcp("TCP under IP options", false, 1_300, 9_000).ip_options(IP_OPTIONS),
        Case::udp("UDP over IPv4", false, 1_422, 1_422 * 20 + 11),
        Case::udp("UDP over IPv6", true, 1_402, 1_402 * 20 + 11),
        Case::udp("UDP of odd length", true, 333, 333 * 9),
        Case::tcp("segments that are fragmented", false, 1_460, 9_001).fragmented(),
        Case::tcp("segments under IP options that are fragmented", false, 2_900, 9_001)
            .fragmented()
            .ip_options(IP_OPTIONS),
        Case::udp("datagrams that are fragmented", false, 3_000, 10_001).fragmented(),
        Case::udp("a packet that is fragmented", false, 0, 10_001).ordinary().fragmented(),
        Case::udp("a packet under IP options that is fragmented", false, 0, 4_000)
            .ordinary()
            .fragmented()
            .ip_options(IP_OPTIONS),
        Case::tcp("a packet whose checksum is open", true, 0, 1_000).ordinary(),
    ]
}

/// Ones' complement sum of 16-bit words (RFC 1071), written apart from the engine's.
pub(crate) fn add_words(bytes: &[u8], mut sum: u64) -> u64 {
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    sum
}

pub(crate) fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

pub(crate) fn pseudo_sum(v6: bool, protocol: IpNumber, l4_len: usize) -> u16 {
    let addresses =
        if v6 { [SOURCE6.octets(), TARGET6.octets()].concat() } else { [SOURCE4.octets(), TARGET4.octets()].concat() };
    folded(add_words(&addresses, u64::from(protocol.0) + l4_len as u64))
}
