//! When an adaptive worker spins after its last work, and when it goes to sleep at once.
//!
//! It spins by offering its core to others each turn. An offer that nobody takes costs a fraction of a microsecond, and
//! the next frame finds the worker awake. An offer that is taken says that the core is shared just now: the worker
//! then sleeps for its frames, since a sleeper is scheduled the moment a frame comes, and one that offered its core is not.
//! Reads no clock; the loop tells it the time.

use crate::id::MonoNs;

/// How long a worker spins after its last work. Longer than a request takes to come back through a pod on another core.
const SPIN_NS: u64 = 50_000;
/// An offer of the core that took longer was taken by somebody. An interrupt may pass for one; that costs a short pause.
const TAKEN_NS: u64 = 20_000;
/// First pause without spinning; it doubles each time the core is taken again.
const PAUSE_NS_MIN: u64 = 10_000_000;
/// Longest pause: a scheduler's time slice lost once in this time is how a worker finds its core free again.
const PAUSE_NS_MAX: u64 = 1_000_000_000;

/// Whether spinning takes nothing from others at present.
#[derive(Debug)]
pub(super) struct Spin {
    paused_until: MonoNs,
    next_pause_ns: u64,
}

impl Spin {
    /// The core is believed to be free until an offer is taken.
    pub(super) fn new() -> Self {
        Self { paused_until: MonoNs(0), next_pause_ns: PAUSE_NS_MIN }
    }

    /// Whether to look for frames once more rather than sleep.
    pub(super) fn is_worth_it(&self, now: MonoNs, last_work: MonoNs) -> bool {
        now.since(last_work) < SPIN_NS && now >= self.paused_until
    }

    /// The core was offered, and is back.
    pub(super) fn offered(&mut self, before: MonoNs, after: MonoNs) {
        if after.since(before) < TAKEN_NS {
            self.next_pause_ns = PAUSE_NS_MIN;
            return;
        }
        self.paused_until = MonoNs(after.0.saturating_add(self.next_pause_ns));
        self.next_pause_ns = (2 * self.next_pause_ns).min(PAUSE_NS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Offers the core at `at`, and somebody keeps it for `away` nanoseconds.
    fn offer(spin: &mut Spin, at: u64, away: u64) -> u64 {
        spin.offered(MonoNs(at), MonoNs(at + away));
        at + away
    }

    #[test]
    fn a_worker_spins_a_little_after_work_and_not_for_ever() {
        let spin = Spin::new();
        assert!(spin.is_worth_it(MonoNs(100), MonoNs(100)));
        assert!(spin.is_worth_it(MonoNs(100 + SPIN_NS - 1), MonoNs(100)));
        assert!(!spin.is_worth_it(MonoNs(100 + SPIN_NS), MonoNs(100)));
    }

    #[test]
    fn an_offer_nobody_takes_changes_nothing() {
        let mut spin = Spin::new();
        let now = offer(&mut spin, 1_000, TAKEN_NS - 1);
        assert!(spin.is_worth_it(MonoNs(now), MonoNs(now)));
    }

    #[test]
    fn a_core_that_is_taken_again_and_again_is_tried_ever_less_often() {
        let mut spin = Spin::new();
        let mut now = 0;
        for pause in [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000].map(|ms| ms * MS) {
            now = offer(&mut spin, now, 3 * MS);
            assert!(!spin.is_worth_it(MonoNs(now + pause - 1), MonoNs(now + pause - 1)), "within {pause} ns");
            now += pause;
            assert!(spin.is_worth_it(MonoNs(now), MonoNs(now)), "after {pause} ns");
        }
    }

    #[test]
    fn a_free_core_ends_the_long_pauses() {
        let mut spin = Spin::new();
        let mut now = 0;
        for _ in 0..8 {
            now = offer(&mut spin, now, 3 * MS) + PAUSE_NS_MAX;
        }
        offer(&mut spin, now, 500);
        let taken = offer(&mut spin, now + 1_000, 3 * MS);
        assert!(spin.is_worth_it(MonoNs(taken + PAUSE_NS_MIN), MonoNs(taken + PAUSE_NS_MIN)));
    }
}
