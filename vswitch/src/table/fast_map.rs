//! A hash map for keys that the configuration states, read once a frame: its hash takes a few nanoseconds.
//!
//! Not for keys that come from the network: whoever may choose keys could choose colliding ones. To look such a key
//! up is harmless.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from stated keys.
pub type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// Multiplies each word into the hash and folds the product's halves.
#[derive(Clone, Copy, Debug, Default)]
pub struct MixHasher(u64);

impl MixHasher {
    #[inline]
    fn add(&mut self, word: u64) {
        let (low, high) = (self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15).carrying_mul(0xd6e8_feb8_6659_fd93, 0);
        self.0 = low ^ high;
    }
}

impl Hasher for MixHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_be_bytes(*word));
        }
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.add(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    /// How an enum says which of its kinds it is.
    #[inline]
    fn write_isize(&mut self, word: isize) {
        self.add(u64::from_ne_bytes((word as i64).to_ne_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn hash(address: impl Into<IpAddr>) -> u64 {
        BuildHasherDefault::<MixHasher>::default().hash_one(address.into())
    }

    #[test]
    fn neighbouring_addresses_spread_over_both_ends_of_the_hash() {
        // A hash map takes the bucket from the low bits and a tag from the high ones.
        for part in [|hash: u64| hash & 0x3ff, |hash: u64| hash >> 57] {
            let v4: HashSet<u64> = (0..4_096).map(|n| part(hash(Ipv4Addr::from_bits(0xac1f_0000 + n)))).collect();
            let v6: HashSet<u64> =
                (0..4_096).map(|n| part(hash(Ipv6Addr::from_bits((0xfd00_u128 << 112) + n)))).collect();
            let all = if part(u64::MAX) == 0x3ff { 1_024 } else { 128 };
            assert!(v4.len() > all * 9 / 10 && v6.len() > all * 9 / 10, "{} and {} of {all}", v4.len(), v6.len());
        }
    }

    #[test]
    fn every_byte_of_a_key_counts() {
        let bits = 0xfd00_0244_0001_0000_0000_0000_0000_000a_u128;
        let hashes: HashSet<u64> = (0..128).map(|bit| hash(Ipv6Addr::from_bits(bits ^ (1 << bit)))).collect();
        assert_eq!(hashes.len(), 128);
        assert_ne!(hash(Ipv4Addr::LOCALHOST), hash(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
    }
}
