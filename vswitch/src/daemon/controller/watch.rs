//! What happens by itself: namespaces that vanish, devices that close, attachments to take away, MACs that age, path MTUs
//! that expire, the underlay's next hops, a store that fails, nftables rules that others flush.

use std::collections::{HashMap, HashSet};

use podwire_control::model::EventKind;

use super::path_mtu::PathMtus;
use super::{Controller, find_port, finish};
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::daemon::store::Store;
use crate::id::{MonoNs, PortId};
use crate::sys::clock::mono_now;
use crate::worker::Report;

/// How often [`Controller::tick`] is to be called, in milliseconds: vanished namespaces are noticed within that.
pub const TICK_MS: u64 = 500;
/// How often aged MACs are swept out, and a store that can not be used is looked at.
const SWEEP_SECONDS: u64 = 10;

/// What the last tick saw.
#[derive(Debug, Default)]
pub(super) struct Watch {
    swept: MonoNs,
    path_mtus: PathMtus,
    mac_moves: HashMap<String, u64>,
    segmentation_refused: bool,
}

impl Controller {
    /// Looks after what changes by itself. Cheap when nothing did.
    pub fn tick(&mut self) {
        let now = mono_now();
        self.close_vanished();
        self.restore_host();
        self.carry_out_spool();
        self.watch_underlay();
        self.watch_path_mtus(now);
        let sweep = now.since(self.watch.swept) > SWEEP_SECONDS * 1_000_000_000;
        if sweep {
            self.watch.swept = now;
            // A store that fails says so itself.
            let _ = self.store.as_mut().map(Store::look_again);
        }
        self.watch_macs(now, sweep);
        self.watch_offloads();
        self.nat.tick(now);
    }

    pub(super) fn close_vanished(&mut self) {
        let reported: Vec<PortId> = self.switch.reports().map(|Report::Closed(port)| port).collect();
        let snapshot = self.switch.snapshot();
        let device_gone = reported.into_iter().filter_map(|id| Some(snapshot.port(id)?.name.clone()));
        let mut gone: Vec<(String, &str)> = device_gone.map(|name| (name, "its device is gone")).collect();
        gone.extend(self.devices.gone().into_iter().map(|name| (name, "its device is gone")));
        gone.extend(self.devices.vanished().into_iter().map(|name| (name, "its network namespace is gone")));
        gone.retain(|(name, _)| self.devices.is_open(name));
        gone.sort();
        gone.dedup_by(|one, other| one.0 == other.0);
        if gone.is_empty() {
            return;
        }
        let ids: Vec<PortId> = gone.iter().filter_map(|(name, _)| find_port(&snapshot, name)).collect();
        let closing = gone.iter().map(|(name, _)| self.devices.close(name)).collect();
        let compiled = self.compile(&self.ledger);
        if let Err(error) = self.publish(compiled, Vec::new()) {
            tracing::error!(%error, "closing ports");
        }
        for id in ids {
            self.detach_port(id);
        }
        finish(closing);
        for (name, reason) in gone {
            let remedy = match name.as_str() {
                HOST_PORT => "podwired makes it again",
                UPLINK_PORT => "restart podwired",
                _ => "delete the port, or add it again once the namespace is back",
            };
            tracing::info!(port = name, reason, "port closed");
            let text = format!("{reason}; {remedy}");
            self.events.publish(EventKind::PortClosed, format!("port {name}"), &text);
            self.closed.insert(name, text);
        }
    }

    /// Makes the node's own TAP again after somebody has removed it: no owner would ask for it, and without it the node
    /// reaches no pod. What stands in the way, such as another device of its name, is told once and tried at each tick.
    fn restore_host(&mut self) {
        let Some(reason) = self.closed.get(HOST_PORT).cloned() else { return };
        let mtu = self.pod_mtu();
        let opened = self.devices.open_host(&self.config.host.interface, &self.node, mtu);
        let restored = opened.map_err(|error| error.to_string()).and_then(|halves| {
            let compiled = self.compile(&self.ledger);
            self.publish(compiled, vec![(HOST_PORT.to_owned(), halves)]).map_err(|error| error.to_string())
        });
        match restored {
            Ok(_) => {
                self.closed.remove(HOST_PORT);
                self.nat.sync_or_warn();
                let text = format!("{} was made again, with its addresses and routes", self.config.host.interface);
                tracing::info!(port = HOST_PORT, "{text}");
                self.events.publish(EventKind::PortAdded, format!("port {HOST_PORT}"), text);
            }
            Err(error) if reason != error => {
                tracing::warn!(port = HOST_PORT, %error, "the node's interface can not be made again yet");
                self.closed.insert(HOST_PORT.to_owned(), error);
            }
            Err(_) => {}
        }
    }

    /// Follows the next hops of the VTEPs there are now.
    pub(super) fn watch_underlay(&mut self) {
        let snapshot = self.switch.snapshot();
        self.devices.look_at_underlay(snapshot.vteps.by_remote.keys().copied());
    }

    fn watch_path_mtus(&mut self, now: MonoNs) {
        let snapshot = self.switch.snapshot();
        for (name, mtu) in self.watch.path_mtus.look(snapshot.vteps.entries.iter().flatten(), now) {
            let text = format!("the underlay carries {mtu} bytes to it; senders are told");
            self.events.publish(EventKind::PathMtuLowered, format!("vtep {name}"), text);
        }
    }

    fn watch_macs(&mut self, now: MonoNs, sweep: bool) {
        let snapshot = self.switch.snapshot();
        let there: HashSet<&str> = snapshot.bridges.iter().flatten().map(|bridge| bridge.name.as_str()).collect();
        self.watch.mac_moves.retain(|name, _| there.contains(name.as_str()));
        for bridge in snapshot.bridges.iter().flatten() {
            if sweep {
                bridge.macs.sweep(now.seconds());
            }
            let moves = bridge.macs.moves();
            let before = self.watch.mac_moves.insert(bridge.name.clone(), moves).unwrap_or(0);
            if moves > before {
                let text = format!("{} learned MACs moved to another port", moves - before);
                self.events.publish(EventKind::MacMoved, format!("bridge {}", bridge.name), text);
            }
        }
    }

    fn watch_offloads(&mut self) {
        let refused = self.devices.uplink().is_some_and(|status| status.segmentation_refused() > 0);
        if refused && !self.watch.segmentation_refused {
            self.watch.segmentation_refused = true;
            let text = "the underlay refused UDP_SEGMENT; it was switched off and packets are sent one by one";
            tracing::warn!("uplink: {text}");
            self.events.publish(EventKind::OffloadDisabled, "udp_segment", text);
        }
    }
}
