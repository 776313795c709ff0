//! Addresses are given in order, once, and late again; the same after a restart as without one.

use super::*;
use crate::limits;
use podwire_control::model::RangeSource;
use proptest::prelude::*;

fn key(number: u32) -> AttachmentKey {
    AttachmentKey { container: format!("c{number}").parse().unwrap(), ifname: "eth0".to_owned() }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn space(pod_cidrs: &[&str], ranges: &[&str], reserved: &[&str]) -> Space {
    let (space, left_out) = Space::new(parse(pod_cidrs), &parse(ranges), &[], &parse(reserved));
    assert_eq!(left_out, []);
    space
}

/// A node whose changes are stored and applied, and that can be started anew from what is stored.
struct Node {
    space: Space,
    ipam: Ipam,
    stored: BTreeMap<IpAddr, u64>,
}

impl Node {
    fn new(space: Space) -> Self {
        let (ipam, rows) = Ipam::new(&space, [], []);
        assert_eq!(rows, ReleaseRows::default());
        Self { space, ipam, stored: BTreeMap::new() }
    }

    fn store(&mut self, rows: &ReleaseRows) {
        for address in &rows.forgotten {
            self.stored.remove(address);
        }
        self.stored.extend(rows.released.iter().copied());
    }

    fn keep(&mut self, change: Change) {
        self.store(&change.rows().clone());
        self.ipam.apply(change);
    }

    fn allocate(&mut self, holder: u32, wanted: &[&str]) -> Result<String, String> {
        let change = self.ipam.allocate(&key(holder), &parse(wanted), |_| false).map_err(|error| error.to_string())?;
        let addresses = list(change.addresses());
        self.keep(change);
        Ok(addresses)
    }

    fn next(&mut self, holder: u32) -> String {
        self.allocate(holder, &[]).unwrap()
    }

    fn release(&mut self, holders: &[u32]) {
        let keys: Vec<_> = holders.iter().copied().map(key).collect();
        let change = self.ipam.release(&keys);
        self.keep(change);
    }

    fn restart(&mut self) {
        let leases: Vec<_> = self.ipam.leases().map(|(holder, nets)| (holder.clone(), nets.to_vec())).collect();
        let (ipam, rows) = Ipam::new(&self.space, leases, self.stored.clone());
        self.store(&rows);
        self.ipam = ipam;
    }
}

#[test]
fn each_family_gives_an_address_with_the_pod_cidrs_length_v4_first() {
    let mut node = Node::new(space(&["fd00:244:1::/64", "10.244.1.0/24"], &[], &[]));
    assert_eq!(node.next(1), "10.244.1.2/24, fd00:244:1::2/64");
    assert_eq!(node.next(1), "10.244.1.2/24, fd00:244:1::2/64", "the same holder has the same");
    assert_eq!(node.allocate(1, &["fd00:244:1::2"]), Ok("10.244.1.2/24, fd00:244:1::2/64".to_owned()));
    assert_eq!(node.next(2), "10.244.1.3/24, fd00:244:1::3/64");
    assert_eq!(node.ipam.holder_of("fd00:244:1::3".parse().unwrap()), Some(&key(2)));
    node.release(&[1, 7]);
    assert_eq!(node.ipam.holder_of("10.244.1.2".parse().unwrap()), None);
    let leases: Vec<_> = node.ipam.leases().map(|(holder, nets)| (holder.clone(), list(nets))).collect();
    assert_eq!(leases, [(key(2), "10.244.1.3/24, fd00:244:1::3/64".to_owned())]);
}

#[test]
fn an_address_is_given_again_as_late_as_possible() {
    let mut node = Node::new(space(&["10.0.0.0/29"], &[], &[]));
    for (holder, expected) in [(1, "10.0.0.2/29"), (2, "10.0.0.3/29"), (3, "10.0.0.4/29")] {
        assert_eq!(node.next(holder), expected);
    }
    node.release(&[2]);
    node.release(&[1]);
    assert_eq!([node.next(4), node.next(5)], ["10.0.0.5/29", "10.0.0.6/29"], "never given ones come first");
    node.restart();
    assert_eq!([node.next(6), node.next(7)], ["10.0.0.3/29", "10.0.0.2/29"], "then the one released longest ago");
    assert_eq!(node.stored, BTreeMap::new(), "what is held is not remembered as released");
}

#[test]
fn ranges_are_tried_in_order_and_reserved_addresses_are_given_to_who_asks() {
    let mut node = Node::new(space(
        &["10.0.0.0/24"],
        &["10.0.0.100-10.0.0.102", "10.0.0.0-10.0.0.2"],
        &["10.0.0.101", "10.0.0.200-10.0.0.255"],
    ));
    assert_eq!([node.next(1), node.next(2), node.next(3)], ["10.0.0.100/24", "10.0.0.102/24", "10.0.0.2/24"]);
    assert_eq!(node.allocate(4, &["10.0.0.101"]), Ok("10.0.0.101/24".to_owned()), "reserved");
    assert_eq!(node.allocate(5, &["10.0.0.50"]), Ok("10.0.0.50/24".to_owned()), "in no range");
    node.release(&[4, 5]);
    assert_eq!(node.stored, BTreeMap::new(), "they are never given unasked, so they need not be remembered");
    assert_eq!(
        node.allocate(6, &[]).unwrap_err(),
        "no IPv4 address is free: of 10.0.0.100-10.0.0.102, 10.0.0.0-10.0.0.2 (6 addresses) 3 are held, 3 reserved and 0 \
         other ports'; delete pods, take addresses out of ipam.reserved, or add ranges (ipam.ranges, or 'podwire ipam \
         range add') up to the whole of 10.0.0.0/24"
    );
    let use_of = |row: &RangeReport| (row.range.to_string(), row.source, row.size, row.held, row.reserved, row.free);
    assert_eq!(
        node.ipam.usage().iter().map(use_of).collect::<Vec<_>>(),
        [
            ("10.0.0.100-10.0.0.102".to_owned(), RangeSource::File, 3, 2, 1, 0),
            ("10.0.0.0-10.0.0.2".to_owned(), RangeSource::File, 3, 1, 2, 0),
        ]
    );
}

#[test]
fn an_address_that_can_not_be_had_is_refused_with_its_reason() {
    let mut node = Node::new(space(&["10.0.0.0/24", "fd00::/64"], &[], &[]));
    node.next(1);
    for (wanted, expected) in [
        (&["10.0.1.1"][..], "address 10.0.1.1 is in none of the node's pod CIDRs (10.0.0.0/24, fd00::/64)"),
        (&["10.0.0.0"], "address 10.0.0.0 is the network address; ask for another"),
        (&["10.0.0.1"], "address 10.0.0.1 is the gateway's"),
        (&["10.0.0.255"], "address 10.0.0.255 is the broadcast address"),
        (&["fd00::"], "address fd00:: is the subnet-router anycast address"),
        (&["fd00::1"], "address fd00::1 is the gateway's"),
        (&["fd00::9", "10.0.0.2"], "address 10.0.0.2 is held by eth0 of container c1; delete that first"),
        (&["10.0.0.7", "fd00::7", "10.0.0.8"], "addresses 10.0.0.7 and 10.0.0.8 are of one family"),
    ] {
        let before = node.ipam.clone();
        let error = node.allocate(2, wanted).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(node.ipam, before);
    }
    let error = node.allocate(1, &["10.0.0.9"]).unwrap_err();
    assert_eq!(error, "it holds 10.0.0.2/24, fd00::2/64 and can not get 10.0.0.9 as well; delete it first");
}

#[test]
fn addresses_of_other_ports_are_passed_over() {
    let node = Node::new(space(&["10.0.0.0/29"], &[], &[]));
    let ports: Vec<IpAddr> = parse(&["10.0.0.2", "10.0.0.4"]);
    let got = node.ipam.allocate(&key(1), &[], |address| ports.contains(&address)).unwrap();
    assert_eq!(list(got.addresses()), "10.0.0.3/29");
    let refused = node.ipam.allocate(&key(1), &ports[..1], |address| ports.contains(&address)).unwrap_err();
    assert!(refused.to_string().starts_with("address 10.0.0.2 is a port's already"), "{refused}");
    let refused = node.ipam.allocate(&key(1), &[], |_| true).unwrap_err().to_string();
    assert!(refused.contains("(8 addresses) 0 are held, 3 reserved and 5 other ports'"), "{refused}");
}

#[test]
fn one_family_without_an_address_leaves_the_other_as_it_was() {
    let mut node = Node::new(space(&["10.0.0.0/30", "fd00::/64"], &[], &[]));
    node.next(1);
    let before = node.ipam.clone();
    assert!(node.allocate(2, &[]).unwrap_err().starts_with("no IPv4 address is free: of 10.0.0.0-10.0.0.3 (4 addr"));
    assert_eq!(node.ipam, before);
    node.release(&[1]);
    assert_eq!(node.next(2), "10.0.0.2/30, fd00::3/64");
}

#[test]
fn in_another_space_leases_stand_and_releases_that_are_of_use_are_remembered() {
    let mut node = Node::new(space(&["10.0.0.0/24"], &[], &[]));
    (1..=4).for_each(|holder| _ = node.next(holder));
    node.release(&[3]);
    node.release(&[1]);
    let smaller = space(&["10.0.0.0/24"], &["10.0.0.2-10.0.0.3", "10.0.0.6-10.0.0.7"], &["10.0.0.6"]);
    let (moved, rows) = node.ipam.moved_to(&smaller);
    assert_eq!(rows.forgotten, BTreeSet::from(["10.0.0.4".parse().unwrap()]), "it is in no range any more");
    node.store(&rows);
    (node.ipam, node.space) = (moved, smaller);
    node.restart();
    assert_eq!([node.next(5), node.next(6)], ["10.0.0.7/24", "10.0.0.2/24"]);
    assert!(node.allocate(7, &[]).unwrap_err().contains("3 are held, 1 reserved"), "10.0.0.5 is in no range");
    assert_eq!(node.ipam.holder_of("10.0.0.5".parse().unwrap()), Some(&key(4)));
}

#[test]
fn a_range_that_does_not_fit_is_left_out_with_the_reason() {
    let file = parse(&["10.0.0.16-10.0.0.31"]);
    let cli = parse(&["10.0.0.31-10.0.0.40", "10.0.0.40-10.0.0.50", "10.0.1.0-10.0.1.9", "10.0.0.200-10.0.1.5"]);
    let (space, left_out) = Space::new(parse(&["10.0.0.0/24", "fd00::/64"]), &file, &cli, &[]);
    let said: Vec<String> = left_out.iter().map(|(_, error)| error.to_string()).collect();
    assert_eq!(left_out.iter().map(|(range, _)| *range).collect::<Vec<_>>(), [cli[0], cli[2], cli[3]]);
    assert!(said[0].starts_with("it overlaps the file's 10.0.0.16-10.0.0.31; name"), "{said:?}");
    assert!(said[1].contains("not inside one of the node's pod CIDRs (10.0.0.0/24, fd00::/64); name"), "{said:?}");
    let usage = Ipam::new(&space, [], []).0.usage();
    let shown: Vec<_> = usage.iter().map(|row| (row.range.to_string(), row.source)).collect();
    let whole = "fd00::-fd00::ffff:ffff:ffff:ffff".to_owned();
    assert_eq!(
        shown,
        [
            ("10.0.0.16-10.0.0.31".to_owned(), RangeSource::File),
            ("10.0.0.40-10.0.0.50".to_owned(), RangeSource::Cli),
            (whole, RangeSource::PodCidr)
        ]
    );
    assert_eq!((usage[2].size, usage[2].free), (u64::MAX, u64::MAX - 1), "2^64 addresses less the first two");
    let many: Vec<IpRange> = (0..70).map(|last| format!("10.0.0.{last}").parse().unwrap()).collect();
    let (_, left_out) = Space::new(parse(&["10.0.0.0/24"]), &many, &[], &[]);
    assert_eq!(left_out.len(), many.len() - limits::IPAM_RANGES_MAX);
    assert!(left_out[0].1.to_string().contains("a node may have 64 ranges"), "{}", left_out[0].1);
}

#[test]
fn a_whole_16_is_given_out_and_again_in_the_order_of_release() {
    let mut node = Node::new(space(&["10.0.0.0/16"], &[], &[]));
    let count = (1 << 16) - 3;
    let first: Vec<String> = (0..count).map(|holder| node.next(holder)).collect();
    assert!(node.allocate(count, &[]).unwrap_err().contains("65533 are held, 3 reserved"));
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|holder| holder.wrapping_mul(2_654_435_761));
    order.iter().for_each(|&holder| node.release(&[holder]));
    node.restart();
    for holder in order {
        assert_eq!(node.next(holder), first[usize::try_from(holder).unwrap()]);
    }
}

#[test]
fn a_64_remembers_its_latest_releases_only() {
    let mut node = Node::new(space(&["fd00::/64"], &[], &[]));
    let max = u32::try_from(limits::IPAM_RELEASES_MAX).unwrap();
    for holder in 0..=max {
        assert_eq!(node.next(holder), format!("fd00::{}/64", hex(holder + 2)));
        node.release(&[holder]);
    }
    assert_eq!(node.stored.len(), limits::IPAM_RELEASES_MAX);
    assert_eq!(node.next(0), "fd00::2/64", "the first is forgotten, so it counts as never given");
    node.restart();
    assert_eq!(node.next(1), format!("fd00::{}/64", hex(max + 3)));
    let holders: Vec<u32> = (10..20).collect();
    holders.iter().for_each(|&holder| _ = node.next(holder));
    node.release(&holders);
    assert_eq!(node.stored.len(), limits::IPAM_RELEASES_MAX, "several at once are not too many either");
}

/// As in an address: groups of four digits.
fn hex(number: u32) -> String {
    let address: std::net::Ipv6Addr = std::net::Ipv6Addr::from_bits(number.into());
    let segments = address.segments();
    if segments[6] == 0 { format!("{:x}", segments[7]) } else { format!("{:x}:{:x}", segments[6], segments[7]) }
}

/// IPAM as one would explain it: lists, and looking through all of them.
struct Model {
    /// Per family: may be given unasked and was never given, in the order of the ranges; released, the oldest first.
    families: Vec<(Vec<IpAddr>, Vec<IpAddr>)>,
    giveable: BTreeSet<IpAddr>,
    holders: BTreeMap<u32, Vec<IpAddr>>,
}

const CIDRS: [&str; 2] = ["10.0.0.0/28", "fd00::/124"];
const SPECIAL: [&str; 5] = ["10.0.0.0", "10.0.0.1", "10.0.0.15", "fd00::", "fd00::1"];
const RANGES: [&str; 2] = ["10.0.0.8-10.0.0.13", "10.0.0.1-10.0.0.4"];
const RESERVED: [&str; 3] = ["10.0.0.3", "10.0.0.10-10.0.0.12", "fd00::4-fd00::9"];
const PORTS: [&str; 2] = ["10.0.0.4", "fd00::3"];

impl Model {
    fn new() -> Self {
        let barred = |address: &IpAddr| {
            parse::<IpAddr>(&SPECIAL).contains(address)
                || parse::<IpRange>(&RESERVED).iter().any(|range| range.contains(*address))
        };
        let v4 = (8..=13).chain(1..=4).map(|last| IpAddr::from([10, 0, 0, last]));
        let v6 = (0..16).map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
        let fresh = [v4.filter(|one| !barred(one)).collect::<Vec<_>>(), v6.filter(|one| !barred(one)).collect()];
        let giveable = fresh.iter().flatten().copied().collect();
        Self { families: fresh.map(|fresh| (fresh, Vec::new())).to_vec(), giveable, holders: BTreeMap::new() }
    }

    fn allocate(&mut self, holder: u32, wanted: &[IpAddr]) -> Option<Vec<IpAddr>> {
        if let Some(held) = self.holders.get(&holder) {
            return wanted.iter().all(|address| held.contains(address)).then(|| held.clone());
        }
        let ports: Vec<IpAddr> = parse(&PORTS);
        let cidrs: Vec<IpNet> = parse(&CIDRS);
        let taken =
            |address: &IpAddr| ports.contains(address) || self.holders.values().flatten().any(|one| one == address);
        for address in wanted {
            let twice = wanted.iter().filter(|other| other.is_ipv4() == address.is_ipv4()).count() > 1;
            let special = parse::<IpAddr>(&SPECIAL).contains(address);
            if twice || special || taken(address) || !cidrs.iter().any(|net| net.contains(address)) {
                return None;
            }
        }
        let mut got = Vec::new();
        for ((fresh, released), v4) in self.families.iter().zip([true, false]) {
            let fixed = wanted.iter().find(|address| address.is_ipv4() == v4);
            got.push(*fixed.or_else(|| fresh.iter().chain(released).find(|one| !ports.contains(one)))?);
        }
        for (fresh, released) in &mut self.families {
            fresh.retain(|one| !got.contains(one));
            released.retain(|one| !got.contains(one));
        }
        self.holders.insert(holder, got.clone());
        Some(got)
    }

    fn release(&mut self, holder: u32) {
        for address in self.holders.remove(&holder).unwrap_or_default() {
            if self.giveable.contains(&address) {
                self.families[usize::from(address.is_ipv6())].1.push(address);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u32, Vec<IpAddr>),
    Release(Vec<u32>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let v4 = (0u8..18).prop_map(|last| IpAddr::from([10, 0, 0, last]));
    let v6 = (0u16..18).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
    let wanted = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(prop_oneof![v4, v6], 1..3)];
    prop_oneof![
        4 => (0u32..12, wanted).prop_map(|(holder, wanted)| Step::Allocate(holder, wanted)),
        2 => prop::collection::vec(0u32..12, 1..4).prop_map(Step::Release),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn addresses_are_given_as_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        let mut node = Node::new(space(&CIDRS, &RANGES, &RESERVED));
        let mut model = Model::new();
        let ports: Vec<IpAddr> = parse(&PORTS);
        for step in steps {
            match step {
                Step::Allocate(holder, wanted) => {
                    let before = node.ipam.clone();
                    let planned = node.ipam.allocate(&key(holder), &wanted, |address| ports.contains(&address));
                    let got = planned.as_ref().ok().map(|change| change.addresses().iter().map(IpNet::addr).collect());
                    prop_assert_eq!(got, model.allocate(holder, &wanted), "{:?}", planned);
                    prop_assert_eq!(&node.ipam, &before, "a plan takes nothing");
                    if let Ok(change) = planned {
                        node.keep(change);
                    }
                }
                Step::Release(holders) => {
                    holders.iter().for_each(|&holder| model.release(holder));
                    node.release(&holders);
                }
                Step::Restart => node.restart(),
            }
            let held: Vec<IpAddr> = node.ipam.leases().flat_map(|(_, nets)| nets.iter().map(IpNet::addr)).collect();
            let distinct: BTreeSet<IpAddr> = held.iter().copied().collect();
            prop_assert_eq!(held.len(), distinct.len(), "no address twice");
            for row in node.ipam.usage() {
                let inside = held.iter().filter(|&&address| row.range.contains(address)).count() as u64;
                let free = model.families.iter().flat_map(|(fresh, released)| fresh.iter().chain(released));
                let free = free.filter(|&&address| row.range.contains(address)).count() as u64;
                prop_assert_eq!((row.held, row.free, row.size), (inside, free, inside + free + row.reserved));
            }
        }
    }
}
