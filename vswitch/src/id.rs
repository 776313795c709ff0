//! Small integer ids of the engine's objects, as newtypes, and the engine's clock reading.
//!
//! Ids are slots: they are reused after an object is gone, so whatever outlives a snapshot stores an id
//! together with the object's epoch (see `table::mac`).

use std::fmt;

/// Slot of a port in the snapshot's port table. 16 bits, so that a MAC entry packs into one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u16);

impl PortId {
    /// "No port": what a frame bears before a port has received it.
    pub const NONE: Self = Self(u16::MAX);

    /// The slot as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Slot of a bridge (one L2 segment) in the snapshot's bridge table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BridgeId(pub u16);

impl BridgeId {
    /// The slot as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Slot of a remote VTEP in the snapshot's VTEP table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VtepId(pub u16);

impl VtepId {
    /// The slot as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A monotonic time in nanoseconds, read once a pass by the worker and handed down.
///
/// The pipeline never reads a clock itself; tests make these values up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct MonoNs(pub u64);

impl MonoNs {
    /// Whole seconds since the clock's start, as tables with second resolution store them.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
