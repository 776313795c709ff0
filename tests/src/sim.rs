//! The real engine without threads, clocks or privileges: one switch over memory ports, driven turn by turn.
//!
//! Time stands still until [`SimSwitch::advance`]. The counting law is checked after every run. Several switches
//! with a wire between them are a [`SimNet`]. What a device or the daemon does is not simulated.

mod net;
mod object;
mod port;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use podwire_control::model::{Key, Mac, Object, Vni};
use podwire_vswitch::compile::{Compiled, Device, HOST_PORT, Inputs, NodeSpec, PinnedMac, UPLINK_PORT, compile, empty};
use podwire_vswitch::frame::Outer;
use podwire_vswitch::id::{MonoNs, PortId};
use podwire_vswitch::port::RxStatus;
use podwire_vswitch::port::memory::{MemoryFrame, MemoryPeer, MemoryPort};
use podwire_vswitch::snapshot::{Role, Snapshot};
use podwire_vswitch::stats::{Event, PortReport, Totals, WorkerStats, totals};
use podwire_vswitch::switch::{pin_macs, retire_ports};
use podwire_vswitch::worker::Engine;

pub use net::{Faults, SimNet};
pub use object::{blackhole, bridge, host_route, peer_of_plan, port_route, route, static_mac, vtep};
pub use port::SimPort;

use crate::plan::{NodePlan, VNI};

/// Name of the host port.
pub const HOST: &str = HOST_PORT;
/// Name of the uplink.
pub const UPLINK: &str = UPLINK_PORT;
/// MTU of the underlay unless the node says otherwise, in bytes.
pub const UNDERLAY_MTU: u16 = 1_500;
/// MTU of the plan's pods and host ports: what fits a tunnel over IPv6, in bytes.
pub const POD_MTU: u16 = UNDERLAY_MTU - crate::plan::OVERHEAD6;

/// What the flow cache counts: the only thing that may differ with and without it.
pub const FLOW_EVENTS: [Event; 4] =
    [Event::FlowHits, Event::FlowMisses, Event::FlowInvalidations, Event::FlowEvictions];

/// Slots that have counters of their own; frames of ports beyond are counted together.
const COUNTED_PORTS: usize = 32;
/// Flows the cache keeps unless the test says otherwise.
const FLOWS: usize = 1_024;
/// When virtual time begins.
const START: MonoNs = MonoNs(1_000_000_000_000);

/// A node of the plan as the compiler sees it.
#[must_use]
pub fn planned_spec(plan: NodePlan) -> NodeSpec {
    NodeSpec {
        name: plan.name(),
        pod_cidrs: plan.pod_cidrs().to_vec(),
        cluster_cidrs: NodePlan::cluster_cidrs().to_vec(),
        vni: Vni::try_from(VNI).expect("the plan's VNI is one"),
        underlay_mtu: UNDERLAY_MTU,
        copy_dscp: false,
    }
}

/// One switch: engine, snapshot, memory ports and a clock of its own.
#[derive(Debug)]
pub struct SimSwitch {
    spec: NodeSpec,
    engine: Engine,
    stats: Arc<WorkerStats>,
    snapshot: Snapshot,
    pinned: Vec<PinnedMac>,
    objects: BTreeMap<Key, Object>,
    devices: HashMap<String, Device>,
    peers: BTreeMap<String, MemoryPeer>,
    /// Ports whose peer has gone.
    closed: Vec<PortId>,
    now: MonoNs,
}

impl SimSwitch {
    /// A switch with nothing on it, and a flow cache unless the environment's `PODWIRE_FLOW_CACHE` is `off`.
    #[must_use]
    pub fn new(spec: NodeSpec) -> Self {
        let off = std::env::var_os("PODWIRE_FLOW_CACHE").is_some_and(|value| value == "off");
        Self::with_flows(spec, if off { 0 } else { FLOWS })
    }

    /// A switch whose flow cache keeps so many flows; with 0 it is off.
    #[must_use]
    pub fn with_flows(spec: NodeSpec, flows: usize) -> Self {
        let stats = Arc::new(WorkerStats::new(COUNTED_PORTS));
        Self {
            engine: Engine::new(Arc::clone(&stats), flows),
            snapshot: empty(&spec),
            stats,
            spec,
            pinned: Vec::new(),
            objects: BTreeMap::new(),
            devices: HashMap::new(),
            peers: BTreeMap::new(),
            closed: Vec::new(),
            now: START,
        }
    }

    /// Node `n` of the plan, with a host port and an uplink that takes complete packets.
    #[must_use]
    pub fn planned(n: u8) -> Self {
        let mut switch = Self::new(planned_spec(NodePlan(n)));
        switch.host().uplink();
        switch
    }

    /// Adds the host port.
    pub fn host(&mut self) -> &mut Self {
        self.port(SimPort::host())
    }

    /// Adds the uplink. What is injected there starts at the VXLAN header and has `outer`; what is taken starts at
    /// the inner Ethernet header and has `encap`.
    pub fn uplink(&mut self) -> &mut Self {
        self.port(SimPort::uplink())
    }

    /// Adds a pod with these addresses on the node's pod segment, guarded, with all offloads.
    pub fn pod(&mut self, name: &str, addresses: &[IpNet]) -> &mut Self {
        self.port(SimPort::pod(name, addresses))
    }

    /// Adds a port, or replaces the one of that name, and publishes.
    pub fn port(&mut self, port: SimPort) -> &mut Self {
        let (memory, peer) = MemoryPort::pair_with_capacity(port.caps, port.queue_frames);
        let mac = port.object.as_ref().map_or(self.spec.gateway_mac(), |object| object.mac_in_force());
        self.devices.insert(port.name.clone(), Device { mac, mtu: port.mtu, caps: port.caps });
        self.peers.insert(port.name.clone(), peer);
        if let Some(object) = port.object {
            let object = Object::Port(object);
            self.objects.insert(object.key(), object);
        }
        let compiled = self.compile();
        let id = find(&compiled.snapshot, &port.name).expect("a port of a known bridge has a slot");
        self.engine.attach(id, vec![Box::new(memory.rx)], Box::new(memory.tx));
        self.closed.retain(|&closed| closed != id);
        self.publish(compiled);
        self
    }

    /// Takes a port away: published first, then closed, as the daemon does it.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn remove_port(&mut self, name: &str) -> &mut Self {
        let id = self.port_id(name);
        self.devices.remove(name);
        self.objects.retain(|key, _| !matches!(key, Key::Port(port) if port.as_str() == name));
        self.publish_objects();
        self.engine.detach(id);
        self.peers.remove(name);
        self
    }

    /// States objects beside those that are there, in place of those of the same keys, and publishes.
    pub fn state(&mut self, objects: impl IntoIterator<Item = Object>) -> &mut Self {
        self.objects.extend(objects.into_iter().map(|object| (object.key(), object)));
        self.publish_objects();
        self
    }

    /// Takes an object back, and publishes.
    pub fn withdraw(&mut self, key: &Key) -> &mut Self {
        self.objects.remove(key);
        self.publish_objects();
        self
    }

    fn compile(&self) -> Compiled {
        let objects: Vec<&Object> = self.objects.values().collect();
        compile(&Inputs { node: &self.spec, objects: &objects, devices: &self.devices, previous: &self.snapshot })
    }

    fn publish_objects(&mut self) {
        let compiled = self.compile();
        self.publish(compiled);
    }

    /// What `Switch::publish` does, where no worker has to be waited for.
    fn publish(&mut self, compiled: Compiled) {
        pin_macs(&self.pinned, &compiled, self.now);
        self.pinned = compiled.pinned;
        let old = std::mem::replace(&mut self.snapshot, compiled.snapshot);
        retire_ports(&old, &self.snapshot);
    }

    /// Lets a port receive a frame with the next run.
    ///
    /// # Panics
    /// When there is no such port or its queue is full.
    #[track_caller]
    pub fn inject(&mut self, port: &str, frame: MemoryFrame) -> &mut Self {
        assert!(self.peer(port).inject(frame), "port {port} takes no more frames");
        self
    }

    /// Lets the uplink receive a VXLAN datagram's payload from a remote address; `tos` is the outer header's.
    #[track_caller]
    pub fn inject_tunnelled(&mut self, remote: IpAddr, tos: u8, payload: impl Into<Vec<u8>>) -> &mut Self {
        self.inject(UPLINK, MemoryFrame::new(payload).with_outer(Outer { remote, tos }))
    }

    /// Gives every port its turns until none receives anything; returns how many frames were received.
    ///
    /// # Panics
    /// When a received frame has no outcome, or more than one.
    #[track_caller]
    pub fn run(&mut self) -> usize {
        let mut received = 0;
        loop {
            let ports: Vec<PortId> = occupied(&self.snapshot).map(|(id, _)| id).collect();
            let frames: usize = ports.into_iter().map(|port| self.turn(port)).sum();
            received += frames;
            if frames == 0 {
                break;
            }
        }
        if let Err(broken) = self.totals().check() {
            panic!("node {}: {broken}; {}", self.spec.name, self.totals());
        }
        received
    }

    /// One turn of one port, published or not; returns how many frames it received.
    pub fn turn(&mut self, port: PortId) -> usize {
        let turn = self.engine.turn(&self.snapshot, self.now, port);
        if turn.status == RxStatus::Closed {
            self.engine.close_rx(port);
            self.closed.push(port);
        }
        turn.frames
    }

    /// Sends a frame of the switch's own out of a port.
    pub fn originate(&mut self, port: &str, bytes: &[u8]) -> &mut Self {
        let id = self.port_id(port);
        self.engine.originate(&self.snapshot, self.now, id, bytes);
        self
    }

    /// Takes what was sent out of a port, in order.
    ///
    /// # Panics
    /// When there is no such port.
    #[must_use]
    #[track_caller]
    pub fn take(&self, port: &str) -> Vec<MemoryFrame> {
        self.peer(port).take()
    }

    /// Takes what was sent out of all ports, by port name; ports that sent nothing are left out.
    #[must_use]
    pub fn take_all(&self) -> BTreeMap<String, Vec<MemoryFrame>> {
        let taken = self.peers.iter().map(|(name, peer)| (name.clone(), peer.take()));
        taken.filter(|(_, frames)| !frames.is_empty()).collect()
    }

    /// The test's end of a port, to fill, to break or to look at.
    ///
    /// # Panics
    /// When there is no such port.
    #[must_use]
    #[track_caller]
    pub fn peer(&self, port: &str) -> &MemoryPeer {
        self.peers.get(port).unwrap_or_else(|| panic!("node {} has no port {port}", self.spec.name))
    }

    /// Lets time pass. Nothing runs by itself.
    pub fn advance(&mut self, by: Duration) -> &mut Self {
        self.now.0 += u64::try_from(by.as_nanos()).expect("virtual time lasts 500 years");
        self
    }

    /// The time it is.
    #[must_use]
    pub fn now(&self) -> MonoNs {
        self.now
    }

    /// All counters.
    #[must_use]
    pub fn totals(&self) -> Totals {
        totals(std::slice::from_ref(&self.stats))
    }

    /// One port's counters; a VTEP's name stands for its tunnel.
    #[must_use]
    #[track_caller]
    pub fn counters(&self, port: &str) -> PortReport {
        self.stats.port_report(self.port_id(port))
    }

    /// Ports whose device has gone, in the order it was noticed.
    #[must_use]
    pub fn closed(&self) -> &[PortId] {
        &self.closed
    }

    /// The slot of a port, or of the tunnel to a VTEP.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn port_id(&self, name: &str) -> PortId {
        let tunnel = || occupied(&self.snapshot).find(|(_, entry)| entry.name == name).map(|(id, _)| id);
        find(&self.snapshot, name)
            .or_else(tunnel)
            .unwrap_or_else(|| panic!("node {} has no port {name}", self.spec.name))
    }

    /// What is published now.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What was said of the node.
    #[must_use]
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The gateway's MAC.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        self.spec.gateway_mac()
    }

    /// The MAC that other nodes address.
    #[must_use]
    pub fn vtep_mac(&self) -> Mac {
        self.spec.vtep_mac()
    }
}

fn occupied(snapshot: &Snapshot) -> impl Iterator<Item = (PortId, &podwire_vswitch::snapshot::PortEntry)> {
    let id = |slot: usize| PortId(u16::try_from(slot).expect("slots have 16 bits"));
    snapshot.ports.iter().enumerate().filter_map(move |(slot, entry)| Some((id(slot), entry.as_ref()?)))
}

/// The slot of a port that is no tunnel.
fn find(snapshot: &Snapshot, name: &str) -> Option<PortId> {
    let own =
        |entry: &podwire_vswitch::snapshot::PortEntry| entry.name == name && !matches!(entry.role, Role::Tunnel(_));
    occupied(snapshot).find(|(_, entry)| own(entry)).map(|(id, _)| id)
}
