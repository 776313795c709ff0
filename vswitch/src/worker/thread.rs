//! The loop around an [`Engine`]: epoll, poll modes, commands, generations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender};

use super::Engine;
use super::rest::Rest;
use super::spin::Spin;
use crate::id::{MonoNs, PortId};
use crate::limits::PORTS_MAX;
use crate::port::{PortRx, PortTx, RxStatus};
use crate::snapshot::Snapshot;
use crate::stats::{Event, WorkerStats};
use crate::sys::affinity;
use crate::sys::clock::mono_now;
use crate::sys::epoll::{Epoll, Events, Waker};

/// Longest sleep: how often an idle worker looks at its affinity.
const TICK: Duration = Duration::from_secs(1);
/// Longest sleep while a port without a file descriptor is attached, or a device had no room for all it was given.
const UNPOLLABLE_TICK: Duration = Duration::from_millis(1);
/// epoll's token for the waker; port tokens are slots.
const WAKER_TOKEN: u64 = u64::MAX;

/// How a worker waits for frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PollMode {
    /// Never sleeps.
    Busy = 0,
    /// Spins a little after work unless others want the core, then sleeps until a frame comes.
    Adaptive = 1,
    /// Sleeps at once.
    Interrupt = 2,
}

impl PollMode {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
            Self::Interrupt => "interrupt",
        }
    }

    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Busy,
            2 => Self::Interrupt,
            _ => Self::Adaptive,
        }
    }
}

/// What a worker is told; file descriptors reach it this way only.
#[derive(Debug)]
pub enum Command {
    /// A port comes in.
    Attach {
        /// Slot.
        port: PortId,
        /// Receiving halves that this worker is to own.
        rx: Vec<Box<dyn PortRx>>,
        /// Sending half.
        tx: Box<dyn PortTx>,
    },
    /// A port goes; the answer comes when its halves are closed.
    Detach {
        /// Slot.
        port: PortId,
        /// Told when done.
        done: Sender<()>,
    },
    /// A frame the switch itself has made leaves through a port.
    Originate {
        /// Slot.
        port: PortId,
        /// The whole frame.
        bytes: Vec<u8>,
    },
    /// The thread ends.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// A port's device is gone.
    Closed(PortId),
}

/// What a worker and the control thread share.
#[derive(Debug)]
pub struct Shared {
    /// Generation the worker uses.
    pub seen: AtomicU64,
    /// CPU it is pinned to, or `u64::MAX`.
    pub cpu: AtomicU64,
    /// Wakes it.
    pub waker: Waker,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
}

/// Everything a worker starts with.
#[derive(Debug)]
pub struct WorkerSetup {
    /// CPU to pin to.
    pub cpu: Option<usize>,
    /// Poll mode, changeable at run time.
    pub poll: Arc<AtomicU8>,
    /// Flows its cache keeps; 0 switches it off.
    pub flows: usize,
    /// How long a port is left alone after a small burst in the midst of a stream.
    pub hold: Duration,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// The published snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Commands.
    pub commands: Receiver<Command>,
    /// Reports.
    pub reports: Sender<Report>,
    /// Epoll set; made by the starter, so that failure is told there.
    pub epoll: Epoll,
}

/// Runs a worker until it is told to stop.
pub fn run(setup: WorkerSetup) {
    let mut worker = Worker::new(setup);
    worker.pin();
    while worker.pass() {}
}

struct Worker {
    setup: WorkerSetup,
    engine: Engine,
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// Attached, but in no snapshot yet: nobody may take their frames, so epoll is not asked about them.
    unpublished: Vec<PortId>,
    /// Ports without a file descriptor: always visited.
    unpollable: Vec<PortId>,
    /// Ports that are visited each pass, and that epoll wakes the worker for nevertheless.
    driven: Vec<PortId>,
    ready: Vec<PortId>,
    /// Ports that had more than one turn takes, or hold received frames back themselves; epoll need not know of those.
    hot: Vec<PortId>,
    rest: Rest,
    /// Whether a device had no room for all it was given.
    unsent: bool,
    events: Events,
    last_work: MonoNs,
    last_tick: MonoNs,
    spin: Spin,
}

impl Worker {
    fn new(setup: WorkerSetup) -> Self {
        Self {
            engine: Engine::new(Arc::clone(&setup.shared.stats), setup.flows),
            cache: Cache::new(Arc::clone(&setup.snapshot)),
            unpublished: Vec::new(),
            unpollable: Vec::new(),
            driven: Vec::new(),
            ready: Vec::with_capacity(PORTS_MAX),
            hot: Vec::with_capacity(PORTS_MAX),
            rest: Rest::new(setup.hold),
            unsent: false,
            events: Events::new(),
            last_work: MonoNs(0),
            last_tick: MonoNs(0),
            spin: Spin::new(),
            setup,
        }
    }

    /// Pins the thread; called again in the tick, since a static CPU manager may move threads.
    fn pin(&self) {
        let pinned =
            self.setup.cpu.filter(|&cpu| affinity::is_pinned_to(cpu) || affinity::pin_current_thread(cpu).is_ok());
        self.setup.shared.cpu.store(pinned.map_or(u64::MAX, |cpu| cpu as u64), Ordering::Relaxed);
    }

    /// One turn of the loop. False when told to stop.
    fn pass(&mut self) -> bool {
        let timeout = self.patience();
        self.ready.clear();
        let mut woken = false;
        // A failed wait finds nothing ready; the next pass tries again.
        let _ = self.setup.epoll.wait(&mut self.events, Some(timeout));
        let now = mono_now();
        for token in self.events.tokens() {
            match u16::try_from(token) {
                Ok(slot) => self.ready.push(PortId(slot)),
                Err(_) => woken = true,
            }
        }
        if woken {
            self.setup.shared.waker.drain();
        }
        if !self.take_commands(now) {
            return false;
        }
        let snapshot = Arc::clone(self.cache.load());
        self.setup.shared.seen.store(snapshot.generation, Ordering::Release);
        self.poll_published(&snapshot);
        for port in self.unpollable.iter().chain(&self.driven).copied().chain(self.hot.drain(..)) {
            if !self.ready.contains(&port) {
                self.ready.push(port);
            }
        }
        self.rest.end(now);
        let frames = self.visit(&snapshot, now);
        self.unsent = self.engine.send_left_over();
        let stats = &self.setup.shared.stats;
        stats.count(Event::Passes, 1);
        if frames > 0 {
            stats.count(Event::BusyPasses, 1);
            self.last_work = now;
        }
        if now.since(self.last_tick) > 1_000_000_000 {
            self.last_tick = now;
            self.pin();
        }
        true
    }

    /// Gives each ready port a turn; says how many frames they had.
    fn visit(&mut self, snapshot: &Snapshot, now: MonoNs) -> usize {
        let mut frames = 0;
        while let Some(port) = self.ready.pop() {
            // Published no more, and about to be detached; or it rests, and epoll tells of its frames all the time.
            if snapshot.port(port).is_none() || self.rest.has(port) {
                continue;
            }
            let turn = self.engine.turn(snapshot, now, port);
            frames += turn.frames;
            match turn.status {
                RxStatus::Drained => {}
                RxStatus::Midstream => self.let_rest(port, now),
                RxStatus::More => self.hot.push(port),
                RxStatus::Closed => {
                    self.forget(port);
                    self.engine.close_rx(port);
                    // A full channel means the control thread already has much to hear; its own watch finds the port.
                    let _ = self.setup.reports.try_send(Report::Closed(port));
                }
            }
        }
        frames
    }

    /// Leaves a port alone for a while, unless the worker might lose its core over that.
    fn let_rest(&mut self, port: PortId, now: MonoNs) {
        if !self.spin.is_core_shared(now) && self.rest.begin(port, now) {
            self.setup.shared.stats.count(Event::Holds, 1);
        }
    }

    /// How long this pass may wait for the first frame.
    fn patience(&mut self) -> Duration {
        if !self.hot.is_empty() {
            return Duration::ZERO;
        }
        if !self.rest.is_empty() {
            self.offer_core(mono_now());
            return Duration::ZERO;
        }
        let longest = if self.unpollable.is_empty() && !self.unsent { TICK } else { UNPOLLABLE_TICK };
        match PollMode::from_u8(self.setup.poll.load(Ordering::Relaxed)) {
            PollMode::Busy => Duration::ZERO,
            PollMode::Interrupt => longest,
            PollMode::Adaptive => {
                let now = mono_now();
                if !self.spin.is_worth_it(now, self.last_work) {
                    return longest;
                }
                self.offer_core(now);
                Duration::ZERO
            }
        }
    }

    /// Lets others have the core if they want it, and sees whether they did: by the time of the offer alone, since whoever
    /// takes the core from a worker that works would have taken it anyway.
    fn offer_core(&mut self, now: MonoNs) {
        std::thread::yield_now();
        self.spin.offered(now, mono_now(), affinity::cores_given_away);
    }

    /// False when told to stop.
    fn take_commands(&mut self, now: MonoNs) -> bool {
        while let Ok(command) = self.setup.commands.try_recv() {
            match command {
                Command::Attach { port, rx, tx } => self.attach(port, rx, tx),
                Command::Detach { port, done } => {
                    self.forget(port);
                    self.engine.detach(port);
                    let _ = done.send(());
                }
                Command::Originate { port, bytes } => {
                    let snapshot = Arc::clone(self.cache.load());
                    self.engine.originate(&snapshot, now, port, &bytes);
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, port: PortId, rx: Vec<Box<dyn PortRx>>, tx: Box<dyn PortTx>) {
        self.forget(port);
        self.engine.attach(port, rx, tx);
        self.unpublished.push(port);
    }

    /// Polls attached ports from the snapshot on that has them.
    fn poll_published(&mut self, snapshot: &Snapshot) {
        let (engine, epoll) = (&self.engine, &self.setup.epoll);
        self.unpublished.retain(|&port| {
            if snapshot.port(port).is_none() {
                return true;
            }
            let token = u64::from(port.0);
            // A half without a descriptor, or with one that epoll refuses, is visited every pass: slower, but not deaf.
            let pollable = |half: &dyn PortRx| half.poll_fd().is_some_and(|fd| epoll.add(fd, token).is_ok());
            if !engine.receivers(port).iter().all(|half| pollable(half.as_ref())) {
                self.unpollable.push(port);
            }
            if engine.receivers(port).iter().any(|half| half.drives_device()) {
                self.driven.push(port);
            }
            false
        });
    }

    /// Stops polling a port.
    fn forget(&mut self, port: PortId) {
        self.unpublished.retain(|&other| other != port);
        self.unpollable.retain(|&other| other != port);
        self.driven.retain(|&other| other != port);
        self.hot.retain(|&other| other != port);
        self.rest.forget(port);
        for half in self.engine.receivers(port) {
            if let Some(fd) = half.poll_fd() {
                let _ = self.setup.epoll.remove(fd);
            }
        }
    }
}

/// An epoll set that its waker wakes.
///
/// # Errors
/// What the kernel says when it refuses a descriptor.
pub fn waker() -> std::io::Result<(Epoll, Waker)> {
    let epoll = Epoll::new()?;
    let waker = Waker::new()?;
    epoll.add(&waker, WAKER_TOKEN)?;
    Ok((epoll, waker))
}
