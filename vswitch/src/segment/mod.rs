//! Makes a frame fit the port it leaves through: completes checksums, cuts super-frames into segments and
//! long IPv4 packets into fragments. And the other way round: joins segments that were received one by one.
//!
//! Pure code over bytes: no I/O, no allocation after [`Arena::new`], no panic on any input. Only headers are
//! written anew; payload stays where it is, as spans of the frame. Segmentation follows the kernel's
//! (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`, `ipv6_gso_segment`) and fragmentation its
//! `ip_do_fragment`, bit for bit. Telling a sender that its packet is too big is the pipeline's; IPv6 is never
//! fragmented here, because no router may (RFC 8200, section 4.5).

mod arena;
mod checksum;
mod coalesce;
mod fragment;
mod gso;
#[cfg(test)]
mod tests;

pub use arena::Arena;
pub use checksum::{complete, verify_l4};
pub use coalesce::{Join, Run, Segment};

use crate::frame::{Checksum, Frame, Gso, GsoKind, Offload};
use crate::outcome::DropReason;
use crate::port::PortCaps;
use crate::wire::{Headers, L3, ethernet};

/// How a frame is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prepared {
    /// As it is: its bytes and its offload.
    Whole,
    /// As the packets of [`Arena::pieces`].
    Cut,
}

/// Where fields lie in their headers, in bytes (RFC 791, 8200, 9293 and 768).
mod field {
    pub(super) const IPV4_TOTAL_LEN: usize = 2;
    pub(super) const IPV4_ID: usize = 4;
    pub(super) const IPV4_FRAGMENT: usize = 6;
    pub(super) const IPV4_CHECKSUM: usize = 10;
    pub(super) const IPV4_LEN_MIN: usize = 20;
    pub(super) const IPV6_PAYLOAD_LEN: usize = 4;
    pub(super) const IPV6_LEN: usize = 40;
    pub(super) const TCP_SEQUENCE: usize = 4;
    pub(super) const TCP_OFFSET_AND_FLAGS: usize = 12;
    pub(super) const TCP_CHECKSUM: usize = 16;
    pub(super) const TCP_LEN_MIN: usize = 20;
    pub(super) const UDP_LENGTH: usize = 4;
    pub(super) const UDP_CHECKSUM: usize = 6;
    pub(super) const UDP_LEN: usize = 8;
}

/// Whether a frame fits an egress that has `caps` and carries L3 packets of at most `mtu` bytes, as it is. Told by the frame's
/// length alone: one with tags or padding may fit where this says no, and [`prepare`] then finds that.
#[inline]
#[must_use]
pub fn is_fit(frame: &Frame, caps: PortCaps, mtu: u16) -> bool {
    let Offload { checksum, gso } = frame.offload;
    let (longest, taken) = match gso {
        None => (frame.len(), true),
        Some(gso) => (usize::from(gso.header_len) + usize::from(gso.size), takes(caps, gso.kind)),
    };
    let fits = mtu == u16::MAX || longest <= ethernet::HEADER_LEN + usize::from(mtu);
    fits && taken && (caps.checksum || !matches!(checksum, Checksum::Partial { .. }))
}

#[inline]
fn takes(caps: PortCaps, kind: GsoKind) -> bool {
    match kind {
        GsoKind::Tcp4 => caps.tcp4,
        GsoKind::Tcp6 => caps.tcp6,
        GsoKind::Udp => caps.udp,
    }
}

/// Makes `frame` fit an egress that has `caps` and carries L3 packets of at most `mtu` bytes;
/// `u16::MAX` is no limit. `headers` are those of the frame's bytes as they are now.
///
/// # Errors
/// [`DropReason::Uncuttable`] for a packet that is too long and may not be fragmented, or would need more
/// pieces than the arena holds; [`DropReason::L2TooBig`] for a frame that is too long and not IP;
/// [`DropReason::OffloadInvalid`] or [`DropReason::FragmentMalformed`] where the frame contradicts itself.
#[inline]
pub fn prepare(
    frame: &mut Frame,
    headers: &Headers,
    caps: PortCaps,
    mtu: u16,
    arena: &mut Arena,
) -> Result<Prepared, DropReason> {
    arena.clear();
    let mtu = if mtu == u16::MAX { usize::MAX } else { usize::from(mtu) };
    let prepared = match frame.offload.gso {
        None => prepare_packet(frame, headers, caps, mtu, arena),
        Some(gso) => prepare_super_frame(frame, headers, gso, caps, mtu, arena),
    };
    if prepared.is_err() {
        arena.clear();
    }
    prepared
}

#[inline]
fn prepare_packet(
    frame: &mut Frame,
    headers: &Headers,
    caps: PortCaps,
    mtu: usize,
    arena: &mut Arena,
) -> Result<Prepared, DropReason> {
    let l3 = usize::from(headers.l3_offset);
    let end = packet_end(frame.len(), headers);
    let fits = end.saturating_sub(l3) <= mtu;
    let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    if !fits {
        may_fragment(headers)?;
    }
    if partial && !(fits && caps.checksum) {
        complete(frame, headers)?;
    }
    if fits {
        if frame.len().saturating_sub(l3) > mtu {
            frame.set_len(end); // What follows the packet is padding, and too much of it.
        }
        return Ok(Prepared::Whole);
    }
    fragment::cut_packet(frame.bytes(), headers, end, mtu, arena)?;
    Ok(Prepared::Cut)
}

fn prepare_super_frame(
    frame: &Frame,
    headers: &Headers,
    gso: Gso,
    caps: PortCaps,
    mtu: usize,
    arena: &mut Arena,
) -> Result<Prepared, DropReason> {
    let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    let header_len = gso::header_len(headers, gso.kind)?;
    let payload_len = frame.len().saturating_sub(header_len);
    let packet_len = header_len - usize::from(headers.l3_offset) + payload_len.min(usize::from(gso.size));
    if packet_len <= mtu {
        if takes(caps, gso.kind) && (caps.checksum || !partial) {
            return Ok(Prepared::Whole);
        }
    } else {
        may_fragment(headers)?;
    }
    gso::cut(frame, headers, gso, mtu, arena)?;
    Ok(Prepared::Cut)
}

/// Whether a packet that is too long may be sent in fragments, and if not, what becomes of it.
fn may_fragment(headers: &Headers) -> Result<(), DropReason> {
    match headers.l3 {
        L3::V4(ip) if !ip.dont_fragment => Ok(()),
        L3::V4(_) | L3::V6(_) => Err(DropReason::Uncuttable),
        L3::Arp(_) | L3::Other => Err(DropReason::L2TooBig),
    }
}

/// Where the L3 packet of a frame of `frame_len` bytes ends: at the frame's end, or in front of Ethernet
/// padding. Not for super-frames, whose length fields may be stale.
fn packet_end(frame_len: usize, headers: &Headers) -> usize {
    let packet_len = match headers.l3 {
        L3::V4(ip) => usize::from(ip.total_len),
        L3::V6(ip) => field::IPV6_LEN + usize::from(ip.payload_len),
        L3::Arp(_) | L3::Other => return frame_len,
    };
    frame_len.min(usize::from(headers.l3_offset) + packet_len)
}

/// The big-endian word at `at`, which the caller knows to be inside.
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes the big-endian word at `at`, which the caller knows to be inside.
fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
