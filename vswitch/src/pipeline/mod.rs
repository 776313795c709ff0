//! The decision: what happens to each frame of a batch, as a pure function.
//!
//! `forward` reads a snapshot, a worker's own state and a time, and writes verdicts, ways out and rewritten
//! headers into the batch. No system call, clock, allocation, log line or unsafe code. A frame goes forward
//! only: ingress, decap, bridge, route, encap; a routed frame ends in an egress and never re-enters.
//! `podwire trace` runs the same code with a [`Recorder`].

mod bridge;
mod decap;
mod encap;
mod guard;
mod icmp_error;
mod ingress;
mod probe;
mod resolve;
mod route;
mod state;

pub use encap::{Delivery, deliveries};
pub use probe::{NoProbe, Probe, Recorder, Stage, Step};
pub use state::WorkerState;

use crate::frame::{Batch, Checksum, Egress, Item};
use crate::id::{BridgeId, MonoNs, PortId};
use crate::outcome::{DropReason, PuntReason, Verdict};
use crate::segment::verify_l4;
use crate::snapshot::{POD_SEGMENT, Role, Snapshot};

/// Decides every frame of the batch.
pub fn forward<P: Probe>(snapshot: &Snapshot, state: &mut WorkerState, now: MonoNs, batch: &mut Batch, probe: &mut P) {
    let mut pass = Pass { snapshot, state, now, probe };
    for item in batch.items_mut() {
        let decision = pass.ingress(item);
        item.verdict = decision.verdict;
        item.egress = decision.egress;
        pass.probe.note(Stage::Verdict, || decision.verdict.name());
    }
}

/// Tells the sender of a packet that the underlay has just refused as too long what does fit, so that it need not lose
/// a second one to learn it. The answer is built in the packet's place; false when there is none to send.
pub fn answer_too_big(snapshot: &Snapshot, state: &mut WorkerState, now: MonoNs, item: &mut Item) -> bool {
    let Egress::Port { encap: Some(encap), .. } = item.egress else { return false };
    let port = item.frame.ingress;
    let (Some(entry), Some(vtep)) = (snapshot.port(port), snapshot.vteps.get(encap.vtep)) else { return false };
    let Some(bridge) = entry.bridge.filter(|&bridge| bridge == POD_SEGMENT) else { return false };
    // The router has put its own MAC there; the sender is behind the port.
    item.headers.src = entry.mac;
    let mtu = vtep.mtu(&snapshot.node, encap.remote);
    let mut pass = Pass { snapshot, state, now, probe: &mut NoProbe };
    let origin = Origin { port, role: entry.role, bridge };
    // Where the underlay did not say what fits, or the packet may be fragmented, there is nothing to tell.
    let Some(decision) = pass.too_big(item, origin, mtu) else { return false };
    item.egress = decision.egress;
    item.egress != Egress::None
}

/// What the stages share while they decide a batch.
pub(crate) struct Pass<'a, P> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) state: &'a mut WorkerState,
    pub(crate) now: MonoNs,
    pub(crate) probe: &'a mut P,
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
    pub(crate) egress: Egress,
}

impl Decision {
    pub(crate) fn drop(reason: DropReason) -> Self {
        Self { verdict: Verdict::Drop(reason), egress: Egress::None }
    }

    /// Back to where it came from, as an answer.
    pub(crate) fn reply(port: PortId) -> Self {
        Self { verdict: Verdict::Reply, egress: to_port(port, u16::MAX) }
    }

    pub(crate) fn forward(port: PortId, mtu: u16) -> Self {
        Self { verdict: Verdict::Forward(port), egress: to_port(port, mtu) }
    }

    pub(crate) fn punt(reason: PuntReason, host: PortId, mtu: u16) -> Self {
        Self { verdict: Verdict::Punt(reason), egress: to_port(host, mtu) }
    }

    pub(crate) fn flood(bridge: BridgeId) -> Self {
        Self { verdict: Verdict::Flood(bridge), egress: Egress::Bridge(bridge) }
    }
}

fn to_port(port: PortId, mtu: u16) -> Egress {
    Egress::Port { port, encap: None, mtu }
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
