//! Receives test frames: through AF_XDP, which keeps up with fast NICs, or through AF_PACKET, which any interface has.
//!
//! Either way the kernel says what it dropped because the sink was too slow, so that it is not taken for the device's loss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::errno::Errno;
use podwire_vswitch::id::MonoNs;
use podwire_vswitch::sys::affinity;
use podwire_vswitch::sys::bpf::{AttachMode, QUEUES_MAX, Take};
use podwire_vswitch::sys::clock::{mono_now, unix_now};
use podwire_vswitch::sys::packet::{PacketBuffers, PacketSocket, PacketSpec};
use podwire_vswitch::sys::xsk::{BindMode, XskReceiver, XskWatch, queues};

use super::frame::{MAGIC, Mark};
use super::generator::{RESET, bind};
use super::tally::Tally;
use crate::lab::stop;
use crate::pace::nanos;

/// Bytes the kernel may queue for each AF_PACKET socket, so that what is lost is lost on the way.
const QUEUE_BYTES: usize = 64 << 20;
/// Silence after which nothing is under way any more, once sending has ended.
const SILENCE: Duration = Duration::from_millis(100);
/// How long residual frames are waited for at most (RFC 2544, 23).
const RESIDUAL: Duration = Duration::from_secs(2);
/// Frames taken of one queue before the next one's turn.
const BURST: usize = 64;

/// How frames are received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// AF_XDP where the driver has zero-copy, or else AF_PACKET
    Auto,
    /// AF_XDP: zero-copy, or else copy in native, or else in generic mode
    Xdp,
    /// AF_XDP: copy in generic mode, which any interface has and which changes least of it
    XdpGeneric,
    /// AF_PACKET
    Packet,
}

/// An interface's sink.
#[derive(Debug)]
pub(super) struct Sink {
    // Nothing is redirected any more when the sockets go.
    _program: Option<Take>,
    pub(super) lanes: Vec<Lane>,
    watches: Vec<XskWatch>,
    dropped: u64,
    /// In words.
    pub(super) kind: String,
    /// Why it is not AF_XDP, when that was tried.
    pub(super) fallback: Option<String>,
}

/// What one thread serves; no flow comes to two of them. Beside AF_XDP there is one of AF_PACKET.
#[derive(Debug)]
pub(super) enum Lane {
    Packet(PacketSocket),
    Xdp { sockets: Vec<XskReceiver>, nap: Option<Duration> },
}

/// Where frames come in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inlet<'a> {
    pub(super) device: &'a str,
    pub(super) index: u32,
    pub(super) threads: u16,
    pub(super) dst_port: u16,
    /// How long AF_XDP sleeps when nothing is there; it keeps looking when not given.
    pub(super) nap: Option<Duration>,
}

impl Sink {
    /// Opens it in the calling thread's namespace.
    pub(super) fn open(inlet: Inlet<'_>, kind: Kind) -> Result<Self> {
        const ZERO_COPY: &[(AttachMode, BindMode)] = &[(AttachMode::Native, BindMode::ZeroCopy)];
        const ALL: &[(AttachMode, BindMode)] = &[
            (AttachMode::Native, BindMode::ZeroCopy),
            (AttachMode::Native, BindMode::Copy),
            (AttachMode::Generic, BindMode::Copy),
        ];
        match kind {
            Kind::Packet => Self::packet(inlet),
            Kind::Xdp => Self::xdp(inlet, ALL),
            Kind::XdpGeneric => Self::xdp_in(inlet, AttachMode::Generic, BindMode::Copy),
            Kind::Auto => Self::xdp(inlet, ZERO_COPY).or_else(|why| {
                let packet = Self::packet(inlet)?;
                Ok(Self { fallback: Some(format!("{why:#}")), ..packet })
            }),
        }
    }

    fn packet(inlet: Inlet<'_>) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let fanout = (inlet.threads > 1).then(|| u16::from_be_bytes([high, low]));
        let open = |_| Ok(Lane::Packet(PacketSocket::open(&inlet.spec(QUEUE_BYTES, fanout))?));
        let lanes = (0..inlet.threads).map(open).collect::<Result<_>>()?;
        let (kind, watches) = ("AF_PACKET".to_owned(), Vec::new());
        Ok(Self { _program: None, lanes, watches, dropped: 0, kind, fallback: None })
    }

    /// The first of these modes that works.
    fn xdp(inlet: Inlet<'_>, modes: &[(AttachMode, BindMode)]) -> Result<Self> {
        let mut refusals = Vec::new();
        for &(attach, mode) in modes {
            match Self::xdp_in(inlet, attach, mode) {
                Ok(sink) => return Ok(sink),
                Err(error) => refusals.push(format!("{error:#}")),
            }
            stop::check()?;
        }
        bail!("{}", refusals.join("; "))
    }

    fn xdp_in(inlet: Inlet<'_>, attach: AttachMode, mode: BindMode) -> Result<Self> {
        let Inlet { device, index, threads, dst_port, nap } = inlet;
        let queues = queues(device)?.receive;
        ensure!(
            queues <= QUEUES_MAX,
            "{device} has {queues} queues, more than {QUEUES_MAX}: `ethtool -L` takes some away"
        );
        if mode == BindMode::ZeroCopy {
            // First whether the driver can at all: a program on a NIC may reset it.
            drop(bind(device, 1, mode)?);
        }
        let mut program = Take::attach(device, index, attach, dst_port, MAGIC)?;
        if mode == BindMode::ZeroCopy {
            stop::sleep(RESET)?;
        }
        let sockets: Vec<XskReceiver> = bind(device, queues, mode)?.into_iter().map(|socket| socket.receiver).collect();
        for socket in &sockets {
            program.set_socket(socket.queue(), socket.fd())?;
        }
        let watches = sockets.iter().map(XskReceiver::watch).collect::<Result<_, _>>()?;
        let threads = usize::from(threads).min(sockets.len());
        let mut lanes: Vec<Vec<XskReceiver>> = (0..threads).map(|_| Vec::new()).collect();
        for (at, socket) in sockets.into_iter().enumerate() {
            lanes[at % threads].push(socket);
        }
        let mut lanes: Vec<Lane> = lanes.into_iter().map(|sockets| Lane::Xdp { sockets, nap }).collect();
        // What comes in on a queue without a socket passes, and is counted all the same: some drivers (virtio) have more
        // queues with a program than without one.
        lanes.push(Lane::Packet(PacketSocket::open(&inlet.spec(QUEUE_BYTES, None))?));
        let kind = format!("AF_XDP in {mode} mode ({attach}, queues: {queues})");
        Ok(Self { _program: Some(program), lanes, watches, dropped: 0, kind, fallback: None })
    }

    /// Sends a frame out of the receiving interface.
    pub(super) fn announce(&self, frame: &[u8]) {
        for lane in &self.lanes {
            if let Lane::Packet(socket) = lane {
                // One that is lost is made good by the next trial's; the interface may be down on purpose.
                let _ = socket.send(frame);
                return;
            }
        }
    }

    /// Frames the kernel dropped since this was last asked because the sink was too slow.
    pub(super) fn drops(&mut self) -> u64 {
        let of_packet = self.lanes.iter().map(|lane| match lane {
            Lane::Packet(socket) => socket.drops().unwrap_or(0),
            Lane::Xdp { .. } => 0,
        });
        let all = self.watches.iter().filter_map(|watch| watch.statistics().ok());
        let all = all.map(|counts| counts.rx_dropped + counts.ring_full).sum();
        let of_xdp = all - std::mem::replace(&mut self.dropped, all);
        of_packet.sum::<u64>() + of_xdp
    }
}

impl Inlet<'_> {
    fn spec(&self, buffer_bytes: usize, fanout: Option<u16>) -> PacketSpec {
        PacketSpec { device: self.device.to_owned(), index: self.index, buffer_bytes, patience: SILENCE, fanout }
    }
}

/// How long a lane goes on.
#[derive(Debug)]
struct End<'a> {
    over: &'a AtomicBool,
    since: Option<MonoNs>,
}

impl End<'_> {
    /// How long ago sending ended, in nanoseconds; none while it goes on.
    fn ago_ns(&mut self) -> Option<u64> {
        if self.since.is_none() && self.over.load(Ordering::Relaxed) {
            self.since = Some(mono_now());
        }
        self.since.map(|since| mono_now().since(since))
    }
}

impl Lane {
    /// Counts a trial's frames until sending is over and nothing comes any more.
    pub(super) fn count(
        &mut self,
        dst_port: u16,
        trial: Option<u16>,
        over: &AtomicBool,
        cpu: Option<usize>,
    ) -> Result<Tally> {
        if let Some(cpu) = cpu {
            affinity::pin_current_thread(cpu).with_context(|| format!("cannot receive on CPU {cpu}"))?;
        }
        let (mut tally, mut end) = (Tally::new(trial), End { over, since: None });
        let see = |tally: &mut Tally, head: &[u8], len, unix_ns| match Mark::read(head, dst_port) {
            Some(mark) => tally.see(&mark, len, unix_ns),
            None => tally.see_foreign(),
        };
        match self {
            Self::Packet(socket) => count_packet(socket, &mut tally, &mut end, see)?,
            Self::Xdp { sockets, nap } => count_xdp(sockets, *nap, &mut tally, &mut end, see)?,
        }
        Ok(tally)
    }
}

fn count_packet(
    socket: &PacketSocket,
    tally: &mut Tally,
    end: &mut End<'_>,
    see: impl Fn(&mut Tally, &[u8], usize, u64),
) -> Result<()> {
    let mut buffers = PacketBuffers::new();
    loop {
        stop::check()?;
        let came = socket.receive(&mut buffers, |frame| see(tally, frame.head, frame.len, frame.unix_ns));
        match (came, end.ago_ns()) {
            (Err(Errno::EAGAIN), Some(_)) => return Ok(()),
            (Ok(_), Some(ago)) if ago > nanos(RESIDUAL) => return Ok(()),
            (Ok(_) | Err(Errno::EAGAIN | Errno::EINTR), _) => {}
            // The interface went down; it may come up again.
            (Err(Errno::ENETDOWN), None) => {}
            (Err(errno), _) => return Err(errno).context("the sink can not receive"),
        }
    }
}

fn count_xdp(
    sockets: &mut [XskReceiver],
    nap: Option<Duration>,
    tally: &mut Tally,
    end: &mut End<'_>,
    see: impl Fn(&mut Tally, &[u8], usize, u64),
) -> Result<()> {
    let mut last = mono_now();
    loop {
        stop::check()?;
        let mut came = false;
        for socket in &mut *sockets {
            came |= drain(socket, &mut |head, len, unix_ns| see(tally, head, len, unix_ns));
        }
        if came {
            last = mono_now();
        } else {
            nap.map_or_else(thread::yield_now, thread::sleep);
        }
        let silent = mono_now().since(last) > nanos(SILENCE);
        if end.ago_ns().is_some_and(|ago| ago > nanos(RESIDUAL) || (silent && ago > nanos(SILENCE))) {
            return Ok(());
        }
    }
}

/// Takes what one queue has, up to a burst; whether there was any.
fn drain(socket: &mut XskReceiver, see: &mut impl FnMut(&[u8], usize, u64)) -> bool {
    // The clock is read behind the count, so that no frame seems to come before it was sent.
    let waiting = socket.census().rx.min(BURST);
    let unix_ns = if waiting > 0 { nanos(unix_now()) } else { 0 };
    for _ in 0..waiting {
        let Some(slot) = socket.receive() else { break };
        let bytes = socket.bytes(&slot);
        see(bytes, bytes.len(), unix_ns);
        socket.release(slot);
    }
    socket.refill();
    waiting > 0
}
