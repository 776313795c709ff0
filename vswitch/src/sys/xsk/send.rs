//! The sending half of a socket: its ring, the completion ring, and the slots that go round between the two.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use xsk_rs::socket::TxQueue;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, Umem};

use super::receive::Bound;
use super::{BURST, BindMode, Census, PACKET_SLOTS_MAX, SLOT_BYTES, SLOT_DATA_BYTES, packet_bytes_max};

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
    /// It is longer than [`packet_bytes_max`].
    TooLong,
}

/// Sends to one queue.
#[derive(Debug)]
pub struct XskSender {
    // The rings go before the memory they describe.
    tx: TxQueue,
    completion: CompQueue,
    umem: Umem,
    bound: Bound,
    /// Slots nobody uses, last in first out, so that they stay in cache.
    free: Vec<FrameDesc>,
    slots: usize,
    /// Slots the ring holds.
    ring: usize,
    in_tx: usize,
    held: usize,
}

impl XskSender {
    pub(super) fn new((tx, completion): (TxQueue, CompQueue), umem: Umem, bound: Bound, free: Vec<FrameDesc>) -> Self {
        let slots = free.len();
        let ring = slots.next_power_of_two();
        Self { tx, completion, umem, bound, free, slots, ring, in_tx: 0, held: 0 }
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
        let len = len_of(spans);
        let fits = len <= SLOT_DATA_BYTES;
        // SAFETY: the slot is a token of this socket's memory which no ring has, and it is borrowed for us alone.
        unsafe { write(&self.umem, &mut slot.0, part(spans, 0..if fits { len } else { 0 })) };
        fits
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

    /// Queues the spans as one packet, which the next kick sends: in one slot, or in as many as it takes, all or none. When
    /// too few are free, those that the kernel has sent by now are taken back.
    ///
    /// # Errors
    /// [`Unsent`]; nothing is queued then.
    pub fn send_packet(&mut self, spans: &[&[u8]]) -> Result<(), Unsent> {
        let len = len_of(spans);
        if len > packet_bytes_max(self.bound.multi_buffer) {
            return Err(Unsent::TooLong);
        }
        let count = len.div_ceil(SLOT_DATA_BYTES).max(1);
        if self.free.len() < count {
            self.take_back();
        }
        if self.free.len() < count {
            self.kick_all();
        }
        let from = self.free.len().checked_sub(count).ok_or(Unsent::Full)?;
        let mut slots: ArrayVec<FrameDesc, PACKET_SLOTS_MAX> = self.free.drain(from..).collect();
        for (at, slot) in slots.iter_mut().enumerate() {
            let bytes = at * SLOT_DATA_BYTES..len.min((at + 1) * SLOT_DATA_BYTES);
            slot.set_options(if bytes.end < len { libc::XDP_PKT_CONTD } else { 0 });
            // SAFETY: the slot was free, so that no ring and nobody else has it.
            unsafe { write(&self.umem, slot, part(spans, bytes)) };
        }
        // SAFETY: the slots are ours alone, of this socket's memory, and given up here.
        if unsafe { self.tx.produce(&slots) } == 0 {
            slots.iter_mut().for_each(|slot| slot.set_options(0));
            self.free.extend(slots);
            return Err(Unsent::Full);
        }
        self.in_tx += count;
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

fn len_of(spans: &[&[u8]]) -> usize {
    spans.iter().map(|span| span.len()).sum()
}

/// What of the spans, laid end to end, is in the range.
fn part<'a>(spans: &'a [&'a [u8]], range: Range<usize>) -> impl Iterator<Item = &'a [u8]> {
    let mut start = 0;
    spans.iter().map(move |span| {
        let within = |at: usize| at.saturating_sub(start).min(span.len());
        let (from, to) = (within(range.start), within(range.end));
        start += span.len();
        &span[from..to]
    })
}

/// Writes bytes, no more than fit, into a slot in place of what is there.
///
/// # Safety
/// The slot is of that memory, and nobody else has it.
unsafe fn write<'a>(umem: &Umem, slot: &mut FrameDesc, bytes: impl Iterator<Item = &'a [u8]>) {
    // SAFETY: as the caller says.
    let mut data = unsafe { umem.data_mut(slot) };
    let mut cursor = data.cursor();
    cursor.set_pos(0);
    for span in bytes {
        let written = io::Write::write_all(&mut cursor, span);
        debug_assert!(written.is_ok(), "a slot has room for what was counted");
    }
}
