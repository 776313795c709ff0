//! What the daemon says of itself through the CLI, for people and for programs, and with other configurations.

use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Node, NodePlan, NodeSpec};
use serde_json::Value;

use crate::api::{Api, node, pod, underlay};

#[test]
fn every_question_is_answered_for_people_and_for_programs() {
    let node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    node.podwire(&["vtep", "add", "node2", "--remote", "172.31.0.2", "--mac", "02:00:00:00:00:02"]);
    node.podwire(&["route", "add", "10.244.2.0/24", "via", "node2"]);
    node.podwire(&["bridge", "add", "blue"]);
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    let mac = a.netns.mac("eth0");
    let questions: [(&[&str], &str, &str, &str); 14] = [
        (&["status"], "node1", "/node", "\"node1\""),
        (&["port", "list"], "pod-10", "/0/name", "\"host\""),
        (&["port", "show", "pod-10"], "10.244.1.10/24", "/state", "\"up\""),
        (&["bridge", "list"], "blue", "/1/name", "\"blue\""),
        (&["mac", "list"], &mac, "/0/bridge", "\"pods\""),
        (&["route", "list"], "10.244.2.0/24", "/0/prefix", "\"10.244.2.0/24\""),
        (&["route", "get", "10.244.2.9"], "node2", "/prefix", "\"10.244.2.0/24\""),
        (&["route", "get", "10.244.1.11"], "pod-11", "/prefix", "\"10.244.1.11/32\""),
        (&["vtep", "list"], "172.31.0.2", "/0/name", "\"node2\""),
        (&["stats"], "forward", "/totals/drop:blackhole", "0"),
        (&["drops", "--all"], "blackhole", "/0/ports", "[]"),
        (&["trace", "--in", "pod-10", "--dst", "10.244.2.9"], "verdict", "/verdict", "\"forward\""),
        (&["show", "limits"], "ports_max", "/0/unit", "\"frames\""),
        (&["drops"], "", "", ""),
    ];
    for (question, shown, pointer, expected) in questions {
        let table = node.podwire(question);
        assert!(table.contains(shown), "{question:?} shows {shown}:\n{table}");
        let json = node.podwire_json(question);
        if !pointer.is_empty() {
            let found = json.pointer(pointer).map(Value::to_string);
            assert_eq!(found.as_deref(), Some(expected), "{question:?} {pointer}: {json:#}");
        }
    }
    let missing = node.podwire_outcome(&["port", "show", "nobody"]);
    assert!(!missing.ok() && missing.stderr.contains("nobody") && missing.stderr.contains("port list"), "{missing:?}");
    let nowhere = node.podwire_outcome(&["route", "get", "192.0.2.1"]);
    assert!(!nowhere.ok() && nowhere.stderr.contains("no route covers it"), "{nowhere:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(node.podwire(&["completions", shell]).contains("trace"), "{shell}");
    }
}

#[test]
fn counters_of_a_port_begin_with_the_port() {
    let node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    assert!(ping(Path::v4(&a, &b), Ping { count: 20, ..Ping::default() }).all());
    let sent = |name: &str| node.podwire_json(&["port", "show", name])["counters"]["rx_frames"].as_u64().unwrap();
    assert!(sent("pod-10") >= 20);
    node.podwire(&["port", "del", "pod-10"]);
    let again = node.pod_with("other", &NodePlan(1).pod(12), &[]);
    assert!(sent("other") < 20, "the slot's earlier port is not its");
    drop(again);
}

#[test]
fn a_node_without_uplink_serves_its_own_pods_and_says_so() {
    let mut node = Node::new(NodeSpec { underlay: Vec::new(), ..NodeSpec::planned(NodePlan(1)) });
    node.start();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    for path in [Path::v4(&a, &b), Path::v6(&a, &b), Path::from_node(&node.netns, &NodePlan(1).gateways(), &b, false)] {
        assert!(ping(path, Ping::default()).all());
    }
    let status = node.podwire_json(&["status"]);
    assert!(status["uplink"].is_null() && status["warnings"].as_array().unwrap().is_empty(), "{status:#}");
    node.podwire(&["vtep", "add", "node2", "--remote", "172.31.0.2", "--mac", "02:00:00:00:00:02"]);
    node.podwire(&["route", "add", "10.244.2.0/24", "via", "node2"]);
    let trace = node.podwire_json(&["trace", "--in", "pod-10", "--dst", "10.244.2.9"]);
    assert!(trace["verdict"].as_str().unwrap().starts_with("drop:"), "{trace:#}");
}

#[test]
fn two_pinned_workers_share_the_ports() {
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(allowed.contains("Cpus_allowed_list:\t0-"), "this test pins to the cores 0 and 1: {allowed}");
    let mut node = Node::new(NodeSpec { cpus: Some("0-1".into()), ..NodeSpec::planned(NodePlan(1)) });
    underlay(&node);
    node.start();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let status = node.podwire_json(&["status"]);
    let cpus: Vec<Option<u64>> = status["workers"].as_array().unwrap().iter().map(|row| row["cpu"].as_u64()).collect();
    assert_eq!(cpus, [Some(0), Some(1)]);
    for path in [Path::v4(&a, &b), Path::v6(&b, &a)] {
        assert!(ping(path, Ping::default()).all());
    }
    let api = Api::of(&node);
    let workers = api.ask(api.client.status()).unwrap().workers;
    assert!(workers.iter().all(|worker| worker.frames > 0), "both receive: {workers:?}");
}
