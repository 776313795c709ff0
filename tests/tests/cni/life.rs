//! A container's life: wired whole, the same when asked again, taken away whole, and nothing of it when something fails.

use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, command};
use serde_json::{Value, json};

use crate::plugin::{Call, addresses, attachments, container, node};

#[test]
fn containers_are_wired_told_of_and_taken_away() {
    let node = node();
    let ((a, call, result), (b, ..)) = (container(&node, "a"), container(&node, "b"));
    assert_eq!(addresses(&result), ["10.244.1.2/24", "fd00:244:1::2/64"]);
    assert_eq!(result["interfaces"][0]["mac"], a.netns.mac("eth0").as_str());
    assert_eq!(result["routes"][1], json!({"dst": "::/0", "gw": "fd00:244:1::1"}));
    for path in [Path::v4(&a, &b), Path::v6(&b, &a)] {
        assert!(ping(path, Ping::default()).all());
    }
    assert_eq!(call.run("ADD").done(), result, "the same again");
    assert_eq!(call.check(&result).done(), Value::Null);
    assert_eq!(call.run("STATUS").done(), Value::Null);
    for _ in 0..2 {
        assert_eq!(call.run("DEL").done(), Value::Null);
        assert!(!a.netns.has_interface("eth0"));
    }
    assert_eq!(call.check(&result).failed().0, 103);
    assert_eq!(attachments(&node).len(), 1);
}

#[test]
fn a_container_gets_what_it_asks_for() {
    let node = node();
    let netns = Netns::new("a");
    let wanted = json!({"ips": ["10.244.1.77/24", "fd00:244:1::77"], "mac": "02:00:00:00:00:77"});
    let call = Call::in_netns(&node, "a", &netns).key("runtimeConfig", wanted).key("mtu", 1400.into());
    let result = call.run("ADD").done();
    assert_eq!(addresses(&result), ["10.244.1.77/24", "fd00:244:1::77/64"]);
    assert_eq!(netns.mac("eth0"), "02:00:00:00:00:77");
    assert_eq!(result["interfaces"][0]["mtu"], 1400);
    assert_eq!(call.check(&result).done(), Value::Null);
}

#[test]
fn a_container_of_another_kind_is_wired_too() {
    let node = node();
    let netns = Netns::new("x");
    let call = Call::in_netns(&node, "x", &netns).key("port", "veth-xdp".into());
    let result = call.run("ADD").done();
    assert_eq!(call.check(&result).done(), Value::Null);
    call.run("DEL").done();
    assert!(!netns.has_interface("eth0"));
}

#[test]
fn a_namespace_that_is_gone_is_no_hindrance() {
    let node = node();
    let (pod, call, _) = container(&node, "a");
    command::must(&format!("ip netns del {}", pod.netns.name()));
    call.run("DEL").done();
    assert!(attachments(&node).is_empty());
    Call { netns: String::new(), ..call }.run("DEL").done();
    command::must(&format!("ip netns add {}", pod.netns.name())); // it is deleted with the value
}

#[test]
fn what_is_not_valid_is_collected() {
    let node = node();
    let ((a, call, _), (b, ..)) = (container(&node, "a"), container(&node, "b"));
    let keep = json!([{"containerID": "a", "ifname": "eth0"}]);
    let valid = |list: Value| call.clone().key("cni.dev/valid-attachments", list).run("GC");
    assert_eq!(call.run("GC").failed().0, 7, "without a list nothing is collected");
    assert_eq!(attachments(&node).len(), 2);
    valid(keep).done();
    assert_eq!(attachments(&node).iter().map(|one| one.key.container.to_string()).collect::<Vec<_>>(), ["a"]);
    assert!(!b.netns.has_interface("eth0") && a.netns.has_interface("eth0"));
    valid(json!([])).done();
    assert!(attachments(&node).is_empty() && !a.netns.has_interface("eth0"));
}

#[test]
fn after_a_boot_no_address_is_held() {
    let mut node = node();
    let containers = ["a", "b"].map(|name| container(&node, name));
    assert_eq!(held(&node), 4);
    assert!(node.stop());
    let names = containers.each_ref().map(|(pod, ..)| pod.netns.name().to_owned());
    names.iter().for_each(|name| _ = command::must(&format!("ip netns del {name}")));
    node.start();
    containers[0].1.clone().key("cni.dev/valid-attachments", Value::Null).run("GC").done();
    assert_eq!((attachments(&node).len(), held(&node)), (0, 0));
    names.iter().for_each(|name| _ = command::must(&format!("ip netns add {name}"))); // deleted with their values
    let anew = containers[0].1.run("ADD").done();
    assert_eq!(addresses(&anew).len(), 2);
}

/// Addresses that are leased, in all ranges.
pub(crate) fn held(node: &Node) -> u64 {
    let shown = node.podwire_json(&["ipam", "show"]);
    shown["ranges"].as_array().unwrap().iter().map(|range| range["held"].as_u64().unwrap()).sum()
}

#[test]
fn an_add_without_a_free_address_says_so_until_there_is_one() {
    let ranges = "ranges = [\"10.244.1.30-10.244.1.31\"]";
    let spec = NodeSpec { underlay: Vec::new(), ..NodeSpec::planned(NodePlan(1)) }.line("ipam", ranges);
    let mut node = Node::new(spec);
    node.start();
    let ((_a, first, _), (_b, ..)) = (container(&node, "a"), container(&node, "b"));
    let netns = Netns::new("c");
    let call = Call::in_netns(&node, "c", &netns);
    let (code, words) = call.run("ADD").failed();
    assert!(code == 101 && words.contains("10.244.1."), "{code}: {words}");
    assert!(!netns.has_interface("eth0") && held(&node) == 4, "no IPv6 address alone");
    assert_eq!(call.run("STATUS").done(), Value::Null, "the node stays ready, or its pods would be evicted");
    first.run("DEL").done();
    call.run("ADD").done();
}

#[test]
fn addresses_may_come_from_host_local() {
    let node = node();
    let state = tempfile::tempdir().unwrap();
    let ipam =
        json!({"type": "host-local", "dataDir": state.path(), "subnet": "10.244.1.0/24", "rangeStart": "10.244.1.200"});
    let netns = Netns::new("a");
    let call = Call::in_netns(&node, "a", &netns).key("cniVersion", "1.0.0".into()).key("ipam", ipam);
    let result = call.run("ADD").done();
    assert_eq!(addresses(&result), ["10.244.1.200/24"]);
    assert_eq!(call.check(&result).done(), Value::Null);
    call.run("DEL").done();
    let (code, words) = Call { netns: "/run/netns/none".into(), ..call }.run("ADD").failed();
    assert_eq!(code, 100, "{words}");
    let files = std::fs::read_dir(state.path().join("pods")).unwrap();
    let given = files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("10."));
    assert_eq!(given.count(), 0, "what an ADD that failed was given is taken back");
}
