//! Rate limits of ports: what is over them is dropped and counted, the same with and without the flow cache.

use std::time::Duration;

use podwire_control::model::{Bandwidth, Mac, RateLimit};
use podwire_tests::NodePlan;
use podwire_tests::packet::{Packet, flag};
use podwire_tests::sim::{HOST, SimPort, SimSwitch, planned_spec};
use podwire_vswitch::port::memory::MemoryFrame;
use podwire_vswitch::stats::Event;

use super::{a, address, b, check, check_events, frame, gateway, plain};

/// A byte a microsecond, and so many bytes at once.
fn limit(burst_bytes: u64) -> Option<RateLimit> {
    Some(RateLimit { bits_per_s: 8_000_000, burst_bits: 8 * burst_bytes })
}

fn ingress(burst_bytes: u64) -> Bandwidth {
    Bandwidth { ingress: limit(burst_bytes), egress: None }
}

fn egress(burst_bytes: u64) -> Bandwidth {
    Bandwidth { ingress: None, egress: limit(burst_bytes) }
}

fn pod_b(bandwidth: Bandwidth) -> SimPort {
    SimPort::pod("b", &NodePlan(1).pod(11)).bandwidth(bandwidth)
}

/// Node 1 with pods `a` and `b`, of which `b` is limited; with a flow cache, and without.
fn limited(bandwidth: Bandwidth) -> [SimSwitch; 2] {
    [64, 0].map(|flows| {
        let mut switch = SimSwitch::with_flows(planned_spec(NodePlan(1)), flows);
        switch.host().pod("a", &NodePlan(1).pod(10)).port(pod_b(bandwidth));
        switch
    })
}

/// A frame of 1,000 bytes from a pod to the other.
fn to_a() -> MemoryFrame {
    Packet::udp(address(1, 11, false), address(1, 10, false), &[7; 958]).macs(a(), b()).frame()
}

fn to_b() -> MemoryFrame {
    Packet::udp(address(1, 10, false), address(1, 11, false), &[7; 958]).macs(b(), a()).frame()
}

/// Ten segments of 1,424 bytes.
fn super_frame(to_b: bool) -> MemoryFrame {
    let (src, dst, macs) = if to_b { (10, 11, (b(), a())) } else { (11, 10, (a(), b())) };
    let (src, dst) = (address(1, src, false), address(1, dst, false));
    Packet::tcp(src, dst, 1, flag::ACK, &[7; 13_700]).macs(macs.0, macs.1).super_frame(1_370)
}

fn microseconds(switch: &mut SimSwitch, us: u64) {
    switch.advance(Duration::from_micros(us));
}

#[test]
fn what_a_pod_sends_beyond_its_limit_is_dropped() {
    for mut switch in limited(egress(3_000)) {
        for _ in 0..3 {
            check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        }
        check(&mut switch, ("b", to_a()), "drop:rate_egress", &[]);
        check(&mut switch, ("a", to_b()), "forward", &[("b", to_b())]);
        microseconds(&mut switch, 1);
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        microseconds(&mut switch, 999);
        check(&mut switch, ("b", to_a()), "drop:rate_egress", &[]);
        assert_eq!(switch.counters("b").drops(), 2);
    }
}

#[test]
fn what_is_sent_to_a_pod_beyond_its_limit_is_dropped() {
    for mut switch in limited(ingress(3_000)) {
        for _ in 0..3 {
            check(&mut switch, ("a", to_b()), "forward", &[("b", to_b())]);
        }
        check(&mut switch, ("a", to_b()), "drop:rate_ingress", &[]);
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        microseconds(&mut switch, 1);
        check(&mut switch, ("a", to_b()), "forward", &[("b", to_b())]);
        assert_eq!((switch.counters("a").drops(), switch.counters("b").tx_drops), (1, 1));
    }
}

#[test]
fn a_super_frame_costs_what_its_segments_cost_and_may_be_larger_than_the_burst() {
    for (to_b, bandwidth, outcome) in
        [(true, ingress(1_514), "drop:rate_ingress"), (false, egress(1_514), "drop:rate_egress")]
    {
        let (from, to) = if to_b { ("a", "b") } else { ("b", "a") };
        for mut switch in limited(bandwidth) {
            check(&mut switch, (from, super_frame(to_b)), "forward", &[(to, super_frame(to_b))]);
            microseconds(&mut switch, 10 * 1_424 - 1_514);
            check(&mut switch, (from, super_frame(to_b)), outcome, &[]);
            microseconds(&mut switch, 1);
            check(&mut switch, (from, super_frame(to_b)), "forward", &[(to, super_frame(to_b))]);
        }
    }
}

#[test]
fn copies_and_answers_towards_a_limited_pod_count_too() {
    for mut switch in limited(ingress(60)) {
        let all = frame(plain(Mac::BROADCAST, a()));
        check(&mut switch, ("a", all.clone()), "flood", &[(HOST, all.clone()), ("b", all.clone())]);
        check_events(&mut switch, ("a", all.clone()), "flood", &[(HOST, all)], &[(Event::FloodDrops, 1)]);
        let echo = Packet::echo_request(address(1, 11, false), address(1, 1, false), b"ping").macs(gateway(), b());
        check(&mut switch, ("b", echo.frame()), "drop:rate_ingress", &[]);
    }
}

#[test]
fn a_limit_is_spent_as_far_as_it_was_until_it_changes() {
    for mut switch in limited(egress(1_000)) {
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        switch.pod("c", &NodePlan(1).pod(12)).port(pod_b(egress(1_000)));
        check(&mut switch, ("b", to_a()), "drop:rate_egress", &[]);
        switch.port(pod_b(egress(2_000)));
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
        check(&mut switch, ("b", to_a()), "drop:rate_egress", &[]);
        switch.port(pod_b(Bandwidth::default()));
        check(&mut switch, ("b", to_a()), "forward", &[("a", to_a())]);
    }
}
