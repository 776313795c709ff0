//! Out of the tunnel: the VXLAN header (RFC 7348), ECN (RFC 6040), and the checksum state of what comes from a wire.
//!
//! The frame starts at the VXLAN header here; the outer headers are the uplink port's affair.

use crate::frame::{Checksum, Gso, GsoKind, Item, Outer};
use crate::id::BridgeId;
use crate::outcome::DropReason;
use crate::snapshot::{POD_SEGMENT, Role, VtepEntry};
use crate::stats::{Event, PacketCount};
use crate::wire::{L3, L4, checksum, ethernet, ipv4, ipv6, tcp, udp, vxlan};

use super::{Door, Origin, Pass, Probe, Stage, largest_packet};

const ECN_MASK: u8 = 0b11;
const ECN_NOT_CAPABLE: u8 = 0b00;
const ECN_CAPABLE_1: u8 = 0b01;
const ECN_CAPABLE_0: u8 = 0b10;
const ECN_CONGESTED: u8 = 0b11;

impl<P: Probe> Pass<'_, P> {
    /// Takes a datagram that an uplink received out of its tunnel, and finds the stage the frame in it enters by.
    pub(crate) fn decap(&mut self, item: &mut Item) -> Result<(BridgeId, Door), DropReason> {
        let snapshot = self.snapshot;
        let Some(outer) = item.frame.outer else {
            return Err(DropReason::VxlanTruncated);
        };
        let bytes = item.frame.bytes();
        let Some(header) = vxlan::View::new(bytes).filter(|_| bytes.len() >= vxlan::HEADER_LEN + ethernet::HEADER_LEN)
        else {
            return Err(DropReason::VxlanTruncated);
        };
        let Some(vni) = header.vni() else {
            return Err(DropReason::VxlanFlags);
        };
        let table = &snapshot.vteps;
        let Some(vtep) = table.by_remote.get(&outer.remote).and_then(|&id| table.get(id)) else {
            return Err(DropReason::VxlanUnknownVtep);
        };
        // From here on the frame is counted as the tunnel's: a tunnel is a port.
        item.frame.ingress = vtep.port;
        item.frame.pull(vxlan::HEADER_LEN);
        if P::LIVE {
            let bytes = item.frame.len() as u64;
            let segments = item.frame.segments() as u64;
            self.state.stats().tunnelled(vtep.port, PacketCount { frames: 1, segments, bytes });
        }
        self.probe.note(Stage::Decap, || format!("from vtep {} ({}), vni {vni}", vtep.name, outer.remote));
        // What an uplink knows of a super-frame holds for one whose checksum was left open; that is seen below. One that
        // it has put together itself says so.
        let joined = item.frame.offload.checksum != Checksum::Unknown;
        let hint = if joined { None } else { item.frame.offload.gso.take() };
        item.read_headers()?;
        if !item.headers.src.is_station() {
            return Err(DropReason::SourceMacInvalid);
        }
        if !combine_ecn(item, outer) {
            return Err(DropReason::EcnIllegal);
        }
        if joined {
            self.judge_joined(item, vtep, outer);
        } else {
            self.judge_checksum(item, vtep, outer, hint);
        }

        if let Some(&bridge) = table.bridge_by_vni.get(&vni) {
            return Ok((bridge, Door::TunnelledBridge));
        }
        if !table.routed_vnis.contains(&vni) {
            return Err(DropReason::VxlanUnknownVni);
        }
        if item.headers.dst != snapshot.node.vtep_mac {
            return Err(DropReason::VxlanNotForUs);
        }
        // What is routed leaves on the pod segment, where no tag may pass (RFC 7348, 6.1, says the same of any tunnel).
        if item.headers.vlan.is_some() {
            return Err(DropReason::VlanNotAllowed);
        }
        Ok((POD_SEGMENT, Door::Router))
    }

    /// A kernel peer's tunnel may deliver inner TCP and UDP whose checksum was left to a device that never came:
    /// the field then holds the bare pseudo-header sum, and the packet may be a super-frame without a mark.
    fn judge_checksum(&mut self, item: &mut Item, vtep: &VtepEntry, outer: Outer, hint: Option<Gso>) {
        let Some((pseudo, field_at)) = pseudo_and_field(item) else { return };
        let l4_offset = item.headers.l4_offset;
        let at = usize::from(l4_offset) + field_at;
        let Some(field) = item.frame.bytes().get(at..at + 2) else { return };
        if u16::from_be_bytes([field[0], field[1]]) != checksum::fold(pseudo) {
            return;
        }
        self.count(Event::PartialFromWire);
        let offset = u16::try_from(field_at).unwrap_or(u16::MAX);
        item.frame.offload.checksum = Checksum::Partial { start: l4_offset, offset };

        let mtu = vtep.mtu(&self.snapshot.node, outer.remote);
        let too_long = item.frame.len() - usize::from(item.headers.l3_offset) > usize::from(mtu);
        let gso = match (hint, item.headers.l4) {
            (Some(hint), L4::Udp(_)) => Some(Gso { header_len: header_len(item), ..hint }),
            (None, L4::Tcp(_)) if too_long => tcp_super_frame(item, mtu),
            _ => None,
        };
        if gso.is_some() {
            self.count(Event::OversizeFromWire);
            item.frame.offload.gso = gso;
        }
    }

    /// A super-frame of segments that the uplink has verified and joined. Segments longer than the tunnel's MTU are a
    /// kernel peer's super-frames, as below, and several of those joined are cut anew as one is.
    fn judge_joined(&mut self, item: &mut Item, vtep: &VtepEntry, outer: Outer) {
        if P::LIVE {
            self.state.stats().count(Event::Coalesced, item.frame.segments() as u64);
        }
        let mtu = vtep.mtu(&self.snapshot.node, outer.remote);
        if largest_packet(item) > usize::from(mtu)
            && let Some(gso) = tcp_super_frame(item, mtu)
        {
            self.count(Event::OversizeFromWire);
            item.frame.offload.gso = Some(gso);
        }
    }

    /// Counts an event of a frame that is real.
    pub(crate) fn count(&mut self, event: Event) {
        if P::LIVE {
            self.state.stats().count(event, 1);
        }
    }
}

/// Makes TCP from the wire whose checksum was left open fit an egress, by cutting it anew. Where its segments end is our
/// own guess, since nothing marks such a super-frame, and what passes for a packet may be several that are short. To
/// tell the sender that it is too big would be to make up a packet and complain about it; the receiver does not mind
/// where a byte stream is cut. (UDP super-frames are marked, and their sizes are the sender's.)
pub(super) fn fit_guess(item: &mut Item, origin: Origin, mtu: u16) {
    let unfinished = matches!(item.frame.offload.checksum, Checksum::Partial { .. });
    if !matches!(origin.role, Role::Tunnel(_)) || !unfinished || largest_packet(item) <= usize::from(mtu) {
        return;
    }
    if let Some(gso) = tcp_super_frame(item, mtu) {
        item.frame.offload.gso = Some(gso);
    }
}

/// How a TCP packet is cut into packets of at most `mtu` bytes; none when it is no TCP, or its headers do not fit.
fn tcp_super_frame(item: &Item, mtu: u16) -> Option<Gso> {
    let L4::Tcp(_) = item.headers.l4 else { return None };
    let kind = GsoKind::tcp(item.headers.is_v6());
    let header_len = header_len(item);
    let size = item.headers.l3_offset.saturating_add(mtu).saturating_sub(header_len);
    (size > 0 && item.frame.len() > usize::from(header_len)).then_some(Gso { kind, size, header_len })
}

fn header_len(item: &Item) -> u16 {
    u16::try_from(item.headers.header_len()).unwrap_or(u16::MAX)
}

/// The pseudo-header sum of a whole TCP or UDP packet, and where its checksum field lies behind the L4 offset.
fn pseudo_and_field(item: &Item) -> Option<(u32, usize)> {
    let headers = &item.headers;
    let (protocol, field_at) = match headers.l4 {
        L4::Tcp(_) => (tcp::PROTOCOL, tcp::CHECKSUM_OFFSET),
        L4::Udp(_) => (udp::PROTOCOL, udp::CHECKSUM_OFFSET),
        _ => return None,
    };
    let end = usize::from(headers.l3_offset) + headers.packet_len(item.frame.len());
    let l4_len = u32::try_from(end.checked_sub(usize::from(headers.l4_offset))?).ok()?;
    let pseudo = match headers.l3 {
        L3::V4(ip) if ip.fragment.is_none() => checksum::pseudo_v4(ip.src, ip.dst, protocol, l4_len),
        L3::V6(ip) if ip.fragment.is_none() => checksum::pseudo_v6(ip.src, ip.dst, protocol, l4_len),
        _ => return None,
    };
    Some((pseudo, field_at))
}

/// Combines the outer ECN field into the inner one (RFC 6040, figure 4). False for the illegal pair.
fn combine_ecn(item: &mut Item, outer: Outer) -> bool {
    let inner = match item.headers.l3 {
        L3::V4(ip) => ip.tos & ECN_MASK,
        L3::V6(ip) => ip.traffic_class & ECN_MASK,
        _ => return true,
    };
    let combined = match (inner, outer.tos & ECN_MASK) {
        (ECN_NOT_CAPABLE, ECN_CONGESTED) => return false,
        (ECN_CAPABLE_0 | ECN_CAPABLE_1, ECN_CONGESTED) => ECN_CONGESTED,
        (ECN_CAPABLE_0, ECN_CAPABLE_1) => ECN_CAPABLE_1,
        _ => return true,
    };
    let l3_offset = usize::from(item.headers.l3_offset);
    let l3_bytes = item.frame.bytes_mut().get_mut(l3_offset..).unwrap_or_default();
    match &mut item.headers.l3 {
        L3::V4(ip) => {
            ipv4::set_ecn(l3_bytes, combined);
            ip.tos = ip.tos & !ECN_MASK | combined;
        }
        L3::V6(ip) => {
            ipv6::set_ecn(l3_bytes, combined);
            ip.traffic_class = ip.traffic_class & !ECN_MASK | combined;
        }
        _ => {}
    }
    true
}
