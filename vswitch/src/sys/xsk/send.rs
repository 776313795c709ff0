//! The sending half of a socket: its ring, the completion ring, and the slots that go round between the two.

use std::io;

use xsk_rs::socket::TxQueue;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, Umem};

use super::receive::Bound;
use super::{BURST, BindMode, Census, SLOT_DATA_BYTES};

/// The bytes of one slot to be sent, owned by whoever has this.
#[derive(Debug)]
#[must_use = "a slot that is not given back is lost to its socket"]
pub struct TxSlot(FrameDesc);

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
    in_tx: usize,
    held: usize,
}

impl XskSender {
    pub(super) fn new((tx, completion): (TxQueue, CompQueue), umem: Umem, bound: Bound, free: Vec<FrameDesc>) -> Self {
        let slots = free.len();
        Self { tx, completion, umem, queue: bound.queue, mode: bound.mode, free, slots, in_tx: 0, held: 0 }
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
