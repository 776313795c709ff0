//! One L2 segment: address resolution on the pod segment, learning, bridging, flooding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;
use podwire_vswitch::compile::HOST_PORT;

use super::ingress::{is_sound_solicitation, nd_target};
use super::packet::{self, Arp, Fresh, ICMP6, Ip, Net};
use super::tables::Hop;
use super::{ANY_LENGTH, Fate, Flight, Place, Reference, Way};

impl Reference {
    pub(super) fn on_segment(&mut self, flight: Flight) -> Fate {
        let seen = flight.seen.clone();
        let bridge = flight.bridge.clone();
        if seen.dst.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && seen.dst.0[5] < 16 {
            return Fate::drop("link_local_control");
        }
        let transparent = bridge.as_ref().and_then(|name| self.bridge(name)).is_some_and(|it| it.vlan_transparent);
        if seen.tagged && !transparent {
            return Fate::drop("vlan_not_allowed");
        }
        if !self.is_router(seen.src) && !self.is_guarded(&flight.from) {
            self.learn(bridge.as_deref(), seen.src, &flight.from, flight.now_s);
        }
        if bridge.is_none() {
            if let Some(answer) = self.resolve(&flight) {
                return answer;
            }
            if self.is_router(seen.dst) {
                return self.route(flight);
            }
        }
        let place = if seen.dst.is_group() { None } else { self.station(bridge.as_deref(), seen.dst, flight.now_s) };
        match place {
            Some(place) => self.to_station(flight, &place),
            None => self.flood(flight),
        }
    }

    fn is_guarded(&self, from: &Place) -> bool {
        let Place::Port(name) = from else { return false };
        self.port(name).is_some_and(|port| port.guard != podwire_control::model::Guard::Off)
    }

    fn to_station(&self, flight: Flight, place: &Place) -> Fate {
        if *place == flight.from {
            return Fate::drop("hairpin");
        }
        let way = match place {
            Place::Port(name) => Self::to_port(name, self.port_mtu(name)),
            Place::Tunnel(_) if matches!(flight.from, Place::Tunnel(_)) => return Fate::drop("tunnel_to_tunnel"),
            Place::Tunnel(name) => match self.bridged_tunnel(&flight, name) {
                Some(way) => way,
                None => return Fate::drop("no_uplink"),
            },
        };
        if flight.packet_len() > way.mtu {
            return Fate::drop("l2_too_big");
        }
        flight.fate("forward", vec![way])
    }

    /// The way of a bridged frame into a tunnel, with the bridge's VNI.
    fn bridged_tunnel(&self, flight: &Flight, vtep: &str) -> Option<Way> {
        let vni = self.bridge(flight.bridge.as_deref()?)?.vni?.get();
        let (v6, tos) = match flight.seen.net {
            Net::Ip(ip) => (ip.is_v6(), ip.tos),
            _ => (false, 0),
        };
        self.tunnel_way(self.vtep(vtep)?, vni, v6, tos)
    }

    fn flood(&self, flight: Flight) -> Fate {
        let mut ways = Vec::new();
        let members = self.ports().filter(|port| port.bridge.as_ref().map(ToString::to_string) == flight.bridge);
        let mut names: Vec<String> = members.map(|port| port.name.to_string()).collect();
        if flight.bridge.is_none() && self.has_host() {
            names.push(HOST_PORT.to_owned());
        }
        for name in names.iter().filter(|name| flight.from != Place::Port((*name).clone())) {
            ways.push(Self::to_port(name, self.port_mtu(name)));
        }
        if let Some(bridge) = flight.bridge.as_ref().and_then(|name| self.bridge(name))
            && matches!(flight.from, Place::Port(_))
        {
            ways.extend(bridge.flood.iter().filter_map(|vtep| self.bridged_tunnel(&flight, vtep.as_str())));
        }
        if ways.is_empty() {
            return Fate::drop("flood_nowhere");
        }
        // A bridge does not fragment: a copy that is too long for its port is not sent.
        ways.retain(|way| flight.packet_len() <= way.mtu);
        flight.fate("flood", ways)
    }

    fn resolve(&self, flight: &Flight) -> Option<Fate> {
        match flight.seen.net {
            Net::Arp(arp) if !arp.request => {
                let to_host =
                    self.has_host() && !Self::is_host(&flight.from) && flight.seen.dst == self.node.gateway_mac();
                let way = Self::to_port(HOST_PORT, ANY_LENGTH);
                to_host.then(|| flight.clone().fate("punt:gateway", vec![way]))
            }
            Net::Arp(arp) => {
                let mac = self.owner(arp.target_ip.into(), arp.sender_mac, &flight.from)?;
                let mut fate = flight.clone().fate("reply", vec![back(&flight.from)]);
                write_arp_reply(&mut fate.bytes, &arp, mac);
                Some(fate)
            }
            Net::Ip(ip) if flight.seen.dst.is_group() && is_group_report(ip.dst) => {
                let to_host = self.has_host() && !Self::is_host(&flight.from);
                to_host.then(|| flight.clone().fate("punt:gateway", vec![Self::to_port(HOST_PORT, ANY_LENGTH)]))
            }
            Net::Ip(ip) if is_sound_solicitation(&ip, flight.seen.l3, &flight.bytes) => {
                let IpAddr::V6(target) = nd_target(ip.payload(flight.seen.l3, &flight.bytes)) else { return None };
                let mac = self.owner(target.into(), flight.seen.src, &flight.from)?;
                let bytes = advertisement(flight, &ip, target, mac, self.is_gateway(target.into()));
                Some(Fate { outcome: "reply".to_owned(), ways: vec![back(&flight.from)], bytes, partial: false })
            }
            _ => None,
        }
    }

    /// The MAC to answer with for an address, if it is the switch's to answer.
    fn owner(&self, address: IpAddr, asker: Mac, from: &Place) -> Option<Mac> {
        let from_host = Self::is_host(from);
        if self.is_gateway(address) {
            return (!from_host).then(|| self.node.gateway_mac());
        }
        match self.hop(address) {
            Hop::Local { port, mac } if Place::Port(port.clone()) != *from && mac != asker => {
                if self.bridge_of(&port).is_none() { Some(mac) } else { from_host.then(|| self.node.vtep_mac()) }
            }
            Hop::Vtep(_) | Hop::NoRoute | Hop::Blackhole if from_host => {
                let in_cluster = self.node.cluster_cidrs.iter().any(|cidr| cidr.contains(&address));
                in_cluster.then(|| self.node.vtep_mac())
            }
            _ => None,
        }
    }
}

/// Back to where it came from.
fn back(from: &Place) -> Way {
    Way { to: from.clone(), tunnel: None, mtu: ANY_LENGTH }
}

fn write_arp_reply(bytes: &mut [u8], ask: &Arp, mac: Mac) {
    packet::set_macs(bytes, ask.sender_mac, mac);
    let mut reply = vec![0, 1, 8, 0, 6, 4, 0, 2];
    reply.extend(mac.0);
    reply.extend(ask.target_ip.octets());
    reply.extend(ask.sender_mac.0);
    reply.extend(ask.sender_ip.octets());
    bytes[14..42].copy_from_slice(&reply);
}

fn advertisement(flight: &Flight, ip: &Ip, target: Ipv6Addr, mac: Mac, router: bool) -> Vec<u8> {
    let all_nodes = (IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), Mac([0x33, 0x33, 0, 0, 0, 1]));
    let probing = ip.src.is_unspecified();
    let (to, to_mac) = if probing { all_nodes } else { (ip.src, flight.seen.src) };
    let flags = u8::from(router) << 7 | u8::from(!probing) << 6 | 1 << 5;
    let mut body = target.octets().to_vec();
    body.extend([2, 1]);
    body.extend(mac.0);
    let message = packet::icmp_message(target.into(), to, [136, 0, 0, 0, flags, 0, 0, 0], &body);
    let fresh = Fresh { src: target.into(), dst: to, tos: 0, ttl: 255, protocol: ICMP6, payload: &message };
    let mut bytes = vec![0; 12];
    packet::set_macs(&mut bytes, to_mac, mac);
    bytes.extend([0x86, 0xdd]);
    bytes.extend(fresh.bytes());
    bytes
}

impl Flight {
    pub(super) fn fate(self, outcome: &str, ways: Vec<Way>) -> Fate {
        Fate { outcome: outcome.to_owned(), ways, bytes: self.bytes, partial: self.partial }
    }

    /// Bytes that count against an MTU.
    pub(super) fn packet_len(&self) -> usize {
        match self.seen.net {
            Net::Ip(ip) => ip.len,
            Net::Arp(_) => 28,
            Net::Other => self.bytes.len() - self.seen.l3,
        }
    }
}

/// Whether only multicast routers listen to it: IGMPv3 and MLDv2 reports.
fn is_group_report(dst: IpAddr) -> bool {
    dst == IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22)) || dst == IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16))
}
