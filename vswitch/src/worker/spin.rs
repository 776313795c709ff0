//! When an adaptive worker spins after its last work, and when it goes to sleep at once.
//!
//! It spins by offering its core to others each turn. An offer that nobody takes costs a fraction of a microsecond, and
//! the next frame finds the worker awake. An offer that is taken says that the core is shared just now: the worker
//! then sleeps for its frames, since a sleeper is scheduled the moment a frame comes, and one that offered its core is not.
//! Reads no clock; the loop tells it the time.

use crate::id::MonoNs;

/// How long a worker spins after its last work. Longer than a request takes to come back through a pod on another core.
const SPIN_NS: u64 = 50_000;
/// An offer of the core that took longer may have been taken; one that nobody takes is back sooner.
const GLANCE_NS: u64 = 2_000;
/// An offer that was taken for longer than this says that the core is shared; a pod's short work does not, and who works for
/// longer keeps it for milliseconds.
const TAKEN_NS: u64 = 100_000;
/// First pause without spinning; it doubles each time the core is taken again soon.
const PAUSE_NS_MIN: u64 = 1_000_000;
/// Longest pause: a scheduler's time slice lost once in this time is how a worker finds its core free again.
const PAUSE_NS_MAX: u64 = 1_000_000_000;
/// The core is taken again soon when that is within so many of the last pauses after it.
const SOON_PAUSES: u64 = 8;

/// Whether spinning takes nothing from others at present.
#[derive(Debug)]
pub(super) struct Spin {
    paused_until: MonoNs,
    pause_ns: u64,
    /// Times the core had gone to others when last looked.
    given_away: u64,
}

impl Spin {
    /// The core is believed to be free until an offer is taken.
    pub(super) fn new() -> Self {
        Self { paused_until: MonoNs(0), pause_ns: 0, given_away: 0 }
    }

    /// Whether to look for frames once more rather than sleep.
    pub(super) fn is_worth_it(&self, now: MonoNs, last_work: MonoNs) -> bool {
        now.since(last_work) < SPIN_NS && !self.is_core_shared(now)
    }

    /// Whether an offer was taken lately, so that another might cost a time slice.
    pub(super) fn is_core_shared(&self, now: MonoNs) -> bool {
        now < self.paused_until
    }

    /// The core was offered, and is back. `given_away` tells how often it has gone to others; it is asked only where that
    /// matters. Time that an interrupt took, or a hypervisor, is nobody's who shares the core.
    pub(super) fn offered(&mut self, before: MonoNs, after: MonoNs, given_away: impl FnOnce() -> u64) {
        let away = after.since(before);
        if away < GLANCE_NS {
            return;
        }
        let was = std::mem::replace(&mut self.given_away, given_away());
        if away >= TAKEN_NS && self.given_away != was {
            let soon = before.since(self.paused_until) < SOON_PAUSES * self.pause_ns;
            self.pause_ns = if soon { (2 * self.pause_ns).min(PAUSE_NS_MAX) } else { PAUSE_NS_MIN };
            self.paused_until = MonoNs(after.0.saturating_add(self.pause_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A worker whose core has gone to others so many times.
    struct Core {
        spin: Spin,
        given_away: u64,
    }

    impl Core {
        fn new() -> Self {
            Self { spin: Spin::new(), given_away: 0 }
        }

        /// Offers the core at `at`, and somebody keeps it for `away` nanoseconds; gives the time after.
        fn taken(&mut self, at: u64, away: u64) -> u64 {
            self.given_away += 1;
            let given_away = self.given_away;
            self.spin.offered(MonoNs(at), MonoNs(at + away), || given_away);
            at + away
        }

        /// The first time from `now` on, in steps of half a millisecond, at which it spins for a frame that has just come.
        fn spins_again(&self, now: u64) -> u64 {
            (0..).map(|step| now + step * MS / 2).find(|&at| self.spin.is_worth_it(MonoNs(at), MonoNs(at))).unwrap()
        }
    }

    #[test]
    fn a_worker_spins_a_little_after_work_and_not_for_ever() {
        let spin = Spin::new();
        assert!(spin.is_worth_it(MonoNs(100), MonoNs(100)));
        assert!(spin.is_worth_it(MonoNs(100 + SPIN_NS - 1), MonoNs(100)));
        assert!(!spin.is_worth_it(MonoNs(100 + SPIN_NS), MonoNs(100)));
    }

    #[test]
    fn an_offer_nobody_takes_or_takes_shortly_changes_nothing() {
        let mut core = Core::new();
        core.spin.offered(MonoNs(1_000), MonoNs(1_000 + GLANCE_NS - 1), || panic!("nobody asks for every offer"));
        let now = core.taken(5_000, TAKEN_NS - 1);
        assert_eq!(core.spins_again(now), now);
    }

    #[test]
    fn time_that_no_other_thread_had_changes_nothing() {
        let mut core = Core::new();
        let now = core.taken(0, GLANCE_NS);
        let given_away = core.given_away;
        core.spin.offered(MonoNs(now), MonoNs(now + 9 * MS), || given_away);
        assert_eq!(core.spins_again(now + 9 * MS), now + 9 * MS);
    }

    #[test]
    fn a_core_that_is_taken_again_and_again_is_tried_ever_less_often() {
        let mut core = Core::new();
        let mut now = 10 * MS;
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000] {
            let back = core.taken(now, 3 * MS);
            now = core.spins_again(back);
            assert_eq!(now, back + pause * MS);
        }
    }

    #[test]
    fn a_core_that_was_free_for_long_is_paused_shortly() {
        let mut core = Core::new();
        let mut now = 10 * MS;
        for _ in 0..6 {
            let back = core.taken(now, 3 * MS);
            now = core.spins_again(back);
        }
        let back = core.taken(now + SOON_PAUSES * 32 * MS, 3 * MS);
        assert_eq!(core.spins_again(back), back + MS);
    }
}
