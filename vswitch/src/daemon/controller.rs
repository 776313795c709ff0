//! The daemon's one state machine: the ledger of what is wanted, the devices that are open, and the switch that runs.
//!
//! A request is planned, its devices are opened, it is stored and published, in that order; a failure undoes what was
//! done before it. Every method runs on the control side, under one lock (see `backend`).

mod reading;
mod reload;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;

use podwire_control::model::{Action, Applied, Changed, EventKind, Key, Mac, Object, Owner, Port, Refusal};

use super::config::{Config, Poll};
use super::devices::{Closing, DeviceError, Devices, underlay_mtu};
use super::events::EventBus;
use super::ledger::{Change, Changes, Ledger, Plan};
use super::store::{Store, StoreError};
use crate::compile::{Compiled, HOST_PORT, Inputs, NodeSpec, UPLINK_PORT, compile, empty};
use crate::id::{MonoNs, PortId};
use crate::snapshot::{Role, Snapshot, inner_mtu};
use crate::stats::PortBaseline;
use crate::switch::{PortHalves, Switch, SwitchError, WorkersSpec};
use crate::sys::affinity::{AffinityError, allowed_cpus};
use crate::sys::clock::mono_now;
use crate::wire::nd;
use crate::worker::PollMode;
pub use watch::TICK_MS;

/// The daemon can not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The workers.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The CPUs.
    #[error("workers.cpus: {0}")]
    Affinity(#[from] AffinityError),
}

/// Why a port does not forward.
type Reason = String;

/// Everything the daemon knows and runs.
#[derive(Debug)]
pub struct Controller {
    config: Config,
    node: NodeSpec,
    ledger: Ledger,
    store: Option<Store>,
    devices: Devices,
    switch: Switch,
    events: EventBus,
    /// Ports whose device is not open, and why.
    closed: HashMap<String, Reason>,
    /// Counters of a slot when its present port got it.
    baselines: HashMap<PortId, PortBaseline>,
    /// What an operator should know, from the start on.
    warnings: Vec<String>,
    started: MonoNs,
    watch: watch::Watch,
}

impl Controller {
    /// Starts the switch: workers, host port, uplink, and every port that the store remembers.
    ///
    /// # Errors
    /// [`StartError`]. A store that can not be used is a warning: forwarding matters more.
    pub fn start(config: Config, events: EventBus) -> Result<Self, StartError> {
        let node = node_spec(&config, underlay_mtu(&config)?);
        let workers = workers_spec(&config)?;
        let switch = Switch::start(&workers, empty(&node))?;
        let (store, remembered, warnings) = open_store(&config);
        let mut controller = Self {
            devices: Devices::new(switch.worker_count()),
            ledger: Ledger::restore(remembered),
            config,
            node,
            store,
            switch,
            events,
            closed: HashMap::new(),
            baselines: HashMap::new(),
            warnings,
            started: mono_now(),
            watch: watch::Watch::default(),
        };
        controller.bring_up()?;
        Ok(controller)
    }

    fn bring_up(&mut self) -> Result<(), StartError> {
        let mtu = self.pod_mtu();
        let mut opened = Vec::new();
        let host = self.devices.open_host(&self.config.host.interface, &self.node, mtu)?;
        opened.push((HOST_PORT.to_owned(), host));
        if let Some(uplink) = &self.config.uplink {
            let halves = self.devices.open_uplink(uplink, self.config.vxlan.port, self.node.underlay_mtu)?;
            opened.push((UPLINK_PORT.to_owned(), halves));
        }
        let ports: Vec<Port> = self.ledger.effective().ports().map(|(_, port)| port.clone()).collect();
        for port in ports {
            match self.devices.open_pod(&port, &self.node, mtu) {
                Ok(halves) => opened.push((port.name.to_string(), halves)),
                Err(error) => {
                    tracing::warn!(port = %port.name, %error, "a port of before can not be opened");
                    self.closed.insert(port.name.to_string(), error.to_string());
                }
            }
        }
        let compiled = self.compile(&self.ledger);
        self.publish(compiled, opened)?;
        Ok(())
    }

    /// The MTU of ports that state none: what the narrowest tunnel carries.
    fn pod_mtu(&self) -> u16 {
        let addresses = self.config.uplink.iter().flat_map(super::config::Uplink::addresses);
        let through = addresses.map(|address| inner_mtu(self.node.underlay_mtu, address)).min();
        through.unwrap_or(self.node.underlay_mtu)
    }

    /// Whether the owner has stated this object.
    #[must_use]
    pub fn has(&self, owner: Owner, key: &Key) -> bool {
        self.ledger.objects(owner).any(|(stated, _)| stated == key)
    }

    /// Replaces all that an owner has stated.
    ///
    /// # Errors
    /// Refusals that name each object; nothing has changed then.
    pub fn apply(&mut self, owner: Owner, objects: Vec<Object>) -> Result<Applied, Vec<Refusal>> {
        let stated = objects.len();
        let plan = self.ledger.apply(owner, objects).map_err(refusals)?;
        self.carry_out(plan, stated)
    }

    /// Changes some of what an owner has stated.
    ///
    /// # Errors
    /// Refusals that name each object; nothing has changed then.
    pub fn change(&mut self, owner: Owner, change: Change) -> Result<Applied, Vec<Refusal>> {
        let stated = change.upserts.len();
        let plan = self.ledger.change(owner, change).map_err(refusals)?;
        self.carry_out(plan, stated)
    }

    fn carry_out(&mut self, plan: Plan, stated: usize) -> Result<Applied, Vec<Refusal>> {
        let reopen = self.reopenable(&plan);
        let applied = |generation| applied(generation, &plan.own, stated);
        if plan.own.is_empty() && plan.effective.is_empty() && reopen.is_empty() {
            return Ok(applied(self.switch.snapshot().generation));
        }
        let mut work = Work::default();
        let done = self.open_ports(&plan, &reopen, &mut work).and_then(|()| self.remember(&plan));
        if let Err(refusals) = done {
            self.undo(work);
            return Err(refusals);
        }
        let gone: Vec<(String, Option<PortId>)> = plan
            .effective
            .removed
            .iter()
            .filter_map(port_name)
            .map(|name| {
                let id = self.port_id(&name);
                (name, id)
            })
            .collect();
        for (name, _) in &gone {
            self.closed.remove(name);
            work.closing.push(self.devices.close(name));
        }
        let compiled = self.compile(&plan.next);
        self.ledger = plan.next.clone();
        let published = self.publish(compiled, work.opened);
        for id in gone.iter().filter_map(|(_, id)| *id) {
            self.detach(id);
        }
        finish(work.closing);
        let generation = published.map_err(|error| vec![Refusal::new("switch", error.to_string())])?;
        self.tell(&plan.effective, generation);
        self.announce(plan.effective.added.iter().chain(&plan.effective.changed).filter_map(port_name));
        Ok(applied(generation))
    }

    /// Ports that are stated again while their device is closed: the owner wants another try.
    fn reopenable(&self, plan: &Plan) -> Vec<Key> {
        let closed = plan.next.objects(plan.owner).filter_map(|(key, _)| {
            let name = port_name(key)?;
            (self.closed.contains_key(&name) && !plan.effective.touches(key)).then(|| key.clone())
        });
        closed.collect()
    }

    /// Opens the devices of new and changed ports. A changed port's old device goes first: it has the same name.
    fn open_ports(&mut self, plan: &Plan, reopen: &[Key], work: &mut Work) -> Result<(), Vec<Refusal>> {
        let mtu = self.pod_mtu();
        let effective = plan.next.effective();
        let mut refusals = Vec::new();
        let before: HashMap<Key, Port> =
            self.ledger.effective().ports().map(|(_, port)| (Key::Port(port.name.clone()), port.clone())).collect();
        for key in plan.effective.added.iter().chain(&plan.effective.changed).chain(reopen) {
            let Some((_, Object::Port(port))) = effective.get(key) else { continue };
            if let Some(old) = before.get(key).filter(|_| self.devices.is_open(port.name.as_str())) {
                if same_device(old, port) {
                    continue;
                }
                work.replaced.push(old.clone());
                finish(vec![self.devices.close(port.name.as_str())]);
            }
            match self.devices.open_pod(port, &self.node, mtu) {
                Ok(halves) => {
                    self.closed.remove(port.name.as_str());
                    work.opened.push((port.name.to_string(), halves));
                }
                Err(error) => refusals.push(Refusal::new(key, error.to_string())),
            }
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    fn remember(&mut self, plan: &Plan) -> Result<(), Vec<Refusal>> {
        let Some(store) = self.store.as_mut().filter(|_| Store::keeps(plan.owner)) else { return Ok(()) };
        let touched = plan.next.objects(plan.owner).filter(|(key, _)| plan.own.touches(key));
        let upserts: Vec<Object> = touched.map(|(_, object)| object.clone()).collect();
        let stored = store.commit(plan.owner, &upserts, &plan.own.removed);
        stored.map_err(|error: StoreError| vec![Refusal::new("store", error.to_string())])
    }

    /// Takes back what was opened for a request that failed.
    fn undo(&mut self, work: Work) {
        let mtu = self.pod_mtu();
        let opened: Vec<String> = work.opened.into_iter().map(|(name, _)| name).collect();
        finish(opened.iter().map(|name| self.devices.close(name)).collect());
        let mut again = Vec::new();
        for port in work.replaced {
            match self.devices.open_pod(&port, &self.node, mtu) {
                Ok(halves) => again.push((port.name.to_string(), halves)),
                Err(error) => {
                    self.closed.insert(port.name.to_string(), error.to_string());
                }
            }
        }
        if !again.is_empty() || !opened.is_empty() {
            let compiled = self.compile(&self.ledger);
            if let Err(error) = self.publish(compiled, again) {
                tracing::error!(%error, "a refused request could not be taken back whole");
            }
        }
    }

    fn compile(&self, ledger: &Ledger) -> Compiled {
        let effective = ledger.effective();
        let objects: Vec<&Object> = effective.iter().map(|(_, _, object)| object).collect();
        let previous = self.switch.snapshot();
        compile(&Inputs { node: &self.node, objects: &objects, devices: self.devices.table(), previous: &previous })
    }

    /// Hands the halves to the workers under the slots the snapshot gives their ports, and publishes it.
    fn publish(&mut self, compiled: Compiled, opened: Vec<(String, PortHalves)>) -> Result<u64, SwitchError> {
        let old = self.switch.snapshot();
        for (name, halves) in opened {
            if let Some(id) = find_port(&compiled.snapshot, &name) {
                self.switch.attach(id, halves)?;
            }
        }
        // Before the workers see the snapshot: the first thing they do then is to receive from the new ports.
        let stats: Vec<_> = self.switch.workers().map(|(stats, _)| std::sync::Arc::clone(stats)).collect();
        for (id, name) in named_ports(&compiled.snapshot) {
            if old.port(id).is_none_or(|before| before.name != name) {
                self.baselines.insert(id, PortBaseline::capture(&stats, id));
            }
        }
        self.switch.publish(compiled, mono_now())
    }

    fn detach(&mut self, id: PortId) {
        if let Err(error) = self.switch.detach(id) {
            tracing::error!(port = %id, %error, "a worker keeps a port that is gone");
        }
    }

    fn port_id(&self, name: &str) -> Option<PortId> {
        find_port(&self.switch.snapshot(), name)
    }

    fn tell(&self, changes: &Changes, generation: u64) {
        let lists = [(&changes.added, "added"), (&changes.changed, "changed"), (&changes.removed, "removed")];
        for (keys, what) in lists {
            for key in keys {
                let kind = match (key, what) {
                    (Key::Port(_), "removed") => EventKind::PortRemoved,
                    (Key::Port(_), _) => EventKind::PortAdded,
                    (Key::Bridge(_) | Key::Mac { .. }, _) => EventKind::BridgeChanged,
                    (Key::Route(_), _) => EventKind::RouteChanged,
                    (Key::Vtep(_), _) => EventKind::VtepChanged,
                };
                self.events.publish(kind, key, what);
            }
        }
        let text = format!("every worker uses generation {generation}");
        self.events.publish(EventKind::GenerationPublished, "switch", text);
    }

    /// Tells the members of the pod segment where new pods are, so that nobody sends to a MAC of before.
    fn announce(&self, names: impl Iterator<Item = String>) {
        let snapshot = self.switch.snapshot();
        let effective = self.ledger.effective();
        for name in names {
            let Some(port) = name.parse().ok().and_then(|name| effective.port(&name)) else { continue };
            let Some(own) = find_port(&snapshot, &name) else { continue };
            let segment = snapshot.bridge(crate::snapshot::POD_SEGMENT).map(|bridge| bridge.members.clone());
            for frame in port.addresses.iter().filter_map(|own| announcement(port.mac_in_force(), own.addr())) {
                for &member in segment.iter().flatten().filter(|&&member| member != own) {
                    // An announcement that is lost is made good by the next question.
                    let _ = self.switch.originate(member, frame.clone());
                }
            }
        }
    }
}

/// What a request has done so far.
#[derive(Default)]
struct Work {
    opened: Vec<(String, PortHalves)>,
    /// Ports as they were, whose device had to go for the changed one.
    replaced: Vec<Port>,
    closing: Vec<Closing>,
}

/// The frame that says `address` is at `mac`.
fn announcement(mac: Mac, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(own) => Some(nd::arp_request(mac, own, own).to_vec()),
        IpAddr::V6(own) => nd::announcement(mac, own),
    }
}

fn finish(closing: Vec<Closing>) {
    for device in closing {
        if let Err(error) = device.finish() {
            tracing::warn!(%error, "an interface could not be removed; `ip link del` takes it away");
        }
    }
}

/// Whether the two are served by the same device, so that it need not be made anew.
fn same_device(old: &Port, new: &Port) -> bool {
    let device = |port: &Port| {
        (port.kind, port.netns.clone(), port.ifname.clone(), port.addresses.clone(), port.mac_in_force(), port.mtu)
    };
    device(old) == device(new) && old.bridge.is_none() == new.bridge.is_none()
}

fn port_name(key: &Key) -> Option<String> {
    match key {
        Key::Port(name) => Some(name.to_string()),
        _ => None,
    }
}

fn named_ports(snapshot: &Snapshot) -> impl Iterator<Item = (PortId, &str)> {
    snapshot.ports.iter().enumerate().filter_map(|(slot, entry)| {
        let id = PortId(u16::try_from(slot).ok()?);
        Some((id, entry.as_ref()?.name.as_str()))
    })
}

/// The slot of a port that is no tunnel.
fn find_port(snapshot: &Snapshot, name: &str) -> Option<PortId> {
    let is_tunnel = |id| snapshot.port(id).is_some_and(|entry| matches!(entry.role, Role::Tunnel(_)));
    named_ports(snapshot).find(|&(id, found)| found == name && !is_tunnel(id)).map(|(id, _)| id)
}

fn refusals(refused: Vec<super::ledger::Refusal>) -> Vec<Refusal> {
    refused.into_iter().map(|refusal| Refusal::new(refusal.key, refusal.reason)).collect()
}

fn applied(generation: u64, own: &Changes, stated: usize) -> Applied {
    let lists = [(&own.added, Action::Added), (&own.changed, Action::Changed), (&own.removed, Action::Removed)];
    let changed: Vec<Changed> = lists
        .into_iter()
        .flat_map(|(keys, action)| keys.iter().map(move |key| Changed { key: key.clone(), action }))
        .collect();
    let altered = own.added.len() + own.changed.len();
    Applied { generation, changed, unchanged: stated.saturating_sub(altered) as u64 }
}

fn node_spec(config: &Config, underlay_mtu: u16) -> NodeSpec {
    NodeSpec {
        name: config.node.name.to_string(),
        pod_cidrs: config.node.pod_cidrs().collect(),
        cluster_cidrs: config.node.cluster_cidrs.clone(),
        vni: config.vxlan.vni,
        underlay_mtu,
        copy_dscp: config.vxlan.dscp_copy,
    }
}

fn workers_spec(config: &Config) -> Result<WorkersSpec, AffinityError> {
    let allowed = allowed_cpus();
    let cpus = match &config.workers.cpus {
        None => vec![None],
        Some(list) => {
            let wanted: crate::sys::affinity::CpuList = list.text.parse()?;
            wanted.absolute(&allowed)?.into_iter().map(Some).collect()
        }
    };
    Ok(WorkersSpec { cpus, poll: poll_mode(config.workers.poll), cores: allowed.numbers().len() })
}

fn poll_mode(poll: Poll) -> PollMode {
    match poll {
        Poll::Adaptive => PollMode::Adaptive,
        Poll::Busy => PollMode::Busy,
        Poll::Interrupt => PollMode::Interrupt,
    }
}

fn open_store(config: &Config) -> (Option<Store>, Vec<(Owner, Object)>, Vec<String>) {
    let opened = Store::open(&config.control.state_dir, config.node.name.as_str())
        .and_then(|mut store| store.load().map(|objects| (store, objects)));
    match opened {
        Ok((store, objects)) => (Some(store), objects, Vec::new()),
        Err(error) => {
            tracing::error!(%error, "podwired runs without its store and will forget what it is told");
            (None, Vec::new(), vec![error.to_string()])
        }
    }
}
