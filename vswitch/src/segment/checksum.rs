//! Completes the L4 checksum of one packet, and verifies it. Cutting (`gso`) computes its own.

use super::{field, packet_end, put_word, word};
use crate::frame::{Checksum, Frame};
use crate::outcome::DropReason;
use crate::wire::checksum::{finish, fold, pseudo_v4, pseudo_v6, sum};
use crate::wire::{Headers, L3, L4};

/// Completes a `Partial` checksum in place, over the L3 packet without Ethernet padding; the frame is `Good`
/// after it. Any other frame is left alone. Not for super-frames: those are cut, or carried as they are.
///
/// As in the kernel (`skb_checksum_help`), a computed 0 is written as 0xffff whatever the protocol: the two
/// are equal to a receiver, and for UDP 0 would mean that there is no checksum.
///
/// # Errors
/// [`DropReason::OffloadInvalid`] when the field lies outside the packet.
pub fn complete(frame: &mut Frame, headers: &Headers) -> Result<(), DropReason> {
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return Ok(()) };
    let end = packet_end(frame.len(), headers);
    let start = usize::from(start);
    let at = start + usize::from(offset);
    if at + 2 > end {
        return Err(DropReason::OffloadInvalid);
    }
    let bytes = frame.bytes_mut();
    let check = finish(sum(&bytes[start..end]));
    put_word(bytes, at, never_zero(check));
    frame.offload.checksum = Checksum::Good;
    Ok(())
}

/// Whether the L4 checksum of a whole packet is right; for UDP over IPv4 also when there is none (RFC 768).
///
/// False as well where it can not be known: fragments, protocols that are not read, UDP over IPv6 without a
/// checksum (RFC 8200, 8.1, leaves those to the receiver), and packets under an IPv6 routing header, whose
/// pseudo-header has another destination.
#[must_use]
pub fn verify_l4(bytes: &[u8], headers: &Headers) -> bool {
    let start = usize::from(headers.l4_offset);
    let Some(l4) = bytes.get(start..packet_end(bytes.len(), headers)) else { return false };
    let (is_fragment, over_v4) = match headers.l3 {
        L3::V4(ip) => (ip.fragment.is_some(), true),
        L3::V6(ip) => (ip.fragment.is_some(), false),
        L3::Arp(_) | L3::Other => return false,
    };
    if is_fragment {
        return false;
    }
    let covered = match headers.l4 {
        L4::Tcp(_) if l4.len() >= field::TCP_LEN_MIN => l4,
        L4::Udp(_) if l4.len() >= field::UDP_LEN => {
            if word(l4, field::UDP_CHECKSUM) == 0 {
                return over_v4;
            }
            match l4.get(..usize::from(word(l4, field::UDP_LENGTH))) {
                Some(datagram) if datagram.len() >= field::UDP_LEN => datagram,
                _ => return false,
            }
        }
        L4::Icmp4(_) => return over_v4 && fold(sum(l4)) == 0xffff,
        L4::Icmp6(_) if !over_v4 => l4,
        _ => return false,
    };
    let Ok(len) = u32::try_from(covered.len()) else { return false };
    fold(pseudo(headers, len) + sum(covered)) == 0xffff
}

/// The pseudo-header sum of an IP packet with `l4_len` bytes behind its IP headers; 0 for what is not IP.
pub(super) fn pseudo(headers: &Headers, l4_len: u32) -> u32 {
    match headers.l3 {
        L3::V4(ip) => pseudo_v4(ip.src, ip.dst, ip.protocol, l4_len),
        L3::V6(ip) => pseudo_v6(ip.src, ip.dst, ip.protocol, l4_len),
        L3::Arp(_) | L3::Other => 0,
    }
}

/// A checksum that says it is one: 0 is written as its equal.
pub(super) fn never_zero(check: u16) -> u16 {
    if check == 0 { 0xffff } else { check }
}
