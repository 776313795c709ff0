//! Every error code, of an object and with a remedy. Code 1 is `versions`' matter, 101 `life`'s, 103 `drift`'s, 51 `status`'; 104
//! takes a podwired that fails, which only the fake of the plugin's own tests does. 2 and 3 are never answered.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use podwire_tests::{Netns, Node};
use serde_json::{Value, json};

use crate::plugin::{Call, REFERENCE_PLUGINS, attachments, container, node, ran};
use crate::versions::VERSIONS;

/// How soon a podwired that is away is told of.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A node where nothing has to happen, and a container that nobody attaches there.
fn nobody() -> (Node, Netns, Call) {
    let (node, netns) = (node(), Netns::new("a"));
    let call = Call::in_netns(&node, "a", &netns);
    (node, netns, call)
}

#[test]
fn code_4_names_the_variable() {
    let (node, netns, call) = nobody();
    let (set, ifname) = ("the runtime has to set it", "use 1 to 15 bytes");
    for (command, variable, value, remedy) in [
        ("ADD", "CNI_CONTAINERID", "", set),
        ("ADD", "CNI_NETNS", "", set),
        ("ADD", "CNI_IFNAME", "", set),
        ("DEL", "CNI_CONTAINERID", "", set),
        ("DEL", "CNI_IFNAME", "", set),
        ("CHECK", "CNI_CONTAINERID", "", set),
        ("CHECK", "CNI_NETNS", "", set),
        ("CHECK", "CNI_IFNAME", "", set),
        ("ADD", "CNI_CONTAINERID", "-8e3f", "a plain id"),
        ("DEL", "CNI_CONTAINERID", "../8e3f", "a plain id"),
        ("ADD", "CNI_IFNAME", "sixteen-bytes-if", ifname),
        ("DEL", "CNI_IFNAME", "a/b", ifname),
        ("CHECK", "CNI_IFNAME", "..", ifname),
        ("ADD", "CNI_ARGS", "FOO=bar", "IgnoreUnknown=1"),
        ("ADD", "CNI_ARGS", "alone", "KEY=VALUE"),
        ("ADD", "CNI_ARGS", "IP=10.244.1", "mend it"),
        ("ADD", "CNI_ARGS", "MAC=2", "mend it"),
    ] {
        for version in VERSIONS.into_iter().filter(|version| command != "CHECK" || *version >= "0.4.0") {
            let call = call.clone().key("cniVersion", version.into());
            call.clone().with(variable, Some(value)).run(command).failed_so(version, 4, variable, remedy);
            if value.is_empty() {
                call.with(variable, None::<&str>).run(command).failed_so(version, 4, variable, remedy);
            }
        }
    }
    // Before the request is read, and so its version.
    for command in ["", "add", "NONSENSE"] {
        call.run(command).failed_so("1.1.0", 4, "CNI_COMMAND", "ADD, DEL, CHECK, GC, STATUS or VERSION");
    }
    call.clone().with("CNI_COMMAND", None::<&str>).run("").failed_so("1.1.0", 4, "CNI_COMMAND is not set", "set it");
    let no_utf8 = OsString::from_vec(vec![b'a', 0xff]);
    call.with("CNI_NETNS", Some(no_utf8)).run("ADD").failed_so("1.1.0", 4, "CNI_NETNS", "UTF-8");
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
}

#[test]
fn code_5_is_of_what_can_not_be_read_or_written() {
    let (node, netns, call) = nobody();
    let mut unreadable = call.process("ADD");
    let read = ran(unreadable.stdin(File::open("/").unwrap()).output().unwrap());
    read.failed_so("1.1.0", 5, "cannot read the request", "standard input");

    let mut unwritable = call.process("ADD");
    unwritable.stdin(Stdio::piped()).stdout(File::create("/dev/full").unwrap()).stderr(Stdio::piped());
    let mut unwritable = unwritable.spawn().unwrap();
    unwritable.stdin.take().unwrap().write_all(call.config.to_string().as_bytes()).unwrap();
    let written = ran(unwritable.wait_with_output().unwrap());
    assert!(!written.ok && written.stderr.contains("cannot write the result"), "{written:?}");
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"), "the ADD is taken back");
}

#[test]
fn code_6_is_of_what_can_not_be_decoded() {
    let (node, _netns, call) = nobody();
    for request in
        [&b""[..], b"{", b"{}", b"[]", b"\xff\xfe", b"{\"cniVersion\": 1}", b"{\"cniVersion\": \"1.0.0\"} {}"]
    {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            if command == "VERSION" && request.is_empty() {
                continue; // typed by hand
            }
            let ran = call.run_with(command, request);
            ran.failed_so("1.1.0", 6, "cannot decode the request", "JSON object with cniVersion");
        }
    }
    assert!(attachments(&node).is_empty());
}

#[test]
fn code_7_names_the_key() {
    let (node, netns, call) = nobody();
    let call = call.key("cni.dev/valid-attachments", json!([]));
    for (command, key, value, object, remedy) in [
        ("ADD", "name", Value::Null, "name is missing", "letter or digit"),
        ("GC", "name", json!(""), "name", "letter or digit"),
        ("STATUS", "name", json!("a b"), "name", "letter or digit"),
        ("ADD", "socket", json!("podwired.sock"), "socket", "an absolute path"),
        ("DEL", "spoolDir", json!(7), "spoolDir", "an absolute path"),
        ("ADD", "port", json!("veth"), "port", "\"tap\" or \"veth-xdp\""),
        ("STATUS", "port", json!("veth"), "port", "\"tap\" or \"veth-xdp\""),
        ("ADD", "mtu", json!(70000), "mtu", "write bytes"),
        ("STATUS", "mtu", json!(-1), "mtu", "write bytes"),
        ("ADD", "timeout", json!(0), "timeout", "1 to 30"),
        ("DEL", "timeout", json!(31), "timeout", "1 to 30"),
        ("ADD", "dns", json!([]), "dns", "write an object"),
        ("ADD", "ipam", json!("host-local"), "ipam", "an object is needed"),
        ("ADD", "ipam", json!({"type": "../sh"}), "ipam.type", "leave `ipam` out"),
        ("ADD", "ipam", json!({"type": "podwire-cni"}), "ipam.type", "leave `ipam` out"),
        ("STATUS", "ipam", json!({"type": "podwire-cni"}), "ipam.type", "leave `ipam` out"),
        ("ADD", "prevResult", json!({"ips": [{"address": "x"}]}), "prevResult.ips[0].address", "prefix length"),
        ("ADD", "runtimeConfig", json!({"ips": ["x"]}), "runtimeConfig.ips[0]", "write an address"),
        ("ADD", "args", json!({"cni": {"mac": "x"}}), "args.cni.mac", "write a MAC address"),
        ("CHECK", "prevResult", Value::Null, "prevResult is missing", "the result of the last ADD"),
        ("CHECK", "prevResult", json!({"interfaces": []}), "no interface eth0", "the result of the last ADD"),
        ("GC", "cni.dev/valid-attachments", json!([{"containerID": "-"}]), "containerID", "a container's id"),
        ("GC", "cni.dev/valid-attachments", json!([{"containerID": "a"}]), "valid-attachments[0]", "ifname"),
        ("GC", "cni.dev/valid-attachments", json!({}), "cni.dev/valid-attachments", "write a list"),
    ] {
        call.clone().key(key, value).run(command).failed_so("1.1.0", 7, object, remedy);
    }
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
}

#[test]
fn codes_11_and_50_are_of_a_podwired_that_is_away() {
    let mut node = node();
    let (_pod, call, result) = container(&node, "a");
    let call = call.key("prevResult", result).key("cni.dev/valid-attachments", json!([]));
    for crash in [false, true] {
        if crash {
            node.kill();
            assert!(node.socket().exists(), "a socket that nobody serves");
        } else {
            assert!(node.stop());
        }
        let begun = Instant::now();
        for (command, code, object) in [
            ("ADD", 11, "eth0 of container a"),
            ("CHECK", 11, "eth0 of container a"),
            ("GC", 11, "network pods"),
            ("STATUS", 50, "podwired"),
        ] {
            call.run(command).failed_so("1.1.0", code, object, "is podwired running");
        }
        assert!(begun.elapsed() < AT_ONCE, "four refusals took {:?}", begun.elapsed());
        node.start();
        call.run("CHECK").done();
        call.run("STATUS").done();
    }
}

#[test]
fn code_100_is_of_what_podwired_refuses() {
    let (node, netns, call) = nobody();
    let (_other, ..) = container(&node, "other");
    let runtime = |key: &str, value: Value| call.clone().key("runtimeConfig", json!({key: value}));
    for (call, why) in [
        (runtime("ips", json!(["10.244.1.2/24"])), "10.244.1.2 is held by eth0 of container other"),
        (runtime("ips", json!(["10.9.0.7/24"])), "10.9.0.7 is in none of the node's pod CIDRs"),
        (call.clone().key("mtu", 600.into()), "use 1280"),
        (Call { netns: "/run/netns/none-of-this-name".into(), ..call.clone() }, "check that the path exists"),
    ] {
        for version in VERSIONS {
            let call = call.clone().key("cniVersion", version.into());
            call.run("ADD").failed_so(version, 100, "cannot attach eth0 of container a", why);
        }
        assert!(!netns.has_interface("eth0") && attachments(&node).len() == 1);
        call.run("DEL").done();
    }
}

#[test]
fn code_102_is_of_an_ipam_plugin_and_its_own_codes_are_passed_on() {
    let (node, netns, call) = nobody();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), "").unwrap();
    let of = |name: &str, path: &Path| {
        let ipam = json!({"type": name, "dataDir": folder.path(), "subnet": "10.244.1.0/30"});
        call.clone().key("ipam", ipam).key("cniVersion", "1.0.0".into()).with("CNI_PATH", Some(path))
    };
    let reference = Path::new(REFERENCE_PLUGINS);
    let missing = of("none-such", "/nowhere".as_ref());
    missing.run("ADD").failed_so("1.0.0", 102, "no IPAM plugin none-such in /nowhere", "install it");
    of("plain", folder.path()).run("ADD").failed_so("1.0.0", 102, "can not be run", "executable");
    missing.with("CNI_PATH", None::<&str>).run("ADD").failed_so("1.0.0", 4, "CNI_PATH", "set it");
    let full = of("host-local", reference).key("name", "full".into());
    full.run("ADD").done();
    let other = Netns::new("b");
    let second = Call { container: "b".into(), netns: other.path().display().to_string(), ..full.clone() };
    second.run("ADD").failed_so("1.0.0", 999, "IPAM plugin host-local: ", "");
    assert!(attachments(&node).len() == 1 && !other.has_interface("eth0"));
    full.run("DEL").done();
    second.run("ADD").done();
    second.run("DEL").done();
    assert!(attachments(&node).is_empty() && !netns.has_interface("eth0"));
}
