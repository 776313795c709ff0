//! The running switch: its workers, the published snapshot, and the only ways to change either.
//!
//! Knows nothing of owners, files or gRPC (that is `daemon`), and nothing of how a device is opened (`port`).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded, unbounded};

use crate::compile::{Compiled, PinnedMac};
use crate::id::{MonoNs, PortId};
use crate::limits::{PORTS_MAX, WORKER_COMMANDS_MAX, WORKERS_MAX};
use crate::port::{PortRx, PortTx};
use crate::snapshot::Snapshot;
use crate::stats::{Event, Totals, WorkerStats};
use crate::worker::{Command, PollMode, Report, Shared, WorkerSetup, run, waker};

/// How long a worker may take to answer before the switch calls it stuck.
const WORKER_ANSWER: Duration = Duration::from_secs(5);
/// The first and the longest nap between two looks at it.
const NAPS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// The switch can not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Too many or no workers.
    #[error("{0} workers asked for: use 1 to {WORKERS_MAX}")]
    Workers(usize),
    /// A worker's epoll set or thread could not be made.
    #[error("worker {worker} can not start: {reason}; raise the limit of open files or threads")]
    Start {
        /// Its number.
        worker: usize,
        /// What the kernel said.
        reason: String,
    },
    /// A worker does not answer.
    #[error("worker {0} does not answer within 5 s; restart podwired and report its log")]
    Stuck(usize),
}

/// How the workers are to run.
#[derive(Clone, Debug)]
pub struct WorkersSpec {
    /// The CPU of each worker; none for one that may run anywhere.
    pub cpus: Vec<Option<usize>>,
    /// How they wait.
    pub poll: PollMode,
    /// Flows each one's cache keeps; 0 switches it off.
    pub flows: usize,
    /// How long a port is left alone after a small burst in the midst of a stream; zero is not at all.
    pub hold: Duration,
}

/// The receiving side of one port.
#[derive(Debug)]
pub enum RxHalves {
    /// One half, given to the worker that receives from the fewest ports.
    One(Box<dyn PortRx>),
    /// Each worker's own: the queues of a multi-queue device, the sockets of an uplink.
    PerWorker(Vec<Vec<Box<dyn PortRx>>>),
}

/// The halves of one port, for all workers.
#[derive(Debug)]
pub struct PortHalves {
    /// Receiving side.
    pub rx: RxHalves,
    /// Sending halves, one a worker.
    pub tx: Vec<Box<dyn PortTx>>,
}

struct WorkerHandle {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    /// Ports whose receiving half this worker was given.
    receiving: HashSet<PortId>,
}

/// What is left of the time a worker may take. Counted in naps, not by a clock: a machine that was asleep, or a process
/// that was stopped, has not waited.
#[derive(Debug)]
struct Patience {
    left: Duration,
    nap: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { left: WORKER_ANSWER, nap: NAPS.0 }
    }

    /// How long to nap before the next look; none when patience is at its end.
    fn nap(&mut self) -> Option<Duration> {
        let nap = self.nap.min(self.left);
        self.left -= nap;
        self.nap = (self.nap * 2).min(NAPS.1);
        (!nap.is_zero()).then_some(nap)
    }
}

/// A running switch. Dropping it stops its workers.
pub struct Switch {
    workers: Vec<WorkerHandle>,
    current: Arc<ArcSwap<Snapshot>>,
    pinned: Vec<PinnedMac>,
    poll: Arc<AtomicU8>,
    reports: Receiver<Report>,
    /// Reports that were read and not told yet.
    unread: Vec<Report>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch")
            .field("workers", &self.workers.len())
            .field("generation", &self.current.load().generation)
            .finish_non_exhaustive()
    }
}

impl Switch {
    /// Starts the workers on an empty snapshot.
    ///
    /// # Errors
    /// [`SwitchError`] when there are no workers, too many, or the kernel refuses one.
    pub fn start(spec: &WorkersSpec, first: Snapshot) -> Result<Self, SwitchError> {
        let count = spec.cpus.len();
        if count == 0 || count > WORKERS_MAX {
            return Err(SwitchError::Workers(count));
        }
        let current = Arc::new(ArcSwap::from_pointee(first));
        let poll = Arc::new(AtomicU8::new(spec.poll as u8));
        let (report, reports) = bounded(WORKER_COMMANDS_MAX);
        let mut switch = Self { workers: Vec::new(), current, pinned: Vec::new(), poll, reports, unread: Vec::new() };
        for worker in 0..count {
            let handle = switch
                .start_worker(spec, worker, report.clone())
                .map_err(|reason| SwitchError::Start { worker, reason })?;
            switch.workers.push(handle);
        }
        Ok(switch)
    }

    fn start_worker(&self, spec: &WorkersSpec, worker: usize, reports: Sender<Report>) -> Result<WorkerHandle, String> {
        let (epoll, waker) = waker().map_err(|error| error.to_string())?;
        let (commands, inbox) = bounded(WORKER_COMMANDS_MAX);
        let shared = Arc::new(Shared {
            seen: AtomicU64::new(0),
            cpu: AtomicU64::new(u64::MAX),
            waker,
            stats: Arc::new(WorkerStats::new(PORTS_MAX)),
        });
        let setup = WorkerSetup {
            cpu: spec.cpus[worker],
            poll: Arc::clone(&self.poll),
            flows: spec.flows,
            hold: spec.hold,
            shared: Arc::clone(&shared),
            snapshot: Arc::clone(&self.current),
            commands: inbox,
            reports,
            epoll,
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || run(setup))
            .map_err(|error| error.to_string())?;
        Ok(WorkerHandle { shared, commands, thread: Some(thread), receiving: HashSet::new() })
    }

    /// The published snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Number of workers.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Publishes a snapshot and returns its generation once every worker uses it. The previous one is freed here.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when a worker does not take it up; it is published all the same.
    pub fn publish(&mut self, compiled: Compiled, now: MonoNs) -> Result<u64, SwitchError> {
        let generation = compiled.snapshot.generation;
        let old = self.snapshot();
        pin_macs(&self.pinned, &compiled, now);
        self.pinned = compiled.pinned;
        self.current.store(Arc::new(compiled.snapshot));
        let waited = self.wait_for(generation);
        retire_ports(&old, &self.snapshot());
        waited.map(|()| generation)
    }

    /// The published generation, once every worker uses it.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when a worker still does not.
    pub fn settled(&self) -> Result<u64, SwitchError> {
        let generation = self.current.load().generation;
        self.wait_for(generation).map(|()| generation)
    }

    /// Wakes every worker, and returns once each has made a pass.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when one does not.
    pub fn turning(&self) -> Result<(), SwitchError> {
        let passes = |worker: &WorkerHandle| worker.shared.stats.event(Event::Passes);
        let before: Vec<u64> = self.workers.iter().map(passes).collect();
        self.wait_while(|number, worker| passes(worker) == before[number])
    }

    fn wait_for(&self, generation: u64) -> Result<(), SwitchError> {
        self.wait_while(|_, worker| worker.shared.seen.load(Ordering::Acquire) < generation)
    }

    fn wait_while(&self, behind: impl Fn(usize, &WorkerHandle) -> bool) -> Result<(), SwitchError> {
        for (_, worker) in self.workers.iter().enumerate().filter(|(number, worker)| behind(*number, worker)) {
            worker.shared.waker.wake();
        }
        let mut patience = Patience::new();
        for (number, worker) in self.workers.iter().enumerate() {
            while behind(number, worker) {
                std::thread::sleep(patience.nap().ok_or(SwitchError::Stuck(number))?);
            }
        }
        Ok(())
    }

    fn tell(&self, worker: usize, command: Command) -> Result<(), SwitchError> {
        let handle = &self.workers[worker];
        let (mut patience, mut command) = (Patience::new(), command);
        while let Some(nap) = patience.nap() {
            match handle.commands.send_timeout(command, nap) {
                Ok(()) => {
                    handle.shared.waker.wake();
                    return Ok(());
                }
                Err(SendTimeoutError::Timeout(unsent)) => command = unsent,
                Err(SendTimeoutError::Disconnected(_)) => break,
            }
        }
        Err(SwitchError::Stuck(worker))
    }

    /// Gives a port's halves to the workers. They forward for it once a snapshot has it.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when a worker does not take commands.
    pub fn attach(&mut self, port: PortId, halves: PortHalves) -> Result<(), SwitchError> {
        let mut receivers: Vec<Vec<Box<dyn PortRx>>> = match halves.rx {
            RxHalves::PerWorker(each) => each,
            RxHalves::One(half) => {
                let mut each = Vec::new();
                each.resize_with(self.least_loaded(), Vec::new);
                each.push(vec![half]);
                each
            }
        };
        receivers.resize_with(self.workers.len(), Vec::new);
        for (worker, (rx, tx)) in receivers.into_iter().zip(halves.tx).enumerate() {
            if rx.is_empty() {
                self.workers[worker].receiving.remove(&port);
            } else {
                self.workers[worker].receiving.insert(port);
            }
            self.tell(worker, Command::Attach { port, rx, tx })?;
        }
        Ok(())
    }

    fn least_loaded(&self) -> usize {
        (0..self.workers.len()).min_by_key(|&worker| self.workers[worker].receiving.len()).unwrap_or(0)
    }

    /// Takes a port's halves back and returns once they are closed in every worker. What workers reported of them is
    /// forgotten, so that it is not taken for a report of the slot's next port.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when a worker does not answer.
    pub fn detach(&mut self, port: PortId) -> Result<(), SwitchError> {
        let (done, closed) = unbounded();
        for worker in 0..self.workers.len() {
            self.workers[worker].receiving.remove(&port);
            self.tell(worker, Command::Detach { port, done: done.clone() })?;
        }
        drop(done);
        for worker in 0..self.workers.len() {
            let mut patience = Patience::new();
            let mut answer = Err(RecvTimeoutError::Timeout);
            while answer == Err(RecvTimeoutError::Timeout) {
                answer = closed.recv_timeout(patience.nap().ok_or(SwitchError::Stuck(worker))?);
            }
            answer.map_err(|_| SwitchError::Stuck(worker))?;
        }
        self.unread.extend(self.reports.try_iter());
        self.unread.retain(|&Report::Closed(reported)| reported != port);
        Ok(())
    }

    /// Sends a frame of the switch's own out of a port.
    ///
    /// # Errors
    /// [`SwitchError::Stuck`] when the worker does not take commands.
    pub fn originate(&self, port: PortId, bytes: Vec<u8>) -> Result<(), SwitchError> {
        self.tell(0, Command::Originate { port, bytes })
    }

    /// Changes how the workers wait.
    pub fn set_poll(&self, mode: PollMode) {
        self.poll.store(mode as u8, Ordering::Relaxed);
        for worker in &self.workers {
            worker.shared.waker.wake();
        }
    }

    /// Reports of workers that nobody has read yet.
    pub fn reports(&mut self) -> impl Iterator<Item = Report> {
        self.unread.drain(..).chain(self.reports.try_iter())
    }

    /// The counters of each worker, and the CPU it is pinned to.
    pub fn workers(&self) -> impl Iterator<Item = (&Arc<WorkerStats>, Option<u64>)> {
        self.workers.iter().map(|worker| {
            let cpu = worker.shared.cpu.load(Ordering::Relaxed);
            (&worker.shared.stats, (cpu != u64::MAX).then_some(cpu))
        })
    }

    /// All workers' counters together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let stats: Vec<_> = self.workers.iter().map(|worker| Arc::clone(&worker.shared.stats)).collect();
        crate::stats::totals(&stats)
    }
}

/// Brings the bridges' static MACs in line with a snapshot before anybody sees it; `before` is what was pinned.
pub fn pin_macs(before: &[PinnedMac], compiled: &Compiled, now: MonoNs) {
    let table = |pinned: &PinnedMac| compiled.snapshot.bridge(pinned.bridge).map(|bridge| &bridge.macs);
    for gone in before.iter().filter(|old| compiled.pinned.binary_search(old).is_err()) {
        if let Some(macs) = table(gone) {
            macs.remove(gone.mac);
        }
    }
    for pinned in &compiled.pinned {
        if let Some(macs) = table(pinned) {
            macs.insert_static(pinned.mac, pinned.port, now.seconds());
        }
    }
}

/// Forgets what was learned behind ports that are gone or moved, so that a reused slot inherits nothing. For when no
/// worker uses the old snapshot any more.
pub fn retire_ports(old: &Snapshot, now: &Snapshot) {
    for (slot, entry) in old.ports.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let port = PortId(u16::try_from(slot).unwrap_or(u16::MAX));
        // A port that is on another bridge now has just been pinned there: that table keeps what it knows of it.
        let same = now.port(port).filter(|new| new.name == entry.name);
        if same.is_some_and(|new| new.bridge == entry.bridge) {
            continue;
        }
        let kept = same.and_then(|new| new.bridge);
        for (slot, bridge) in now.bridges.iter().enumerate() {
            if let Some(bridge) = bridge
                && kept.is_none_or(|kept| kept.index() != slot)
            {
                bridge.macs.retire_port(port);
            }
        }
    }
}

#[cfg(test)]
mod tests;

impl Drop for Switch {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // The channel may be full of commands nobody reads any more; the thread then ends with the channel.
            let _ = worker.commands.try_send(Command::Stop);
            worker.shared.waker.wake();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
