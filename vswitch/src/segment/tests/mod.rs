//! What the tests of cutting share: packets built field by field, and a slow reassembly to compare with.
//!
//! Every expected segment is built from its own fields by [`Packet::bytes`], with checksums summed word by word,
//! so nothing here uses the code under test or `wire::checksum`.

mod cases;
mod coalesce;
mod roundtrip;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Arena, Prepared, prepare};
use crate::frame::{Checksum, Frame, Gso, GsoKind};
use crate::outcome::DropReason;
use crate::port::{Outgoing, PortCaps};
use crate::wire::{Fragment, Headers, Ipv4, Ipv6, L3, L4, TcpHeader, UdpHeader};

const SRC4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const DST4: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);
const SRC6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7);
const DST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0xffff);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Ip {
    V4 { options: Vec<u8>, id: u16, dont_fragment: bool },
    V6 { extensions: Vec<u8> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Transport {
    Tcp { options: Vec<u8>, sequence: u32, flags: u8 },
    Udp,
}

/// A whole packet, of any length.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Packet {
    tags: usize,
    ip: Ip,
    transport: Transport,
    payload: Vec<u8>,
}

impl Packet {
    fn tcp4(payload_len: usize) -> Self {
        Self {
            tags: 0,
            ip: Ip::V4 { options: vec![], id: 0xfffe, dont_fragment: true },
            transport: Transport::Tcp { options: vec![], sequence: 0xffff_ff00, flags: 0x10 },
            payload: payload_of(payload_len),
        }
    }

    fn udp4(payload_len: usize) -> Self {
        Self { transport: Transport::Udp, ..Self::tcp4(payload_len) }
    }

    fn with_df_clear(mut self) -> Self {
        if let Ip::V4 { dont_fragment, .. } = &mut self.ip {
            *dont_fragment = false;
        }
        self
    }

    fn over_v6(self, extensions: &[u8]) -> Self {
        Self { ip: Ip::V6 { extensions: extensions.to_vec() }, ..self }
    }

    fn l3(&self) -> usize {
        14 + 4 * self.tags
    }

    fn l4(&self) -> usize {
        self.l3()
            + match &self.ip {
                Ip::V4 { options, .. } => 20 + options.len(),
                Ip::V6 { extensions } => 40 + extensions.len(),
            }
    }

    fn header_len(&self) -> usize {
        self.l4()
            + match &self.transport {
                Transport::Tcp { options, .. } => 20 + options.len(),
                Transport::Udp => 8,
            }
    }

    fn protocol(&self) -> u8 {
        if self.transport == Transport::Udp { 17 } else { 6 }
    }

    fn check_offset(&self) -> usize {
        if self.transport == Transport::Udp { 6 } else { 16 }
    }

    fn l4_len(&self) -> usize {
        self.header_len() - self.l4() + self.payload.len()
    }

    /// Pseudo-header with the packet's length.
    fn pseudo(&self) -> Vec<u8> {
        let mut bytes = match &self.ip {
            Ip::V4 { .. } => [SRC4.octets(), DST4.octets()].concat(),
            Ip::V6 { .. } => [SRC6.octets(), DST6.octets()].concat(),
        };
        bytes.extend(u32::from(self.protocol()).to_be_bytes());
        bytes.extend(u32::try_from(self.l4_len()).unwrap().to_be_bytes());
        bytes
    }

    /// The frame, complete in all checksums.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            bytes.extend([0x81, 0x00, 0x20, u8::try_from(tag).unwrap()]);
        }
        let ip_payload = u16::try_from(self.l4_len()).unwrap();
        match &self.ip {
            Ip::V4 { options, id, dont_fragment } => {
                let ihl = u8::try_from(5 + options.len() / 4).unwrap();
                bytes.extend([8, 0, 0x40 | ihl, 0xb9]);
                bytes.extend((ip_payload + u16::from(ihl) * 4).to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes.extend([u8::from(*dont_fragment) << 6, 0, 61, self.protocol(), 0, 0]);
                bytes.extend([SRC4.octets(), DST4.octets()].concat());
                bytes.extend(options);
                let check = slow_checksum(&bytes[self.l3()..]);
                bytes[self.l3() + 10..self.l3() + 12].copy_from_slice(&check.to_be_bytes());
            }
            Ip::V6 { extensions } => {
                let next = if extensions.is_empty() { self.protocol() } else { 60 };
                bytes.extend([0x86, 0xdd, 0x6b, 0x91, 0x23, 0x45]);
                bytes.extend((ip_payload + u16::try_from(extensions.len()).unwrap()).to_be_bytes());
                bytes.extend([next, 61]);
                bytes.extend([SRC6.octets(), DST6.octets()].concat());
                bytes.extend(extensions);
                if !extensions.is_empty() {
                    let at = self.l3() + 40;
                    bytes[at] = self.protocol();
                }
            }
        }
        bytes.extend([0x30, 0x39, 0x01, 0xbb]);
        match &self.transport {
            Transport::Tcp { options, sequence, flags } => {
                bytes.extend(sequence.to_be_bytes());
                bytes.extend([0x0a, 0x0b, 0x0c, 0x0d]);
                bytes.extend([u8::try_from(5 + options.len() / 4).unwrap() << 4, *flags, 0x72, 0x10, 0, 0, 0, 7]);
                bytes.extend(options);
            }
            Transport::Udp => {
                bytes.extend(ip_payload.to_be_bytes());
                bytes.extend([0, 0]);
            }
        }
        bytes.extend(&self.payload);
        let check = slow_checksum(&[self.pseudo(), bytes[self.l4()..].to_vec()].concat());
        let check = if check == 0 && self.transport == Transport::Udp { 0xffff } else { check };
        self.put_check(&mut bytes, check);
        bytes
    }

    fn put_check(&self, bytes: &mut [u8], check: u16) {
        let at = self.l4() + self.check_offset();
        bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }

    fn headers(&self) -> Headers {
        let bytes = self.bytes();
        let l3 = match &self.ip {
            Ip::V4 { options, dont_fragment, .. } => L3::V4(Ipv4 {
                src: SRC4,
                dst: DST4,
                tos: 0xb9,
                ttl: 61,
                protocol: self.protocol(),
                header_len: u8::try_from(20 + options.len()).unwrap(),
                total_len: be16(&bytes, self.l3() + 2),
                dont_fragment: *dont_fragment,
                fragment: None,
            }),
            Ip::V6 { extensions } => L3::V6(Ipv6 {
                src: SRC6,
                dst: DST6,
                traffic_class: 0xb9,
                hop_limit: 61,
                flow_label: 0x12345,
                protocol: self.protocol(),
                extensions_len: u16::try_from(extensions.len()).unwrap(),
                payload_len: be16(&bytes, self.l3() + 4),
                fragment: None,
            }),
        };
        let l4 = match &self.transport {
            Transport::Tcp { options, flags, .. } => L4::Tcp(TcpHeader {
                src_port: 12345,
                dst_port: 443,
                header_len: u8::try_from(20 + options.len()).unwrap(),
                flags: *flags,
            }),
            Transport::Udp => {
                L4::Udp(UdpHeader { src_port: 12345, dst_port: 443, len: u16::try_from(self.l4_len()).unwrap() })
            }
        };
        Headers {
            l3_offset: u16::try_from(self.l3()).unwrap(),
            l3,
            l4_offset: u16::try_from(self.l4()).unwrap(),
            l4,
            ..Headers::default()
        }
    }

    /// A frame with its L4 checksum still to be completed.
    fn partial_frame(&self) -> Frame {
        let mut bytes = self.bytes();
        self.put_check(&mut bytes, !slow_checksum(&self.pseudo()));
        let mut frame = frame_of(&bytes);
        let start = u16::try_from(self.l4()).unwrap();
        frame.offload.checksum = Checksum::Partial { start, offset: u16::try_from(self.check_offset()).unwrap() };
        frame
    }

    fn super_frame(&self, size: u16) -> Frame {
        let mut frame = self.partial_frame();
        let kind = match (&self.transport, &self.ip) {
            (Transport::Udp, _) => GsoKind::Udp,
            (_, Ip::V4 { .. }) => GsoKind::Tcp4,
            (_, Ip::V6 { .. }) => GsoKind::Tcp6,
        };
        frame.offload.gso = Some(Gso { kind, size, header_len: u16::try_from(self.header_len()).unwrap() });
        frame
    }

    /// The packets a super-frame with segments of `size` bytes stands for.
    fn segments(&self, size: u16) -> Vec<Packet> {
        let count = self.payload.len().div_ceil(usize::from(size)).max(1);
        (0..count).map(|index| self.segment(index, usize::from(size), index + 1 == count)).collect()
    }

    fn segment(&self, index: usize, size: usize, last: bool) -> Packet {
        let mut segment = self.clone();
        segment.payload = self.payload.iter().copied().skip(index * size).take(size).collect();
        if let Ip::V4 { id, .. } = &mut segment.ip {
            *id = id.wrapping_add(u16::try_from(index).unwrap());
        }
        if let Transport::Tcp { sequence, flags, .. } = &mut segment.transport {
            *sequence = sequence.wrapping_add(u32::try_from(index * size).unwrap());
            *flags &= if last { 0xff } else { !0x09 };
            *flags &= if index == 0 { 0xff } else { !0x80 };
        }
        segment
    }
}

fn payload_of(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}

fn frame_of(bytes: &[u8]) -> Frame {
    let mut frame = Frame::new();
    frame.fill(bytes);
    frame
}

/// Prepares a frame for an egress without offloads and gives what is written to it.
fn sent(mut frame: Frame, headers: &Headers, mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut arena = Arena::new();
    let prepared = prepare(&mut frame, headers, PortCaps::NONE, mtu, &mut arena)?;
    let pieces = (prepared == Prepared::Cut).then(|| arena.pieces());
    let out = Outgoing { frame: &frame, pieces, encap: None };
    Ok(out.packets().map(|(header, payload)| [header, payload].concat()).collect())
}

/// The headers of a fragment that was cut from a packet with these headers.
fn headers_of_fragment(of: &Headers, bytes: &[u8]) -> Headers {
    let L3::V4(ip) = of.l3 else { panic!("only IPv4 is fragmented") };
    let l3 = usize::from(of.l3_offset);
    let word = be16(bytes, l3 + 6);
    let fragment = Fragment { offset: (word & 0x1fff) * 8, more: word & 0x2000 != 0, id: be16(bytes, l3 + 4).into() };
    Headers { l3: L3::V4(Ipv4 { total_len: be16(bytes, l3 + 2), fragment: Some(fragment), ..ip }), l4: L4::None, ..*of }
}

/// Puts fragments together (RFC 791, 3.2), checking each; gives the frame they were cut from.
fn reassemble(fragments: &[Vec<u8>], l3: usize, mtu: u16) -> Vec<u8> {
    let head_len = l3 + usize::from(fragments[0][l3] & 0xf) * 4;
    let mut whole = fragments[0][..head_len].to_vec();
    for (index, fragment) in fragments.iter().enumerate() {
        let at = format!("fragment {index}");
        let total_len = be16(fragment, l3 + 2);
        assert!(total_len <= mtu, "{at} is {total_len} bytes long");
        assert_eq!(usize::from(total_len), fragment.len() - l3, "{at}");
        assert_eq!(slow_checksum(&fragment[l3..head_len]), 0, "header checksum of {at}");
        assert_eq!(fragment[..l3 + 2], whole[..l3 + 2], "{at}");
        assert_eq!(be16(fragment, l3 + 4), be16(&whole, l3 + 4), "identification of {at}");
        let word = be16(fragment, l3 + 6);
        assert_eq!(usize::from(word & 0x1fff) * 8, whole.len() - head_len, "offset of {at}");
        assert_eq!(word & 0x2000 != 0, index + 1 < fragments.len(), "MF of {at}");
        whole.extend(&fragment[head_len..]);
    }
    let total_len = u16::try_from(whole.len() - l3).unwrap();
    whole[l3 + 2..l3 + 4].copy_from_slice(&total_len.to_be_bytes());
    whole[l3 + 6..l3 + 8].fill(0);
    whole[l3 + 10..l3 + 12].fill(0);
    let check = slow_checksum(&whole[l3..head_len]);
    whole[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
    whole
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn slow_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
