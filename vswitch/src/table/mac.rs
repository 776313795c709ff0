//! A bridge's MAC table: which port a station was last seen behind.
//!
//! One table a bridge, shared by all workers and the control thread, surviving snapshots; fixed capacity, no locks,
//! no allocation after its creation. A MAC can lie in two buckets of eight entries, chosen by its hash; that is all
//! that is ever searched. `mac/entry.rs` has an entry's two words and why a torn read is harmless, `mac/control.rs`
//! what only the control thread does.
//!
//! What races can do, and no more: a learn is lost (the next frame learns again), and a lookup misses while an entry is
//! written (the frame floods). No MAC is in force twice: a worker puts a new entry down as pending, looks whether the
//! MAC lies elsewhere too, and takes its own back if so. Only while a static entry is being stated may another one of
//! its MAC be found, and none is once that has returned.
//!
//! Left out: what to do about a miss, group addresses (never learned), and which ports belong to the bridge.

mod control;
mod entry;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;
use podwire_control::model::Mac;

use crate::id::PortId;
use crate::limits::{MAC_AGEING_SECONDS, MAC_MOVES_PER_SECOND, PORTS_MAX};
pub use control::MacEntry;
use entry::{BUCKET_ENTRIES, Bucket, EPOCH_BUSY, Entry};

/// How often a worker looks for a place again when another thread took the one it chose.
const INSERT_TRIES: usize = 4;

/// What learning a frame's source address came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Nothing to write: known on this port and fresh, or another worker writes the entry right now.
    Known,
    /// Known on this port; its last-seen time was written.
    Refreshed,
    /// Not known before, or forgotten, or last seen behind a port that is gone.
    New,
    /// It was behind another port until now.
    Moved {
        /// That port.
        from: PortId,
    },
    /// It is behind another port, and stays there: the bridge has had its moves for this second.
    MoveLimited,
    /// It is pinned to another port, and stays there.
    StaticElsewhere,
    /// New; another entry was given up for it.
    Evicted {
        /// Port of the entry given up.
        victim: PortId,
    },
    /// Not learned: no entry within reach may be given up, or this is no station's address, or no port of the switch.
    Full,
}

/// Where an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    bucket: usize,
    at: usize,
}

/// The table. All methods may be called by any thread at any time, unless they say otherwise.
#[derive(Debug)]
pub struct MacTable {
    buckets: Box<[Bucket]>,
    /// The epoch of each port's present life. No two ports, and no two lives of one, ever have the same.
    epochs: Box<[AtomicU32]>,
    epoch_next: AtomicU32,
    /// Entries each port holds, those that nobody swept yet included.
    held: Box<[AtomicU32]>,
    moves: AtomicU64,
    evictions: AtomicU64,
    /// The second in the upper half, moves accepted in it in the lower.
    move_window: AtomicU64,
    /// See [`MacTable::epoch`]. By itself in its cache line, since workers read it for each frame.
    changes: CachePadded<AtomicU64>,
}

impl MacTable {
    /// An empty table of at least `capacity` entries: a power of two, and at least 8.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let buckets = capacity.div_ceil(BUCKET_ENTRIES).next_power_of_two();
        let ports = u32::try_from(PORTS_MAX).unwrap_or(EPOCH_BUSY);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            epochs: (1..=ports).map(AtomicU32::new).collect(),
            epoch_next: AtomicU32::new(ports + 1),
            held: (0..ports).map(|_| AtomicU32::new(0)).collect(),
            moves: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            move_window: AtomicU64::new(0),
            changes: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// The port a station is behind; none when it is unknown, aged out, or its port is gone.
    #[inline]
    #[must_use]
    pub fn lookup(&self, mac: Mac, now_s: u64) -> Option<PortId> {
        let now_s = seconds(now_s);
        self.matches(mac).find(|(_, entry)| self.is_live(*entry, now_s)).map(|(_, entry)| entry.port())
    }

    /// As [`MacTable::lookup`], with the second from which on the answer does not hold any more by age alone; for a
    /// static entry there is none.
    #[inline]
    #[must_use]
    pub fn lookup_until(&self, mac: Mac, now_s: u64) -> Option<(PortId, u64)> {
        let now_s = seconds(now_s);
        let (_, entry) = self.matches(mac).find(|(_, entry)| self.is_live(*entry, now_s))?;
        let until_s = if entry.is_static() { u64::MAX } else { u64::from(entry.seen_s()) + MAC_AGEING_SECONDS };
        Some((entry.port(), until_s))
    }

    /// Changes whenever a station that was found, or was learned, may be somewhere else or nowhere now, for another
    /// reason than its age. What has just been learned for the first time changes nothing.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Notes that a frame from `mac` came in by `port`. The caller has made sure that it is not spoofed.
    pub fn learn(&self, mac: Mac, port: PortId, now_s: u64) -> Learned {
        let now_s = seconds(now_s);
        let Some(new) = self.entry(mac, port, now_s, false) else { return Learned::Full };
        match self.find(mac, now_s) {
            Some((place, known)) if self.is_live(known, now_s) => self.learn_again(place, known, new),
            Some((_, known)) if known.is_busy() || known.is_pending() => Learned::Known,
            Some((place, forgotten)) if self.replace(place, forgotten, new) => Learned::New,
            Some(_) => Learned::Known,
            None => self.insert(new, now_s),
        }
    }

    /// Entries in use, those that nobody swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.iter().map(|held| held.load(Ordering::Relaxed) as usize).sum()
    }

    /// True when no entry is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries the table has.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buckets.len() * BUCKET_ENTRIES
    }

    /// Moves accepted since the table was made.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Live entries given up for others since the table was made.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// The case of a MAC that is known and not forgotten.
    fn learn_again(&self, place: Place, known: Entry, new: Entry) -> Learned {
        if known.port() == new.port() {
            let fresh = known.is_static() || known.seen_s() >= new.seen_s();
            let written = !fresh && self.buckets[place.bucket].refresh(place.at, known, new.seen_s());
            return if written { Learned::Refreshed } else { Learned::Known };
        }
        if known.is_static() {
            return Learned::StaticElsewhere;
        }
        if !self.may_move(new.seen_s()) {
            return Learned::MoveLimited;
        }
        if !self.replace(place, known, new) {
            return Learned::Known;
        }
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.changed();
        Learned::Moved { from: known.port() }
    }

    /// The case of a MAC that is not in the table.
    fn insert(&self, new: Entry, now_s: u32) -> Learned {
        for _ in 0..INSERT_TRIES {
            let (place, old, learned) = if let Some((place, old)) = self.free_place(new.mac(), now_s) {
                (place, old, Learned::New)
            } else {
                let Some((place, old)) = self.victim(new.mac(), now_s) else { return Learned::Full };
                // Fair: who holds more than the victim's port takes nothing from it.
                if self.held_by(old.port()) < self.held_by(new.port()) {
                    return Learned::Full;
                }
                (place, old, Learned::Evicted { victim: old.port() })
            };
            if self.replace(place, old, new.pending()) {
                if matches!(learned, Learned::Evicted { .. }) {
                    self.evictions.fetch_add(1, Ordering::Relaxed);
                    self.changed();
                }
                return if self.put_in_force(place, new) { learned } else { Learned::Known };
            }
        }
        Learned::Full
    }

    /// An empty or forgotten entry for a MAC, in the emptier of its buckets.
    fn free_place(&self, mac: Mac, now_s: u32) -> Option<(Place, Entry)> {
        let mut best: Option<(usize, (Place, Entry))> = None;
        for bucket in self.buckets_of(mac) {
            let free = |place: &Place| {
                let entry = self.load(*place);
                !entry.is_busy() && (entry.is_empty() || !self.is_live(entry, now_s))
            };
            let mut places = (0..BUCKET_ENTRIES).map(|at| Place { bucket, at }).filter(free);
            let Some(first) = places.next() else { continue };
            let count = 1 + places.count();
            if best.is_none_or(|(most, _)| count > most) {
                best = Some((count, (first, self.load(first))));
            }
        }
        // Loaded again, it may be somebody's by now.
        best.map(|(_, found)| found).filter(|(_, entry)| entry.is_empty() || !self.is_live(*entry, now_s))
    }

    /// The entry to give up for a MAC: of the port that holds most, its oldest; never a static one.
    fn victim(&self, mac: Mac, now_s: u32) -> Option<(Place, Entry)> {
        let places =
            self.buckets_of(mac).into_iter().flat_map(|bucket| (0..BUCKET_ENTRIES).map(move |at| Place { bucket, at }));
        let entries = places.map(|place| (place, self.load(place)));
        entries
            .filter(|(_, entry)| !entry.is_static() && !entry.is_busy() && !entry.is_empty())
            .max_by_key(|(_, entry)| (self.held_by(entry.port()), now_s.saturating_sub(entry.seen_s())))
    }

    /// Puts a pending entry in force, or takes it back when its MAC lies elsewhere too.
    fn put_in_force(&self, place: Place, new: Entry) -> bool {
        // Of two threads that insert one MAC at once, at least one sees the other's entry behind this.
        fence(Ordering::SeqCst);
        let alone = self.matches(new.mac()).all(|(other, _)| other == place);
        self.replace(place, new.pending(), if alone { new } else { Entry::EMPTY }) && alone
    }

    /// Spends one of this second's moves.
    fn may_move(&self, now_s: u32) -> bool {
        let spend = |window: u64| {
            let (second, spent) = (window >> 32, window & u64::from(u32::MAX));
            // Workers read their clocks at different moments: one that is behind spends from the later second.
            let (second, spent) = if second < u64::from(now_s) { (u64::from(now_s), 0) } else { (second, spent) };
            (spent < MAC_MOVES_PER_SECOND).then_some(second << 32 | (spent + 1))
        };
        self.move_window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// Replaces an entry and keeps the ports' counts.
    fn replace(&self, place: Place, old: Entry, new: Entry) -> bool {
        // Counted before it can be seen, and uncounted after it is gone, so that no count goes below zero.
        if !new.is_empty() {
            self.held[new.port().index()].fetch_add(1, Ordering::Relaxed);
        }
        let replaced = self.buckets[place.bucket].replace(place.at, old, new);
        let gone = if replaced { old } else { new };
        if !gone.is_empty() {
            self.held[gone.port().index()].fetch_sub(1, Ordering::Relaxed);
        }
        replaced
    }

    /// An entry for a station behind a port of the switch; none for anything else.
    fn entry(&self, mac: Mac, port: PortId, now_s: u32, is_static: bool) -> Option<Entry> {
        let epoch = self.epochs.get(port.index())?.load(Ordering::Acquire);
        (mac.is_station() && epoch < EPOCH_BUSY).then(|| Entry::new(mac, port, epoch, now_s, is_static))
    }

    fn held_by(&self, port: PortId) -> u32 {
        self.held[port.index()].load(Ordering::Relaxed)
    }

    /// Whether an entry counts: of a port in its present life, and seen not too long ago.
    #[inline]
    fn is_live(&self, entry: Entry, now_s: u32) -> bool {
        let present = || self.epochs.get(entry.port().index()).map(|epoch| epoch.load(Ordering::Acquire));
        let age_s = u64::from(now_s.saturating_sub(entry.seen_s()));
        !entry.is_busy()
            && !entry.is_empty()
            && (entry.is_static() || age_s < MAC_AGEING_SECONDS)
            && present() == Some(entry.epoch())
    }

    /// The entry of a MAC that counts, else one that does not any more.
    fn find(&self, mac: Mac, now_s: u32) -> Option<(Place, Entry)> {
        let live = self.matches(mac).find(|(_, entry)| self.is_live(*entry, now_s));
        live.or_else(|| self.matches(mac).next())
    }

    /// The entries of a MAC, in search order.
    #[inline]
    fn matches(&self, mac: Mac) -> impl Iterator<Item = (Place, Entry)> {
        let [first, second] = self.buckets_of(mac);
        let in_second = if first == second { 0 } else { self.buckets[second].matches(mac) };
        let mut found = u16::from(self.buckets[first].matches(mac)) | u16::from(in_second) << BUCKET_ENTRIES;
        std::iter::from_fn(move || {
            while found != 0 {
                let at = found.trailing_zeros() as usize;
                found &= found - 1;
                let bucket = if at < BUCKET_ENTRIES { first } else { second };
                let place = Place { bucket, at: at % BUCKET_ENTRIES };
                let entry = self.load(place);
                // It may have become another's meanwhile.
                if entry.has(mac) {
                    return Some((place, entry));
                }
            }
            None
        })
    }

    #[inline]
    fn load(&self, place: Place) -> Entry {
        self.buckets[place.bucket].load(place.at)
    }

    /// The two buckets a MAC may lie in; for some MACs they are one.
    #[inline]
    fn buckets_of(&self, mac: Mac) -> [usize; 2] {
        // The finalizer of splitmix64; both halves of the product are well mixed.
        let mut hash = mac.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 31;
        let mask = self.buckets.len() - 1;
        let [a, b, c, d, e, f, g, h] = hash.to_be_bytes();
        let first = u32::from_be_bytes([a, b, c, d]) as usize & mask;
        let second = u32::from_be_bytes([e, f, g, h]) as usize & mask;
        [first, second]
    }
}

/// Seconds as an entry stores them; a clock that has run for 136 years stands still.
#[inline]
fn seconds(now_s: u64) -> u32 {
    u32::try_from(now_s).unwrap_or(u32::MAX)
}
