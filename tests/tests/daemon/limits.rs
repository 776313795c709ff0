//! Bandwidth limits: what TCP gets of them, that they change in place, and that other pods do not feel them.

use podwire_control::model::{Bandwidth, Bits, Object, Owner, Port, RateLimit};
use podwire_tests::probe::Path;
use podwire_tests::probe::iperf::{Iperf, iperf};
use podwire_tests::{Node, NodePlan, Pod};

use crate::api::{Api, node, pod, port};
use crate::stream::Stream;

/// Share of a limit that TCP gets as payload, in percent. Headers take 4 to 5, the first burst brings some.
const SHARE_PERCENT: std::ops::RangeInclusive<f64> = 85.0..=105.0;

fn limited_pod(node: &Node, host: u8, kind: &str, rate: &str) -> Pod {
    let more = ["--kind", kind, "--ingress-rate", rate, "--egress-rate", rate];
    node.pod_with(&format!("pod-{host}"), &NodePlan(1).pod(host), &more)
}

fn gbps(path: Path<'_>) -> f64 {
    iperf(path, Iperf { seconds: 3, ..Iperf::default() }).unwrap().gbps
}

#[track_caller]
fn assert_gets(path: Path<'_>, rate: &str) {
    let limit = rate.parse::<Bits>().unwrap().0 as f64 / 1e9;
    let share = 100.0 * gbps(path) / limit;
    eprintln!("{rate}: {share:.1} %");
    assert!(SHARE_PERCENT.contains(&share), "{share:.1} % of {rate}");
}

/// States a limit of both directions of a TAP pod, or none.
fn limit(api: &Api, pod: &Pod, host: u8, rate: Option<&str>) {
    let limit = rate.map(|rate| RateLimit::new(rate.parse().unwrap(), None));
    let bandwidth = Bandwidth { ingress: limit, egress: limit };
    let changed = Port { bandwidth, ..port(&pod.name, &pod.netns, host) };
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed)], &[])).unwrap();
}

#[test]
fn tcp_gets_the_limit_both_ways() {
    let node = node();
    let free = pod(&node, 10);
    let kinds = ["tap", "veth-xdp"].into_iter().flat_map(|kind| ["10M", "100M", "1G"].map(|rate| (kind, rate)));
    // A port that goes takes its counters along.
    let mut pods = Vec::new();
    for (host, (kind, rate)) in (20..).zip(kinds) {
        pods.push(limited_pod(&node, host, kind, rate));
        let limited = &pods[pods.len() - 1];
        for path in [Path::v4(&free, limited), Path::v4(limited, &free), Path::v6(limited, &free)] {
            eprint!("{kind} {} -> {} ", path.source, path.target);
            assert_gets(path, rate);
        }
    }
    assert!(node.total("drop:rate_ingress") > 0 && node.total("drop:rate_egress") > 0);
    node.assert_every_frame_is_counted();
}

#[test]
fn a_limit_changes_in_place_and_costs_no_packet() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), limited_pod(&node, 11, "tap", "1G"));
    let device = b.netns.ip("-o link show dev eth0");
    let stream = Stream::start(&a, &b);
    for rate in [Some("10M"), None, Some("2G"), Some("100M")] {
        limit(&api, &b, 11, rate);
    }
    assert_eq!(stream.end().1, 0, "packets lost");
    assert_eq!(b.netns.ip("-o link show dev eth0"), device);
    assert_gets(Path::v4(&a, &b), "100M");
    limit(&api, &b, 11, None);
    assert!(gbps(Path::v4(&a, &b)) > 0.5, "not limited any more");
}

#[test]
fn other_pods_do_not_feel_a_pod_that_is_over_its_limit() {
    let node = node();
    let (a, b, c) = (pod(&node, 10), limited_pod(&node, 11, "tap", "10M"), pod(&node, 12));
    let stream = Stream::start(&c, &a);
    std::thread::scope(|scope| {
        let flood = Iperf { seconds: 4, udp_mbps: Some(100), ..Iperf::default() };
        let floods = [Path::v4(&b, &a), Path::v4(&a, &b)];
        let floods = floods.map(|path| scope.spawn(move || iperf(path, flood).unwrap().lost_percent));
        let free = gbps(Path::v4(&a, &c));
        assert!(free > 0.5, "{free} Gb/s beside the limited pod");
        for flood in floods {
            let lost_percent = flood.join().unwrap();
            assert!((80.0..95.0).contains(&lost_percent), "{lost_percent} %");
        }
    });
    assert_eq!(stream.end().1, 0, "packets lost");
    node.assert_every_frame_is_counted();
}

#[test]
fn a_limit_is_shown_traced_and_kept_over_a_restart() {
    let mut node = node();
    let (_a, _b) = (limited_pod(&node, 10, "tap", "100M"), limited_pod(&node, 11, "veth-xdp", "10M"));
    let rates = |node: &Node| {
        let shown = node.podwire(&["port", "show", "pod-11"]);
        shown.lines().filter(|line| line.contains("rate")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = rates(&node);
    assert!(before.len() == 2 && before.iter().all(|line| line.ends_with("  10M, burst 2500k")), "{before:?}");
    let trace = node.podwire(&["trace", "--in", "pod-10", "--dst", "10.244.1.11"]);
    for step in ["limit    from port pod-10: 100M, burst 25M", "limit    to port pod-11: 10M, burst 2500k"] {
        assert!(trace.contains(step), "{trace}");
    }
    assert!(node.stop());
    node.start();
    assert_eq!(rates(&node), before);
}
