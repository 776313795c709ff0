//! A token bucket: so many a second on average, so many at once.
//!
//! Plain data that one worker owns; a limit that holds over all workers is not made of these.

use crate::id::MonoNs;

/// One token in the bucket's unit: at a rate of one a second, a nanosecond brings one unit.
const UNITS_PER_TOKEN: u64 = 1_000_000_000;

/// A token bucket. It counts in billionths of a token, so that nothing is rounded and the rate does not drift.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate_per_s: u64,
    level_units: u64,
    level_units_max: u64,
    filled_at: MonoNs,
}

impl TokenBucket {
    /// A full bucket that gains `rate_per_s` tokens a second and holds `burst` (at most 18,446,744,073).
    #[must_use]
    pub fn new(rate_per_s: u64, burst: u64) -> Self {
        let level_units_max = burst.saturating_mul(UNITS_PER_TOKEN);
        Self { rate_per_s, level_units: level_units_max, level_units_max, filled_at: MonoNs(0) }
    }

    /// Takes `n` tokens, or none and returns false when there are fewer. A `now` earlier than the last brings nothing.
    pub fn take(&mut self, now: MonoNs, n: u64) -> bool {
        self.fill(now);
        match n.checked_mul(UNITS_PER_TOKEN).and_then(|units| self.level_units.checked_sub(units)) {
            Some(left) => {
                self.level_units = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: MonoNs) {
        let gained_units = now.since(self.filled_at).saturating_mul(self.rate_per_s);
        self.level_units = self.level_units.saturating_add(gained_units).min(self.level_units_max);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(bucket: &mut TokenBucket, times_ns: impl IntoIterator<Item = u64>) -> u64 {
        times_ns.into_iter().map(|at| u64::from(bucket.take(MonoNs(at), 1))).sum()
    }

    #[test]
    fn a_burst_passes_at_once_and_no_more() {
        let mut bucket = TokenBucket::new(10, 5);
        assert_eq!(taken(&mut bucket, [7; 9]), 5);
    }

    #[test]
    fn the_rate_holds_over_hours_without_drift() {
        // Seven a second: a token takes 142,857,142.857.. ns, which no integer period expresses.
        let seconds = 3_600;
        let mut bucket = TokenBucket::new(7, 2);
        let every_10_ms = (1..=100 * seconds).map(|tick| tick * (SECOND / 100));
        let taken = taken(&mut bucket, every_10_ms);
        assert!((7 * seconds..=7 * seconds + 2).contains(&taken), "{taken}");
    }

    #[test]
    fn many_tokens_are_taken_all_or_none() {
        let mut bucket = TokenBucket::new(1, 10);
        assert!(bucket.take(MonoNs(0), 7));
        assert!(!bucket.take(MonoNs(0), 4));
        assert!(bucket.take(MonoNs(0), 3));
        assert!(!bucket.take(MonoNs(0), u64::MAX));
    }

    #[test]
    fn a_huge_gap_fills_the_bucket_and_no_more() {
        let mut bucket = TokenBucket::new(u64::MAX, 3);
        assert_eq!(taken(&mut bucket, [0; 5]), 3);
        assert_eq!(taken(&mut bucket, [u64::MAX; 5]), 3);
    }

    #[test]
    fn a_clock_that_steps_back_brings_nothing_and_breaks_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        assert!(bucket.take(MonoNs(10 * SECOND), 1));
        assert!(!bucket.take(MonoNs(5 * SECOND), 1));
        assert!(!bucket.take(MonoNs(11 * SECOND - 1), 1));
        assert!(bucket.take(MonoNs(11 * SECOND), 1));
    }

    #[test]
    fn without_a_rate_there_is_only_the_burst() {
        let mut bucket = TokenBucket::new(0, 2);
        assert_eq!(taken(&mut bucket, (0..10).map(|s| s * SECOND)), 2);
    }
}
