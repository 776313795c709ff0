//! Waiting for what happens by itself.

use std::thread;
use std::time::{Duration, Instant};

/// Waits until something is so, and says how long that took.
///
/// # Panics
/// When it is not so in time.
#[track_caller]
pub fn eventually(within: Duration, what: &str, so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}
