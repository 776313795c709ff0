//! The router: packets addressed to the gateway's MAC, and packets out of routed tunnels, find their next hop.
//!
//! Checks come before the first rewrite, so that an ICMP error quotes the packet as its sender sent it.

use std::net::IpAddr;

use ipnet::IpNet;
use podwire_control::model::Mac;

use super::decap::fit_guess;
use super::encap::Inner;
use super::flow::{Action, Rewrite, Tunnel, lead_out};
use super::icmp_error::{Problem, Reach};
use super::{Decision, Origin, Pass, Probe, Stage, is_undamaged, largest_packet, to_port};
use crate::frame::{Checksum, Delivery, Egress, Item, Offload};
use crate::id::{PortId, VtepId};
use crate::outcome::{DropReason, PuntReason};
use crate::snapshot::{NextHop, Role, Snapshot, Table};
use crate::wire::{Headers, L3, L4, ethernet, icmp, ipv4, ipv6};

impl<P: Probe> Pass<'_, P> {
    /// Decides a packet the switch is asked to route.
    #[inline]
    pub(crate) fn route(&mut self, item: &mut Item, origin: Origin) -> Decision {
        let (Some(src), Some(dst)) = (item.headers.src_ip(), item.headers.dst_ip()) else {
            return Decision::drop(DropReason::NotRoutable);
        };
        if is_martian(src) || src == dst {
            return Decision::drop(DropReason::Martian);
        }
        if self.is_gateway(dst) {
            return self.route_gateway(item, origin);
        }
        if let Some(reason) = not_unicast(dst) {
            return Decision::drop(reason);
        }
        if is_link_local(src) || is_link_local(dst) {
            return self.link_local(item, dst, origin);
        }
        self.trail.consulted(Table::Fib);
        let hop = self.snapshot.fib.lookup(dst).unwrap_or(NextHop::Outside);
        self.probe.note(Stage::Route, || describe(self.snapshot, dst));
        match hop {
            NextHop::Local { port, mac } => self.route_local(item, origin, port, mac),
            NextHop::Vtep(id) => self.route_vtep(item, origin, id),
            NextHop::Host => self.punt(item, origin, PuntReason::HostRoute),
            NextHop::Outside => self.punt(item, origin, PuntReason::Outside),
            NextHop::NoSuchPod => self.refuse(item, origin, DropReason::NoSuchPod, Problem::Unreachable(Reach::Host)),
            NextHop::NoRoute => self.refuse(item, origin, DropReason::NoRoute, Problem::Unreachable(Reach::Net)),
            NextHop::Blackhole => Decision::drop(DropReason::Blackhole),
        }
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.snapshot.node.v4.is_some_and(|gateway| gateway.address == v4),
            IpAddr::V6(v6) => self.snapshot.node.v6.is_some_and(|gateway| gateway.address == v6),
        }
    }

    /// What is for the gateway itself: a pod's echo request is answered here, all else is the host's, a damaged one too:
    /// an answer would give it a checksum that is right.
    fn route_gateway(&mut self, item: &mut Item, origin: Origin) -> Decision {
        if origin.role == Role::Pod && is_whole_echo_request(item) && is_undamaged(item) {
            self.probe.note(Stage::Route, || "echo request to the gateway: answered by the switch".into());
            echo_in_place(item);
            return Decision::reply(origin.port);
        }
        self.punt(item, origin, PuntReason::Gateway)
    }

    /// Link-local packets never leave the segment; those addressed to the gateway's MAC are the host's.
    fn link_local(&mut self, item: &mut Item, dst: IpAddr, origin: Origin) -> Decision {
        if origin.role == Role::Pod && is_link_local(dst) {
            return self.punt(item, origin, PuntReason::Gateway);
        }
        Decision::drop(DropReason::NotRoutable)
    }

    /// To the node's own stack. It is the host that routes on, so the TTL is its affair.
    fn punt(&mut self, item: &mut Item, origin: Origin, reason: PuntReason) -> Decision {
        let Some(host) = self.snapshot.node.host else {
            return self.refuse(item, origin, DropReason::NoRoute, Problem::Unreachable(Reach::Net));
        };
        if origin.port == host {
            return self.refuse(item, origin, DropReason::NoRoute, Problem::Unreachable(Reach::Net));
        }
        let mtu = self.snapshot.port(host).map_or(u16::MAX, |entry| entry.mtu);
        if let Some(refused) = self.too_big(item, origin, mtu) {
            return refused;
        }
        self.probe.note(Stage::Route, || format!("to the host's own stack ({})", reason.name()));
        let node = &self.snapshot.node;
        let src = if origin.role == Role::Pod { item.headers.src } else { node.vtep_mac };
        let rewrite = Rewrite::Macs { dst: node.gateway_mac, src };
        self.send(item, Some(reason), host, mtu, rewrite)
    }

    /// The end of a way to a port of the node.
    fn send(
        &mut self,
        item: &mut Item,
        punt: Option<PuntReason>,
        port: PortId,
        mtu: u16,
        rewrite: Rewrite,
    ) -> Decision {
        let action = Action { punt, port, limit: mtu, fragment_at: mtu, tunnel: None, rewrite };
        item.egress = to_port(port, mtu);
        self.finish(item, action)
    }

    fn route_local(&mut self, item: &mut Item, origin: Origin, port: PortId, mac: Mac) -> Decision {
        if port == origin.port {
            return Decision::drop(DropReason::Hairpin);
        }
        let Some(entry) = self.snapshot.port(port) else {
            return Decision::drop(DropReason::NoSuchPod);
        };
        if let Some(refused) = self.expired(item, origin).or_else(|| self.too_big(item, origin, entry.mtu)) {
            return refused;
        }
        self.probe.note(Stage::Route, || format!("to port {} at {mac}", entry.name));
        let rewrite = Rewrite::Hop { dst: mac, src: self.snapshot.node.gateway_mac };
        self.send(item, None, port, entry.mtu, rewrite)
    }

    fn route_vtep(&mut self, item: &mut Item, origin: Origin, id: VtepId) -> Decision {
        if matches!(origin.role, Role::Tunnel(_)) {
            return Decision::drop(DropReason::TunnelToTunnel);
        }
        let snapshot = self.snapshot;
        self.trail.consulted(Table::Vteps);
        let found = snapshot.vteps.get(id).and_then(|vtep| Some((vtep, vtep.endpoint(item.headers.is_v6())?.mac)));
        let Some((vtep, mac)) = found.filter(|_| snapshot.node.uplink.is_some()) else {
            return Decision::drop(DropReason::NoUplink);
        };
        let action = Action {
            punt: None,
            port: vtep.port,
            limit: u16::MAX,
            fragment_at: u16::MAX,
            tunnel: Some(Tunnel { vtep: id, vni: vtep.vni }),
            rewrite: Rewrite::Hop { dst: mac, src: snapshot.node.vtep_mac },
        };
        let Some(limit) = lead_out(self.snapshot, item, &action, Inner::from(&item.headers)) else {
            return Decision::drop(DropReason::NoUplink);
        };
        if let Some(refused) = self.expired(item, origin).or_else(|| self.too_big(item, origin, limit)) {
            return refused;
        }
        self.probe.note(Stage::Encap, || match item.egress {
            Egress::Port(Delivery { encap: Some(encap), mtu, .. }) => {
                format!("vtep {} at {}, vni {}, inner MAC {mac}, MTU {mtu}", vtep.name, encap.remote, encap.vni)
            }
            _ => String::new(),
        });
        self.finish(item, action)
    }

    fn expired(&mut self, item: &mut Item, origin: Origin) -> Option<Decision> {
        (hops_left(&item.headers) <= 1)
            .then(|| self.refuse(item, origin, DropReason::TtlExceeded, Problem::TimeExceeded))
    }

    /// A packet longer than the egress carries goes back with the MTU, unless IPv4 lets it be fragmented.
    pub(super) fn too_big(&mut self, item: &mut Item, origin: Origin, mtu: u16) -> Option<Decision> {
        fit_guess(item, origin, mtu);
        let may_fragment = matches!(item.headers.l3, L3::V4(ip) if !ip.dont_fragment);
        if largest_packet(item) <= usize::from(mtu) || may_fragment {
            return None;
        }
        Some(self.refuse(item, origin, DropReason::TooBig, Problem::TooBig { mtu }))
    }
}

fn hops_left(headers: &Headers) -> u8 {
    match headers.l3 {
        L3::V4(ip) => ip.ttl,
        L3::V6(ip) => ip.hop_limit,
        L3::Arp(_) | L3::Other => u8::MAX,
    }
}

/// What the routes say of an address, in the words of `podwire route`.
fn describe(snapshot: &Snapshot, dst: IpAddr) -> String {
    let Some((len, hop)) = snapshot.fib.lookup_prefix(dst) else {
        return format!("no route covers {dst}: outside the cluster");
    };
    let prefix = IpNet::new(dst, len).map_or_else(|_| format!("{dst}/{len}"), |net| net.trunc().to_string());
    let port_name = |port| snapshot.port(port).map_or("of before", |entry| entry.name.as_str());
    match hop {
        NextHop::Local { port, mac } => format!("{prefix} via port {} at {mac}", port_name(port)),
        NextHop::Vtep(id) => {
            format!("{prefix} via vtep {}", snapshot.vteps.get(id).map_or("of before", |vtep| vtep.name.as_str()))
        }
        NextHop::NoSuchPod => format!("{dst} is in this node's {prefix}, and no pod has it"),
        NextHop::NoRoute => format!("{dst} is in the cluster's {prefix}, and no route covers it"),
        NextHop::Host => format!("{prefix} via host"),
        NextHop::Outside => format!("{prefix} is outside the cluster"),
        NextHop::Blackhole => format!("{prefix} via blackhole"),
    }
}

/// Source addresses that can not be on a network (RFC 1122, 3.2.1.3; RFC 4291, 2.5).
fn is_martian(src: IpAddr) -> bool {
    let broadcast = matches!(src, IpAddr::V4(v4) if v4.is_broadcast());
    src.is_unspecified() || src.is_loopback() || src.is_multicast() || broadcast
}

fn not_unicast(dst: IpAddr) -> Option<DropReason> {
    let broadcast = matches!(dst, IpAddr::V4(v4) if v4.is_broadcast());
    if dst.is_loopback() || dst.is_unspecified() {
        return Some(DropReason::Martian);
    }
    (broadcast || dst.is_multicast()).then_some(DropReason::NotRoutable)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_whole_echo_request(item: &Item) -> bool {
    match (item.headers.l4, item.headers.l3) {
        (L4::Icmp4(header), L3::V4(ip)) => header.kind == icmp::v4::ECHO_REQUEST && ip.fragment.is_none(),
        (L4::Icmp6(header), L3::V6(ip)) => header.kind == icmp::v6::ECHO_REQUEST && ip.fragment.is_none(),
        _ => false,
    }
}

/// Turns an echo request into its reply: addresses swapped, TTL fresh, checksum new. A `Partial` ICMPv6 checksum
/// would be as good for the reply, but a complete one is simpler to reason about.
fn echo_in_place(item: &mut Item) {
    let headers = item.headers;
    ethernet::set_addresses(item.frame.bytes_mut(), headers.src, headers.dst);
    let (l3, l4) = (usize::from(headers.l3_offset), usize::from(headers.l4_offset));
    let end = l3 + headers.packet_len(item.frame.len());
    item.frame.offload = Offload { checksum: Checksum::Unknown, gso: None };
    let Some(packet) = item.frame.bytes_mut().get_mut(l3..end) else { return };
    let Some((header, message)) = packet.split_at_mut_checked(l4 - l3) else { return };
    match headers.l3 {
        L3::V4(_) => {
            ipv4::turn_around(header);
            icmp::set_kind(message, icmp::v4::ECHO_REPLY);
            icmp::fill_checksum_v4(message);
        }
        L3::V6(ip) => {
            ipv6::turn_around(header);
            icmp::set_kind(message, icmp::v6::ECHO_REPLY);
            icmp::fill_checksum_v6(ip.dst, ip.src, message);
        }
        _ => {}
    }
}
