//! Random objects for properties, from a world so small that they meet each other.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::{
    Bandwidth, Bridge, Endpoint, Guard, Mac, Object, Owner, Port, PortKind, RateLimit, Route, StaticMac, Via, Vtep,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u8) -> T {
    format!("{prefix}{number}").parse().unwrap()
}

fn small<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    prefix: &'static str,
) -> impl Strategy<Value = T> {
    (0u8..4).prop_map(move |number| name(prefix, number))
}

fn mac() -> impl Strategy<Value = Mac> {
    (0u8..8).prop_map(|last| Mac([2, 0, 0, 0, 0, last]))
}

fn address() -> impl Strategy<Value = IpNet> {
    let v4 = (1u8..20).prop_map(|last| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 1, last), 24)));
    let v6 = (1u16..20)
        .prop_map(|last| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, last), 64)));
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    address().prop_map(|net| net.trunc())
}

fn port() -> impl Strategy<Value = Object> {
    let guard = of(vec(prefix(), 0..3)).prop_map(|allowed| allowed.map_or(Guard::Off, |allowed| Guard::On { allowed }));
    let place = (small("pod"), select(&PortKind::ALL[..]), 0u8..6, vec(address(), 0..3));
    (place, of(mac()), of(576u16..), of(small("bridge")), guard, bandwidth()).prop_map(
        |((name, kind, netns, addresses), mac, mtu, bridge, guard, bandwidth)| {
            let (netns, ifname) = (format!("/run/netns/{netns}").into(), "eth0".to_owned());
            Object::Port(Port { name, kind, netns, ifname, addresses, mac, mtu, bridge, guard, bandwidth })
        },
    )
}

fn bandwidth() -> impl Strategy<Value = Bandwidth> {
    let limit = || of((1_000u64.., 1u64..).prop_map(|(bits_per_s, burst_bits)| RateLimit { bits_per_s, burst_bits }));
    (limit(), limit()).prop_map(|(ingress, egress)| Bandwidth { ingress, egress })
}

fn bridge() -> impl Strategy<Value = Object> {
    (small("bridge"), 0u32..5, vec(small("node"), 0..2), any::<bool>()).prop_map(
        |(name, vni, flood, vlan_transparent)| {
            let vni = Some(vni.try_into().unwrap());
            Object::Bridge(Bridge { name, vni, flood, vlan_transparent })
        },
    )
}

fn vtep() -> impl Strategy<Value = Object> {
    let v4 = (1u8..8, mac()).prop_map(|(last, mac)| Endpoint { remote: Ipv4Addr::new(172, 31, 0, last), mac });
    let v6 = (1u16..8, mac())
        .prop_map(|(last, mac)| Endpoint { remote: Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, last), mac });
    (small("node"), of(v4), of(v6), of(0u32..5)).prop_map(|(name, v4, v6, vni)| {
        Object::Vtep(Vtep { name, v4, v6, vni: vni.map(|vni| vni.try_into().unwrap()) })
    })
}

fn route() -> impl Strategy<Value = Object> {
    let via = prop_oneof![
        small("node").prop_map(Via::Vtep),
        small("pod").prop_map(Via::Port),
        Just(Via::Host),
        Just(Via::Blackhole)
    ];
    (0u8..6, via).prop_map(|(node, via)| {
        let prefix = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, node, 0), 24));
        Object::Route(Route { prefix, via })
    })
}

/// Any object, sensible by itself.
pub(in crate::daemon) fn object() -> impl Strategy<Value = Object> {
    let pinned = (of(small("bridge")), mac(), small("pod"))
        .prop_map(|(bridge, mac, port)| Object::Mac(StaticMac { bridge, mac, port }));
    prop_oneof![port(), bridge(), pinned, route(), vtep()]
}

/// One of three owners.
pub(in crate::daemon) fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![Just(Owner::File), Just(Owner::Cli), Just(Owner::Kubernetes)]
}
