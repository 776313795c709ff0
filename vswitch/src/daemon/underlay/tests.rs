//! Decisions by themselves, and a real namespace's underlay that changes. The latter need root, and fail without.
#![allow(clippy::disallowed_methods, reason = "tests that wait for real kernels in real time")]

use std::time::{Duration, Instant};

use podwire_control::model::Mac;

use super::*;
use crate::sys::netns::testing::{TestNetns, wire};

/// A change has to be in force within this: two ticks.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(500);

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOP: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nic() -> Nic {
    let link = Link {
        index: 7,
        name: "nic".into(),
        mac: Some(OWN),
        mtu: 1_500,
        up: true,
        kind: None,
        gso_max_size: 0,
        other: None,
    };
    Nic { link, hop_limits: [64, 32], send_bytes_max: 3_826 }
}

#[test]
fn a_way_is_made_of_what_route_nic_and_neighbour_say() {
    let route = RouteTo { device: 7, gateway: None, mtu: None, hop_limit: None, plain: true };
    let neighbour = Neighbour { address: ip("10.9.0.2"), mac: Some(HOP), stale: false };
    let wanted = Way { next_hop: HOP, source: OWN, mtu: 1_500, hop_limit: 64 };
    let decide = |nic: &Nic, remote: &str, route: &RouteTo| way(nic, ip(remote), route, Some(&neighbour));
    assert_eq!(decide(&nic(), "10.9.0.2", &route), Ok(wanted));
    assert_eq!(decide(&nic(), "fd00::2", &route), Ok(Way { hop_limit: 32, ..wanted }));
    let narrow = RouteTo { mtu: Some(1_300), hop_limit: Some(9), ..route };
    assert_eq!(decide(&nic(), "10.9.0.2", &narrow), Ok(Way { mtu: 1_300, hop_limit: 9, ..wanted }));
    let wide = RouteTo { mtu: Some(9_000), ..route };
    assert_eq!(decide(&nic(), "10.9.0.2", &wide), Ok(wanted), "not more than the NIC takes");
    let mut jumbo = Nic { send_bytes_max: 9_000, ..nic() };
    jumbo.link.mtu = 9_000;
    assert_eq!(decide(&jumbo, "10.9.0.2", &route), Ok(Way { mtu: 9_000, ..wanted }));
}

#[test]
fn what_is_not_certain_has_no_way_and_says_why() {
    let route = RouteTo { device: 7, gateway: Some(ip("10.9.0.1")), mtu: None, hop_limit: None, plain: true };
    let resolved = Neighbour { address: ip("10.9.0.1"), mac: Some(HOP), stale: false };
    let changed = |change: fn(&mut Link)| {
        let mut nic = nic();
        change(&mut nic.link);
        nic
    };
    for (nic, route, neighbour, wanted) in [
        (nic(), route, None, "the next hop 10.9.0.1 has no known MAC address yet"),
        (nic(), route, Some(Neighbour { mac: None, ..resolved }), "the next hop 10.9.0.1 has no known"),
        (nic(), RouteTo { plain: false, ..route }, Some(resolved), "its route is a tunnel's, or this node's own"),
        (changed(|link| link.up = false), route, Some(resolved), "nic is not there or down"),
        (changed(|link| link.mac = None), route, Some(resolved), "nic has no MAC address"),
        (changed(|link| link.mtu = 3_827), route, Some(resolved), "its MTU of 3827 is more than the 3826 bytes"),
    ] {
        let why = way(&nic, ip("10.20.0.1"), &route, neighbour.as_ref()).unwrap_err().to_string();
        assert!(why.starts_with(wanted), "{why}");
    }
}

/// Ticks until the way is as wanted; says after how long it was not.
#[track_caller]
fn settle(underlay: &mut Underlay, remotes: &[IpAddr], patience: Duration, wanted: impl Fn(&Underlay) -> bool) {
    let began = Instant::now();
    loop {
        underlay.look(remotes.iter().copied());
        if wanted(underlay) {
            return;
        }
        assert!(began.elapsed() < patience, "after {:?}: {:?}", began.elapsed(), underlay.known);
        std::thread::sleep(TICK / 5);
    }
}

fn mac_of(netns: &TestNetns, device: &str) -> Option<Mac> {
    netns.enter(|| Netlink::open().unwrap().link(device).unwrap().mac)
}

#[test]
fn the_ways_follow_neighbours_routes_and_links_within_a_second() {
    let (near, far) = wire();
    let peer = mac_of(&far, "far");
    far.ip("addr add 10.9.0.3/24 dev far");
    near.ip("route add 10.20.0.0/16 via 10.9.0.2");
    near.enter(|| {
        let ways = Arc::new(Ways::default());
        let sources = vec![ip("10.9.0.1"), ip("fd00:9::1")];
        let mut underlay = Underlay::open("nic", 3_826, sources, Arc::clone(&ways)).unwrap();
        let remotes = ["10.9.0.2", "fd00:9::2", "10.20.0.1"].map(ip);
        // The far end's IPv6 may take a second or two to be ready.
        settle(&mut underlay, &remotes, Duration::from_secs(8), |now| {
            remotes.iter().all(|&remote| now.way(remote).ok().map(|way| way.next_hop) == peer)
        });
        assert_eq!(underlay.next_hop(remotes[2]), Some(remotes[0]));
        assert!(remotes.iter().all(|&remote| ways.get(remote) == underlay.way(remote).ok()));

        near.ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:09 dev nic");
        let moved = Some(Mac([2, 0, 0, 0, 0, 9]));
        settle(&mut underlay, &remotes, PATIENCE, |_| {
            [remotes[0], remotes[2]].iter().all(|&remote| ways.get(remote).map(|way| way.next_hop) == moved)
        });

        near.ip("route replace 10.20.0.0/16 via 10.9.0.3 mtu 1400");
        settle(&mut underlay, &remotes, PATIENCE, |_| {
            ways.get(remotes[2]).is_some_and(|way| Some(way.next_hop) == peer && way.mtu == 1_400)
        });

        near.ip("route replace 10.20.0.0/16 via 10.9.0.77");
        settle(&mut underlay, &remotes, PATIENCE, |now| now.way(remotes[2]) == Err(NoWay::Unresolved(ip("10.9.0.77"))));
        assert_eq!(ways.get(remotes[2]), None);

        near.ip("link add other type veth peer name another");
        near.ip("link set another up");
        near.ip("link set other up");
        near.ip("route replace 10.20.0.0/16 dev other");
        settle(&mut underlay, &remotes, PATIENCE, |now| now.way(remotes[2]) == Err(NoWay::OtherDevice("other".into())));

        near.ip("route del 10.20.0.0/16");
        settle(&mut underlay, &remotes, PATIENCE, |now| now.way(remotes[2]) == Err(NoWay::NoRoute));

        near.ip("xfrm policy add src 10.9.0.0/24 dst 10.9.0.0/24 dir out");
        settle(&mut underlay, &remotes, PATIENCE, |now| now.way(remotes[0]) == Err(NoWay::Ipsec));
        assert_eq!(ways.get(remotes[0]), None);
        near.ip("xfrm policy flush");

        near.ip("link set nic mtu 1400");
        near.ip("link set nic address 02:00:00:00:00:05");
        settle(&mut underlay, &remotes[..1], PATIENCE, |_| {
            ways.get(remotes[0]).is_some_and(|way| way.mtu == 1_400 && way.source == Mac([2, 0, 0, 0, 0, 5]))
        });
        near.ip("link set nic down");
        settle(&mut underlay, &remotes[..1], PATIENCE, |_| ways.get(remotes[0]).is_none());
        assert!(underlay.retired.len() <= 1, "nobody looks at the old ones");
    });
}
