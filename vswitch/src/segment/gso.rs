//! Cuts super-frames into the packets they stand for, as the kernel's software GSO does.
//!
//! What all segments share is summed once; a segment costs one copy of the headers, one pass over its payload
//! for the checksum, and a few additions.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::arena::Arena;
use super::checksum::{never_zero, pseudo};
use super::{field, fragment, put_word, word};
use crate::frame::{Checksum, Frame, Gso, GsoKind};
use crate::outcome::DropReason;
use crate::wire::checksum::{finish, sum};
use crate::wire::{Headers, L3, L4};

const FIN: u16 = 0x01;
const PSH: u16 = 0x08;
const CWR: u16 = 0x80;

/// Header bytes of a segment that is fragmented: Ethernet with its tags, and the longest IPv4 and TCP headers.
const FRAGMENTED_HEADER_BYTES_MAX: usize = 160;

/// Ethernet, IP and L4 header bytes of a super-frame of this kind.
pub(super) fn header_len(headers: &Headers, kind: GsoKind) -> Result<usize, DropReason> {
    let l4_len = match (kind, headers.l3, headers.l4) {
        (GsoKind::Tcp4, L3::V4(_), L4::Tcp(tcp)) | (GsoKind::Tcp6, L3::V6(_), L4::Tcp(tcp)) => tcp.header_len.into(),
        (GsoKind::Udp, L3::V4(_) | L3::V6(_), L4::Udp(_)) => field::UDP_LEN,
        _ => return Err(DropReason::OffloadInvalid),
    };
    let ip_len_min = match headers.l3 {
        L3::V4(ip) if ip.fragment.is_none() => usize::from(ip.header_len).max(field::IPV4_LEN_MIN),
        L3::V6(ip) if ip.fragment.is_none() => field::IPV6_LEN,
        _ => return Err(DropReason::OffloadInvalid),
    };
    let l4_len_min = if kind == GsoKind::Udp { field::UDP_LEN } else { field::TCP_LEN_MIN };
    let l4 = usize::from(headers.l4_offset);
    if l4 < usize::from(headers.l3_offset) + ip_len_min || l4_len < l4_len_min {
        return Err(DropReason::OffloadInvalid);
    }
    Ok(l4 + l4_len)
}

/// Cuts a super-frame into segments, and those that are longer than `mtu` into fragments (IPv4 only, and the
/// caller knows that DF is clear).
pub(super) fn cut(frame: &Frame, headers: &Headers, gso: Gso, mtu: usize, arena: &mut Arena) -> Result<(), DropReason> {
    let bytes = frame.bytes();
    let template = Template::new(frame, headers, gso.kind)?;
    let size = usize::from(gso.size);
    if size == 0 {
        return Err(DropReason::OffloadInvalid);
    }
    let mut start = template.header.len();
    for index in 0.. {
        let end = bytes.len().min(start + size);
        let segment =
            Segment { index, sent: start - template.header.len(), payload: start..end, last: end == bytes.len() };
        let payload_sum = sum(&bytes[start..end]);
        if template.packet_len(&segment) <= mtu {
            let header = arena.add(template.header, &[], segment.payload.clone())?;
            template.finish(header, &segment, payload_sum)?;
        } else {
            template.cut_segment(&segment, payload_sum, mtu, arena)?;
        }
        if segment.last {
            break;
        }
        start = end;
    }
    Ok(())
}

/// One segment of a super-frame.
struct Segment {
    /// Number of the segment, from 0.
    index: u32,
    /// Payload bytes in front of it.
    sent: usize,
    /// Span of the frame.
    payload: Range<usize>,
    /// Whether it is the last.
    last: bool,
}

/// What all segments share.
struct Template<'a> {
    /// The super-frame's headers.
    header: &'a [u8],
    l3: usize,
    l4: usize,
    /// Identification of the first segment and the sum of the IPv4 header's constant words; none over IPv6.
    ipv4: Option<(u16, u32)>,
    /// Sequence number of the first segment, and the word of the flags; none over UDP.
    tcp: Option<(u32, u16)>,
    /// Sum of the pseudo-header without its length and of the L4 header's constant words.
    l4_sum: u32,
}

impl<'a> Template<'a> {
    fn new(frame: &'a Frame, headers: &Headers, kind: GsoKind) -> Result<Self, DropReason> {
        let bytes = frame.bytes();
        let header = bytes.get(..header_len(headers, kind)?).ok_or(DropReason::OffloadInvalid)?;
        let (l3, l4) = (usize::from(headers.l3_offset), usize::from(headers.l4_offset));
        let (ip_header, l4_header) = (&header[l3..l4], &header[l4..]);

        let ipv4 = matches!(headers.l3, L3::V4(_)).then(|| {
            let differing = [field::IPV4_TOTAL_LEN, field::IPV4_ID, field::IPV4_CHECKSUM];
            (word(ip_header, field::IPV4_ID), sum_without(ip_header, &differing))
        });
        let (tcp, constant, check_at) = if kind == GsoKind::Udp {
            let differing = [field::UDP_LENGTH, field::UDP_CHECKSUM];
            (None, sum_without(l4_header, &differing), field::UDP_CHECKSUM)
        } else {
            let at = field::TCP_SEQUENCE;
            let sequence = u32::from(word(l4_header, at)) << 16 | u32::from(word(l4_header, at + 2));
            let flags = word(l4_header, field::TCP_OFFSET_AND_FLAGS);
            let differing = [at, at + 2, field::TCP_OFFSET_AND_FLAGS, field::TCP_CHECKSUM];
            (Some((sequence, flags)), sum_without(l4_header, &differing), field::TCP_CHECKSUM)
        };
        let pseudo = match frame.offload.checksum {
            // The field has the pseudo-header with the super-frame's length. The kernel starts from it and so do
            // we: under an IPv6 routing header the addresses in front are not the pseudo-header's.
            Checksum::Partial { start, offset } => {
                if usize::from(start) != l4 || usize::from(offset) != check_at {
                    return Err(DropReason::OffloadInvalid);
                }
                let len = match tcp {
                    Some(_) => narrow(bytes.len() - l4)?,
                    None => word(l4_header, field::UDP_LENGTH),
                };
                u32::from(word(l4_header, check_at)) + u32::from(!len)
            }
            Checksum::Good | Checksum::Unknown => pseudo(headers, 0),
        };
        Ok(Self { header, l3, l4, ipv4, tcp, l4_sum: pseudo + constant })
    }

    /// Length of a segment's L3 packet in bytes.
    fn packet_len(&self, segment: &Segment) -> usize {
        self.header.len() - self.l3 + segment.payload.len()
    }

    /// Makes a copy of the super-frame's headers those of one segment.
    fn finish(&self, header: &mut [u8], segment: &Segment, payload_sum: u32) -> Result<(), DropReason> {
        let packet_len = self.packet_len(segment);
        match self.ipv4 {
            Some((first_id, constant)) => {
                let total_len = narrow(packet_len)?;
                // Also with DF: a virtio_net_hdr can not say that the identification is to stay.
                let [.., high, low] = u32::from(first_id).wrapping_add(segment.index).to_be_bytes();
                let id = u16::from_be_bytes([high, low]);
                put_word(header, self.l3 + field::IPV4_TOTAL_LEN, total_len);
                put_word(header, self.l3 + field::IPV4_ID, id);
                let check = finish(constant + u32::from(total_len) + u32::from(id));
                put_word(header, self.l3 + field::IPV4_CHECKSUM, check);
            }
            None => put_word(header, self.l3 + field::IPV6_PAYLOAD_LEN, narrow(packet_len - field::IPV6_LEN)?),
        }
        let l4_len = narrow(self.header.len() - self.l4 + segment.payload.len())?;
        let l4_sum = self.l4_sum + u32::from(l4_len) + payload_sum;
        let header = &mut header[self.l4..];
        match self.tcp {
            Some(first) => finish_tcp(header, first, segment, l4_sum),
            None => {
                put_word(header, field::UDP_LENGTH, l4_len);
                // The length counts twice: in the pseudo-header and in the header.
                put_word(header, field::UDP_CHECKSUM, never_zero(finish(l4_sum + u32::from(l4_len))));
                Ok(())
            }
        }
    }

    /// Adds one segment as fragments.
    fn cut_segment(
        &self,
        segment: &Segment,
        payload_sum: u32,
        mtu: usize,
        arena: &mut Arena,
    ) -> Result<(), DropReason> {
        let mut header = ArrayVec::<u8, FRAGMENTED_HEADER_BYTES_MAX>::new();
        header.try_extend_from_slice(self.header).map_err(|_| DropReason::Uncuttable)?;
        self.finish(&mut header, segment, payload_sum)?;
        let (head, l4) = header.split_at(self.l4);
        fragment::cut(&fragment::Packet { head, l3: self.l3, l4, payload: segment.payload.clone() }, mtu, arena)
    }
}

/// FIN and PSH belong to the last segment, CWR to the first (RFC 3168, 6.1.2).
fn finish_tcp(
    header: &mut [u8],
    (first_sequence, first_flags): (u32, u16),
    segment: &Segment,
    l4_sum: u32,
) -> Result<(), DropReason> {
    let sent = u32::try_from(segment.sent).map_err(|_| DropReason::Uncuttable)?;
    let sequence = first_sequence.wrapping_add(sent);
    let mut flags = first_flags;
    if !segment.last {
        flags &= !(FIN | PSH);
    }
    if segment.index > 0 {
        flags &= !CWR;
    }
    header[field::TCP_SEQUENCE..field::TCP_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
    put_word(header, field::TCP_OFFSET_AND_FLAGS, flags);
    let check = finish(l4_sum + (sequence >> 16) + (sequence & 0xffff) + u32::from(flags));
    put_word(header, field::TCP_CHECKSUM, check);
    Ok(())
}

/// Sum of a header without the words that lie at these offsets.
fn sum_without(header: &[u8], differing: &[usize]) -> u32 {
    sum(header) + differing.iter().map(|&at| u32::from(!word(header, at))).sum::<u32>()
}

fn narrow(len: usize) -> Result<u16, DropReason> {
    u16::try_from(len).map_err(|_| DropReason::Uncuttable)
}
