//! The forwarding information base: longest prefix match for IPv4 and IPv6, immutable once built.
//!
//! Either family has the structure that suits it, so that a lookup costs about the same in a table of a hundred
//! prefixes and of a hundred thousand: IPv4 a trie over bytes (`trie`), IPv6 a hash table that is searched by prefix
//! length (`lengths`).
//!
//! The values are indices into the snapshot's next hops; nothing here knows what they mean.

mod lengths;
#[cfg(test)]
mod tests;
mod trie;

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// An address family that can be looked up.
pub trait FibAddress: Copy + Debug {
    /// An address with a prefix length.
    type Prefix: Copy + Debug;
    /// How its prefixes are searched.
    type Table: LongestMatch<Self>;

    /// The address's bits, first bit highest, zeros behind.
    fn bits(self) -> u128;

    /// A prefix's bits with the host bits cleared, and its length in bits.
    fn prefix_bits(prefix: Self::Prefix) -> (u128, u8);
}

impl FibAddress for Ipv4Addr {
    type Prefix = Ipv4Net;
    type Table = trie::Trie;

    fn bits(self) -> u128 {
        u128::from(self.to_bits()) << 96
    }

    fn prefix_bits(prefix: Ipv4Net) -> (u128, u8) {
        (prefix.network().bits(), prefix.prefix_len())
    }
}

impl FibAddress for Ipv6Addr {
    type Prefix = Ipv6Net;
    type Table = lengths::Lengths;

    fn bits(self) -> u128 {
        self.to_bits()
    }

    fn prefix_bits(prefix: Ipv6Net) -> (u128, u8) {
        (prefix.network().to_bits(), prefix.prefix_len())
    }
}

/// A structure that finds the longest prefix.
pub trait LongestMatch<A>: Clone + PartialEq + Eq + Debug {
    /// Builds it from routes sorted by bits and then length, no two alike.
    fn build(routes: &[Route]) -> Self;

    /// The value of the longest prefix that covers the address.
    fn lookup(&self, address: A) -> Option<u32>;

    /// As `lookup`, with the prefix's length in bits.
    fn lookup_prefix(&self, address: A) -> Option<(u8, u32)>;

    /// Bytes of memory it takes.
    fn memory_bytes(&self) -> usize;
}

/// A prefix on its way into the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// First bit highest, host bits clear.
    bits: u128,
    /// Prefix length in bits.
    len: u8,
    value: u32,
}

impl Route {
    fn of<A: FibAddress>((prefix, value): (A::Prefix, u32)) -> Self {
        assert!(value <= Fib::<A>::VALUE_MAX, "next hop {value} of {prefix:?} does not fit an entry");
        let (bits, len) = A::prefix_bits(prefix);
        Self { bits, len, value }
    }

    fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits).leading_zeros() >= u32::from(self.len)
    }
}

/// Longest prefix match over one address family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fib<A: FibAddress> {
    table: A::Table,
    prefixes: usize,
}

impl<A: FibAddress> Fib<A> {
    /// Largest value a prefix may have.
    pub const VALUE_MAX: u32 = (1 << 31) - 2;

    /// Builds the table. Host bits of a prefix are ignored; of equal prefixes the last one wins.
    ///
    /// # Panics
    /// When a value is larger than [`Fib::VALUE_MAX`].
    #[must_use]
    pub fn build(prefixes: impl IntoIterator<Item = (A::Prefix, u32)>) -> Self {
        let mut routes: Vec<Route> = prefixes.into_iter().map(Route::of::<A>).collect();
        // Stable, so that of equal prefixes the last stays last; `dedup_by` then drops the earlier ones' values.
        routes.sort_by_key(|route| (route.bits, route.len));
        routes.dedup_by(|later, kept| {
            let equal = (later.bits, later.len) == (kept.bits, kept.len);
            if equal {
                kept.value = later.value;
            }
            equal
        });
        Self { table: A::Table::build(&routes), prefixes: routes.len() }
    }

    /// The value of the longest prefix that covers the address.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> Option<u32> {
        self.table.lookup(address)
    }

    /// The longest prefix that covers the address: its length in bits and its value.
    #[must_use]
    pub fn lookup_prefix(&self, address: A) -> Option<(u8, u32)> {
        self.table.lookup_prefix(address)
    }

    /// Distinct prefixes in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefixes
    }

    /// True when no address is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes == 0
    }

    /// Bytes of memory the table takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

impl<A: FibAddress> Default for Fib<A> {
    fn default() -> Self {
        Self::build([])
    }
}
