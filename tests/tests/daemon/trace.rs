//! `podwire trace` says what a real packet would get, and leaves no trace itself.

use std::net::UdpSocket;
use std::time::Duration;

use podwire_control::model::Owner;
use podwire_tests::Pod;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};

use crate::api::{Api, eventually, node, pod, route};
use podwire_control::model::Via;

/// How often a question is asked to see that it is not counted.
const TIMES: u64 = 10;

/// Sends one UDP packet from a pod.
fn send(from: &Pod, to: &str) {
    let target: std::net::IpAddr = to.parse().unwrap();
    let socket = from.netns.enter(|| UdpSocket::bind((from.like(target), 0)).unwrap());
    // A destination that is refused may already have been heard of.
    let _ = socket.send_to(b"x", (target, 9_999));
}

#[test]
fn the_verdict_is_the_one_a_real_packet_gets() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    node.podwire(&["vtep", "add", "node2", "--remote", "172.31.0.2", "--mac", "02:00:00:00:00:02"]);
    let routes = [
        route("10.244.2.0/24", Via::Vtep("node2".parse().unwrap())),
        route("fd00:244:2::/64", Via::Vtep("node2".parse().unwrap())),
        route("10.9.0.0/16", Via::Blackhole),
        route("10.8.0.0/16", Via::Host),
        route("10.7.0.0/16", Via::Port("pod-11".parse().unwrap())),
    ];
    api.ask(api.client.change(Owner::Cli, &routes, &[])).unwrap();
    for path in [Path::v4(&a, &b), Path::v6(&a, &b)] {
        assert!(ping(path, Ping::default()).all(), "neighbours are known from here on");
    }
    for destination in [
        "10.244.1.11",
        "fd00:244:1::b",
        "10.244.2.9",
        "fd00:244:2::9",
        "10.9.1.1",
        "10.8.1.1",
        "10.7.1.1",
        "10.244.3.1",
        "fd00:244:3::1",
        "192.0.2.1",
        "2001:db8::1",
    ] {
        let trace =
            node.podwire_json(&["trace", "--in", "pod-10", "--dst", destination, "--proto", "udp", "--dport", "9999"]);
        let verdict = trace["verdict"].as_str().unwrap();
        let before = api.count(verdict);
        send(&a, destination);
        eventually(Duration::from_secs(2), &format!("{destination} is counted as {verdict}: {trace:#}"), || {
            api.count(verdict) > before
        });
        let egress = trace["egress"].as_str().unwrap();
        assert!(!egress.is_empty(), "{trace:#}");
    }
}

#[test]
fn on_a_bridge_without_gateway_the_question_floods_and_the_trace_says_how_to_go_on() {
    let node = node();
    node.podwire(&["vtep", "add", "node2", "--remote", "172.31.0.2", "--mac", "02:00:00:00:00:02"]);
    node.podwire(&["bridge", "add", "plain"]);
    node.podwire(&["bridge", "add", "stretched", "--vni", "77", "--flood", "node2"]);
    let tunnel = "tunnel to node2 at 172.31.0.2 with vni 77";
    for (bridge, more) in [("plain", None), ("stretched", Some(tunnel))] {
        let at = |host: u8| {
            let addresses = ["192.168.77.", "fd00:77::"].map(|net| format!("{net}{host}"));
            let lengths = addresses.into_iter().zip(["/24", "/64"]);
            let addresses: Vec<_> = lengths.map(|(own, len)| format!("{own}{len}").parse().unwrap()).collect();
            node.pod_with(&format!("{bridge}-{host}"), &addresses, &["--bridge", bridge])
        };
        let (a, b) = (at(1), at(2));
        for to in [b.v4(), b.v6()] {
            let question = ["trace", "--in", &a.name, "--dst", &to.to_string()];
            let trace = node.podwire_json(&question);
            let egress = trace["egress"].as_str().unwrap();
            assert_eq!(trace["verdict"], "flood", "{trace:#}");
            let ways = [Some(format!("port {}", b.name)), more.map(str::to_owned)];
            let ways: Vec<String> = ways.into_iter().flatten().collect();
            assert!(egress.starts_with(&format!("the question floods: {}; ", ways.join(", "))), "{egress}");
            assert!(egress.contains(&format!("station with {to}")) && egress.contains("--dst-mac"), "{egress}");
            let mac = b.netns.mac("eth0");
            let on = node.podwire_json(&[&question[..], &["--dst-mac", &mac]].concat());
            assert_eq!((&on["verdict"], &on["egress"]), (&"forward".into(), &format!("port {}", b.name).into()));
        }
    }
    // Where nobody is asked, nobody answers.
    let _pod = pod(&node, 10);
    let trace =
        node.podwire_json(&["trace", "--in", "pod-10", "--dst", "10.244.1.10", "--src-mac", "02:00:00:00:00:77"]);
    assert!(trace["egress"].as_str().unwrap().starts_with("not sent: nobody answers"), "{trace:#}");
}

#[test]
fn a_trace_learns_counts_and_sends_nothing_and_says_its_verdict_once() {
    let node = node();
    let api = Api::of(&node);
    let (_a, b) = (pod(&node, 10), pod(&node, 11));
    b.netns.ip("link set eth0 down");
    let macs = || {
        let macs = api.ask(api.client.macs(None)).unwrap();
        macs.into_iter().map(|mac| (mac.mac, mac.port)).collect::<Vec<_>>()
    };
    let sent = || api.ports().iter().map(|port| port.counters.tx_frames).sum::<u64>();
    let before = (macs(), api.generation());
    for more in [
        &["--dst", "10.244.1.11"][..],
        &["--dst", "10.244.1.99"],
        &["--dst", "fd00:244:1::b", "--src-mac", "02:00:00:00:00:77"],
        &["--dst", "10.244.1.11", "--src", "10.244.1.77", "--src-mac", "02:00:00:00:00:78"],
        &["--dst", "10.244.1.11", "--dst-mac", "ff:ff:ff:ff:ff:ff"],
        &["--dst", "10.244.1.11", "--size", "9000"],
    ] {
        let question = [&["trace", "--in", "pod-10"], more].concat();
        let table = node.podwire(&question);
        let verdicts: Vec<&str> = table.lines().filter(|line| line.starts_with("verdict")).collect();
        let last = table.lines().rev().find(|line| line.starts_with("verdict"));
        assert!(!verdicts.is_empty() && verdicts.iter().filter(|line| Some(**line) == last).count() == 1, "{table}");
        // Kernels say something of their own now and then, but not as often as this is asked.
        let verdict = node.podwire_json(&question)["verdict"].as_str().unwrap().to_owned();
        let (counted, sent_before) = (api.count(&verdict), sent());
        for _ in 0..TIMES {
            node.podwire(&question);
        }
        assert!(api.count(&verdict) - counted < TIMES && sent() - sent_before < TIMES, "{question:?}");
        assert_eq!((macs(), api.generation()), before, "{question:?}");
    }
}
