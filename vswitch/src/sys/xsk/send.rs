//! The sending half of a socket: its ring, the completion ring, and the slots that go round between the two.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use xsk_rs::socket::TxQueue;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, Umem};

use super::receive::Bound;
use super::{BURST, BindMode, Census, SLOT_BYTES, SLOT_DATA_BYTES};

/// Option of linux/if_xdp.h that libc does not have.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// The bytes of one slot to be sent, owned by whoever has this.
#[derive(Debug)]
#[must_use = "a slot that is not given back is lost to its socket"]
pub struct TxSlot(FrameDesc);

/// Why a packet was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// All slots, or all places of the ring, are in use.
    Full,
    /// It does not fit a slot.
    TooLong,
}

/// Sends to one queue.
#[derive(Debug)]
pub struct XskSender {
    // The rings go before the memory they describe.
    tx: TxQueue,
    completion: CompQueue,
    umem: Umem,
    queue: u32,
    mode: BindMode,
    /// Slots nobody uses, last in first out, so that they stay in cache.
    free: Vec<FrameDesc>,
    slots: usize,
    /// Packets the ring holds.
    ring: usize,
    in_tx: usize,
    held: usize,
}

impl XskSender {
    pub(super) fn new((tx, completion): (TxQueue, CompQueue), umem: Umem, bound: Bound, free: Vec<FrameDesc>) -> Self {
        let (slots, Bound { queue, mode, .. }) = (free.len(), bound);
        Self { tx, completion, umem, queue, mode, free, slots, ring: slots.next_power_of_two(), in_tx: 0, held: 0 }
    }

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

    /// A free slot to write a packet into; none when all are in use.
    pub fn take(&mut self) -> Option<TxSlot> {
        if self.free.is_empty() {
            self.take_back();
        }
        let desc = self.free.pop()?;
        self.held += 1;
        Some(TxSlot(desc))
    }

    /// Writes the spans into a slot as one packet; false when they do not fit, which leaves it empty.
    pub fn write(&mut self, slot: &mut TxSlot, spans: &[&[u8]]) -> bool {
        // SAFETY: the slot is a token of this socket's memory which no ring has, and it is borrowed for us alone.
        let mut data = unsafe { self.umem.data_mut(&mut slot.0) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        let fits = spans.iter().map(|span| span.len()).sum::<usize>() <= SLOT_DATA_BYTES;
        fits && spans.iter().all(|span| io::Write::write_all(&mut cursor, span).is_ok())
    }

    /// Makes a slot free again that is not sent after all.
    pub fn release(&mut self, slot: TxSlot) {
        debug_assert!(self.held > 0, "a slot came back that was never given");
        self.held -= 1;
        self.free.push(slot.0);
    }

    /// Queues a packet; the slot comes back when there is no room. [`XskSender::kick`] sends what is queued.
    ///
    /// # Errors
    /// The slot, unsent.
    pub fn send(&mut self, slot: TxSlot) -> Result<(), TxSlot> {
        // SAFETY: the slot is ours alone, of this socket's memory, and given up here.
        if unsafe { self.tx.produce_one(&slot.0) } == 0 {
            return Err(slot);
        }
        self.held -= 1;
        self.in_tx += 1;
        Ok(())
    }

    /// Queues the spans as one packet, which the next kick sends. When all slots are in use, those that the kernel has sent
    /// by now are taken back.
    ///
    /// # Errors
    /// [`Unsent`]; nothing is queued then.
    pub fn send_packet(&mut self, spans: &[&[u8]]) -> Result<(), Unsent> {
        let mut slot = match self.take() {
            Some(slot) => slot,
            None => {
                self.kick_all();
                self.take().ok_or(Unsent::Full)?
            }
        };
        if !self.write(&mut slot, spans) {
            self.release(slot);
            return Err(Unsent::TooLong);
        }
        self.send(slot).map_err(|slot| {
            self.release(slot);
            Unsent::Full
        })
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

    /// Kicks until the kernel has taken all that is queued, or takes no more, which the next call makes good; then takes
    /// back what it has sent. No slot may be held.
    pub fn kick_all(&mut self) {
        let mut queued = self.queued();
        while queued > 0 && self.tx.needs_wakeup() {
            // EAGAIN says that the kernel's bound for one go is reached, or that the NIC is full: progress tells.
            let _ = self.tx.wakeup();
            let left = self.queued();
            if left >= queued {
                break;
            }
            queued = left;
        }
        self.take_back();
        debug_assert_eq!(self.census().total(), self.slots, "a slot was lost: {:?}", self.census());
        debug_assert_eq!(self.held, 0, "a slot was kept");
    }

    /// Whether the kernel has not taken all that is queued and will not without being told.
    pub fn wants_kick(&mut self) -> bool {
        self.in_tx > 0 && self.queued() > 0 && self.tx.needs_wakeup()
    }

    /// Packets that the kernel has not taken yet.
    fn queued(&mut self) -> usize {
        self.ring.saturating_sub(self.tx.nb_free_exact() as usize)
    }

    /// Has the kernel send as many packets a kick as the ring holds, where it copies them and can be asked (Linux 6.17;
    /// older ones send 32), and lets all of them be under way at once. Whether it does shows in speed only.
    pub fn raise_limits(&self) {
        let fd = self.tx.fd().as_raw_fd();
        let set = |level, name, value: usize| {
            let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
            let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
            // SAFETY: the option is an int, which outlives the call, and the socket is open as long as its ring is.
            Errno::result(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) })
        };
        let _slower = set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, self.ring);
        let _slower = set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, self.slots * SLOT_BYTES);
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

    /// Slots it has, wherever they are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Where its slots are now.
    #[must_use]
    pub fn census(&self) -> Census {
        Census { free: self.free.len(), fill: 0, rx: 0, tx: self.in_tx, held: self.held }
    }
}
