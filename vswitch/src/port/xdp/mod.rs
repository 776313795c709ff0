//! The AF_XDP uplink: tunnel traffic taken off a NIC's queues before the kernel's stack sees it.
//!
//! Each receive queue has a socket, and each socket belongs to one worker. The steering program gives them only what is
//! ours; all else, and what it is not sure of, goes to the kernel, so that [`super::udp`]'s sockets have to be open
//! beside this. Sending is theirs altogether: in copy mode a send with `UDP_SEGMENT` beats an AF_XDP frame a packet.

mod outer;
mod rx;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use rx::XdpRx;

use crate::limits::IP_BYTES_MAX;
use crate::sys::bpf::{AttachMode, BpfError, NicLock, QUEUES_MAX, SteerSpec, Steering, detach_ours};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::xsk::{
    BindMode, SLOT_DATA_BYTES, SlotPlan, XskError, XskReceiver, XskSocket, XskSpec, XskStatistics, XskWatch, rx_queues,
};
use crate::wire::ethernet;

/// Longest frame that comes in several slots: the longest IP packet behind an Ethernet header.
const FRAME_BYTES_MAX: usize = IP_BYTES_MAX + ethernet::HEADER_LEN;

/// How frames get from the NIC to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// The driver writes into our memory.
    ZeroCopy,
    /// The driver runs the program, the kernel copies.
    Native,
    /// The stack runs the program, the kernel copies: with any driver.
    Generic,
}

impl XdpMode {
    /// All of them, the fastest first: the order they are tried in.
    pub const ALL: [Self; 3] = [Self::ZeroCopy, Self::Native, Self::Generic];

    /// The name in the configuration and in status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zerocopy",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn parts(self) -> (AttachMode, BindMode) {
        match self {
            Self::ZeroCopy => (AttachMode::Native, BindMode::ZeroCopy),
            Self::Native => (AttachMode::Native, BindMode::Copy),
            Self::Generic => (AttachMode::Generic, BindMode::Copy),
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the uplink shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpSpec {
    /// The NIC, in the calling thread's namespace.
    pub device: String,
    /// Our VTEP addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// VXLAN port.
    pub port: u16,
    /// The one mode that will do; none for the best there is.
    pub mode: Option<XdpMode>,
    /// Workers to serve.
    pub workers: usize,
}

/// The uplink can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// No such NIC.
    #[error(transparent)]
    Device(#[from] NetlinkError),
    /// The steering program.
    #[error(transparent)]
    Program(#[from] BpfError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] XskError),
    /// The NIC has more queues than the program can steer to.
    #[error(
        "{device} receives on {queues} queues, and the AF_XDP uplink serves {QUEUES_MAX}; give it fewer \
         (`ethtool -L {device} combined {QUEUES_MAX}`), or set uplink.kind = \"udp\""
    )]
    Queues {
        /// The NIC.
        device: String,
        /// How many it has.
        queues: u32,
    },
    /// No mode works.
    #[error("no AF_XDP mode works on {device}: {}; set uplink.kind = \"udp\"", .reasons.join("; "))]
    NoMode {
        /// The NIC.
        device: String,
        /// Why each does not.
        reasons: Vec<String>,
    },
}

impl XdpError {
    /// Whether kernel or NIC can not do it, other than that the NIC is not there or somebody else's.
    #[must_use]
    pub fn is_inability(&self) -> bool {
        match self {
            Self::NoMode { .. } | Self::Queues { .. } | Self::Socket(_) => true,
            Self::Program(error) => matches!(error, BpfError::Load { .. } | BpfError::Socket { .. }),
            Self::Device(_) => false,
        }
    }

    /// Whether another mode may work where this one does not.
    fn is_of_the_mode(&self) -> bool {
        matches!(self, Self::Program(BpfError::Attach { .. }) | Self::Socket(XskError::Bind { .. }))
    }
}

/// The uplink, opened: receiving halves for the workers, and what keeps it open.
#[derive(Debug)]
pub struct XdpUplink {
    /// Receiving halves, one entry a worker: each queue has one.
    pub workers: Vec<Vec<XdpRx>>,
    /// What keeps it open; to be dropped before the halves.
    pub attachment: XdpAttachment,
}

impl XdpUplink {
    /// Opens a socket for each queue and attaches the program, in the best mode that works. A program of ours left
    /// from before is replaced, another's is left alone. Nothing of the NIC itself is changed.
    ///
    /// # Errors
    /// [`XdpError`]; nothing is left behind then.
    pub fn open(spec: &XdpSpec) -> Result<Self, XdpError> {
        let index = Netlink::open()?.link(&spec.device)?.index;
        let lock = NicLock::take(&spec.device, index)?;
        let queues = rx_queues(&spec.device)?;
        if queues > QUEUES_MAX {
            return Err(XdpError::Queues { device: spec.device.clone(), queues });
        }
        detach_ours(&spec.device)?;
        let modes = spec.mode.map_or(XdpMode::ALL.to_vec(), |mode| vec![mode]);
        let mut reasons = Vec::new();
        for mode in modes {
            match open_in(spec, index, queues, mode) {
                Ok((steering, sockets)) => return Self::assemble(spec, (steering, lock), sockets, mode, reasons),
                Err(error) if error.is_of_the_mode() => reasons.push(format!("{mode}: {error}")),
                Err(error) => return Err(error),
            }
        }
        Err(XdpError::NoMode { device: spec.device.clone(), reasons })
    }

    fn assemble(
        spec: &XdpSpec,
        (steering, lock): (Steering, NicLock),
        sockets: Vec<XskReceiver>,
        mode: XdpMode,
        passed_over: Vec<String>,
    ) -> Result<Self, XdpError> {
        let watches = sockets.iter().map(XskReceiver::watch).collect::<Result<_, _>>()?;
        let status = Arc::new(XdpStatus {
            mode,
            passed_over,
            watches,
            multi_buffer: sockets.iter().all(XskReceiver::is_multi_buffer),
            frames: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            checksum_errors: AtomicU64::new(0),
        });
        let mut workers: Vec<Vec<XdpRx>> = (0..spec.workers.max(1)).map(|_| Vec::new()).collect();
        let count = workers.len();
        for (at, socket) in sockets.into_iter().enumerate() {
            workers[at % count].push(XdpRx::new(socket, Arc::clone(&status)));
        }
        Ok(Self { workers, attachment: XdpAttachment { _steering: steering, _lock: lock, status } })
    }
}

/// The sockets before the program: it redirects from the moment it is attached.
fn open_in(spec: &XdpSpec, index: u32, queues: u32, mode: XdpMode) -> Result<(Steering, Vec<XskReceiver>), XdpError> {
    let (attach, bind) = mode.parts();
    let slots = SlotPlan::UPLINK;
    // What is not received here is sent by the UDP sockets.
    let open = |queue| {
        let spec = XskSpec { device: spec.device.clone(), queue, mode: bind, slots };
        XskSocket::open(&spec).map(|socket| socket.receiver)
    };
    let sockets: Vec<XskReceiver> = (0..queues).map(open).collect::<Result<_, _>>()?;
    let multi_buffer = sockets.iter().all(XskReceiver::is_multi_buffer);
    let longest = if multi_buffer { FRAME_BYTES_MAX } else { SLOT_DATA_BYTES };
    let mut steering = Steering::load(&SteerSpec {
        addresses: spec.addresses.clone(),
        port: spec.port,
        frame_bytes_max: u32::try_from(longest).unwrap_or(u32::MAX),
        merged: attach == AttachMode::Generic,
    })?;
    for socket in &sockets {
        steering.set_socket(socket.queue(), socket.fd())?;
    }
    steering.attach(&spec.device, index, attach)?;
    Ok((steering, sockets))
}

/// What keeps the uplink open on the control side. Dropping it takes the program off the NIC; then everything reaches the
/// UDP sockets.
#[derive(Debug)]
pub struct XdpAttachment {
    // Off the NIC first, and only then for others to take.
    _steering: Steering,
    _lock: NicLock,
    status: Arc<XdpStatus>,
}

impl XdpAttachment {
    /// How the uplink fares.
    #[must_use]
    pub fn status(&self) -> &XdpStatus {
        &self.status
    }
}

/// How the uplink fares. Counted by the workers, read by the control side.
#[derive(Debug)]
pub struct XdpStatus {
    mode: XdpMode,
    passed_over: Vec<String>,
    watches: Vec<XskWatch>,
    multi_buffer: bool,
    frames: AtomicU64,
    malformed: AtomicU64,
    checksum_errors: AtomicU64,
}

impl XdpStatus {
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

#[cfg(test)]
mod tests;
