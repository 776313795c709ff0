//! Longest prefix match against the obvious way, and how much memory it takes.

use proptest::prelude::*;

use super::*;

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
    // 32 bytes each, in a hash table that is a quarter empty or more.
    assert!(large < 5 << 20, "{large} bytes");
    let sparse = (0..100_000_u128).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), 1));
    let sparse = Fib::<Ipv6Addr>::build(
        sparse.map(|(bits, value)| (Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 128), value)),
    )
    .memory_bytes();
    assert!(sparse < 5 << 20, "{sparse} bytes");
}

#[test]
fn every_slot_of_a_node_may_differ() {
    let hosts: Vec<_> = (0..256).map(|n| (Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + n), 32), n)).collect();
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
