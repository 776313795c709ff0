//! Random frames: described by who says what to whom, so that a minimal case reads like a sentence.
//! `build` makes them of bytes.

use proptest::prelude::*;

use crate::build::LISTED;

/// Where a frame comes in.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Pod(usize),
    Host,
    Tunnel { vtep: usize, v6: bool, known: bool, vni: u8, tos: u8, flags: u8 },
}

/// Whose MAC.
#[derive(Clone, Debug)]
pub(crate) enum MacOf {
    Own,
    Pod(usize),
    Gateway,
    Node,
    Remote(usize),
    Stranger(u8),
    Group(u8),
    Zero,
}

/// Whose address.
#[derive(Clone, Debug)]
pub(crate) enum IpOf {
    Own,
    Pod(usize),
    Gateway,
    Network,
    Remote(u8, u8),
    LinkLocal,
    Listed(usize),
}

/// State of a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sum {
    Right,
    Wrong,
    /// UDP's "none".
    Zero,
    /// Only the pseudo-header's: a device's `Partial`, or what a kernel peer's tunnel delivers.
    Bare,
}

#[derive(Clone, Debug)]
pub(crate) enum Load {
    Udp { len: usize, sum: Sum },
    Tcp { len: usize, sum: Sum },
    Icmp { kind: usize, len: usize, sum: Sum },
    Neighbour { solicits: bool, target: IpOf, says: Option<MacOf>, sum: Sum },
    Other { protocol: u8, len: usize },
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Arp {
        request: bool,
        sender_mac: MacOf,
        sender: IpOf,
        target: IpOf,
    },
    Ip {
        v6: bool,
        src: IpOf,
        dst: IpOf,
        ttl: u8,
        tos: u8,
        df: bool,
        extension: bool,
        load: Load,
        part: Option<(u16, bool)>,
    },
    Raw {
        len: usize,
    },
}

/// One frame, described.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) door: Door,
    pub(crate) src: MacOf,
    pub(crate) dst: MacOf,
    pub(crate) tags: u8,
    pub(crate) padding: usize,
    pub(crate) body: Body,
    /// Seconds that pass before it.
    pub(crate) wait_s: u64,
}

fn macs(own: u32, router: u32) -> BoxedStrategy<MacOf> {
    prop_oneof![
        own => Just(MacOf::Own),
        router => Just(MacOf::Gateway),
        router => Just(MacOf::Node),
        3 => (0_usize..6).prop_map(MacOf::Pod),
        1 => (0_usize..3).prop_map(MacOf::Remote),
        2 => (0_u8..4).prop_map(MacOf::Stranger),
        2 => (0_u8..4).prop_map(MacOf::Group),
        1 => Just(MacOf::Zero),
    ]
    .boxed()
}

fn ips(own: u32) -> BoxedStrategy<IpOf> {
    prop_oneof![
        own => Just(IpOf::Own),
        4 => (0_usize..6).prop_map(IpOf::Pod),
        2 => Just(IpOf::Gateway),
        1 => Just(IpOf::Network),
        4 => (2_u8..5, prop_oneof![Just(9_u8), Just(70)]).prop_map(|(node, host)| IpOf::Remote(node, host)),
        1 => Just(IpOf::LinkLocal),
        3 => (0..LISTED).prop_map(IpOf::Listed),
    ]
    .boxed()
}

fn sums(bare: u32) -> BoxedStrategy<Sum> {
    prop_oneof![6 => Just(Sum::Right), 1 => Just(Sum::Wrong), 1 => Just(Sum::Zero), bare => Just(Sum::Bare)].boxed()
}

fn loads() -> BoxedStrategy<Load> {
    let len = || prop_oneof![3 => 0_usize..64, 2 => 1_200_usize..1_500, 1 => 1_500_usize..4_000];
    prop_oneof![
        3 => (len(), sums(2)).prop_map(|(len, sum)| Load::Udp { len, sum }),
        3 => (len(), sums(2)).prop_map(|(len, sum)| Load::Tcp { len, sum }),
        4 => (0_usize..12, len(), sums(0)).prop_map(|(kind, len, sum)| Load::Icmp { kind, len, sum }),
        2 => (any::<bool>(), ips(4), prop::option::of(macs(40, 1)), sums(0))
            .prop_map(|(solicits, target, says, sum)| Load::Neighbour { solicits, target, says, sum }),
        1 => (prop_oneof![Just(132_u8), Just(47), Just(2)], len()).prop_map(|(protocol, len)| Load::Other { protocol, len }),
    ]
    .boxed()
}

fn bodies() -> BoxedStrategy<Body> {
    let ttl = prop_oneof![4 => Just(64_u8), 2 => Just(255), 1 => Just(1), 1 => Just(2), 1 => Just(0)];
    let part = prop_oneof![8 => Just(None), 1 => (0_u16..3, any::<bool>()).prop_map(Some)];
    let header = (any::<bool>(), ips(100), ips(1), ttl, any::<u8>(), any::<bool>(), prop::bool::weighted(0.1));
    let ip = (header, loads(), part).prop_map(|((v6, src, dst, ttl, tos, df, extension), load, part)| Body::Ip {
        v6,
        src,
        dst,
        ttl,
        tos,
        df,
        extension,
        load,
        part,
    });
    let arp = (prop::bool::weighted(0.8), macs(200, 1), ips(100), ips(1))
        .prop_map(|(request, sender_mac, sender, target)| Body::Arp { request, sender_mac, sender, target });
    prop_oneof![8 => ip, 2 => arp, 1 => (0_usize..100).prop_map(|len| Body::Raw { len })].boxed()
}

pub(crate) fn shapes() -> BoxedStrategy<Shape> {
    let flags = prop_oneof![30 => Just(8_u8), 1 => Just(0)];
    let tunnel = (0_usize..3, any::<bool>(), prop::bool::weighted(0.95), 0_u8..6, any::<u8>(), flags)
        .prop_map(|(vtep, v6, known, vni, tos, flags)| Door::Tunnel { vtep, v6, known, vni, tos, flags });
    let door = prop_oneof![6 => (0_usize..6).prop_map(Door::Pod), 1 => Just(Door::Host), 2 => tunnel];
    let tags = prop_oneof![30 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    let wait = prop_oneof![20 => Just(0_u64), 2 => 1_u64..100, 3 => 1_u64..4, 1 => Just(299), 1 => Just(300)];
    (door, macs(300, 1), macs(1, 12), tags, 0_usize..20, bodies(), wait)
        .prop_map(|(door, src, dst, tags, padding, body, wait_s)| Shape { door, src, dst, tags, padding, body, wait_s })
        .boxed()
}
