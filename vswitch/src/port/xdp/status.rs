//! How the uplink fares, as the control side reads it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;

use super::XdpMode;
use crate::sys::xsk::{XskError, XskReceiver, XskStatistics, XskWatch, packet_bytes_max};
use crate::wire::ethernet;

/// Whether workers have the driver look for packets themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusyPoll {
    /// Not asked for.
    Off,
    /// Asked for, and refused by the kernel.
    Refused(Errno),
    /// They do.
    On,
}

/// How the uplink fares. Counted by the workers, read by the control side.
#[derive(Debug)]
pub struct XdpStatus {
    mode: XdpMode,
    passed_over: Vec<String>,
    watches: Vec<XskWatch>,
    multi_buffer: bool,
    busy_poll: BusyPoll,
    senders: AtomicUsize,
    pub(super) frames: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) checksum_errors: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl XdpStatus {
    pub(super) fn new(
        mode: XdpMode,
        passed_over: Vec<String>,
        receivers: &[XskReceiver],
        busy_poll: BusyPoll,
    ) -> Result<Self, XskError> {
        Ok(Self {
            mode,
            passed_over,
            watches: receivers.iter().map(XskReceiver::watch).collect::<Result<_, _>>()?,
            multi_buffer: receivers.iter().all(XskReceiver::is_multi_buffer),
            busy_poll,
            senders: AtomicUsize::new(0),
            frames: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            checksum_errors: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    pub(super) fn add_sender(&self) {
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    /// Workers that send through AF_XDP; the others send by UDP.
    #[must_use]
    pub fn senders(&self) -> usize {
        self.senders.load(Ordering::Relaxed)
    }

    /// Packets that were sent this way, and not through the UDP sockets.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The mode it runs in.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Why each faster mode was passed over, in the order they were tried.
    #[must_use]
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Queues served.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.watches.len()
    }

    /// Whether frames longer than a slot come in several, or go to the UDP sockets.
    #[must_use]
    pub fn is_multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// Longest outer IP packet in bytes that can be sent this way: what fits the slots of one behind an Ethernet header.
    #[must_use]
    pub fn send_bytes_max(&self) -> u16 {
        u16::try_from(packet_bytes_max(self.multi_buffer) - ethernet::HEADER_LEN).unwrap_or(u16::MAX)
    }

    /// Whether workers busy-poll.
    #[must_use]
    pub fn busy_poll(&self) -> BusyPoll {
        self.busy_poll
    }

    /// Queues that are not busy-polled, since the kernel knows no NAPI instance of theirs, or not yet.
    #[must_use]
    pub fn queues_without_napi(&self) -> usize {
        self.watches.iter().filter(|watch| !watch.has_napi()).count()
    }

    /// Frames that came this way, and not through the UDP sockets beside.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Frames that were no sound datagrams of the tunnel, and were thrown away before they became frames of ours.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Frames thrown away for a wrong outer checksum.
    #[must_use]
    pub fn checksum_errors(&self) -> u64 {
        self.checksum_errors.load(Ordering::Relaxed)
    }

    /// What the kernel counted, all queues together.
    #[must_use]
    pub fn statistics(&self) -> XskStatistics {
        // A socket that does not say any more counts nothing any more.
        self.watches
            .iter()
            .filter_map(|watch| watch.statistics().ok())
            .fold(XskStatistics::default(), |sum, one| sum + one)
    }
}
