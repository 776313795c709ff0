//! A bare loop that reads one TAP and writes the other: what no switch over TAPs can beat.
//!
//! It waits as podwired's adaptive worker does (offers the core for a while, then blocks in epoll) and runs on the CPU
//! that podwired would pin its one worker to. It looks at no byte of a frame and counts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use podwire_control::model::Mac;
use podwire_vswitch::frame::{Batch, FramePool};
use podwire_vswitch::limits::BATCH_FRAMES;
use podwire_vswitch::port::interface::InterfaceSpec;
use podwire_vswitch::port::tap::{TapPort, TapRx, TapTx};
use podwire_vswitch::port::{Outgoing, PortRx, PortTx, RxStatus};
use podwire_vswitch::sys::affinity::{allowed_cpus, pin_current_thread};
use podwire_vswitch::sys::clock::mono_now;
use podwire_vswitch::sys::epoll::{Epoll, Events};

use super::{MTU, POD_INTERFACE, Side, pod_address, pods, quiet, subnet24};
use crate::lab::{Netns, Spender};

/// How long it offers the core before it blocks, as podwired does.
const SPIN_NS: u64 = 50_000;
/// Longest sleep without a look at whether it is paused.
const TICK: Duration = Duration::from_millis(50);

/// The thread that loops.
#[derive(Debug)]
pub(super) struct TapLoop {
    thread: Option<JoinHandle<()>>,
    thread_id: i32,
    orders: Arc<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    paused: AtomicBool,
    over: AtomicBool,
}

pub(super) fn build(label: &str) -> Result<Side> {
    let (from, to) = pods(label)?;
    let taps = [tap(&from, 1)?, tap(&to, 2)?];
    let tap_loop = TapLoop::start(taps)?;
    Ok(Side { tap_loop: Some(tap_loop), ..quiet(from, to, pod_address(2)) })
}

fn tap(pod: &Netns, number: u8) -> Result<TapPort> {
    let address = pod_address(number);
    let mut spec = InterfaceSpec::new(Some(pod.path()), POD_INTERFACE, Mac::of_ip(address.into()), MTU);
    spec.addresses = vec![subnet24(address)];
    TapPort::create(&spec).with_context(|| format!("cannot make the TAP of {}", pod.name()))
}

impl TapLoop {
    fn start(taps: [TapPort; 2]) -> Result<Self> {
        let orders = Arc::new(Orders::default());
        let epoll = Epoll::new().context("cannot make an epoll instance")?;
        for (tap, token) in taps.iter().zip(0..) {
            let rx = tap.rx(0);
            epoll.add(rx.poll_fd().context("a TAP has a descriptor")?, token).context("cannot poll a TAP")?;
        }
        let (tell, told) = mpsc::channel();
        let (theirs, cpu) = (Arc::clone(&orders), allowed_cpus().numbers().first().copied());
        let body = move || {
            // Unpinned where it may not pin, as podwired.
            let _ = cpu.map(pin_current_thread);
            let _ = tell.send(nix::unistd::gettid().as_raw());
            forward(&taps, &epoll, &theirs);
        };
        let thread = thread::Builder::new().name("tap-loop".into()).spawn(body).context("cannot start the loop")?;
        let thread_id = told.recv().context("the loop ended at its start")?;
        Ok(Self { thread: Some(thread), thread_id, orders })
    }

    pub(super) fn spender(&self) -> Spender {
        Spender::Thread(self.thread_id)
    }

    pub(super) fn pause(&self) {
        self.orders.paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        self.orders.paused.store(false, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for TapLoop {
    fn drop(&mut self) {
        self.orders.over.store(true, Ordering::Relaxed);
        self.resume();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn forward(taps: &[TapPort; 2], epoll: &Epoll, orders: &Orders) {
    let mut ways = [(taps[0].rx(0), taps[1].tx(0)), (taps[1].rx(0), taps[0].tx(0))];
    let (mut pool, mut batch, mut events) = (FramePool::new(BATCH_FRAMES), Batch::new(), Events::new());
    let mut last = mono_now();
    while !orders.over.load(Ordering::Relaxed) {
        if orders.paused.load(Ordering::Relaxed) {
            thread::park_timeout(TICK);
            continue;
        }
        let mut moved = 0;
        for way in &mut ways {
            let Some(frames) = turn(way, &mut pool, &mut batch) else { return };
            moved += frames;
        }
        if moved > 0 {
            last = mono_now();
        } else if mono_now().since(last) < SPIN_NS {
            thread::yield_now();
        } else {
            // Only a misused instance fails.
            let _ = epoll.wait(&mut events, Some(TICK));
            last = mono_now();
        }
    }
}

/// Moves what one TAP has to the other; none when it is gone.
fn turn((rx, tx): &mut (TapRx, TapTx), pool: &mut FramePool, batch: &mut Batch) -> Option<usize> {
    let status = rx.rx(pool, batch, BATCH_FRAMES);
    for item in batch.items() {
        // What the other side does not take is lost, as on any wire.
        let _ = tx.tx(&Outgoing { frame: &item.frame, pieces: None, encap: None });
    }
    let moved = batch.len();
    batch.recycle(pool);
    (status != RxStatus::Closed).then_some(moved)
}
