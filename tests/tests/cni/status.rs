//! STATUS: whether a runtime may send pods, and whether those that are there suffer.

use std::fs;

use podwire_tests::held::Held;
use serde_json::Value;

use crate::plugin::{Call, container, eventually, node};

fn ready(call: &Call) -> bool {
    call.run("STATUS").ok
}

#[test]
fn a_worker_that_hangs_is_code_51_until_it_goes_on() {
    let node = node();
    let (_pod, call, _) = container(&node, "a");
    let held = Held::new(&node);
    call.run("STATUS").failed_so("1.1.0", 51, "pods that are attached suffer", "worker 0 does not answer");
    drop(held);
    assert_eq!(call.run("STATUS").done(), Value::Null);
}

#[test]
fn a_node_without_its_own_interface_is_code_51_and_a_pod_without_its_own_is_not() {
    let node = node();
    let (pod, call, result) = container(&node, "a");
    pod.netns.ip("link del eth0");
    eventually("the pod's port is closed", || call.check(&result).failed().1.contains("port a.eth0 is closed"));
    assert!(ready(&call), "a pod's own matter, which CHECK tells");

    let folder = tempfile::tempdir().unwrap();
    let in_one_go = folder.path().join("lines");
    fs::write(&in_one_go, "link del podwire0\nlink add podwire0 type veth peer name other\n").unwrap();
    node.netns.ip(&format!("-batch {}", in_one_go.display()));
    eventually("it can not be made again", || !ready(&call));
    call.run("STATUS").failed_so("1.1.0", 51, "pods that are attached suffer", "podwire0 exists and is a veth device");
    node.netns.ip("link del podwire0");
    eventually("it is made again", || ready(&call));
}

#[test]
fn a_store_that_is_damaged_with_its_copy_gone_is_code_51_until_it_is_whole() {
    let mut node = node();
    let (_pod, call, _) = container(&node, "a");
    assert!(node.stop());
    let whole = node.damage_store();
    node.start();
    call.run("STATUS").failed_so("1.1.0", 51, "pods that are attached suffer", "damaged");
    assert!(node.stop());
    fs::write(node.store().main, &whole).unwrap();
    node.start();
    assert!(ready(&call));
}
