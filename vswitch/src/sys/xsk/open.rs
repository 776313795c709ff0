//! Opening: memory, rings and bind, and how many queues a NIC receives on.

use std::error::Error;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use nix::errno::Errno;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{Socket, Umem};

use super::receive::Bound;
use super::{RX_RING, SLOT_BYTES, SlotPlan, XskReceiver, XskSender, XskSocket};
use crate::sys::ethtool;
pub use crate::sys::ethtool::Queues;

/// How long the kernel is given to let go of a queue whose last socket was just closed: it does so behind our back.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_STEP: Duration = Duration::from_millis(10);

/// How packets get between NIC and memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindMode {
    /// The driver receives straight into our memory.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// What shall be bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XskSpec {
    /// The NIC, in the calling thread's namespace.
    pub device: String,
    /// Its receive queue.
    pub queue: u32,
    /// How.
    pub mode: BindMode,
    /// Slots of its halves.
    pub slots: SlotPlan,
}

/// What can go wrong with a socket.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// No memory for the packets.
    #[error(
        "cannot set up {kib} KiB of packet memory for {device}: {reason}; raise the locked memory limit (ulimit -l)"
    )]
    Memory {
        /// How much.
        kib: usize,
        /// The NIC.
        device: String,
        /// What the kernel said.
        reason: String,
    },
    /// The NIC or its driver refuses.
    #[error("cannot bind an AF_XDP socket to queue {queue} of {device} in {mode} mode: {reason}")]
    Bind {
        /// The NIC.
        device: String,
        /// The queue.
        queue: u32,
        /// The mode.
        mode: BindMode,
        /// What the kernel said.
        reason: String,
    },
    /// No descriptor to read its counters by.
    #[error("cannot watch the AF_XDP socket of queue {queue}: {source}; check the process' file descriptor limit")]
    Watch {
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such NIC, or not to be asked.
    #[error("cannot tell how many queues {device} has: {source}")]
    Queues {
        /// The NIC.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl XskSocket {
    /// Makes memory and rings, and binds to the queue: with packets in several slots (`XDP_USE_SG`) where kernel and
    /// driver have that. Waits for a queue whose last socket was just closed. Redirects nothing: that is up to the
    /// steering program's map.
    ///
    /// # Errors
    /// [`XskError`].
    pub fn open(spec: &XskSpec) -> Result<Self, XskError> {
        match Self::open_with(spec, true) {
            // Linux before 6.6 does not know the flag, and drivers with zero-copy need not have it.
            Err((_, Some(Errno::EINVAL | Errno::EOPNOTSUPP))) => {
                Self::open_with(spec, false).map_err(|(error, _)| error)
            }
            opened => opened.map_err(|(error, _)| error),
        }
    }

    fn open_with(spec: &XskSpec, multi_buffer: bool) -> Result<Self, (XskError, Option<Errno>)> {
        let mut waited = Duration::ZERO;
        loop {
            match Self::open_once(spec, multi_buffer) {
                Err((_, Some(Errno::EBUSY))) if waited < BUSY_PATIENCE => {
                    std::thread::sleep(BUSY_STEP);
                    waited += BUSY_STEP;
                }
                opened => return opened,
            }
        }
    }

    fn open_once(spec: &XskSpec, multi_buffer: bool) -> Result<Self, (XskError, Option<Errno>)> {
        let memory = |error: &(dyn Error + 'static)| {
            let (reason, errno) = explain(error);
            let kib = spec.slots.total() * SLOT_BYTES / 1024;
            (XskError::Memory { kib, device: spec.device.clone(), reason }, errno)
        };
        let refused =
            |reason: String| XskError::Bind { device: spec.device.clone(), queue: spec.queue, mode: spec.mode, reason };
        let (umem, mut slots) = memory_of(spec.slots).map_err(|error| memory(error.as_ref()))?;
        let name = CString::new(spec.device.as_str()).map_err(|error| (refused(error.to_string()), None))?;
        let config = socket_config(spec, multi_buffer).map_err(|error| memory(error.as_ref()))?;
        // SAFETY: the memory is new, and used by this one socket and its rings only; each half keeps a handle of it.
        let made = unsafe { Socket::new(config, &umem, &Interface::new(name), spec.queue) };
        let (tx, rx, rings) = made.map_err(|error| {
            let (reason, errno) = explain(&error);
            (refused(reason), errno)
        })?;
        let Some((fill, completion)) = rings else {
            return Err((refused("its rings are another socket's".to_owned()), None));
        };
        let bound = Bound { queue: spec.queue, mode: spec.mode, multi_buffer };
        // The halves share memory, and no slot of it.
        let to_send = slots.split_off(spec.slots.receive);
        let mut receiver = XskReceiver::new((rx, fill), umem.clone(), bound, slots);
        let sender = XskSender::new((tx, completion), umem, bound, to_send);
        receiver.refill();
        Ok(Self { receiver, sender })
    }
}

type Slots = Vec<xsk_rs::umem::frame::FrameDesc>;

fn memory_of(plan: SlotPlan) -> Result<(Umem, Slots), Box<dyn Error>> {
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(u32::try_from(SLOT_BYTES)?)?)
        // All slots of a half fit its ring, so that giving some is never refused for want of room.
        .fill_queue_size(ring_of(plan.receive)?)
        .comp_queue_size(ring_of(plan.send)?)
        .build()?;
    let slots = NonZeroU32::new(u32::try_from(plan.total())?).ok_or("no slots")?;
    Ok(Umem::new(config, slots, false)?)
}

/// A ring with room for as many; there is no empty one.
fn ring_of(slots: usize) -> Result<QueueSize, Box<dyn Error>> {
    Ok(QueueSize::new(u32::try_from(slots.max(1).next_power_of_two())?)?)
}

fn socket_config(spec: &XskSpec, multi_buffer: bool) -> Result<SocketConfig, Box<dyn Error>> {
    let mut flags = BindFlags::XDP_USE_NEED_WAKEUP;
    flags |= match spec.mode {
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        BindMode::Copy => BindFlags::XDP_COPY,
    };
    if multi_buffer {
        flags |= BindFlags::XDP_USE_SG;
    }
    let config = SocketConfig::builder()
        .rx_queue_size(ring_of(spec.slots.receive.min(RX_RING))?)
        .tx_queue_size(ring_of(spec.slots.send)?)
        // libxdp's own program would take all traffic of the queue.
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build();
    Ok(config)
}

/// What the kernel said, and its number.
fn explain(error: &(dyn Error + 'static)) -> (String, Option<Errno>) {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if let Some(code) = found.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            let reason = match code {
                libc::EOPNOTSUPP => "the driver does not support it".to_owned(),
                libc::EBUSY => "another socket has the queue".to_owned(),
                libc::EINVAL => "the driver or the kernel refuses it (EINVAL)".to_owned(),
                libc::EPERM => "not permitted; podwired needs CAP_NET_RAW and CAP_NET_ADMIN".to_owned(),
                other => io::Error::from_raw_os_error(other).to_string(),
            };
            return (reason, Some(Errno::from_raw(code)));
        }
        cause = found.source();
    }
    (error.to_string(), None)
}

/// Queues of a NIC of the calling thread's namespace; 1 each where its driver does not say.
///
/// # Errors
/// [`XskError::Queues`] when there is no such NIC.
pub fn queues(device: &str) -> Result<Queues, XskError> {
    ethtool::queues(device).map_err(|source| XskError::Queues { device: device.to_owned(), source })
}
