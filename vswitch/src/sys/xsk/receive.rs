//! The receiving half of a socket: its ring, the fill ring, and the slots that go round between the two.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use xsk_rs::socket::RxQueue;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{FillQueue, Umem};

use super::{BURST, BindMode, Census, XskError, XskWatch};

/// Free slots that are gathered before they are given to the kernel again.
const REFILL_SLOTS: usize = 64;

/// The bytes of one slot that was received, owned by whoever has this.
#[derive(Debug)]
#[must_use = "a slot that is not given back is lost to its socket"]
pub struct Slot(FrameDesc);

impl Slot {
    /// Whether the packet goes on in the next slot that was received.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.0.has_more_frames()
    }
}

/// Receives from one queue.
#[derive(Debug)]
pub struct XskReceiver {
    // The rings go before the memory they describe.
    rx: RxQueue,
    fill: FillQueue,
    umem: Umem,
    bound: Bound,
    /// Slots nobody uses, last in first out, so that they stay in cache.
    free: Vec<FrameDesc>,
    /// Received and taken off the ring, to be handed out.
    pending: VecDeque<FrameDesc>,
    slots: usize,
    in_fill: usize,
    held: usize,
}

/// What is known of the socket both halves belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) queue: u32,
    pub(super) mode: BindMode,
    pub(super) multi_buffer: bool,
}

impl XskReceiver {
    pub(super) fn new((rx, fill): (RxQueue, FillQueue), umem: Umem, bound: Bound, free: Vec<FrameDesc>) -> Self {
        let (slots, pending) = (free.len(), VecDeque::with_capacity(BURST));
        Self { rx, fill, umem, bound, free, pending, slots, in_fill: 0, held: 0 }
    }

    /// The queue it serves.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.bound.queue
    }

    /// How it is bound.
    #[must_use]
    pub fn mode(&self) -> BindMode {
        self.bound.mode
    }

    /// Whether a packet may come in several slots.
    #[must_use]
    pub fn is_multi_buffer(&self) -> bool {
        self.bound.multi_buffer
    }

    /// For epoll, and for the program's map of sockets.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as its receiving ring is, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// The next slot that was received; none when there is none. To be given back with [`XskReceiver::release`].
    pub fn receive(&mut self) -> Option<Slot> {
        if self.pending.is_empty() {
            let mut descs = [FrameDesc::default(); BURST];
            // SAFETY: the descriptors are only written to, with slots of this socket's memory.
            let received = unsafe { self.rx.consume(&mut descs) };
            self.pending.extend(&descs[..received]);
            self.in_fill -= received;
        }
        let desc = self.pending.pop_front()?;
        self.held += 1;
        Some(Slot(desc))
    }

    /// The bytes received into a slot.
    #[must_use]
    pub fn bytes<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        // SAFETY: the slot is a token of this socket's memory which no ring has, and nobody writes while it is borrowed.
        unsafe { self.umem.data(&slot.0) }.contents()
    }

    /// Makes a slot free again.
    pub fn release(&mut self, slot: Slot) {
        debug_assert!(self.held > 0, "a slot came back that was never given");
        self.held -= 1;
        self.free.push(slot.0);
    }

    /// Gives free slots to the kernel once they are worth a call, or `drained`: nothing more has come. No slot may be held.
    pub fn refill_when_due(&mut self, drained: bool) {
        if self.free.len() >= REFILL_SLOTS || (drained && !self.free.is_empty()) {
            self.refill();
            debug_assert_eq!(self.census().total(), self.slots, "a slot was lost");
            debug_assert_eq!(self.held, 0, "a slot was kept");
        }
    }

    /// Gives free slots to the kernel to receive into, and wakes it if it waits for them.
    pub fn refill(&mut self) {
        while !self.free.is_empty() {
            let from = self.free.len().saturating_sub(BURST);
            // SAFETY: these slots are free, so that neither we nor another ring uses them, and of this socket's memory.
            let given = unsafe { self.fill.produce(&self.free[from..]) };
            debug_assert!(given == 0 || given == self.free.len() - from, "the ring takes all of a burst or none");
            self.in_fill += given;
            self.free.truncate(self.free.len() - given);
            if given == 0 {
                break;
            }
        }
        if self.fill.needs_wakeup() {
            // A wakeup that fails is made good by the next one.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }

    /// Slots it has, wherever they are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Where its slots are now.
    pub fn census(&mut self) -> Census {
        let waiting = (self.rx.nb_avail_exact() as usize).min(self.in_fill);
        Census {
            free: self.free.len(),
            fill: self.in_fill - waiting,
            rx: waiting + self.pending.len(),
            tx: 0,
            held: self.held,
        }
    }

    /// A second descriptor of the socket, through which others than its worker read the kernel's counters. It keeps the
    /// socket open.
    ///
    /// # Errors
    /// [`XskError::Watch`] when there are no more descriptors.
    pub fn watch(&self) -> Result<XskWatch, XskError> {
        self.fd()
            .try_clone_to_owned()
            .map(XskWatch)
            .map_err(|source| XskError::Watch { queue: self.bound.queue, source })
    }
}
