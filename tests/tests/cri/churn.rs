//! Pods that come and go leave nothing behind.

use std::collections::BTreeSet;
use std::fs;

use podwire_tests::{Node, NodePlan, NodeSpec};

use crate::node::{RuntimeNode, sandbox};

/// Times a pod is made and deleted.
const ROUNDS: usize = 100;

#[test]
fn a_pod_that_was_made_and_deleted_a_hundred_times_leaves_nothing() {
    let mut node = Node::new(NodeSpec { underlay: Vec::new(), ..NodeSpec::planned(NodePlan(1)) });
    node.start();
    let node = RuntimeNode::start(node);
    let stays = node.runtime.run(&sandbox("stays")).unwrap();
    let own = node.runtime.addresses(&stays);
    let before = Left::of(&node);
    let mut given = BTreeSet::new();
    for round in 0..ROUNDS {
        let id = node.runtime.run(&sandbox(&format!("pod-{round}"))).unwrap();
        let addresses = node.runtime.addresses(&id);
        assert!(addresses.len() == 2 && addresses.iter().all(|address| !own.contains(address)), "{addresses:?}");
        given.extend(addresses);
        node.runtime.remove(&id).unwrap();
    }
    assert_eq!(given.len(), 2 * ROUNDS, "an address is given again as late as possible");
    assert_eq!(Left::of(&node), before);
    assert_eq!(node.runtime.addresses(&stays), own);
}

/// What could be left.
#[derive(PartialEq, Eq, Debug)]
struct Left {
    attachments: usize,
    ports: usize,
    descriptors: usize,
    interfaces: usize,
    held: Vec<u64>,
}

impl Left {
    fn of(node: &RuntimeNode) -> Self {
        let pid = node.node.pid().unwrap();
        let ranges = node.node.podwire_json(&["ipam", "show"]);
        Self {
            attachments: node.attachments().len(),
            ports: node.node.podwire_json(&["port", "list"]).as_array().unwrap().len(),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            interfaces: node.node.netns.ip("-oneline link show").lines().count(),
            held: ranges["ranges"].as_array().unwrap().iter().map(|range| range["held"].as_u64().unwrap()).collect(),
        }
    }
}
