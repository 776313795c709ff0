//! A bad wire: decorators that lose, duplicate, reorder, corrupt and truncate, by a seed, so that a failure comes
//! again. For tests and simulation; allocates.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use super::memory::MemoryFrame;
use super::{Flushed, Outgoing, Piece, Pieces, PortRx, PortTx, RxStatus, TxError};
use crate::frame::{Batch, Encap, Frame, FramePool};
use crate::limits::BATCH_FRAMES;

/// Frames that may wait in a [`FaultRx`] for room in a batch: a batch, each frame twice, and one held back.
const QUEUE_FRAMES: usize = 2 * BATCH_FRAMES + 1;

/// How often what happens, in frames of a thousand; each is drawn on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Lost.
    pub loss: u16,
    /// Delivered twice.
    pub duplicate: u16,
    /// Delivered after the next one.
    pub reorder: u16,
    /// One bit flipped.
    pub corrupt: u16,
    /// Cut short.
    pub truncate: u16,
}

/// xorshift64*: small, good enough for dice, and the same on every machine.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Zero is the one state it never leaves; small seeds are spread over the word.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let draw = u128::from(self.next()) * end as u128;
        usize::try_from(draw >> 64).unwrap_or(0)
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        self.below(1_000) < usize::from(per_mille)
    }
}

/// The wire's mood: the dice and how they are read.
#[derive(Clone, Debug)]
struct Wire {
    faults: Faults,
    dice: Dice,
}

impl Wire {
    fn flip_a_bit(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.dice.below(bytes.len());
            bytes[at] ^= 1 << self.dice.below(8);
        }
    }
}

/// A receiving half behind a bad wire.
#[derive(Debug)]
pub struct FaultRx<P> {
    port: P,
    wire: Wire,
    /// Where the port delivers, with buffers of its own.
    pool: FramePool,
    batch: Batch,
    queue: VecDeque<MemoryFrame>,
    held: Option<MemoryFrame>,
}

impl<P: PortRx> FaultRx<P> {
    /// Puts the faults in front of a receiving half.
    #[must_use]
    pub fn new(port: P, faults: Faults, seed: u64) -> Self {
        let wire = Wire { faults, dice: Dice::new(seed) };
        let pool = FramePool::new(BATCH_FRAMES);
        let queue = VecDeque::with_capacity(QUEUE_FRAMES);
        Self { port, wire, pool, batch: Batch::new(), queue, held: None }
    }

    /// Passes one received frame over the wire.
    fn pass(&mut self, mut frame: MemoryFrame) {
        let faults = self.wire.faults;
        if self.wire.dice.happens(faults.loss) {
            return;
        }
        if self.wire.dice.happens(faults.corrupt) {
            self.wire.flip_a_bit(&mut frame.bytes);
        }
        if self.wire.dice.happens(faults.truncate) {
            let len = self.wire.dice.below(frame.bytes.len() + 1);
            frame.bytes.truncate(len);
        }
        if self.wire.dice.happens(faults.duplicate) {
            self.queue.push_back(frame.clone());
        }
        if self.held.is_none() && self.wire.dice.happens(faults.reorder) {
            self.held = Some(frame);
        } else {
            self.queue.push_back(frame);
            self.queue.extend(self.held.take());
        }
    }

    fn receive(&mut self, budget: usize) -> RxStatus {
        let held_before = self.held.is_some();
        let status = self.port.rx(&mut self.pool, &mut self.batch, budget);
        let received: Vec<_> = self.batch.items().iter().map(|item| copy_of(&item.frame)).collect();
        self.batch.recycle(&mut self.pool);
        if received.is_empty() && held_before {
            // Nothing follows that it could come after.
            self.queue.extend(self.held.take());
        }
        received.into_iter().for_each(|frame| self.pass(frame));
        status
    }
}

fn copy_of(frame: &Frame) -> MemoryFrame {
    MemoryFrame { bytes: frame.bytes().to_vec(), offload: frame.offload, outer: frame.outer, encap: None }
}

impl<P: PortRx> PortRx for FaultRx<P> {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let mut status = RxStatus::More;
        if self.queue.is_empty() {
            status = self.receive(budget.min(batch.room()));
        }
        for _ in 0..budget.min(batch.room()) {
            let Some(mut frame) = (if self.queue.is_empty() { None } else { pool.take() }) else { break };
            if let Some(next) = self.queue.pop_front() {
                next.fill(&mut frame);
            }
            batch.push(frame);
        }
        if self.queue.is_empty() && self.held.is_none() { status } else { RxStatus::More }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.poll_fd()
    }
}

/// A frame to send that owns what it was borrowed from.
#[derive(Debug)]
struct OwnedOutgoing {
    frame: Frame,
    headers: Vec<u8>,
    list: Option<Vec<Piece>>,
    encap: Option<Encap>,
}

impl OwnedOutgoing {
    fn of(out: &Outgoing<'_>) -> Self {
        let mut frame = Frame::new();
        copy_of(out.frame).fill(&mut frame);
        frame.ingress = out.frame.ingress;
        let headers = out.pieces.map_or_else(Vec::new, |pieces| pieces.headers.to_vec());
        Self { frame, headers, list: out.pieces.map(|pieces| pieces.list.to_vec()), encap: out.encap.copied() }
    }

    fn lend(&self) -> Outgoing<'_> {
        let pieces = self.list.as_deref().map(|list| Pieces { headers: &self.headers, list });
        Outgoing { frame: &self.frame, pieces, encap: self.encap.as_ref() }
    }
}

/// A sending half in front of a bad wire. What the wire loses was sent well, as on a real one.
#[derive(Debug)]
pub struct FaultTx<P> {
    port: P,
    wire: Wire,
    held: Option<OwnedOutgoing>,
}

impl<P: PortTx> FaultTx<P> {
    /// Puts the faults behind a sending half.
    #[must_use]
    pub fn new(port: P, faults: Faults, seed: u64) -> Self {
        Self { port, wire: Wire { faults, dice: Dice::new(seed) }, held: None }
    }

    fn damage(&mut self, out: &mut OwnedOutgoing) {
        let faults = self.wire.faults;
        if self.wire.dice.happens(faults.corrupt) {
            // A frame that was cut is hit in its payload too, never in the list of its pieces.
            self.wire.flip_a_bit(out.frame.bytes_mut());
        }
        // A frame that was cut loses its last packet; one with segmentation still to come stays whole.
        if self.wire.dice.happens(faults.truncate) {
            match &mut out.list {
                Some(list) => drop(list.pop()),
                None if out.frame.offload.gso.is_none() => {
                    let len = self.wire.dice.below(out.frame.len() + 1);
                    out.frame.set_len(len);
                }
                None => {}
            }
        }
    }
}

impl<P: PortTx> PortTx for FaultTx<P> {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        let faults = self.wire.faults;
        if self.wire.dice.happens(faults.loss) {
            return Ok(());
        }
        let mut owned = OwnedOutgoing::of(out);
        self.damage(&mut owned);
        if self.wire.dice.happens(faults.duplicate) {
            self.port.tx(&owned.lend())?;
        }
        if self.held.is_none() && self.wire.dice.happens(faults.reorder) {
            self.held = Some(owned);
            return Ok(());
        }
        let sent = self.port.tx(&owned.lend());
        if let Some(held) = self.held.take() {
            // Its own outcome was reported when it was held back.
            let _reported = self.port.tx(&held.lend());
        }
        sent
    }

    /// Also releases a frame that was held back and that nothing follows.
    fn flush(&mut self) -> Flushed {
        if let Some(held) = self.held.take() {
            let _reported = self.port.tx(&held.lend());
        }
        self.port.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortCaps;
    use crate::port::memory::MemoryPort;

    const FRAMES: u8 = 200;

    /// Frames of eight equal bytes each, over a receiving half with these faults.
    fn received(faults: Faults, seed: u64, room: usize) -> Vec<Vec<u8>> {
        let (port, peer) = MemoryPort::pair(PortCaps::ALL);
        (0..FRAMES).for_each(|number| assert!(peer.inject(MemoryFrame::new([number; 8]))));
        let mut rx = FaultRx::new(port.rx, faults, seed);
        let (mut pool, mut seen) = (FramePool::new(room), vec![]);
        loop {
            let mut batch = Batch::new();
            let status = rx.rx(&mut pool, &mut batch, 7);
            seen.extend(batch.items().iter().map(|item| item.frame.bytes().to_vec()));
            batch.recycle(&mut pool);
            if status == RxStatus::Drained {
                return seen;
            }
        }
    }

    /// The same over a sending half.
    fn sent(faults: Faults, seed: u64) -> Vec<Vec<u8>> {
        let (port, peer) = MemoryPort::pair(PortCaps::ALL);
        let mut tx = FaultTx::new(port.tx, faults, seed);
        for number in 0..FRAMES {
            let mut frame = Frame::new();
            frame.fill(&[number; 8]);
            tx.tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
        }
        tx.flush();
        peer.take().into_iter().map(|frame| frame.bytes).collect()
    }

    fn check(faults: Faults, expected: impl Fn(&[Vec<u8>])) {
        for seed in [0, 1, 77, u64::MAX] {
            expected(&received(faults, seed, 64));
            expected(&received(faults, seed, 2));
            expected(&sent(faults, seed));
        }
    }

    fn untouched() -> Vec<Vec<u8>> {
        (0..FRAMES).map(|number| vec![number; 8]).collect()
    }

    #[test]
    fn a_good_wire_changes_nothing() {
        check(Faults::default(), |seen| assert_eq!(seen, untouched()));
    }

    #[test]
    fn loss_takes_about_as_many_as_asked_for() {
        check(Faults { loss: 1_000, ..Faults::default() }, |seen| assert!(seen.is_empty()));
        check(Faults { loss: 500, ..Faults::default() }, |seen| {
            assert!((60..140).contains(&seen.len()), "{}", seen.len());
            assert!(seen.is_sorted());
        });
    }

    #[test]
    fn duplicates_come_in_order() {
        check(Faults { duplicate: 1_000, ..Faults::default() }, |seen| {
            assert_eq!(seen.len(), 2 * usize::from(FRAMES));
            assert!(seen.is_sorted());
        });
    }

    #[test]
    fn reordering_loses_nothing() {
        check(Faults { reorder: 300, ..Faults::default() }, |seen| {
            assert!(!seen.is_sorted());
            let mut sorted = seen.to_vec();
            sorted.sort();
            assert_eq!(sorted, untouched());
        });
    }

    #[test]
    fn corruption_flips_one_bit_and_truncation_shortens() {
        check(Faults { corrupt: 1_000, ..Faults::default() }, |seen| {
            for (bytes, number) in seen.iter().zip(0..) {
                let flipped: u32 = bytes.iter().map(|byte| (byte ^ number).count_ones()).sum();
                assert_eq!((bytes.len(), flipped), (8, 1));
            }
        });
        check(Faults { truncate: 1_000, ..Faults::default() }, |seen| {
            assert_eq!(seen.len(), usize::from(FRAMES));
            assert!(seen.iter().any(|bytes| bytes.is_empty()) && seen.iter().any(|bytes| bytes.len() > 5));
        });
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_others() {
        let faults = Faults { loss: 100, duplicate: 100, reorder: 100, corrupt: 100, truncate: 100 };
        assert_eq!(received(faults, 5, 64), received(faults, 5, 64));
        assert_eq!(sent(faults, 5), sent(faults, 5));
        assert_ne!(sent(faults, 5), sent(faults, 6));
    }
}
