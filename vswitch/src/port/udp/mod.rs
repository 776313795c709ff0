//! The UDP uplink: VXLAN over the kernel's UDP sockets, no NIC touched. The default.
//!
//! Each worker has one receiving socket a family, all on the VXLAN port (`SO_REUSEPORT` spreads remote flows over
//! them), and a few sending sockets on ports of their own, chosen by the inner flow (RFC 7348, section 5). Outer IP
//! and UDP headers are the kernel's; this module writes the VXLAN header in front of what the pipeline decided, and
//! judges nothing of what comes in.

mod rx;
mod tx;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub use rx::UdpRx;
pub use tx::UdpTx;

use super::PortCaps;
use crate::sys::udp::{Role, SEGMENTS_MAX, UdpError, UdpSocket, segment_limit};

/// Sending sockets a worker and family, each with a source port of its own: what the underlay spreads flows by.
pub const SEND_SOCKETS: usize = 4;
/// Bytes a receiving socket is asked to queue: about 5 ms at 25 Gb/s, since a worker may be off its CPU that long.
const RECEIVE_QUEUE_BYTES: usize = 16 << 20;
/// Bytes a sending socket is asked to queue.
const SEND_QUEUE_BYTES: usize = 4 << 20;

/// What the uplink shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpSpec {
    /// Our VTEP addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// VXLAN port, ours and the remotes'.
    pub port: u16,
    /// Workers to serve.
    pub workers: usize,
    /// Whether to use `UDP_SEGMENT` where the kernel has it.
    pub segmentation: bool,
    /// Whether the kernel may merge datagrams it receives (`UDP_GRO`).
    pub merging: bool,
    /// Whether outer datagrams bear a checksum. Without one, segmentation is off: the kernel refuses it.
    pub checksum: bool,
}

/// One worker's halves.
#[derive(Debug)]
pub struct UdpHalves {
    /// Receiving, one a family.
    pub rx: Vec<UdpRx>,
    /// Sending, both families.
    pub tx: UdpTx,
}

/// The uplink, opened.
#[derive(Debug)]
pub struct UdpUplink {
    /// One entry a worker.
    pub workers: Vec<UdpHalves>,
    /// How it fares; shared by all halves.
    pub status: Arc<UdpStatus>,
}

impl UdpUplink {
    /// What the pipeline may hand over: complete packets only, which it cuts itself into [`super::Pieces`].
    pub const CAPS: PortCaps = PortCaps::NONE;

    /// Binds all sockets in the calling thread's namespace.
    ///
    /// # Errors
    /// [`UdpError`], naming the address.
    pub fn open(spec: &UdpSpec) -> Result<Self, UdpError> {
        let limit = if spec.segmentation && spec.checksum { segment_limit() } else { 0 };
        let status = Arc::new(UdpStatus::new(limit));
        let workers = (0..spec.workers.max(1)).map(|_| Self::halves(spec, &status)).collect::<Result<_, _>>()?;
        Ok(Self { workers, status })
    }

    fn halves(spec: &UdpSpec, status: &Arc<UdpStatus>) -> Result<UdpHalves, UdpError> {
        let receive = |&address: &IpAddr| {
            let socket = UdpSocket::open(SocketAddr::new(address, spec.port), Role::Receive, RECEIVE_QUEUE_BYTES)?;
            // Without it datagrams simply come one by one.
            let merges = spec.merging && socket.enable_merging().is_ok();
            status.merges.store(merges, Ordering::Relaxed);
            status.receive_queue_bytes.store(socket.buffer_bytes(), Ordering::Relaxed);
            Ok(UdpRx::new(socket, Arc::clone(status)))
        };
        let send = |&address: &IpAddr| {
            let one = |_| {
                let socket = UdpSocket::open(SocketAddr::new(address, 0), Role::Send, SEND_QUEUE_BYTES)?;
                if !spec.checksum {
                    socket.disable_checksum()?;
                }
                Ok(socket)
            };
            (0..SEND_SOCKETS).map(one).collect::<Result<Vec<_>, _>>()
        };
        let rx = spec.addresses.iter().map(receive).collect::<Result<_, _>>()?;
        let sockets = spec.addresses.iter().map(send).collect::<Result<Vec<_>, _>>()?;
        let tx = UdpTx::new(sockets.into_iter().flatten().collect(), spec.port, Arc::clone(status));
        Ok(UdpHalves { rx, tx })
    }
}

/// How the uplink fares. Written by the workers, read by the control side.
#[derive(Debug)]
pub struct UdpStatus {
    segment_limit: AtomicUsize,
    merges: AtomicBool,
    receive_queue_bytes: AtomicUsize,
    segmentation_refused: AtomicU64,
    /// Of which this many switched it off, and no worker has counted it yet.
    disabled: AtomicU64,
    truncated: AtomicU64,
    receive_errors: AtomicU64,
}

impl UdpStatus {
    fn new(segment_limit: usize) -> Self {
        Self {
            segment_limit: AtomicUsize::new(segment_limit.min(SEGMENTS_MAX)),
            merges: AtomicBool::new(false),
            receive_queue_bytes: AtomicUsize::new(0),
            segmentation_refused: AtomicU64::new(0),
            disabled: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            receive_errors: AtomicU64::new(0),
        }
    }

    /// Packets one send may carry (`UDP_SEGMENT`); 0 when segmentation is off.
    #[must_use]
    pub fn segment_limit(&self) -> usize {
        self.segment_limit.load(Ordering::Relaxed)
    }

    /// Whether the kernel merges datagrams that are received (`UDP_GRO`).
    #[must_use]
    pub fn merges(&self) -> bool {
        self.merges.load(Ordering::Relaxed)
    }

    /// Sends with segmentation that the kernel refused though it took the same packets one by one. The first one
    /// switches segmentation off: the underlay's device can not do it.
    #[must_use]
    pub fn segmentation_refused(&self) -> u64 {
        self.segmentation_refused.load(Ordering::Relaxed)
    }

    /// Switches segmentation off, by hand.
    pub fn disable_segmentation(&self) {
        self.segment_limit.store(0, Ordering::Relaxed);
    }

    /// Bytes the kernel queues for each receiving socket.
    #[must_use]
    pub fn receive_queue_bytes(&self) -> usize {
        self.receive_queue_bytes.load(Ordering::Relaxed)
    }

    /// Datagrams that were cut by the kernel or came without a sender, and were thrown away before they became frames.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Receives that ended in an error other than "nothing there".
    #[must_use]
    pub fn receive_errors(&self) -> u64 {
        self.receive_errors.load(Ordering::Relaxed)
    }

    fn refuse_segmentation(&self) {
        self.segmentation_refused.fetch_add(1, Ordering::Relaxed);
        if self.segment_limit.swap(0, Ordering::Relaxed) > 0 {
            self.disabled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
