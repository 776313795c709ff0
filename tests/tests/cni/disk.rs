//! The plugin while the disk is full: what can not be stored is not done, and nobody's pod suffers.

use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Pod, Tmpfs};
use serde_json::Value;

use crate::life::held;
use crate::plugin::{Call, attachments, container};

/// A node with its state directory on a file system of its own.
fn node_on(options: &str) -> (Node, Tmpfs) {
    let mut node = Node::new(NodeSpec { underlay: Vec::new(), ..NodeSpec::planned(NodePlan(1)) });
    let disk = Tmpfs::mount(&node.state_dir(), options);
    node.start();
    (node, disk)
}

/// Adds containers until the store has no room for another, which is refused whole.
fn add_until_refused(node: &Node) -> (Vec<Pod>, Netns, Call) {
    let store = node.store().main.display().to_string();
    let mut added = Vec::new();
    loop {
        let name = format!("more{}", added.len());
        let netns = Netns::new(&name);
        let call = Call::in_netns(node, &name, &netns);
        let before = (attachments(node), held(node));
        let ran = call.run("ADD");
        if !ran.ok {
            let (code, words) = ran.failed();
            assert!(code == 11 && words.contains(&store) && words.contains("has space"), "{code}: {words}");
            assert!(!netns.has_interface("eth0"));
            assert_eq!((attachments(node), held(node)), before);
            assert!(!node.podwire(&["port", "list"]).contains(&name));
            return (added, netns, call);
        }
        added.push(Pod { netns, name, addresses: Vec::new() });
        assert!(added.len() < 100, "the disk is full");
    }
}

#[test]
fn on_a_full_disk_add_and_del_are_done_whole_or_not_at_all() {
    let (node, disk) = node_on("size=6m");
    let ((a, ..), (b, ..), (c, third, result)) = (container(&node, "a"), container(&node, "b"), container(&node, "c"));
    let all_ping = || assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    disk.fill();
    let (added, _netns, refused) = add_until_refused(&node);
    all_ping();
    // More than once, since meanwhile podwired may have found room for less.
    let says_so = |_| !refused.run("ADD").ok && refused.run("STATUS").said["code"] == 50;
    assert!((0..3).any(says_so));
    let (code, words) = third.run("DEL").failed();
    assert!(code == 11 && words.contains("the store") && words.contains("has space"), "{code}: {words}");
    assert_eq!(third.check(&result).done(), Value::Null);
    assert!(ping(Path::v4(&a, &c), Ping::default()).all());
    all_ping();

    disk.make_room();
    refused.run("ADD").done();
    assert_eq!(refused.run("STATUS").done(), Value::Null);
    third.run("DEL").done();
    assert!(!c.netns.has_interface("eth0"));
    assert_eq!(attachments(&node).len(), 3 + added.len());
    all_ping();
}

#[test]
fn a_del_whose_note_finds_no_room_is_to_be_tried_again() {
    let (mut node, disk) = node_on("nr_inodes=32");
    let (a, call, _) = container(&node, "a");
    assert!(node.stop());
    disk.fill_with_files();
    for _ in 0..2 {
        let (code, words) = call.run("DEL").failed();
        let spool = node.state_dir().join("spool").display().to_string();
        assert!(code == 11 && words.contains(&spool) && words.contains("has space"), "{code}: {words}");
        assert!(!a.netns.has_interface("eth0"), "it goes at once");
    }
    disk.make_room();
    call.run("DEL").done();
    node.start();
    assert_eq!(attachments(&node), []);
}
