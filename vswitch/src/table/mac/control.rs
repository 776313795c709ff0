//! What the control thread does with a MAC table: pin, remove, flush, age and list.
//!
//! Workers go on meanwhile. Where one of them holds an entry, the control thread tries again; it never waits for long.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use podwire_control::model::Mac;

use super::entry::{BUCKET_ENTRIES, EPOCH_BUSY, Entry};
use super::{MacTable, Place, seconds};
use crate::id::PortId;

/// How often to try again what a worker keeps busy. A worker holds an entry for nanoseconds, unless it is preempted.
const TRIES: u32 = 1_000;
/// The tries after which it looks as if the worker were preempted.
const TRIES_AT_ONCE: u32 = 100;
/// How long to let such a worker come back before each further try.
const PAUSE: Duration = Duration::from_micros(100);

/// One entry, for `mac list`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacEntry {
    /// Address.
    pub mac: Mac,
    /// Port it is behind.
    pub port: PortId,
    /// Pinned: never ages, moves or gives way.
    pub is_static: bool,
    /// Seconds since it was last seen; of a static entry, since it was stated.
    pub age_s: u64,
}

impl MacTable {
    /// Pins a MAC to a port, in place of what was known of it; the same again changes nothing. False when that is no
    /// station or no port of the switch, or when everything within reach is static.
    pub fn insert_static(&self, mac: Mac, port: PortId, now_s: u64) -> bool {
        let now_s = seconds(now_s);
        let Some(new) = self.entry(mac, port, now_s, true) else { return false };
        let place = try_hard(|| {
            if let Some((place, old)) = self.find(mac, now_s) {
                let same = old.is_static() && old.port() == port && self.is_live(old, now_s);
                return (same || self.replace(place, old, new)).then_some(Some(place));
            }
            if let Some((place, old)) = self.free_place(mac, now_s) {
                return self.replace(place, old, new).then_some(Some(place));
            }
            let Some((place, old)) = self.victim(mac, now_s) else { return Some(None) };
            self.replace(place, old, new).then(|| {
                self.evictions.fetch_add(1, Ordering::Relaxed);
                Some(place)
            })
        });
        let Some(Some(kept)) = place else { return false };
        // A worker that learns the MAC at this moment, elsewhere, sees this entry or is seen here.
        fence(Ordering::SeqCst);
        try_hard(|| self.drop_others(mac, kept).then_some(()));
        self.changed();
        true
    }

    /// Takes out all entries of a MAC but one. False when another thread was in the way.
    fn drop_others(&self, mac: Mac, kept: Place) -> bool {
        let mut others = self.matches(mac).filter(|(place, _)| *place != kept);
        others.all(|(place, entry)| self.replace(place, entry, Entry::EMPTY))
    }

    /// Forgets a MAC, static or not. False when it was not known.
    pub fn remove(&self, mac: Mac) -> bool {
        let mut removed = false;
        try_hard(|| {
            for (place, entry) in self.matches(mac) {
                removed |= self.replace(place, entry, Entry::EMPTY);
            }
            self.matches(mac).next().is_none().then_some(())
        });
        self.changed();
        removed
    }

    /// Forgets what was learned on a port; static entries stay. Returns how many.
    pub fn flush_port(&self, port: PortId) -> usize {
        let cleared = self.clear_where(|entry| entry.port() == port && !entry.is_static());
        self.changed();
        cleared
    }

    /// Ends a port's life: none of its entries is found again, static ones included, and whoever gets the id next
    /// starts with nothing. To be called when no worker receives from the port any more and before the id is given
    /// out again. The entries' places are free at once, and counted so with the next [`MacTable::sweep`].
    pub fn retire_port(&self, port: PortId) {
        if let Some(epoch) = self.epochs.get(port.index()) {
            // 31 bits last for two thousand million ports; from then on, a retired id can not learn any more.
            let next = self.epoch_next.fetch_add(1, Ordering::Relaxed).min(EPOCH_BUSY);
            self.epoch_next.fetch_min(EPOCH_BUSY, Ordering::Relaxed);
            epoch.store(next, Ordering::Release);
            self.changed();
        }
    }

    /// Clears entries that have aged out or whose port is gone; returns how many. To be called every few seconds:
    /// lookups do not depend on it, but fairness counts entries until they are swept.
    pub fn sweep(&self, now_s: u64) -> usize {
        let now_s = seconds(now_s);
        self.clear_where(|entry| !entry.is_busy() && !self.is_live(entry, now_s))
    }

    /// What the table knows now, in no order.
    pub fn iter(&self, now_s: u64) -> impl Iterator<Item = MacEntry> {
        let now_s = seconds(now_s);
        let live = self.places().map(|place| self.load(place)).filter(move |entry| self.is_live(*entry, now_s));
        live.map(move |entry| MacEntry {
            mac: entry.mac(),
            port: entry.port(),
            is_static: entry.is_static(),
            age_s: u64::from(now_s.saturating_sub(entry.seen_s())),
        })
    }

    fn clear_where(&self, doomed: impl Fn(Entry) -> bool) -> usize {
        let clear = |place: &Place| {
            let entry = self.load(*place);
            !entry.is_empty() && doomed(entry) && self.replace(*place, entry, Entry::EMPTY)
        };
        self.places().filter(clear).count()
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let buckets = 0..self.buckets.len();
        buckets.flat_map(|bucket| (0..BUCKET_ENTRIES).map(move |at| Place { bucket, at }))
    }
}

/// Tries until there is a result, giving way to whoever is in the way.
fn try_hard<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    (0..TRIES).find_map(|tried| {
        let result = attempt();
        match &result {
            None if tried < TRIES_AT_ONCE => std::thread::yield_now(),
            None => std::thread::sleep(PAUSE),
            Some(_) => {}
        }
        result
    })
}
