//! What an engine counts of itself, over ports that misbehave.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use podwire_control::model::{Mac, Vni};

use super::*;
use crate::compile::{Device, HOST_PORT, Inputs, NodeSpec, compile, empty};
use crate::frame::{Gso, GsoKind};
use crate::port::{Flushed, Outgoing, PortCaps, TxError};
use crate::stats::Event;
use crate::wire::nd;

const PORT: PortId = PortId(0);

/// A device that keeps every buffer it is lent, or none, and tells of an offload once for each frame it sends.
#[derive(Debug, Default)]
struct Odd {
    keeps: bool,
    kept: Vec<Frame>,
    sent: Arc<AtomicU64>,
    flushed: Arc<AtomicU64>,
    /// Flushes that leave something over.
    short_of_room: u64,
}

impl PortRx for Odd {
    fn rx(&mut self, pool: &mut FramePool, _batch: &mut Batch, _budget: usize) -> RxStatus {
        self.kept.extend(std::iter::from_fn(|| pool.take()).take(if self.keeps { usize::MAX } else { 0 }));
        RxStatus::More
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl PortTx for Odd {
    fn tx(&mut self, _out: &Outgoing<'_>) -> Result<(), TxError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> Flushed {
        let offloads_disabled = self.sent.swap(0, Ordering::Relaxed);
        self.flushed.store(offloads_disabled, Ordering::Relaxed);
        self.short_of_room = self.short_of_room.saturating_sub(1);
        Flushed { has_unsent: self.short_of_room > 0, offloads_disabled }
    }
}

/// A snapshot with the host port in the first slot.
fn snapshot() -> Snapshot {
    let node = NodeSpec {
        name: "node1".into(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        cluster_cidrs: Vec::new(),
        vni: Vni::try_from(1).unwrap(),
        underlay_mtu: 1_500,
        copy_dscp: false,
    };
    let device = Device { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1_450, caps: PortCaps::NONE };
    let devices = HashMap::from([(HOST_PORT.to_owned(), device)]);
    let inputs = Inputs { node: &node, objects: &[], devices: &devices, previous: &empty(&node) };
    compile(&inputs).snapshot
}

fn engine(keeps: bool, tx: Odd) -> Engine {
    let mut engine = Engine::new(Arc::new(WorkerStats::new(PORTS_MAX)), 0);
    engine.attach(PORT, vec![Box::new(Odd { keeps, ..Odd::default() })], Box::new(tx));
    engine
}

#[test]
fn a_turn_without_a_free_buffer_is_counted() {
    for (keeps, expected) in [(true, 2), (false, 0)] {
        let mut engine = engine(keeps, Odd::default());
        for _ in 0..2 {
            assert_eq!(engine.turn(&snapshot(), MonoNs(1), PORT), Turn { status: RxStatus::More, frames: 0 });
        }
        assert_eq!(engine.stats().snapshot().event(Event::PoolEmpty), expected);
    }
}

/// A device whose next burst stands for so many segments, and ends as it says.
#[derive(Debug)]
struct Burst {
    segments: u16,
    status: RxStatus,
}

impl PortRx for Burst {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, _budget: usize) -> RxStatus {
        let mut frame = pool.take().unwrap();
        frame.fill(&vec![0; 14 + 10 * usize::from(self.segments)]);
        frame.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 10, header_len: 14 });
        batch.push(frame);
        self.status
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn a_small_burst_in_midstream_is_told_unless_another_half_has_more() {
    let few = u16::try_from(HOLD_SEGMENTS_MAX).unwrap() - 1;
    let (drained, midstream, more) = (RxStatus::Drained, RxStatus::Midstream, RxStatus::More);
    for (halves, expected) in [
        (&[(few, midstream)][..], midstream),
        (&[(few + 1, midstream)], drained),
        (&[(few, drained)], drained),
        (&[(few, midstream), (few, drained)], midstream),
        (&[(few, more), (few, midstream)], more),
        (&[(few, midstream), (few, more)], more),
        (&[(few, midstream), (few, RxStatus::Closed)], RxStatus::Closed),
    ] {
        let mut engine = Engine::new(Arc::new(WorkerStats::new(PORTS_MAX)), 0);
        let half = |&(segments, status)| -> Box<dyn PortRx> { Box::new(Burst { segments, status }) };
        engine.attach(PORT, halves.iter().map(half).collect(), Box::new(Odd::default()));
        assert_eq!(engine.turn(&snapshot(), MonoNs(1), PORT).status, expected, "{halves:?}");
    }
}

#[test]
fn an_offload_that_switched_itself_off_is_counted_once() {
    let mut engine = engine(false, Odd::default());
    let own = [10, 244, 1, 1].into();
    for told in [1, 2] {
        engine.originate(&snapshot(), MonoNs(1), PORT, &nd::arp_request(Mac([2, 0, 0, 0, 0, 1]), own, own));
        assert_eq!(engine.stats().snapshot().event(Event::OffloadDisabled), told);
    }
}

#[test]
fn what_the_switch_originates_is_flushed() {
    let tx = Odd::default();
    let flushed = Arc::clone(&tx.flushed);
    let mut engine = engine(false, tx);
    let own = [10, 244, 1, 1].into();
    engine.originate(&snapshot(), MonoNs(1), PORT, &nd::arp_request(Mac([2, 0, 0, 0, 0, 1]), own, own));
    assert_eq!(flushed.load(Ordering::Relaxed), 1);
}

#[test]
fn what_a_device_had_no_room_for_is_flushed_again_until_nothing_is_left() {
    let mut engine = engine(false, Odd { short_of_room: 3, ..Odd::default() });
    let own = [10, 244, 1, 1].into();
    engine.originate(&snapshot(), MonoNs(1), PORT, &nd::arp_request(Mac([2, 0, 0, 0, 0, 1]), own, own));
    assert!(engine.send_left_over());
    assert!(!engine.send_left_over());
    let mut engine = self::engine(false, Odd { short_of_room: 3, ..Odd::default() });
    engine.originate(&snapshot(), MonoNs(1), PORT, &nd::arp_request(Mac([2, 0, 0, 0, 0, 1]), own, own));
    engine.detach(PORT);
    assert!(!engine.send_left_over(), "gone with its port");
}
