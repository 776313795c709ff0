//! Every command in every version of the specification, in libcni's order and with what libcni gives to each.

use podwire_tests::{Netns, Node};
use serde_json::{Value, json};

use crate::plugin::{Call, attachments, node};

/// Versions that are spoken, oldest first.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Some that are not: earlier, later, and what is no version.
const OTHERS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "1.1.1", "1.2.0", "2.0.0", "1.1"];
/// The commands as libcni gives them for a container, and the version that each is there from.
const ORDER: [(&str, &str); 7] = [
    ("STATUS", "1.1.0"),
    ("ADD", "0.3.1"),
    ("CHECK", "0.4.0"),
    ("GC", "1.1.0"),
    ("CHECK", "0.4.0"),
    ("DEL", "0.3.1"),
    ("DEL", "0.3.1"),
];

/// A container's call in a version.
fn call(node: &Node, netns: &Netns, version: &str) -> Call {
    let valid = json!([{"containerID": "v", "ifname": "eth0"}]);
    let call = Call::in_netns(node, "v", netns).key("cniVersion", version.into());
    call.key("cni.dev/valid-attachments", valid).key("dns", json!({"nameservers": ["10.96.0.10"]}))
}

/// As libcni has it run: what is of no container has these variables, and they are empty.
fn libcni(call: &Call, command: &str) -> Call {
    match command {
        "STATUS" | "GC" => {
            let none = Call { container: String::new(), netns: String::new(), ifname: String::new(), ..call.clone() };
            none.with("CNI_ARGS", Some(""))
        }
        _ => call.clone(),
    }
}

/// The result of an ADD in the form of a version.
fn result(version: &str, netns: &Netns, host: usize) -> Value {
    let mut result = json!({
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": netns.mac("eth0"), "sandbox": netns.path()}],
        "ips": [
            {"address": format!("10.244.1.{host}/24"), "gateway": "10.244.1.1", "interface": 0},
            {"address": format!("fd00:244:1::{host}/64"), "gateway": "fd00:244:1::1", "interface": 0},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd00:244:1::1"}],
        "dns": {"nameservers": ["10.96.0.10"]},
    });
    if version < "1.0.0" {
        result["ips"][0]["version"] = "4".into();
        result["ips"][1]["version"] = "6".into();
    }
    if version >= "1.1.0" {
        let links: Value = serde_json::from_str(&netns.ip("-j link show dev eth0")).unwrap();
        result["interfaces"][0]["mtu"] = links[0]["mtu"].clone();
    }
    result
}

#[test]
fn each_command_answers_in_the_form_of_its_version_in_libcnis_order() {
    let node = node();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let netns = Netns::new("v");
        let mut call = call(&node, &netns, version);
        let mut attached = false;
        for (command, since) in ORDER {
            let ran = libcni(&call, command).run(command);
            if version < since {
                ran.failed_so(version, 1, &format!("cniVersion {version} has no {command}"), since);
            } else if command == "ADD" {
                let said = ran.done();
                assert_eq!(said, result(version, &netns, 2 + number));
                assert_eq!(libcni(&call, command).run(command).done(), said, "the same again");
                call = call.key("prevResult", said);
                attached = true;
            } else {
                assert_eq!(ran.done(), Value::Null, "{version} {command}");
                attached &= command != "DEL";
            }
            let there = (attachments(&node).len(), netns.has_interface("eth0"));
            assert_eq!(there, (usize::from(attached), attached), "{version} {command}");
        }
        if version >= "0.4.0" {
            call.run("CHECK").failed_so(version, 103, "eth0 of container v", "delete the container");
        }
    }
}

#[test]
fn what_others_made_is_kept_in_the_form_of_each_version() {
    let node = node();
    for version in VERSIONS {
        let netns = Netns::new("v");
        let mut other = json!({"address": "192.0.2.7/24", "interface": 0});
        if version < "1.0.0" {
            other["version"] = "4".into();
        }
        let previous = json!({"cniVersion": version, "interfaces": [{"name": "net0"}], "ips": [other]});
        let call = call(&node, &netns, version);
        let said = call.clone().key("prevResult", previous).run("ADD").done();
        assert_eq!((&said["interfaces"][0], &said["ips"][0]), (&json!({"name": "net0"}), &other), "{version}");
        assert_eq!(said["interfaces"][1]["name"], "eth0");
        for ip in &said["ips"].as_array().unwrap()[1..] {
            assert_eq!((&ip["interface"], ip.get("version").is_some()), (&json!(1), version < "1.0.0"), "{version}");
        }
        if version >= "0.4.0" {
            call.check(&said).done();
        }
        call.run("DEL").done();
    }
}

#[test]
fn a_version_that_is_not_spoken_is_named_with_those_that_are() {
    let node = node();
    let netns = Netns::new("v");
    for version in OTHERS {
        for (command, _) in ORDER {
            let ran = libcni(&call(&node, &netns, version), command).run(command);
            ran.failed_so("1.1.0", 1, &format!("cniVersion {version} is not supported"), "0.3.1, 0.4.0, 1.0.0, 1.1.0");
        }
    }
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
}

#[test]
fn version_names_the_asked_one_and_all_that_are_spoken() {
    let call = Call::of(&node(), "v", "");
    for version in VERSIONS.into_iter().chain(OTHERS) {
        let said = call.run_with("VERSION", json!({"cniVersion": version}).to_string().as_bytes()).done();
        assert_eq!(said, json!({"cniVersion": version, "supportedVersions": VERSIONS}));
    }
    assert_eq!(call.run_with("VERSION", b"\n").done()["cniVersion"], "1.1.0", "typed by hand");
}
