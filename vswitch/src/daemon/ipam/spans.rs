//! A set of addresses, kept as intervals that neither overlap nor touch, so that all of a /64 is one entry.

use std::collections::BTreeMap;

/// First to last, both included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Spans(BTreeMap<u128, u128>);

impl Spans {
    /// Puts addresses in.
    pub(super) fn insert(&mut self, first: u128, last: u128) {
        let (mut first, mut last) = (first, last);
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if to < first.saturating_sub(1) {
                break;
            }
            (first, last) = (first.min(from), last.max(to));
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    /// Takes addresses out.
    pub(super) fn remove(&mut self, first: u128, last: u128) {
        while let Some((&from, &to)) = self.0.range(..=last).next_back() {
            if to < first {
                break;
            }
            self.0.remove(&from);
            if to > last {
                self.0.insert(last + 1, to);
            }
            if from < first {
                self.0.insert(from, first - 1);
            }
        }
    }

    /// Whether an address is in.
    pub(super) fn contains(&self, address: u128) -> bool {
        self.0.range(..=address).next_back().is_some_and(|(_, &last)| last >= address)
    }

    /// The intervals of what is in from `first` to `last`, in order.
    pub(super) fn within(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
        let before = self.0.range(..first).next_back().filter(|&(_, &to)| to >= first);
        let spans = before.into_iter().chain(self.0.range(first..=last));
        spans.map(move |(&from, &to)| (from.max(first), to.min(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn spans_hold_what_a_set_of_addresses_holds(steps in prop::collection::vec((any::<bool>(), 0u128..40, 0u128..8), 0..30)) {
            let (mut spans, mut set) = (Spans::default(), BTreeSet::new());
            for (insert, first, length) in steps {
                let last = first + length;
                if insert {
                    spans.insert(first, last);
                    set.extend(first..=last);
                } else {
                    spans.remove(first, last);
                    set.retain(|address| !(first..=last).contains(address));
                }
                let all: Vec<u128> = spans.within(0, u128::MAX).flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(&all, &set.iter().copied().collect::<Vec<_>>());
                let part: Vec<u128> = spans.within(10, 20).flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(part, set.range(10..=20).copied().collect::<Vec<_>>());
                prop_assert!((0..50).all(|address| spans.contains(address) == set.contains(&address)));
                let touching = spans.0.iter().zip(spans.0.iter().skip(1)).find(|((_, last), (first, _))| **last + 1 >= **first);
                prop_assert_eq!(touching, None);
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses_too() {
        let mut spans = Spans::default();
        spans.insert(0, u128::MAX);
        spans.remove(u128::MAX, u128::MAX);
        spans.remove(0, 0);
        assert_eq!(spans.within(0, u128::MAX).collect::<Vec<_>>(), [(1, u128::MAX - 1)]);
        spans.insert(0, 0);
        spans.insert(u128::MAX, u128::MAX);
        assert_eq!(spans.within(0, u128::MAX).collect::<Vec<_>>(), [(0, u128::MAX)]);
    }
}
