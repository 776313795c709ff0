//! IPAM: which address an attachment gets.
//!
//! Pure: no clock, no I/O. A request is planned as a [`Change`], which the controller stores and only then applies, so a
//! failure takes nothing. Of the state only what can not be derived is stored: leases follow from the attachments, never
//! given addresses from leases and releases (docs/decisions/0020).

mod pool;
mod space;
mod spans;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use podwire_control::model::{AttachmentKey, IpRange, RangeReport};

use self::pool::Pool;
use self::space::list;
pub use self::space::{RangeError, Space, apart, inside};

/// Ranges that one sentence lists.
const RANGES_SHOWN: usize = 4;

/// Why an attachment gets no address. Nothing was taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IpamError {
    /// Every address of a family is taken.
    #[error(
        "no {family} address is free: of {ranges} ({size} addresses) {held} are held, {reserved} reserved and {others} \
         other ports'; delete pods, take addresses out of ipam.reserved, or add ranges (ipam.ranges, or 'podwire ipam \
         range add') up to the whole of {pod_cidr}"
    )]
    Exhausted {
        /// IPv4 or IPv6.
        family: &'static str,
        /// The ranges.
        ranges: String,
        /// Addresses in them.
        size: u64,
        /// Of these, leased.
        held: u64,
        /// Of these, reserved.
        reserved: u64,
        /// Of these, ports' that were not leased them.
        others: u64,
        /// The family's pod CIDR.
        pod_cidr: IpNet,
    },
    /// A static address is not this node's to give.
    #[error("address {address} is in none of the node's pod CIDRs ({pod_cidrs}); ask for one inside")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The pod CIDRs.
        pod_cidrs: String,
    },
    /// A static address that no pod can have.
    #[error("address {address} is {what}; ask for another")]
    Special {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// A static address is another's.
    #[error("address {address} is held by {holder}; delete that first, or ask for another")]
    Held {
        /// The address.
        address: IpAddr,
        /// Its holder.
        holder: AttachmentKey,
    },
    /// A static address is that of a port that was not leased it.
    #[error("address {address} is a port's already (see 'podwire port list'); delete that first, or ask for another")]
    InUse {
        /// The address.
        address: IpAddr,
    },
    /// Two static addresses of one family.
    #[error("addresses {first} and {second} are of one family; ask for at most one a family")]
    TwoOfFamily {
        /// The first.
        first: IpAddr,
        /// The second.
        second: IpAddr,
    },
    /// The holder has other addresses.
    #[error("it holds {held} and can not get {wanted} as well; delete it first")]
    Differs {
        /// What it holds.
        held: String,
        /// What it asks for.
        wanted: IpAddr,
    },
}

/// What the store has to do for a change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReleaseRows {
    /// Addresses to remember, and when each was released.
    pub released: Vec<(IpAddr, u64)>,
    /// Addresses whose release is not to be remembered any more.
    pub forgotten: BTreeSet<IpAddr>,
}

/// A request that was planned. It holds for the state it was planned on only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "nothing is so before the change is applied"]
pub struct Change {
    leased: Option<(AttachmentKey, Vec<IpNet>)>,
    freed: Vec<AttachmentKey>,
    rows: ReleaseRows,
}

impl Change {
    /// The addresses leased, IPv4 first, with the prefix length the pod sees.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        self.leased.as_ref().map_or(&[], |(_, addresses)| addresses)
    }

    /// What to store before the change is applied.
    #[must_use]
    pub fn rows(&self) -> &ReleaseRows {
        &self.rows
    }
}

/// The node's addresses, and who holds them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ipam {
    /// IPv4 first.
    pools: Vec<Pool>,
    holders: BTreeMap<AttachmentKey, Vec<IpNet>>,
    held: BTreeMap<IpAddr, AttachmentKey>,
    /// The number of the next release.
    next_release: u64,
}

impl Ipam {
    /// The state that follows from the leases that stand and the releases that are remembered. What of the latter is of
    /// no use any more is forgotten, and given back to be forgotten by the store.
    pub fn new(
        space: &Space,
        leases: impl IntoIterator<Item = (AttachmentKey, Vec<IpNet>)>,
        releases: impl IntoIterator<Item = (IpAddr, u64)>,
    ) -> (Self, ReleaseRows) {
        let mut pools: Vec<Pool> = space.pod_cidrs.iter().map(|&net| Pool::new(net, space)).collect();
        pools.sort_by_key(|pool| pool.net);
        let mut ipam = Self { pools, holders: BTreeMap::new(), held: BTreeMap::new(), next_release: 0 };
        for (holder, addresses) in leases {
            ipam.lease(holder, addresses);
        }
        let mut rows = ReleaseRows::default();
        for (address, when) in releases {
            ipam.next_release = ipam.next_release.max(when.saturating_add(1));
            let held = ipam.held.contains_key(&address);
            match ipam.pool_mut(address).filter(|pool| !held && pool.gives(address)) {
                Some(pool) => pool.put_back(address, when),
                None => _ = rows.forgotten.insert(address),
            }
        }
        for pool in &mut ipam.pools {
            let oldest: Vec<IpAddr> = pool.releases().map(|(address, _)| address).take(pool.too_many(0)).collect();
            for address in oldest {
                pool.forget(address);
                rows.forgotten.insert(address);
            }
        }
        (ipam, rows)
    }

    /// The same leases and releases in another space, and what the store has to forget.
    pub fn moved_to(&self, space: &Space) -> (Self, ReleaseRows) {
        let leases = self.leases().map(|(holder, addresses)| (holder.clone(), addresses.to_vec()));
        let releases = self.pools.iter().flat_map(Pool::releases);
        Self::new(space, leases, releases)
    }

    /// Plans a lease: an address of each family the node has, the one of `wanted` or else the next. A holder that has
    /// its addresses gets the same. `in_use` says which addresses are ports' that were not leased them.
    ///
    /// # Errors
    /// [`IpamError`].
    pub fn allocate(
        &self,
        holder: &AttachmentKey,
        wanted: &[IpAddr],
        in_use: impl Fn(IpAddr) -> bool,
    ) -> Result<Change, IpamError> {
        if let Some(held) = self.holders.get(holder) {
            let other = wanted.iter().find(|&wanted| !held.iter().any(|held| held.addr() == *wanted));
            return match other {
                None => Ok(Change { leased: Some((holder.clone(), held.clone())), ..Change::default() }),
                Some(&wanted) => Err(IpamError::Differs { held: list(held), wanted }),
            };
        }
        for &address in wanted {
            self.check_static(holder, address, wanted, &in_use)?;
        }
        let mut addresses = Vec::with_capacity(self.pools.len());
        let mut rows = ReleaseRows::default();
        for pool in &self.pools {
            let fixed = wanted.iter().copied().find(|&address| pool.is_of(address));
            let next = || pool.free().find(|&address| !in_use(address));
            let address = fixed.or_else(next).ok_or_else(|| self.exhausted(pool))?;
            if pool.remembers(address) {
                rows.forgotten.insert(address);
            }
            addresses.push(pool.with_prefix(address));
        }
        Ok(Change { leased: Some((holder.clone(), addresses)), freed: Vec::new(), rows })
    }

    /// Why nobody can be leased an address now, if so.
    #[must_use]
    pub fn full(&self, in_use: impl Fn(IpAddr) -> bool) -> Option<IpamError> {
        let full = self.pools.iter().find(|pool| pool.free().all(&in_use));
        full.map(|pool| self.exhausted(pool))
    }

    /// Plans the release of all that these hold, in this order; who holds nothing is fine.
    pub fn release<'a>(&self, holders: impl IntoIterator<Item = &'a AttachmentKey>) -> Change {
        let mut change = Change::default();
        let mut seen = BTreeSet::new();
        for (holder, addresses) in holders.into_iter().filter_map(|holder| self.holders.get_key_value(holder)) {
            if !seen.insert(holder) {
                continue;
            }
            change.freed.push(holder.clone());
            for address in addresses.iter().map(IpNet::addr) {
                if self.pool(address).is_some_and(|pool| pool.gives(address)) {
                    let when = self.next_release + change.rows.released.len() as u64;
                    change.rows.released.push((address, when));
                }
            }
        }
        for pool in &self.pools {
            let new = || change.rows.released.iter().map(|&(address, _)| address).filter(|&one| pool.is_of(one));
            let oldest = pool.releases().map(|(address, _)| address).chain(new()).take(pool.too_many(new().count()));
            let oldest: BTreeSet<IpAddr> = oldest.collect();
            change.rows.released.retain(|(address, _)| !oldest.contains(address));
            change.rows.forgotten.extend(oldest);
        }
        change
    }

    /// Puts a change in force that was planned on this very state, and stored.
    pub fn apply(&mut self, change: Change) {
        let Change { leased, freed, rows } = change;
        let freed = freed.iter().filter_map(|holder| self.holders.remove(holder)).flatten();
        let freed: Vec<IpAddr> = freed.map(|net| net.addr()).collect();
        for address in freed.iter().chain(&rows.forgotten) {
            self.held.remove(address);
            if let Some(pool) = self.pool_mut(*address) {
                pool.forget(*address);
            }
        }
        for (address, when) in rows.released {
            self.next_release = self.next_release.max(when.saturating_add(1));
            if let Some(pool) = self.pool_mut(address) {
                pool.put_back(address, when);
            }
        }
        if let Some((holder, addresses)) = leased {
            self.lease(holder, addresses);
        }
    }

    /// All leases, by holder.
    pub fn leases(&self) -> impl Iterator<Item = (&AttachmentKey, &[IpNet])> {
        self.holders.iter().map(|(holder, addresses)| (holder, addresses.as_slice()))
    }

    /// Who holds an address.
    #[must_use]
    pub fn holder_of(&self, address: IpAddr) -> Option<&AttachmentKey> {
        self.held.get(&address)
    }

    /// Leases in a range: each address, and its holder.
    pub fn held_in(&self, range: IpRange) -> impl Iterator<Item = (IpAddr, &AttachmentKey)> {
        self.held.range(range.first()..=range.last()).map(|(&address, holder)| (address, holder))
    }

    /// How far each range is used, in the order they are tried, IPv4 first.
    #[must_use]
    pub fn usage(&self) -> Vec<RangeReport> {
        self.pools.iter().flat_map(|pool| self.usage_of(pool)).collect()
    }

    fn usage_of(&self, pool: &Pool) -> impl Iterator<Item = RangeReport> {
        pool.usage(|range| self.held_in(range).count())
    }

    fn lease(&mut self, holder: AttachmentKey, addresses: Vec<IpNet>) {
        for address in addresses.iter().map(IpNet::addr) {
            self.held.insert(address, holder.clone());
            if let Some(pool) = self.pool_mut(address) {
                pool.take(address);
            }
        }
        self.holders.insert(holder, addresses);
    }

    /// Checks an address that another IPAM plugin gave a holder.
    ///
    /// # Errors
    /// [`IpamError`]: it is not the node's to give, no pod can have it, or it is leased to another.
    pub fn check_given(&self, holder: &AttachmentKey, address: IpAddr) -> Result<(), IpamError> {
        let Some(pool) = self.pool(address) else {
            let pod_cidrs: Vec<IpNet> = self.pools.iter().map(|pool| pool.net).collect();
            return Err(IpamError::Outside { address, pod_cidrs: list(&pod_cidrs) });
        };
        if let Some(what) = pool.is_special(address) {
            return Err(IpamError::Special { address, what });
        }
        match self.holder_of(address) {
            Some(other) if other != holder => Err(IpamError::Held { address, holder: other.clone() }),
            _ => Ok(()),
        }
    }

    fn check_static(
        &self,
        holder: &AttachmentKey,
        address: IpAddr,
        wanted: &[IpAddr],
        in_use: &impl Fn(IpAddr) -> bool,
    ) -> Result<(), IpamError> {
        let of_family = wanted.iter().copied().filter(|other| other.is_ipv4() == address.is_ipv4());
        if let [first, second, ..] = of_family.collect::<Vec<_>>()[..] {
            return Err(IpamError::TwoOfFamily { first, second });
        }
        self.check_given(holder, address)?;
        if in_use(address) { Err(IpamError::InUse { address }) } else { Ok(()) }
    }

    fn exhausted(&self, pool: &Pool) -> IpamError {
        let ranges: Vec<IpRange> = pool.ranges.iter().map(|(range, _)| *range).collect();
        let shown = list(&ranges[..ranges.len().min(RANGES_SHOWN)]);
        let sum = |of: fn(&RangeReport) -> u64| self.usage_of(pool).map(|row| of(&row)).fold(0, u64::saturating_add);
        IpamError::Exhausted {
            family: if pool.net.addr().is_ipv4() { "IPv4" } else { "IPv6" },
            ranges: match ranges.len().saturating_sub(RANGES_SHOWN) {
                0 => shown,
                more => format!("{shown} and {more} more ranges"),
            },
            size: sum(|row| row.size),
            held: sum(|row| row.held),
            reserved: sum(|row| row.reserved),
            others: sum(|row| row.free),
            pod_cidr: pool.net,
        }
    }

    /// The pool whose pod CIDR has the address.
    fn pool(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.net.contains(&address))
    }

    fn pool_mut(&mut self, address: IpAddr) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.net.contains(&address))
    }
}

#[cfg(test)]
mod tests;
