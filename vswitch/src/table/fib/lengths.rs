//! IPv6's longest prefix match: a hash table of prefixes, searched by length (Waldvogel et al., SIGCOMM 1997).
//!
//! A lookup halves the lengths that occur in the table: where it finds the address's first bits it goes on among the
//! longer ones, else among the shorter ones. So that it is led to a long prefix, that prefix leaves a marker at each
//! shorter length on its way; and so that it never has to turn back, each slot bears the longest prefix that covers
//! it. That makes one probe for a table of one length, two for three, and eight for all 128, however many prefixes
//! there are.
//!
//! Who sends packets chooses what is looked up, and not what lies in the table, so the hash need not withstand anyone.

use std::net::Ipv6Addr;

use super::{LongestMatch, Route};
use crate::table::FastMap;

/// Of so many slots, [`FILLED`] are in use at most.
const SLOTS_FOR: usize = 5;
const FILLED: usize = 4;

/// A prefix or a marker. Half a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(align(32))]
struct Slot {
    bits: u128,
    /// The covering prefix's value and one; 0 when none covers it.
    value: u32,
    /// Length in bits; 0 when the slot is free, since the default route lies elsewhere.
    len: u8,
    /// The covering prefix's length.
    value_len: u8,
    /// Whether there are longer prefixes with these bits, in the longer lengths of the search.
    longer: bool,
}

/// What was found so far.
type Best = Option<(u8, u32)>;

/// Longest prefix match over IPv6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lengths {
    /// Lengths that occur, ascending, without 0.
    lengths: Vec<u8>,
    /// A power of two, probed one by one from where the hash says.
    slots: Vec<Slot>,
    default: Best,
}

impl LongestMatch<Ipv6Addr> for Lengths {
    fn build(routes: &[Route]) -> Self {
        let mut lengths: Vec<u8> = routes.iter().map(|route| route.len).filter(|&len| len > 0).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut found: FastMap<(u128, u8), Slot> = FastMap::default();
        // Those that cover the route at hand; sorted as they are, each comes before what it covers.
        let mut covering: Vec<Route> = Vec::new();
        for route in routes {
            while covering.pop_if(|last| !last.covers(route)).is_some() {}
            covering.push(*route);
            for (len, longer) in way_to(&lengths, route.len) {
                let bits = route.bits & mask(len);
                let slot = found.entry((bits, len)).or_insert_with(|| {
                    let best = covering.iter().rfind(|prefix| prefix.len <= len);
                    let (value, value_len) = best.map_or((0, 0), |prefix| (prefix.value + 1, prefix.len));
                    Slot { bits, value, len, value_len, longer: false }
                });
                slot.longer |= longer;
            }
        }
        let mut ordered: Vec<Slot> = found.into_values().collect();
        ordered.sort_unstable_by_key(|slot| (slot.bits, slot.len));
        let default = routes.iter().find(|route| route.len == 0).map(|route| (0, route.value));
        Self { lengths, slots: placed(&ordered), default }
    }

    #[inline]
    fn lookup(&self, address: Ipv6Addr) -> Option<u32> {
        self.search(address.to_bits()).map(|(_, value)| value)
    }

    fn lookup_prefix(&self, address: Ipv6Addr) -> Option<(u8, u32)> {
        self.search(address.to_bits())
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&self.slots[..]) + size_of_val(&self.lengths[..])
    }
}

impl Lengths {
    #[inline]
    fn search(&self, address: u128) -> Best {
        let mut best = self.default;
        let mut lengths = &self.lengths[..];
        while let Some((shorter, [len, longer @ ..])) = lengths.split_at_checked(lengths.len() / 2) {
            let Some(slot) = self.probe(address & mask(*len), *len) else {
                lengths = shorter;
                continue;
            };
            if let Some(value) = slot.value.checked_sub(1) {
                best = Some((slot.value_len, value));
            }
            if !slot.longer {
                break;
            }
            lengths = longer;
        }
        best
    }

    #[inline]
    fn probe(&self, bits: u128, len: u8) -> Option<&Slot> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash(bits, len);
        loop {
            let slot = self.slots.get(at & mask)?;
            if slot.len == len && slot.bits == bits {
                return Some(slot);
            }
            if slot.len == 0 {
                return None;
            }
            at = at.wrapping_add(1);
        }
    }
}

/// The lengths at which a search for a prefix looks, and whether it goes on among the longer ones there.
fn way_to(lengths: &[u8], wanted: u8) -> impl Iterator<Item = (u8, bool)> {
    let mut rest = lengths;
    std::iter::from_fn(move || {
        while let Some((shorter, [len, longer @ ..])) = rest.split_at_checked(rest.len() / 2) {
            if *len > wanted {
                rest = shorter;
                continue;
            }
            rest = if *len == wanted { &[] } else { longer };
            return Some((*len, *len < wanted));
        }
        None
    })
}

/// The slots, each where a probe finds it.
fn placed(ordered: &[Slot]) -> Vec<Slot> {
    if ordered.is_empty() {
        return Vec::new();
    }
    let size = (ordered.len() * SLOTS_FOR).div_ceil(FILLED).max(ordered.len() + 1).next_power_of_two();
    let mut slots = vec![Slot::default(); size];
    for slot in ordered {
        let mut at = hash(slot.bits, slot.len);
        while slots[at & (size - 1)].len != 0 {
            at = at.wrapping_add(1);
        }
        slots[at & (size - 1)] = *slot;
    }
    slots
}

/// The first `len` bits, of 1 to 128.
#[inline]
fn mask(len: u8) -> u128 {
    u128::MAX << (128 - u32::from(len))
}

/// Folds the product of both halves.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn hash(bits: u128, len: u8) -> usize {
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let (a, b) = (high ^ u64::from(len) ^ 0x9e37_79b9_7f4a_7c15, low ^ 0xd6e8_feb8_6659_fd93);
    let (product_low, product_high) = a.carrying_mul(b, 0);
    (product_low ^ product_high) as usize
}
