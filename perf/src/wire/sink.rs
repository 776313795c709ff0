//! Receives test frames through AF_PACKET, which any interface has: honest, since the kernel says what it dropped for us
//! and when each frame came, but slower than the fastest NICs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use podwire_vswitch::sys::affinity;
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::sys::packet::{PacketBuffers, PacketSocket, PacketSpec};

use super::frame::Mark;
use super::tally::Tally;
use crate::generate::nanos;
use crate::lab::stop;

/// Bytes the kernel may queue for each socket, so that what is lost is lost on the way.
const QUEUE_BYTES: usize = 64 << 20;
/// Silence after which nothing is under way any more, once sending has ended.
const SILENCE: Duration = Duration::from_millis(100);
/// How long residual frames are waited for at most (RFC 2544, 23).
const RESIDUAL: Duration = Duration::from_secs(2);

/// The sockets of an interface; flows are shared out among them.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) sockets: Vec<PacketSocket>,
    dst_port: u16,
}

impl Sink {
    /// Opens `count` sockets, in the calling thread's namespace.
    pub(super) fn open(device: &str, index: u32, count: u16, dst_port: u16) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let spec = PacketSpec {
            device: device.to_owned(),
            index,
            buffer_bytes: QUEUE_BYTES,
            patience: SILENCE,
            fanout: (count > 1).then(|| u16::from_be_bytes([high, low])),
        };
        let sockets = (0..count).map(|_| PacketSocket::open(&spec)).collect::<Result<_, _>>()?;
        Ok(Self { sockets, dst_port })
    }

    /// Counts one socket's frames of a trial until sending is over and nothing comes any more.
    pub(super) fn count(
        &self,
        socket: &PacketSocket,
        trial: Option<u16>,
        over: &AtomicBool,
        cpu: Option<usize>,
    ) -> Result<Tally> {
        if let Some(cpu) = cpu {
            affinity::pin_current_thread(cpu).with_context(|| format!("cannot receive on CPU {cpu}"))?;
        }
        let (mut tally, mut buffers) = (Tally::new(trial), PacketBuffers::new());
        let mut ended = None;
        loop {
            stop::check()?;
            let came = socket.receive(&mut buffers, |frame| match Mark::read(frame.head, self.dst_port) {
                Some(mark) => tally.see(&mark, frame.len, frame.unix_ns),
                None => tally.see_foreign(),
            });
            if ended.is_none() && over.load(Ordering::Relaxed) {
                ended = Some(mono_now());
            }
            match (came, ended) {
                (Err(Errno::EAGAIN), Some(_)) => return Ok(tally),
                (Ok(_), Some(end)) if mono_now().since(end) > nanos(RESIDUAL) => return Ok(tally),
                (Ok(_) | Err(Errno::EAGAIN | Errno::EINTR), _) => {}
                // The interface went down; it may come up again.
                (Err(Errno::ENETDOWN), None) => {}
                (Err(errno), _) => return Err(errno).context("the sink can not receive"),
            }
        }
    }

    /// Frames the kernel dropped since this was last asked because the sink was too slow.
    pub(super) fn drops(&self) -> u64 {
        self.sockets.iter().map(|socket| socket.drops().unwrap_or(0)).sum()
    }
}
