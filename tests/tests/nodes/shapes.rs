//! Nodes of other shapes than the plan's: underlays of one family, a stretched bridge, several workers.

use std::path::Path as FsPath;
use std::thread;

use ipnet::IpNet;
use podwire_tests::netns::Wire;
use podwire_tests::node::{Node, NodeSpec};
use podwire_tests::plan::NodePlan;
use podwire_tests::pod::Pod;
use podwire_tests::probe::Path;
use podwire_tests::probe::tcp::transfer;
use podwire_tests::probe::udp::exchange;
use serde_json::Value;

use super::{OTHER_POD, POD, assert_ping};

const TRANSFER_BYTES: u64 = 4_000_000;
const BULK_BYTES: u64 = 1_000_000_000;
const BRIDGE_VNI: &str = "77";

fn both_families<'a>(from: &'a Pod, to: &'a Pod) -> [Path<'a>; 2] {
    [Path::v4(from, to), Path::v6(from, to)]
}

#[track_caller]
fn assert_transfer(path: Path<'_>, bytes: u64) {
    let done = transfer(path, bytes);
    assert!(done.is_ok(), "TCP from {} to {}: {done:?}", path.source, path.target);
}

fn pods_over(underlay_v6: bool) {
    let spec = |number| NodeSpec::planned(NodePlan(number)).over(underlay_v6);
    let (here, there) = Node::pair_of([spec(1), spec(2)], Wire::default());
    let pod = here.pod("pod", &NodePlan(1).pod(POD));
    let remote = there.pod("remote", &NodePlan(2).pod(POD));
    for path in both_families(&pod, &remote).into_iter().flat_map(|path| [path, path.reversed()]) {
        assert_ping(path);
        assert_transfer(path, TRANSFER_BYTES);
    }
}

#[test]
fn both_families_cross_an_ipv4_underlay() {
    pods_over(false);
}

#[test]
fn both_families_cross_an_ipv6_underlay() {
    pods_over(true);
}

/// Every byte of a bulk transfer is compared, and the counters say that the far node got it in packets and gave its pod
/// super-frames.
#[test]
fn a_bulk_transfer_is_joined_again_behind_either_kind_of_wire() {
    for offloads in [true, false] {
        let (here, there) = Node::pair(Wire { offloads, ..Wire::default() });
        let pod = here.pod("pod", &NodePlan(1).pod(POD));
        let remote = there.pod("remote", &NodePlan(2).pod(POD));
        for path in both_families(&pod, &remote) {
            let before = there.total("coalesced");
            assert_transfer(path, BULK_BYTES);
            let joined = there.total("coalesced") - before;
            // A segment carries less than 1,450 bytes. Some are alone: at the start, and where the worker is fast.
            assert!(joined > BULK_BYTES / 1_450 / 2, "{joined} segments joined, offloads {offloads}, {}", path.target);
        }
        for node in [&here, &there] {
            node.assert_every_frame_is_counted();
        }
    }
}

/// A wire whose ends offload nothing: the kernel segments and checksums what the uplink sends, or the uplink does.
#[test]
fn both_families_cross_a_wire_without_offloads() {
    let (here, there) = Node::pair(Wire { offloads: false, ..Wire::default() });
    let pod = here.pod("pod", &NodePlan(1).pod(POD));
    let remote = there.pod("remote", &NodePlan(2).pod(POD));
    for path in both_families(&pod, &remote).into_iter().flat_map(|path| [path, path.reversed()]) {
        assert_transfer(path, TRANSFER_BYTES);
    }
}

/// Whatever is switched off by hand, traffic goes on, and status and the pod's interface say so.
#[test]
fn each_offload_can_be_switched_off_by_hand() {
    for (off, told, ethtool) in [
        ("checksum = false", &["tap_checksum", "tap_tso", "tap_uso"][..], "tx-checksumming"),
        ("tso = false", &["tap_tso", "tap_uso"], "tcp-segmentation-offload"),
        ("uso = false", &["tap_uso"], "tx-udp-segmentation"),
        ("udp_segment = false", &["udp_segment"], ""),
        ("udp_gro = false", &["udp_gro"], ""),
    ] {
        let spec = |number| NodeSpec::planned(NodePlan(number)).line("offloads", off);
        let (here, there) = Node::pair_of([spec(1), spec(2)], Wire::default());
        let (a, b) = (here.pod("a", &NodePlan(1).pod(POD)), here.pod("b", &NodePlan(1).pod(OTHER_POD)));
        let remote = there.pod("remote", &NodePlan(2).pod(POD));
        for path in both_families(&a, &b).into_iter().chain(both_families(&a, &remote)) {
            assert_transfer(path, TRANSFER_BYTES);
        }
        let status = here.podwire_json(&["status"]);
        let offloads = status["offloads"].as_array().unwrap();
        let is_off = |offload: &&Value| offload["on"] == false;
        let names: Vec<_> = offloads.iter().filter(is_off).map(|offload| offload["name"].as_str().unwrap()).collect();
        assert_eq!(names, told, "{off}: {status}");
        assert!(offloads.iter().filter(is_off).all(|offload| offload["why"].as_str().unwrap().contains("offloads.")));
        let shown = a.netns.command(FsPath::new("ethtool")).args(["-k", "eth0"]).output().unwrap();
        let features = String::from_utf8(shown.stdout).unwrap();
        let feature = features.lines().find(|line| !ethtool.is_empty() && line.trim().starts_with(ethtool));
        assert!(feature.is_none_or(|line| line.contains(": off")), "{off}: {features}");
        assert_eq!(feature.is_some(), !ethtool.is_empty(), "{features}");
        here.assert_every_frame_is_counted();
    }
}

#[test]
fn pods_of_one_subnet_on_two_nodes_share_a_stretched_bridge() {
    let (here, there) = Node::pair(Wire::default());
    let join = |node: &Node, remote: &Node, host: u8| {
        let flood = remote.spec.name.as_str();
        node.podwire(&["bridge", "add", "stretched", "--vni", BRIDGE_VNI, "--flood", flood]);
        let addresses: [IpNet; 2] =
            [format!("192.168.77.{host}/24").parse().unwrap(), format!("fd00:77::{host}/64").parse().unwrap()];
        node.pod_with(&format!("l2-{host}"), &addresses, &["--bridge", "stretched"])
    };
    let (a, b) = (join(&here, &there, 1), join(&there, &here, 2));
    let c = join(&here, &there, 3);
    for path in both_families(&a, &b).into_iter().chain(both_families(&b, &c)).chain(both_families(&c, &a)) {
        assert_ping(path);
        assert_transfer(path, TRANSFER_BYTES);
        let datagrams = exchange(path, 1_000, 32).unwrap();
        assert!(datagrams.all(), "UDP to {}: {datagrams:?}", path.target);
    }
    let macs = there.podwire_json(&["mac", "list", "--bridge", "stretched"]).to_string();
    assert!(macs.contains(&a.netns.mac("eth0")), "the far node has not learned the pod's MAC: {macs}");
    // The routed segment is another network: nothing leaks into it.
    let pod = here.pod("pod", &NodePlan(1).pod(POD));
    let neighbours = pod.netns.ip("neigh show");
    assert!(!neighbours.contains("192.168.77."), "{neighbours}");
    for node in [&here, &there] {
        node.assert_every_frame_is_counted();
    }
}

#[test]
fn two_workers_carry_many_streams_at_once() {
    let spec = |number| {
        let mut spec = NodeSpec::planned(NodePlan(number));
        spec.cpus = Some("0-1".into());
        spec
    };
    let (here, there) = Node::pair_of([spec(1), spec(2)], Wire::default());
    let pods = [POD, OTHER_POD].map(|host| here.pod(&format!("pod{host}"), &NodePlan(1).pod(host)));
    let remotes = [POD, OTHER_POD].map(|host| there.pod(&format!("remote{host}"), &NodePlan(2).pod(host)));
    let across = pods.iter().flat_map(|pod| remotes.iter().flat_map(move |remote| both_families(pod, remote)));
    let near = both_families(&pods[0], &pods[1]);
    let paths: Vec<Path<'_>> = across.flat_map(|path| [path, path.reversed()]).chain(near).collect();
    thread::scope(|scope| {
        for &path in &paths {
            scope.spawn(move || assert_transfer(path, TRANSFER_BYTES / 2));
        }
    });
    for node in [&here, &there] {
        node.assert_every_frame_is_counted();
        let stats = node.podwire_json(&["stats"]);
        let workers = stats["workers"].as_array().unwrap();
        let forwarded: Vec<u64> = workers.iter().filter_map(|worker| worker["counters"]["forward"].as_u64()).collect();
        assert!(forwarded.len() == 2 && forwarded.iter().all(|&frames| frames > 0), "{forwarded:?}");
    }
}
