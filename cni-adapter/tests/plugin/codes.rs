//! What is wrong by itself, before podwired is asked: every command, every version.

use serde_json::{Value, json};

use crate::run::{Call, Service, VERSIONS, run};

fn nowhere(command: &str, version: &str) -> Call {
    Call::new(command, version, "/nowhere/podwired.sock".as_ref())
}

#[test]
fn version_echoes_the_requests_version_and_lists_the_supported_ones() {
    let version = [("CNI_COMMAND", "VERSION".to_owned())];
    for asked in ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.1.0", "9.0.0"] {
        let ran = run(&version, json!({"cniVersion": asked}).to_string().as_bytes());
        assert!(ran.ok, "{ran:?}");
        assert_eq!(ran.said, json!({"cniVersion": asked, "supportedVersions": VERSIONS}));
    }
    let by_hand = run(&version, b"\n");
    assert_eq!(by_hand.said["cniVersion"], "1.1.0");
    for bad in [&b"{"[..], b"{\"cniVersion\": 1}", b"\xff\xfe", b"[]"] {
        run(&version, bad).failed("1.1.0", 6, "decode");
    }
}

#[test]
fn a_command_is_there_from_its_version_on() {
    let service = Service::start();
    for (command, since) in [("ADD", 0), ("DEL", 0), ("CHECK", 1), ("GC", 3), ("STATUS", 3)] {
        for (at, version) in VERSIONS.into_iter().enumerate() {
            let ran = service.call(command, version).run();
            if at < since {
                ran.failed(version, 1, &format!("has no {command}"));
            } else {
                assert_ne!(ran.said["code"], 1, "{command} {version}: {ran:?}");
            }
        }
        for version in ["0.1.0", "0.2.0", "2.0.0", "1.1"] {
            service.call(command, version).run().failed("1.1.0", 1, version);
        }
    }
}

#[test]
fn a_wrong_environment_is_code_4_and_names_the_variable() {
    for (command, variable, value) in [
        ("ADD", "CNI_CONTAINERID", ""),
        ("ADD", "CNI_NETNS", ""),
        ("ADD", "CNI_IFNAME", ""),
        ("DEL", "CNI_CONTAINERID", ""),
        ("DEL", "CNI_IFNAME", ""),
        ("CHECK", "CNI_CONTAINERID", ""),
        ("CHECK", "CNI_NETNS", ""),
        ("CHECK", "CNI_IFNAME", ""),
        ("ADD", "CNI_CONTAINERID", "-8e3f"),
        ("DEL", "CNI_CONTAINERID", "../8e3f"),
        ("ADD", "CNI_IFNAME", "sixteen-bytes-if"),
        ("DEL", "CNI_IFNAME", "a/b"),
        ("CHECK", "CNI_IFNAME", ".."),
        ("ADD", "CNI_ARGS", "FOO=bar"),
        ("ADD", "CNI_ARGS", "IP=10.244.1"),
        ("ADD", "CNI_ARGS", "MAC=2"),
    ] {
        for version in VERSIONS.into_iter().skip(1) {
            nowhere(command, version).with(variable, value).run().failed(version, 4, variable);
        }
    }
    for command in ["", "add", "NONSENSE"] {
        nowhere(command, "1.0.0").run().failed("1.1.0", 4, "CNI_COMMAND");
    }
}

#[test]
fn what_can_not_be_decoded_is_code_6() {
    let add = nowhere("ADD", "1.0.0").environment;
    for bad in [&b""[..], b"{}", b"no JSON", b"{\"cniVersion\": 1}", b"[]", b"{\"cniVersion\": \"1.0.0\"} {}"] {
        run(&add, bad).failed("1.1.0", 6, "decode");
    }
}

#[test]
fn a_wrong_configuration_is_code_7_and_names_the_key() {
    for (command, key, value) in [
        ("ADD", "name", Value::Null),
        ("DEL", "name", json!("a b")),
        ("GC", "name", json!("")),
        ("ADD", "socket", json!("podwired.sock")),
        ("DEL", "spoolDir", json!(7)),
        ("ADD", "port", json!("veth")),
        ("STATUS", "port", json!("veth")),
        ("ADD", "mtu", json!(70000)),
        ("STATUS", "mtu", json!(-1)),
        ("ADD", "timeout", json!(0)),
        ("ADD", "timeout", json!(31)),
        ("ADD", "dns", json!([])),
        ("ADD", "ipam", json!("host-local")),
        ("ADD", "ipam", json!({"type": "../sh"})),
        ("ADD", "ipam", json!({"type": "podwire-cni"})),
        ("ADD", "prevResult", json!({"ips": [{"address": "x"}]})),
        ("ADD", "runtimeConfig", json!({"ips": ["x"]})),
        ("ADD", "args", json!({"cni": {"mac": "x"}})),
        ("CHECK", "prevResult", Value::Null),
        ("CHECK", "prevResult", json!({"interfaces": [{"name": "eth1", "sandbox": "/a"}]})),
        ("GC", "cni.dev/valid-attachments", json!([{"containerID": "-", "ifname": "eth0"}])),
        ("GC", "cni.dev/valid-attachments", json!([{"containerID": "a"}])),
        ("GC", "cni.dev/valid-attachments", json!({})),
    ] {
        let ran = nowhere(command, "1.1.0").key(key, value.clone()).run();
        ran.failed("1.1.0", 7, key.split('.').next().unwrap());
    }
    let mut gc = nowhere("GC", "1.1.0");
    gc.config.as_object_mut().unwrap().remove("cni.dev/valid-attachments");
    gc.run().failed("1.1.0", 7, "cni.dev/valid-attachments is missing");
}

#[test]
fn nothing_that_only_an_add_needs_stands_in_the_way_of_a_del() {
    let service = Service::start();
    let call = service.call("DEL", "1.0.0").with("CNI_ARGS", "FOO=bar").with("CNI_NETNS", "");
    let wrong = [("port", json!(7)), ("mtu", json!("x")), ("runtimeConfig", json!(7)), ("prevResult", json!([]))];
    wrong.into_iter().fold(call, |call, (key, value)| call.key(key, value)).run().done();
}

#[test]
fn while_podwired_is_away_each_command_says_so_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let begun = std::fs::metadata(&dead).unwrap().modified().unwrap();
    for socket in [dead.as_path(), &folder.path().join("none.sock")] {
        for (command, code) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
            Call::new(command, "1.1.0", socket).run().failed("1.1.0", code, "podwired");
        }
    }
    assert!(begun.elapsed().unwrap().as_secs() < 3, "eight refusals took {:?}", begun.elapsed());
}
