//! The highest rate at which a device loses at most so much, found with few trials, after MLRsearch (RFC 9971).
//!
//! As there: the load is narrowed in phases, first with short trials and wide, then with longer ones and narrow; a bound
//! from a short trial is only a hint for the next phase, and tried again with its length; a bound that falls sends the
//! search outwards in growing steps. Unlike there: one list of goals is worked off one after the other, and the last
//! lower bound is verified by a majority of trials and no sum of durations. Pure but for the trials it asks for.

use std::collections::BTreeMap;

use anyhow::Result;

/// What is searched for, and how hard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Search {
    /// Highest rate to try.
    pub(crate) rate_max: f64,
    /// Below this nothing is looked for.
    pub(crate) rate_min: f64,
    /// Relative width of the last interval, such as 0.02.
    pub(crate) width: f64,
    /// Trials that one goal may take in all.
    pub(crate) trials_max: usize,
    /// Trials of full length at the rate that is found, an odd number, of which most have to keep the goal.
    pub(crate) verifications: usize,
}

/// One trial to make.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Trial {
    /// Rate to offer.
    pub(crate) rate: f64,
    /// Length, as a part of a full trial.
    pub(crate) length: f64,
}

/// What was found for a goal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Found {
    /// The highest rate that kept the goal; 0 when none did.
    pub(crate) rate: f64,
    /// Whether it was verified; not when the trials ran out.
    pub(crate) verified: bool,
}

/// Loss that still counts as partial drop rate, as in RFC 9971.
const PARTIAL_LOSS: f64 = 0.005;

/// Length of a phase's trials, and how much wider its interval may be than the last one's.
const PHASES: [(f64, f64); 3] = [(0.25, 8.0), (0.5, 3.0), (1.0, 1.0)];

/// Finds the highest rate whose loss (0 to 1) is at most `loss_max`. `hint` is where to begin, such as what a device
/// forwarded of too much.
///
/// # Errors
/// Those of a trial.
fn search(search: &Search, loss_max: f64, hint: f64, trial: &mut dyn FnMut(Trial) -> Result<f64>) -> Result<Found> {
    let mut state = State {
        search,
        loss_max,
        lower: hint.clamp(search.rate_min, search.rate_max),
        upper: search.rate_max,
        length: 1.0,
        known: BTreeMap::new(),
        trials: 0,
        trial,
    };
    for (length, widening) in PHASES {
        state.length = length;
        state.known.clear();
        state.lower = state.lower.max(search.rate_min);
        if !state.narrow(search.width * widening)? {
            return Ok(Found { rate: state.lower_kept(), verified: false });
        }
    }
    while state.lower > 0.0 && !state.verify()? {
        if state.trials >= search.trials_max || !state.narrow(search.width)? {
            return Ok(Found { rate: state.lower_kept(), verified: false });
        }
    }
    Ok(Found { rate: state.lower_kept(), verified: true })
}

/// The highest rate without loss (NDR), and that with at most half a percent (PDR).
///
/// # Errors
/// Those of a trial.
pub(crate) fn ndr_and_pdr(
    how: &Search,
    hint: f64,
    trial: &mut dyn FnMut(Trial) -> Result<f64>,
) -> Result<(Found, Found)> {
    let pdr = search(how, PARTIAL_LOSS, hint, trial)?;
    let ndr = search(how, 0.0, pdr.rate, trial)?;
    Ok((ndr, pdr))
}

struct State<'a> {
    search: &'a Search,
    loss_max: f64,
    lower: f64,
    upper: f64,
    length: f64,
    /// Trials of this phase's length: rate as bits (which order as the positive numbers do), and whether it kept the goal.
    known: BTreeMap<u64, bool>,
    trials: usize,
    trial: &'a mut dyn FnMut(Trial) -> Result<f64>,
}

impl State<'_> {
    /// Narrows the interval until its bounds are tried and close enough; false when the trials ran out.
    fn narrow(&mut self, width: f64) -> Result<bool> {
        let mut step = width * self.upper;
        loop {
            match (self.known(self.lower), self.known(self.upper)) {
                (None, _) | (_, None) if self.trials >= self.search.trials_max => return Ok(false),
                (None, _) => {
                    self.try_rate(self.lower)?;
                }
                (Some(false), _) => {
                    if self.lower <= self.search.rate_min {
                        self.lower = 0.0;
                        return Ok(true);
                    }
                    self.upper = self.lower;
                    self.lower = (self.lower - step).max(self.search.rate_min);
                    step *= 2.0;
                }
                (Some(true), _) if self.lower >= self.upper => {
                    if self.upper >= self.search.rate_max {
                        return Ok(true);
                    }
                    self.upper = (self.upper + step).min(self.search.rate_max);
                    step *= 2.0;
                }
                (Some(true), None) => {
                    self.try_rate(self.upper)?;
                }
                (Some(true), Some(true)) => self.lower = self.upper,
                (Some(true), Some(false)) => {
                    if (self.upper - self.lower) / self.upper <= width {
                        return Ok(true);
                    }
                    if self.trials >= self.search.trials_max {
                        return Ok(false);
                    }
                    let middle = f64::midpoint(self.lower, self.upper);
                    if self.try_rate(middle)? { self.lower = middle } else { self.upper = middle }
                }
            }
        }
    }

    /// Tries the lower bound again; unless most trials keep the goal, it is an upper one. The trial that made it the lower
    /// bound does not count: it was chosen because it was good.
    fn verify(&mut self) -> Result<bool> {
        let most = self.search.verifications / 2 + 1;
        let (mut kept, mut missed) = (0, 0);
        while kept < most && missed < most {
            let good = self.measure(self.lower)? <= self.loss_max;
            kept += usize::from(good);
            missed += usize::from(!good);
        }
        self.known.insert(self.lower.to_bits(), kept >= most);
        Ok(kept >= most)
    }

    fn known(&self, rate: f64) -> Option<bool> {
        self.known.get(&rate.to_bits()).copied()
    }

    fn try_rate(&mut self, rate: f64) -> Result<bool> {
        let good = self.measure(rate)? <= self.loss_max;
        self.known.insert(rate.to_bits(), good);
        Ok(good)
    }

    fn measure(&mut self, rate: f64) -> Result<f64> {
        self.trials += 1;
        (self.trial)(Trial { rate, length: self.length })
    }

    /// The lower bound, unless a trial has spoken against it.
    fn lower_kept(&self) -> f64 {
        if self.known(self.lower) == Some(false) { 0.0 } else { self.lower }
    }
}

#[cfg(test)]
mod tests;
