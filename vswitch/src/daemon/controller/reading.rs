//! What the daemon says of itself: every report of the control API, read from the ledger, the snapshot and the
//! counters. Changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use podwire_control::model::{
    BridgeName, BridgeReport, Counter, CounterReport, DropReport, EndpointReport, ExplainQuery, Explanation, Guard,
    Key, Limit, MacReport, ObjectCounts, OffloadReport, Owner, PortCounterReport, PortCounters, PortDrops, PortKind,
    PortReport, PortRole, PortState, Refusal, Route, RouteMatch, RouteReport, Status, Via, VtepReport, WorkerCounters,
    WorkerReport,
};

use super::Controller;
use super::uplink::xdp_counters;
use crate::compile::{HOST_PORT, POD_SEGMENT_NAME};
use crate::daemon::config::Poll;
use crate::daemon::explain::explain;
use crate::daemon::store::Store;
use crate::id::PortId;
use crate::limits;
use crate::outcome::{DropReason, Verdict};
use crate::snapshot::{NextHop, PortEntry, Role, Snapshot};
use crate::stats::{Event, PortReport as PortCounts, WorkerStats, port_report};
use crate::sys::clock::mono_now;
use crate::sys::xsk::XskStatistics;

impl Controller {
    fn stats(&self) -> Vec<Arc<WorkerStats>> {
        self.switch.workers().map(|(stats, _)| Arc::clone(stats)).collect()
    }

    fn counts(&self, id: PortId) -> PortCounts {
        let counts = port_report(&self.stats(), id);
        match self.baselines.get(&id) {
            Some(baseline) => baseline.since(&counts),
            None => counts,
        }
    }

    /// What the switch is and how it is doing.
    pub fn status(&self) -> Status {
        let snapshot = self.switch.snapshot();
        let effective = self.ledger.effective();
        let now = mono_now();
        Status {
            node: self.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: snapshot.generation,
            uptime_s: now.since(self.started) / 1_000_000_000,
            vtep_mac: snapshot.node.vtep_mac,
            vtep_mac6: None,
            gateway_mac: snapshot.node.gateway_mac,
            pod_cidrs: self.node.pod_cidrs.clone(),
            cluster_cidrs: self.node.cluster_cidrs.clone(),
            uplink: self.uplink_report(),
            tunnel_mtu: self.pod_mtu().into(),
            vni: self.node.vni,
            vxlan_port: self.config.vxlan.port,
            host_interface: self.config.host.interface.clone(),
            workers: self.worker_reports(),
            offloads: self.offloads(),
            counts: ObjectCounts {
                ports: effective.ports().count() as u64,
                bridges: effective.bridges().count() as u64 + 1,
                routes: effective.routes().count() as u64,
                vteps: effective.vteps().count() as u64,
                macs: snapshot.bridges.iter().flatten().map(|bridge| bridge.macs.len() as u64).sum(),
            },
            warnings: self.all_warnings(),
        }
    }

    /// One line for `systemctl status`.
    pub fn summary(&self) -> String {
        let effective = self.ledger.effective();
        let (ports, vteps) = (effective.ports().count(), effective.vteps().count());
        format!("{ports} ports, {} closed, {vteps} remote VTEPs", self.closed.len())
    }

    fn all_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.store.iter().flat_map(Store::warnings));
        warnings.extend(self.devices.xdp().and_then(Result::err).map(|why| format!("uplink: {why}")));
        warnings.extend(self.devices.slow_ports().map(|(name, why)| format!("port {name}: {why}")));
        warnings.extend(self.closed.iter().map(|(name, reason)| format!("port {name}: {reason}")));
        warnings.extend(self.range_warnings());
        warnings.extend(self.ledger.faults().iter().map(ToString::to_string));
        warnings.extend_from_slice(self.nat.warnings());
        warnings.extend(self.spool.warning().map(str::to_owned));
        warnings.extend(self.full());
        warnings.sort();
        warnings
    }

    fn worker_reports(&self) -> Vec<WorkerReport> {
        let poll = match self.config.workers.poll {
            Poll::Adaptive => "adaptive",
            Poll::Busy => "busy",
            Poll::Interrupt => "interrupt",
        };
        let reports = self.switch.workers().enumerate().map(|(id, (stats, cpu))| {
            let report = stats.snapshot();
            let frames: u64 = report.ports.rx.frames;
            let busy = report.event(Event::BusyPasses);
            #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
            let frames_per_pass = if busy == 0 { 0.0 } else { frames as f64 / busy as f64 };
            WorkerReport {
                id: u32::try_from(id).unwrap_or(u32::MAX),
                cpu: cpu.and_then(|cpu| u32::try_from(cpu).ok()),
                poll: poll.into(),
                frames,
                passes: report.event(Event::Passes),
                frames_per_pass,
            }
        });
        reports.collect()
    }

    fn offloads(&self) -> Vec<OffloadReport> {
        let wanted = self.config.offloads;
        let mut reports = Vec::new();
        if let Some(tap) = self.devices.offloads(HOST_PORT) {
            for (name, on, allowed) in [
                ("checksum", tap.checksum, wanted.checksum),
                ("tso", tap.tso, wanted.tso),
                ("uso", tap.uso, wanted.uso),
            ] {
                let why = match (on, allowed) {
                    (true, _) => "granted by the kernel".to_owned(),
                    (false, true) => "the kernel does not have it".to_owned(),
                    (false, false) => format!("off by offloads.{name}, or by what it rests on"),
                };
                reports.push(OffloadReport { name: format!("tap_{name}"), on, why });
            }
        }
        if let Some(uplink) = self.devices.uplink() {
            let limit = uplink.segment_limit();
            let why = match (limit, uplink.segmentation_refused()) {
                (0, _) if !self.config.vxlan.outer_checksum => "off, since vxlan.outer_checksum is false".to_owned(),
                (0, _) if !wanted.udp_segment => "off, since offloads.udp_segment is false".to_owned(),
                (0, 0) => "the kernel does not have it".to_owned(),
                (0, _) => "switched off: the underlay's device refused it".to_owned(),
                (limit, _) => format!("up to {limit} packets a send"),
            };
            reports.push(OffloadReport { name: "udp_segment".into(), on: limit > 0, why });
            let (on, why) = match (uplink.merges(), wanted.udp_gro) {
                (true, _) => (true, "granted by the kernel"),
                (false, true) => (false, "the kernel does not have it"),
                (false, false) => (false, "off, since offloads.udp_gro is false"),
            };
            reports.push(OffloadReport { name: "udp_gro".into(), on, why: why.into() });
        }
        reports
    }

    /// Ports of every role: those of the snapshot, and those whose device is not open.
    pub fn ports(&self) -> Vec<PortReport> {
        let snapshot = self.switch.snapshot();
        let mut reports: Vec<PortReport> = snapshot
            .ports
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| Some(self.port_report(PortId(u16::try_from(slot).ok()?), entry.as_ref()?)))
            .collect();
        for (owner, port) in self.ledger.effective().ports() {
            let Some(reason) = self.closed.get(port.name.as_str()) else { continue };
            reports.push(PortReport {
                id: u32::from(PortId::NONE.0),
                name: port.name.to_string(),
                owner,
                role: PortRole::Pod,
                device: port.kind.name().into(),
                netns: Some(port.netns.clone()),
                ifname: Some(port.ifname.clone()),
                addresses: port.addresses.clone(),
                mac: Some(port.mac_in_force()),
                mtu: port.mtu.unwrap_or(self.pod_mtu()).into(),
                bridge: port.bridge.as_ref().map(ToString::to_string),
                guard: Some(port.guard.clone()),
                bandwidth: port.bandwidth,
                state: PortState::Closed { reason: reason.clone() },
                counters: PortCounters::default(),
            });
        }
        reports
    }

    fn port_report(&self, id: PortId, entry: &PortEntry) -> PortReport {
        let effective = self.ledger.effective();
        let stated = entry.name.parse().ok().and_then(|name| effective.port(&name)).filter(|_| entry.role == Role::Pod);
        let owner = match entry.role {
            Role::Pod => entry.name.parse().ok().and_then(|name| effective.get(&Key::Port(name))),
            Role::Tunnel(_) => entry.name.parse().ok().and_then(|name| effective.get(&Key::Vtep(name))),
            _ => None,
        };
        let (role, device) = match entry.role {
            Role::Pod => (PortRole::Pod, stated.map_or(PortKind::Tap, |port| port.kind).name()),
            Role::Host => (PortRole::Host, "tap"),
            Role::Uplink => (PortRole::Uplink, self.config.uplink.as_ref().map_or("udp", |uplink| uplink.kind.name())),
            Role::Tunnel(_) => (PortRole::Tunnel, "vxlan"),
        };
        let host = entry.role == Role::Host;
        PortReport {
            id: id.0.into(),
            name: entry.name.clone(),
            owner: owner.map_or(Owner::File, |(owner, _)| owner),
            role,
            device: device.into(),
            netns: stated.map(|port| port.netns.clone()),
            ifname: stated.map(|port| port.ifname.clone()).or(host.then(|| self.config.host.interface.clone())),
            addresses: stated.map_or_else(
                || if host { self.node.gateways().map(IpNet::from).collect() } else { Vec::new() },
                |port| port.addresses.clone(),
            ),
            mac: entry.mac.is_station().then_some(entry.mac),
            mtu: entry.mtu.into(),
            bridge: stated.and_then(|port| port.bridge.as_ref()).map(ToString::to_string),
            guard: stated.map(|port| port.guard.clone()).or(host.then_some(Guard::Off)),
            bandwidth: stated.map(|port| port.bandwidth).unwrap_or_default(),
            state: PortState::Up,
            counters: port_counters(&self.counts(id)),
        }
    }

    /// Bridges, the pod segment first.
    pub fn bridges(&self) -> Vec<BridgeReport> {
        let snapshot = self.switch.snapshot();
        let effective = self.ledger.effective();
        let name_of = |&id: &PortId| snapshot.port(id).map(|entry| entry.name.clone());
        let reports = snapshot.bridges.iter().flatten().map(|bridge| BridgeReport {
            name: bridge.name.clone(),
            owner: bridge
                .name
                .parse()
                .ok()
                .and_then(|name| effective.get(&Key::Bridge(name)))
                .map_or(Owner::File, |(owner, _)| owner),
            vni: bridge.vni,
            flood: bridge.flood_tunnels.iter().filter_map(name_of).collect(),
            vlan_transparent: bridge.vlan_transparent,
            ports: bridge.members.iter().filter_map(name_of).collect(),
            macs: bridge.macs.len() as u64,
        });
        reports.collect()
    }

    /// MACs of one bridge, or of all.
    ///
    /// # Errors
    /// A refusal when there is no such bridge.
    pub fn macs(&self, bridge: Option<&BridgeName>) -> Result<Vec<MacReport>, Refusal> {
        let snapshot = self.switch.snapshot();
        let wanted = |name: &str| bridge.is_none_or(|wanted| wanted.as_str() == name);
        if let Some(name) = bridge
            && !snapshot.bridges.iter().flatten().any(|entry| wanted(&entry.name))
        {
            let reason = "there is no such bridge; `podwire bridge list` shows those there are";
            return Err(Refusal::new(format!("bridge {name}"), reason));
        }
        let effective = self.ledger.effective();
        let now_s = mono_now().seconds();
        let mut reports = Vec::new();
        for entry in snapshot.bridges.iter().flatten().filter(|entry| wanted(&entry.name)) {
            let key = |mac| {
                let named = if entry.name == POD_SEGMENT_NAME { None } else { entry.name.parse().ok() };
                Key::Mac { bridge: named, mac }
            };
            reports.extend(entry.macs.iter(now_s).map(|found| MacReport {
                bridge: entry.name.clone(),
                mac: found.mac,
                port: snapshot.port(found.port).map_or_else(|| found.port.to_string(), |port| port.name.clone()),
                pinned_by:
                    found.is_static.then(|| effective.get(&key(found.mac)).map_or(Owner::File, |(owner, _)| owner)),
                age_s: found.age_s,
            }));
        }
        reports.sort_by(|one, other| (&one.bridge, one.mac).cmp(&(&other.bridge, other.mac)));
        Ok(reports)
    }

    /// Routes of every owner.
    pub fn routes(&self) -> Vec<RouteReport> {
        let effective = self.ledger.effective();
        let mut reports = Vec::new();
        for owner in Owner::ALL {
            for (key, object) in self.ledger.objects(owner) {
                if let podwire_control::model::Object::Route(route) = object {
                    let shadowed = effective.get(key).is_some_and(|(by, _)| by != owner);
                    reports.push(RouteReport { route: route.clone(), owner, shadowed });
                }
            }
        }
        reports.sort_by_key(|report| report.route.prefix);
        reports
    }

    /// Remote VTEPs.
    pub fn vteps(&self) -> Vec<VtepReport> {
        let snapshot = self.switch.snapshot();
        let effective = self.ledger.effective();
        let reports = effective.vteps().filter_map(|(owner, stated)| {
            let entry = snapshot.vteps.entries.iter().flatten().find(|entry| entry.name == stated.name.as_str())?;
            let mut endpoints: Vec<EndpointReport> = Vec::new();
            for endpoint in entry.endpoints.into_iter().flatten() {
                let path_mtu = snapshot.node.underlay_mtu.min(entry.path_mtu(endpoint.remote)).into();
                let (sent_by, sent_by_why) = self.sent_by(endpoint.remote);
                let report = EndpointReport {
                    remote: endpoint.remote,
                    mac: endpoint.mac,
                    path_mtu,
                    sent_by: sent_by.into(),
                    sent_by_why,
                };
                if !endpoints.contains(&report) {
                    endpoints.push(report);
                }
            }
            let counters = port_counters(&self.counts(entry.port));
            Some(VtepReport { name: entry.name.clone(), owner, vni: entry.vni, endpoints, counters })
        });
        reports.collect()
    }

    /// The route an address takes, as the workers see it.
    ///
    /// # Errors
    /// A refusal when no route covers it.
    pub fn route(&self, address: IpAddr) -> Result<RouteMatch, Refusal> {
        let snapshot = self.switch.snapshot();
        let none = |reason: &str| Refusal::new(format!("route to {address}"), reason);
        if self.node.gateways().any(|gateway| gateway == address) {
            return Err(none("it is the gateway: the switch answers its pings, the node's own stack all else"));
        }
        let (len, hop) = snapshot.fib.lookup_prefix(address).ok_or_else(|| none(OUTSIDE))?;
        let prefix = IpNet::new(address, len).map_err(|_| none(OUTSIDE))?.trunc();
        let effective = self.ledger.effective();
        if let Some((owner, podwire_control::model::Object::Route(route))) = effective.get(&Key::Route(prefix)) {
            return Ok(RouteMatch { route: route.clone(), owner });
        }
        let (via, owner) = implied(&snapshot, hop).map_err(none)?;
        let stated = match &via {
            Via::Port(name) => effective.get(&Key::Port(name.clone())).map(|(owner, _)| owner),
            _ => None,
        };
        Ok(RouteMatch { route: Route { prefix, via }, owner: stated.unwrap_or(owner) })
    }

    /// All counters.
    pub fn counters(&self) -> CounterReport {
        let totals = self.switch.totals();
        let named = |report: &crate::stats::WorkerReport| {
            let outcomes = report.ports.outcomes().map(|(outcome, frames)| (outcome.to_string(), frames));
            let events = Event::ALL.iter().map(|&event| (event.name().to_owned(), report.event(event)));
            outcomes.chain(events).map(|(name, count)| Counter { name, count }).collect::<Vec<_>>()
        };
        let workers = self.switch.workers().enumerate().map(|(id, (stats, _))| WorkerCounters {
            id: u32::try_from(id).unwrap_or(u32::MAX),
            counters: named(&stats.snapshot()),
        });
        let snapshot = self.switch.snapshot();
        let ports = super::named_ports(&snapshot)
            .map(|(id, name)| PortCounterReport { port: name.to_owned(), counters: port_counters(&self.counts(id)) });
        let mut summed = named(&totals.0);
        if let Some(Ok(xdp)) = self.devices.xdp() {
            summed.extend(xdp_counters(xdp));
        }
        summed.extend(self.devices.veth_statistics().into_iter().flat_map(veth_counters));
        CounterReport { totals: summed, workers: workers.collect(), ports: ports.collect() }
    }

    /// Every drop reason, with the ports that met it.
    pub fn drops(&self) -> Vec<DropReport> {
        let totals = self.switch.totals();
        let snapshot = self.switch.snapshot();
        let ports: Vec<(String, PortCounts)> =
            super::named_ports(&snapshot).map(|(id, name)| (name.to_owned(), self.counts(id))).collect();
        let reports = DropReason::ALL.iter().map(|&reason| {
            let verdict = Verdict::Drop(reason);
            let of_port = |(name, counts): &(String, PortCounts)| {
                let frames = counts.outcome(verdict);
                (frames > 0).then(|| PortDrops { port: name.clone(), frames })
            };
            DropReport {
                reason: reason.name().into(),
                meaning: reason.meaning().into(),
                frames: totals.outcome(verdict),
                ports: ports.iter().filter_map(of_port).collect(),
            }
        });
        reports.collect()
    }

    /// The walk of a made-up frame.
    ///
    /// # Errors
    /// A refusal that names the port or the address.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let effective = self.ledger.effective();
        let addresses = effective.port(&query.in_port).map(|port| port.addresses.clone()).unwrap_or_default();
        if let Some(reason) = self.closed.get(query.in_port.as_str()) {
            return Err(Refusal::new(format!("port {}", query.in_port), reason.clone()));
        }
        explain(&self.switch.snapshot(), query, &addresses, self.config.workers.flow_cache > 0, mono_now())
    }

    /// Every fixed limit of the engine.
    pub fn limits(&self) -> Vec<Limit> {
        limits::ALL.iter().map(|&(name, value, unit)| Limit { name: name.into(), value, unit: unit.into() }).collect()
    }
}

/// What the kernel lost of what veth-xdp pods sent.
fn veth_counters(kernel: XskStatistics) -> impl Iterator<Item = Counter> {
    let counters = [
        ("veth_rx_dropped", kernel.rx_dropped),
        ("veth_ring_full", kernel.ring_full),
        ("veth_fill_empty", kernel.fill_empty),
    ];
    counters.into_iter().map(|(name, count)| Counter { name: name.into(), count })
}

/// Why an address that no route covers has none.
const OUTSIDE: &str = "no route covers it: it is outside the cluster, and goes to the node's own stack";

/// The next hop of a route that follows from the configuration or from a port, in the words routes are stated in; or
/// why there is none.
fn implied(snapshot: &Snapshot, hop: NextHop) -> Result<(Via, Owner), &'static str> {
    match hop {
        NextHop::Local { port, .. } => {
            let name = snapshot.port(port).and_then(|entry| entry.name.parse().ok()).ok_or("its port is closing")?;
            Ok((Via::Port(name), Owner::File))
        }
        NextHop::NoSuchPod => Err("it is in this node's pod subnet, and no pod has it: drop:no_such_pod"),
        NextHop::NoRoute => Err("it is in the cluster, and no route covers it: drop:no_route"),
        NextHop::Blackhole => Ok((Via::Blackhole, Owner::File)),
        NextHop::Host => Ok((Via::Host, Owner::File)),
        NextHop::Outside | NextHop::Vtep(_) => Err(OUTSIDE),
    }
}

fn port_counters(counts: &PortCounts) -> PortCounters {
    PortCounters {
        rx_frames: counts.rx.frames + counts.tunnelled.frames,
        rx_segments: counts.rx.segments + counts.tunnelled.segments,
        rx_bytes: counts.rx.bytes + counts.tunnelled.bytes,
        rx_drops: counts.drops(),
        tx_frames: counts.tx.frames,
        tx_segments: counts.tx.segments,
        tx_bytes: counts.tx.bytes,
        tx_drops: counts.tx_drops,
    }
}
