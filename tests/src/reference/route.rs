//! The router, and the ICMP errors it answers with.

use std::net::IpAddr;

use podwire_control::model::Mac;
use podwire_vswitch::compile::HOST_PORT;

use super::ingress::icmp_is_intact;
use super::packet::{self, Fresh, ICMP, ICMP6, Ip, Net};
use super::tables::Hop;
use super::{ANY_LENGTH, Fate, Flight, Place, Reference, Way};

/// Longest ICMP error, IP header included (RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c)).
const ERROR_MAX_V4: usize = 576;
const ERROR_MAX_V6: usize = 1_280;

/// What an error says.
#[derive(Clone, Copy, Debug)]
enum Error {
    NoNetwork,
    NoHost,
    Expired,
    TooBig(usize),
}

impl Reference {
    pub(super) fn route(&self, flight: Flight) -> Fate {
        let Net::Ip(ip) = flight.seen.net else { return Fate::drop("not_routable") };
        let broadcast = |address: IpAddr| address == IpAddr::from([255; 4]);
        let (src, dst) = (ip.src, ip.dst);
        let never_sends = src.is_unspecified() || src.is_loopback() || src.is_multicast() || broadcast(src);
        if never_sends || src == dst {
            return Fate::drop("martian");
        }
        if self.is_gateway(dst) {
            return self.to_gateway(flight, &ip);
        }
        if dst.is_loopback() || dst.is_unspecified() {
            return Fate::drop("martian");
        }
        if broadcast(dst) || dst.is_multicast() {
            return Fate::drop("not_routable");
        }
        if packet::is_link_local(src) || packet::is_link_local(dst) {
            let for_host = Self::is_pod(&flight.from) && packet::is_link_local(dst);
            return if for_host { self.punt(flight, &ip, "gateway") } else { Fate::drop("not_routable") };
        }
        match self.hop(dst) {
            Hop::Local { port, mac } => self.to_pod(flight, &ip, &port, mac),
            Hop::Vtep(name) => self.to_vtep(flight, &ip, &name),
            Hop::Host => self.punt(flight, &ip, "host_route"),
            Hop::Outside => self.punt(flight, &ip, "outside"),
            Hop::NoSuchPod => self.refuse(&flight, &ip, "no_such_pod", Error::NoHost),
            Hop::NoRoute => self.refuse(&flight, &ip, "no_route", Error::NoNetwork),
            Hop::Blackhole => Fate::drop("blackhole"),
        }
    }

    fn to_gateway(&self, flight: Flight, ip: &Ip) -> Fate {
        let (request, reply) = if ip.is_v6() { (128, 129) } else { (8, 0) };
        let asks = ip.fragment.is_none() && ip.icmp_kind(&flight.bytes) == Some(request);
        if !Self::is_pod(&flight.from) || !asks || !icmp_is_intact(ip, flight.seen.l3, &flight.bytes) {
            return self.punt(flight, ip, "gateway");
        }
        let Flight { mut bytes, seen, from, .. } = flight;
        packet::set_macs(&mut bytes, seen.src, seen.dst);
        let (addresses, size) = if ip.is_v6() { (seen.l3 + 8, 16) } else { (seen.l3 + 12, 4) };
        let (first, second) = bytes[addresses..addresses + 2 * size].split_at_mut(size);
        first.swap_with_slice(second);
        if ip.is_v6() {
            bytes[seen.l3 + 7] = 64;
        } else {
            bytes[seen.l3 + 8] = 64;
            packet::fill_ipv4_checksum(&mut bytes, seen.l3);
        }
        let message = ip.payload(seen.l3, &bytes);
        let head = [reply, message[1], 0, 0, message[4], message[5], message[6], message[7]];
        let message = packet::icmp_message(ip.dst, ip.src, head, &message[8..]);
        bytes[ip.l4..ip.l4 + message.len()].copy_from_slice(&message);
        let way = Way { to: from, tunnel: None, mtu: ANY_LENGTH };
        Fate { outcome: "reply".to_owned(), ways: vec![way], bytes, partial: false }
    }

    fn punt(&self, mut flight: Flight, ip: &Ip, why: &str) -> Fate {
        if !self.has_host() || Self::is_host(&flight.from) {
            return self.refuse(&flight, ip, "no_route", Error::NoNetwork);
        }
        let mtu = self.port_mtu(HOST_PORT);
        if ip.len > mtu && ip.dont_fragment {
            return self.refuse(&flight, ip, "too_big", Error::TooBig(mtu));
        }
        let src = if Self::is_pod(&flight.from) { flight.seen.src } else { self.node.vtep_mac() };
        packet::set_macs(&mut flight.bytes, self.node.gateway_mac(), src);
        flight.fate(&format!("punt:{why}"), vec![Self::to_port(HOST_PORT, mtu)])
    }

    fn to_pod(&self, flight: Flight, ip: &Ip, port: &str, mac: Mac) -> Fate {
        if flight.from == Place::Port(port.to_owned()) {
            return Fate::drop("hairpin");
        }
        let way = Self::to_port(port, self.port_mtu(port));
        self.hop_on(flight, ip, way, mac, self.node.gateway_mac())
    }

    fn to_vtep(&self, flight: Flight, ip: &Ip, name: &str) -> Fate {
        if matches!(flight.from, Place::Tunnel(_)) {
            return Fate::drop("tunnel_to_tunnel");
        }
        let way = self.vtep(name).filter(|_| self.has_uplink()).and_then(|vtep| {
            let way = self.tunnel_way(vtep, self.routed_vni(vtep), ip.is_v6(), ip.tos)?;
            Some((way, Self::endpoint(vtep, ip.is_v6())?.1))
        });
        match way {
            Some((way, mac)) => self.hop_on(flight, ip, way, mac, self.node.vtep_mac()),
            None => Fate::drop("no_uplink"),
        }
    }

    /// One hop further, with new MACs.
    fn hop_on(&self, mut flight: Flight, ip: &Ip, way: Way, dst: Mac, src: Mac) -> Fate {
        if ip.ttl <= 1 {
            return self.refuse(&flight, ip, "ttl_exceeded", Error::Expired);
        }
        if ip.len > way.mtu && ip.dont_fragment {
            return self.refuse(&flight, ip, "too_big", Error::TooBig(way.mtu));
        }
        packet::set_macs(&mut flight.bytes, dst, src);
        packet::count_hop(&mut flight.bytes, flight.seen.l3, ip.is_v6());
        flight.fate("forward", vec![way])
    }

    /// Drops the packet and tells its sender why, where that is allowed.
    fn refuse(&self, flight: &Flight, ip: &Ip, reason: &str, error: Error) -> Fate {
        let silent = Fate::drop(reason);
        if !may_be_told(ip, &flight.bytes) {
            return silent;
        }
        let Some((way, dst, src)) = self.way_back(flight, ip) else { return silent };
        let Some((gateway, router)) = self.gateway(ip.is_v6()) else { return silent };
        let speaker = if Self::is_host(&flight.from) { router } else { gateway };
        let mut bytes = flight.bytes[..flight.seen.l3].to_vec();
        packet::set_macs(&mut bytes, dst, src);
        bytes.extend(error.packet(speaker, ip.src, &flight.bytes[flight.seen.l3..flight.seen.l3 + ip.len]));
        Fate { ways: vec![way], bytes, ..silent }
    }

    /// The way to a packet's sender, with the MACs of a frame that goes it.
    fn way_back(&self, flight: &Flight, ip: &Ip) -> Option<(Way, Mac, Mac)> {
        if let Place::Port(name) = &flight.from {
            let own = if Self::is_host(&flight.from) { self.node.vtep_mac() } else { self.node.gateway_mac() };
            return Some((Self::to_port(name, ANY_LENGTH), flight.seen.src, own));
        }
        let Hop::Vtep(name) = self.hop(ip.src) else { return None };
        let vtep = self.vtep(&name)?;
        let way = self.tunnel_way(vtep, self.routed_vni(vtep), ip.is_v6(), 0)?;
        Some((way, Self::endpoint(vtep, ip.is_v6())?.1, self.node.vtep_mac()))
    }
}

/// No error about an error, a later fragment, or a packet that no single host sent.
fn may_be_told(ip: &Ip, bytes: &[u8]) -> bool {
    let about_error = ip.icmp_kind(bytes).is_some_and(|kind| match ip.is_v6() {
        true => kind < 128 || kind == 137,
        false => [3, 4, 5, 11, 12].contains(&kind),
    });
    let nobody = ip.src.is_unspecified() || ip.src.is_multicast() || ip.src.is_loopback();
    !nobody && ip.shows_l4() && !about_error
}

impl Error {
    /// The whole error packet that quotes `offender`.
    fn packet(self, src: IpAddr, dst: IpAddr, offender: &[u8]) -> Vec<u8> {
        let v6 = src.is_ipv6();
        let (kind, code, rest) = match (self, v6) {
            (Self::NoNetwork, false) => (3, 0, 0),
            (Self::NoHost, false) => (3, 1, 0),
            (Self::TooBig(mtu), false) => (3, 4, mtu),
            (Self::Expired, false) => (11, 0, 0),
            (Self::NoNetwork, true) => (1, 0, 0),
            (Self::NoHost, true) => (1, 3, 0),
            (Self::TooBig(mtu), true) => (2, 0, mtu),
            (Self::Expired, true) => (3, 0, 0),
        };
        let [a, b, c, d] = u32::try_from(rest).expect("an MTU is smaller").to_be_bytes();
        let room = if v6 { ERROR_MAX_V6 - 48 } else { ERROR_MAX_V4 - 28 };
        let quote = &offender[..offender.len().min(room)];
        let payload = packet::icmp_message(src, dst, [kind, code, 0, 0, a, b, c, d], quote);
        let (tos, protocol) = if v6 { (0, ICMP6) } else { (0xc0, ICMP) };
        Fresh { src, dst, tos, ttl: 64, protocol, payload: &payload }.bytes()
    }
}
