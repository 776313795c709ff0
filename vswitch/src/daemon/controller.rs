//! The daemon's one state machine: the ledger of what is wanted, the devices that are open, and the switch that runs.
//!
//! What the start opens is in `start`, how a request is carried out in `change`, what happens by itself in `watch`, SIGHUP
//! in `reload`, what is told in `reading` and `uplink`, containers' interfaces in `attach` and `vanished`, their addresses in
//! `ipam`. Every method runs on the control side, under one lock (see `backend`).

mod attach;
mod change;
mod ipam;
mod path_mtu;
mod reading;
mod reload;
mod start;
mod uplink;
mod vanished;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use podwire_control::model::{Applied, IpRange, Key, Object, Owner, Port, Refusal};

use super::attachments::Attachments;
use super::config::{Config, Poll};
use super::devices::{Closing, DeviceError, Devices, together, underlay_mtu};
use super::events::EventBus;
use super::ipam::Ipam;
use super::ledger::{Change, Ledger};
use super::nat::{Mapping, Nat, NatError, NatSpec};
use super::netns_dirs;
use super::store::{Place, Remembered, Store};
use crate::compile::{Compiled, Inputs, NodeSpec, compile, empty};
use crate::id::{MonoNs, PortId};
use crate::snapshot::{Role, Snapshot, inner_mtu};
use crate::stats::PortBaseline;
use crate::switch::{PortHalves, Switch, SwitchError, WorkersSpec};
use crate::sys::affinity::{AffinityError, allowed_cpus};
use crate::sys::clock::mono_now;
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
    ipam: Ipam,
    /// Ranges stated by the CLI, those that do not fit the file's included.
    cli_ranges: Vec<IpRange>,
    devices: Devices,
    nat: Nat,
    switch: Switch,
    events: EventBus,
    attachments: Attachments,
    spool: vanished::Spool,
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
        let (space, _) = ipam::space(&config, &remembered.ranges);
        let attachments = Attachments::new(remembered.attachments);
        let (ipam, useless) = Ipam::new(&space, attachments.leases(), remembered.releases);
        let mut controller = Self {
            devices: Devices::new(switch.worker_count(), config.uplink.is_some(), config.offloads),
            ledger: Ledger::restore(remembered.objects),
            nat: Nat::new(NatSpec { mappings: attachments.mappings(), ..nat_spec(&config) }),
            attachments,
            spool: vanished::Spool::default(),
            config,
            node,
            store,
            ipam,
            cli_ranges: remembered.ranges,
            switch,
            events,
            closed: HashMap::new(),
            baselines: HashMap::new(),
            warnings,
            started: mono_now(),
            watch: watch::Watch::default(),
        };
        if let Err(error) = controller.forget_releases(&useless) {
            controller.warnings.push(error.to_string());
        }
        for warning in controller.range_warnings() {
            tracing::warn!("{warning}");
        }
        // Before their devices would be opened.
        controller.reconcile_attachments(|_| true);
        controller.bring_up()?;
        controller.carry_out_spool();
        controller.nat.sync_or_warn();
        Ok(controller)
    }

    /// Whether every worker makes a pass when it is woken.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] names one that does not.
    pub fn turning(&self) -> Result<(), SwitchError> {
        self.switch.turning()
    }

    fn open_pod(&mut self, port: &Port) -> Result<PortHalves, DeviceError> {
        netns_dirs::check(&port.netns, &self.config.node.netns_dirs)?;
        let mtu = self.pod_mtu();
        self.devices.open_pod(port, &self.node, mtu)
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
        let stated: Vec<Key> = objects.iter().map(Object::key).collect();
        let plan = self.ledger.apply(owner, objects).map_err(refusals)?;
        self.carry_out(plan, &stated)
    }

    /// Changes some of what an owner has stated.
    ///
    /// # Errors
    /// Refusals that name each object; nothing has changed then.
    pub fn change(&mut self, owner: Owner, change: Change) -> Result<Applied, Vec<Refusal>> {
        let stated: Vec<Key> = change.upserts.iter().map(Object::key).collect();
        let plan = self.ledger.change(owner, change).map_err(refusals)?;
        self.carry_out(plan, &stated)
    }

    /// Makes these the ports of the node that lead to pods, see [`Nat::set_mappings`].
    ///
    /// # Errors
    /// [`NatError`].
    pub fn set_host_ports(&mut self, mappings: Vec<Mapping>) -> Result<(), NatError> {
        match self.nat.mappings() == mappings {
            true => Ok(()),
            false => self.nat.set_mappings(mappings),
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
        let mut opened =
            opened.into_iter().filter_map(|(name, halves)| Some((find_port(&compiled.snapshot, &name)?, halves)));
        // A worker that takes no command is stuck, and published to all the same: the others forward.
        let attached = opened.try_for_each(|(id, halves)| self.switch.attach(id, halves));
        // Before a frame can be counted in a slot that is new or has another port now.
        let stats: Vec<_> = self.switch.workers().map(|(stats, _)| Arc::clone(stats)).collect();
        for (id, name) in named_ports(&compiled.snapshot) {
            if old.port(id).is_none_or(|before| before.name != name) {
                self.baselines.insert(id, PortBaseline::capture(&stats, id));
            }
        }
        let published = self.switch.publish(compiled, mono_now());
        if !Arc::ptr_eq(&old.vteps, &self.switch.snapshot().vteps) {
            self.watch_underlay();
        }
        attached.and(published)
    }

    fn detach_port(&mut self, id: PortId) {
        if let Err(error) = self.switch.detach(id) {
            tracing::error!(port = %id, %error, "a worker keeps a port that is gone");
        }
    }

    fn port_id(&self, name: &str) -> Option<PortId> {
        find_port(&self.switch.snapshot(), name)
    }
}

/// Removes interfaces, several at a time: the kernel takes some 20 ms for each, nearly all of it waiting.
fn finish(closing: Vec<Closing>) {
    together(closing, |device| {
        if let Err(error) = device.finish() {
            tracing::warn!(%error, "an interface could not be removed; `ip link del` takes it away");
        }
    });
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

fn nat_spec(config: &Config) -> NatSpec {
    NatSpec {
        pod_cidrs: config.node.pod_cidrs().collect(),
        cluster_cidrs: config.node.cluster_cidrs.clone(),
        host_interface: config.host.interface.clone(),
        masquerade: config.host.masquerade,
        mappings: Vec::new(),
        underlay: config.uplink.iter().flat_map(super::config::Uplink::addresses).collect(),
        tunnel_port: config.vxlan.port,
    }
}

fn workers_spec(config: &Config) -> Result<WorkersSpec, AffinityError> {
    let allowed = allowed_cpus();
    let cpus = match &config.workers.cpus {
        // One worker, where it may be pinned: it then shares its core's caches with nobody it need not
        // (docs/decisions/0009).
        None => vec![allowed.numbers().first().copied()],
        Some(list) => {
            let wanted: crate::sys::affinity::CpuList = list.text.parse()?;
            wanted.absolute(&allowed)?.into_iter().map(Some).collect()
        }
    };
    let hold = config.uplink.as_ref().map_or(0, |uplink| uplink.hold_us);
    Ok(WorkersSpec {
        cpus,
        poll: poll_mode(config.workers.poll),
        flows: config.workers.flow_cache,
        hold: Duration::from_micros(hold.into()),
    })
}

fn poll_mode(poll: Poll) -> PollMode {
    match poll {
        Poll::Adaptive => PollMode::Adaptive,
        Poll::Busy => PollMode::Busy,
        Poll::Interrupt => PollMode::Interrupt,
    }
}

fn open_store(config: &Config) -> (Option<Store>, Remembered, Vec<String>) {
    match Store::open(Place::of(config)) {
        Ok((store, remembered)) => (Some(store), remembered, Vec::new()),
        Err(error) => {
            tracing::error!(%error, "podwired runs without its store and will forget what it is told");
            (None, Remembered::default(), vec![error.to_string()])
        }
    }
}
