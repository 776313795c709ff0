//! The ports of a snapshot, by slot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;
use podwire_control::model::{Bandwidth, Mac, RateLimit};

use super::Role;
use crate::id::{BridgeId, PortId};
use crate::port::PortCaps;
use crate::table::policer::Policer;

/// All ports. What is read of one for every frame is kept once more, close together, so that it stays in cache.
#[derive(PartialEq, Debug, Default)]
pub struct PortTable {
    entries: Vec<Option<PortEntry>>,
    briefs: Vec<PortBrief>,
}

impl PortTable {
    /// A table of these.
    #[must_use]
    pub fn new(entries: Vec<Option<PortEntry>>) -> Self {
        let briefs = entries.iter().map(|entry| entry.as_ref().map_or(PortBrief::ABSENT, PortBrief::of)).collect();
        Self { entries, briefs }
    }

    /// What is read of the port for every frame.
    #[inline]
    #[must_use]
    pub fn brief(&self, id: PortId) -> &PortBrief {
        self.briefs.get(id.index()).unwrap_or(&PortBrief::ABSENT)
    }
}

/// The entries, by slot.
impl Deref for PortTable {
    type Target = [Option<PortEntry>];

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

/// A port in brief.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortBrief {
    /// What becomes of frames it receives.
    pub inlet: Inlet,
    /// What it carries; none when there is no such port.
    pub caps: Option<PortCaps>,
    /// Whether what it is sent is limited.
    pub limits_ingress: bool,
    /// Whether what it sends is limited.
    pub limits_egress: bool,
}

/// Ten bytes: two hundred ports take two kilobytes.
const _: () = assert!(size_of::<PortBrief>() <= 10);

/// Where frames go that a port received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inlet {
    /// Nowhere: the port is none that receives.
    Nowhere,
    /// Out of their tunnel.
    Tunnel,
    /// Onto a bridge.
    Bridge(BridgeId),
}

impl PortBrief {
    const ABSENT: Self = Self { inlet: Inlet::Nowhere, caps: None, limits_ingress: false, limits_egress: false };

    fn of(entry: &PortEntry) -> Self {
        let inlet = match entry.role {
            Role::Uplink => Inlet::Tunnel,
            _ => entry.bridge.map_or(Inlet::Nowhere, Inlet::Bridge),
        };
        let PortLimits { ingress, egress } = &entry.limits;
        Self { inlet, caps: Some(entry.caps), limits_ingress: ingress.is_some(), limits_egress: egress.is_some() }
    }
}

/// One port.
#[derive(Clone, PartialEq, Debug)]
pub struct PortEntry {
    /// Name, as configured.
    pub name: String,
    /// Role.
    pub role: Role,
    /// The bridge it is a member of; tunnels and the uplink have none.
    pub bridge: Option<BridgeId>,
    /// Its own MAC; the zero address for ports that have none.
    pub mac: Mac,
    /// Largest L3 packet in bytes.
    pub mtu: u16,
    /// What it carries.
    pub caps: PortCaps,
    /// Source addresses it may use; none when it may use any.
    pub guard: Option<Arc<SourceGuard>>,
    /// How fast it may be.
    pub limits: PortLimits,
    /// The generation in which it became what it is.
    pub epoch: u64,
}

/// The limits of a port's bandwidth; they survive snapshots while they do not change.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PortLimits {
    /// Of what it is sent.
    pub ingress: Option<Arc<Policer>>,
    /// Of what it sends.
    pub egress: Option<Arc<Policer>>,
}

impl PortLimits {
    /// Fresh ones.
    #[must_use]
    pub fn new(bandwidth: Bandwidth) -> Self {
        let policer = |limit: RateLimit| Arc::new(Policer::new(limit));
        Self { ingress: bandwidth.ingress.map(policer), egress: bandwidth.egress.map(policer) }
    }

    /// With the old policer of each direction whose limit is the same.
    #[must_use]
    pub fn or_old(self, old: &Self) -> Self {
        let kept = |new: Option<Arc<Policer>>, old: &Option<Arc<Policer>>| if new == *old { old.clone() } else { new };
        Self { ingress: kept(self.ingress, &old.ingress), egress: kept(self.egress, &old.egress) }
    }
}

/// What a guarded port may send from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceGuard {
    /// Own IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// Own IPv6 addresses, its link-local one included.
    pub v6: Vec<Ipv6Addr>,
    /// Prefixes allowed beside them.
    pub allowed: Vec<IpNet>,
}

impl SourceGuard {
    /// Whether the address may be a source.
    #[inline]
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let own = match address {
            IpAddr::V4(v4) => self.v4.contains(&v4),
            IpAddr::V6(v6) => self.v6.contains(&v6),
        };
        own || self.allowed.iter().any(|prefix| prefix.contains(&address))
    }
}
