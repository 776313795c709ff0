//! The measurement: batches of 64 frames, each timed by itself.
//!
//! The time is that of everything a worker does between receiving and receiving again: parse and decide
//! (`pipeline::forward`), fit to the egress and send (`Transmitter`, with `segment::prepare`), count, and give the
//! frames back. Filling the batch stands for a device; it is timed apart, and shown.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use podwire_vswitch::frame::{Batch, FramePool};
use podwire_vswitch::id::PortId;
use podwire_vswitch::limits::{BATCH_FRAMES, PORTS_MAX};
use podwire_vswitch::outcome::Verdict;
use podwire_vswitch::pipeline::{NoProbe, WorkerState, forward};
use podwire_vswitch::port::{Outgoing, PortTx, TxError};
use podwire_vswitch::stats::{WorkerStats, totals};
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::wire::{Plain, vxlan};
use podwire_vswitch::worker::Transmitter;

use super::report::Line;
use super::traffic::{Traffic, vxlan_header};
use crate::allocator::allocations;

/// Rounds of which the median counts.
const ROUNDS: u32 = 5;
/// Batches between two looks at how long a round has run.
const STRIDE: usize = 64;
/// Part of the time that is spent on warming up.
const WARM_UP: u32 = 5;
/// The longest time of a batch the histogram tells from longer ones.
const BATCH_NS_MAX: u64 = 1_000_000_000;

/// A device that takes everything. An uplink writes the tunnel header, as the real one does; what the kernel then does
/// with the datagram is not part of this.
#[derive(Debug)]
struct Discard;

impl PortTx for Discard {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        if let Some(encap) = out.encap {
            black_box((vxlan_header(encap.vni), encap.remote, encap.tos, encap.entropy));
        }
        if out.pieces.is_some() {
            for packet in out.packets() {
                black_box(packet);
            }
        } else {
            black_box(out.frame.bytes());
        }
        Ok(())
    }
}

/// One worker's engine, as far as it is measured.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    traffic: &'a Traffic,
    at: usize,
    pool: FramePool,
    batch: Batch,
    state: WorkerState,
    stats: Arc<WorkerStats>,
    transmitter: Transmitter,
}

/// What one round came to.
#[derive(Clone, Copy, Default)]
struct Round {
    frames: u64,
    forwarded: u64,
    work_ns: u64,
    refill_ns: u64,
    allocations: u64,
}

impl Round {
    fn mpps(&self) -> f64 {
        mpps(self.frames, self.work_ns)
    }
}

/// What the parts of one batch took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) frames: u64,
    /// The look at the frame alone.
    pub(crate) parse_ns: u64,
    /// `pipeline::forward`, which reads them itself.
    pub(crate) forward_ns: u64,
    /// Sending into nothing, and counting.
    pub(crate) send_ns: u64,
}

impl<'a> Bench<'a> {
    /// An engine whose flow cache keeps so many flows; 0 switches it off.
    pub(crate) fn new(traffic: &'a Traffic, flows: usize) -> Self {
        let stats = Arc::new(WorkerStats::new(PORTS_MAX));
        let mut transmitter = Transmitter::new();
        for port in traffic.world.ports() {
            transmitter.attach(port, Box::new(Discard));
        }
        Self {
            traffic,
            at: 0,
            pool: FramePool::new(BATCH_FRAMES),
            batch: Batch::new(),
            state: WorkerState::new(Arc::clone(&stats), flows),
            stats,
            transmitter,
        }
    }

    /// Runs for a while, and adds the time of each batch to the histogram.
    fn round(&mut self, length: Duration, batches: &mut Histogram<u64>) -> Round {
        let snapshot = &self.traffic.world.snapshot;
        let (forwarded, allocated) = (self.forwarded(), allocations());
        let mut round = Round::default();
        let end = mono_now().0 + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        while mono_now().0 < end {
            for _ in 0..STRIDE {
                let empty = mono_now();
                self.traffic.refill(&mut self.at, &mut self.pool, &mut self.batch);
                let start = mono_now();
                forward(snapshot, &mut self.state, start, &mut self.batch, &mut NoProbe);
                self.transmitter.send(snapshot, start, &mut self.batch, &self.stats);
                round.frames += self.batch.len() as u64;
                self.batch.recycle(&mut self.pool);
                let ns = mono_now().since(start);
                batches.saturating_record(ns);
                round.work_ns += ns;
                round.refill_ns += start.since(empty);
            }
        }
        round.allocations = allocations() - allocated;
        round.forwarded = self.forwarded() - forwarded;
        round
    }

    /// One batch, part by part. The frames are looked at once more than a worker does, for a time of its own.
    pub(crate) fn parts(&mut self) -> Parts {
        let snapshot = &self.traffic.world.snapshot;
        self.traffic.refill(&mut self.at, &mut self.pool, &mut self.batch);
        let start = mono_now();
        for item in self.batch.items() {
            let tunnel = if item.frame.outer.is_some() { vxlan::HEADER_LEN } else { 0 };
            black_box(Plain::read(&item.frame.bytes()[tunnel..], &item.frame.offload));
        }
        let parsed = mono_now();
        forward(snapshot, &mut self.state, parsed, &mut self.batch, &mut NoProbe);
        let decided = mono_now();
        self.transmitter.send(snapshot, decided, &mut self.batch, &self.stats);
        let sent = mono_now();
        let frames = self.batch.len() as u64;
        self.batch.recycle(&mut self.pool);
        Parts { frames, parse_ns: parsed.since(start), forward_ns: decided.since(parsed), send_ns: sent.since(decided) }
    }

    /// Frames that the worker's own counters say were forwarded.
    pub(crate) fn forwarded(&self) -> u64 {
        totals(std::slice::from_ref(&self.stats)).outcome(Verdict::Forward(PortId::NONE))
    }
}

/// Measures one scenario in rounds that together take `length`, after a warm-up.
pub(super) fn measure(traffic: &Traffic, flow_cache: usize, length: Duration) -> Line {
    let mut bench = Bench::new(traffic, flow_cache);
    let mut batches = histogram();
    bench.round(length / WARM_UP, &mut batches);
    batches.reset();
    let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| bench.round(length / ROUNDS, &mut batches)).collect();
    rounds.sort_by(|one, other| one.mpps().total_cmp(&other.mpps()));
    let median = rounds[rounds.len() / 2];
    let total = |part: fn(&Round) -> u64| rounds.iter().map(part).sum::<u64>();
    let a_frame = |batch_ns: u64| float(batch_ns) / float(BATCH_FRAMES as u64);
    Line {
        scenario: traffic.scenario,
        flows: traffic.flows(),
        tables: 0,
        frames: total(|round| round.frames),
        forwarded: total(|round| round.forwarded),
        mpps: median.mpps(),
        mpps_min: rounds[0].mpps(),
        mpps_max: rounds[rounds.len() - 1].mpps(),
        ns_median: a_frame(batches.value_at_quantile(0.5)),
        ns_p99: a_frame(batches.value_at_quantile(0.99)),
        refill_ns: float(median.refill_ns) / float(median.frames),
        mpps_with_refill: mpps(median.frames, median.work_ns + median.refill_ns),
        allocations: total(|round| round.allocations),
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, BATCH_NS_MAX, 3).unwrap_or_else(|_| unreachable!("these bounds are valid"))
}

/// What one reading of the clock takes, in nanoseconds. A batch's time holds one.
pub(crate) fn clock_ns() -> f64 {
    const READINGS: u64 = 10_000;
    let start = mono_now();
    for _ in 1..READINGS {
        black_box(mono_now());
    }
    float(mono_now().since(start)) / float(READINGS)
}

fn mpps(frames: u64, ns: u64) -> f64 {
    float(frames) * 1_000.0 / float(ns.max(1))
}

#[allow(clippy::cast_precision_loss, reason = "counts and nanoseconds of one run are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}
