//! Sends test frames through AF_XDP: a socket a queue, at a rate or as fast as they go.
//!
//! Zero-copy where the driver has it, else copy mode, which any NIC takes and where the kernel sends at most 32 frames a
//! system call.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use podwire_vswitch::sys::affinity;
use podwire_vswitch::sys::bpf::{AttachMode, SteerSpec, Steering};
use podwire_vswitch::sys::clock::unix_now;
use podwire_vswitch::sys::xsk::{BindMode, SlotPlan, XskSender, XskSocket, XskSpec};

use super::frame::{FCS_BYTES, Stream};
use crate::lab::stop;
use crate::pace::{Next, Pace, Pacing, nanos, wait};

const PACING: Pacing = Pacing { burst: 32, burst_seconds: 20e-6, late: 0.02 };
/// How long what is queued may take to leave.
const DRAIN: Duration = Duration::from_secs(1);
/// What a NIC may need to come back after a program was attached to it.
pub(super) const RESET: Duration = Duration::from_secs(3);
/// What fills frames up.
static PADDING: [u8; 4_096] = [0; 4_096];

/// How frames get from memory to the NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Zero-copy, or else copy
    Auto,
    /// The NIC reads our memory; the driver has to have it
    ZeroCopy,
    /// The kernel copies
    Copy,
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Sent {
    pub(super) frames: u64,
    /// FCS counted.
    pub(super) bytes: u64,
    pub(super) took_ns: u64,
}

impl Sent {
    /// Together with what another queue sent at the same time.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            bytes: self.bytes + other.bytes,
            took_ns: self.took_ns.max(other.took_ns),
        }
    }
}

/// The sockets of a NIC. Dropping them gives the NIC back as it was.
#[derive(Debug)]
pub(super) struct Transmit {
    // Redirects nothing; drivers want a program before they send from our memory.
    _program: Option<Steering>,
    pub(super) sockets: Vec<XskSender>,
    pub(super) mode: BindMode,
    /// Why it is not zero-copy, when that was tried.
    pub(super) fallback: Option<String>,
}

impl Transmit {
    /// Opens a socket on each of the first `queues` queues, in the calling thread's namespace.
    pub(super) fn open(device: &str, index: u32, queues: u32, mode: Mode) -> Result<Self> {
        match mode {
            Mode::Copy => Self::copy(device, queues),
            Mode::ZeroCopy => Self::zero_copy(device, index, queues),
            Mode::Auto => Self::zero_copy(device, index, queues).or_else(|why| {
                let copy = Self::copy(device, queues)?;
                Ok(Self { fallback: Some(format!("{why:#}")), ..copy })
            }),
        }
    }

    fn copy(device: &str, queues: u32) -> Result<Self> {
        let sockets = senders(device, queues, BindMode::Copy)?;
        Ok(Self { _program: None, sockets, mode: BindMode::Copy, fallback: None })
    }

    fn zero_copy(device: &str, index: u32, queues: u32) -> Result<Self> {
        // First whether the driver can at all: a program on a NIC may reset it.
        drop(senders(device, 1, BindMode::ZeroCopy)?);
        let passes_all = SteerSpec { addresses: Vec::new(), port: 0, frame_bytes_max: 0, merged: false };
        let mut program = Steering::load(&passes_all)?;
        program.attach(device, index, AttachMode::Native)?;
        stop::sleep(RESET)?;
        let sockets = senders(device, queues, BindMode::ZeroCopy)?;
        Ok(Self { _program: Some(program), sockets, mode: BindMode::ZeroCopy, fallback: None })
    }
}

/// A sender on each of the first `queues` queues.
fn senders(device: &str, queues: u32, mode: BindMode) -> Result<Vec<XskSender>> {
    Ok(bind(device, queues, mode)?.into_iter().map(|socket| socket.sender).collect())
}

/// A socket on each of the first `queues` queues.
pub(super) fn bind(device: &str, queues: u32, mode: BindMode) -> Result<Vec<XskSocket>> {
    let open =
        |queue| Ok(XskSocket::open(&XskSpec { device: device.to_owned(), queue, mode, slots: SlotPlan::UPLINK })?);
    (0..queues).map(open).collect()
}

/// Sends on one queue for a while: `rate` frames a second, or as many as go.
pub(super) fn send(
    socket: &mut XskSender,
    stream: &mut Stream,
    rate: Option<f64>,
    time: Duration,
    cpu: Option<usize>,
) -> Result<Sent> {
    if let Some(cpu) = cpu {
        affinity::pin_current_thread(cpu).with_context(|| format!("cannot send from CPU {cpu}"))?;
    }
    let pace = Pace::begin(rate, time, PACING);
    let mut sent = Sent::default();
    loop {
        match pace.next(sent.frames) {
            Next::End(took_ns) => {
                sent.took_ns = took_ns;
                break;
            }
            Next::Wait(ns) => {
                socket.kick();
                wait(ns);
                continue;
            }
            Next::Send(count) => queue(socket, stream, count, &mut sent),
        }
        socket.kick();
        stop::check()?;
    }
    while socket.unsent() > 0 && pace.elapsed_ns() < sent.took_ns + nanos(DRAIN) {
        socket.kick();
    }
    let stuck = socket.unsent();
    ensure!(stuck == 0, "{stuck} frames are stuck in queue {}: is the NIC's link up?", socket.queue());
    Ok(sent)
}

/// Queues frames as long as there are slots.
fn queue(socket: &mut XskSender, stream: &mut Stream, count: usize, sent: &mut Sent) {
    let unix_ns = nanos(unix_now());
    for _ in 0..count {
        let Some(mut slot) = socket.take() else { return };
        let (head, rest) = stream.frame(unix_ns);
        let padding = &PADDING[..rest.min(PADDING.len())];
        if !socket.write(&mut slot, &[&head, padding]) {
            return socket.release(slot);
        }
        if let Err(slot) = socket.send(slot) {
            return socket.release(slot);
        }
        stream.advance();
        sent.frames += 1;
        sent.bytes += (head.len() + padding.len() + FCS_BYTES) as u64;
    }
}
