//! When a sender sends: at a rate in small bursts, or as much as goes.

use std::thread;
use std::time::Duration;

use podwire_vswitch::id::MonoNs;
use podwire_vswitch::sys::clock::mono_now;

/// How a generator is paced.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Pacing {
    /// Frames sent in one go at most, and the time they may stand for.
    pub(crate) burst: usize,
    pub(crate) burst_seconds: f64,
    /// How much longer than planned it may take, as a part: a sender that was held up for a moment catches up.
    pub(crate) late: f64,
}

/// One sending from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: Option<f64>,
    burst: usize,
    /// Frames to send in all.
    last: u64,
    /// When it ends however many were sent, in nanoseconds from the beginning.
    latest: u64,
    begin: MonoNs,
}

/// What a sender is to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Send so many, at most.
    Send(usize),
    /// Wait so many nanoseconds.
    Wait(u64),
    /// End; it took so many nanoseconds, 1 at least.
    End(u64),
}

impl Pace {
    /// Begins now: `rate` frames a second for a while, or as many as go.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
    pub(crate) fn begin(rate: Option<f64>, time: Duration, pacing: Pacing) -> Self {
        let Pacing { burst, burst_seconds, late } = pacing;
        Self {
            rate,
            burst: rate.map_or(burst, |rate| ((rate * burst_seconds) as usize).clamp(1, burst)),
            last: rate.map_or(u64::MAX, |rate| (rate * time.as_secs_f64()).round() as u64),
            latest: nanos(if rate.is_some() { time.mul_f64(1.0 + late) } else { time }),
            begin: mono_now(),
        }
    }

    /// Frames in one go at most.
    pub(crate) fn burst(&self) -> usize {
        self.burst
    }

    /// Nanoseconds since it began.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        mono_now().since(self.begin)
    }

    /// What to do after so many were sent.
    pub(crate) fn next(&self, sent: u64) -> Next {
        self.at(sent, self.elapsed_ns())
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive time within hours")]
    #[allow(clippy::cast_precision_loss, reason = "counts of frames")]
    fn at(&self, sent: u64, now: u64) -> Next {
        if now >= self.latest || sent >= self.last {
            return Next::End(now.max(1));
        }
        let due = self.rate.map_or(0, |rate| (sent as f64 * 1e9 / rate) as u64);
        if now < due {
            return Next::Wait(due - now);
        }
        Next::Send(usize::try_from(self.last - sent).unwrap_or(self.burst).min(self.burst))
    }
}

/// Waits without holding the core from the switch: sleeps when it is long, offers the core when it is short.
pub(crate) fn wait(ns: u64) {
    const SLEEP_NS_MIN: u64 = 150_000;
    if ns > SLEEP_NS_MIN {
        thread::sleep(Duration::from_nanos(ns - SLEEP_NS_MIN / 2));
    } else {
        thread::yield_now();
    }
}

/// A time in nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACING: Pacing = Pacing { burst: 32, burst_seconds: 100e-6, late: 0.5 };

    #[test]
    fn a_paced_sender_sends_what_is_due_catches_up_and_ends() {
        let pace = Pace::begin(Some(100_000.0), Duration::from_millis(1), PACING);
        assert_eq!(pace.burst(), 10, "what 100 us stand for");
        for (sent, now, next) in [
            (0, 0, Next::Send(10)),
            (10, 30_000, Next::Wait(70_000)),
            (10, 900_000, Next::Send(10)),
            (95, 960_000, Next::Send(5)),
            (100, 990_000, Next::End(990_000)),
            (99, 1_400_000, Next::Send(1)),
            (99, 1_500_000, Next::End(1_500_000)),
        ] {
            assert_eq!(pace.at(sent, now), next, "{sent} at {now}");
        }
    }

    #[test]
    fn a_flood_never_waits_and_ends_in_time() {
        let pace = Pace::begin(None, Duration::from_millis(1), PACING);
        assert_eq!(pace.at(1_000_000, 999_999), Next::Send(32));
        assert_eq!(pace.at(1_000_000, 1_000_000), Next::End(1_000_000));
    }
}
