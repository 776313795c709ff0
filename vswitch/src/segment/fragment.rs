//! Cuts IPv4 packets into fragments (RFC 791, section 3.2), as the kernel's `ip_do_fragment` does.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::arena::Arena;
use super::{field, put_word, word};
use crate::outcome::DropReason;
use crate::wire::checksum::{finish, sum};
use crate::wire::{Headers, L3};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
/// The bit of an option's type that says "in every fragment".
const OPTION_COPIED: u8 = 0x80;

/// Bytes that Ethernet with its tags and the longest IPv4 header may have.
const HEAD_BYTES_MAX: usize = 96;

/// An IPv4 packet to cut, of which some L4 bytes may lie apart from the rest of its payload.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// From the frame's first byte to the end of the IPv4 options.
    pub(super) head: &'a [u8],
    /// Where the IPv4 header starts in it.
    pub(super) l3: usize,
    /// First bytes of the IP payload: an L4 header written anew, or nothing.
    pub(super) l4: &'a [u8],
    /// The other bytes of the IP payload, as a span of the frame.
    pub(super) payload: Range<usize>,
}

/// Cuts the packet that a frame holds up to `end`; it may itself be a fragment.
pub(super) fn cut_packet(
    bytes: &[u8],
    headers: &Headers,
    end: usize,
    mtu: usize,
    arena: &mut Arena,
) -> Result<(), DropReason> {
    let L3::V4(ip) = headers.l3 else { return Err(DropReason::Uncuttable) };
    let l3 = usize::from(headers.l3_offset);
    let payload = l3 + usize::from(ip.header_len);
    if usize::from(ip.header_len) < field::IPV4_LEN_MIN || payload > end || end > bytes.len() {
        return Err(DropReason::Ipv4Malformed);
    }
    cut(&Packet { head: &bytes[..payload], l3, l4: &[], payload: payload..end }, mtu, arena)
}

/// Cuts a packet whose headers are known to be inside their slices.
pub(super) fn cut(packet: &Packet<'_>, mtu: usize, arena: &mut Arena) -> Result<(), DropReason> {
    let &Packet { head, l3, l4, ref payload } = packet;
    let ip_len = head.len() - l3;
    let room = mtu.saturating_sub(ip_len);
    if room < 8 {
        return Err(DropReason::Uncuttable);
    }
    let fragment = word(head, l3 + field::IPV4_FRAGMENT);
    let (offset, more_follow) = (usize::from(fragment & OFFSET_MASK) * 8, fragment & MORE_FRAGMENTS != 0);
    let all = l4.len() + payload.len();
    if (more_follow && !all.is_multiple_of(8)) || ip_len + offset + all > usize::from(u16::MAX) {
        return Err(DropReason::FragmentMalformed);
    }

    let mut later = ArrayVec::<u8, HEAD_BYTES_MAX>::new();
    later.try_extend_from_slice(head).map_err(|_| DropReason::Uncuttable)?;
    if offset == 0 {
        blank_uncopied_options(&mut later[l3 + field::IPV4_LEN_MIN..]);
    }
    let (first_sum, later_sum) = (constant_sum(&head[l3..]), constant_sum(&later[l3..]));

    let mut at = 0;
    while at < all {
        let left = all - at;
        let len = if left <= room { left } else { room & !7 };
        let (head, head_sum) = if at == 0 { (head, first_sum) } else { (&later[..], later_sum) };
        let l4_part = &l4[at.min(l4.len())..(at + len).min(l4.len())];
        let start = payload.start + at.saturating_sub(l4.len());
        let end = payload.start + (at + len).saturating_sub(l4.len());

        let more = if more_follow || len < left { MORE_FRAGMENTS } else { 0 };
        let fragment = narrow((offset + at) / 8)? | more;
        let total_len = narrow(ip_len + len)?;
        let header = arena.add(head, l4_part, start..end)?;
        put_word(header, l3 + field::IPV4_TOTAL_LEN, total_len);
        put_word(header, l3 + field::IPV4_FRAGMENT, fragment);
        let check = finish(head_sum + u32::from(total_len) + u32::from(fragment));
        put_word(header, l3 + field::IPV4_CHECKSUM, check);
        at += len;
    }
    Ok(())
}

/// Sum of an IPv4 header without the words that differ between fragments.
fn constant_sum(header: &[u8]) -> u32 {
    let differing = [field::IPV4_TOTAL_LEN, field::IPV4_FRAGMENT, field::IPV4_CHECKSUM];
    sum(header) + differing.iter().map(|&at| u32::from(!word(header, at))).sum::<u32>()
}

/// Overwrites the options that only the first fragment carries. The header keeps its length, as the kernel's
/// `ip_options_fragment` has it.
fn blank_uncopied_options(mut options: &mut [u8]) {
    while let [kind, tail @ ..] = options {
        let len = match (*kind, &*tail) {
            (OPTION_END, _) => return,
            (OPTION_NO_OPERATION, _) => 1,
            (_, [len, ..]) => usize::from(*len),
            (_, []) => return,
        };
        let uncopied = *kind & OPTION_COPIED == 0;
        if len == 0 || (len < 2 && *kind != OPTION_NO_OPERATION) || len > options.len() {
            return;
        }
        let (option, rest) = options.split_at_mut(len);
        if uncopied {
            option.fill(OPTION_NO_OPERATION);
        }
        options = rest;
    }
}

fn narrow(value: usize) -> Result<u16, DropReason> {
    u16::try_from(value).map_err(|_| DropReason::FragmentMalformed)
}
