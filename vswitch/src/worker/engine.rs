//! One worker's share of the switch without its thread: ports, frames, and a pass over the ports that are ready.
//!
//! Nothing here waits or reads a clock, so that tests can drive it step by step.

use std::sync::Arc;

use super::transmit::Transmitter;
use crate::frame::{Batch, Frame, FramePool};
use crate::id::{MonoNs, PortId};
use crate::limits::{BATCH_FRAMES, HOLD_SEGMENTS_MAX, PORTS_MAX};
use crate::outcome::{DropReason, Verdict};
use crate::pipeline::{NoProbe, WorkerState, answer_too_big, forward};
use crate::port::{PortRx, PortTx, RxStatus, TURN_BYTES};
use crate::snapshot::Snapshot;
use crate::stats::{Event, PacketCount, WorkerStats};

/// What one turn of a port brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Whether the port may have more, or is gone.
    pub status: RxStatus,
    /// Frames received.
    pub frames: usize,
}

/// A worker's ports and buffers.
#[derive(Debug)]
pub struct Engine {
    /// By slot; an uplink has a receiving half a family, every other port one, or none where another worker owns it.
    receivers: Vec<Vec<Box<dyn PortRx>>>,
    transmitter: Transmitter,
    pool: FramePool,
    batch: Batch,
    state: WorkerState,
    stats: Arc<WorkerStats>,
}

impl Engine {
    /// No ports yet; counts into `stats`. Its flow cache keeps up to `flows` flows, and is off with 0.
    #[must_use]
    pub fn new(stats: Arc<WorkerStats>, flows: usize) -> Self {
        Self {
            receivers: (0..PORTS_MAX).map(|_| Vec::new()).collect(),
            transmitter: Transmitter::new(),
            pool: FramePool::new(BATCH_FRAMES),
            batch: Batch::new(),
            state: WorkerState::new(Arc::clone(&stats), flows),
            stats,
        }
    }

    /// Where this engine counts.
    #[must_use]
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// Takes a port in: its sending half, and the receiving halves this worker owns.
    pub fn attach(&mut self, port: PortId, rx: Vec<Box<dyn PortRx>>, tx: Box<dyn PortTx>) {
        if let Some(slot) = self.receivers.get_mut(port.index()) {
            *slot = rx;
            self.transmitter.attach(port, tx);
        }
    }

    /// Closes all halves of a port.
    pub fn detach(&mut self, port: PortId) {
        self.close_rx(port);
        self.transmitter.detach(port);
    }

    /// The receiving halves of a port that this worker owns.
    #[must_use]
    pub fn receivers(&self, port: PortId) -> &[Box<dyn PortRx>] {
        self.receivers.get(port.index()).map_or(&[], Vec::as_slice)
    }

    /// Closes the receiving halves of a port whose device is gone.
    pub fn close_rx(&mut self, port: PortId) {
        if let Some(slot) = self.receivers.get_mut(port.index()) {
            slot.clear();
        }
    }

    /// One turn of one port: receive, decide, send. The caller closes a port that says `Closed`.
    pub fn turn(&mut self, snapshot: &Snapshot, now: MonoNs, port: PortId) -> Turn {
        let mut turn = Turn { status: RxStatus::Drained, frames: 0 };
        for half in 0..self.receivers(port).len() {
            turn.status = turn.status.max(self.receive(port, half));
            turn.frames += self.batch.len();
            self.decide_and_send(snapshot, now);
        }
        turn
    }

    /// Fills the batch from one receiving half. What was many segments already is not waited for to become more.
    fn receive(&mut self, port: PortId, half: usize) -> RxStatus {
        let receiver = &mut self.receivers[port.index()][half];
        let (mut bytes, mut segments) = (0, 0);
        let mut status = RxStatus::More;
        while status == RxStatus::More && bytes < TURN_BYTES as u64 && self.batch.room() > 0 {
            let before = self.batch.len();
            status = receiver.rx(&mut self.pool, &mut self.batch, receiver.step_frames());
            let mut count = PacketCount { frames: (self.batch.len() - before) as u64, ..PacketCount::default() };
            for item in &mut self.batch.items_mut()[before..] {
                item.frame.ingress = port;
                count.segments += item.frame.segments() as u64;
                count.bytes += item.frame.len() as u64;
            }
            self.stats.rx(port, count);
            segments += count.segments;
            bytes += count.bytes;
            if count.frames == 0 {
                if self.pool.free() == 0 {
                    self.stats.count(Event::PoolEmpty, 1);
                }
                break;
            }
        }
        if status == RxStatus::Midstream && segments >= HOLD_SEGMENTS_MAX { RxStatus::Drained } else { status }
    }

    /// Sends a frame the switch itself originates straight out of a port.
    pub fn originate(&mut self, snapshot: &Snapshot, now: MonoNs, port: PortId, bytes: &[u8]) {
        let mut frame = Frame::new();
        frame.fill(bytes);
        self.transmitter.originate(snapshot, now, port, frame, &self.stats);
    }

    /// Sends what devices had no room for; true when something is left still.
    pub fn send_left_over(&mut self) -> bool {
        if self.transmitter.has_unsent() {
            self.transmitter.flush(&self.stats);
        }
        self.transmitter.has_unsent()
    }

    /// Tells senders whose packets the underlay has just refused what does fit.
    #[cold]
    fn answer_too_big(&mut self, snapshot: &Snapshot, now: MonoNs) {
        let refused = Verdict::Drop(DropReason::TxTooBig);
        for item in self.batch.items_mut().iter_mut().filter(|item| item.verdict == refused) {
            if answer_too_big(snapshot, &mut self.state, now, item) {
                self.transmitter.send_answer(snapshot, now, item, &self.stats);
            }
        }
    }

    fn decide_and_send(&mut self, snapshot: &Snapshot, now: MonoNs) {
        if self.batch.is_empty() {
            return;
        }
        forward(snapshot, &mut self.state, now, &mut self.batch, &mut NoProbe);
        if self.transmitter.send(snapshot, now, &mut self.batch, &self.stats) {
            self.answer_too_big(snapshot, now);
        }
        self.batch.recycle(&mut self.pool);
        debug_assert_eq!(self.pool.free(), self.pool.capacity(), "a frame was lost");
    }
}

#[cfg(test)]
mod tests;
