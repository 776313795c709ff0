//! AF_XDP sockets: the one wrapper around xsk-rs (linux/if_xdp.h, Documentation/networking/af_xdp.rst).
//!
//! An [`XskSocket`] serves one queue of one NIC with packet memory (UMEM) of its own. It is two halves that can be owned
//! apart, by two threads: an [`XskReceiver`] and an [`XskSender`]. The memory is cut into slots, some for the one and the
//! rest for the other, and none ever changes sides. A [`Slot`] or [`TxSlot`] is a token that moves: whoever holds it owns
//! those bytes, and giving it to a ring gives it up, so that use after sending does not compile. Each half's census counts
//! where its slots are, which have to add up. What is in the frames is `port`'s affair; what comes here at all is decided
//! by `sys::bpf`'s program.

mod busy_poll;
mod open;
mod receive;
mod send;

use std::ops::Add;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

pub use open::{BindMode, Queues, XskError, XskSpec, queues};
pub use receive::{Slot, XskReceiver};
pub use send::{TxSlot, Unsent, XskSender};

/// Bytes of a slot: a page, the most the kernel takes without huge pages.
pub const SLOT_BYTES: usize = 4_096;
/// Bytes the kernel keeps free in front of what it receives (`XDP_PACKET_HEADROOM`).
const SLOT_HEADROOM_BYTES: usize = 256;
/// Bytes of one received packet that fit one slot.
pub const SLOT_DATA_BYTES: usize = SLOT_BYTES - SLOT_HEADROOM_BYTES;
/// Slots one packet is sent from at most, where it may be several: what drivers with zero-copy take at least (i40e, ice);
/// a kernel that copies takes `MAX_SKB_FRAGS` (17) and one.
const PACKET_SLOTS_MAX: usize = 8;
/// Received packets, or parts of them, that wait for us at most.
const RX_RING: usize = 2_048;
/// Descriptors moved between rings in one go.
const BURST: usize = 64;

/// Bytes of the longest packet that is sent, in one slot or, with `multi_buffer`, in several.
#[must_use]
pub const fn packet_bytes_max(multi_buffer: bool) -> usize {
    if multi_buffer { PACKET_SLOTS_MAX * SLOT_DATA_BYTES } else { SLOT_DATA_BYTES }
}

/// How many slots a socket's halves have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotPlan {
    /// To receive into. With fewer the kernel drops what comes in bursts.
    pub receive: usize,
    /// To send from: as many packets are under way at most.
    pub send: usize,
}

impl SlotPlan {
    /// Of a NIC's queue, which all nodes' traffic comes through.
    pub const UPLINK: Self = Self { receive: 3_072, send: 1_024 };

    /// All of them.
    #[must_use]
    pub fn total(self) -> usize {
        self.receive + self.send
    }
}

/// Where the slots of one half of a socket are.
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
    /// With us, as [`Slot`]s or [`TxSlot`]s.
    pub held: usize,
}

impl Census {
    /// All of them: as many as the half was given, or some were lost or doubled.
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

/// A bound socket of one queue: two halves with slots of their own in one memory, to be owned apart. The socket is open as
/// long as either is.
#[derive(Debug)]
pub struct XskSocket {
    /// What receives.
    pub receiver: XskReceiver,
    /// What sends.
    pub sender: XskSender,
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
