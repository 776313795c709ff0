//! The ranges that pods' addresses are leased from: the file's, then the CLI's, which are stored.

use podwire_control::model::{IpRange, IpamReport, RangeSource, RangesChanged, Refusal};

use super::Controller;
use crate::daemon::config::Config;
use crate::daemon::ipam::{RangeError, ReleaseRows, Space};
use crate::daemon::store::{Batch, StoreError};

impl Controller {
    /// Ranges, and how far they are used.
    #[must_use]
    pub fn ipam(&self) -> IpamReport {
        IpamReport { ranges: self.ipam.usage(), reserved: self.config.ipam.reserved.clone() }
    }

    /// Whether the CLI has stated this range.
    #[must_use]
    pub fn has_range(&self, range: IpRange) -> bool {
        self.cli_ranges.contains(&range)
    }

    /// Adds and removes ranges of the CLI.
    ///
    /// # Errors
    /// Refusals that name each range; nothing has changed then.
    pub fn change_ranges(&mut self, add: &[IpRange], remove: &[IpRange]) -> Result<RangesChanged, Vec<Refusal>> {
        let mut refusals: Vec<Refusal> = remove.iter().filter_map(|&range| self.must_stay(range)).collect();
        let mut next: Vec<IpRange> = self.cli_ranges.iter().copied().filter(|range| !remove.contains(range)).collect();
        let mut added = Vec::new();
        for &range in add {
            if !next.contains(&range) {
                next.push(range);
                added.push(range);
            }
        }
        let (space, left_out) = space(&self.config, &next);
        let unfit = left_out.into_iter().filter(|(range, _)| added.contains(range));
        refusals.extend(unfit.map(|(range, error)| refusal(range, error.to_string())));
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let (ipam, releases) = self.ipam.moved_to(&space);
        let batch = Batch { ranges: Some(&next), releases: Some(&releases), ..Batch::default() };
        self.store_batch(&batch).map_err(|error| vec![Refusal::new("store", error.to_string())])?;
        (self.ipam, self.cli_ranges) = (ipam, next);
        Ok(RangesChanged { added, removed: remove.to_vec() })
    }

    /// Why a range of the CLI can not go, if so.
    fn must_stay(&self, range: IpRange) -> Option<Refusal> {
        if !self.has_range(range) {
            return Some(refusal(range, "the CLI stated no such range; see 'podwire ipam show'"));
        }
        let usage = self.ipam.usage();
        let held = usage.iter().find(|row| row.range == range && row.source == RangeSource::Cli)?.held;
        let (address, holder) = self.ipam.held_in(range).next()?;
        Some(refusal(
            range,
            format!("{held} of its addresses are held, {address} by {holder}; delete those pods first"),
        ))
    }

    /// What an operator should know of the CLI's ranges: those that do not fit the file, and are not used.
    pub(super) fn range_warnings(&self) -> impl Iterator<Item = String> {
        space(&self.config, &self.cli_ranges).1.into_iter().map(|(range, error)| {
            format!("range {range} of the CLI is not used: {error}, or remove it with 'podwire ipam range del {range}'")
        })
    }

    /// Has the store forget releases that are of no use any more.
    pub(super) fn forget_releases(&mut self, releases: &ReleaseRows) -> Result<(), StoreError> {
        self.store_batch(&Batch { releases: Some(releases), ..Batch::default() })
    }

    fn store_batch(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        self.store.as_mut().map_or(Ok(()), |store| store.commit(batch))
    }
}

/// The addresses there are to give, and the CLI's ranges that do not fit.
pub(super) fn space(config: &Config, cli: &[IpRange]) -> (Space, Vec<(IpRange, RangeError)>) {
    Space::new(config.node.pod_cidrs(), &config.ipam.ranges, cli, &config.ipam.reserved)
}

fn refusal(range: IpRange, reason: impl Into<String>) -> Refusal {
    Refusal::new(format!("range {range}"), reason)
}
