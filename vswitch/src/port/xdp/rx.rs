//! The receiving half: what the steering program sent to one queue's socket becomes frames in order; TCP segments that
//! continue one another become one ([`Coalescer`]).

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::outer::{Unsound, read};
use super::{BusyPoll, XdpStatus};
use crate::frame::{Batch, Frame, FramePool};
use crate::limits::BATCH_FRAMES;
use crate::port::{Coalescer, PortRx, RxStatus, TURN_BYTES};
use crate::sys::xsk::{Slot, XskReceiver};

/// Receives from one queue.
#[derive(Debug)]
pub struct XdpRx {
    socket: XskReceiver,
    coalescer: Coalescer,
    status: Arc<XdpStatus>,
    busy_poll: bool,
}

impl XdpRx {
    pub(super) fn new(socket: XskReceiver, status: Arc<XdpStatus>) -> Self {
        let busy_poll = status.busy_poll() == BusyPoll::On;
        Self { socket, coalescer: Coalescer::of_tunnel(), status, busy_poll }
    }

    /// The next slot of the queue; has the driver look once when there is none.
    fn next(&mut self, looked: &mut bool) -> Option<Slot> {
        let slot = self.socket.receive();
        if slot.is_some() || std::mem::replace(looked, true) {
            return slot;
        }
        self.socket.poll_driver();
        self.socket.receive()
    }

    /// Adds the next packet of the queue to the batch, which has room for a frame; false when it is dropped since it is
    /// no sound datagram.
    fn add(&mut self, slot: Slot, pool: &mut FramePool, batch: &mut Batch) -> bool {
        let added = if slot.is_continued() { self.gather(slot, pool, batch) } else { self.copy(slot, pool, batch) };
        match added {
            Ok(()) => return true,
            Err(Unsound::Malformed) => self.status.malformed.fetch_add(1, Ordering::Relaxed),
            Err(Unsound::Checksum) => self.status.checksum_errors.fetch_add(1, Ordering::Relaxed),
        };
        false
    }

    /// Copies the payload of a packet that lies in one slot.
    fn copy(&mut self, slot: Slot, pool: &mut FramePool, batch: &mut Batch) -> Result<(), Unsound> {
        let bytes = self.socket.bytes(&slot);
        let found = read(bytes).map(|tunnelled| {
            let added = self.coalescer.add(pool, batch, &bytes[tunnelled.payload], tunnelled.outer);
            debug_assert!(added, "there was room for a frame");
        });
        self.socket.release(slot);
        found
    }

    /// Puts together a packet that lies in several slots. What was joined so far comes before it.
    fn gather(&mut self, first: Slot, pool: &mut FramePool, batch: &mut Batch) -> Result<(), Unsound> {
        self.coalescer.finish(batch);
        let Some(mut frame) = pool.take() else {
            debug_assert!(false, "there was a buffer for a frame");
            return Ok(());
        };
        match self.gather_into(&mut frame, first) {
            Ok(()) => batch.push(frame),
            Err(unsound) => {
                pool.give(frame);
                return Err(unsound);
            }
        }
        Ok(())
    }

    /// Copies a packet of several slots, then takes its outer headers off.
    fn gather_into(&mut self, frame: &mut Frame, first: Slot) -> Result<(), Unsound> {
        let mut len = 0;
        let mut fits = true;
        let mut next = Some(first);
        while let Some(slot) = next {
            let bytes = self.socket.bytes(&slot);
            match frame.space_mut().get_mut(len..len + bytes.len()) {
                Some(space) => space.copy_from_slice(bytes),
                None => fits = false,
            }
            len += bytes.len();
            let continued = slot.is_continued();
            self.socket.release(slot);
            // The kernel publishes all slots of a packet at once.
            next = if continued { self.socket.receive() } else { None };
        }
        if !fits {
            return Err(Unsound::Malformed);
        }
        frame.set_len(len);
        let tunnelled = read(frame.bytes())?;
        frame.set_len(tunnelled.payload.end);
        frame.pull(tunnelled.payload.start);
        frame.outer = Some(tunnelled.outer);
        Ok(())
    }
}

impl PortRx for XdpRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let frames_max = batch.len() + budget.min(batch.room()).min(pool.free());
        let mut status = RxStatus::More;
        let (mut packets, mut bytes, mut looked) = (0, 0, !self.busy_poll);
        while batch.len() < frames_max && bytes < TURN_BYTES {
            let Some(slot) = self.next(&mut looked) else {
                status = RxStatus::Drained;
                break;
            };
            bytes += self.socket.bytes(&slot).len();
            packets += u64::from(self.add(slot, pool, batch));
        }
        let midstream = self.coalescer.finish(batch);
        self.status.frames.fetch_add(packets, Ordering::Relaxed);
        self.socket.refill_when_due(status == RxStatus::Drained);
        status.in_midstream(midstream)
    }

    /// A burst is bounded in bytes, and all of it together is what segments are joined in.
    fn step_frames(&self) -> usize {
        BATCH_FRAMES
    }

    fn drives_device(&self) -> bool {
        self.busy_poll
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd())
    }
}
