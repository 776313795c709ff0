//! Pods that come and go leave nothing behind.

use std::collections::BTreeSet;

use podwire_tests::node::Left;
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
    let before = Left::of(&node.node);
    let mut given = BTreeSet::new();
    for round in 0..ROUNDS {
        let id = node.runtime.run(&sandbox(&format!("pod-{round}"))).unwrap();
        let addresses = node.runtime.addresses(&id);
        assert!(addresses.len() == 2 && addresses.iter().all(|address| !own.contains(address)), "{addresses:?}");
        given.extend(addresses);
        node.runtime.remove(&id).unwrap();
    }
    assert_eq!(given.len(), 2 * ROUNDS, "an address is given again as late as possible");
    assert_eq!(Left::of(&node.node), before);
    assert_eq!(node.runtime.addresses(&stays), own);
}
