//! A worker's flow table: what was decided about a flow, found again by exact match.
//!
//! One table a worker, so no atomics; fixed capacity, and no allocation after its creation. A flow's hash chooses a
//! bucket of eight slots, one cache line, in which 32 bits of the hash are compared; the entry that the slot names
//! has the whole key. Entries are used one after the other, so a table takes memory as it fills. A full table gives up
//! a flow that was not seen for a while; when there is none within reach, the new flow is not kept.
//!
//! Left out: what the values mean and how long they hold, which the pipeline knows.

/// Slots of a bucket.
const BUCKET_SLOTS: usize = 8;
/// Entries of a full table that are looked at for one to give up.
const VICTIMS_TRIED: usize = 4;
/// Seconds after which a flow that was not seen may be given up for another.
const IDLE_SECONDS: u32 = 2;

/// What makes two frames one flow, packed by who uses the table.
pub type FlowKey = [u64; 7];

/// One flow. The key and what a lookup reads fill one cache line, the value starts the next.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Entry<V> {
    key: FlowKey,
    hash: u32,
    /// Second in which it was last found, in 32 bits.
    seen_s: u32,
    value: V,
}

/// Slots: the hash in the upper half, the entry's index and one in the lower; 0 is free.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket([u64; BUCKET_SLOTS]);

/// Where a flow's entry lies; good until the next [`FlowTable::insert`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found(u32);

/// What became of a flow that was to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It has an entry.
    Yes,
    /// It has the entry of a flow that was idle.
    Evicted,
    /// It has none: the table is full of flows in use.
    No,
}

/// Exact match from a key to a value.
#[derive(Debug)]
pub struct FlowTable<V> {
    buckets: Box<[Bucket]>,
    entries: Vec<Entry<V>>,
    capacity: usize,
    /// The entry of a full table to look at next.
    hand: usize,
}

impl<V: Copy> FlowTable<V> {
    /// A table of `capacity` flows; 0 is a table that keeps none.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        // Twice as many slots as entries, so that hardly a bucket overflows.
        let buckets = if capacity == 0 { 0 } else { (capacity * 2).div_ceil(BUCKET_SLOTS).next_power_of_two() };
        Self {
            buckets: vec![Bucket::default(); buckets].into_boxed_slice(),
            entries: Vec::with_capacity(capacity),
            capacity,
            hand: 0,
        }
    }

    /// Whether it keeps any flow at all.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// Flows it holds, outdated ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first flow of this hash, if any, which may be another one. The half of [`FlowTable::find`] that reads the
    /// bucket: for a batch, all are read before the first entry is, so that their cache misses overlap.
    #[inline]
    #[must_use]
    pub fn candidate(&self, hash: u32) -> Option<Found> {
        let bucket = self.buckets.get(self.bucket_of(hash))?;
        // Nearly always where it would like to be, if it is anywhere.
        let home = bucket.0[home_of(hash)];
        if home >> 32 == u64::from(hash) && home & u64::from(u32::MAX) != 0 {
            return Some(named_by(home));
        }
        let hits = same_hash(bucket, hash);
        (hits != 0).then(|| named_by(bucket.0[hits.trailing_zeros() as usize % BUCKET_SLOTS]))
    }

    /// The value of a candidate that is of this hash. Reads its entry, and so, for a batch, has all of them in cache when
    /// they are confirmed.
    #[inline]
    #[must_use]
    pub fn look(&self, candidate: Found, hash: u32) -> Option<&V> {
        self.entries.get(candidate.index()).filter(|entry| entry.hash == hash).map(|entry| &entry.value)
    }

    /// The other half: the value of the candidate, if its key is the one asked for. It is in use then.
    #[inline]
    #[must_use]
    pub fn confirm(
        &mut self,
        candidate: Found,
        now_s: u64,
        is_asked_for: impl FnOnce(&FlowKey) -> bool,
    ) -> Option<&mut V> {
        let entry = self.entries.get_mut(candidate.index()).filter(|entry| is_asked_for(&entry.key))?;
        let now_s = second(now_s);
        if entry.seen_s != now_s {
            entry.seen_s = now_s;
        }
        Some(&mut entry.value)
    }

    /// Finds a flow at once. It is in use then.
    #[must_use]
    pub fn find(&mut self, hash: u32, key: &FlowKey, now_s: u64) -> Option<&mut V> {
        let found = self.lookup(hash, key)?;
        self.confirm(found, now_s, |_| true)
    }

    fn lookup(&self, hash: u32, key: &FlowKey) -> Option<Found> {
        let bucket = self.buckets.get(self.bucket_of(hash))?;
        let mut hits = same_hash(bucket, hash);
        while hits != 0 {
            let found = named_by(bucket.0[hits.trailing_zeros() as usize % BUCKET_SLOTS]);
            hits &= hits - 1;
            if self.entries.get(found.index()).is_some_and(|entry| entry.key == *key) {
                return Some(found);
            }
        }
        None
    }

    /// Keeps a flow, in place of what was kept of it.
    pub fn insert(&mut self, hash: u32, key: &FlowKey, value: V, now_s: u64) -> Kept {
        if !self.is_on() {
            return Kept::No;
        }
        let now_s = second(now_s);
        let entry = Entry { key: *key, hash, seen_s: now_s, value };
        if let Some(found) = self.lookup(hash, key) {
            self.entries[found.index()] = entry;
            return Kept::Yes;
        }
        let bucket = self.bucket_of(hash);
        let slots = &self.buckets[bucket].0;
        let near = (0..BUCKET_SLOTS).map(|step| (home_of(hash) + step) % BUCKET_SLOTS);
        let Some(free) = near.into_iter().find(|&at| slots[at] == 0) else {
            return self.replace_in(bucket, entry, now_s);
        };
        if self.entries.len() < self.capacity {
            self.buckets[bucket].0[free] = slot(hash, self.entries.len());
            self.entries.push(entry);
            return Kept::Yes;
        }
        let Some(at) = self.idle(now_s) else { return Kept::No };
        self.unlink(at);
        // The slot that became free may be in this bucket too; the one found is free as well.
        self.buckets[bucket].0[free] = slot(hash, at);
        self.entries[at] = entry;
        Kept::Evicted
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.buckets.fill(Bucket::default());
        self.hand = 0;
    }

    /// Takes the entry of an idle flow of a full bucket.
    fn replace_in(&mut self, bucket: usize, entry: Entry<V>, now_s: u32) -> Kept {
        let idle = (0..BUCKET_SLOTS).find(|&at| self.is_idle(named_by(self.buckets[bucket].0[at]).index(), now_s));
        let Some(slot_at) = idle else { return Kept::No };
        let at = named_by(self.buckets[bucket].0[slot_at]).index();
        self.buckets[bucket].0[slot_at] = slot(entry.hash, at);
        self.entries[at] = entry;
        Kept::Evicted
    }

    /// The next idle entry within reach of the hand.
    fn idle(&mut self, now_s: u32) -> Option<usize> {
        (0..VICTIMS_TRIED).find_map(|_| {
            let at = self.hand;
            self.hand = if at + 1 < self.entries.len() { at + 1 } else { 0 };
            self.is_idle(at, now_s).then_some(at)
        })
    }

    fn is_idle(&self, at: usize, now_s: u32) -> bool {
        now_s.saturating_sub(self.entries[at].seen_s) >= IDLE_SECONDS
    }

    /// Frees the slot that names an entry.
    fn unlink(&mut self, at: usize) {
        let hash = self.entries[at].hash;
        let bucket = self.bucket_of(hash);
        if let Some(taken) = self.buckets[bucket].0.iter_mut().find(|taken| **taken == slot(hash, at)) {
            *taken = 0;
        }
    }

    #[inline]
    fn bucket_of(&self, hash: u32) -> usize {
        // For a table without buckets beyond any index.
        hash as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// Which slots bear this hash, as a bit each. Looks at all, so that nothing is left to a branch's prediction.
#[inline]
fn same_hash(bucket: &Bucket, hash: u32) -> u8 {
    let wanted = u64::from(hash) << 32;
    // What is left of a slot that bears it is the index and one; a free slot of hash 0 leaves 0.
    let bears = |&slot: &u64| u8::from((slot ^ wanted).wrapping_sub(1) < u64::from(u32::MAX));
    bucket.0.iter().rev().fold(0, |bits, slot| bits << 1 | bears(slot))
}

/// A second in 32 bits, of which only differences count.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "it may wrap: a flow then looks idle, or in use, once in 136 years")]
fn second(now_s: u64) -> u32 {
    now_s as u32
}

/// The slot of its bucket that a flow takes if it is free.
#[inline]
fn home_of(hash: u32) -> usize {
    (hash >> 29) as usize % BUCKET_SLOTS
}

fn slot(hash: u32, at: usize) -> u64 {
    u64::from(hash) << 32 | (at as u64 + 1)
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn named_by(slot: u64) -> Found {
    Found((slot as u32).wrapping_sub(1))
}

impl Found {
    #[inline]
    fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const IDLE: u64 = IDLE_SECONDS as u64;

    fn key(number: u64) -> FlowKey {
        [number, 0, 0, 0, 0, 0, number.wrapping_mul(3)]
    }

    fn get(table: &FlowTable<u64>, hash: u32, number: u64) -> Option<u64> {
        table.lookup(hash, &key(number)).map(|found| table.entries[found.index()].value)
    }

    #[test]
    fn flows_of_one_hash_are_told_apart_by_their_keys() {
        let mut table = FlowTable::new(16);
        for (hash, number) in [(0, 1), (0, 2), (7, 3)] {
            assert_eq!(table.insert(hash, &key(number), number * 10, 0), Kept::Yes);
        }
        assert_eq!((get(&table, 0, 1), get(&table, 0, 2), get(&table, 7, 3)), (Some(10), Some(20), Some(30)));
        assert_eq!((get(&table, 7, 1), get(&table, 0, 3), get(&table, 1, 1)), (None, None, None));
        table.insert(0, &key(1), 11, 0);
        assert_eq!((get(&table, 0, 1), table.len()), (Some(11), 3));
        table.clear();
        assert_eq!((get(&table, 0, 1), table.is_empty()), (None, true));
    }

    #[test]
    fn a_table_without_capacity_keeps_nothing() {
        let mut table = FlowTable::new(0);
        assert_eq!(table.insert(3, &key(1), 1, 0), Kept::No);
        assert!(!table.is_on() && table.find(3, &key(1), 0).is_none());
    }

    #[test]
    fn a_full_table_gives_up_idle_flows_only() {
        let mut table = FlowTable::new(8);
        for number in 0..8 {
            assert_eq!(table.insert(u32::try_from(number).unwrap(), &key(number), number, 10), Kept::Yes);
        }
        assert_eq!(table.insert(100, &key(100), 100, 10 + IDLE - 1), Kept::No);
        let seen = table.candidate(0).unwrap();
        assert_eq!(table.confirm(seen, 10 + IDLE, |seen| *seen == key(1)), None);
        assert_eq!(table.confirm(seen, 10 + IDLE, |seen| *seen == key(0)), Some(&mut 0));
        assert_eq!(table.insert(100, &key(100), 100, 10 + IDLE), Kept::Evicted);
        // The hand has passed the first four already.
        assert_eq!((get(&table, 0, 0), get(&table, 4, 4), get(&table, 100, 100)), (Some(0), None, Some(100)));
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn a_full_bucket_gives_up_an_idle_flow_of_its_own() {
        let mut table = FlowTable::new(64);
        for number in 0..8 {
            assert_eq!(table.insert(5, &key(number), number, 0), Kept::Yes);
        }
        assert_eq!(table.insert(5, &key(8), 8, 0), Kept::No);
        assert_eq!(table.insert(5, &key(8), 8, IDLE), Kept::Evicted);
        assert_eq!((get(&table, 5, 0), get(&table, 5, 8), get(&table, 5, 7)), (None, Some(8), Some(7)));
    }

    proptest! {
        /// What is found is what was put in last; what was kept stays until it is given up; memory stays in bounds.
        #[test]
        fn the_table_agrees_with_a_map(steps in prop::collection::vec((0..60_u64, 0..4_u32, any::<u64>()), 1..300)) {
            let mut table = FlowTable::new(24);
            let mut map = HashMap::new();
            let mut now_s = 0;
            for (number, pause, value) in steps {
                now_s += u64::from(pause == 3);
                let hash = u32::try_from(number % 7).unwrap();
                match table.insert(hash, &key(number), value, now_s) {
                    Kept::No => prop_assert!(!map.contains_key(&number), "a flow that is kept is only written anew"),
                    Kept::Yes | Kept::Evicted => {
                        map.insert(number, value);
                        prop_assert_eq!(get(&table, hash, number), Some(value));
                    }
                }
                map.retain(|&other, value| {
                    let found = get(&table, u32::try_from(other % 7).unwrap(), other);
                    assert!(found.is_none_or(|found| found == *value), "{other} has another's value");
                    found.is_some()
                });
                prop_assert_eq!(map.len(), table.len());
                prop_assert!(table.len() <= 24);
            }
        }
    }
}
