//! The counting law: every received frame ends in exactly one counted outcome.
//!
//! Each worker owns its counters and writes them without read-modify-write; the control thread reads them at any
//! time. All are u64 and never go back, so a port that takes over another's slot is shown less a [`PortBaseline`].
//! `frames` are counted as the device gave them, `segments` as packets they stand for on a wire.

mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::id::PortId;
use crate::outcome::{DropReason, PuntReason, Verdict, reasons};

pub use report::{LawBroken, PacketCount, PortBaseline, PortReport, Totals, WorkerReport, port_report, totals};

reasons! {
    /// What a worker counts beside frames and outcomes.
    Event {
        /// Frames the switch made itself and sent: ICMP errors and announcements. Answers are an outcome, `reply`.
        Originated = "originated",
        /// Copies of flooded frames that were sent.
        FloodCopies = "flood_copies",
        /// Copies of flooded frames that a device did not take.
        FloodDrops = "flood_drops",
        /// Turns of the worker's loop.
        Passes = "passes",
        /// Turns that found a frame.
        BusyPasses = "busy_passes",
        /// Stations that were learned behind another port than before.
        MacMoves = "mac_moves",
        /// Moves that were ignored because the bridge had too many in that second.
        MacMovesLimited = "mac_moves_limited",
        /// Entries of a full MAC table that were given up for others.
        MacEvictions = "mac_evictions",
        /// Stations that were not learned because the MAC table had no room for them.
        MacTableFull = "mac_table_full",
        /// ICMP errors that were not sent because of their rate.
        IcmpSuppressed = "icmp_suppressed",
        /// Decapsulated frames that came with a pseudo-header sum in place of a checksum.
        PartialFromWire = "partial_from_wire",
        /// Decapsulated frames that came longer than the tunnel's MTU, and were taken as super-frames.
        OversizeFromWire = "oversize_from_wire",
        /// TCP segments that were joined into super-frames as they came from the uplink.
        Coalesced = "coalesced",
        /// Offloads that switched themselves off after the device refused them.
        OffloadDisabled = "offload_disabled",
        /// Super-frames that a device refused, and that were then sent as the packets they stand for.
        SuperFramesRefused = "super_frames_refused",
        /// Path MTUs that were lowered after the underlay refused a datagram.
        PathMtuLowered = "path_mtu_lowered",
        /// Times the uplink was not looked at for a moment, so that more of a stream could gather.
        Holds = "holds",
        /// Turns that received nothing because no frame buffer was free.
        PoolEmpty = "pool_empty",
        /// Frames that went the way the flow cache had kept.
        FlowHits = "flow_hits",
        /// Frames the flow cache might have decided, and did not: new flows, outdated ones, expired and too long frames.
        FlowMisses = "flow_misses",
        /// Misses of flows that were kept, because something they rested on has changed.
        FlowInvalidations = "flow_invalidations",
        /// Idle flows that were given up for others.
        FlowEvictions = "flow_evictions",
    }
}

/// Position of an outcome among the counters: forward, flood, reply, each punt, each drop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Outcome(usize);

const PUNTS_AT: usize = 3;
const DROPS_AT: usize = PUNTS_AT + PuntReason::ALL.len();

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = DROPS_AT + DropReason::ALL.len();

    /// All of them, in counter order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Position among the counters.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }

    /// The reason, when it is a drop.
    #[must_use]
    pub fn drop_reason(self) -> Option<DropReason> {
        self.0.checked_sub(DROPS_AT).map(|at| DropReason::ALL[at])
    }

    /// The reason, when it is a punt.
    #[must_use]
    pub fn punt_reason(self) -> Option<PuntReason> {
        self.0.checked_sub(PUNTS_AT).and_then(|at| PuntReason::ALL.get(at).copied())
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self(match verdict {
            Verdict::Forward(_) => 0,
            Verdict::Flood(_) => 1,
            Verdict::Reply => 2,
            Verdict::Punt(reason) => PUNTS_AT + reason.index(),
            Verdict::Drop(reason) => DROPS_AT + reason.index(),
        })
    }
}

/// The name of [`Verdict::name`].
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.punt_reason(), self.drop_reason()) {
            (Some(reason), _) => write!(f, "punt:{}", reason.name()),
            (_, Some(reason)) => write!(f, "drop:{}", reason.name()),
            _ => f.write_str(["forward", "flood", "reply"][self.0]),
        }
    }
}

/// One counter with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// A load and a store: there is no other writer whose addition could be lost.
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct PacketCounter {
    frames: Counter,
    segments: Counter,
    bytes: Counter,
}

impl PacketCounter {
    #[inline]
    fn add(&self, count: PacketCount) {
        self.frames.add(count.frames);
        self.segments.add(count.segments);
        self.bytes.add(count.bytes);
    }

    fn get(&self) -> PacketCount {
        PacketCount { frames: self.frames.get(), segments: self.segments.get(), bytes: self.bytes.get() }
    }
}

/// In this order, so that what is counted for a frame that is forwarded lies in one cache line.
#[derive(Debug)]
#[repr(C)]
struct PortCounters {
    rx: PacketCounter,
    tx: PacketCounter,
    /// That of a frame that was forwarded first.
    outcomes: [Counter; Outcome::COUNT],
    tx_drops: Counter,
    tunnelled: PacketCounter,
}

const _: () = assert!(std::mem::offset_of!(PortCounters, outcomes) + size_of::<Counter>() <= 64);

impl PortCounters {
    fn new() -> Self {
        Self {
            rx: PacketCounter::default(),
            tx: PacketCounter::default(),
            tx_drops: Counter::default(),
            tunnelled: PacketCounter::default(),
            outcomes: std::array::from_fn(|_| Counter::default()),
        }
    }
}

/// All counters of one worker. Only that worker's thread calls the writing methods; anyone may read.
#[derive(Debug)]
pub struct WorkerStats {
    /// A block a port, and one behind them for ids beyond the last, so that the law holds for those too.
    ports: Box<[CachePadded<PortCounters>]>,
    events: CachePadded<[Counter; Event::ALL.len()]>,
}

impl WorkerStats {
    /// Counters for ports below `ports`. Takes about 500 bytes a port.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..=ports).map(|_| CachePadded::new(PortCounters::new())).collect(),
            events: CachePadded::new(std::array::from_fn(|_| Counter::default())),
        }
    }

    /// Counts what a port received.
    #[inline]
    pub fn rx(&self, port: PortId, count: PacketCount) {
        self.port(port).rx.add(count);
    }

    /// Counts what a tunnel brought: frames its uplink has received already, and that end under the tunnel's name.
    #[inline]
    pub fn tunnelled(&self, tunnel: PortId, count: PacketCount) {
        self.port(tunnel).tunnelled.add(count);
    }

    /// Counts what a port sent.
    #[inline]
    pub fn tx(&self, port: PortId, count: PacketCount) {
        self.port(port).tx.add(count);
    }

    /// Counts frames that a port's device did not take, whatever outcome they end in.
    pub fn tx_drop(&self, port: PortId, frames: u64) {
        self.port(port).tx_drops.add(frames);
    }

    /// Counts the outcome of one frame received by `ingress`.
    #[inline]
    pub fn outcome(&self, ingress: PortId, verdict: Verdict) {
        self.port(ingress).outcomes[Outcome::from(verdict).index()].add(1);
    }

    /// Counts an event `n` times.
    #[inline]
    pub fn count(&self, event: Event, n: u64) {
        self.events[event.index()].add(n);
    }

    #[inline]
    fn port(&self, port: PortId) -> &PortCounters {
        match self.ports.get(port.index()) {
            Some(block) => block,
            None => self.elsewhere(),
        }
    }

    #[cold]
    fn elsewhere(&self) -> &PortCounters {
        &self.ports[self.ports.len() - 1]
    }
}
