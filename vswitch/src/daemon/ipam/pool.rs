//! The addresses of one family, and the order in which they are given.
//!
//! Never given ones come first, in the order of the ranges, then those released longest ago. An address that is too
//! many to be remembered as released counts as never given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use podwire_control::model::{IpRange, RangeReport, RangeSource};

use super::space::Space;
use super::spans::Spans;
use crate::limits;

/// One family's part of a [`Space`], and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pool {
    pub(super) net: IpNet,
    /// In the order they are tried.
    pub(super) ranges: Vec<(IpRange, RangeSource)>,
    /// Never given unasked.
    barred: Spans,
    /// Of the ranges, what was never given.
    fresh: Spans,
    /// Of the ranges, what was given and released, as (when, address); a release's number is its time.
    released: BTreeSet<(u64, u128)>,
    /// The same by address.
    released_at: BTreeMap<u128, u64>,
    releases_max: usize,
}

impl Pool {
    /// The family's pool with all of its addresses fresh.
    pub(super) fn new(net: IpNet, space: &Space) -> Self {
        let of_family = |range: &IpRange| net.contains(&range.first());
        let ranges: Vec<_> = space.ranges.iter().filter(|(range, _)| of_family(range)).copied().collect();
        let (mut barred, mut fresh) = (Spans::default(), Spans::default());
        for range in space.reserved.iter().copied().filter(of_family) {
            barred.insert(bits(range.first()), bits(range.last()));
        }
        for address in special(net).map(|(address, _)| bits(address)) {
            barred.insert(address, address);
        }
        for (range, _) in &ranges {
            fresh.insert(bits(range.first()), bits(range.last()));
        }
        for (first, last) in barred.within(0, u128::MAX) {
            fresh.remove(first, last);
        }
        let size = ranges.iter().fold(0_u128, |sum, (range, _)| sum.saturating_add(size(*range)));
        let releases_max = match usize::try_from(size) {
            Ok(size) if size < limits::IPAM_EXACT_BELOW => size,
            _ => limits::IPAM_RELEASES_MAX,
        };
        let (released, released_at) = (BTreeSet::new(), BTreeMap::new());
        Self { net, ranges, barred, fresh, released, released_at, releases_max }
    }

    /// Whether the address is of this pool's family.
    pub(super) fn is_of(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.net.addr().is_ipv4()
    }

    /// The address with the prefix length that the pod sees.
    pub(super) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new_assert(address, self.net.prefix_len())
    }

    /// Why no pod can ever have this address of the pod CIDR, if so.
    pub(super) fn is_special(&self, address: IpAddr) -> Option<&'static str> {
        special(self.net).find(|(own, _)| *own == address).map(|(_, what)| what)
    }

    /// Whether the address may be given unasked, once it is free.
    pub(super) fn gives(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(range, _)| range.contains(address)) && !self.barred.contains(bits(address))
    }

    /// Free addresses, the next one first.
    pub(super) fn free(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.net.addr().is_ipv4();
        let spans =
            self.ranges.iter().flat_map(|(range, _)| self.fresh.within(bits(range.first()), bits(range.last())));
        let fresh = spans.flat_map(|(first, last)| first..=last);
        fresh.chain(self.released.iter().map(|&(_, address)| address)).map(move |bits| address(v4, bits))
    }

    /// Notes that an address is held.
    pub(super) fn take(&mut self, address: IpAddr) {
        self.forget(address);
        self.fresh.remove(bits(address), bits(address));
    }

    /// Notes when an address was released.
    pub(super) fn put_back(&mut self, address: IpAddr, when: u64) {
        self.fresh.remove(bits(address), bits(address));
        self.released.insert((when, bits(address)));
        self.released_at.insert(bits(address), when);
    }

    /// Notes that an address is free and counts as never given.
    pub(super) fn forget(&mut self, address: IpAddr) {
        if let Some(when) = self.released_at.remove(&bits(address)) {
            self.released.remove(&(when, bits(address)));
        }
        if self.gives(address) {
            self.fresh.insert(bits(address), bits(address));
        }
    }

    /// Whether the address is remembered as released.
    pub(super) fn remembers(&self, address: IpAddr) -> bool {
        self.released_at.contains_key(&bits(address))
    }

    /// What is remembered: each address, and when it was released.
    pub(super) fn releases(&self) -> impl Iterator<Item = (IpAddr, u64)> {
        let v4 = self.net.addr().is_ipv4();
        self.released.iter().map(move |&(when, bits)| (address(v4, bits), when))
    }

    /// How many of the oldest releases are too many to be remembered with `more` of them.
    pub(super) fn too_many(&self, more: usize) -> usize {
        (self.released.len() + more).saturating_sub(self.releases_max)
    }

    /// The use of each range; `held` counts the leases in one.
    pub(super) fn usage(&self, held: impl Fn(IpRange) -> usize) -> impl Iterator<Item = RangeReport> {
        self.ranges.iter().map(move |&(range, source)| {
            let (first, last) = (bits(range.first()), bits(range.last()));
            let fresh =
                self.fresh.within(first, last).fold(0_u128, |sum, (from, to)| sum.saturating_add(to - from + 1));
            let free = fresh + self.released_at.range(first..=last).count() as u128;
            let (size, held) = (size(range), held(range) as u128);
            let shown = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
            let reserved = size - held - free;
            RangeReport {
                range,
                source,
                size: shown(size),
                held: shown(held),
                reserved: shown(reserved),
                free: shown(free),
            }
        })
    }
}

/// Addresses of a pod CIDR that no pod can have, and what they are.
fn special(net: IpNet) -> impl Iterator<Item = (IpAddr, &'static str)> {
    let v4 = net.addr().is_ipv4();
    let network = if v4 { "the network address" } else { "the subnet-router anycast address" };
    let gateway = address(v4, bits(net.network()) | 1);
    let broadcast = v4.then(|| (net.broadcast(), "the broadcast address"));
    [(net.network(), network), (gateway, "the gateway's")].into_iter().chain(broadcast)
}

fn size(range: IpRange) -> u128 {
    (bits(range.last()) - bits(range.first())).saturating_add(1)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(v4: bool, bits: u128) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if v4 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}
