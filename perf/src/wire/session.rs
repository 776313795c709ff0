//! Both interfaces, opened, and one trial after the other over them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use podwire_control::model::Mac;
use podwire_vswitch::sys::clock::unix_ms;
use podwire_vswitch::sys::netlink::Netlink;
use podwire_vswitch::sys::netns::{NetnsHandle, in_netns};
use podwire_vswitch::sys::xsk::{self, SLOT_DATA_BYTES};

use super::Options;
use super::frame::{Addresses, FCS_BYTES, Stream};
use super::generator::{Sent, Transmit, send};
use super::report::{Outcome, Receiving, Sending};
use super::sink::{Inlet, Sink};
use super::tally::Tally;
use crate::lab::stop;

/// Bytes of Ethernet's header, beside the MTU.
const HEADER_BYTES: usize = 14;

/// An interface as it was found.
#[derive(Debug)]
struct Nic {
    index: u32,
    mac: Option<Mac>,
    /// Longest frame with FCS.
    frame_bytes_max: usize,
}

/// What measures.
#[derive(Debug)]
pub(super) struct Session {
    transmit: Option<Transmit>,
    streams: Vec<Stream>,
    sink: Option<Sink>,
    announcement: [u8; 60],
    dst_port: u16,
    trial: u16,
    tx_cpus: Vec<usize>,
    rx_cpus: Vec<usize>,
}

impl Session {
    /// Opens what the options name; looks at everything before anything is sent.
    pub(super) fn open(options: &Options) -> Result<Self> {
        let (tx_netns, rx_netns) = (options.tx_netns.as_deref(), options.rx_netns.as_deref());
        let tx = options.tx_if.as_deref().map(|device| enter(tx_netns, || find(device))).transpose()?;
        let rx = options.rx_if.as_deref().map(|device| enter(rx_netns, || find(device))).transpose()?;
        let addresses = addresses(options, tx.as_ref(), rx.as_ref())?;
        let mut sink = None;
        if let (Some(device), Some(nic)) = (options.rx_if.as_deref(), &rx) {
            let (index, threads, dst_port) = (nic.index, options.sinks, options.dst_port);
            sink = Some(enter(rx_netns, || Sink::open(Inlet { device, index, threads, dst_port }, options.sink))?);
        }
        let (mut transmit, mut streams) = (None, Vec::new());
        if let (Some(device), Some(nic)) = (options.tx_if.as_deref(), &tx) {
            let most = nic.frame_bytes_max.min(SLOT_DATA_BYTES + FCS_BYTES);
            ensure!(options.size.fits(most), "--size has to be from 64 to {most} on {device}, or imix");
            let queues = u32::from(options.queues);
            transmit = Some(enter(tx_netns, || {
                let there = xsk::queues(device)?.send;
                ensure!(queues <= there, "{device} has {there} queues, not {queues}: `ethtool -L` may give it more");
                Transmit::open(device, nic.index, queues, options.mode)
            })?);
            let lengths = options.size.turns(most);
            let flows = |queue: u16| (queue..options.flows).step_by(usize::from(options.queues));
            streams.extend((0..options.queues).map(|queue| Stream::new(&addresses, &lengths, flows(queue))));
        }
        // So that frames of an earlier run are not taken for this one's.
        let [.., high, low] = unix_ms().to_be_bytes();
        Ok(Self {
            transmit,
            streams,
            sink,
            announcement: addresses.announcement(),
            dst_port: options.dst_port,
            trial: u16::from_be_bytes([high, low]),
            tx_cpus: options.tx_cpus.clone(),
            rx_cpus: options.rx_cpus.clone(),
        })
    }

    pub(super) fn sends(&self) -> bool {
        self.transmit.is_some()
    }

    pub(super) fn receives(&self) -> bool {
        self.sink.is_some()
    }

    /// How frames are sent, if they are.
    pub(super) fn sending(&self) -> Option<Sending> {
        let transmit = self.transmit.as_ref()?;
        let (mode, fallback) = (transmit.mode.to_string(), transmit.fallback.clone());
        Some(Sending { mode, queues: transmit.sockets.len(), fallback })
    }

    /// How they are received, if they are.
    pub(super) fn receiving(&self) -> Option<Receiving> {
        let sink = self.sink.as_ref()?;
        Some(Receiving { kind: sink.kind.clone(), threads: sink.lanes.len(), fallback: sink.fallback.clone() })
    }

    /// Sends and counts for a while, what of it there is.
    pub(super) fn trial(&mut self, rate: Option<f64>, time: Duration) -> Result<Outcome> {
        self.trial = self.trial.wrapping_add(1);
        self.streams.iter_mut().for_each(|stream| stream.begin(self.trial));
        let number = self.sends().then_some(self.trial);
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
        let drops = self.sink.as_mut().map_or(0, Sink::drops);
        Ok(Outcome::new(rate, time, sent, seen.as_ref(), drops))
    }
}

/// What a thread came to; its panic goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn turn(cpus: &[usize], at: usize) -> Option<usize> {
    cpus.get(at % cpus.len().max(1)).copied()
}

/// Does something in a namespace, or where we are.
fn enter<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match netns {
        None => work(),
        Some(path) => in_netns(&NetnsHandle::open(path)?, work)?,
    }
}

fn find(device: &str) -> Result<Nic> {
    let link = Netlink::open()?.link(device)?;
    ensure!(link.up, "{device} is down: `ip link set {device} up`");
    let mtu = usize::try_from(link.mtu).context("an MTU fits")?;
    Ok(Nic { index: link.index, mac: link.mac, frame_bytes_max: mtu + HEADER_BYTES + FCS_BYTES })
}

fn addresses(options: &Options, tx: Option<&Nic>, rx: Option<&Nic>) -> Result<Addresses> {
    let src_mac = options.src_mac.or(tx.and_then(|nic| nic.mac));
    let dst_mac = options.dst_mac.or(rx.and_then(|nic| nic.mac));
    let (src_mac, dst_mac) = match (src_mac, dst_mac, tx) {
        (Some(src), Some(dst), _) => (src, dst),
        // Nothing is sent but the announcement.
        (None, Some(dst), None) => (Mac::ZERO, dst),
        (None, ..) => bail!("the sending interface has no MAC address: give --src-mac"),
        (_, None, _) => bail!("where frames shall go is not known: give --dst-mac"),
    };
    let (src_ip, dst_ip, dst_port) = (options.src_ip, options.dst_ip, options.dst_port);
    Ok(Addresses { src_mac, dst_mac, src_ip, dst_ip, dst_port })
}
