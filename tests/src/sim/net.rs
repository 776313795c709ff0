//! Several switches and the wire between their uplinks, with seeded faults and delay in virtual time.
//!
//! The wire carries a VXLAN datagram's payload by its remote address. It knows no outer headers beyond what a frame
//! says of them, and loses what is longer than its MTU.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use podwire_vswitch::frame::{Encap, Outer};
use podwire_vswitch::port::memory::MemoryFrame;

use super::{SimSwitch, UPLINK, peer_of_plan};
use crate::plan::{NodePlan, OVERHEAD4, OVERHEAD6};

/// What the wire does to datagrams; chances are in thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Chance that a datagram is lost.
    pub loss_permille: u32,
    /// Chance that it arrives twice.
    pub duplicate_permille: u32,
    /// Chance that it takes one more delay than the others, so that later ones overtake it.
    pub reorder_permille: u32,
    /// How long each takes.
    pub delay: Duration,
}

/// What became of the datagrams so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct WireCount {
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Longer than the wire's MTU.
    pub too_big: u64,
    /// To an address nobody has.
    pub unknown: u64,
}

/// Switches on one wire, and one clock.
#[derive(Debug)]
pub struct SimNet {
    switches: Vec<SimSwitch>,
    /// Addresses of each switch.
    addresses: Vec<Vec<IpAddr>>,
    by_address: HashMap<IpAddr, usize>,
    faults: Faults,
    random: Random,
    /// By arrival time in virtual nanoseconds since the start, then by number.
    in_flight: BTreeMap<(u64, u64), (usize, MemoryFrame)>,
    sent: u64,
    now_ns: u64,
    count: WireCount,
}

impl SimNet {
    /// Joins switches, each with its underlay addresses. The seed decides the faults.
    #[must_use]
    pub fn new(switches: Vec<(SimSwitch, Vec<IpAddr>)>, faults: Faults, seed: u64) -> Self {
        let (switches, addresses): (Vec<_>, Vec<_>) = switches.into_iter().unzip();
        let owned = addresses.iter().enumerate().flat_map(|(at, own)| own.iter().map(move |&address| (address, at)));
        Self {
            by_address: owned.collect(),
            switches,
            addresses,
            faults,
            random: Random(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            now_ns: 0,
            count: WireCount::default(),
        }
    }

    /// Nodes 1 to `nodes` of the plan, each knowing all others, without pods.
    #[must_use]
    pub fn planned(nodes: u8, faults: Faults, seed: u64) -> Self {
        let node = |n: u8| {
            let mut switch = SimSwitch::planned(n);
            let others = (1..=nodes).filter(|&other| other != n);
            switch.state(others.flat_map(|other| peer_of_plan(NodePlan(other))));
            (switch, NodePlan(n).underlay().map(|address| address.addr()).to_vec())
        };
        Self::new((1..=nodes).map(node).collect(), faults, seed)
    }

    /// The switch at a place, counted from 0.
    pub fn switch(&mut self, at: usize) -> &mut SimSwitch {
        &mut self.switches[at]
    }

    /// Changes what the wire does from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Runs all switches and delivers what is due by now, until nothing moves; returns frames received by switches.
    #[track_caller]
    pub fn run(&mut self) -> usize {
        let mut received = 0;
        loop {
            let frames: usize = self.switches.iter_mut().map(SimSwitch::run).sum();
            received += frames;
            for from in 0..self.switches.len() {
                for frame in self.switches[from].take(UPLINK) {
                    self.send(from, frame);
                }
            }
            if self.deliver_due() == 0 && frames == 0 {
                return received;
            }
        }
    }

    /// Lets time pass, delivering and running at each arrival on the way.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now_ns + nanoseconds(by);
        self.run();
        while let Some(next) = self.next_arrival_ns().filter(|&next| next <= until) {
            self.set_time(next);
            self.run();
        }
        self.set_time(until);
    }

    /// How long until the next datagram arrives; none when nothing is on the wire.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Duration> {
        self.next_arrival_ns().map(|at| Duration::from_nanos(at.saturating_sub(self.now_ns)))
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    /// What became of the datagrams.
    #[must_use]
    pub fn count(&self) -> WireCount {
        self.count
    }

    fn next_arrival_ns(&self) -> Option<u64> {
        self.in_flight.keys().next().map(|&(at, _)| at)
    }

    fn set_time(&mut self, now_ns: u64) {
        let step = Duration::from_nanos(now_ns - self.now_ns);
        self.now_ns = now_ns;
        for switch in &mut self.switches {
            switch.advance(step);
        }
    }

    /// Puts what an uplink sent onto the wire, with whatever faults befall it.
    #[track_caller]
    fn send(&mut self, from: usize, frame: MemoryFrame) {
        let encap = frame.encap.expect("an uplink sends into tunnels only");
        let Some((to, datagram)) = self.datagram(from, &encap, &frame) else { return };
        if self.random.chance(self.faults.loss_permille) {
            self.count.lost += 1;
            return;
        }
        if self.random.chance(self.faults.duplicate_permille) {
            self.count.duplicated += 1;
            self.put(to, datagram.clone(), self.faults.delay);
        }
        let late = self.random.chance(self.faults.reorder_permille);
        self.count.reordered += u64::from(late);
        let delay = if late { self.faults.delay * 2 + Duration::from_nanos(1) } else { self.faults.delay };
        self.put(to, datagram, delay);
    }

    /// The datagram as the other side receives it, and who that is. Its offload is lost, as on a real wire.
    fn datagram(&mut self, from: usize, encap: &Encap, frame: &MemoryFrame) -> Option<(usize, MemoryFrame)> {
        let Some(&to) = self.by_address.get(&encap.remote) else {
            self.count.unknown += 1;
            return None;
        };
        let overhead = if encap.remote.is_ipv6() { OVERHEAD6 } else { OVERHEAD4 };
        let outer_len = frame.bytes.len() - 14 + usize::from(overhead);
        if outer_len > usize::from(self.switches[from].spec().underlay_mtu) && frame.offload.gso.is_none() {
            self.count.too_big += 1;
            return None;
        }
        let own = self.addresses[from].iter().find(|own| own.is_ipv6() == encap.remote.is_ipv6())?;
        let mut payload = vec![8, 0, 0, 0];
        payload.extend((encap.vni.get() << 8).to_be_bytes());
        payload.extend(&frame.bytes);
        Some((to, MemoryFrame::new(payload).with_outer(Outer { remote: *own, tos: encap.tos })))
    }

    fn put(&mut self, to: usize, datagram: MemoryFrame, delay: Duration) {
        self.sent += 1;
        self.in_flight.insert((self.now_ns + nanoseconds(delay), self.sent), (to, datagram));
    }

    fn deliver_due(&mut self) -> usize {
        let later = self.in_flight.split_off(&(self.now_ns + 1, 0));
        let due = std::mem::replace(&mut self.in_flight, later);
        let delivered = due.len();
        for (to, datagram) in due.into_values() {
            self.switches[to].inject(UPLINK, datagram);
            self.count.delivered += 1;
        }
        delivered
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("virtual time lasts 500 years")
}

/// SplitMix64: small, seeded and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, permille: u32) -> bool {
        self.next() % 1_000 < u64::from(permille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use podwire_control::model::Mac;

    const DELAY: Duration = Duration::from_millis(3);

    /// Two nodes with a pod each, of which the first has sent ten datagrams to the second.
    fn after_ten(faults: Faults) -> SimNet {
        let mut net = SimNet::planned(2, faults, 7);
        for node in [1, 2] {
            net.switch(usize::from(node) - 1).pod("pod", &NodePlan(node).pod(10));
        }
        let [src, dst] = [1, 2].map(|node| plan::of_family(&NodePlan(node).pod(10), false));
        let (IpAddr::V4(v4_src), IpAddr::V4(v4_dst)) = (src, dst) else { unreachable!("asked for IPv4") };
        for number in 0..10 {
            let gateway = net.switch(0).gateway_mac();
            let packet = etherparse::PacketBuilder::ethernet2(Mac::of_ip(src).0, gateway.0)
                .ipv4(v4_src.octets(), v4_dst.octets(), 64)
                .udp(1_000, 2_000);
            let mut bytes = Vec::new();
            packet.write(&mut bytes, &[number; 20]).expect("a vector takes all bytes");
            net.switch(0).inject("pod", MemoryFrame::new(bytes));
        }
        net.run();
        net
    }

    fn arrived(net: &mut SimNet) -> Vec<u8> {
        net.switch(1).take("pod").iter().filter_map(|frame| frame.bytes.last().copied()).collect()
    }

    #[test]
    fn datagrams_arrive_in_order_when_their_time_has_come() {
        let mut net = after_ten(Faults { delay: DELAY, ..Faults::default() });
        assert_eq!(net.next_arrival(), Some(DELAY));
        net.advance(DELAY - Duration::from_nanos(1));
        assert!(arrived(&mut net).is_empty());
        net.advance(Duration::from_nanos(1));
        assert_eq!(arrived(&mut net), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn faults_befall_datagrams_and_are_the_same_for_the_same_seed() {
        let faults = |loss_permille, duplicate_permille, reorder_permille| {
            let faults = Faults { loss_permille, duplicate_permille, reorder_permille, delay: DELAY };
            let mut net = after_ten(faults);
            net.advance(3 * DELAY);
            (arrived(&mut net), net.count())
        };
        assert!(faults(1_000, 0, 0).0.is_empty());
        assert_eq!(faults(0, 1_000, 0).0.len(), 20);
        let (order, count) = faults(0, 0, 500);
        assert!(count.reordered > 0 && count.delivered == 10 && !order.is_sorted(), "{order:?} {count:?}");
        assert_eq!(faults(300, 300, 300), faults(300, 300, 300));
    }
}
