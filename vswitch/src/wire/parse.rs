//! The one parse of a frame: every header once, front to back, to the first fault.
//!
//! What it checks is what later stages rely on: the offsets in [`Headers`] lie inside the frame, lengths agree with
//! each other, and what the device said about the frame is true of its bytes. It leaves out what only a receiver
//! may judge: L4 checksums, options, the order of IPv6 extension headers.

use super::{Fragment, Headers, L3, L4, arp, ethernet, icmp, ipv4, ipv6, tcp, udp, vlan};
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::limits::{IP_BYTES_MAX, VLAN_TAGS_MAX};
use crate::outcome::DropReason;

/// How far the length fields in an L4 header can be believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// A whole packet: they must fit.
    Packet,
    /// A first fragment: they speak of the packet it was cut from, and the header itself may be cut.
    FirstFragment,
    /// A super-frame: they may be 0 or stale.
    SuperFrame,
}

impl Extent {
    #[inline]
    fn of_packet(super_frame: bool) -> Self {
        if super_frame { Self::SuperFrame } else { Self::Packet }
    }

    /// Checks a fragment's place. None behind the first fragment, where no L4 header is.
    fn of_fragment(fragment: Fragment, payload_len: usize) -> Result<Option<Self>, DropReason> {
        let end = usize::from(fragment.offset) + payload_len;
        if end > IP_BYTES_MAX || (fragment.more && !payload_len.is_multiple_of(8)) {
            return Err(DropReason::FragmentMalformed);
        }
        Ok(match fragment {
            Fragment { offset: 0, more: true, .. } => Some(Self::FirstFragment),
            Fragment { offset: 0, more: false, .. } => Some(Self::Packet),
            _ => None,
        })
    }
}

/// Reads all headers of a frame that starts at its Ethernet header.
///
/// `offload` is checked against them, except for `Gso::header_len`, which is not trusted: take
/// [`Headers::header_len`] for it.
///
/// # Errors
/// The first fault, front to back, as the reason to drop the frame for.
#[inline]
pub fn parse(bytes: &[u8], offload: &Offload) -> Result<Headers, DropReason> {
    // Written in its final place: a copy of headers just filled costs as much as the parse.
    let mut result = Ok(Headers::default());
    if let Ok(headers) = &mut result
        && let Err(fault) = parse_into(bytes, offload, headers)
    {
        result = Err(fault);
    }
    result
}

/// As [`parse`], into headers that are there already, which saves the hot path a copy. After a fault they are of no
/// use: some are this frame's and some are not.
///
/// # Errors
/// As [`parse`].
#[inline]
pub fn parse_into(bytes: &[u8], offload: &Offload, headers: &mut Headers) -> Result<(), DropReason> {
    let view = ethernet::View::new(bytes).ok_or(DropReason::EthernetTruncated)?;
    headers.dst = view.dst();
    headers.src = view.src();
    headers.vlan = None;
    headers.ethertype = view.ethertype();
    headers.l3_offset = 14;
    if vlan::is_tag(headers.ethertype) {
        tags(bytes, headers)?;
    }
    headers.l4_offset = headers.l3_offset;
    headers.l4 = L4::None;
    let packet = bytes.get(usize::from(headers.l3_offset)..).unwrap_or_default();
    let super_frame = offload.gso.is_some();
    match headers.ethertype {
        ethernet::ETHERTYPE_IPV4 => packet_v4(packet, super_frame, headers)?,
        ethernet::ETHERTYPE_IPV6 => packet_v6(packet, super_frame, headers)?,
        ethernet::ETHERTYPE_ARP => {
            headers.l3 = L3::Arp(arp::read(packet).ok_or(DropReason::ArpMalformed)?);
            headers.l4_offset += 28;
        }
        _ => headers.l3 = L3::Other,
    }
    if offload.describes() && !described(headers, bytes.len()).is_some_and(|described| described.agrees(offload)) {
        return Err(DropReason::OffloadInvalid);
    }
    Ok(())
}

/// Walks the tags; the outermost is the one that is kept.
#[cold]
fn tags(bytes: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    for _ in 0..VLAN_TAGS_MAX {
        let rest = bytes.get(usize::from(headers.l3_offset)..).unwrap_or_default();
        let view = vlan::View::new(rest).ok_or(DropReason::EthernetTruncated)?;
        headers.vlan = headers.vlan.or(Some(view.tag()));
        headers.ethertype = view.ethertype();
        headers.l3_offset += 4;
        if !vlan::is_tag(headers.ethertype) {
            return Ok(());
        }
    }
    Err(DropReason::VlanTooDeep)
}

#[inline(always)]
fn packet_v4(packet: &[u8], super_frame: bool, headers: &mut Headers) -> Result<(), DropReason> {
    let view = ipv4::View::new(packet).ok_or(DropReason::Ipv4Malformed)?;
    if !view.checksum_is_right() {
        return Err(DropReason::Ipv4Checksum);
    }
    let total_len = match view.total_len() {
        0 if super_frame => packet.len(),
        total_len => usize::from(total_len),
    };
    let payload = packet.get(view.header_len()..total_len).ok_or(DropReason::Ipv4Malformed)?;
    headers.l4_offset += u16::try_from(view.header_len()).unwrap_or(u16::MAX);
    // Fragments, and extension headers below, are apart from the common way not for their own cost: a struct with a
    // field that is one or the other is put together on the stack and copied, the dearest thing in this file.
    match view.fragment() {
        None => {
            headers.l3 = L3::V4(view.header(None));
            transport_v4(view.protocol(), payload, Extent::of_packet(super_frame), &mut headers.l4)
        }
        Some(fragment) => fragment_v4(view, payload, fragment, headers),
    }
}

#[inline(never)]
fn fragment_v4(
    view: ipv4::View<'_>,
    payload: &[u8],
    fragment: Fragment,
    headers: &mut Headers,
) -> Result<(), DropReason> {
    headers.l3 = L3::V4(view.header(Some(fragment)));
    match Extent::of_fragment(fragment, payload.len())? {
        Some(extent) => transport_v4(view.protocol(), payload, extent, &mut headers.l4),
        None => Ok(()),
    }
}

#[inline(always)]
fn packet_v6(packet: &[u8], super_frame: bool, headers: &mut Headers) -> Result<(), DropReason> {
    let view = ipv6::View::new(packet).ok_or(DropReason::Ipv6Malformed)?;
    let next = view.next_header();
    let end = match view.payload_len() {
        0 if super_frame => packet.len(),
        // A jumbogram (RFC 2675), which no port carries, or a payload that is missing.
        0 if next != ipv6::NO_NEXT_HEADER => return Err(DropReason::Ipv6Malformed),
        payload_len => ipv6::HEADER_LEN + usize::from(payload_len),
    };
    let payload = packet.get(ipv6::HEADER_LEN..end).ok_or(DropReason::Ipv6Malformed)?;
    headers.l4_offset += 40;
    if ipv6::is_extension(next) {
        return extended_v6(view, payload, super_frame, headers);
    }
    headers.l3 = L3::V6(view.header(ipv6::Extensions::none(next)));
    transport_v6(next, payload, Extent::of_packet(super_frame), &mut headers.l4)
}

#[inline(never)]
fn extended_v6(
    view: ipv6::View<'_>,
    payload: &[u8],
    super_frame: bool,
    headers: &mut Headers,
) -> Result<(), DropReason> {
    let extensions = ipv6::Extensions::walk(view.next_header(), payload).ok_or(DropReason::Ipv6Extensions)?;
    headers.l3 = L3::V6(view.header(extensions));
    headers.l4_offset += extensions.len;
    let payload = payload.get(usize::from(extensions.len)..).unwrap_or_default();
    let extent = match extensions.fragment {
        None => Some(Extent::of_packet(super_frame)),
        Some(fragment) => Extent::of_fragment(fragment, payload.len())?,
    };
    match extent {
        Some(extent) => transport_v6(extensions.protocol, payload, extent, &mut headers.l4),
        None => Ok(()),
    }
}

#[inline(always)]
fn transport_v4(protocol: u8, payload: &[u8], extent: Extent, l4: &mut L4) -> Result<(), DropReason> {
    *l4 = match protocol {
        tcp::PROTOCOL => segment(payload, extent)?,
        udp::PROTOCOL => datagram(payload, extent)?,
        icmp::PROTOCOL_V4 => or_cut(icmp::read_v4(payload).map(L4::Icmp4), extent)?,
        _ => L4::None,
    };
    Ok(())
}

#[inline(always)]
fn transport_v6(protocol: u8, payload: &[u8], extent: Extent, l4: &mut L4) -> Result<(), DropReason> {
    *l4 = match protocol {
        tcp::PROTOCOL => segment(payload, extent)?,
        udp::PROTOCOL => datagram(payload, extent)?,
        icmp::PROTOCOL_V6 => or_cut(icmp::read_v6(payload).map(L4::Icmp6), extent)?,
        _ => L4::None,
    };
    Ok(())
}

/// A header that a first fragment does not hold in full is not read; elsewhere it is a fault.
#[inline(always)]
fn or_cut(l4: Option<L4>, extent: Extent) -> Result<L4, DropReason> {
    match l4 {
        Some(l4) => Ok(l4),
        None if extent == Extent::FirstFragment => Ok(L4::None),
        None => Err(DropReason::L4Malformed),
    }
}

#[inline(always)]
fn segment(payload: &[u8], extent: Extent) -> Result<L4, DropReason> {
    match tcp::View::new(payload) {
        Some(view) => Ok(L4::Tcp(view.header())),
        // A data offset below 5 is a fault wherever it stands.
        None if payload.get(12).is_some_and(|data_offset| data_offset >> 4 < 5) => Err(DropReason::L4Malformed),
        None => or_cut(None, extent),
    }
}

#[inline(always)]
fn datagram(payload: &[u8], extent: Extent) -> Result<L4, DropReason> {
    let Some(view) = udp::View::new(payload) else { return or_cut(None, extent) };
    let header = view.header();
    let len = usize::from(header.len);
    let fits = match extent {
        Extent::Packet => (udp::HEADER_LEN..=payload.len()).contains(&len),
        Extent::FirstFragment => udp::HEADER_LEN <= len,
        Extent::SuperFrame => true,
    };
    if fits { Ok(L4::Udp(header)) } else { Err(DropReason::L4Malformed) }
}

/// What a device may say of a frame with these headers; none when it may say nothing.
#[inline(never)]
fn described(headers: &Headers, frame_len: usize) -> Option<Described> {
    // A sender completes the checksum before it cuts a packet.
    if headers.src_ip().is_none() || headers.fragment().is_some() {
        return None;
    }
    let (kind, checksum_offset) = match headers.l4 {
        L4::Tcp(_) => (Some(GsoKind::tcp(headers.is_v6())), Some(tcp::CHECKSUM_OFFSET)),
        L4::Udp(_) => (Some(GsoKind::Udp), Some(udp::CHECKSUM_OFFSET)),
        L4::Icmp4(_) | L4::Icmp6(_) => (None, Some(icmp::CHECKSUM_OFFSET)),
        // Another protocol over IP; nothing to compare with.
        L4::None => (None, None),
    };
    Some(Described {
        kind,
        checksum_offset,
        l4_offset: usize::from(headers.l4_offset),
        header_len: headers.header_len(),
        packet_end: usize::from(headers.l3_offset) + headers.packet_len(frame_len),
        frame_len,
    })
}

/// A frame as its headers say it is, to be compared with what a device says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    /// The kind of super-frame it can be.
    pub(super) kind: Option<GsoKind>,
    /// Where the L4 checksum lies in its header, if that is known.
    pub(super) checksum_offset: Option<usize>,
    pub(super) l4_offset: usize,
    pub(super) header_len: usize,
    pub(super) packet_end: usize,
    pub(super) frame_len: usize,
}

impl Described {
    /// Whether what the device said is true of it.
    #[inline]
    pub(super) fn agrees(&self, offload: &Offload) -> bool {
        let partial = match offload.checksum {
            Checksum::Partial { start, offset } => {
                let (start, offset) = (usize::from(start), usize::from(offset));
                let expected = self.checksum_offset.unwrap_or(offset);
                if start != self.l4_offset || offset != expected || start + offset + 2 > self.packet_end {
                    return false;
                }
                true
            }
            _ => false,
        };
        let Some(Gso { kind, size, header_len: _ }) = offload.gso else { return true };
        // Behind a super-frame's packet there is no padding: the payload reaches to the frame's end.
        self.kind == Some(kind)
            && size > 0
            && self.packet_end == self.frame_len
            && self.header_len < self.frame_len
            && partial
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
