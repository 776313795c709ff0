//! ICMP errors (RFC 792, RFC 1812 4.3.2, RFC 4443): built in the offender's place, quoting it, rate-limited, and sent
//! back the way that leads to its source.
//!
//! The original is counted as dropped for its own reason; the answer is counted as `originated` when it was sent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

use super::encap::{Inner, encap};
use super::{Decision, Origin, Pass, Probe, Stage, to_port};
use crate::frame::{Delivery, Egress, Frame, Item, Offload};
use crate::outcome::{DropReason, Verdict};
use crate::snapshot::{NextHop, Role};
use crate::wire::icmp::{self, v4, v6};
use crate::wire::{IcmpHeader, L3, L4, ethernet, ipv4, ipv6};

/// Longest IPv4 error, IP header included (RFC 1812, 4.3.2.3).
const V4_ERROR_BYTES_MAX: usize = 576;
/// Longest IPv6 error, IP header included (RFC 4443, 2.4 (c)).
const V6_ERROR_BYTES_MAX: usize = 1_280;

/// What is out of reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// The network: no route.
    Net,
    /// The host: its network is here, it is not.
    Host,
}

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    Unreachable(Reach),
    TimeExceeded,
    TooBig { mtu: u16 },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(Reach::Net) => f.write_str("no route to the destination"),
            Self::Unreachable(Reach::Host) => f.write_str("the destination is unreachable"),
            Self::TimeExceeded => f.write_str("time exceeded"),
            Self::TooBig { mtu } => write!(f, "too big, the MTU is {mtu}"),
        }
    }
}

/// Type and code, and the four bytes behind the checksum.
type Message = (IcmpHeader, [u8; 4]);

impl Problem {
    fn v4(self) -> Message {
        let unreachable = |code| IcmpHeader { kind: v4::UNREACHABLE, code };
        match self {
            Self::Unreachable(Reach::Net) => (unreachable(v4::CODE_NET), [0; 4]),
            Self::Unreachable(Reach::Host) => (unreachable(v4::CODE_HOST), [0; 4]),
            Self::TimeExceeded => (IcmpHeader { kind: v4::TIME_EXCEEDED, code: 0 }, [0; 4]),
            // RFC 1191, section 4: the MTU in the low 16 bits.
            Self::TooBig { mtu } => (unreachable(v4::CODE_FRAGMENTATION_NEEDED), u32::from(mtu).to_be_bytes()),
        }
    }

    fn v6(self) -> Message {
        let unreachable = |code| IcmpHeader { kind: v6::UNREACHABLE, code };
        match self {
            Self::Unreachable(Reach::Net) => (unreachable(v6::CODE_NO_ROUTE), [0; 4]),
            Self::Unreachable(Reach::Host) => (unreachable(v6::CODE_ADDRESS), [0; 4]),
            Self::TimeExceeded => (IcmpHeader { kind: v6::TIME_EXCEEDED, code: 0 }, [0; 4]),
            Self::TooBig { mtu } => (IcmpHeader { kind: v6::PACKET_TOO_BIG, code: 0 }, u32::from(mtu).to_be_bytes()),
        }
    }
}

impl<P: Probe> Pass<'_, P> {
    /// Drops the packet for `reason` and, where the rules allow, tells its sender why.
    pub(super) fn refuse(&mut self, item: &mut Item, origin: Origin, reason: DropReason, problem: Problem) -> Decision {
        let dropped = Decision::drop(reason);
        if !may_be_answered(item) {
            self.probe.note(Stage::Icmp, || "no ICMP error: the packet is one that must not be answered".into());
            return dropped;
        }
        let Some(way) = self.way_back(item, origin) else { return dropped };
        if P::LIVE && !self.state.may_send_icmp_error(self.now) {
            return dropped;
        }
        let sent = match item.headers.l3 {
            L3::V4(ip) => self.speaker_v4(origin).and_then(|from| write_v4(item, from, ip.src, problem.v4(), &way)),
            L3::V6(ip) => self.speaker_v6(origin).and_then(|from| write_v6(item, from, ip.src, problem.v6(), &way)),
            _ => None,
        };
        if sent.is_none() {
            return dropped;
        }
        self.probe.note(Stage::Icmp, || format!("the sender is told: {problem}"));
        Decision { verdict: Verdict::Drop(reason), egress: Some(way.egress) }
    }

    /// The address errors come from. The host would refuse packets from its own address, so it hears the router's.
    fn speaker_v4(&self, origin: Origin) -> Option<Ipv4Addr> {
        let gateway = self.snapshot.node.v4?;
        Some(if origin.role == Role::Host { gateway.router } else { gateway.address })
    }

    fn speaker_v6(&self, origin: Origin) -> Option<Ipv6Addr> {
        let gateway = self.snapshot.node.v6?;
        Some(if origin.role == Role::Host { gateway.router } else { gateway.address })
    }

    /// The way to the packet's sender: its port, or the tunnel that leads to its address.
    fn way_back(&self, item: &Item, origin: Origin) -> Option<WayBack> {
        let node = &self.snapshot.node;
        if !matches!(origin.role, Role::Tunnel(_)) {
            let own = if origin.role == Role::Host { node.vtep_mac } else { node.gateway_mac };
            return Some(WayBack { dst: item.headers.src, src: own, egress: to_port(origin.port, u16::MAX) });
        }
        let NextHop::Vtep(id) = self.snapshot.fib.lookup(item.headers.src_ip()?)? else { return None };
        let vtep = self.snapshot.vteps.get(id)?;
        let inner = Inner { tos: 0, ..Inner::from(&item.headers) };
        let (encap, mtu) = encap(node, (id, vtep), vtep.vni, inner)?;
        let egress = Egress::Port(Delivery { port: vtep.port, encap: Some(encap), mtu });
        Some(WayBack { dst: vtep.endpoint(inner.is_v6)?.mac, src: node.vtep_mac, egress })
    }
}

/// ICMP messages that report an error; to these no error is sent (RFC 1122, 3.2.2).
fn is_v4_error(kind: u8) -> bool {
    matches!(kind, v4::UNREACHABLE | v4::REDIRECT | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM | SOURCE_QUENCH)
}

/// ICMPv6 errors have types below 128 (RFC 4443, 2.1); a redirect counts as one (2.4 (e.2)).
fn is_v6_error(kind: u8) -> bool {
    kind < 128 || kind == v6::REDIRECT
}

/// Deprecated by RFC 6633, but an error all the same.
const SOURCE_QUENCH: u8 = 4;

struct WayBack {
    dst: Mac,
    src: Mac,
    egress: Egress,
}

/// Never an error about an error, a later fragment, or a packet whose sender is not one host
/// (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)).
fn may_be_answered(item: &Item) -> bool {
    let fragment_behind = |fragment: Option<crate::wire::Fragment>| fragment.is_some_and(|part| part.offset > 0);
    let one_host = item.headers.src_ip().is_some_and(|src| {
        !src.is_unspecified() && !src.is_multicast() && !src.is_loopback() && src != IpAddr::V4(Ipv4Addr::BROADCAST)
    });
    let quiet = match (item.headers.l3, item.headers.l4) {
        (L3::V4(ip), l4) => fragment_behind(ip.fragment) || matches!(l4, L4::Icmp4(header) if is_v4_error(header.kind)),
        (L3::V6(ip), l4) => fragment_behind(ip.fragment) || matches!(l4, L4::Icmp6(header) if is_v6_error(header.kind)),
        _ => true,
    };
    one_host && !quiet && item.headers.src.is_station()
}

/// Moves the offending packet back to make room for `header_len` bytes of new headers, and cuts it so that the
/// error is at most `packet_len_max` bytes of L3. Returns the frame's new length.
fn quote(
    frame: &mut Frame,
    l3_offset: usize,
    header_len: usize,
    packet_len: usize,
    packet_len_max: usize,
) -> Option<usize> {
    let quoted = packet_len.min(packet_len_max.checked_sub(header_len)?);
    let end = l3_offset + header_len + quoted;
    let space = frame.space_mut();
    if space.len() < end {
        return None;
    }
    space.copy_within(l3_offset..l3_offset + quoted, l3_offset + header_len);
    frame.set_len(end);
    frame.offload = Offload::default();
    Some(end)
}

fn write_v4(item: &mut Item, from: Ipv4Addr, to: Ipv4Addr, message: Message, way: &WayBack) -> Option<()> {
    let l3_offset = usize::from(item.headers.l3_offset);
    let packet_len = item.headers.packet_len(item.frame.len());
    let headers_len = ipv4::HEADER_LEN_MIN + icmp::HEADER_LEN;
    let end = quote(&mut item.frame, l3_offset, headers_len, packet_len, V4_ERROR_BYTES_MAX)?;
    let fields = ipv4::Ipv4Fields {
        tos: 0xc0, // internetwork control (RFC 1812, 4.3.2.5)
        total_len: u16::try_from(end - l3_offset).ok()?,
        id: 0,
        df: false,
        ttl: ipv4::TTL_DEFAULT,
        protocol: icmp::PROTOCOL_V4,
        src: from,
        dst: to,
    };
    let bytes = item.frame.bytes_mut();
    ethernet::set_addresses(bytes, way.dst, way.src);
    ipv4::write_header(bytes.get_mut(l3_offset..)?, &fields)?;
    let body = bytes.get_mut(l3_offset + ipv4::HEADER_LEN_MIN..)?;
    icmp::write_header(body, message.0, message.1)?;
    icmp::fill_checksum_v4(body);
    refresh(item)
}

fn write_v6(item: &mut Item, from: Ipv6Addr, to: Ipv6Addr, message: Message, way: &WayBack) -> Option<()> {
    let l3_offset = usize::from(item.headers.l3_offset);
    let packet_len = item.headers.packet_len(item.frame.len());
    let headers_len = ipv6::HEADER_LEN + icmp::HEADER_LEN;
    let end = quote(&mut item.frame, l3_offset, headers_len, packet_len, V6_ERROR_BYTES_MAX)?;
    let fields = ipv6::Ipv6Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(end - l3_offset - ipv6::HEADER_LEN).ok()?,
        next_header: icmp::PROTOCOL_V6,
        hop_limit: 64,
        src: from,
        dst: to,
    };
    let bytes = item.frame.bytes_mut();
    ethernet::set_addresses(bytes, way.dst, way.src);
    ipv6::write_header(bytes.get_mut(l3_offset..)?, &fields)?;
    let body = bytes.get_mut(l3_offset + ipv6::HEADER_LEN..)?;
    icmp::write_header(body, message.0, message.1)?;
    icmp::fill_checksum_v6(from, to, body);
    refresh(item)
}

/// The item's headers say what the frame's bytes say now.
fn refresh(item: &mut Item) -> Option<()> {
    item.headers_read = false;
    item.read_headers().ok()
}
