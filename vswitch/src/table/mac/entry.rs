//! One entry of the MAC table: two atomic words, and the protocol by which threads share them.
//!
//! `key` is (48-bit MAC, 16-bit port), `state` is (last seen in seconds: 32 bits, epoch: 31 bits, static: 1 bit).
//! Entries lie in buckets of eight, keys in one pair of cache lines' first, states in its second.
//!
//! **Writers** replace an entry under a try-lock: `state` goes from what was read to [`BUSY`] by compare and swap,
//! then `key` is checked and stored, then `state`. Whoever does not get the lock has lost and gives up; nobody waits.
//! Only the last-seen time is written without it, by one compare and swap of `state`.
//!
//! **Readers** load `key`, `state`, and `key` again; when the two keys differ the entry reads as busy. What is left is
//! a pair of one key with the state of another entry that was there in between. An epoch belongs to one port's one
//! life (see `MacTable::retire_port`), so such a pair names a live port only when both entries were of that port in
//! that life; it is right then but for its age.

use std::sync::atomic::{AtomicU64, Ordering};

use podwire_control::model::Mac;

use crate::id::PortId;

/// Entries of a bucket.
pub(super) const BUCKET_ENTRIES: usize = 8;

/// State of an entry a writer holds; its epoch is [`EPOCH_BUSY`], which no port ever has.
const BUSY: u64 = u64::MAX;
/// The epoch that a busy entry shows; the first that ports must not have.
pub(super) const EPOCH_BUSY: u32 = u32::MAX >> 1;
/// The epoch of an entry that is put down, but not yet in force. No port ever has it either.
const EPOCH_PENDING: u32 = 0;

/// What one entry said at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    key: u64,
    state: u64,
}

impl Entry {
    pub(super) const EMPTY: Self = Self { key: 0, state: 0 };

    pub(super) fn new(mac: Mac, port: PortId, epoch: u32, seen_s: u32, is_static: bool) -> Self {
        Self {
            key: mac.to_u64() << 16 | u64::from(port.0),
            state: u64::from(seen_s) << 32 | u64::from(epoch) << 1 | u64::from(is_static),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.key == 0
    }

    /// The same, not yet in force.
    pub(super) fn pending(self) -> Self {
        Self::new(self.mac(), self.port(), EPOCH_PENDING, self.seen_s(), false)
    }

    pub(super) fn is_pending(self) -> bool {
        !self.is_empty() && self.epoch() == EPOCH_PENDING
    }

    pub(super) fn is_busy(self) -> bool {
        self.state == BUSY
    }

    pub(super) fn has(self, mac: Mac) -> bool {
        self.key >> 16 == mac.to_u64()
    }

    pub(super) fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.key.to_be_bytes();
        Mac([a, b, c, d, e, f])
    }

    pub(super) fn port(self) -> PortId {
        let [.., high, low] = self.key.to_be_bytes();
        PortId(u16::from_be_bytes([high, low]))
    }

    pub(super) fn epoch(self) -> u32 {
        let [.., a, b, c, d] = self.state.to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) >> 1
    }

    pub(super) fn seen_s(self) -> u32 {
        let [a, b, c, d, ..] = self.state.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    pub(super) fn is_static(self) -> bool {
        self.state & 1 != 0
    }
}

/// Eight entries; two cache lines of keys and states that are fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Bucket {
    keys: [AtomicU64; BUCKET_ENTRIES],
    states: [AtomicU64; BUCKET_ENTRIES],
}

impl Bucket {
    /// Reads one entry.
    #[inline]
    pub(super) fn load(&self, at: usize) -> Entry {
        let key = self.keys[at].load(Ordering::Acquire);
        let state = self.states[at].load(Ordering::Acquire);
        let again = self.keys[at].load(Ordering::Relaxed);
        Entry { key: again, state: if again == key { state } else { BUSY } }
    }

    /// Which entries bear this MAC, as a bit each. Looks at all, so that nothing is left to a branch's prediction.
    #[inline]
    pub(super) fn matches(&self, mac: Mac) -> u8 {
        let wanted = mac.to_u64() << 16;
        // What is left of a key that bears it is the port.
        let bears = |key: &AtomicU64| u8::from(key.load(Ordering::Acquire) ^ wanted <= u64::from(u16::MAX));
        self.keys.iter().rev().fold(0, |bits, key| bits << 1 | bears(key))
    }

    /// Puts `new` where `old` was read. False when the entry has changed since, or another thread holds it.
    pub(super) fn replace(&self, at: usize, old: Entry, new: Entry) -> bool {
        if old.is_busy() {
            return false;
        }
        let state = &self.states[at];
        if state.compare_exchange(old.state, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        // Two entries of one port, seen in one second, have one state: the key must be what was read, too.
        let unchanged = self.keys[at].load(Ordering::Relaxed) == old.key;
        if unchanged {
            self.keys[at].store(new.key, Ordering::Release);
        }
        state.store(if unchanged { new.state } else { old.state }, Ordering::Release);
        unchanged
    }

    /// Writes a later last-seen time. False when the entry has changed since it was read as `old`.
    pub(super) fn refresh(&self, at: usize, old: Entry, seen_s: u32) -> bool {
        let state = old.state & u64::from(u32::MAX) | u64::from(seen_s) << 32;
        !old.is_busy()
            && self.states[at].compare_exchange(old.state, state, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x02, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

    #[test]
    fn an_entry_gives_back_what_it_was_made_of() {
        for (epoch, seen_s, is_static) in [(1, 0, false), (EPOCH_BUSY - 1, u32::MAX, true), (77, 300, false)] {
            let entry = Entry::new(MAC, PortId(0xfedc), epoch, seen_s, is_static);
            assert_eq!((entry.mac(), entry.port()), (MAC, PortId(0xfedc)));
            assert_eq!((entry.epoch(), entry.seen_s(), entry.is_static()), (epoch, seen_s, is_static));
            assert!(entry.has(MAC) && !entry.is_empty() && !entry.is_busy() && !entry.is_pending());
            assert!(entry.pending().is_pending() && entry.pending().has(MAC));
        }
        assert_eq!(Entry { key: 0, state: BUSY }.epoch(), EPOCH_BUSY);
    }

    #[test]
    fn a_writer_that_read_an_older_entry_changes_nothing() {
        let bucket = Bucket::default();
        let first = Entry::new(MAC, PortId(1), 5, 9, false);
        assert!(bucket.replace(3, Entry::EMPTY, first));
        assert!(!bucket.replace(3, Entry::EMPTY, Entry::new(Mac::BROADCAST, PortId(2), 6, 9, false)));
        // The same state (port, second) under another key.
        let twin = Entry::new(Mac::BROADCAST, PortId(1), 5, 9, false);
        assert!(!bucket.replace(3, twin, Entry::EMPTY));
        assert!(bucket.refresh(3, first, 10));
        assert!(!bucket.refresh(3, first, 11), "it was read before the other refresh");
        assert_eq!(bucket.load(3), Entry::new(MAC, PortId(1), 5, 10, false));
    }

    #[test]
    fn an_entry_that_is_held_reads_as_busy_and_is_left_alone() {
        let bucket = Bucket::default();
        bucket.states[0].store(BUSY, Ordering::Relaxed);
        let held = bucket.load(0);
        assert!(held.is_busy());
        assert!(!bucket.replace(0, held, Entry::EMPTY));
        assert!(!bucket.refresh(0, held, 4));
    }
}
