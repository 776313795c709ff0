//! AF_XDP sockets: the one wrapper around xsk-rs (linux/if_xdp.h, Documentation/networking/af_xdp.rst).
//!
//! An [`XskSocket`] serves one receive queue of one NIC with packet memory (UMEM) of its own. Its memory is cut into slots,
//! and a [`Slot`] is a token that moves: whoever holds it owns those bytes, and giving it to a ring gives it up, so that
//! use after sending does not compile. [`XskSocket::census`] counts where the slots are, which have to add up. What is
//! in the frames is `port::xdp`'s affair; what comes here at all is decided by `sys::bpf`'s program.

mod open;

use std::collections::VecDeque;
use std::io;
use std::ops::Add;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use xsk_rs::socket::{RxQueue, TxQueue};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, Umem};

pub use open::{BindMode, XskError, XskSpec, rx_queues};

/// Slots a socket has.
pub const SLOTS: usize = 4_096;
/// Bytes of a slot: a page, the most the kernel takes without huge pages.
pub const SLOT_BYTES: usize = 4_096;
/// Bytes the kernel keeps free in front of what it receives (`XDP_PACKET_HEADROOM`).
const SLOT_HEADROOM_BYTES: usize = 256;
/// Bytes of one received packet that fit one slot.
pub const SLOT_DATA_BYTES: usize = SLOT_BYTES - SLOT_HEADROOM_BYTES;
/// Slots kept for sending; the rest receives.
const SLOTS_TO_SEND: usize = 1_024;
/// Received packets, or parts of them, that wait for us at most.
const RX_RING: u32 = 2_048;
/// Packets that wait for the kernel at most.
const TX_RING: u32 = 1_024;
/// Descriptors moved between rings in one go.
const BURST: usize = 64;

/// The bytes of one slot, owned by whoever has this.
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

/// Where the slots of a socket are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Ready to be used.
    pub free: usize,
    /// With the kernel, to receive into.
    pub fill: usize,
    /// Received and not taken yet.
    pub rx: usize,
    /// With the kernel, to be sent, or sent and not taken back yet.
    pub tx: usize,
    /// With us, as [`Slot`]s.
    pub held: usize,
}

impl Census {
    /// All of them: [`SLOTS`], or some were lost or doubled.
    #[must_use]
    pub fn total(&self) -> usize {
        self.free + self.fill + self.rx + self.tx + self.held
    }
}

/// What the kernel counted for a socket since it was opened (`struct xdp_statistics`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XskStatistics {
    /// Frames dropped because they were too long for a slot, or for another reason.
    pub rx_dropped: u64,
    /// Slots we gave to receive into that made no sense.
    pub rx_invalid: u64,
    /// Slots we gave to send that made no sense.
    pub tx_invalid: u64,
    /// Frames dropped because we were too slow to take those before.
    pub ring_full: u64,
    /// Times there was no slot to receive into.
    pub fill_empty: u64,
}

impl Add for XskStatistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rx_dropped: self.rx_dropped + other.rx_dropped,
            rx_invalid: self.rx_invalid + other.rx_invalid,
            tx_invalid: self.tx_invalid + other.tx_invalid,
            ring_full: self.ring_full + other.ring_full,
            fill_empty: self.fill_empty + other.fill_empty,
        }
    }
}

/// A bound socket of one queue.
#[derive(Debug)]
pub struct XskSocket {
    // The rings go before the memory they describe.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    queue: u32,
    mode: BindMode,
    multi_buffer: bool,
    /// Slots nobody uses, last in first out, so that they stay in cache.
    free: Vec<FrameDesc>,
    /// Received and taken off the ring, to be handed out.
    pending: VecDeque<FrameDesc>,
    in_fill: usize,
    in_tx: usize,
    held: usize,
}

impl XskSocket {
    /// The queue it serves.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// How it is bound.
    #[must_use]
    pub fn mode(&self) -> BindMode {
        self.mode
    }

    /// Whether a packet may come in several slots.
    #[must_use]
    pub fn is_multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// For epoll, and for the steering program's map.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as its receiving ring is, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// The next slot that was received; none when there is none. To be given back with [`XskSocket::release`].
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

    /// The bytes received into a slot, or written into it.
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

    /// Gives free slots to the kernel to receive into, less those kept for sending, and wakes it if it waits for them.
    pub fn refill(&mut self) {
        while self.free.len() > SLOTS_TO_SEND {
            let count = BURST.min(self.free.len() - SLOTS_TO_SEND);
            let from = self.free.len() - count;
            // SAFETY: these slots are free, so that neither we nor another ring uses them, and of this socket's memory.
            let given = unsafe { self.fill.produce(&self.free[from..]) };
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

    /// A free slot to write a packet into; none when all are in use.
    pub fn take(&mut self) -> Option<Slot> {
        if self.free.is_empty() {
            self.take_back();
        }
        let desc = self.free.pop()?;
        self.held += 1;
        Some(Slot(desc))
    }

    /// Writes the spans into a slot as one packet; false when they do not fit, which leaves it empty.
    pub fn write(&mut self, slot: &mut Slot, spans: &[&[u8]]) -> bool {
        // SAFETY: the slot is a token of this socket's memory which no ring has, and it is borrowed for us alone.
        let mut data = unsafe { self.umem.data_mut(&mut slot.0) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        let fits = spans.iter().map(|span| span.len()).sum::<usize>() <= SLOT_DATA_BYTES;
        fits && spans.iter().all(|span| io::Write::write_all(&mut cursor, span).is_ok())
    }

    /// Queues a packet; the slot comes back when there is no room. [`XskSocket::kick`] sends what is queued.
    ///
    /// # Errors
    /// The slot, unsent.
    pub fn send(&mut self, slot: Slot) -> Result<(), Slot> {
        // SAFETY: the slot is ours alone, of this socket's memory, and given up here.
        if unsafe { self.tx.produce_one(&slot.0) } == 0 {
            return Err(slot);
        }
        self.held -= 1;
        self.in_tx += 1;
        Ok(())
    }

    /// Tells the kernel to send what is queued, where it has to be told, and takes back what it has sent. The kernel
    /// sends a bounded number in one go.
    pub fn kick(&mut self) {
        if self.in_tx > 0 && self.tx.needs_wakeup() {
            // EAGAIN and ENOBUFS mean "later", which is what the next kick is.
            let _ = self.tx.wakeup();
        }
        self.take_back();
    }

    /// Packets queued or under way.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.in_tx
    }

    fn take_back(&mut self) {
        let mut descs = [FrameDesc::default(); BURST];
        loop {
            // SAFETY: the descriptors are only written to, with slots of this socket's memory.
            let sent = unsafe { self.completion.consume(&mut descs) };
            self.free.extend(&descs[..sent]);
            self.in_tx -= sent;
            if sent < BURST {
                break;
            }
        }
    }

    /// Where the slots are now.
    pub fn census(&mut self) -> Census {
        let waiting = (self.rx.nb_avail_exact() as usize).min(self.in_fill);
        Census {
            free: self.free.len(),
            fill: self.in_fill - waiting,
            rx: waiting + self.pending.len(),
            tx: self.in_tx,
            held: self.held,
        }
    }

    /// A second descriptor of the socket, through which others than its worker read the kernel's counters. It keeps the
    /// socket open.
    ///
    /// # Errors
    /// [`XskError::Watch`] when there are no more descriptors.
    pub fn watch(&self) -> Result<XskWatch, XskError> {
        self.fd().try_clone_to_owned().map(XskWatch).map_err(|source| XskError::Watch { queue: self.queue, source })
    }
}

/// Reads the counters of a socket that belongs to somebody else.
#[derive(Debug)]
pub struct XskWatch(OwnedFd);

impl XskWatch {
    /// What the kernel counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> Result<XskStatistics, Errno> {
        // SAFETY: all-zero is a valid xdp_statistics.
        let mut counts: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        let mut len = libc::socklen_t::try_from(size_of::<libc::xdp_statistics>()).unwrap_or(0);
        let to = (&raw mut counts).cast();
        // SAFETY: the structure and its length outlive the call, which writes no more than that.
        let result =
            unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, to, &raw mut len) };
        Errno::result(result)?;
        Ok(XskStatistics {
            rx_dropped: counts.rx_dropped,
            rx_invalid: counts.rx_invalid_descs,
            tx_invalid: counts.tx_invalid_descs,
            ring_full: counts.rx_ring_full,
            fill_empty: counts.rx_fill_ring_empty_descs,
        })
    }
}

#[cfg(test)]
mod tests;
