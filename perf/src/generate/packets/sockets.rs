//! By kernel sockets of the pods: `sendmmsg` at one end, `recvmmsg` at the other.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};

use super::{Offer, Offered};
use crate::lab::stop;
use crate::pace::{Next, Pace, Pacing, wait};
use crate::scenario::{POD_FRAME_BYTES_MAX, PacketSize};
use crate::side::Path;

/// What a frame has beside the payload: Ethernet with FCS, IPv4, UDP.
const OVERHEAD_BYTES: usize = 18 + 20 + 8;
/// Packets of one system call at most.
const BURST: usize = 64;
const PACING: Pacing = Pacing { burst: BURST, burst_seconds: 100e-6, late: 0.05 };
/// Bytes that may wait before the sink, so that what is lost is lost by the switch as far as possible.
const SINK_BYTES: usize = 8 << 20;
/// How long after the last packet others may still be under way.
const DRAIN: Duration = Duration::from_millis(60);

/// A sender in one pod and a sink in the other.
pub(super) struct Pair {
    sender: UdpSocket,
    sink: UdpSocket,
    /// Payload bytes of packets in turn.
    turns: Vec<usize>,
    /// As long as the longest.
    payload: Vec<u8>,
}

impl Pair {
    /// Opens both sockets.
    pub(super) fn open(path: &Path<'_>, size: PacketSize) -> Result<Self> {
        let turns = size.turns(POD_FRAME_BYTES_MAX).into_iter().map(|bytes| bytes - OVERHEAD_BYTES).collect();
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let sink = path.to.enter(bind)?.context("cannot open the sink's socket")?;
        setsockopt(&sink, sockopt::RcvBufForce, &SINK_BYTES).context("cannot enlarge the sink's buffer")?;
        sink.set_read_timeout(Some(DRAIN / 3)).context("cannot set up the sink's socket")?;
        let port = sink.local_addr().context("the sink has no address")?.port();
        let sender = path.from.enter(bind)?.context("cannot open the sender's socket")?;
        sender.connect(SocketAddr::new(path.target.into(), port)).context("the receiving pod has no route")?;
        Ok(Self::of(sender, sink, turns))
    }

    fn of(sender: UdpSocket, sink: UdpSocket, turns: Vec<usize>) -> Self {
        let payload = vec![0; turns.iter().copied().max().unwrap_or(0)];
        Self { sender, sink, turns, payload }
    }

    /// Packets sent, and the time it took in nanoseconds.
    fn send(&self, rate: Option<f64>, time: Duration) -> Result<(u64, u64)> {
        let pace = Pace::begin(rate, time, PACING);
        // From any turn on there are enough for a burst.
        let turns = self.turns.iter().cycle().take(pace.burst() + self.turns.len());
        let slices: Vec<[IoSlice<'_>; 1]> = turns.map(|&bytes| [IoSlice::new(&self.payload[..bytes])]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(pace.burst(), None);
        let addresses = vec![None; pace.burst()];
        let mut sent = 0;
        loop {
            let count = match pace.next(sent) {
                Next::End(took_ns) => return Ok((sent, took_ns)),
                Next::Wait(ns) => {
                    wait(ns);
                    continue;
                }
                Next::Send(count) => count,
            };
            let turn = usize::try_from(sent % self.turns.len() as u64).unwrap_or(0);
            let slices = &slices[turn..turn + count];
            match sendmmsg(self.sender.as_raw_fd(), &mut headers, slices, &addresses, [], MsgFlags::empty()) {
                Ok(done) => sent += done.count() as u64,
                // Refused: an ICMP error of a packet before, such as for a sink that is not there yet.
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(errno) => bail!("sending UDP failed: {errno}"),
            }
            stop::check()?;
        }
    }

    fn count(&self, over: &AtomicBool, received: &AtomicU64) {
        let mut bytes = vec![0; BURST * self.payload.len()];
        let mut headers = MultiHeaders::<()>::preallocate(BURST, None);
        loop {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                bytes.chunks_mut(self.payload.len().max(1)).map(|chunk| [IoSliceMut::new(chunk)]).collect();
            let got = recvmmsg(self.sink.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
            match got {
                Ok(done) => {
                    received.fetch_add(done.count() as u64, Ordering::Relaxed);
                }
                Err(_) if over.load(Ordering::Relaxed) => return,
                Err(_) => {}
            }
        }
    }
}

impl Offer for Pair {
    fn offer(&mut self, rate: Option<f64>, time: Duration) -> Result<Offered> {
        let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
        let sent = thread::scope(|scope| {
            scope.spawn(|| self.count(&over, &received));
            let sent = self.send(rate, time);
            thread::sleep(DRAIN);
            over.store(true, Ordering::Relaxed);
            sent
        });
        let (sent, took_ns) = sent?;
        let received = received.load(Ordering::Relaxed);
        Ok(Offered::of_counts(rate.map(|rate| rate * time.as_secs_f64()), sent, received, took_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(turns: &[usize]) -> Pair {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        sink.set_read_timeout(Some(DRAIN / 3)).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(sink.local_addr().unwrap()).unwrap();
        Pair::of(sender, sink, turns.to_vec())
    }

    #[test]
    fn a_paced_offer_is_as_large_as_wanted_and_all_of_it_is_counted() {
        let offered = local(&[18]).offer(Some(20_000.0), Duration::from_millis(200)).unwrap();
        // Loss is of the 4,000 that should have been sent.
        let received = (1.0 - offered.loss) * 4_000.0;
        assert!(received <= 4_000.5 && received > 3_000.0, "{offered:?}");
        assert!((offered.received_pps - offered.sent_pps).abs() < 1e-6, "{offered:?}");
    }

    #[test]
    fn packets_of_a_mix_are_sent_in_turn_whatever_the_bursts() {
        let pair = local(&[18, 500, 100]);
        let (sent, _) = pair.send(Some(800.0), Duration::from_millis(100)).unwrap();
        let mut bytes = [0; 1_000];
        let came: Vec<usize> = (0..sent).map(|_| pair.sink.recv(&mut bytes).unwrap()).collect();
        assert!(came.len() > 30, "{} packets", came.len());
        assert!(came.iter().zip([18, 500, 100].iter().cycle()).all(|(came, turn)| came == turn), "{came:?}");
    }
}
