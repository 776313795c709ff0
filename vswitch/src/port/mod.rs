//! Where frames come in and go out: what a worker asks of a device, and the devices.
//!
//! A port is two halves, because the receiving half belongs to one worker while every worker may send.
//! Devices decide nothing about frames.

mod coalesce;
pub mod fault;
pub mod interface;
pub mod memory;
pub mod pcap;
pub mod tap;
pub mod udp;
pub mod veth;
pub mod xdp;

use std::os::fd::BorrowedFd;

pub use coalesce::Coalescer;

use crate::frame::{Batch, Encap, Frame, FramePool};

/// Frame bytes one turn of one port may bring in: a few super-frames, so that they are sent while in cache.
pub const TURN_BYTES: usize = 256 * 1024;

/// What a port can carry, so that the switch cuts or completes frames only where it must.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCaps {
    /// Takes a `Partial` checksum.
    pub checksum: bool,
    /// Takes TCP super-frames over IPv4.
    pub tcp4: bool,
    /// Takes TCP super-frames over IPv6.
    pub tcp6: bool,
    /// Takes UDP super-frames, either family.
    pub udp: bool,
}

impl PortCaps {
    /// Everything: what a TAP with all offloads takes.
    pub const ALL: Self = Self { checksum: true, tcp4: true, tcp6: true, udp: true };
    /// Nothing: complete packets only.
    pub const NONE: Self = Self { checksum: false, tcp4: false, tcp6: false, udp: false };
}

/// How one turn of receiving ended; of several halves' the last in this order is the port's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RxStatus {
    /// The device is empty; poll before asking again.
    Drained,
    /// As [`RxStatus::Drained`], in the midst of a TCP stream: more of it may be gathered by asking a little later.
    Midstream,
    /// There may be more: the batch or the budget was full.
    More,
    /// The device is gone; the worker reports it and stops polling.
    Closed,
}

impl RxStatus {
    /// With what is known of the last packet.
    #[must_use]
    pub fn in_midstream(self, midstream: bool) -> Self {
        if self == Self::Drained && midstream { Self::Midstream } else { self }
    }
}

/// Frames asked of a device at a time, unless it says otherwise.
pub const RX_STEP_FRAMES: usize = 4;

/// The receiving half of a port, owned by one worker.
pub trait PortRx: Send + std::fmt::Debug {
    /// Moves received frames into the batch, at most `budget` and at most what fits, and sets each frame's
    /// bytes and offload (the caller sets `ingress`). Never blocks.
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus;

    /// Frames to ask for at a time before looking at how many bytes they were. Few, since each may be a super-frame; more
    /// where the half itself bounds the bytes of a burst.
    fn step_frames(&self) -> usize {
        RX_STEP_FRAMES
    }

    /// Whether the device is to be visited each pass though epoll says nothing, since the half itself has the driver look
    /// for what came.
    fn drives_device(&self) -> bool {
        false
    }

    /// What epoll waits on; none for ports that are always polled.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// One packet cut from a frame: header bytes written anew, and a span of the frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Offset and length of the headers in [`Pieces::headers`].
    pub header: (u32, u32),
    /// Offset and length of the payload in the frame's bytes.
    pub payload: (u32, u32),
}

/// The packets a frame was cut into, complete in headers and checksums.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    /// All new header bytes.
    pub headers: &'a [u8],
    /// The packets, in order.
    pub list: &'a [Piece],
}

/// One frame to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The frame. Sent as it is, offload included, when there are no pieces.
    pub frame: &'a Frame,
    /// The packets it was cut into.
    pub pieces: Option<Pieces<'a>>,
    /// Tunnel headers for an uplink to write.
    pub encap: Option<&'a Encap>,
}

impl<'a> Outgoing<'a> {
    /// Header and payload bytes of each packet to write, in order: the whole frame (with an empty payload)
    /// when it was not cut.
    #[inline]
    pub fn packets(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        const WHOLE: &[Piece] = &[Piece { header: (0, u32::MAX), payload: (0, 0) }];
        let bytes = self.frame.bytes();
        let (headers, list) = self.pieces.map_or((bytes, WHOLE), |pieces| (pieces.headers, pieces.list));
        let span = |of: &'a [u8], (at, len): (u32, u32)| &of[at as usize..of.len().min(at as usize + len as usize)];
        list.iter().map(move |piece| (span(headers, piece.header), span(bytes, piece.payload)))
    }
}

/// Why a device did not take a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxError {
    /// No room now.
    Full,
    /// Longer than the path takes.
    TooBig {
        /// The path's MTU in bytes, outer IP header included, where the device knows it.
        path_mtu: Option<u16>,
    },
    /// The device is down or gone.
    Down,
    /// Refused for another reason.
    Refused,
}

/// The sending half of a port. Each worker has one of its own; the device below may be shared.
pub trait PortTx: Send + std::fmt::Debug {
    /// Sends one frame, or all its packets. Never blocks. An error means at least one packet was not taken.
    ///
    /// # Errors
    /// [`TxError`], which the worker turns into the frame's outcome.
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError>;

    /// Sends what [`PortTx::tx`] may have gathered; called once at the end of a pass.
    fn flush(&mut self) -> Flushed {
        Flushed::default()
    }
}

/// What there is to say at the end of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// Whether the device had no room for all of it, so that it wants [`PortTx::flush`] again soon.
    pub has_unsent: bool,
    /// Offloads of the device that switched themselves off since the last flush.
    pub offloads_disabled: u64,
}
