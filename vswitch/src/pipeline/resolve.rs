//! Address resolution on the pod segment: the switch answers ARP (RFC 826) and neighbour solicitations (RFC 4861)
//! for the gateway, for the pods it knows, and, towards the host, for the rest of the cluster.
//!
//! Everything else about ARP and ND is ordinary bridging.

use std::net::{IpAddr, Ipv6Addr};

use podwire_control::model::Mac;

use super::{Decision, Origin, Pass, Probe, Stage, is_undamaged};
use crate::frame::Item;
use crate::outcome::PuntReason;
use crate::snapshot::{NextHop, Role};
use crate::wire::icmp::{self, NeighborAdvertisement, NeighborSolicitation, v6};
use crate::wire::{Arp, Ipv6, L3, L4, arp, ethernet, nd};

impl<P: Probe> Pass<'_, P> {
    /// The answer to a question about an address, when the frame is one and the switch has the answer.
    #[inline]
    pub(crate) fn resolve(&mut self, item: &mut Item, origin: Origin) -> Option<Decision> {
        match (&item.headers.l3, &item.headers.l4) {
            (&L3::Arp(packet), _) => self.resolve_arp(item, &packet, origin),
            (&L3::V6(ip), L4::Icmp6(header)) if header.kind == v6::NEIGHBOR_SOLICITATION => {
                self.resolve_nd(item, &ip, origin)
            }
            _ => None,
        }
    }

    fn resolve_arp(&mut self, item: &mut Item, ask: &Arp, origin: Origin) -> Option<Decision> {
        if ask.operation != arp::OPERATION_REQUEST {
            return self.for_the_host(item, origin);
        }
        let mac = self.owner_of(IpAddr::V4(ask.target_ip), ask.sender_mac, origin)?;
        if ask.sender_ip == ask.target_ip {
            // An announcement of an address somebody else has: the kernel's own way is to defend it too.
            self.probe.note(Stage::Resolve, || format!("ARP: {} is taken by {mac}", ask.target_ip));
        }
        self.probe.note(Stage::Resolve, || format!("ARP: {} is at {mac}", ask.target_ip));
        let answer = Arp {
            operation: arp::OPERATION_REPLY,
            sender_mac: mac,
            sender_ip: ask.target_ip,
            target_mac: ask.sender_mac,
            target_ip: ask.sender_ip,
        };
        let l3_offset = usize::from(item.headers.l3_offset);
        let bytes = item.frame.bytes_mut();
        ethernet::set_addresses(bytes, ask.sender_mac, mac);
        arp::write(bytes.get_mut(l3_offset..)?, &answer)?;
        Some(Decision::reply(origin.port))
    }

    fn resolve_nd(&mut self, item: &mut Item, ip: &Ipv6, origin: Origin) -> Option<Decision> {
        // Off the link, in fragments or damaged, nobody may take it for a question (RFC 4861, 7.1.1; RFC 6980).
        if ip.hop_limit != icmp::ND_HOP_LIMIT || ip.fragment.is_some() || !is_undamaged(item) {
            return None;
        }
        let ask = NeighborSolicitation::read(item.headers.l4_bytes(item.frame.bytes()))?;
        let target = ask.target;
        let asker = item.headers.src;
        let mac = self.owner_of(IpAddr::V6(target), asker, origin)?;
        self.probe.note(Stage::Resolve, || format!("ND: {target} is at {mac}"));

        let probing = ip.src == Ipv6Addr::UNSPECIFIED;
        let (to_ip, to_mac) = if probing { (nd::ALL_NODES, nd::group_mac(nd::ALL_NODES)) } else { (ip.src, asker) };
        let answer = NeighborAdvertisement {
            router: self.snapshot.node.v6.is_some_and(|gateway| gateway.address == target),
            solicited: !probing,
            replaces: true,
            target,
            target_link_layer: Some(mac),
        };
        let l3_offset = usize::from(item.headers.l3_offset);
        item.frame.set_len(l3_offset + nd::ADVERTISEMENT_PACKET_LEN);
        item.frame.offload = crate::frame::Offload::default();
        let bytes = item.frame.bytes_mut();
        ethernet::set_addresses(bytes, to_mac, mac);
        nd::write_advertisement(bytes.get_mut(l3_offset..)?, to_ip, &answer)?;
        Some(Decision::reply(origin.port))
    }

    /// ARP that is no question but addressed to the gateway's MAC is the host's.
    fn for_the_host(&mut self, item: &Item, origin: Origin) -> Option<Decision> {
        let host = self.snapshot.node.host.filter(|&host| host != origin.port)?;
        (item.headers.dst == self.snapshot.node.gateway_mac)
            .then(|| Decision::punt(PuntReason::Gateway, host, u16::MAX))
    }

    /// Whose address this is, as far as the asker may know it. Nobody answers a station about itself.
    fn owner_of(&self, address: IpAddr, asker: Mac, origin: Origin) -> Option<Mac> {
        let node = &self.snapshot.node;
        let is_gateway = match address {
            IpAddr::V4(v4) => node.v4.is_some_and(|gateway| gateway.address == v4),
            IpAddr::V6(v6) => node.v6.is_some_and(|gateway| gateway.address == v6),
        };
        let from_host = origin.role == Role::Host;
        if is_gateway {
            return (!from_host).then_some(node.gateway_mac);
        }
        match self.snapshot.fib.lookup(address)? {
            NextHop::Local { port, mac } if port != origin.port && mac != asker => {
                let same_segment = self.snapshot.port(port).is_some_and(|entry| entry.bridge == Some(origin.bridge));
                if same_segment { Some(mac) } else { from_host.then_some(node.vtep_mac) }
            }
            NextHop::Vtep(_) | NextHop::NoRoute | NextHop::Blackhole if from_host => {
                node.cluster_cidrs.iter().any(|cidr| cidr.contains(&address)).then_some(node.vtep_mac)
            }
            _ => None,
        }
    }
}
