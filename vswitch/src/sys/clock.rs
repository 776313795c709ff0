//! The clocks. A worker reads the monotonic one once a pass and hands the value down; nothing else reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::id::MonoNs;

/// The monotonic clock (`CLOCK_MONOTONIC`): never goes back, stands still while the machine is suspended.
#[must_use]
pub fn mono_now() -> MonoNs {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to. The call fails only for clocks that do not exist.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    MonoNs(seconds * 1_000_000_000 + nanoseconds)
}

/// Wall-clock time since 1970; zero when the clock stands before that.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall-clock time in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_moves_forward() {
        let start = mono_now();
        let moved = (0..10_000_000).any(|_| mono_now().since(start) > 1_000);
        assert!(moved && mono_now() > start);
    }

    #[test]
    fn the_wall_clock_is_after_2024() {
        assert!(unix_ms() > 1_700_000_000_000);
    }
}
