//! UDP packets of one size or a mix of sizes, by `sendmmsg`: a flood, or paced at a rate, and a sink that counts them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use podwire_vswitch::sys::clock::mono_now;

use super::{Path, Span, nanos};
use crate::lab::stop;
use crate::metric::{LossPoint, Metric, Sample};
use crate::scenario::{POD_FRAME_BYTES_MAX, PacketSize};
use crate::search::{Search, Trial, search};

/// What a frame has beside the payload: Ethernet with FCS, IPv4, UDP.
const OVERHEAD_BYTES: usize = 18 + 20 + 8;
/// Packets of one system call at most, and the time they may stand for when they are paced.
const BURST: usize = 64;
const BURST_SECONDS: f64 = 100e-6;
/// Bytes that may wait before the sink, so that what is lost is lost by the switch as far as possible.
const SINK_BYTES: usize = 8 << 20;
/// How long after the last packet others may still be under way.
const DRAIN: Duration = Duration::from_millis(60);
/// Loss that still counts as partial drop rate, as in RFC 9971.
const PARTIAL_LOSS: f64 = 0.005;
const SEARCH_WIDTH: f64 = 0.05;
/// How much longer than planned a paced sender may take: one that was held up for a moment catches up.
const LATE: f64 = 0.05;

/// What a flood is received of, or the highest rates with none and with little loss.
pub(super) fn measure(path: &Path<'_>, size: PacketSize, searching: bool, span: Span) -> Result<Sample> {
    let turns = size.turns(POD_FRAME_BYTES_MAX).into_iter().map(|bytes| bytes - OVERHEAD_BYTES).collect();
    let pair = Pair::new(path, turns)?;
    pair.offer(None, span.warm_up)?;
    let flood = pair.offer(None, span.time)?;
    let forwarded = flood.received_pps();
    ensure!(forwarded > 0.0, "no packet arrived from {} at {}", path.from.name(), path.to.name());
    let mut sample = Sample::of(&[(Metric::FloodKpps, forwarded / 1e3)]);
    if searching {
        find_rates(&pair, &flood, span.time, &mut sample)?;
    }
    Ok(sample)
}

fn find_rates(pair: &Pair, flood: &Offered, time: Duration, sample: &mut Sample) -> Result<()> {
    let rate_max = flood.sent_pps();
    let how = Search { rate_max, rate_min: rate_max / 1e3, width: SEARCH_WIDTH, trials_max: 30, verifications: 3 };
    let mut curve = vec![LossPoint { kpps: rate_max / 1e3, loss: flood.loss() }];
    let mut trial = |trial: Trial| {
        let loss = pair.offer(Some(trial.rate), time.mul_f64(trial.length))?.loss();
        curve.push(LossPoint { kpps: trial.rate / 1e3, loss });
        Ok(loss)
    };
    let pdr = search(&how, PARTIAL_LOSS, flood.received_pps(), &mut trial)?;
    let ndr = search(&how, 0.0, pdr.rate, &mut trial)?;
    curve.sort_by(|a, b| a.kpps.total_cmp(&b.kpps));
    sample.figures.splice(0..0, [(Metric::NdrKpps, ndr.rate / 1e3), (Metric::PdrKpps, pdr.rate / 1e3)]);
    sample.loss_curve = curve;
    Ok(())
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Offered {
    /// Packets that should have been sent.
    wanted: f64,
    sent: u64,
    received: u64,
    took_ns: u64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Offered {
    fn received_pps(&self) -> f64 {
        self.received as f64 * 1e9 / self.took_ns as f64
    }

    fn sent_pps(&self) -> f64 {
        self.sent as f64 * 1e9 / self.took_ns as f64
    }

    /// Of what should have been sent: a sender that the switch holds up is not the better for it.
    fn loss(&self) -> f64 {
        (1.0 - self.received as f64 / self.wanted.max(1.0)).max(0.0)
    }
}

/// A sender in one pod and a sink in the other.
struct Pair {
    sender: UdpSocket,
    sink: UdpSocket,
    /// Payload bytes of packets in turn.
    turns: Vec<usize>,
    /// As long as the longest.
    payload: Vec<u8>,
}

impl Pair {
    fn new(path: &Path<'_>, turns: Vec<usize>) -> Result<Self> {
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

    /// Offers packets for a while, at a rate or as many as go.
    fn offer(&self, rate: Option<f64>, time: Duration) -> Result<Offered> {
        let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
        let sent = thread::scope(|scope| {
            scope.spawn(|| self.count(&over, &received));
            let sent = self.send(rate, time);
            thread::sleep(DRAIN);
            over.store(true, Ordering::Relaxed);
            sent
        });
        let (sent, took_ns) = sent?;
        #[allow(clippy::cast_precision_loss, reason = "a count of packets")]
        let wanted = rate.map_or(sent as f64, |rate| rate * time.as_secs_f64());
        Ok(Offered { wanted, sent, received: received.load(Ordering::Relaxed), took_ns: took_ns.max(1) })
    }

    /// Packets sent, and the time it took in nanoseconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
    #[allow(clippy::cast_precision_loss, reason = "counts of packets")]
    fn send(&self, rate: Option<f64>, time: Duration) -> Result<(u64, u64)> {
        let burst = rate.map_or(BURST, |rate| ((rate * BURST_SECONDS) as usize).clamp(1, BURST));
        let last = rate.map_or(u64::MAX, |rate| (rate * time.as_secs_f64()).round() as u64);
        // From any turn on there are enough for a burst.
        let turns = self.turns.iter().cycle().take(burst + self.turns.len());
        let slices: Vec<[IoSlice<'_>; 1]> = turns.map(|&bytes| [IoSlice::new(&self.payload[..bytes])]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(burst, None);
        let addresses = vec![None; burst];
        let latest = nanos(if rate.is_some() { time.mul_f64(1.0 + LATE) } else { time });
        let begin = mono_now();
        let mut sent = 0;
        loop {
            let now = mono_now().since(begin);
            if now >= latest || sent >= last {
                return Ok((sent, now));
            }
            let due = rate.map_or(0, |rate| (sent as f64 * 1e9 / rate) as u64);
            if now < due {
                wait(due - now);
                continue;
            }
            let count = usize::try_from(last - sent).unwrap_or(burst).min(burst);
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

/// Waits without holding the core from the switch: sleeps when it is long, offers the core when it is short.
pub(crate) fn wait(ns: u64) {
    const SLEEP_NS_MIN: u64 = 150_000;
    if ns > SLEEP_NS_MIN {
        thread::sleep(Duration::from_nanos(ns - SLEEP_NS_MIN / 2));
    } else {
        thread::yield_now();
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
        assert!(offered.sent <= 4_000 && offered.sent > 3_000, "{offered:?}");
        assert_eq!(offered.received, offered.sent);
        assert!((offered.wanted - 4_000.0).abs() < 1e-6);
    }

    #[test]
    fn packets_of_a_mix_are_sent_in_turn_whatever_the_bursts() {
        let pair = local(&[18, 500, 100]);
        let (sent, _) = pair.send(Some(8_000.0), Duration::from_millis(10)).unwrap();
        let mut bytes = [0; 1_000];
        let came: Vec<usize> = (0..sent).map(|_| pair.sink.recv(&mut bytes).unwrap()).collect();
        assert!(came.len() > 30, "{} packets", came.len());
        assert!(came.iter().zip([18, 500, 100].iter().cycle()).all(|(came, turn)| came == turn), "{came:?}");
    }

    #[test]
    fn loss_is_of_what_should_have_been_sent() {
        let offered = Offered { wanted: 100.0, sent: 90, received: 80, took_ns: 1_000_000_000 };
        assert!((offered.loss() - 0.2).abs() < 1e-9);
        assert!((offered.received_pps() - 80.0).abs() < 1e-9 && (offered.sent_pps() - 90.0).abs() < 1e-9);
    }
}
