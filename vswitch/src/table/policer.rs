//! A rate limit that holds over all workers: a token bucket in one atomic word.
//!
//! The word is the time up to which the rate has been spent (the "theoretical arrival time" of ITU-T I.371, GCRA). A frame
//! passes while that lies behind us, and moves it on by what the frame costs. So a super-frame that costs more than the
//! bucket holds passes too, and those behind it wait until the debt is paid: what passes is never more than the rate
//! brings, the burst, and one frame.

use std::sync::atomic::{AtomicU64, Ordering};

use podwire_control::model::RateLimit;

use crate::id::MonoNs;

/// Ticks of the word's time in a nanosecond: so fine that a small frame at 100 Gb/s costs several dozen, so coarse that 64
/// bits last for 18 years.
const TICKS_PER_NS: u64 = 32;
const TICKS_PER_S: u64 = TICKS_PER_NS * 1_000_000_000;

/// A limit and how far it is spent. In a cache line of its own, since several workers write it.
#[derive(Debug)]
#[repr(align(64))]
pub struct Policer {
    limit: RateLimit,
    burst_ticks: u64,
    spent_until: AtomicU64,
}

impl Policer {
    /// A full bucket.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let burst_ticks = u128::from(limit.burst_bits) * u128::from(TICKS_PER_S) / u128::from(limit.bits_per_s.max(1));
        let burst_ticks = u64::try_from(burst_ticks).unwrap_or(u64::MAX);
        Self { limit, burst_ticks, spent_until: AtomicU64::new(0) }
    }

    /// The limit it keeps.
    #[must_use]
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Whether so many bytes may pass now; if they may, they are paid for.
    pub fn admits(&self, now: MonoNs, bytes: usize) -> bool {
        let now = now.0.saturating_mul(TICKS_PER_NS);
        let cost = self.ticks(bytes);
        let mut spent_until = self.spent_until.load(Ordering::Relaxed);
        loop {
            let from = spent_until.max(now.saturating_sub(self.burst_ticks));
            if from >= now {
                return false;
            }
            let next = from.saturating_add(cost);
            match self.spent_until.compare_exchange_weak(spent_until, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => spent_until = other,
            }
        }
    }

    /// Time in which the rate brings so many bytes, rounded up.
    fn ticks(&self, bytes: usize) -> u64 {
        (bytes as u64).saturating_mul(8).saturating_mul(TICKS_PER_S).div_ceil(self.limit.bits_per_s.max(1))
    }
}

/// Of one limit, however far each is spent: so a snapshot keeps the policer of a limit that did not change.
impl PartialEq for Policer {
    fn eq(&self, other: &Self) -> bool {
        self.limit == other.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const MS: u64 = 1_000_000;
    /// Any time long after the clock's start.
    const START: u64 = 1_000_000 * MS;

    fn policer(bits_per_s: u64, burst_bits: u64) -> Policer {
        Policer::new(RateLimit { bits_per_s, burst_bits })
    }

    /// Bytes that pass of frames of one size, offered without end at each of these times.
    fn passed(policer: &Policer, times_ns: impl IntoIterator<Item = u64>, frame_bytes: usize) -> u64 {
        let at = |ns| std::iter::repeat_with(move || MonoNs(ns)).take_while(|&now| policer.admits(now, frame_bytes));
        times_ns.into_iter().map(|ns| at(ns).count() as u64 * frame_bytes as u64).sum()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let policer = policer(8_000_000, 80_000);
        assert_eq!(passed(&policer, [START], 1_000), 10_000);
        assert_eq!(passed(&policer, [START + MS / 2], 1_000), 1_000, "the level is positive");
        assert_eq!(passed(&policer, [START + MS - 1], 1_000), 0, "it is not");
        assert_eq!(passed(&policer, (1..=1_000).map(|ms| START + ms * MS), 1_000), 999_000);
        assert_eq!(passed(&policer, [START + 10_000 * MS], 1_000), 10_000, "no more is saved than the burst");
    }

    #[test]
    fn a_frame_that_costs_more_than_the_burst_passes_and_is_paid_for_afterwards() {
        let policer = policer(8_000_000, 12_112);
        let mut at = (0..1_000).filter(|ms| policer.admits(MonoNs(START + ms * MS), 65_000));
        assert_eq!((at.next(), at.next(), at.next()), (Some(0), Some(64), Some(129)));
    }

    #[test]
    fn a_clock_that_steps_back_brings_nothing_and_breaks_nothing() {
        let policer = policer(8_000_000, 8_000);
        assert!(policer.admits(MonoNs(START), 1_000));
        assert!(!policer.admits(MonoNs(START - 500 * MS), 1));
        assert!(policer.admits(MonoNs(START + 1), 1));
    }

    #[test]
    fn rates_and_bursts_at_the_ends_of_their_range_overflow_nothing() {
        let all = policer(u64::MAX, u64::MAX);
        assert!(all.admits(MonoNs(START), usize::MAX) && all.admits(MonoNs(u64::MAX), 65_536));
        let slow = policer(1, u64::MAX);
        assert!(slow.admits(MonoNs(START), usize::MAX) && !slow.admits(MonoNs(START), 1));
        assert!(!policer(0, 0).admits(MonoNs(START), 1), "without a burst there is nothing");
    }

    #[test]
    fn a_high_rate_is_kept_for_small_frames() {
        let policer = policer(100_000_000_000, 100_000_000);
        let bytes = passed(&policer, (0..100).map(|ms| START + ms * MS), 64);
        let expected = 100_000_000_000 / 8 / 1_000 * 99 + 100_000_000 / 8;
        assert!((expected * 98 / 100..=expected + 64).contains(&bytes), "{bytes} of {expected}");
    }

    #[test]
    fn workers_that_share_it_get_the_rate_together_and_no_more() {
        const WORKERS: u64 = 4;
        const SECONDS: u64 = 2;
        let (rate, burst, frame) = (80_000_000, 400_000, 1_250);
        let policer = policer(rate, burst);
        // The workers' clocks run apart by whatever the scheduler makes of it.
        let bytes: u64 = thread::scope(|scope| {
            let work = |worker| {
                let times = (0..SECONDS * 10_000).map(move |tick| START + tick * MS / 10 + worker * 7);
                passed(&policer, times, frame)
            };
            let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let brought = rate / 8 * SECONDS;
        assert!(bytes <= brought + burst / 8 + frame as u64, "{bytes} of {brought}");
        assert!(bytes >= brought * 95 / 100, "{bytes} of {brought}");
    }
}
