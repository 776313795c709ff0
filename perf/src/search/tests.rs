//! Cases for the search, on devices that are formulas.

use super::*;

const SEARCH: Search = Search { rate_max: 1_000.0, rate_min: 1.0, width: 0.02, trials_max: 60, verifications: 3 };

/// Searches on a device, and counts the trials.
fn found(loss_max: f64, mut device: impl FnMut(Trial) -> f64) -> (Found, usize) {
    let mut trials = 0;
    let mut trial = |trial: Trial| {
        assert!(trial.rate >= SEARCH.rate_min && trial.rate <= SEARCH.rate_max, "{trial:?}");
        trials += 1;
        Ok(device(trial))
    };
    let hint = 1_000.0 * (1.0 - trial(Trial { rate: 1_000.0, length: 0.25 }).unwrap());
    let found = search(&SEARCH, loss_max, hint, &mut trial).unwrap();
    (found, trials)
}

/// Forwards so much and drops the rest.
fn step(capacity: f64) -> impl FnMut(Trial) -> f64 {
    move |trial| (1.0 - capacity / trial.rate).max(0.0)
}

#[track_caller]
fn near(found: Found, want: f64) {
    assert!(found.verified, "{found:?}");
    assert!((found.rate - want).abs() <= 0.02 * want + 1e-9, "{found:?}, not {want}");
}

#[test]
fn a_device_with_an_edge_is_found_at_its_edge() {
    for capacity in [1_000.0, 999.0, 637.0, 100.0, 17.0, 2.0] {
        let (ndr, trials) = found(0.0, step(capacity));
        near(ndr, capacity);
        assert!(ndr.rate <= capacity && trials <= 32, "{ndr:?} of {capacity} in {trials} trials");
        near(found(0.005, step(capacity)).0, (capacity / 0.995).min(1_000.0));
    }
}

#[test]
fn a_device_that_loses_more_the_more_it_gets_has_two_rates() {
    let linear = |trial: Trial| ((trial.rate - 300.0) / 10_000.0).max(0.0);
    near(found(0.0, linear).0, 300.0);
    near(found(0.005, linear).0, 350.0);
}

#[test]
fn a_queue_that_hides_loss_from_short_trials_does_not_deceive() {
    // 400 a second leave it, and 100 packets wait in a queue: a trial of 0.25 shows loss only above 800.
    let queue = |trial: Trial| (1.0 - (400.0 * trial.length + 100.0) / (trial.rate * trial.length)).max(0.0);
    near(found(0.0, queue).0, 500.0);
}

#[test]
fn noise_that_spares_most_trials_costs_little() {
    for seed in 1..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut dice = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 100
        };
        let mut device = step(500.0);
        let (found, trials) = found(0.0, |trial| if dice() < 5 { 0.01 } else { device(trial) });
        assert!(found.rate > 300.0 && found.rate <= 500.0, "seed {seed}: {found:?} in {trials} trials");
    }
}

#[test]
fn a_device_that_only_sometimes_keeps_up_is_not_believed() {
    let mut turn = 0;
    let moody = |trial: Trial| {
        turn += 1;
        // Above 200 every third trial alone is good.
        if trial.rate <= 200.0 || turn % 3 == 0 { 0.0 } else { 0.1 }
    };
    let (found, trials) = found(0.0, moody);
    assert!(found.rate < 260.0 || !found.verified, "{found:?} in {trials} trials");
}

#[test]
fn a_device_that_loses_always_has_no_rate_and_one_that_never_does_has_the_highest() {
    assert_eq!(found(0.0, |_| 0.5).0, Found { rate: 0.0, verified: true });
    assert_eq!(found(0.0, |_| 0.0).0, Found { rate: 1_000.0, verified: true });
}

#[test]
fn trials_that_run_out_are_said() {
    let few = Search { trials_max: 5, ..SEARCH };
    let found = search(&few, 0.0, 500.0, &mut |trial| Ok(step(37.0)(trial))).unwrap();
    assert!(!found.verified, "{found:?}");
}

#[test]
fn an_error_of_a_trial_ends_the_search() {
    assert!(search(&SEARCH, 0.0, 500.0, &mut |_| anyhow::bail!("no")).is_err());
}
