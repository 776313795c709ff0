//! The AF_XDP uplink: tunnel traffic taken off a NIC's queues before the kernel's stack sees it.
//!
//! Each receive queue has a socket, and each socket belongs to one worker. The steering program gives them only what is
//! ours; all else, and what it is not sure of, goes to the kernel, so that [`super::udp`]'s sockets have to be open
//! beside this. Sending is theirs in copy mode, where a send with `UDP_SEGMENT` beats an AF_XDP frame a packet. In
//! zero-copy mode, or where it is asked for, [`XdpTx`] sends what it knows the [`Way`] of.

mod headers;
mod outer;
mod rx;
mod status;
mod tx;
mod ways;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use rx::XdpRx;
pub use status::{BusyPoll, XdpStatus};
pub use tx::{XdpTx, XdpTxSpec};
pub use ways::{Way, WayTable, Ways};

use super::PortTx;
use super::udp::UdpTx;

use crate::limits::IP_BYTES_MAX;
use crate::sys::bpf::{AttachMode, BpfError, NicLock, QUEUES_MAX, SteerSpec, Steering, detach_ours};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::xsk::{
    BindMode, SLOT_DATA_BYTES, SlotPlan, XskError, XskReceiver, XskSender, XskSocket, XskSpec, queues,
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

/// How tunnels are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UplinkTx {
    /// The faster way for the mode: through AF_XDP in zero-copy mode, else through the UDP sockets.
    Auto,
    /// Through the UDP sockets.
    Udp,
    /// Through AF_XDP in every mode.
    Xdp,
}

impl UplinkTx {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Udp, Self::Xdp];

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Xdp => "xdp",
        }
    }

    /// Whether AF_XDP sends in that mode.
    fn is_xdp_in(self, mode: XdpMode) -> bool {
        self == Self::Xdp || (self == Self::Auto && mode == XdpMode::ZeroCopy)
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
    /// How tunnels are sent.
    pub tx: UplinkTx,
    /// Whether workers are to have the driver look for packets themselves.
    pub busy_poll: bool,
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
    /// One entry a worker: what it sends to. None for those that send by UDP, which are all of them where the mode or the
    /// configuration says so, else those that no queue is left for.
    senders: Vec<Option<XskSender>>,
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
        let queues = queues(&spec.device)?;
        if queues.receive > QUEUES_MAX {
            return Err(XdpError::Queues { device: spec.device.clone(), queues: queues.receive });
        }
        detach_ours(&spec.device)?;
        let modes = spec.mode.map_or(XdpMode::ALL.to_vec(), |mode| vec![mode]);
        let mut reasons = Vec::new();
        for mode in modes {
            match open_in(spec, index, queues.receive, mode) {
                Ok((steering, sockets)) => {
                    let mut uplink = Self::assemble(spec, (steering, lock), sockets, (mode, reasons))?;
                    // A queue that the NIC does not send on can be bound all the same, and must not be sent to.
                    uplink.senders.iter_mut().skip(queues.send as usize).for_each(|none| *none = None);
                    return Ok(uplink);
                }
                Err(error) if error.is_of_the_mode() => reasons.push(format!("{mode}: {error}")),
                Err(error) => return Err(error),
            }
        }
        Err(XdpError::NoMode { device: spec.device.clone(), reasons })
    }

    fn assemble(
        spec: &XdpSpec,
        (steering, lock): (Steering, NicLock),
        sockets: Vec<XskSocket>,
        (mode, passed_over): (XdpMode, Vec<String>),
    ) -> Result<Self, XdpError> {
        let count = spec.workers.max(1);
        let (receivers, senders): (Vec<_>, Vec<_>) =
            sockets.into_iter().map(|XskSocket { receiver, sender }| (receiver, sender)).unzip();
        let busy_poll = if spec.busy_poll { prefer_busy_poll(&receivers) } else { BusyPoll::Off };
        let status = Arc::new(XdpStatus::new(mode, passed_over, &receivers, busy_poll)?);
        let mut workers: Vec<Vec<XdpRx>> = (0..count).map(|_| Vec::new()).collect();
        for (at, receiver) in receivers.into_iter().enumerate() {
            workers[at % count].push(XdpRx::new(receiver, Arc::clone(&status)));
        }
        let wanted = spec.tx.is_xdp_in(mode);
        let mut senders: Vec<Option<XskSender>> =
            senders.into_iter().take(count).map(|sender| wanted.then_some(sender)).collect();
        senders.resize_with(count, || None);
        Ok(Self { workers, senders, attachment: XdpAttachment { _steering: steering, _lock: lock, status } })
    }

    /// A worker's sending half, with its UDP one inside; or that one alone, where it has no queue to send to.
    #[must_use]
    pub fn sending_half(&mut self, worker: usize, udp: UdpTx, spec: &XdpTxSpec) -> Box<dyn PortTx> {
        match self.senders.get_mut(worker).and_then(Option::take) {
            Some(sender) => {
                sender.raise_limits();
                let status = &self.attachment.status;
                status.add_sender();
                Box::new(XdpTx::new(sender, udp, spec, Arc::clone(status)))
            }
            None => Box::new(udp),
        }
    }
}

/// All queues or none. One that was asked for before another was refused is simply not driven.
fn prefer_busy_poll(receivers: &[XskReceiver]) -> BusyPoll {
    match receivers.iter().try_for_each(XskReceiver::prefer_busy_poll) {
        Ok(()) => BusyPoll::On,
        Err(errno) => BusyPoll::Refused(errno),
    }
}

/// The sockets before the program: it redirects from the moment it is attached.
fn open_in(spec: &XdpSpec, index: u32, queues: u32, mode: XdpMode) -> Result<(Steering, Vec<XskSocket>), XdpError> {
    let (attach, bind) = mode.parts();
    let slots = SlotPlan::UPLINK;
    let open = |queue| XskSocket::open(&XskSpec { device: spec.device.clone(), queue, mode: bind, slots });
    let sockets: Vec<XskSocket> = (0..queues).map(open).collect::<Result<_, _>>()?;
    let multi_buffer = sockets.iter().all(|socket| socket.receiver.is_multi_buffer());
    let longest = if multi_buffer { FRAME_BYTES_MAX } else { SLOT_DATA_BYTES };
    let mut steering = Steering::load(&SteerSpec {
        addresses: spec.addresses.clone(),
        port: spec.port,
        frame_bytes_max: u32::try_from(longest).unwrap_or(u32::MAX),
        merged: attach == AttachMode::Generic,
    })?;
    for XskSocket { receiver, .. } in &sockets {
        steering.set_socket(receiver.queue(), receiver.fd())?;
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

#[cfg(test)]
mod tests;
