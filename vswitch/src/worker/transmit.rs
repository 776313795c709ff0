//! The end of a pass: decided frames go out, and each gets the one outcome it is counted under.

use std::sync::atomic::Ordering;

use crate::frame::{Batch, Delivery, Egress, Encap, Frame, Item};
use crate::id::{MonoNs, PortId};
use crate::limits::PORTS_MAX;
use crate::outcome::{DropReason, Verdict};
use crate::pipeline::{deliveries, largest_packet};
use crate::port::{Flushed, Outgoing, Pieces, PortCaps, PortTx, TxError};
use crate::segment::{Arena, Prepared, is_fit, prepare};
use crate::snapshot::{Snapshot, path_mtu_min};
use crate::stats::{Event, PacketCount, WorkerStats};

/// The sending halves of all ports, as one worker holds them.
#[derive(Debug)]
pub struct Transmitter {
    ports: Vec<Option<Half>>,
    /// Ports to be flushed, each once: sent to in this pass, or with something left over from the one before.
    touched: Vec<PortId>,
    arena: Arena,
}

/// One port's sending half.
#[derive(Debug)]
struct Half {
    device: Box<dyn PortTx>,
    /// Whether it stands among the touched.
    touched: bool,
}

impl Default for Transmitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Transmitter {
    /// No ports yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ports: (0..PORTS_MAX).map(|_| None).collect(),
            touched: Vec::with_capacity(PORTS_MAX),
            arena: Arena::new(),
        }
    }

    /// Puts a port's sending half in its slot; a half that was there is closed.
    pub fn attach(&mut self, port: PortId, half: Box<dyn PortTx>) {
        self.touched.retain(|&other| other != port);
        if let Some(slot) = self.ports.get_mut(port.index()) {
            *slot = Some(Half { device: half, touched: false });
        }
    }

    /// Closes the port's sending half.
    pub fn detach(&mut self, port: PortId) {
        self.touched.retain(|&other| other != port);
        if let Some(slot) = self.ports.get_mut(port.index()) {
            *slot = None;
        }
    }

    /// Sends every frame of a decided batch and counts every outcome. True when the underlay refused one as too long.
    pub fn send(&mut self, snapshot: &Snapshot, now: MonoNs, batch: &mut Batch, stats: &WorkerStats) -> bool {
        let mut too_big = false;
        for item in batch.items_mut() {
            if let Err(reason) = self.send_item(snapshot, now, item, stats) {
                item.verdict = Verdict::Drop(reason);
                too_big |= reason == DropReason::TxTooBig;
            }
            stats.outcome(item.frame.ingress, item.verdict);
        }
        self.flush(stats);
        too_big
    }

    /// Sends an answer that took the place of a frame whose outcome is already counted.
    pub fn send_answer(&mut self, snapshot: &Snapshot, now: MonoNs, item: &mut Item, stats: &WorkerStats) {
        // An answer that is lost is asked for again by the next packet.
        let _ = self.send_item(snapshot, now, item, stats);
        self.flush(stats);
    }

    /// Flushes what was sent to, and what a device had no room for before.
    pub fn flush(&mut self, stats: &WorkerStats) {
        self.touched.retain(|port| {
            let Some(half) = self.ports.get_mut(port.index()).and_then(Option::as_mut) else { return false };
            let Flushed { has_unsent, offloads_disabled } = half.device.flush();
            if offloads_disabled > 0 {
                stats.count(Event::OffloadDisabled, offloads_disabled);
            }
            half.touched = has_unsent;
            has_unsent
        });
    }

    /// Whether a device had no room for all it was given, and wants another flush soon.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Sends a frame that no port received, such as an announcement, out of one port.
    pub fn originate(&mut self, snapshot: &Snapshot, now: MonoNs, port: PortId, frame: Frame, stats: &WorkerStats) {
        let mut item = Item::new(frame);
        if item.read_headers().is_err() {
            return;
        }
        let way = Delivery::plain(port, u16::MAX);
        if self.deliver_by(way, snapshot, now, &mut item, stats).is_ok() {
            stats.count(Event::Originated, 1);
        }
        self.flush(stats);
    }

    /// Sends a frame where it is to go. An error is that of a frame that was not dropped before.
    #[inline(always)]
    fn send_item(
        &mut self,
        snapshot: &Snapshot,
        now: MonoNs,
        item: &mut Item,
        stats: &WorkerStats,
    ) -> Result<(), DropReason> {
        match item.egress {
            Egress::None => {}
            Egress::Port(_) => {
                let sent = self.deliver(snapshot, now, item, stats);
                match (sent, item.verdict) {
                    // What leaves in the place of a dropped frame is an ICMP error about it.
                    (Ok(()), Verdict::Drop(_)) => stats.count(Event::Originated, 1),
                    (Ok(()), _) | (Err(_), Verdict::Drop(_)) => {}
                    (Err(reason), _) => return Err(reason),
                }
            }
            Egress::Bridge(_) => self.flood(snapshot, now, item, stats),
        }
        Ok(())
    }

    #[inline(never)]
    fn flood(&mut self, snapshot: &Snapshot, now: MonoNs, item: &mut Item, stats: &WorkerStats) {
        for way in deliveries(snapshot, item) {
            // A bridge does not fragment, no more here than towards one port.
            let fits = largest_packet(item) <= usize::from(way.mtu);
            if !fits {
                stats.tx_drop(way.port, 1);
            }
            let sent = fits && self.deliver_by(way, snapshot, now, item, stats).is_ok();
            stats.count(if sent { Event::FloodCopies } else { Event::FloodDrops }, 1);
        }
    }

    /// Sends a frame another way than it is to go.
    fn deliver_by(
        &mut self,
        way: Delivery,
        snapshot: &Snapshot,
        now: MonoNs,
        item: &mut Item,
        stats: &WorkerStats,
    ) -> Result<(), DropReason> {
        let before = std::mem::replace(&mut item.egress, Egress::Port(way));
        let sent = self.deliver(snapshot, now, item, stats);
        item.egress = before;
        sent
    }

    /// Sends a frame to the port it is to go to.
    #[inline(always)]
    fn deliver(
        &mut self,
        snapshot: &Snapshot,
        now: MonoNs,
        item: &mut Item,
        stats: &WorkerStats,
    ) -> Result<(), DropReason> {
        let Egress::Port(Delivery { port, ref encap, mtu }) = item.egress else { return Ok(()) };
        let device = if encap.is_some() { snapshot.node.uplink.ok_or(DropReason::NoUplink)? } else { port };
        let brief = snapshot.ports.brief(device);
        let caps = brief.caps.ok_or(DropReason::TxDown)?;
        let Some(half) = self.ports.get_mut(device.index()).and_then(Option::as_mut) else {
            stats.tx_drop(port, 1);
            return Err(DropReason::TxDown);
        };
        if brief.limits_ingress && !is_within_rate(snapshot, device, now, &item.frame) {
            stats.tx_drop(port, 1);
            return Err(DropReason::RateIngress);
        }
        let sent = match hand_over(half.device.as_mut(), &mut self.arena, item, mtu, caps) {
            Err(Failure::Device(TxError::Refused)) if caps != PortCaps::NONE && item.frame.offload.gso.is_some() => {
                stats.count(Event::SuperFramesRefused, 1);
                // For this frame only: a switch that all frames hang on is nothing a pod's odd frame may throw.
                hand_over(half.device.as_mut(), &mut self.arena, item, mtu, PortCaps::NONE)
            }
            sent => sent,
        };
        match sent {
            Ok(segments) => {
                let bytes = item.frame.len() as u64;
                let count = PacketCount { frames: 1, segments: segments as u64, bytes };
                stats.tx(port, count);
                if port != device {
                    stats.tx(device, count);
                }
                if !half.touched {
                    half.touched = true;
                    self.touched.push(device);
                }
                Ok(())
            }
            Err(failure) => {
                stats.tx_drop(port, 1);
                Err(match failure {
                    Failure::Unfit(reason) => reason,
                    Failure::Device(error) => refused(snapshot, item.egress.encap(), error, stats),
                })
            }
        }
    }
}

/// Whether a frame is within the rate of the port it is to leave through.
#[inline(never)]
fn is_within_rate(snapshot: &Snapshot, port: PortId, now: MonoNs, frame: &Frame) -> bool {
    let policer = snapshot.port(port).and_then(|entry| entry.limits.ingress.as_ref());
    policer.is_none_or(|policer| policer.admits(now, frame.wire_len()))
}

/// Why a frame did not leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    /// It can not be made fit for the device.
    Unfit(DropReason),
    /// The device did not take it.
    Device(TxError),
}

/// Makes a frame fit a device that has `caps`, and gives it to that; returns the packets it was sent as.
#[inline(always)]
fn hand_over(
    device: &mut dyn PortTx,
    arena: &mut Arena,
    item: &mut Item,
    mtu: u16,
    caps: PortCaps,
) -> Result<usize, Failure> {
    let pieces = if is_fit(&item.frame, caps, mtu) { None } else { make_fit(arena, item, mtu, caps)? };
    let segments = pieces.map_or_else(|| item.frame.segments(), |pieces| pieces.list.len());
    let out = Outgoing { frame: &item.frame, pieces, encap: item.egress.encap() };
    device.tx(&out).map(|()| segments).map_err(Failure::Device)
}

/// Completes or cuts a frame; the packets, if it was cut.
#[inline(never)]
fn make_fit<'a>(
    arena: &'a mut Arena,
    item: &mut Item,
    mtu: u16,
    caps: PortCaps,
) -> Result<Option<Pieces<'a>>, Failure> {
    item.read_headers().map_err(Failure::Unfit)?;
    let prepared = prepare(&mut item.frame, &item.headers, caps, mtu, arena).map_err(Failure::Unfit)?;
    Ok((prepared == Prepared::Cut).then(|| arena.pieces()))
}

/// The drop reason of a device's refusal. A path that turned out to be narrower is remembered, so that the next
/// packet that is too long for it is answered with its MTU.
#[cold]
fn refused(snapshot: &Snapshot, encap: Option<&Encap>, error: TxError, stats: &WorkerStats) -> DropReason {
    match error {
        TxError::Full => DropReason::TxFull,
        TxError::Down => DropReason::TxDown,
        TxError::Refused => DropReason::TxRefused,
        TxError::TooBig { path_mtu } => {
            if let (Some(mtu), Some(encap)) = (path_mtu, encap)
                && let Some(vtep) = snapshot.vteps.get(encap.vtep)
                && let mtu = mtu.max(path_mtu_min(encap.remote))
                && vtep.path_mtu.fetch_min(mtu, Ordering::Relaxed) > mtu
            {
                stats.count(Event::PathMtuLowered, 1);
            }
            DropReason::TxTooBig
        }
    }
}
