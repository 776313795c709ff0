//! IPv4's longest prefix match: a multibit trie over the address's bytes.
//!
//! The root is a plain array indexed by the first 8 bits (small tables) or 16 bits (large ones); below it each node
//! decides one byte, so a lookup passes three nodes at most. Prefixes are pushed down to the leaves, so it never turns
//! back. A node keeps only where its 256 slots change (a bitmap and one packed entry a run), unless they change often,
//! and may skip bytes that all its prefixes share.

use std::net::Ipv4Addr;

use super::{LongestMatch, Route};

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

/// One byte's decision. One cache line.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(align(64))]
struct Node {
    /// Which slots begin a run of equal entries; slot 0 always does.
    starts: [u64; 4],
    /// What all prefixes below share before the byte decided here, zeros behind.
    shared: u32,
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
    fn entry_at(&self, address: u32) -> usize {
        let Ok(slot) = u8::try_from((address ^ self.shared) >> self.bits_behind) else { return self.base as usize };
        if self.full {
            return self.base as usize + 1 + usize::from(slot);
        }
        let word = usize::from(slot >> 6);
        let until_slot = u64::MAX >> (63 - (slot & 63));
        let run = u32::from(self.ranks[word]) + (self.starts[word] & until_slot).count_ones();
        (self.base + run) as usize
    }
}

/// Longest prefix match over IPv4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trie {
    root_bits: u8,
    nodes: Vec<Node>,
    /// The root's slots, then the nodes' runs.
    entries: Vec<u32>,
    /// Beside each entry the length of the prefix it came from; read by `lookup_prefix` only.
    lengths: Vec<u8>,
}

impl LongestMatch<Ipv4Addr> for Trie {
    fn build(routes: &[Route]) -> Self {
        let root_bits = if routes.len() < WIDE_ROOT_PREFIXES { NARROW_ROOT_BITS } else { WIDE_ROOT_BITS };
        let mut root = vec![Cell { entry: NONE, len: 0 }; 1 << root_bits];
        let mut builder = Builder::with_root(root.len());
        builder.expand(&mut root, 0, root_bits, routes);
        for (at, cell) in root.iter().enumerate() {
            builder.entries[at] = cell.entry;
            builder.lengths[at] = cell.len;
        }
        builder.finish(root_bits)
    }

    #[inline]
    fn lookup(&self, address: Ipv4Addr) -> Option<u32> {
        self.entries[self.walk(address.to_bits())].checked_sub(1)
    }

    fn lookup_prefix(&self, address: Ipv4Addr) -> Option<(u8, u32)> {
        let at = self.walk(address.to_bits());
        self.entries[at].checked_sub(1).map(|value| (self.lengths[at], value))
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.entries[..]) + size_of_val(&self.lengths[..])
    }
}

impl Trie {
    /// Where the entry that decides an address lies.
    #[inline]
    fn walk(&self, address: u32) -> usize {
        let mut at = (address >> (32 - self.root_bits)) as usize;
        loop {
            let entry = self.entries[at];
            if entry & CHILD == 0 {
                return at;
            }
            at = self.nodes[(entry & !CHILD) as usize].entry_at(address);
        }
    }
}

impl Route {
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

    fn finish(mut self, root_bits: u8) -> Trie {
        self.nodes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.lengths.shrink_to_fit();
        let Self { nodes, entries, lengths } = self;
        Trie { root_bits, nodes, entries, lengths }
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
        let bits_behind = 24 - depth_bits;
        let address = routes.first().map_or(0, |route| u32::try_from(route.bits >> 96).unwrap_or(0));
        // Not shifted by 32 at once, which it may be in all.
        let shared = address >> bits_behind >> 8 << 8 << bits_behind;
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
