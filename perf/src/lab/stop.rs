//! SIGINT, SIGTERM and SIGHUP end a run early: they raise a flag, every wait looks at it, and what was made is removed
//! on the way out as after any error. A SIGHUP that is ignored, as under nohup, stays so.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Longest sleep without a look at the flag.
const STEP: Duration = Duration::from_millis(20);

static STOPPED: AtomicBool = AtomicBool::new(false);

/// The run was ended by a signal.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal; everything that was set up is removed again")]
pub(crate) struct Stopped;

/// From now on signals end the run instead of the process.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot watch for signals")?;
    let nohup = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default(), SignalKind::hangup());
    let last = if nohup { SignalKind::terminate() } else { SignalKind::hangup() };
    let mut signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), last].map(signal)
    };
    let watch = move || {
        runtime.block_on(async {
            let [interrupt, terminate, last] = &mut signals;
            let (Ok(interrupt), Ok(terminate), Ok(last)) = (interrupt, terminate, last) else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = last.recv() => {}
            }
            STOPPED.store(true, Ordering::Relaxed);
            // Later signals are taken and ignored: the way out is under way.
            std::future::pending::<()>().await;
        });
    };
    thread::Builder::new().name("signals".into()).spawn(watch).context("cannot watch for signals")?;
    Ok(())
}

/// Whether the mask `SigIgn` of a `/proc/PID/status` has this signal.
fn ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = kind.as_raw_value() - 1;
    mask >> bit & 1 == 1
}

/// An error once a signal came.
pub(crate) fn check() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) { Err(Stopped.into()) } else { Ok(()) }
}

/// Sleeps, unless a signal comes.
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let mut left = time;
    while !left.is_zero() {
        check()?;
        let step = left.min(STEP);
        thread::sleep(step);
        left -= step;
    }
    check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_seen_in_the_mask() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(ignored(status, SignalKind::hangup()));
        assert!(!ignored(status, SignalKind::terminate()));
        assert!(!ignored("", SignalKind::hangup()));
    }
}
