//! The spoof guard: a pod speaks only as itself, in Ethernet, IP, ARP and neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

use crate::frame::Item;
use crate::outcome::DropReason;
use crate::snapshot::SourceGuard;
use crate::wire::icmp::{NeighborAdvertisement, NeighborSolicitation, v6};
use crate::wire::{Arp, Ipv6, L3, L4, arp};

/// Why the frame is refused, if it is.
#[inline]
pub(super) fn refuse(item: &Item, mac: Mac, guard: &SourceGuard) -> Option<DropReason> {
    let headers = &item.headers;
    if headers.src != mac {
        let invalid = !headers.src.is_station();
        return Some(if invalid { DropReason::SourceMacInvalid } else { DropReason::SpoofedMac });
    }
    match &headers.l3 {
        L3::Other => None,
        L3::Arp(arp) => (!may_say_arp(arp, mac, guard)).then_some(DropReason::SpoofedArp),
        L3::V4(ip) => (!guard.permits(IpAddr::V4(ip.src))).then_some(DropReason::SpoofedIp),
        L3::V6(ip) => refuse_v6(item, ip, mac, guard),
    }
}

fn may_say_arp(packet: &Arp, mac: Mac, guard: &SourceGuard) -> bool {
    let probe = packet.sender_ip == Ipv4Addr::UNSPECIFIED && packet.operation == arp::OPERATION_REQUEST;
    packet.sender_mac == mac && (probe || guard.permits(IpAddr::V4(packet.sender_ip)))
}

fn refuse_v6(item: &Item, ip: &Ipv6, mac: Mac, guard: &SourceGuard) -> Option<DropReason> {
    let kind = match item.headers.l4 {
        L4::Icmp6(icmp) => Some(icmp.kind),
        _ => None,
    };
    let from_nobody = ip.src == Ipv6Addr::UNSPECIFIED && kind.is_some_and(is_discovery_or_mld);
    if !from_nobody && !guard.permits(IpAddr::V6(ip.src)) {
        return Some(DropReason::SpoofedIp);
    }
    let l4 = item.headers.l4_bytes(item.frame.bytes());
    let honest = match kind {
        Some(v6::ROUTER_ADVERTISEMENT | v6::REDIRECT) => false,
        Some(v6::NEIGHBOR_SOLICITATION) => {
            NeighborSolicitation::read(l4).is_some_and(|ask| ask.source_link_layer.is_none_or(|said| said == mac))
        }
        Some(v6::NEIGHBOR_ADVERTISEMENT) => NeighborAdvertisement::read(l4).is_some_and(|answer| {
            guard.permits(IpAddr::V6(answer.target)) && answer.target_link_layer.is_none_or(|said| said == mac)
        }),
        _ => true,
    };
    (!honest).then_some(DropReason::SpoofedNd)
}

/// What a station without an address yet may send: RS and NS (RFC 4861), MLD reports (RFC 3810).
fn is_discovery_or_mld(kind: u8) -> bool {
    matches!(
        kind,
        v6::ROUTER_SOLICITATION | v6::NEIGHBOR_SOLICITATION | v6::MLD_REPORT | v6::MLD_DONE | v6::MLD2_REPORT
    )
}
