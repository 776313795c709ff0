//! The frames of a scenario: one a flow, kept in memory, visited in an order that no prefetcher guesses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire_control::model::{Mac, Vni};
use podwire_vswitch::frame::{Batch, FramePool, Outer};
use podwire_vswitch::id::PortId;
use podwire_vswitch::wire::{UdpHeader, checksum, ethernet, ipv4, ipv6, udp, vxlan};

use super::Scenario;
use super::world::{PODS, REMOTE_NODES, World, pod_ip, pod_ip6, remote_ip, remote_pod_ip, remote_pod_ip6};

/// Bytes of a frame, without FCS; out of a tunnel, of the inner frame.
pub(crate) const FRAME_BYTES: usize = 64;
/// With a VXLAN header in front.
const STORED_BYTES: usize = vxlan::HEADER_LEN + FRAME_BYTES;
const SEED: u64 = 0x706f_6477_6972_6521;

/// One flow's frame, as a device hands it over.
#[derive(Clone, Debug)]
struct Stored {
    ingress: PortId,
    len: usize,
    outer: Option<Outer>,
    bytes: [u8; STORED_BYTES],
}

/// A switch and the frames that come to it, without end.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(super) scenario: Scenario,
    pub(super) world: World,
    stored: Vec<Stored>,
    order: Vec<u32>,
}

impl Traffic {
    /// The frames of `flows` flows through a switch with `tables` more entries in its tables.
    pub(crate) fn new(scenario: Scenario, flows: usize, tables: usize) -> Self {
        let world = World::new(tables);
        let mut dice = Dice(SEED);
        let ports: Vec<PortId> = (0..PODS).map(|pod| world.port(pod)).collect();
        let stored: Vec<Stored> =
            (0..flows).map(|flow| Flow::new(scenario, &world, flow, &mut dice).stored(&world, &ports)).collect();
        let mut order: Vec<u32> = (0..u32::try_from(flows).unwrap_or(u32::MAX)).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, dice.below(last + 1));
        }
        Self { scenario, world, stored, order }
    }

    /// Flows there are.
    pub(super) fn flows(&self) -> usize {
        self.stored.len()
    }

    /// What a receiving device does: fills a batch from free frames. `at` goes round and round.
    pub(super) fn refill(&self, at: &mut usize, pool: &mut FramePool, batch: &mut Batch) {
        while batch.room() > 0
            && let Some(mut frame) = pool.take()
        {
            let stored = &self.stored[self.order[*at] as usize];
            *at = if *at + 1 == self.order.len() { 0 } else { *at + 1 };
            frame.fill(&stored.bytes[..stored.len]);
            frame.ingress = stored.ingress;
            frame.outer = stored.outer;
            batch.push(frame);
        }
    }
}

/// One flow: who speaks to whom.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// The pod it comes from, or the node.
    from: usize,
    src_ip: IpAddr,
    dst_ip: IpAddr,
    src_mac: Mac,
    dst_mac: Mac,
    ports: (u16, u16),
    tunnelled: bool,
}

impl Flow {
    fn new(scenario: Scenario, world: &World, flow: usize, dice: &mut Dice) -> Self {
        let node = &world.snapshot.node;
        let from = dice.below(PODS);
        let to = (from + 1 + dice.below(PODS - 1)) % PODS;
        let port = |base: usize, number: usize| u16::try_from(base + number).unwrap_or(u16::MAX);
        let local = Self {
            from,
            src_ip: pod_ip(from).into(),
            dst_ip: pod_ip(to).into(),
            src_mac: Mac::of_ip(pod_ip(from).into()),
            dst_mac: node.gateway_mac,
            ports: (port(1_024, flow % 60_000), port(80, flow / 60_000)),
            tunnelled: false,
        };
        match scenario {
            Scenario::L2 => Self { dst_mac: bridged_mac(world, from, to, dice), ..local },
            Scenario::L3 => local,
            Scenario::Encap => Self { dst_ip: remote(world, dice).into(), ..local },
            Scenario::Encap6 => Self { src_ip: pod_ip6(from).into(), dst_ip: remote6(world, dice).into(), ..local },
            Scenario::Decap => {
                let from = dice.below(REMOTE_NODES);
                let src_ip = remote_pod_ip(from, dice.below(PODS)).into();
                Self { from, src_ip, src_mac: Mac::of_ip(src_ip), dst_mac: node.vtep_mac, tunnelled: true, ..local }
            }
        }
    }

    fn stored(&self, world: &World, ports: &[PortId]) -> Stored {
        let mut bytes = [0; STORED_BYTES];
        let frame = self.frame();
        if self.tunnelled {
            let (header, inner) = bytes.split_at_mut(vxlan::HEADER_LEN);
            if let Ok(header) = header.try_into() {
                vxlan::write_header(header, world.snapshot.node.vni);
            }
            inner.copy_from_slice(&frame);
            let uplink = world.snapshot.node.uplink.unwrap_or(PortId::NONE);
            let outer = Some(Outer { remote: IpAddr::V4(remote_ip(self.from)), tos: 0 });
            return Stored { ingress: uplink, len: STORED_BYTES, outer, bytes };
        }
        bytes[..FRAME_BYTES].copy_from_slice(&frame);
        Stored { ingress: ports[self.from], len: FRAME_BYTES, outer: None, bytes }
    }

    /// UDP with every checksum right.
    fn frame(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let v6 = self.src_ip.is_ipv6();
        let ethertype = if v6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 };
        ethernet::write_header(&mut bytes, self.dst_mac, self.src_mac, ethertype);
        let l4_at = ethernet::HEADER_LEN + if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN_MIN };
        let udp_len = u16::try_from(FRAME_BYTES - l4_at).unwrap_or(u16::MAX);
        let l3 = &mut bytes[ethernet::HEADER_LEN..];
        let pseudo = match (self.src_ip, self.dst_ip) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (total_len, protocol) = (udp_len + 20, udp::PROTOCOL);
                ipv4::write_header(
                    l3,
                    &ipv4::Ipv4Fields { tos: 0, total_len, id: 1, df: true, ttl: 64, protocol, src, dst },
                );
                checksum::pseudo_v4(src, dst, udp::PROTOCOL, u32::from(udp_len))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let fields = ipv6::Ipv6Fields {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: udp_len,
                    next_header: udp::PROTOCOL,
                    hop_limit: 64,
                    src,
                    dst,
                };
                ipv6::write_header(l3, &fields);
                checksum::pseudo_v6(src, dst, udp::PROTOCOL, u32::from(udp_len))
            }
            _ => unreachable!("both ends of a flow are of one family"),
        };
        let header = UdpHeader { src_port: self.ports.0, dst_port: self.ports.1, len: udp_len };
        udp::write_header(&mut bytes[l4_at..], &header, 0);
        let check = checksum::finish(pseudo + checksum::sum(&bytes[l4_at..]));
        udp::write_header(&mut bytes[l4_at..], &header, check);
        bytes
    }
}

/// A station of the larger tables that is not behind the sender's own port, or the pod itself.
fn bridged_mac(world: &World, from: usize, to: usize, dice: &mut Dice) -> Mac {
    if world.stations.is_empty() {
        return Mac::of_ip(pod_ip(to).into());
    }
    let at = dice.below(world.stations.len());
    // Stations are spread over the pods in turn.
    let at = if at % PODS == from { (at + 1) % world.stations.len() } else { at };
    if at % PODS == from { Mac::of_ip(pod_ip(to).into()) } else { world.stations[at] }
}

/// An address behind another node.
fn remote(world: &World, dice: &mut Dice) -> Ipv4Addr {
    if world.prefixes.is_empty() {
        return remote_pod_ip(dice.below(REMOTE_NODES), dice.below(PODS));
    }
    let prefix = world.prefixes[dice.below(world.prefixes.len())];
    let [a, b, c, _] = prefix.addr().octets();
    Ipv4Addr::new(a, b, c, u8::try_from(1 + dice.below(250)).unwrap_or(1))
}

/// An IPv6 address behind another node.
fn remote6(world: &World, dice: &mut Dice) -> Ipv6Addr {
    if world.prefixes6.is_empty() {
        return remote_pod_ip6(dice.below(REMOTE_NODES), dice.below(PODS));
    }
    let prefix = world.prefixes6[dice.below(world.prefixes6.len())];
    Ipv6Addr::from_bits(prefix.addr().to_bits() | 1)
}

/// A generator of numbers that look random and are the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from((mixed * limit as u64) >> 32).unwrap_or(0)
    }
}

/// The VNI a tunnel frame is sent with, as bytes; what an uplink writes.
pub(super) fn vxlan_header(vni: Vni) -> [u8; vxlan::HEADER_LEN] {
    let mut header = [0; vxlan::HEADER_LEN];
    vxlan::write_header(&mut header, vni);
    header
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use podwire_vswitch::limits::BATCH_FRAMES;

    use super::*;

    #[test]
    fn every_flow_comes_once_a_round_and_no_two_are_alike() {
        let traffic = Traffic::new(Scenario::L3, 640, 0);
        let (mut pool, mut batch, mut at) = (FramePool::new(BATCH_FRAMES), Batch::new(), 0);
        let mut seen = HashSet::new();
        for _ in 0..10 {
            traffic.refill(&mut at, &mut pool, &mut batch);
            assert_eq!(batch.len(), BATCH_FRAMES);
            seen.extend(batch.items().iter().map(|item| item.frame.bytes().to_vec()));
            batch.recycle(&mut pool);
        }
        assert_eq!((seen.len(), at), (640, 0));
    }

    #[test]
    fn the_order_is_shuffled_and_the_same_in_every_run() {
        let order = Traffic::new(Scenario::L2, 1_000, 0).order;
        assert_eq!(order, Traffic::new(Scenario::L2, 1_000, 0).order);
        let steps = order.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(steps < 20, "{steps} of 1,000 flows follow their neighbour in memory");
    }
}
