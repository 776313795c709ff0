//! Both interfaces, opened, and one trial after the other over them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use podwire_control::model::Mac;
use podwire_vswitch::sys::clock::unix_ms;
use podwire_vswitch::sys::xsk::{self, SLOT_DATA_BYTES};

use super::frame::{Addresses, FCS_BYTES, Stream};
use super::generator::{Mode, Sent, Transmit, send};
use super::nic::{Nic, enter, tx_dropped};
use super::report::{Apart, Outcome, Receiving, Sending};
use super::sink::{Inlet, Kind, Sink};
use super::tally::Tally;
use crate::lab::stop;
use crate::scenario::PacketSize;

/// Where frames leave, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tx<'a> {
    pub(crate) device: &'a str,
    /// Where we are when not given.
    pub(crate) netns: Option<&'a Path>,
    /// Queues to send on, a thread each.
    pub(crate) queues: u16,
    pub(crate) mode: Mode,
    /// CPUs of the threads, in turn; the kernel places them when there are none.
    pub(crate) cpus: &'a [usize],
}

/// Where they arrive, and how they are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rx<'a> {
    pub(crate) device: &'a str,
    pub(crate) netns: Option<&'a Path>,
    pub(crate) sink: Kind,
    pub(crate) threads: u16,
    /// How long an AF_XDP sink sleeps when nothing is there; it keeps looking when not given.
    pub(crate) nap: Option<Duration>,
    pub(crate) cpus: &'a [usize],
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) size: PacketSize,
    pub(crate) flows: u16,
    /// Of the sending interface when not given.
    pub(crate) src_mac: Option<Mac>,
    /// Of the receiving interface when not given.
    pub(crate) dst_mac: Option<Mac>,
    pub(crate) src_ip: std::net::Ipv4Addr,
    pub(crate) dst_ip: std::net::Ipv4Addr,
    pub(crate) dst_port: u16,
}

/// What measures.
#[derive(Debug)]
pub(crate) struct Session {
    transmit: Option<Transmit>,
    /// The sending interface and its namespace.
    outlet: Option<(String, Option<PathBuf>)>,
    streams: Vec<Stream>,
    sink: Option<Sink>,
    announcement: [u8; 60],
    dst_port: u16,
    trial: u16,
    tx_cpus: Vec<usize>,
    rx_cpus: Vec<usize>,
}

impl Session {
    /// Opens what is given; looks at everything before anything is sent.
    pub(crate) fn open(tx: Option<&Tx<'_>>, rx: Option<&Rx<'_>>, traffic: &Traffic) -> Result<Self> {
        let tx_nic = tx.map(|tx| Nic::find(tx.netns, tx.device)).transpose()?;
        let rx_nic = rx.map(|rx| Nic::find(rx.netns, rx.device)).transpose()?;
        let addresses = addresses(traffic, tx_nic.as_ref(), rx_nic.as_ref())?;
        let mut sink = None;
        if let (Some(rx), Some(nic)) = (rx, &rx_nic) {
            let (device, threads, nap) = (rx.device, rx.threads, rx.nap);
            let inlet = Inlet { device, index: nic.index, threads, dst_port: traffic.dst_port, nap };
            sink = Some(enter(rx.netns, || Sink::open(inlet, rx.sink))?);
        }
        let (mut transmit, mut streams) = (None, Vec::new());
        if let (Some(tx), Some(nic)) = (tx, &tx_nic) {
            let most = nic.frame_bytes_max.min(SLOT_DATA_BYTES + FCS_BYTES);
            let (device, queues) = (tx.device, u32::from(tx.queues));
            ensure!(traffic.size.fits(most), "--size has to be from 64 to {most} on {device}, or imix");
            transmit = Some(enter(tx.netns, || {
                let there = xsk::queues(device)?.send;
                ensure!(queues <= there, "{device} has {there} queues, not {queues}: `ethtool -L` may give it more");
                Transmit::open(device, nic.index, queues, tx.mode)
            })?);
            let lengths = traffic.size.turns(most);
            let flows = |queue: u16| (queue..traffic.flows).step_by(usize::from(tx.queues));
            streams.extend((0..tx.queues).map(|queue| Stream::new(&addresses, &lengths, flows(queue))));
        }
        // So that frames of an earlier run are not taken for this one's.
        let [.., high, low] = unix_ms().to_be_bytes();
        Ok(Self {
            transmit,
            outlet: tx.map(|tx| (tx.device.to_owned(), tx.netns.map(Path::to_owned))),
            streams,
            sink,
            announcement: addresses.announcement(rx_nic.and_then(|nic| nic.mac).unwrap_or(addresses.dst_mac)),
            dst_port: traffic.dst_port,
            trial: u16::from_be_bytes([high, low]),
            tx_cpus: tx.map_or_else(Vec::new, |tx| tx.cpus.to_vec()),
            rx_cpus: rx.map_or_else(Vec::new, |rx| rx.cpus.to_vec()),
        })
    }

    pub(super) fn sends(&self) -> bool {
        self.transmit.is_some()
    }

    pub(super) fn receives(&self) -> bool {
        self.sink.is_some()
    }

    /// How frames are sent, if they are.
    pub(crate) fn sending(&self) -> Option<Sending> {
        let transmit = self.transmit.as_ref()?;
        let (mode, fallback) = (transmit.mode.to_string(), transmit.fallback.clone());
        Some(Sending { mode, queues: transmit.sockets.len(), fallback })
    }

    /// How they are received, if they are.
    pub(crate) fn receiving(&self) -> Option<Receiving> {
        let sink = self.sink.as_ref()?;
        Some(Receiving { kind: sink.kind.clone(), threads: sink.lanes.len(), fallback: sink.fallback.clone() })
    }

    /// Sends and counts for a while, what of it there is.
    pub(crate) fn trial(&mut self, rate: Option<f64>, time: Duration) -> Result<Outcome> {
        self.trial = self.trial.wrapping_add(1);
        self.streams.iter_mut().for_each(|stream| stream.begin(self.trial));
        let number = self.sends().then_some(self.trial);
        let refused_before = self.refused()?;
        if let Some(sink) = &mut self.sink {
            sink.announce(&self.announcement);
            sink.drops();
        }
        let over = AtomicBool::new(false);
        let share = rate.map(|rate| rate / f64::from(u16::try_from(self.streams.len()).unwrap_or(1).max(1)));
        let (transmit, streams, sink) = (&mut self.transmit, &mut self.streams, &mut self.sink);
        let (tx_cpus, rx_cpus, over, dst_port) = (&self.tx_cpus, &self.rx_cpus, &over, self.dst_port);
        let (sent, seen) = thread::scope(|scope| {
            let lanes = sink.iter_mut().flat_map(|sink| &mut sink.lanes).enumerate();
            let counts: Vec<_> = lanes
                .map(|(at, lane)| scope.spawn(move || lane.count(dst_port, number, over, turn(rx_cpus, at))))
                .collect();
            let sockets = transmit.iter_mut().flat_map(|transmit| &mut transmit.sockets);
            let senders: Vec<_> = sockets
                .zip(streams)
                .enumerate()
                .map(|(at, (socket, stream))| scope.spawn(move || send(socket, stream, share, time, turn(tx_cpus, at))))
                .collect();
            let slept = if senders.is_empty() { stop::sleep(time) } else { Ok(()) };
            let sent: Result<Vec<Sent>> = senders.into_iter().map(joined).collect();
            over.store(true, Ordering::Relaxed);
            let seen: Result<Vec<Tally>> = counts.into_iter().map(joined).collect();
            (slept.and(sent), seen)
        });
        let sent = sent?.into_iter().reduce(Sent::and);
        let seen = seen?.into_iter().reduce(|mut one, two| {
            one.merge(two);
            one
        });
        let apart =
            Apart { refused: self.refused()? - refused_before, sink: self.sink.as_mut().map_or(0, Sink::drops) };
        Ok(Outcome::new(rate, time, sent, seen.as_ref(), apart))
    }

    /// Frames that the sending interface has refused so far, if there is one.
    fn refused(&self) -> Result<u64> {
        self.outlet.as_ref().map_or(Ok(0), |(device, netns)| tx_dropped(netns.as_deref(), device))
    }
}

/// What a thread came to; its panic goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn turn(cpus: &[usize], at: usize) -> Option<usize> {
    cpus.get(at % cpus.len().max(1)).copied()
}

fn addresses(traffic: &Traffic, tx: Option<&Nic>, rx: Option<&Nic>) -> Result<Addresses> {
    let src_mac = traffic.src_mac.or(tx.and_then(|nic| nic.mac));
    let dst_mac = traffic.dst_mac.or(rx.and_then(|nic| nic.mac));
    let (src_mac, dst_mac) = match (src_mac, dst_mac, tx) {
        (Some(src), Some(dst), _) => (src, dst),
        // Nothing is sent but the announcement.
        (None, Some(dst), None) => (Mac::ZERO, dst),
        (None, ..) => bail!("the sending interface has no MAC address: give --src-mac"),
        (_, None, _) => bail!("where frames shall go is not known: give --dst-mac"),
    };
    let Traffic { src_ip, dst_ip, dst_port, .. } = *traffic;
    Ok(Addresses { src_mac, dst_mac, src_ip, dst_ip, dst_port })
}
