//! What leaves the NIC for which remote VTEP with which outer Ethernet header: written by the control side, read by workers
//! once a frame, without locks.
//!
//! It is no part of the snapshot: nothing that is decided rests on it, and it changes with every neighbour's whim. A remote
//! that is not in it is sent to by UDP, which is always right.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use podwire_control::model::Mac;

use crate::table::fast_map::FastMap;

/// How frames for one remote VTEP leave the NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// The next hop's MAC.
    pub next_hop: Mac,
    /// The NIC's own.
    pub source: Mac,
    /// Largest outer IP packet in bytes: what NIC, route and path take.
    pub mtu: u16,
    /// TTL or hop limit, as the kernel gives to packets of its own.
    pub hop_limit: u8,
}

/// By remote address.
pub type WayTable = FastMap<IpAddr, Way>;

/// The table in force, shared by the sending halves of all workers.
#[derive(Debug, Default)]
pub struct Ways(ArcSwap<WayTable>);

impl Ways {
    /// The way to a remote; none when it is to be sent to by UDP.
    #[inline]
    #[must_use]
    pub fn get(&self, remote: IpAddr) -> Option<Way> {
        self.0.load().get(&remote).copied()
    }

    /// Puts another table in force and gives the one before, which the caller keeps until nobody else has it: a worker
    /// that looks something up just now shall not have to free it.
    #[must_use]
    pub fn replace(&self, table: WayTable) -> Arc<WayTable> {
        self.0.swap(Arc::new(table))
    }
}
