//! SIGHUP: what changes while frames flow, and what needs a restart.

use std::fs;
use std::time::Duration;

use podwire_control::model::{Object, Owner};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, NodePlan, Pod};

use crate::api::{Api, eventually, node, pod, port, refused};
use crate::stream::Stream;

/// How long a reload may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Writes the node's configuration with changes, asks for a reload and waits for the log to speak of it.
pub(crate) fn reload(node: &Node, changes: &[(&str, &str)]) -> String {
    let folder = node.log_path().parent().unwrap().to_owned();
    let mut text = node.spec.toml(&node.socket(), &folder.join("state"));
    for (from, to) in changes {
        assert!(text.contains(from), "{from} in {text}");
        text = text.replace(from, to);
    }
    fs::write(folder.join("podwired.toml"), text).unwrap();
    let log = || fs::read_to_string(node.log_path()).unwrap();
    let before = log().matches("reloaded").count();
    node.reload();
    eventually(WITHIN, "the reload is logged", || log().matches("reloaded").count() > before);
    log().lines().rev().find(|line| line.contains("reloaded")).unwrap().to_owned()
}

fn mtu(netns: &podwire_tests::Netns, ifname: &str) -> String {
    let line = netns.ip(&format!("-o link show {ifname}"));
    line.split("mtu ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn poll_mode_cluster_routes_and_mtu_follow_the_file_while_frames_flow() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let own = node.pod_with("pod-12", &NodePlan(1).pod(12), &["--mtu", "1300"]);
    let stream = Stream::start(&a, &b);
    assert!(reload(&node, &[]).contains("nothing changed"));

    assert!(reload(&node, &[("\"adaptive\"", "\"interrupt\"")]).contains("workers.poll"));
    assert_eq!(node.podwire_json(&["status"])["workers"][0]["poll"], "interrupt");

    let interrupt = ("\"adaptive\"", "\"interrupt\"");
    let wider = ("\"10.244.0.0/16\"", "\"10.244.0.0/16\", \"10.200.0.0/16\"");
    assert!(reload(&node, &[interrupt, wider]).contains("node.cluster_cidrs"));
    let routes = || node.netns.ip("route show dev podwire0");
    assert!(routes().contains("10.200.0.0/16") && routes().contains("src 10.244.1.1"), "{}", routes());
    assert!(reload(&node, &[interrupt]).contains("node.cluster_cidrs"));
    assert!(!routes().contains("10.200.0.0/16") && routes().contains("10.244.0.0/16"), "{}", routes());

    assert_eq!(
        [mtu(&a.netns, "eth0"), mtu(&own.netns, "eth0"), mtu(&node.netns, "podwire0")],
        ["1430", "1300", "1430"]
    );
    let smaller = ("kind = \"udp\"", "kind = \"udp\"\nmtu = 1400");
    assert!(reload(&node, &[interrupt, smaller]).contains("uplink.mtu"));
    assert_eq!(
        [mtu(&a.netns, "eth0"), mtu(&own.netns, "eth0"), mtu(&node.netns, "podwire0")],
        ["1330", "1300", "1330"]
    );
    let reported: Vec<(String, u32)> = api.ports().into_iter().map(|port| (port.name, port.mtu)).collect();
    for expected in [("host", 1330), ("uplink", 1400), ("pod-10", 1330), ("pod-12", 1300)] {
        assert!(reported.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} in {reported:?}");
    }
    assert!(ping(Path::v4(&a, &b), Ping::of_ip_length(false, 1330)).all());
    let (sent, lost) = stream.end();
    assert_eq!(lost, 0, "of {sent}");
}

#[test]
fn a_namespace_elsewhere_than_the_file_allows_is_refused_until_it_does() {
    let mut node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), Netns::new("elsewhere"));
    let wanted = [Object::Port(port("pod-11", &b, 11))];
    let only = ("[host]", "netns_dirs = [\"/run/docker/netns\"]\n[host]");
    assert!(reload(&node, &[only]).contains("node.netns_dirs"));
    let sentence = refused(api.ask(api.client.change(Owner::Cli, &wanted, &[])));
    let at = format!("port pod-11: network namespace {} is not below /run/docker/netns", b.path().display());
    assert!(sentence.contains(&at) && sentence.contains("add its directory to node.netns_dirs"), "{sentence}");
    assert_eq!(api.closed("pod-10"), None, "what is open stays");
    assert!(reload(&node, &[]).contains("node.netns_dirs"));
    api.ask(api.client.change(Owner::Cli, &wanted, &[])).unwrap();
    let b = Pod { netns: b, name: "pod-11".into(), addresses: NodePlan(1).pod(11).to_vec() };
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());

    // What the store remembers is not opened elsewhere either.
    node.spec = node.spec.clone().line("node", "netns_dirs = [\"/run/docker/netns\"]");
    node.stop();
    node.start();
    let reason = Api::of(&node).closed("pod-10").unwrap();
    assert!(reason.contains("is not below /run/docker/netns"), "{reason}");
}

#[test]
fn a_key_that_needs_a_restart_is_named_and_nothing_changes() {
    let node = node();
    let api = Api::of(&node);
    let a = pod(&node, 10);
    let generation = api.generation();
    let poll = ("\"adaptive\"", "\"busy\"");
    for (change, key) in [
        (("vni = 1", "vni = 2"), "vxlan.vni"),
        (("port = 4789", "port = 8472"), "vxlan.port"),
        (("interface = \"podwire0\"", "interface = \"podwire1\""), "host.interface"),
        (("name = \"node1\"", "name = \"node9\""), "node.name"),
        (("cpus = \"", "cpus = \"0-"), "workers.cpus"),
    ] {
        let said = reload(&node, &[change, poll]);
        assert!(said.contains("not reloaded") && said.contains(key) && said.contains("restart it"), "{said}");
    }
    let said = reload(&node, &[("[host]", "[host]\ncolour = \"red\""), poll]);
    assert!(said.contains("not reloaded"), "{said}");
    let status = node.podwire_json(&["status"]);
    assert_eq!((status["workers"][0]["poll"].as_str(), status["vni"].as_u64()), (Some("adaptive"), Some(1)));
    assert_eq!(api.generation(), generation);
    assert!(ping(Path::from_node(&node.netns, &NodePlan(1).gateways(), &a, false), Ping::default()).all());
}
