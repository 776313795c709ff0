//! The decision: what happens to each frame of a batch, as a pure function.
//!
//! `forward` reads a snapshot, a worker's own state and a time, and writes verdicts, ways out and rewritten
//! headers into the batch. No system call, clock, allocation, log line or unsafe code. A frame goes forward
//! only: ingress, decap, bridge, route, encap; a routed frame ends in an egress and never re-enters. First all frames of
//! a batch are classified (parsed, decapsulated, hashed), then each is acted on in order: by what the flow cache kept of
//! its flow, or by the stages. `podwire trace` runs the same code with a [`Recorder`].

mod bridge;
mod decap;
mod encap;
mod flow;
mod guard;
mod icmp_error;
mod ingress;
mod limit;
mod probe;
mod resolve;
mod route;
mod state;

pub use encap::deliveries;
pub use probe::{NoProbe, Probe, Recorder, Stage, Step};
pub use state::WorkerState;

use crate::frame::{Batch, Checksum, Delivery, Egress, Item};
use crate::id::{BridgeId, MonoNs, PortId};
use crate::outcome::{DropReason, PuntReason, Verdict};
use crate::segment::verify_l4;
use crate::snapshot::{POD_SEGMENT, PortEntry, Role, Snapshot};
use crate::stats::Event;
use crate::table::flow::Found;
use crate::wire::Plain;
use flow::Trail;

/// Decides every frame of the batch.
pub fn forward<P: Probe>(snapshot: &Snapshot, state: &mut WorkerState, now: MonoNs, batch: &mut Batch, probe: &mut P) {
    let mut arrivals = std::mem::take(&mut state.arrivals);
    let mut pass = Pass::new(snapshot, state, now, probe);
    pass.classify(batch.items_mut(), &mut arrivals);
    for (item, arrival) in batch.items_mut().iter_mut().zip(&arrivals) {
        match arrival.ended {
            None if arrival.is_flow => pass.decide_flow(item, arrival),
            None => pass.stages(item, arrival),
            Some(reason) => item.verdict = Verdict::Drop(reason),
        }
        pass.note_limits(item);
        pass.probe.note(Stage::Verdict, || item.verdict.name());
    }
    pass.count_flows();
    state.arrivals = arrivals;
}

/// Tells the sender of a packet that the underlay has just refused as too long what does fit, so that it need not lose
/// a second one to learn it. The answer is built in the packet's place; false when there is none to send.
pub fn answer_too_big(snapshot: &Snapshot, state: &mut WorkerState, now: MonoNs, item: &mut Item) -> bool {
    let Some(&encap) = item.egress.encap() else { return false };
    let port = item.frame.ingress;
    let (Some(entry), Some(vtep)) = (snapshot.port(port), snapshot.vteps.get(encap.vtep)) else { return false };
    let Some(bridge) = entry.bridge.filter(|&bridge| bridge == POD_SEGMENT) else { return false };
    if item.read_headers().is_err() {
        return false;
    }
    // The router has put its own MAC there; the sender is behind the port.
    item.headers.src = entry.mac;
    let mtu = vtep.mtu(&snapshot.node, encap.remote);
    let mut nobody = NoProbe;
    let mut pass = Pass::new(snapshot, state, now, &mut nobody);
    let origin = Origin { port, role: entry.role, bridge };
    // Where the underlay did not say what fits, or the packet may be fragmented, there is nothing to tell.
    let Some(decision) = pass.too_big(item, origin, mtu) else { return false };
    item.egress = decision.egress.unwrap_or(Egress::None);
    item.egress != Egress::None
}

/// What the stages share while they decide a batch.
pub(crate) struct Pass<'a, P> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) state: &'a mut WorkerState,
    pub(crate) now: MonoNs,
    /// `now` in whole seconds.
    pub(crate) now_s: u64,
    pub(crate) probe: &'a mut P,
    /// What the stages leave of the frame at hand.
    pub(crate) trail: Trail,
    /// Frames of this pass that the flow cache was asked for, those it decided, and those of which what it had kept was
    /// outdated.
    pub(crate) flows_asked: u64,
    pub(crate) hits: u64,
    pub(crate) outdated: u64,
}

impl<'a, P: Probe> Pass<'a, P> {
    fn new(snapshot: &'a Snapshot, state: &'a mut WorkerState, now: MonoNs, probe: &'a mut P) -> Self {
        Self {
            snapshot,
            state,
            now,
            now_s: now.seconds(),
            probe,
            trail: Trail::EMPTY,
            flows_asked: 0,
            hits: 0,
            outdated: 0,
        }
    }

    /// Reads all frames of a batch, then looks all their flows up, in steps, so that the cache misses of a step overlap.
    fn classify(&mut self, items: &mut [Item], arrivals: &mut [Arrival]) {
        let mut flows = 0;
        for (item, arrival) in items.iter_mut().zip(&mut *arrivals) {
            let read = self.ingress(item, arrival);
            arrival.ended = read.err();
            flows += u64::from(arrival.is_flow);
        }
        self.flows_asked = flows;
        if flows == 0 {
            return;
        }
        let flows = &self.state.flows;
        let arrivals = &mut arrivals[..items.len()];
        for arrival in arrivals.iter_mut().filter(|arrival| arrival.is_flow) {
            arrival.candidate = flows.candidate(arrival.plain.flow_hash);
        }
        for arrival in arrivals.iter_mut().filter(|arrival| arrival.is_flow) {
            let kept = |found: &Found| flows.look(*found, arrival.plain.flow_hash);
            arrival.candidate =
                arrival.candidate.filter(|found| kept(found).is_some_and(|kept| kept.is_of(self.snapshot)));
        }
    }

    /// Lets the stages behind ingress decide a frame.
    #[inline(never)]
    fn stages(&mut self, item: &mut Item, arrival: &Arrival) {
        let decision = match (item.read_headers(), self.snapshot.port(item.frame.ingress)) {
            (Ok(()), Some(entry)) => self.decide(item, arrival, entry),
            (Err(reason), _) => Decision::drop(reason),
            (_, None) => Decision::drop(DropReason::UnknownPort),
        };
        item.verdict = decision.verdict;
        if let Some(egress) = decision.egress {
            item.egress = egress;
        }
    }

    fn decide(&mut self, item: &mut Item, arrival: &Arrival, entry: &PortEntry) -> Decision {
        let origin = Origin { port: item.frame.ingress, role: entry.role, bridge: arrival.bridge };
        match arrival.door {
            Door::Bridge => match self.admit(item, entry) {
                Some(reason) => Decision::drop(reason),
                None => self.bridge(item, origin),
            },
            Door::TunnelledBridge => self.bridge(item, origin),
            Door::Router => self.route(item, origin),
        }
    }

    /// Counts what became of the frames for which the flow cache was asked.
    fn count_flows(&mut self) {
        let flows = self.flows_asked;
        if !P::LIVE || flows == 0 {
            return;
        }
        let stats = self.state.stats();
        let counts = [
            (Event::FlowHits, self.hits),
            (Event::FlowMisses, flows - self.hits),
            (Event::FlowInvalidations, self.outdated),
        ];
        for (event, count) in counts {
            if count > 0 {
                stats.count(event, count);
            }
        }
    }
}

/// What ingress finds of a frame, for the stages behind it. Plain numbers, written in place: a batch of them is read
/// again a moment later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Set when the frame ends here.
    pub(crate) ended: Option<DropReason>,
    /// The stage it enters by.
    pub(crate) door: Door,
    /// The bridge it is on.
    pub(crate) bridge: BridgeId,
    /// Whether the flow cache is to be asked, and what is known of the frame then.
    pub(crate) is_flow: bool,
    pub(crate) plain: Plain,
    /// What the flow table has of its hash.
    pub(crate) candidate: Option<Found>,
}

impl Arrival {
    pub(crate) const NONE: Self = Self {
        ended: None,
        door: Door::Bridge,
        bridge: POD_SEGMENT,
        is_flow: false,
        plain: Plain::NONE,
        candidate: None,
    };
}

/// The stage behind ingress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Onto a bridge, if the port's guard lets it.
    Bridge,
    /// Onto a bridge, out of a tunnel.
    TunnelledBridge,
    /// To the router at once, out of a routed tunnel.
    Router,
}

/// Where a frame came from, for the stages behind ingress and decap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) port: PortId,
    pub(crate) role: Role,
    pub(crate) bridge: BridgeId,
}

/// How a stage that ends a frame's way ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// Where it goes; none when that is written in the item already, as the common way writes it.
    pub(crate) egress: Option<Egress>,
}

impl Decision {
    pub(crate) fn drop(reason: DropReason) -> Self {
        Self { verdict: Verdict::Drop(reason), egress: Some(Egress::None) }
    }

    /// Back to where it came from, as an answer.
    pub(crate) fn reply(port: PortId) -> Self {
        Self { verdict: Verdict::Reply, egress: Some(to_port(port, u16::MAX)) }
    }

    pub(crate) fn punt(reason: PuntReason, host: PortId, mtu: u16) -> Self {
        Self { verdict: Verdict::Punt(reason), egress: Some(to_port(host, mtu)) }
    }

    pub(crate) fn flood(bridge: BridgeId) -> Self {
        Self { verdict: Verdict::Flood(bridge), egress: Some(Egress::Bridge(bridge)) }
    }
}

fn to_port(port: PortId, mtu: u16) -> Egress {
    Egress::Port(Delivery::plain(port, mtu))
}

/// Whether a packet's content may be acted upon: its checksum is right, or its sender has left it to a device.
/// Whoever answers a damaged packet repairs the damage.
pub(crate) fn is_undamaged(item: &Item) -> bool {
    item.frame.offload.checksum != Checksum::Unknown || verify_l4(item.frame.bytes(), &item.headers)
}

/// Bytes of the largest L3 packet the frame stands for: what an MTU is compared with. A super-frame's is that of
/// one of its segments.
#[inline]
pub(crate) fn largest_packet(item: &Item) -> usize {
    match item.frame.offload.gso {
        Some(gso) => {
            usize::from(gso.header_len).saturating_sub(usize::from(item.headers.l3_offset)) + usize::from(gso.size)
        }
        None => item.headers.packet_len(item.frame.len()),
    }
}
