//! The plugin while podwired is not there.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwire_control::spool;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, command};

use crate::plugin::{Call, addresses, attachments, container, eventually, node};

#[test]
fn a_del_without_podwired_is_carried_out_when_it_is_back() {
    let mut node = node();
    let ((a, call, _), (gone, other, _), (_kept, ..)) =
        (container(&node, "a"), container(&node, "gone"), container(&node, "kept"));
    node.kill();
    let name = gone.netns.name().to_owned();
    command::must(&format!("ip netns del {name}"));
    for call in [&call, &other] {
        call.run("DEL").done();
    }
    assert!(!a.netns.has_interface("eth0"), "it goes at once");
    assert_eq!(spool::pending(&node.state_dir().join("spool")).unwrap().len(), 2);
    node.start();
    eventually("what was noted is carried out", || attachments(&node).len() == 1);
    assert_eq!(spool::pending(&node.state_dir().join("spool")).unwrap(), []);
    command::must(&format!("ip netns add {name}")); // it is deleted with the value
}

#[test]
fn cleanup_takes_the_notes_away_too() {
    let mut node = node();
    let (a, call, _) = container(&node, "a");
    let (b, ..) = container(&node, "b");
    node.kill();
    call.run("DEL").done();
    let spool = node.state_dir().join("spool");
    assert!(spool.exists());
    let said = node.cleanup().expect("cleanup failed");
    assert!(said.contains(&format!("removed {}", spool.display())), "{said}");
    assert!(!spool.exists() && !a.netns.has_interface("eth0") && !b.netns.has_interface("eth0"));
}

#[test]
fn cleanup_that_keeps_the_store_takes_what_the_next_start_makes_again() {
    let mut node = node();
    let ((a, ..), (b, ..)) = (container(&node, "a"), container(&node, "b"));
    assert!(node.stop());
    let said = node.podwired(&["cleanup", "--keep-store"]).expect("cleanup failed");
    assert!(said.contains("removed interface eth0") && !said.contains("redb"), "{said}");
    assert!(!a.netns.has_interface("eth0") && !node.netns.has_interface("podwire0"));
    node.start();
    assert_eq!(attachments(&node).len(), 2);
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
}

#[test]
fn an_add_without_podwired_is_to_be_tried_again_and_works_then() {
    let mut node = node();
    assert!(node.stop());
    let netns = Netns::new("a");
    let call = Call::in_netns(&node, "a", &netns);
    assert_eq!(call.run("ADD").failed().0, 11);
    assert_eq!(call.run("STATUS").failed().0, 50);
    call.run("DEL").done();
    node.start();
    assert_eq!(addresses(&call.run("ADD").done()).len(), 2);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(netns.has_interface("eth0"), "the note of the DEL before does not hit it");
}

#[test]
fn a_podwired_that_hangs_is_waited_for_as_long_as_is_said_and_leaves_nothing() {
    let node = node();
    let (a, call, _) = container(&node, "a");
    let netns = Netns::new("b");
    let add = Call::in_netns(&node, "b", &netns).key("timeout", 1.into());
    let pid = Pid::from_raw(node.pid().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    assert_eq!(add.run("ADD").failed().0, 11);
    assert_eq!(call.clone().key("timeout", 1.into()).run("DEL").failed().0, 11);
    assert!(a.netns.has_interface("eth0"), "what podwired may be at is left to it");
    kill(pid, Signal::SIGCONT).unwrap();
    for call in [&call, &add] {
        call.run("DEL").done();
    }
    eventually("nothing is left", || attachments(&node).is_empty());
    assert!(!a.netns.has_interface("eth0") && !netns.has_interface("eth0"));
}
