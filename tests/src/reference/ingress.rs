//! Where a frame enters: the spoof guard of a port, and the way out of a tunnel.

use std::net::IpAddr;

use podwire_control::model::{Guard, Mac, Port};
use podwire_vswitch::compile::HOST_PORT;

use super::packet::{self, ICMP6, Ip, Net, Seen, TCP, UDP};
use super::{Arrival, Fate, Flight, Place, Reference};

/// What a station may send before it has an address: RS, NS and the MLD reports.
const WITHOUT_ADDRESS: [u8; 5] = [131, 132, 133, 135, 143];
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

impl Reference {
    pub(super) fn of_port(&mut self, arrival: &Arrival<'_>) -> Option<Fate> {
        let seen = packet::read(arrival.bytes)?;
        let port = self.port(arrival.port);
        let refused = match port {
            Some(Port { guard: Guard::On { allowed }, .. }) => guard(port?, allowed, &seen, arrival.bytes),
            _ if arrival.port == HOST_PORT || port.is_some() => (!is_station(seen.src)).then_some("source_mac_invalid"),
            _ => Some("unknown_port"),
        };
        if let Some(reason) = refused {
            return Some(Fate::drop(reason));
        }
        let flight = Flight {
            now_s: arrival.now_s,
            from: Place::Port(arrival.port.to_owned()),
            bridge: self.bridge_of(arrival.port),
            bytes: arrival.bytes.to_vec(),
            partial: arrival.partial,
            seen,
        };
        Some(self.on_segment(flight))
    }

    pub(super) fn of_uplink(&mut self, arrival: &Arrival<'_>) -> Option<Fate> {
        let outer = arrival.outer?;
        let bytes = arrival.bytes;
        if bytes.len() < 8 + 14 {
            return Some(Fate::drop("vxlan_truncated"));
        }
        if bytes[0] & 0x08 == 0 {
            return Some(Fate::drop("vxlan_flags"));
        }
        let vni = u32::from_be_bytes([0, bytes[4], bytes[5], bytes[6]]);
        let is_sender = |at: IpAddr| at == outer.remote;
        let Some(vtep) = self.vteps().find(|vtep| {
            vtep.v4.is_some_and(|end| is_sender(end.remote.into()))
                || vtep.v6.is_some_and(|end| is_sender(end.remote.into()))
        }) else {
            return Some(Fate::drop("vxlan_unknown_vtep"));
        };
        let from = Place::Tunnel(vtep.name.to_string());
        let mut inner = bytes[8..].to_vec();
        let seen = packet::read(&inner)?;
        if !is_station(seen.src) {
            return Some(Fate::drop("source_mac_invalid"));
        }
        let mut partial = false;
        if let Net::Ip(ip) = seen.net {
            let Some(tos) = out_of_tunnel(ip.tos, outer.tos) else { return Some(Fate::drop("ecn_illegal")) };
            packet::set_tos(&mut inner, seen.l3, ip.is_v6(), tos);
            partial = has_bare_pseudo_sum(&ip, seen.l3, &inner);
        }
        let seen = packet::read(&inner)?;
        let stretched = self.bridges().find(|bridge| bridge.vni.is_some_and(|own| own.get() == vni));
        let bridge = stretched.map(|bridge| bridge.name.to_string());
        let on_bridge = bridge.is_some();
        let routed = vni == self.node.vni.get() || self.vteps().any(|vtep| self.routed_vni(vtep) == vni);
        let for_us = seen.dst == self.node.vtep_mac();
        let tagged = seen.tagged;
        let flight = Flight { now_s: arrival.now_s, from, bridge, bytes: inner, partial, seen };
        Some(match (on_bridge, routed, for_us) {
            (true, _, _) => self.on_segment(flight),
            (false, false, _) => Fate::drop("vxlan_unknown_vni"),
            (false, true, false) => Fate::drop("vxlan_not_for_us"),
            (false, true, true) if tagged => Fate::drop("vlan_not_allowed"),
            (false, true, true) => self.route(flight),
        })
    }
}

fn is_station(mac: Mac) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

/// RFC 6040, figure 4, of what arrives inside and outside; none for the pair that is illegal.
fn out_of_tunnel(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & 3, outer & 3) {
        (0, 3) => return None,
        (0, _) => 0,
        (_, 3) => 3,
        (2, 1) => 1,
        (inner, _) => inner,
    };
    Some(inner & !3 | ecn)
}

/// A kernel peer may leave the checksum to a device that never comes.
fn has_bare_pseudo_sum(ip: &Ip, l3: usize, bytes: &[u8]) -> bool {
    let at = match ip.protocol {
        TCP => ip.l4 + 16,
        UDP => ip.l4 + 6,
        _ => return false,
    };
    if ip.fragment.is_some() {
        return false;
    }
    let pseudo = packet::pseudo(ip.src, ip.dst, ip.protocol, ip.payload(l3, bytes).len());
    let sum = packet::checksum(&[&pseudo]).map(|byte| !byte);
    bytes[at..at + 2] == sum
}

/// Why a guarded port may not send this.
fn guard(port: &Port, allowed: &[ipnet::IpNet], seen: &Seen, bytes: &[u8]) -> Option<&'static str> {
    let mac = port.mac_in_force();
    if seen.src != mac {
        return Some(if is_station(seen.src) { "spoofed_mac" } else { "source_mac_invalid" });
    }
    let may_be = |address: IpAddr| {
        port.addresses.iter().any(|own| own.addr() == address)
            || address == IpAddr::V6(packet::link_local_of(mac))
            || allowed.iter().any(|prefix| prefix.contains(&address))
    };
    match &seen.net {
        Net::Other => None,
        Net::Arp(arp) => {
            let probe = arp.request && arp.sender_ip.is_unspecified();
            let honest = arp.sender_mac == mac && (probe || may_be(arp.sender_ip.into()));
            (!honest).then_some("spoofed_arp")
        }
        Net::Ip(ip) => {
            let kind = ip.icmp_kind(bytes).filter(|_| ip.is_v6());
            let nobody = ip.is_v6() && ip.src.is_unspecified();
            let may_be_nobody = nobody && kind.is_some_and(|kind| WITHOUT_ADDRESS.contains(&kind));
            if !may_be_nobody && !may_be(ip.src) {
                return Some("spoofed_ip");
            }
            let message = ip.payload(seen.l3, bytes);
            let honest = match kind {
                Some(ROUTER_ADVERTISEMENT | REDIRECT) => false,
                Some(NEIGHBOR_SOLICITATION) => link_layer(message, 1).is_none_or(|said| said == mac),
                Some(NEIGHBOR_ADVERTISEMENT) => {
                    may_be(nd_target(message)) && link_layer(message, 2).is_none_or(|said| said == mac)
                }
                _ => true,
            };
            (!honest).then_some("spoofed_nd")
        }
    }
}

/// The target of a well-formed solicitation or advertisement.
pub(super) fn nd_target(message: &[u8]) -> IpAddr {
    IpAddr::from(<[u8; 16]>::try_from(&message[8..24]).expect("sixteen bytes"))
}

/// The MAC that an ND option of this type states.
fn link_layer(message: &[u8], kind: u8) -> Option<Mac> {
    let mut at = 24;
    while at < message.len() {
        if message[at] == kind {
            return message[at + 2..at + 8].try_into().ok().map(Mac);
        }
        at += usize::from(message[at + 1]) * 8;
    }
    None
}

/// Whether an ICMPv6 message asks for a neighbour in a way that may be answered (RFC 4861, 7.1.1).
pub(super) fn is_sound_solicitation(ip: &Ip, l3: usize, bytes: &[u8]) -> bool {
    ip.is_v6()
        && ip.fragment.is_none()
        && ip.icmp_kind(bytes) == Some(NEIGHBOR_SOLICITATION)
        && ip.ttl == 255
        && icmp_is_intact(ip, l3, bytes)
}

/// Whether the checksum of an ICMP message of either version is right.
pub(super) fn icmp_is_intact(ip: &Ip, l3: usize, bytes: &[u8]) -> bool {
    let message = ip.payload(l3, bytes);
    let before = if ip.is_v6() { packet::pseudo(ip.src, ip.dst, ICMP6, message.len()) } else { Vec::new() };
    packet::checksum(&[&before, message]) == [0, 0]
}
