//! The receiving half: what the steering program sent to one queue's socket becomes one frame a packet, in order.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::XdpStatus;
use super::outer::{Tunnelled, Unsound, read};
use crate::frame::{Batch, Frame, FramePool};
use crate::port::{PortRx, RxStatus};
use crate::sys::xsk::{SLOTS, Slot, XskSocket};

/// Slots that are gathered before they are given to the kernel again.
const REFILL_SLOTS: usize = 64;

/// Receives from one queue.
#[derive(Debug)]
pub struct XdpRx {
    socket: XskSocket,
    /// Slots made free since the kernel last got some.
    freed: usize,
    status: Arc<XdpStatus>,
}

impl XdpRx {
    pub(super) fn new(socket: XskSocket, status: Arc<XdpStatus>) -> Self {
        Self { socket, freed: 0, status }
    }

    /// Fills a frame with the next datagram of the tunnel, passing over what is none. False when the queue is empty.
    fn fill(&mut self, frame: &mut Frame) -> bool {
        while let Some(slot) = self.socket.receive() {
            let found = if slot.is_continued() { self.gather(frame, slot) } else { self.copy(frame, slot) };
            match found {
                Ok(tunnelled) => {
                    frame.outer = Some(tunnelled.outer);
                    return true;
                }
                Err(Unsound::Malformed) => self.status.malformed.fetch_add(1, Ordering::Relaxed),
                Err(Unsound::Checksum) => self.status.checksum_errors.fetch_add(1, Ordering::Relaxed),
            };
        }
        false
    }

    /// Copies the payload of a packet that lies in one slot.
    fn copy(&mut self, frame: &mut Frame, slot: Slot) -> Result<Tunnelled, Unsound> {
        let bytes = self.socket.bytes(&slot);
        let found = read(bytes);
        if let Ok(tunnelled) = &found {
            frame.fill(&bytes[tunnelled.payload.clone()]);
        }
        self.free(slot);
        found
    }

    /// Puts together a packet that lies in several slots, then takes its outer headers off.
    fn gather(&mut self, frame: &mut Frame, first: Slot) -> Result<Tunnelled, Unsound> {
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
            self.free(slot);
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
        Ok(tunnelled)
    }

    fn free(&mut self, slot: Slot) {
        self.socket.release(slot);
        self.freed += 1;
    }

    fn refill(&mut self) {
        self.freed = 0;
        self.socket.refill();
        debug_assert_eq!(self.socket.census().total(), SLOTS, "a slot was lost: {:?}", self.socket.census());
        debug_assert_eq!(self.socket.census().held, 0, "a slot was kept");
    }
}

impl PortRx for XdpRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let mut status = RxStatus::More;
        let before = batch.len();
        for _ in 0..budget.min(batch.room()) {
            let Some(mut frame) = pool.take() else { break };
            if !self.fill(&mut frame) {
                pool.give(frame);
                status = RxStatus::Drained;
                break;
            }
            batch.push(frame);
        }
        self.status.frames.fetch_add((batch.len() - before) as u64, Ordering::Relaxed);
        if self.freed >= REFILL_SLOTS || (status == RxStatus::Drained && self.freed > 0) {
            self.refill();
        }
        status
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd())
    }
}
