//! The forwarding information base: longest prefix match for IPv4 and IPv6, immutable once built.
//!
//! A multibit trie over the address's bytes. The root is a plain array indexed by the first 8 bits (small tables) or
//! 16 bits (large ones); below it each node decides one byte. Prefixes are pushed down to the leaves, so a lookup
//! never turns back. A node keeps only where its 256 slots change (a bitmap and one packed entry a run), unless they
//! change often, and may skip bytes that all its prefixes share, so sparse IPv6 tables stay small and paths short: at
//! most one node a byte, however many prefixes there are.
//!
//! The values are indices into the snapshot's next hops; nothing here knows what they mean.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Set in an entry that names a node; the rest is the node's index.
const CHILD: u32 = 1 << 31;
/// The entry of a slot no prefix covers. A covered slot's is its value and one.
const NONE: u32 = 0;
/// Slots below one byte.
const SLOTS: usize = 256;
/// Bits the root decides in a table of fewer prefixes than [`WIDE_ROOT_PREFIXES`] (1.3 KB).
const NARROW_ROOT_BITS: u8 = 8;
/// Bits the root decides in a larger table (320 KB).
const WIDE_ROOT_BITS: u8 = 16;
/// Runs from which on a node has an entry a slot (1.3 KB): counting runs takes most of a lookup's time.
const FULL_NODE_RUNS: usize = 16;
/// Prefixes from which on the wide root pays.
const WIDE_ROOT_PREFIXES: usize = 1_024;

/// An address family the trie can look up.
pub trait FibAddress: Copy + Debug {
    /// An address with a prefix length.
    type Prefix: Copy + Debug;

    /// The address's bits, first bit highest, zeros behind.
    fn bits(self) -> u128;

    /// The byte in front of the last `bits_behind` of the 128 bits; none when a bit before it is not as in `shared`.
    fn byte_behind(self, shared: u128, bits_behind: u8) -> Option<u8>;

    /// A prefix's bits with the host bits cleared, and its length in bits.
    fn prefix_bits(prefix: Self::Prefix) -> (u128, u8);
}

impl FibAddress for Ipv4Addr {
    type Prefix = Ipv4Net;

    fn bits(self) -> u128 {
        u128::from(self.to_bits()) << 96
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "of 128 bits, the upper 32 are taken")]
    fn byte_behind(self, shared: u128, bits_behind: u8) -> Option<u8> {
        // In the address's own width, which is several times as fast.
        let differing = self.to_bits() ^ (shared >> 96) as u32;
        u8::try_from(differing >> (bits_behind - 96)).ok()
    }

    fn prefix_bits(prefix: Ipv4Net) -> (u128, u8) {
        (prefix.network().bits(), prefix.prefix_len())
    }
}

impl FibAddress for Ipv6Addr {
    type Prefix = Ipv6Net;

    fn bits(self) -> u128 {
        self.to_bits()
    }

    #[inline]
    fn byte_behind(self, shared: u128, bits_behind: u8) -> Option<u8> {
        u8::try_from((self.to_bits() ^ shared) >> bits_behind).ok()
    }

    fn prefix_bits(prefix: Ipv6Net) -> (u128, u8) {
        (prefix.network().to_bits(), prefix.prefix_len())
    }
}

/// One byte's decision. One cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Node {
    /// Which slots begin a run of equal entries; slot 0 always does.
    starts: [u64; 4],
    /// What all prefixes below share before the byte decided here, zeros behind.
    shared: u128,
    /// Its entries: at `base` the one of addresses that do not have the shared bits, behind it one a run.
    base: u32,
    /// Runs that begin in the words of `starts` before each.
    ranks: [u8; 4],
    /// Bits of an address behind the byte decided here.
    bits_behind: u8,
    /// Whether each slot is a run of its own.
    full: bool,
}

impl Node {
    /// Where the entry of an address lies.
    #[inline]
    fn entry_at<A: FibAddress>(&self, address: A) -> usize {
        let Some(slot) = address.byte_behind(self.shared, self.bits_behind) else { return self.base as usize };
        if self.full {
            return self.base as usize + 1 + usize::from(slot);
        }
        let word = usize::from(slot >> 6);
        let until_slot = u64::MAX >> (63 - (slot & 63));
        let run = u32::from(self.ranks[word]) + (self.starts[word] & until_slot).count_ones();
        (self.base + run) as usize
    }
}

/// Longest prefix match over one address family.
#[derive(Clone, Debug)]
pub struct Fib<A> {
    root_bits: u8,
    nodes: Vec<Node>,
    /// The root's slots, then the nodes' runs.
    entries: Vec<u32>,
    /// Beside each entry the length of the prefix it came from; read by [`Fib::lookup_prefix`] only.
    lengths: Vec<u8>,
    prefixes: usize,
    family: PhantomData<A>,
}

impl<A: FibAddress> Fib<A> {
    /// Largest value a prefix may have.
    pub const VALUE_MAX: u32 = CHILD - 2;

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

        let root_bits = if routes.len() < WIDE_ROOT_PREFIXES { NARROW_ROOT_BITS } else { WIDE_ROOT_BITS };
        let mut root = vec![Cell { entry: NONE, len: 0 }; 1 << root_bits];
        let mut builder = Builder::with_root(root.len());
        builder.expand(&mut root, 0, root_bits, &routes);
        for (at, cell) in root.iter().enumerate() {
            builder.entries[at] = cell.entry;
            builder.lengths[at] = cell.len;
        }
        builder.finish(root_bits, routes.len())
    }

    /// The value of the longest prefix that covers the address.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> Option<u32> {
        self.entries[self.walk(address)].checked_sub(1)
    }

    /// The longest prefix that covers the address: its length in bits and its value.
    #[must_use]
    pub fn lookup_prefix(&self, address: A) -> Option<(u8, u32)> {
        let at = self.walk(address);
        self.entries[at].checked_sub(1).map(|value| (self.lengths[at], value))
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
        size_of_val(&self.nodes[..]) + size_of_val(&self.entries[..]) + size_of_val(&self.lengths[..])
    }

    /// Where the entry that decides an address lies.
    #[inline]
    fn walk(&self, address: A) -> usize {
        let [first, second, ..] = address.bits().to_be_bytes();
        let mut at = usize::from(u16::from_be_bytes([first, second]) >> (16 - self.root_bits));
        loop {
            let entry = self.entries[at];
            if entry & CHILD == 0 {
                return at;
            }
            at = self.nodes[(entry & !CHILD) as usize].entry_at(address);
        }
    }
}

impl<A: FibAddress> Default for Fib<A> {
    fn default() -> Self {
        Self::build([])
    }
}

/// A prefix on its way into the table.
#[derive(Clone, Copy)]
struct Route {
    bits: u128,
    len: u8,
    value: u32,
}

impl Route {
    fn of<A: FibAddress>((prefix, value): (A::Prefix, u32)) -> Self {
        assert!(value <= Fib::<A>::VALUE_MAX, "next hop {value} of {prefix:?} does not fit an entry");
        let (bits, len) = A::prefix_bits(prefix);
        Self { bits, len, value }
    }

    /// Which slot of a node at `depth_bits` it belongs to.
    fn slot(&self, depth_bits: u8, stride_bits: u8) -> usize {
        let [first, second, ..] = (self.bits << depth_bits).to_be_bytes();
        usize::from(u16::from_be_bytes([first, second]) >> (16 - stride_bits))
    }
}

/// A slot while it is built: its entry, and the length of the prefix that gave it.
#[derive(Clone, Copy, PartialEq)]
struct Cell {
    entry: u32,
    len: u8,
}

struct Builder {
    nodes: Vec<Node>,
    entries: Vec<u32>,
    lengths: Vec<u8>,
}

impl Builder {
    /// With room for the root's slots, which are filled in last.
    fn with_root(slots: usize) -> Self {
        Self { nodes: Vec::new(), entries: vec![NONE; slots], lengths: vec![0; slots] }
    }

    fn finish<A>(mut self, root_bits: u8, prefixes: usize) -> Fib<A> {
        self.nodes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.lengths.shrink_to_fit();
        let Self { nodes, entries, lengths } = self;
        Fib { root_bits, nodes, entries, lengths, prefixes, family: PhantomData }
    }

    /// Writes the routes (sorted, all longer than `depth_bits`, or the root's) over the slots of one level.
    ///
    /// Sorted by bits and then length, a prefix comes right before those it covers. So what covers a slot has been
    /// written when the slot's longer prefixes come, and these lie together.
    fn expand(&mut self, cells: &mut [Cell], depth_bits: u8, stride_bits: u8, routes: &[Route]) {
        let below_bits = depth_bits + stride_bits;
        let mut rest = routes;
        while let [first, ..] = rest {
            let slot = first.slot(depth_bits, stride_bits);
            if first.len <= below_bits {
                let span = 1 << (below_bits - first.len);
                cells[slot..slot + span].fill(Cell { entry: first.value + 1, len: first.len });
                rest = &rest[1..];
            } else {
                let together = rest.partition_point(|route| route.slot(depth_bits, stride_bits) == slot);
                let (group, others) = rest.split_at(together);
                cells[slot] = self.node(below_bits, group, cells[slot]);
                rest = others;
            }
        }
    }

    /// Adds a node for routes that share their first `depth_bits`; `above` is what covers them all.
    fn node(&mut self, depth_bits: u8, routes: &[Route], above: Cell) -> Cell {
        let depth_bits = depth_bits + skip_bits(depth_bits, routes);
        let mut cells = [above; SLOTS];
        self.expand(&mut cells, depth_bits, 8, routes);

        let base = index(self.entries.len());
        self.push(above);
        let bits_behind = 120 - depth_bits;
        let shared = routes.first().map_or(0, |route| route.bits >> bits_behind >> 8 << 8 << bits_behind);
        let full = 1 + cells.windows(2).filter(|pair| pair[0] != pair[1]).count() >= FULL_NODE_RUNS;
        let mut node = Node { starts: [0; 4], shared, base, ranks: [0; 4], bits_behind, full };
        let mut runs: u8 = 0;
        for (slot, cell) in cells.iter().enumerate() {
            if slot % 64 == 0 {
                node.ranks[slot / 64] = runs;
            }
            if full || slot == 0 || cells[slot - 1] != *cell {
                node.starts[slot / 64] |= 1 << (slot % 64);
                // Wraps only behind the last word's rank, when all 256 slots differ.
                runs = runs.wrapping_add(1);
                self.push(*cell);
            }
        }
        self.nodes.push(node);
        Cell { entry: CHILD | index(self.nodes.len() - 1), len: 0 }
    }

    fn push(&mut self, cell: Cell) {
        self.entries.push(cell.entry);
        self.lengths.push(cell.len);
    }
}

/// Whole bytes behind `depth_bits` that all routes share and none ends within.
fn skip_bits(depth_bits: u8, routes: &[Route]) -> u8 {
    let (Some(first), Some(last)) = (routes.first(), routes.last()) else { return 0 };
    // Sorted, so what the first and the last share, all share.
    let shared = u8::try_from((first.bits ^ last.bits).leading_zeros()).unwrap_or(u8::MAX);
    let shortest = routes.iter().map(|route| route.len).min().unwrap_or(0);
    shared.min(shortest.saturating_sub(1)).saturating_sub(depth_bits) / 8 * 8
}

/// An index as entries hold it. 200,000 routes (`limits::ROUTES_MAX`) come nowhere near 31 bits.
fn index(at: usize) -> u32 {
    let index = u32::try_from(at).unwrap_or(u32::MAX);
    assert!(index < CHILD, "the FIB has outgrown its 31-bit indices");
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(routes: &[(&str, u32)]) -> Fib<Ipv4Addr> {
        Fib::build(routes.iter().map(|(prefix, value)| (prefix.parse().unwrap(), *value)))
    }

    fn v6(routes: &[(&str, u32)]) -> Fib<Ipv6Addr> {
        Fib::build(routes.iter().map(|(prefix, value)| (prefix.parse().unwrap(), *value)))
    }

    /// The obvious way: the longest of all prefixes that cover the address, the last of equals.
    fn scan<A: FibAddress>(routes: &[(A::Prefix, u32)], address: A) -> Option<(u8, u32)> {
        let covers = |&(prefix, value): &(A::Prefix, u32)| {
            let (bits, len) = A::prefix_bits(prefix);
            ((bits ^ address.bits()).leading_zeros() >= u32::from(len)).then_some((len, value))
        };
        routes.iter().filter_map(covers).max_by_key(|&(len, _)| len)
    }

    #[test]
    fn an_empty_table_covers_nothing_and_values_may_be_zero() {
        assert_eq!(Fib::default().lookup(Ipv4Addr::LOCALHOST), None);
        assert_eq!(Fib::default().lookup(Ipv6Addr::UNSPECIFIED), None);
        assert_eq!(v4(&[("0.0.0.0/0", 0)]).lookup(Ipv4Addr::BROADCAST), Some(0));
    }

    #[test]
    fn the_longest_prefix_wins_from_default_to_host_route() {
        let fib = v4(&[
            ("10.244.2.7/32", 4),
            ("0.0.0.0/0", 1),
            ("10.244.2.0/24", 3),
            ("10.244.0.0/16", 2),
            ("10.244.2.128/25", 5),
            ("10.240.0.0/12", 6),
        ]);
        for (address, expected) in [
            ("192.0.2.1", (0, 1)),
            ("10.244.3.1", (16, 2)),
            ("10.244.2.6", (24, 3)),
            ("10.244.2.7", (32, 4)),
            ("10.244.2.8", (24, 3)),
            ("10.244.2.200", (25, 5)),
            ("10.245.0.1", (12, 6)),
            ("255.255.255.255", (0, 1)),
        ] {
            assert_eq!(fib.lookup_prefix(address.parse().unwrap()), Some(expected), "{address}");
            assert_eq!(fib.lookup(address.parse().unwrap()), Some(expected.1), "{address}");
        }
    }

    #[test]
    fn ipv6_bytes_that_are_skipped_are_compared() {
        let fib = v6(&[("fd00:244:2::/64", 2), ("fd00:244:3::/64", 3), ("fd00:244:2::7/128", 4), ("fd00::/16", 1)]);
        for (address, expected) in [
            ("fd00:244:2::1", Some((64, 2))),
            ("fd00:244:3:0:ffff::", Some((64, 3))),
            ("fd00:244:2::7", Some((128, 4))),
            ("fd00:244:2:0:1::7", Some((64, 2))),
            ("fd00:245:2::1", Some((16, 1))),
            ("fd00:244:2:1::7", Some((16, 1))),
            ("fd01:244:2::1", None),
        ] {
            assert_eq!(fib.lookup_prefix(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn of_equal_prefixes_the_last_wins_and_host_bits_do_not_matter() {
        let fib = v4(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 9), ("10.7.7.7/8", 2)]);
        assert_eq!(fib.lookup(Ipv4Addr::new(10, 0, 0, 1)), Some(2));
        assert_eq!(fib.len(), 2);
    }

    #[test]
    fn a_small_table_is_small_and_a_large_one_reasonable() {
        let nodes = |count: u32| {
            (0..count).map(|n| {
                (Ipv6Net::new_assert(Ipv6Addr::from_bits((0xfd00_0244_u128 << 96) | (u128::from(n) << 64)), 64), n)
            })
        };
        let small = Fib::<Ipv6Addr>::build(nodes(20)).memory_bytes();
        assert!(small < 4_096, "{small} bytes");
        let large = Fib::<Ipv6Addr>::build(nodes(100_000)).memory_bytes();
        assert!(large < 2 << 20, "{large} bytes");
        // Far apart, so that nothing but the skipped bytes keeps it small: a node and three entries each.
        let sparse = (0..100_000_u128).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), 1));
        let sparse = Fib::<Ipv6Addr>::build(
            sparse.map(|(bits, value)| (Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 128), value)),
        )
        .memory_bytes();
        assert!(sparse < 24 << 20, "{sparse} bytes");
    }

    #[test]
    fn every_slot_of_a_node_may_differ() {
        let hosts: Vec<_> =
            (0..256).map(|n| (Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + n), 32), n)).collect();
        let fib = Fib::<Ipv4Addr>::build(hosts);
        assert!((0..256).all(|n| fib.lookup(Ipv4Addr::from_bits(0x0a00_0000 + n)) == Some(n)));
        assert_eq!(fib.lookup(Ipv4Addr::new(10, 0, 1, 0)), None);
    }

    #[test]
    fn a_large_table_agrees_with_a_scan() {
        // Above `WIDE_ROOT_PREFIXES`, of all lengths, crowded into a few bytes so that they overlap.
        let routes: Vec<_> = (0..3_000_u32)
            .map(|n| {
                let bits = n.wrapping_mul(0x9e37_79b9) & 0x0707_0fff;
                (Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), u8::try_from(n % 33).unwrap()), n)
            })
            .collect();
        let fib = Fib::<Ipv4Addr>::build(routes.clone());
        for n in 0..2_000_u32 {
            let address = Ipv4Addr::from_bits(n.wrapping_mul(0x85eb_ca6b) & 0x0707_0fff);
            assert_eq!(fib.lookup_prefix(address), scan(&routes, address), "{address}");
        }
    }

    /// Addresses that share bytes often: each byte is one of few.
    fn crowded() -> impl Strategy<Value = u128> {
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 0x80, 0xff]), 16)
            .prop_map(|bytes| bytes.into_iter().fold(0, |bits, byte| bits << 8 | u128::from(byte)))
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_scan(
            routes in prop::collection::vec((crowded(), 0..=128u8, 0..1_000u32), 0..60),
            addresses in prop::collection::vec(crowded(), 20),
        ) {
            let v6: Vec<_> = routes.iter().map(|&(bits, len, value)| (Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len), value)).collect();
            let top = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap());
            let v4: Vec<_> =
                routes.iter().map(|&(bits, len, value)| (Ipv4Net::new_assert(top(bits), len.min(32)), value)).collect();
            let fib6 = Fib::<Ipv6Addr>::build(v6.clone());
            let fib4 = Fib::<Ipv4Addr>::build(v4.clone());
            // The prefixes' own addresses too, and the ones right before and behind them.
            let near = routes.iter().flat_map(|&(bits, ..)| [bits, bits.wrapping_sub(1), bits.wrapping_add(1 << 96)]);
            for bits in addresses.into_iter().chain(near) {
                let address = Ipv6Addr::from_bits(bits);
                prop_assert_eq!(fib6.lookup_prefix(address), scan(&v6, address), "{}", address);
                prop_assert_eq!(fib6.lookup(address), scan(&v6, address).map(|(_, value)| value));
                let address = top(bits);
                prop_assert_eq!(fib4.lookup_prefix(address), scan(&v4, address), "{}", address);
            }
        }
    }
}
