//! Builds described frames on a topology: what names mean there, headers with etherparse, checksums as asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use podwire_control::model::Mac;
use podwire_tests::sim::{HOST, UPLINK};
use podwire_tests::{NodePlan, plan};
use podwire_vswitch::compile::link_local;
use podwire_vswitch::frame::{Checksum, Offload, Outer};
use podwire_vswitch::port::memory::MemoryFrame;

use crate::frames::{Body, Door, IpOf, Load, MacOf, Shape, Sum};
use crate::topology::{NODE, OWN_VNI, STRETCHED_VNI, Topology, pod_ip, pod_name, stranger, vtep_mac, vtep_remote};

/// Addresses [`IpOf::Listed`] has of each family.
pub(crate) const LISTED: usize = LISTED_V4.len();

/// Addresses of no pod: free, unrouted, outside, routed to other places, and those that no packet may have.
const LISTED_V4: [[u8; 4]; 14] = [
    [10, 244, 1, 200],
    [10, 244, 99, 9],
    [10, 96, 0, 1],
    [192, 168, 7, 7],
    [8, 8, 8, 8],
    [10, 244, 1, 12],
    [224, 0, 0, 251],
    [224, 0, 0, 22],
    [255, 255, 255, 255],
    [127, 0, 0, 1],
    [0, 0, 0, 0],
    [169, 254, 1, 1],
    [10, 244, 1, 255],
    [172, 31, 0, 2],
];
const LISTED_V6: [&str; 14] = [
    "fd00:244:1::200",
    "fd00:244:99::9",
    "fd00:96::1",
    "fd00:7::7",
    "2001:db8::8",
    "fd00:244:1::c",
    "ff02::fb",
    "ff02::16",
    "ff02::1",
    "::1",
    "::",
    "fe80::1:1",
    "fd00:244:1:0:ffff::",
    "fd00:31::2",
];

/// A built frame and the port it comes in by.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) port: String,
    pub(crate) frame: MemoryFrame,
}

/// What a shape's names mean on a topology.
struct Builder<'a> {
    topology: &'a Topology,
    door: &'a Door,
}

impl Shape {
    /// The frame on this topology; none when its door is not there.
    pub(crate) fn build(&self, topology: &Topology) -> Option<Built> {
        let mut door = self.door.clone();
        let port = match &mut door {
            Door::Pod(at) => {
                *at %= topology.pods.len();
                topology.is_open(*at).then(|| pod_name(*at))?
            }
            Door::Host => topology.host.then(|| HOST.to_owned())?,
            Door::Tunnel { vtep, v6, .. } => {
                *vtep %= topology.vteps.len().max(1);
                *v6 = topology.vteps.get(*vtep).is_some_and(|&(families, _)| families == 2 || (families == 3 && *v6));
                topology.uplink.then(|| UPLINK.to_owned())?
            }
        };
        let builder = Builder { topology, door: &door };
        let mut bytes = [builder.mac(&self.dst).0, builder.mac(&self.src).0].concat();
        bytes.extend([0x88, 0xa8, 0, 5].iter().take(if self.tags == 2 { 4 } else { 0 }));
        bytes.extend([0x81, 0x00, 0x20, 7].iter().take(if self.tags > 0 { 4 } else { 0 }));
        let (ethertype, body, bare) = builder.body(&self.body);
        bytes.extend(ethertype);
        let l3 = bytes.len();
        bytes.extend(body.bytes);
        // As an interface pads what is too short; what is long has no padding.
        bytes.extend(vec![0; if bytes.len() < 100 { self.padding } else { 0 }]);
        let mut frame = MemoryFrame::new(bytes);
        if let Door::Tunnel { vtep, v6, known, vni, tos, flags } = door {
            let numbers =
                [topology.spec().vni.get(), OWN_VNI, STRETCHED_VNI, STRETCHED_VNI, 999, topology.spec().vni.get()];
            let mut payload = vec![flags, 0, 0, 0];
            payload.extend((numbers[usize::from(vni)] << 8).to_be_bytes());
            payload.extend(&frame.bytes);
            let remote = if known { vtep_remote(vtep, v6) } else { IpAddr::from([172, 31, 0, 99]) };
            frame = MemoryFrame::new(payload).with_outer(Outer { remote, tos });
        } else if let Some(offset) = bare {
            let start = u16::try_from(l3 + body.l4).expect("headers are short");
            frame = frame.with_offload(Offload { checksum: Checksum::Partial { start, offset }, gso: None });
        }
        Some(Built { port, frame })
    }
}

/// A packet under construction.
#[derive(Default)]
struct Packet {
    bytes: Vec<u8>,
    l4: usize,
}

impl Builder<'_> {
    fn mac(&self, of: &MacOf) -> Mac {
        match (of, self.door) {
            (MacOf::Own, Door::Pod(at)) => self.topology.pod_mac(*at),
            (MacOf::Own, Door::Host) | (MacOf::Gateway, _) => self.topology.spec().gateway_mac(),
            (MacOf::Own, Door::Tunnel { vtep, v6, .. }) => vtep_mac(*vtep, *v6),
            (MacOf::Node, _) => self.topology.spec().vtep_mac(),
            (MacOf::Pod(at), _) if *at < self.topology.pods.len() => self.topology.pod_mac(*at),
            (MacOf::Pod(_) | MacOf::Stranger(_), _) => {
                stranger(if let MacOf::Stranger(number) = of { *number } else { 9 })
            }
            (MacOf::Remote(at), _) => vtep_mac(*at, false),
            (MacOf::Group(0), _) => Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
            (MacOf::Group(1), _) => Mac([0x01, 0, 0x5e, 0, 0, 0xfb]),
            (MacOf::Group(2), _) => Mac([0x33, 0x33, 0, 0, 0, 1]),
            (MacOf::Group(_), _) => Mac::BROADCAST,
            (MacOf::Zero, _) => Mac::ZERO,
        }
    }

    fn ip(&self, of: &IpOf, v6: bool) -> IpAddr {
        let in_node = |host: u8| plan::of_family(&NODE.pod(host), v6);
        match (of, self.door) {
            (IpOf::Own, Door::Pod(at)) => pod_ip(*at, v6),
            (IpOf::Own, Door::Host) | (IpOf::Gateway, _) => in_node(1),
            (IpOf::Own, Door::Tunnel { vtep, .. }) => {
                self.ip(&IpOf::Remote(u8::try_from(2 + vtep).expect("few VTEPs"), 9), v6)
            }
            (IpOf::Network, _) => in_node(0),
            (IpOf::Pod(at), _) => pod_ip(*at, v6),
            (IpOf::Remote(node, host), _) => plan::of_family(&NodePlan(*node).pod(*host), v6),
            (IpOf::LinkLocal, _) if v6 => link_local(self.mac(&MacOf::Own)).into(),
            (IpOf::LinkLocal, _) => IpAddr::from([169, 254, 7, 7]),
            (IpOf::Listed(at), _) if v6 => LISTED_V6[*at].parse().expect("an address"),
            (IpOf::Listed(at), _) => LISTED_V4[*at].into(),
        }
    }

    /// `EtherType`, packet, and the offset of a checksum field that is left to a device.
    fn body(&self, body: &Body) -> ([u8; 2], Packet, Option<u16>) {
        match body {
            Body::Raw { len } => ([0x88, 0xb5], Packet { bytes: vec![7; *len], l4: 0 }, None),
            Body::Arp { request, sender_mac, sender, target } => {
                let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, if *request { 1 } else { 2 }];
                bytes.extend(self.mac(sender_mac).0);
                bytes.extend(octets(self.ip(sender, false)));
                bytes.extend([0; 6]);
                bytes.extend(octets(self.ip(target, false)));
                ([0x08, 0x06], Packet { bytes, l4: 28 }, None)
            }
            Body::Ip { v6, src, dst, ttl, tos, df, extension, load, part } => {
                let (src, dst) = (self.ip(src, *v6), self.ip(dst, *v6));
                let whole = part.is_none();
                let (protocol, mut l4, bare) = self.load(load, src, dst, whole);
                if let Some((_, true)) = part {
                    l4.resize(l4.len().max(8) / 8 * 8, 0);
                }
                // A packet that says it is a fragment of one piece is no fragment.
                let part = part.filter(|&(offset, more)| offset > 0 || more).map(|(at, more)| (at * 185, more));
                let packet = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        packet_v4(src, dst, [*tos, *ttl, protocol], *df && part.is_none(), part, &l4)
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        packet_v6(src, dst, [*tos, *ttl, protocol], *extension, part, &l4)
                    }
                    _ => unreachable!("both addresses are of one family"),
                };
                (if *v6 { [0x86, 0xdd] } else { [0x08, 0x00] }, packet, bare.filter(|_| part.is_none()))
            }
        }
    }

    fn load(&self, load: &Load, src: IpAddr, dst: IpAddr, whole: bool) -> (u8, Vec<u8>, Option<u16>) {
        let v6 = src.is_ipv6();
        let bytes = |len: usize| (0..len).map(|at| u8::try_from(at % 251).expect("below 251"));
        // What a peer's tunnel delivers without a checksum is no longer than the tunnel's MTU here.
        let from_tunnel = matches!(self.door, Door::Tunnel { .. });
        let len_of = |len: usize, sum| if from_tunnel && sum == Sum::Bare { len.min(1_000) } else { len };
        let (protocol, mut l4, at, sum) = match load {
            Load::Udp { len, sum } => {
                let len = len_of(*len, *sum);
                let total = u16::try_from(8 + len).expect("short").to_be_bytes();
                let mut l4 = vec![0x80, 1, 0, 53, total[0], total[1], 0, 0];
                l4.extend(bytes(len));
                (17, l4, 6, *sum)
            }
            Load::Tcp { len, sum } => {
                let mut l4 = vec![0x80, 2, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x18, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0];
                l4.extend(bytes(len_of(*len, *sum)));
                (6, l4, 16, *sum)
            }
            Load::Icmp { kind, len, sum } => {
                let kinds: [u8; 12] = if v6 {
                    [128, 128, 128, 129, 1, 2, 3, 133, 134, 137, 131, 143]
                } else {
                    [8, 8, 8, 0, 3, 4, 5, 11, 12, 13, 8, 0]
                };
                let mut l4 = vec![kinds[*kind], 0, 0, 0, 0, 9, 0, 1];
                l4.extend(bytes(*len));
                (if v6 { 58 } else { 1 }, l4, 2, *sum)
            }
            Load::Neighbour { solicits, target, says, sum } => {
                let mut l4 = vec![if *solicits { 135 } else { 136 }, 0, 0, 0, 0, 0, 0, 0];
                let target = self.ip(target, true);
                l4.extend(octets(if target.is_multicast() { self.ip(&IpOf::Gateway, true) } else { target }));
                if let Some(mac) = says {
                    l4.extend([if *solicits { 1 } else { 2 }, 1]);
                    l4.extend(self.mac(mac).0);
                }
                (if v6 && whole { 58 } else { 132 }, l4, 2, *sum)
            }
            Load::Other { protocol, len } => return (*protocol, bytes(len + 1).collect(), None),
        };
        let pseudo = pseudo(src, dst, protocol, l4.len());
        let pseudo = if protocol == 1 { Sum16BitWords::new() } else { pseudo };
        // etherparse sums in the machine's byte order.
        let value = match sum {
            Sum::Right => pseudo.add_slice(&l4).ones_complement(),
            Sum::Wrong => pseudo.add_slice(&l4).ones_complement() ^ 0x5a5a,
            Sum::Zero => 0,
            Sum::Bare => !pseudo.ones_complement(),
        };
        l4[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        (protocol, l4, (sum == Sum::Bare).then(|| u16::try_from(at).expect("a small offset")))
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum16BitWords {
    let len = u32::try_from(len).expect("short").to_be_bytes();
    let sum = Sum16BitWords::new().add_slice(&octets(src)).add_slice(&octets(dst));
    sum.add_slice(&len).add_slice(&[0, protocol])
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn packet_v4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    [tos, ttl, protocol]: [u8; 3],
    df: bool,
    part: Option<(u16, bool)>,
    l4: &[u8],
) -> Packet {
    let len = u16::try_from(l4.len()).expect("short");
    let mut header =
        etherparse::Ipv4Header::new(len, ttl, protocol.into(), src.octets(), dst.octets()).expect("a short packet");
    header.dscp = (tos >> 2).try_into().expect("six bits");
    header.ecn = (tos & 3).try_into().expect("two bits");
    (header.dont_fragment, header.identification) = (df, 0x1234);
    if let Some((offset, more)) = part {
        header.fragment_offset = offset.try_into().expect("13 bits");
        header.more_fragments = more;
    }
    header.header_checksum = header.calc_header_checksum();
    Packet { bytes: [&header.to_bytes()[..], l4].concat(), l4: 20 }
}

fn packet_v6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    [tos, ttl, protocol]: [u8; 3],
    extension: bool,
    part: Option<(u16, bool)>,
    l4: &[u8],
) -> Packet {
    let fragment = 44;
    let mut next = protocol;
    let mut headers = Vec::new();
    if let Some((offset, more)) = part {
        let word = (offset << 3 | u16::from(more)).to_be_bytes();
        headers = vec![next, 0, word[0], word[1], 1, 2, 3, 4];
        next = fragment;
    }
    if extension {
        // Hop-by-hop: a router alert for MLD (RFC 2711).
        headers = [&[next, 0, 5, 2, 0, 0, 1, 0][..], &headers].concat();
        next = 0;
    }
    let len = u16::try_from(headers.len() + l4.len()).expect("short").to_be_bytes();
    let mut bytes = vec![0x60 | tos >> 4, tos << 4 | 3, 4, 5, len[0], len[1], next, ttl];
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    let l4_at = bytes.len() + headers.len();
    Packet { bytes: [&bytes, &headers, l4].concat(), l4: l4_at }
}
