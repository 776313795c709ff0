//! A DEL while podwired is away: the interface goes, and the rest is noted.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use podwire_control::spool;
use serde_json::json;
use tempfile::TempDir;

use crate::run::{CONTAINER, Call};

/// A network namespace, deleted with the value.
struct Netns(String);

impl Netns {
    fn new(label: &str) -> Self {
        let name = format!("pwc-{}-{label}", std::process::id());
        ip(&format!("netns add {name}"));
        Self(name)
    }

    fn has(&self, interface: &str) -> bool {
        let links = Command::new("ip").args(["-n", &self.0, "link", "show", "dev", interface]).output().unwrap();
        links.status.success()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status(); // it may be gone
    }
}

#[track_caller]
fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}, as root: {}", String::from_utf8_lossy(&done.stderr));
}

fn del(folder: &TempDir, netns: &str) -> Call {
    let call = Call::new("DEL", "1.0.0", &folder.path().join("none.sock")).with("CNI_NETNS", netns);
    call.key("spoolDir", json!(folder.path().join("state/spool")))
}

fn noted(folder: &TempDir) -> Vec<String> {
    spool::pending(&folder.path().join("state/spool")).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn the_interface_goes_and_the_rest_is_noted() {
    let (folder, netns) = (tempfile::tempdir().unwrap(), Netns::new("away"));
    let path = format!("/run/netns/{}", netns.0);
    for add in ["tuntap add eth0 mode tap", "link add eth0 type veth peer name other"] {
        ip(&format!("-n {} {add}", netns.0));
        assert!(netns.has("eth0"));
        for _ in 0..2 {
            del(&folder, &path).run().done();
            assert!(!netns.has("eth0"), "after {add}");
        }
    }
    assert_eq!(noted(&folder), [format!("eth0 of container {CONTAINER}")]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (folder, netns) = (tempfile::tempdir().unwrap(), Netns::new("other"));
    ip(&format!("-n {} link add eth0 type bridge", netns.0));
    let ran = del(&folder, &format!("/run/netns/{}", netns.0)).run();
    ran.done();
    assert!(netns.has("eth0") && ran.stderr.contains("neither a TAP nor a veth"), "{ran:?}");
    let own = del(&folder, "/proc/self/ns/net").with("CNI_IFNAME", "lo").run();
    assert!(own.ok && own.stderr.contains("own namespace"), "{own:?}");
    assert_eq!(noted(&folder).len(), 2);
}

#[test]
fn a_namespace_that_is_gone_needs_no_more_than_the_note() {
    for netns in ["", "/run/netns/none-of-this-name"] {
        let folder = tempfile::tempdir().unwrap();
        let ran = del(&folder, netns).run();
        ran.done();
        assert_eq!((noted(&folder).len(), ran.stderr.as_str()), (1, ""));
    }
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    del(&folder, plain.to_str().unwrap()).run().done();
    assert_eq!(noted(&folder).len(), 1);
}

#[test]
fn without_a_note_it_is_to_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state"), "a file where the directory should be").unwrap();
    del(&folder, "").run().failed("1.0.0", 11, "state/spool");
}

#[test]
fn a_connection_that_breaks_is_away_and_one_that_is_silent_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("none.sock")).unwrap();
    let call = del(&folder, "").key("timeout", json!(1));
    call.run().failed("1.0.0", 11, "within 1 s");
    assert_eq!(noted(&folder), Vec::<String>::new());
    // The connection of before is answered by nobody; that of the next call is closed.
    let closing = std::thread::spawn(move || (0..2).for_each(|_| drop(listener.accept().unwrap())));
    call.run().done();
    closing.join().unwrap();
    assert_eq!(noted(&folder).len(), 1);
}
