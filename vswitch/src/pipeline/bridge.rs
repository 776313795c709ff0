//! One L2 segment: learning, lookup, flooding, and the door to the router.

use std::net::{Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

use super::decap::fit_guess;
use super::encap::{Inner, flood_has_target};
use super::flow::{Action, Rewrite, Tunnel, lead_out};
use super::{Decision, Origin, Pass, Probe, Stage, largest_packet};
use crate::frame::Item;
use crate::id::PortId;
use crate::outcome::{DropReason, PuntReason};
use crate::snapshot::{BridgeEntry, POD_SEGMENT, Role, Table};
use crate::stats::Event;
use crate::table::mac::Learned;
use crate::wire::L3;

/// Where IGMPv3 reports go (RFC 3376, 4.2.14).
const IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// Where MLDv2 reports go (RFC 3810, 5.2.14).
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

impl<P: Probe> Pass<'_, P> {
    /// Decides a parsed frame on its bridge.
    #[inline]
    pub(crate) fn bridge(&mut self, item: &mut Item, origin: Origin) -> Decision {
        let snapshot = self.snapshot;
        let Some(bridge) = snapshot.bridge(origin.bridge) else {
            return Decision::drop(DropReason::UnknownPort);
        };
        let dst = item.headers.dst;
        if dst.is_link_local_control() {
            return Decision::drop(DropReason::LinkLocalControl);
        }
        if item.headers.vlan.is_some() && !bridge.vlan_transparent {
            return Decision::drop(DropReason::VlanNotAllowed);
        }
        self.trail.consulted(Table::Bridges);
        self.learn(item, origin, bridge);
        let macs_epoch = bridge.macs.epoch();

        let on_pod_segment = origin.bridge == POD_SEGMENT;
        if on_pod_segment && let Some(answer) = self.resolve(item, origin) {
            return answer;
        }
        if on_pod_segment && self.is_router(dst) {
            self.probe.note(Stage::Bridge, || format!("{dst} is the gateway: to the router"));
            return self.route(item, origin);
        }
        if dst.is_group() {
            if on_pod_segment && let Some(decision) = self.for_multicast_routers(item, origin) {
                return decision;
            }
            return self.flood(item, origin, bridge);
        }
        match bridge.macs.lookup_until(dst, self.now_s) {
            Some((port, until_s)) => {
                self.trail.consulted_macs(origin.bridge, macs_epoch, until_s);
                self.bridge_to(item, origin, bridge, port)
            }
            None => {
                self.probe.note(Stage::Bridge, || format!("{dst} is not in the MAC table of bridge {}", bridge.name));
                self.flood(item, origin, bridge)
            }
        }
    }

    /// What only multicast routers listen to goes to the one router of the pods' segment, the node (RFC 4541, 2.1.1). All
    /// pods report their groups when their carriers come back together, and a flood would carry each to all.
    fn for_multicast_routers(&mut self, item: &Item, origin: Origin) -> Option<Decision> {
        let is_report = match &item.headers.l3 {
            L3::V4(ip) => ip.dst == IGMP_ROUTERS,
            L3::V6(ip) => ip.dst == MLD_ROUTERS,
            L3::Arp(_) | L3::Other => false,
        };
        let host = self.snapshot.node.host.filter(|&host| is_report && host != origin.port)?;
        self.probe.note(Stage::Bridge, || "group memberships are the node's affair".to_owned());
        Some(Decision::punt(PuntReason::Gateway, host, u16::MAX))
    }

    /// The MACs the switch routes for.
    fn is_router(&self, mac: Mac) -> bool {
        mac == self.snapshot.node.gateway_mac || mac == self.snapshot.node.vtep_mac
    }

    fn learn(&mut self, item: &Item, origin: Origin, bridge: &BridgeEntry) {
        let src = item.headers.src;
        // A guarded port speaks with its own static MAC only: there is nothing to learn from it.
        let guarded = self.snapshot.port(origin.port).is_some_and(|entry| entry.guard.is_some());
        if !P::LIVE || guarded || !src.is_station() || self.is_router(src) {
            return;
        }
        let learned = bridge.macs.learn(src, origin.port, self.now_s);
        self.trail.learned(origin.bridge, bridge.macs.epoch(), learned, self.now_s);
        match learned {
            Learned::Moved { .. } => self.count(Event::MacMoves),
            Learned::MoveLimited => self.count(Event::MacMovesLimited),
            Learned::Evicted { .. } => self.count(Event::MacEvictions),
            Learned::Full => self.count(Event::MacTableFull),
            _ => {}
        }
    }

    fn bridge_to(&mut self, item: &mut Item, origin: Origin, bridge: &BridgeEntry, port: PortId) -> Decision {
        if port == origin.port {
            return Decision::drop(DropReason::Hairpin);
        }
        let Some(entry) = self.snapshot.port(port) else {
            return self.flood(item, origin, bridge);
        };
        self.probe.note(Stage::Bridge, || {
            format!("{} is behind port {} (MAC table of bridge {})", item.headers.dst, entry.name, bridge.name)
        });
        let to_here = Action {
            punt: None,
            port,
            limit: entry.mtu,
            fragment_at: u16::MAX,
            tunnel: None,
            rewrite: Rewrite::Nothing,
        };
        let action = match entry.role {
            Role::Tunnel(_) if matches!(origin.role, Role::Tunnel(_)) => {
                return Decision::drop(DropReason::TunnelToTunnel);
            }
            Role::Tunnel(vtep) => {
                let Some(vni) = bridge.vni else { return Decision::drop(DropReason::NoUplink) };
                self.trail.consulted(Table::Vteps);
                Action { tunnel: Some(Tunnel { vtep, vni }), ..to_here }
            }
            _ => to_here,
        };
        let inner = Inner::from(&item.headers);
        let Some(limit) = lead_out(self.snapshot, item, &action, inner) else {
            return Decision::drop(DropReason::NoUplink);
        };
        fit_guess(item, origin, limit);
        if largest_packet(item) > usize::from(limit) {
            return Decision::drop(DropReason::L2TooBig);
        }
        self.finish(item, action)
    }

    fn flood(&mut self, item: &Item, origin: Origin, bridge: &BridgeEntry) -> Decision {
        if P::LIVE && !self.state.may_flood(origin.port, self.now) {
            return Decision::drop(DropReason::FloodLimit);
        }
        if !flood_has_target(self.snapshot, bridge, origin.port) {
            return Decision::drop(DropReason::FloodNowhere);
        }
        self.probe.note(Stage::Bridge, || format!("{} floods bridge {}", item.headers.dst, bridge.name));
        Decision::flood(origin.bridge)
    }
}
