//! A DEL takes away all it can, whatever else is wrong.

use std::fs;

use podwire_tests::Netns;
use serde_json::{Value, json};

use crate::plugin::{Call, attachments, container, node};

#[test]
fn nothing_that_a_del_does_not_need_stands_in_its_way() {
    let mut node = node();
    let netns = Netns::new("a");
    let good = Call::in_netns(&node, "a", &netns);
    let no_plugin = "leave `ipam` out";
    for (key, value, told) in [
        ("name", json!("a b"), ""),
        ("port", json!(7), ""),
        ("mtu", json!("x"), ""),
        ("dns", json!([]), ""),
        ("args", json!({"cni": 7}), ""),
        ("prevResult", json!([]), ""),
        ("runtimeConfig", json!(7), ""),
        ("runtimeConfig", json!({"portMappings": [{"hostPort": "x"}], "ips": {}, "bandwidth": {"ingressRate": 1}}), ""),
        ("ipam", json!("host-local"), "an object is needed"),
        ("ipam", json!({"type": 7}), "ipam.type is 7"),
        ("ipam", json!({"type": "../sh"}), no_plugin),
        ("ipam", json!({"type": "podwire-cni"}), no_plugin),
    ] {
        good.run("ADD").done();
        let del = good.clone().key(key, value).with("CNI_ARGS", Some("FOO=bar"));
        for _ in 0..2 {
            let ran = del.run("DEL");
            assert!(ran.stderr.contains(told) && ran.stderr.is_empty() == told.is_empty(), "{ran:?}");
            assert_eq!(ran.done(), Value::Null);
            assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
        }
    }
    good.run("ADD").done();
    node.kill();
    good.key("ipam", json!({"type": "podwire-cni"})).run("DEL").done();
    assert!(!netns.has_interface("eth0"), "while podwired is away, too");
    node.start();
    assert!(attachments(&node).is_empty());
}

#[test]
fn an_ipam_plugin_that_is_missing_is_told_of_when_the_rest_is_done_and_frees_its_address_later() {
    let node = node();
    let (netns, state) = (Netns::new("a"), tempfile::tempdir().unwrap());
    let ipam = json!({"type": "host-local", "dataDir": state.path(), "subnet": "10.244.1.0/24"});
    let call = Call::in_netns(&node, "a", &netns).key("cniVersion", "1.0.0".into()).key("ipam", ipam);
    let given = || {
        let files = fs::read_dir(state.path().join("pods")).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("10.")).count()
    };
    call.run("ADD").done();
    let missing = call.clone().with("CNI_PATH", Some("/nowhere"));
    missing.run("DEL").failed_so("1.0.0", 102, "no IPAM plugin host-local in /nowhere", "install it");
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
    assert_eq!(given(), 1, "or nobody would know that it is free");
    call.run("DEL").done();
    assert_eq!(given(), 0);
}

#[test]
fn what_a_crash_left_of_an_unknown_container_goes_and_nothing_else() {
    let mut node = node();
    let (left, del, _) = container(&node, "left");
    node.kill();
    fs::remove_file(node.store().main).unwrap();
    node.start();
    assert!(attachments(&node).is_empty() && left.netns.has_interface("eth0"));
    del.run("DEL").done();
    assert!(!left.netns.has_interface("eth0"));

    let (known, call, result) = container(&node, "known");
    let foreign = Netns::new("foreign");
    foreign.ip("link add eth0 type veth peer name eth1");
    for netns in [&known.netns, &foreign] {
        let ran = Call::in_netns(&node, "unknown", netns).run("DEL");
        assert_eq!(ran.stderr, "");
        ran.done();
        assert!(netns.has_interface("eth0"));
    }
    call.check(&result).done();
}
