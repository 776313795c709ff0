//! The kit proves itself: two nodes with nothing but the kernel's bridge and VXLAN, and every probe between them.
//!
//! When this ring is red, no other ring that uses the kit says anything about podwire. Needs root.

use podwire_tests::probe::Path;
use podwire_tests::probe::fragment::{Cut, Order, fragments};
use podwire_tests::probe::iperf::{Iperf, iperf};
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::tcp::transfer;
use podwire_tests::probe::udp::{exchange, train};
use podwire_tests::underlay::join_underlay;
use podwire_tests::{KernelPeer, NodePlan, PeerSpec, Pod, Wire};

struct Pair {
    nodes: [KernelPeer; 2],
    pods: [Pod; 2],
}

/// Two kernel peers that reach each other over a cable, with one pod each.
fn pair(wire: Wire, change: impl Fn(usize, &mut PeerSpec)) -> Pair {
    let nodes = [0, 1].map(|number: usize| {
        let plan = NodePlan(if number == 0 { 1 } else { 2 });
        let mut spec = PeerSpec { underlay_mtu: wire.mtu, ..PeerSpec::planned(plan) };
        change(number, &mut spec);
        KernelPeer::new(spec)
    });
    let [a, b] = &nodes;
    join_underlay((&a.netns, &a.spec.underlay), (&b.netns, &b.spec.underlay), wire);
    nodes.iter().for_each(KernelPeer::start);
    let [a, b] = &nodes;
    a.reach(&b.as_remote());
    b.reach(&a.as_remote());
    let pods = [a.pod("pod-a", &NodePlan(1).pod(10)), b.pod("pod-b", &NodePlan(2).pod(10))];
    Pair { nodes, pods }
}

fn paths(pair: &Pair) -> [Path<'_>; 4] {
    let [a, b] = &pair.pods;
    [Path::v4(a, b), Path::v6(a, b), Path::v4(b, a), Path::v6(b, a)]
}

#[test]
fn every_probe_passes_between_two_kernel_nodes() {
    let pair = pair(Wire::default(), |_, _| {});
    let mtu = pair.nodes[0].spec.mtu();
    for path in paths(&pair) {
        let echo = ping(path, Ping::default());
        assert!(echo.all() && echo.first_ms.is_some(), "{}", echo.text);
        let full = ping(path, Ping::of_ip_length(path.is_v6(), mtu));
        assert!(full.all(), "a packet of the MTU passes whole: {}", full.text);
        let large = ping(path, Ping { payload: 4_000, ..Ping::default() });
        assert!(large.all(), "a larger one passes in fragments: {}", large.text);

        let sent = transfer(path, 20_000_000).expect("TCP carries every byte");
        assert_eq!(sent.bytes, 20_000_000);
        for size in [1, 1_000, 1_400, 9_000] {
            let answers = exchange(path, size, 20).expect("UDP sockets work");
            assert!(answers.all(), "{size} bytes: {answers:?}");
        }
        assert_eq!(train(path, 10_500, 1_000).expect("trains pass"), [[1_000; 10].as_slice(), &[500]].concat());
        for (number, order) in (1..).zip(Order::ALL) {
            let cut = Cut { payload: 5_000, piece: 1_024, id: number };
            assert!(fragments(path, cut, order).expect("raw sockets work"), "{order:?} over {path:?}");
        }
    }
}

#[test]
fn iperf3_gives_a_figure_in_both_directions() {
    let pair = pair(Wire { mtu: 1500, offloads: false }, |_, _| {});
    for (path, reverse) in paths(&pair).into_iter().zip([false, true, true, false]) {
        let figure = iperf(path, Iperf { seconds: 1, reverse, ..Iperf::default() }).expect("iperf3 measures");
        assert!(figure.gbps > 0.05, "{figure:?}");
    }
    let udp = Iperf { seconds: 1, udp_mbps: Some(20), ..Iperf::default() };
    let figure = iperf(paths(&pair)[0], udp).expect("iperf3 measures");
    assert!(figure.gbps > 0.01 && figure.lost_percent < 50.0, "{figure:?}");
}

#[test]
fn a_node_without_ipv6_underlay_carries_ipv6_over_ipv4() {
    let pair = pair(Wire::default(), |_, spec| {
        spec.underlay.retain(|net| net.addr().is_ipv4());
        spec.outer_checksum = false;
    });
    assert_eq!(pair.nodes[0].spec.mtu(), 1450);
    for path in paths(&pair) {
        let full = ping(path, Ping::of_ip_length(path.is_v6(), 1450));
        assert!(full.all(), "{}", full.text);
        transfer(path, 1_000_000).expect("TCP passes");
    }
}

#[test]
fn probes_see_a_path_that_is_broken() {
    let pair = pair(Wire::default(), |number, spec| spec.vni += u32::try_from(number).unwrap());
    let [a, b] = &pair.pods;
    let path = Path::v4(a, b);
    let echo = ping(path, Ping { count: 1, wait_seconds: 1, ..Ping::default() });
    assert_eq!((echo.sent, echo.received), (1, 0), "VNIs differ: {}", echo.text);
    assert!(transfer(path, 1_000).is_err());
    assert!(!exchange(path, 100, 1).is_ok_and(|answers| answers.all()));
    assert!(!fragments(path, Cut { payload: 3_000, piece: 1_024, id: 1 }, Order::First).unwrap());
    let too_long = ping(path, Ping::of_ip_length(false, 1_500));
    assert!(!too_long.all() && too_long.too_big(), "the pod's own interface says so: {}", too_long.text);
}

#[test]
fn a_namespace_goes_with_its_value_and_takes_its_processes_along() {
    let netns = podwire_tests::Netns::new("gone");
    let (path, pid) = (netns.path(), netns.spawn("sleep", &["1000"]));
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    assert!(path.exists() && process.exists());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = &netns;
        netns.ip("link set no-such-interface up");
    }));
    assert!(panicked.is_err(), "a fixture's failing step ends the test");
    assert!(!path.exists() && !process.exists(), "nothing is left behind, also after a panic");
}

#[test]
fn a_cable_without_offloads_has_none() {
    let (a, b) = (podwire_tests::Netns::new("a"), podwire_tests::Netns::new("b"));
    podwire_tests::Netns::veth((&a, "eth0"), (&b, "eth1"), Wire { mtu: 9000, offloads: false });
    let features = b.exec("ethtool", &["-k", "eth1"]).expect("ethtool reads");
    for off in ["tx-checksumming: off", "tcp-segmentation-offload: off", "generic-segmentation-offload: off"] {
        assert!(features.contains(off), "{off} in {features}");
    }
    assert!(a.ip("link show eth0").contains("mtu 9000"));
    let root = podwire_tests::command::run("ip", &["link", "show", "eth1"]);
    assert!(!root.ok(), "the root namespace never sees the cable");
}
