//! What the control thread reads of the workers' counters: plain sums, by port, by worker and over all.

use std::fmt;
use std::sync::Arc;

use super::{Event, Outcome, PortCounters, WorkerStats};
use crate::id::PortId;
use crate::outcome::Verdict;

/// How much passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketCount {
    /// Frames as the device gave or took them.
    pub frames: u64,
    /// Packets they stand for on a wire.
    pub segments: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

impl PacketCount {
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            frames: with(self.frames, other.frames),
            segments: with(self.segments, other.segments),
            bytes: with(self.bytes, other.bytes),
        }
    }
}

/// The counters of one port, or the sum of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortReport {
    /// Received.
    pub rx: PacketCount,
    /// Of a tunnel: received inside the uplink's datagrams, where `rx` has it too. 0 for other ports.
    pub tunnelled: PacketCount,
    /// Sent; what leaves through a tunnel counts there and at the uplink.
    pub tx: PacketCount,
    /// Frames the device did not take.
    pub tx_drops: u64,
    outcomes: [u64; Outcome::COUNT],
}

impl Default for PortReport {
    fn default() -> Self {
        let none = PacketCount::default();
        Self { rx: none, tunnelled: none, tx: none, tx_drops: 0, outcomes: [0; Outcome::COUNT] }
    }
}

impl PortReport {
    /// Received frames that ended so. The verdict's port or bridge does not matter.
    #[must_use]
    pub fn outcome(&self, verdict: Verdict) -> u64 {
        self.outcomes[Outcome::from(verdict).index()]
    }

    /// All outcomes with their counts, zeros included, in counter order.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::all().map(|outcome| (outcome, self.outcomes[outcome.index()]))
    }

    /// Received frames that were dropped, for whatever reason.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.outcomes().filter(|(outcome, _)| outcome.drop_reason().is_some()).map(|(_, count)| count).sum()
    }

    /// Received frames that have an outcome.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    fn read(counters: &PortCounters) -> Self {
        Self {
            // In this order, since frames are received first: read while a worker counts, more are received than
            // accounted for, as a rule (nothing orders the loads).
            outcomes: std::array::from_fn(|at| counters.outcomes[at].get()),
            tx: counters.tx.get(),
            tunnelled: counters.tunnelled.get(),
            tx_drops: counters.tx_drops.get(),
            rx: counters.rx.get(),
        }
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            rx: self.rx.zip(other.rx, &with),
            tunnelled: self.tunnelled.zip(other.tunnelled, &with),
            tx: self.tx.zip(other.tx, &with),
            tx_drops: with(self.tx_drops, other.tx_drops),
            outcomes: std::array::from_fn(|at| with(self.outcomes[at], other.outcomes[at])),
        }
    }

    fn add(&mut self, other: &Self) {
        *self = self.zip(other, |a, b| a + b);
    }
}

/// What a slot's counters stood at when its present port took it over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortBaseline(PortReport);

impl PortBaseline {
    /// Notes where the counters stand. To be called when no worker receives from the slot's former port any more.
    #[must_use]
    pub fn capture(workers: &[Arc<WorkerStats>], port: PortId) -> Self {
        Self(port_report(workers, port))
    }

    /// What was counted since.
    #[must_use]
    pub fn since(&self, now: &PortReport) -> PortReport {
        now.zip(&self.0, u64::saturating_sub)
    }
}

/// One port's counters, over all workers, since the process began.
#[must_use]
pub fn port_report(workers: &[Arc<WorkerStats>], port: PortId) -> PortReport {
    let mut sum = PortReport::default();
    workers.iter().for_each(|worker| sum.add(&worker.port_report(port)));
    sum
}

/// The sums of one worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerReport {
    /// Over all ports.
    pub ports: PortReport,
    events: [u64; Event::ALL.len()],
}

impl WorkerReport {
    /// How often an event was counted.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.events[event.index()]
    }

    /// All events with their counts, zeros included.
    pub fn events(&self) -> impl Iterator<Item = (Event, u64)> {
        Event::ALL.iter().map(|&event| (event, self.event(event)))
    }
}

impl WorkerStats {
    /// The sums of this worker.
    #[must_use]
    pub fn snapshot(&self) -> WorkerReport {
        let mut ports = PortReport::default();
        self.ports.iter().for_each(|counters| ports.add(&PortReport::read(counters)));
        WorkerReport { ports, events: std::array::from_fn(|at| self.events[at].get()) }
    }

    /// How often this worker counted an event.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.events[event.index()].get()
    }

    /// What this worker counted for one port.
    #[must_use]
    pub fn port_report(&self, port: PortId) -> PortReport {
        PortReport::read(self.port(port))
    }
}

/// The sums over all workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals(pub WorkerReport);

/// Received frames and counted outcomes differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{received} frames were received, but {accounted} have an outcome: each must have exactly one")]
pub struct LawBroken {
    /// Frames received.
    pub received: u64,
    /// Outcomes counted.
    pub accounted: u64,
}

/// Sums all workers up.
#[must_use]
pub fn totals(workers: &[Arc<WorkerStats>]) -> Totals {
    let mut sum = WorkerReport { ports: PortReport::default(), events: [0; Event::ALL.len()] };
    for report in workers.iter().map(|worker| worker.snapshot()) {
        sum.ports.add(&report.ports);
        sum.events.iter_mut().zip(report.events).for_each(|(sum, count)| *sum += count);
    }
    Totals(sum)
}

impl Totals {
    /// Received, by frames, segments and bytes.
    #[must_use]
    pub fn received(&self) -> PacketCount {
        self.0.ports.rx
    }

    /// Received frames that ended so.
    #[must_use]
    pub fn outcome(&self, verdict: Verdict) -> u64 {
        self.0.ports.outcome(verdict)
    }

    /// How often an event was counted.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.0.event(event)
    }

    /// Holds the counters to the law. Exact between passes; a worker in the middle of one has frames in hand that
    /// are received and not yet accounted for.
    ///
    /// # Errors
    /// [`LawBroken`] with both sums.
    pub fn check(&self) -> Result<(), LawBroken> {
        let (received, accounted) = (self.received().frames, self.0.ports.accounted());
        if received == accounted { Ok(()) } else { Err(LawBroken { received, accounted }) }
    }
}

/// Outcomes that occurred, by name, on one line: what a failed test prints.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {}", self.received().frames)?;
        let outcomes = self.0.ports.outcomes().filter(|(_, count)| *count > 0);
        outcomes.into_iter().try_for_each(|(outcome, count)| write!(f, ", {outcome} {count}"))
    }
}
