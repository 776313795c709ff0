//! The counting law, one writer and many readers, and counters that never go back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::id::BridgeId;

const ONE: PacketCount = PacketCount { frames: 1, segments: 1, bytes: 60 };

fn every_verdict() -> Vec<Verdict> {
    let punts = PuntReason::ALL.iter().map(|&reason| Verdict::Punt(reason));
    let drops = DropReason::ALL.iter().map(|&reason| Verdict::Drop(reason));
    let plain = [Verdict::Forward(PortId(1)), Verdict::Flood(BridgeId(0)), Verdict::Reply];
    plain.into_iter().chain(punts).chain(drops).collect()
}

#[test]
fn every_verdict_has_a_counter_of_its_own_under_its_name() {
    let outcomes: Vec<Outcome> = every_verdict().into_iter().map(Outcome::from).collect();
    assert_eq!(outcomes, Outcome::all().collect::<Vec<_>>());
    for (outcome, verdict) in outcomes.iter().zip(every_verdict()) {
        assert_eq!(outcome.to_string(), verdict.name());
        assert_eq!(outcome.drop_reason().is_some(), matches!(verdict, Verdict::Drop(_)));
        assert_eq!(outcome.punt_reason().is_some(), matches!(verdict, Verdict::Punt(_)));
    }
}

#[test]
fn every_event_has_a_name_of_its_own_and_a_sentence() {
    let names: HashSet<_> = Event::ALL.iter().map(|event| event.name()).collect();
    assert_eq!(names.len(), Event::ALL.len());
    assert!(Event::ALL.iter().all(|event| event.meaning().ends_with('.')));
}

#[test]
fn one_outcome_a_frame_keeps_the_law_and_anything_else_breaks_it() {
    let worker = Arc::new(WorkerStats::new(4));
    let workers = [Arc::clone(&worker)];
    for verdict in every_verdict() {
        worker.rx(PortId(2), ONE);
        assert!(totals(&workers).check().is_err(), "{verdict:?} is not counted yet");
        worker.outcome(PortId(2), verdict);
        assert_eq!(totals(&workers).check(), Ok(()), "{verdict:?}");
    }
    worker.outcome(PortId(2), Verdict::Reply);
    let frames = Outcome::COUNT as u64;
    assert_eq!(totals(&workers).check(), Err(LawBroken { received: frames, accounted: frames + 1 }));
}

#[test]
fn frames_segments_and_bytes_are_counted_apart_by_port_and_direction() {
    let workers = [Arc::new(WorkerStats::new(4)), Arc::new(WorkerStats::new(4))];
    let large = PacketCount { frames: 1, segments: 45, bytes: 65_226 };
    workers[0].rx(PortId(0), large);
    workers[1].rx(PortId(0), ONE);
    workers[1].tx(PortId(3), large);
    workers[1].tx_drop(PortId(3), 2);
    let port = port_report(&workers, PortId(0));
    assert_eq!(port.rx, PacketCount { frames: 2, segments: 46, bytes: 65_286 });
    assert_eq!(port.tx, PacketCount::default());
    let port = port_report(&workers, PortId(3));
    assert_eq!((port.rx, port.tx, port.tx_drops), (PacketCount::default(), large, 2));
    assert_eq!(workers[0].snapshot().ports.rx, large);
}

#[test]
fn totals_add_the_workers_up_and_name_what_occurred() {
    let workers = [Arc::new(WorkerStats::new(1)), Arc::new(WorkerStats::new(1))];
    for (worker, verdict) in workers.iter().zip([Verdict::Reply, Verdict::Drop(DropReason::NoRoute)]) {
        worker.rx(PortId(0), ONE);
        worker.outcome(PortId(0), verdict);
        worker.count(Event::Originated, 2);
    }
    let totals = totals(&workers);
    assert_eq!(totals.to_string(), "received 2, reply 1, drop:no_route 1");
    assert_eq!(totals.outcome(Verdict::Drop(DropReason::NoRoute)), 1);
    assert_eq!(totals.0.ports.drops(), 1);
    assert_eq!((totals.event(Event::Originated), totals.event(Event::Passes)), (4, 0));
}

#[test]
fn a_port_in_a_reused_slot_starts_from_nothing() {
    let worker = Arc::new(WorkerStats::new(2));
    let workers = [Arc::clone(&worker)];
    worker.rx(PortId(1), ONE);
    worker.outcome(PortId(1), Verdict::Reply);
    worker.tx_drop(PortId(1), 9);
    let baseline = PortBaseline::capture(&workers, PortId(1));
    assert_eq!(baseline.since(&port_report(&workers, PortId(1))), PortReport::default());
    worker.rx(PortId(1), ONE);
    worker.outcome(PortId(1), Verdict::Flood(BridgeId(0)));
    let shown = baseline.since(&port_report(&workers, PortId(1)));
    assert_eq!((shown.rx, shown.accounted(), shown.tx_drops), (ONE, 1, 0));
    assert_eq!((shown.outcome(Verdict::Reply), shown.outcome(Verdict::Flood(BridgeId(7)))), (0, 1));
    assert_eq!(totals(&workers).received().frames, 2, "the slot's counters themselves never go back");
}

#[test]
fn ids_beyond_the_last_port_are_counted_too() {
    let worker = Arc::new(WorkerStats::new(2));
    worker.rx(PortId::NONE, ONE);
    worker.outcome(PortId::NONE, Verdict::Drop(DropReason::UnknownPort));
    assert_eq!(totals(&[Arc::clone(&worker)]).check(), Ok(()));
    assert_eq!(port_report(&[worker], PortId(1)), PortReport::default());
}

#[test]
fn two_ports_never_share_a_cache_line() {
    let worker = WorkerStats::new(2);
    let at = |port| std::ptr::from_ref(worker.port(PortId(port))).addr();
    assert_eq!((at(0) % 64, at(1) % 64), (0, 0));
    assert!(at(1) - at(0) < 1_024, "a port takes {} bytes", at(1) - at(0));
}

#[test]
fn a_reader_never_sees_a_counter_go_back() {
    let worker = Arc::new(WorkerStats::new(1));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100_000 {
                worker.rx(PortId(0), ONE);
                worker.outcome(PortId(0), Verdict::Reply);
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = worker.snapshot();
        while !done.load(Ordering::Acquire) {
            let now = worker.snapshot();
            assert!(now.ports.rx.frames >= seen.ports.rx.frames && now.ports.accounted() >= seen.ports.accounted());
            seen = now;
        }
    });
    assert_eq!(totals(&[worker]).check(), Ok(()));
}
