//! Real workers over ports that are none: when they look at a port, and what becomes of one that hangs.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use podwire_control::model::{Mac, Vni};

use super::*;
use crate::compile::{Device, HOST_PORT, Inputs, NodeSpec, UPLINK_PORT, compile, empty};
use crate::frame::{Batch, FramePool};
use crate::port::{Outgoing, PortCaps, RxStatus, TxError};
use crate::stats::Event;
use crate::sys::clock::mono_now;

/// How long a port rests in these tests: long enough to tell from a slow machine.
const HOLD: Duration = Duration::from_millis(600);

/// A receiving half that always has something for epoll, until it is read; reading waits for the gate.
#[derive(Debug)]
struct Rx {
    socket: UnixDatagram,
    turns: Arc<AtomicU64>,
    gate: Arc<Mutex<()>>,
    /// How each of its turns ends.
    status: RxStatus,
    drives: bool,
}

impl PortRx for Rx {
    fn rx(&mut self, _pool: &mut FramePool, _batch: &mut Batch, _budget: usize) -> RxStatus {
        let _open = self.gate.lock().unwrap();
        self.turns.fetch_add(1, Ordering::Relaxed);
        let received = self.socket.recv(&mut [0; 8]);
        assert!(received.is_ok() || self.drives, "visited, and epoll had told nothing");
        self.status
    }

    fn drives_device(&self) -> bool {
        self.drives
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

#[derive(Debug)]
struct Tx;

impl PortTx for Tx {
    fn tx(&mut self, _out: &Outgoing<'_>) -> Result<(), TxError> {
        Ok(())
    }
}

/// A port's halves, its other end, and its turns.
fn port(gate: &Arc<Mutex<()>>, status: RxStatus) -> (PortHalves, UnixDatagram, Arc<AtomicU64>) {
    let (socket, peer) = UnixDatagram::pair().unwrap();
    let turns = Arc::default();
    let rx = Rx { socket, turns: Arc::clone(&turns), gate: Arc::clone(gate), status, drives: false };
    (PortHalves { rx: RxHalves::One(Box::new(rx)), tx: vec![Box::new(Tx)] }, peer, turns)
}

/// A switch with one worker, and the host port's other end.
struct Fixture {
    switch: Switch,
    halves: Option<PortHalves>,
    peer: UnixDatagram,
    turns: Arc<AtomicU64>,
    gate: Arc<Mutex<()>>,
}

fn node() -> NodeSpec {
    NodeSpec {
        name: "node1".into(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        cluster_cidrs: Vec::new(),
        vni: Vni::try_from(1).unwrap(),
        underlay_mtu: 1_500,
        copy_dscp: false,
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(PollMode::Interrupt, HOLD, RxStatus::Drained)
    }

    fn with(poll: PollMode, hold: Duration, status: RxStatus) -> Self {
        let spec = WorkersSpec { cpus: vec![None], poll, flows: 0, hold };
        let switch = Switch::start(&spec, empty(&node())).unwrap();
        let gate = Arc::default();
        let (halves, peer, turns) = port(&gate, status);
        Self { switch, halves: Some(halves), peer, turns, gate }
    }

    /// The next snapshot, with the host port in slot 0 and the uplink in slot 1.
    fn publish(&mut self) -> Result<u64, SwitchError> {
        let device = Device { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1_450, caps: PortCaps::NONE };
        let devices = [HOST_PORT, UPLINK_PORT].map(|name| (name.to_owned(), device)).into();
        let previous = self.switch.snapshot();
        let compiled = compile(&Inputs { node: &node(), objects: &[], devices: &devices, previous: &previous });
        self.switch.publish(compiled, MonoNs(1))
    }

    fn passes(&self) -> u64 {
        self.switch.totals().event(Event::Passes)
    }

    fn wait_for_turns(&self, turns: u64) {
        wait_for_turns(&self.turns, turns);
    }
}

#[track_caller]
fn wait_for_turns(counted: &AtomicU64, turns: u64) {
    for _ in 0..1_000 {
        if counted.load(Ordering::Relaxed) == turns {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{} turns, and not {turns}", counted.load(Ordering::Relaxed));
}

#[test]
fn a_port_that_is_not_published_yet_wakes_nobody_and_keeps_its_frames() {
    let mut fixture = Fixture::new();
    fixture.peer.send(b"frame").unwrap();
    let halves = fixture.halves.take().unwrap();
    fixture.switch.attach(PortId(0), halves).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fixture.turns.load(Ordering::Relaxed), 0);
    assert!(fixture.passes() < 10, "{} passes over a port that may not be received from", fixture.passes());
    fixture.publish().unwrap();
    fixture.wait_for_turns(1);
    // Polled once only, and no more when it is gone.
    fixture.publish().unwrap();
    fixture.peer.send(b"frame").unwrap();
    fixture.wait_for_turns(2);
    fixture.switch.detach(PortId(0)).unwrap();
    assert!(fixture.peer.send(b"frame").is_err(), "its halves are closed");
    assert!(fixture.passes() < 30, "{}", fixture.passes());
}

#[test]
fn patience_is_five_seconds_of_naps_of_five_milliseconds_at_most() {
    let mut patience = Patience::new();
    let naps: Vec<Duration> = std::iter::from_fn(|| patience.nap()).collect();
    assert_eq!(naps.iter().sum::<Duration>(), Duration::from_secs(5));
    assert_eq!(naps.iter().max(), Some(&Duration::from_millis(5)));
    assert!(naps[0] <= Duration::from_micros(50), "a worker that is awake answers within microseconds");
}

#[test]
fn a_worker_that_hangs_is_named_until_it_goes_on() {
    let mut fixture = Fixture::new();
    let halves = fixture.halves.take().unwrap();
    fixture.switch.attach(PortId(0), halves).unwrap();
    fixture.publish().unwrap();
    let gate = Arc::clone(&fixture.gate);
    let shut = gate.lock().unwrap();
    fixture.peer.send(b"frame").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(matches!(fixture.publish(), Err(SwitchError::Stuck(0))));
    let generation = fixture.switch.snapshot().generation;
    assert!(matches!(fixture.switch.settled(), Err(SwitchError::Stuck(0))), "it is published all the same");
    drop(shut);
    assert_eq!(fixture.switch.settled().unwrap(), generation);
    fixture.switch.detach(PortId(0)).unwrap();
}

#[test]
fn a_port_in_midstream_is_left_alone_for_a_while_and_others_are_not() {
    for poll in [PollMode::Interrupt, PollMode::Adaptive, PollMode::Busy] {
        let mut fixture = Fixture::with(poll, HOLD, RxStatus::Midstream);
        let (other, other_peer, other_turns) = port(&fixture.gate, RxStatus::Drained);
        for (slot, halves) in [(0, fixture.halves.take().unwrap()), (1, other)] {
            fixture.switch.attach(PortId(slot), halves).unwrap();
        }
        fixture.publish().unwrap();
        fixture.peer.send(b"frame").unwrap();
        fixture.wait_for_turns(1);
        let began = mono_now();
        fixture.peer.send(b"frame").unwrap();
        for turn in 1..=5 {
            other_peer.send(b"frame").unwrap();
            wait_for_turns(&other_turns, turn);
        }
        let served = mono_now().since(began);
        fixture.wait_for_turns(2);
        let rested = mono_now().since(began);
        assert!(u128::from(rested) > HOLD.as_nanos() / 2, "{poll:?}: visited again after {rested} ns");
        assert!(served < rested / 2, "{poll:?}: the other port was served after {served} ns of {rested}");
        assert!(fixture.switch.totals().event(Event::Holds) > 0, "{poll:?}");
        fixture.switch.detach(PortId(0)).unwrap();
    }
}

#[test]
fn with_no_hold_a_port_in_midstream_is_visited_at_once() {
    let mut fixture = Fixture::with(PollMode::Interrupt, Duration::ZERO, RxStatus::Midstream);
    let halves = fixture.halves.take().unwrap();
    fixture.switch.attach(PortId(0), halves).unwrap();
    fixture.publish().unwrap();
    for turn in 1..=3 {
        fixture.peer.send(b"frame").unwrap();
        fixture.wait_for_turns(turn);
    }
    assert_eq!(fixture.switch.totals().event(Event::Holds), 0);
    assert!(fixture.passes() < 30, "{}", fixture.passes());
}

#[test]
fn a_port_that_drives_its_device_is_visited_each_pass_and_wakes_a_worker_that_sleeps() {
    for (poll, many) in [(PollMode::Busy, true), (PollMode::Interrupt, false)] {
        let mut fixture = Fixture::with(poll, HOLD, RxStatus::Drained);
        let (socket, peer) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (turns, gate) = (Arc::clone(&fixture.turns), Arc::clone(&fixture.gate));
        let rx = Rx { socket, turns, gate, status: RxStatus::Drained, drives: true };
        let halves = PortHalves { rx: RxHalves::One(Box::new(rx)), tx: vec![Box::new(Tx)] };
        fixture.switch.attach(PortId(0), halves).unwrap();
        fixture.publish().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let before = fixture.turns.load(Ordering::Relaxed);
        assert_eq!(before > 50, many, "{poll:?}: {before} turns");
        peer.send(b"frame").unwrap();
        for _ in 0..1_000 {
            if fixture.turns.load(Ordering::Relaxed) > before {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(fixture.turns.load(Ordering::Relaxed) > before, "{poll:?}");
        fixture.switch.detach(PortId(0)).unwrap();
    }
}

#[test]
fn a_port_in_midstream_that_epoll_names_twice_rests_after_one_visit() {
    let mut fixture = Fixture::with(PollMode::Interrupt, HOLD, RxStatus::Midstream);
    let half = || {
        let (socket, peer) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        peer.send(b"frame").unwrap();
        let (turns, gate) = (Arc::clone(&fixture.turns), Arc::clone(&fixture.gate));
        let rx: Box<dyn PortRx> = Box::new(Rx { socket, turns, gate, status: RxStatus::Midstream, drives: false });
        (rx, peer)
    };
    let ((one, _one_peer), (other, _other_peer)) = (half(), half());
    let halves = PortHalves { rx: RxHalves::PerWorker(vec![vec![one, other]]), tx: vec![Box::new(Tx)] };
    fixture.switch.attach(PortId(0), halves).unwrap();
    fixture.publish().unwrap();
    fixture.wait_for_turns(2);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fixture.turns.load(Ordering::Relaxed), 2);
    assert_eq!(fixture.switch.totals().event(Event::Holds), 1);
}
