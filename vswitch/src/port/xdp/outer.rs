//! The outer headers of a frame from the NIC: where the VXLAN header begins, who sent it, and whether it is sound.
//!
//! The steering program has looked at addresses and lengths already; this looks again, since what is in memory is what
//! counts, and at the checksums, which the program leaves alone.

use std::net::IpAddr;
use std::ops::Range;

use crate::frame::Outer;
use crate::wire::{checksum, ethernet, ipv4, ipv6, tcp, udp, vxlan};

/// A datagram of the tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tunnelled {
    /// Who sent it, and its TOS.
    pub(super) outer: Outer,
    /// Where in the frame VXLAN header and inner frame are.
    pub(super) payload: Range<usize>,
}

/// Why a frame is thrown away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsound {
    /// Not one whole UDP datagram in one whole IP packet with room for a VXLAN header.
    Malformed,
    /// The IPv4 header's checksum or the outer UDP checksum is wrong.
    Checksum,
}

/// What is needed of an outer IP header.
struct Packet {
    remote: IpAddr,
    tos: u8,
    protocol: u8,
    /// Bytes of the IP header, and of header and payload.
    header_len: usize,
    len: usize,
    /// Sum of the pseudo-header for that payload.
    pseudo: u32,
}

/// Reads a frame from its Ethernet header on.
pub(super) fn read(frame: &[u8]) -> Result<Tunnelled, Unsound> {
    let eth = ethernet::View::new(frame).ok_or(Unsound::Malformed)?;
    let bytes = &frame[ethernet::HEADER_LEN..];
    let packet = match eth.ethertype() {
        ethernet::ETHERTYPE_IPV4 => read_v4(bytes)?,
        ethernet::ETHERTYPE_IPV6 => read_v6(bytes)?,
        _ => return Err(Unsound::Malformed),
    };
    let datagram = bytes.get(packet.header_len..packet.len).ok_or(Unsound::Malformed)?;
    let header = udp::View::new(datagram).ok_or(Unsound::Malformed)?;
    let fits = usize::from(header.header().len) == datagram.len();
    let holds_vxlan = datagram.len() >= udp::HEADER_LEN + vxlan::HEADER_LEN;
    if packet.protocol != udp::PROTOCOL || !fits || !holds_vxlan {
        return Err(Unsound::Malformed);
    }
    if !is_sound(datagram, header.checksum(), packet.pseudo) {
        return Err(Unsound::Checksum);
    }
    let start = ethernet::HEADER_LEN + packet.header_len + udp::HEADER_LEN;
    let end = ethernet::HEADER_LEN + packet.len;
    Ok(Tunnelled { outer: Outer { remote: packet.remote, tos: packet.tos }, payload: start..end })
}

fn read_v4(bytes: &[u8]) -> Result<Packet, Unsound> {
    let view = ipv4::View::new(bytes).ok_or(Unsound::Malformed)?;
    if view.fragment().is_some() {
        return Err(Unsound::Malformed);
    }
    if !view.checksum_is_right() {
        return Err(Unsound::Checksum);
    }
    let (header, len) = (view.header(None), usize::from(view.total_len()));
    let payload_len = l4_len(len, view.header_len())?;
    Ok(Packet {
        remote: header.src.into(),
        tos: header.tos,
        protocol: view.protocol(),
        header_len: view.header_len(),
        len,
        pseudo: checksum::pseudo_v4(header.src, header.dst, udp::PROTOCOL, payload_len),
    })
}

fn read_v6(bytes: &[u8]) -> Result<Packet, Unsound> {
    let view = ipv6::View::new(bytes).ok_or(Unsound::Malformed)?;
    let header = view.header(ipv6::Extensions::none(view.next_header()));
    let payload_len = view.payload_len();
    Ok(Packet {
        remote: header.src.into(),
        tos: header.traffic_class,
        protocol: view.next_header(),
        header_len: ipv6::HEADER_LEN,
        len: ipv6::HEADER_LEN + usize::from(payload_len),
        pseudo: checksum::pseudo_v6(header.src, header.dst, udp::PROTOCOL, payload_len.into()),
    })
}

fn l4_len(len: usize, header_len: usize) -> Result<u32, Unsound> {
    len.checked_sub(header_len).and_then(|len| u32::try_from(len).ok()).ok_or(Unsound::Malformed)
}

/// Judges the outer UDP checksum: none at all is fine (RFC 7348, section 5), and so is one that the sender's kernel left
/// to a NIC which is not there, as on a veth. It then holds the pseudo-header's sum only, or is computed as if the inner
/// checksum were complete while that one holds its pseudo-header's sum.
fn is_sound(datagram: &[u8], field: u16, pseudo: u32) -> bool {
    if field == 0 || field == checksum::fold(pseudo) {
        return true;
    }
    if checksum::fold(pseudo + checksum::sum(datagram)) == 0xffff {
        return true;
    }
    let inner = udp::HEADER_LEN + vxlan::HEADER_LEN;
    let unfinished = unfinished(&datagram[inner..]);
    // A finished segment and its pseudo-header sum up to all ones: without the latter, to the latter's complement.
    unfinished.is_some_and(|(start, sum)| {
        checksum::fold(pseudo + checksum::sum(&datagram[..inner + start]) + u32::from(!sum)) == 0xffff
    })
}

/// Where the L4 header of an inner frame begins, and its checksum field, when that holds the pseudo-header's sum only.
fn unfinished(frame: &[u8]) -> Option<(usize, u16)> {
    let packet = frame.get(ethernet::HEADER_LEN..)?;
    let (protocol, header_len, pseudo) = match ethernet::View::new(frame)?.ethertype() {
        ethernet::ETHERTYPE_IPV4 => {
            let view = ipv4::View::new(packet)?;
            let header = view.header(None);
            let len = l4_len(view.total_len().into(), view.header_len()).ok()?;
            (view.protocol(), view.header_len(), checksum::pseudo_v4(header.src, header.dst, view.protocol(), len))
        }
        ethernet::ETHERTYPE_IPV6 => {
            let view = ipv6::View::new(packet)?;
            let payload = packet.get(ipv6::HEADER_LEN..)?;
            let extensions = ipv6::Extensions::walk(view.next_header(), payload)?;
            let header = view.header(extensions);
            let len = u32::from(view.payload_len()).checked_sub(extensions.len.into())?;
            let header_len = ipv6::HEADER_LEN + usize::from(extensions.len);
            (extensions.protocol, header_len, checksum::pseudo_v6(header.src, header.dst, extensions.protocol, len))
        }
        _ => return None,
    };
    let offset = match protocol {
        tcp::PROTOCOL => tcp::CHECKSUM_OFFSET,
        udp::PROTOCOL => udp::CHECKSUM_OFFSET,
        _ => return None,
    };
    let field = packet.get(header_len + offset..header_len + offset + 2)?;
    let field = u16::from_be_bytes([field[0], field[1]]);
    (field == checksum::fold(pseudo)).then_some((ethernet::HEADER_LEN + header_len, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER_TCP: &[u8] = &[
        0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0, b'p', b'o', b'd', b's',
        b'!',
    ];

    /// How the checksums are left.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Left {
        None,
        Right,
        OuterPseudoOnly,
        InnerPseudoOnly,
    }

    fn put(bytes: &mut [u8], at: usize, value: u16) {
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn ip(v6: bool, protocol: u8, payload: &[u8]) -> (Vec<u8>, u32) {
        let len = u16::try_from(payload.len()).unwrap();
        if v6 {
            let addresses: Vec<u8> = (0..32).map(|byte| byte * 7 + 1).collect();
            let fixed = [&[0x6b, 0x80, 0, 0][..], &len.to_be_bytes(), &[protocol, 64], &addresses].concat();
            let sum = checksum::sum(&addresses) + u32::from(protocol) + u32::from(len);
            return ([&fixed, payload].concat(), sum);
        }
        let total = (len + 20).to_be_bytes();
        let mut fixed =
            [&[0x45, 0xb8][..], &total, &[0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]].concat();
        let check = checksum::finish(checksum::sum(&fixed));
        put(&mut fixed, 10, check);
        let sum = checksum::sum(&fixed[12..]) + u32::from(protocol) + u32::from(len);
        ([&fixed, payload].concat(), sum)
    }

    fn eth(v6: bool, packet: &[u8]) -> Vec<u8> {
        let kind = if v6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 };
        [&[2; 12][..], &kind.to_be_bytes(), packet].concat()
    }

    /// A tunnelled TCP segment as a sender leaves it.
    fn frame(outer_v6: bool, inner_v6: bool, left: Left) -> Vec<u8> {
        let mut segment = INNER_TCP.to_vec();
        let (_, inner_pseudo) = ip(inner_v6, tcp::PROTOCOL, &segment);
        let finished = checksum::finish(inner_pseudo + checksum::sum(&segment));
        put(&mut segment, tcp::CHECKSUM_OFFSET, finished);
        let build = |segment: &[u8], check: u16| {
            let inner = eth(inner_v6, &ip(inner_v6, tcp::PROTOCOL, segment).0);
            let len = u16::try_from(16 + inner.len()).unwrap().to_be_bytes();
            let head = [&[0xc3, 0x50, 0x12, 0xb5][..], &len, &check.to_be_bytes(), &[8, 0, 0, 0, 0, 0, 42, 0]].concat();
            [head, inner].concat()
        };
        let (_, pseudo) = ip(outer_v6, udp::PROTOCOL, &build(&segment, 0));
        let right = checksum::finish(pseudo + checksum::sum(&build(&segment, 0)));
        let datagram = match left {
            Left::None => build(&segment, 0),
            Left::Right => build(&segment, right),
            Left::OuterPseudoOnly => build(&segment, checksum::fold(pseudo)),
            Left::InnerPseudoOnly => {
                put(&mut segment, tcp::CHECKSUM_OFFSET, checksum::fold(inner_pseudo));
                build(&segment, right)
            }
        };
        eth(outer_v6, &ip(outer_v6, udp::PROTOCOL, &datagram).0)
    }

    #[test]
    fn datagrams_are_found_whatever_their_sender_left_to_do() {
        for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            for left in [Left::None, Left::Right, Left::OuterPseudoOnly, Left::InnerPseudoOnly] {
                let bytes = frame(outer_v6, inner_v6, left);
                // Ethernet pads short frames.
                let padded = [&bytes[..], &[0; 9]].concat();
                let found = read(&padded).unwrap_or_else(|why| panic!("{outer_v6} {inner_v6} {left:?}: {why:?}"));
                let start = if outer_v6 { 62 } else { 42 };
                assert_eq!(found.payload, start..bytes.len());
                assert_eq!(found.outer.tos, 0xb8);
                assert_eq!(bytes[found.payload][..8], [8, 0, 0, 0, 0, 0, 42, 0]);
            }
        }
    }

    #[test]
    fn a_damaged_datagram_is_refused_wherever_the_damage_is() {
        for (outer_v6, left) in [(false, Left::Right), (true, Left::Right), (true, Left::InnerPseudoOnly)] {
            let whole = frame(outer_v6, false, left);
            let payload = whole.len() - INNER_TCP.len();
            // Where the inner checksum is unfinished, that one guards the payload, and nobody has it yet.
            let guarded = if left == Left::InnerPseudoOnly { payload } else { whole.len() };
            let ip_start = ethernet::HEADER_LEN;
            for at in ip_start..guarded {
                let hop_limit = outer_v6 && (at == ip_start + 7 || (ip_start..ip_start + 4).contains(&at));
                if hop_limit {
                    continue;
                }
                let mut damaged = whole.clone();
                damaged[at] ^= 0x10;
                assert!(read(&damaged).is_err(), "outer IPv6 {outer_v6}, {left:?}, byte {at}");
            }
        }
    }

    #[test]
    fn a_cut_datagram_is_refused_wherever_it_is_cut() {
        for outer_v6 in [false, true] {
            let whole = frame(outer_v6, false, Left::None);
            for len in 0..whole.len() {
                assert_eq!(read(&whole[..len]), Err(Unsound::Malformed), "{len} bytes");
            }
        }
    }
}
