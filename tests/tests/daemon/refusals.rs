//! What the daemon refuses at its start, and a store that can not be used: sentences that name object and remedy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use podwire_control::model::{Object, Owner, Via};
use podwire_tests::binary::binary;
use podwire_tests::command::Outcome;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, probe};
use podwire_vswitch::daemon::store::Place;

use crate::api::{Api, node, on_tmpfs, pod, refused, route, underlay};

fn spec() -> NodeSpec {
    NodeSpec::planned(NodePlan(1))
}

/// Runs `podwired` with a configuration until it gives up.
fn podwired(netns: &Netns, config: &Path, verb: &[&str]) -> Outcome {
    let (daemon, config) = (binary("podwired").display().to_string(), config.display().to_string());
    let mut arguments = vec!["5", daemon.as_str(), "--config", config.as_str()];
    arguments.extend(verb);
    netns.exec("timeout", &arguments)
}

#[test]
fn a_wrong_configuration_is_refused_by_key_and_line_and_nothing_is_made() {
    let (netns, folder) = (Netns::new("config"), tempfile::tempdir().unwrap());
    let config = folder.path().join("podwired.toml");
    let good = spec().toml(&folder.path().join("s.sock"), &folder.path().join("state"));
    let missing = podwired(&netns, &folder.path().join("none.toml"), &[]);
    assert!(
        !missing.ok() && missing.stderr.contains("none.toml") && missing.stderr.contains("--config PATH"),
        "{missing:?}"
    );
    for (from, to, words) in [
        ("[host]", "[host]\ncolour = \"red\"", "host.colour: no such key"),
        ("[workers]", "[wrokers]", "wrokers"),
        ("vni = 1", "vni = \"one\"", "vxlan.vni"),
        ("name = \"node1\"", "name = \"node1", "line 2"),
        ("\"10.244.1.0/24\"", "\"10.244.1.7/24\"", "write \"10.244.1.0/24\""),
        ("\"adaptive\"", "\"lazy\"", "workers.poll"),
        ("[control]\nsocket = \"", "[control]\nsocket = \"relative", "control.socket"),
        ("[node]", "[node]\n\u{0}", "line 2"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&config, good.replace(from, to)).unwrap();
        for (verb, code) in [(&["check"][..], 1), (&[], 78)] {
            let outcome = podwired(&netns, &config, verb);
            assert_eq!(outcome.code, Some(code), "{outcome:?}");
            assert!(outcome.stderr.contains("podwired.toml") && outcome.stderr.contains(words), "{words}: {outcome:?}");
        }
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["podwired.toml"], "no socket, no state");
    assert!(!netns.has_interface("podwire0"));
    fs::write(&config, &good).unwrap();
    assert!(podwired(&netns, &config, &["check"]).expect("it is fine").contains("is fine"));
}

#[test]
fn a_node_that_is_not_as_the_configuration_says_is_refused_and_left_as_it_is() {
    let running = node();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s.sock");
    let config = folder.path().join("podwired.toml");
    let own = spec().toml(&socket, &folder.path().join("state"));
    let bare = Netns::new("bare");
    let taken = Netns::new("taken");
    taken.ip("link add eth0 type veth peer name podwire0");
    for address in spec().underlay {
        taken.address("eth0", address);
    }
    let (a, file) = (running.socket().display().to_string(), folder.path().join("file"));
    fs::write(&file, "").unwrap();
    for (netns, text, words) in [
        (&bare, own.clone(), ["172.31.0.1", "give the node that address, or correct uplink.address"]),
        (&taken, own.clone(), ["podwire0", "remove it (`ip link del podwire0`) or use another name"]),
        (&running.netns, own.clone(), ["podwire0", "in use by another process; stop that one first"]),
        (
            &running.netns,
            own.replace(&socket.display().to_string(), &a),
            ["podwired.sock", "another podwired listens there"],
        ),
        (&bare, own.replace("s.sock", "file"), ["file", "remove it, or configure another control.socket"]),
        (&taken, own.replace("cpus = \"", "cpus = \"900,"), ["workers.cpus", "900"]),
    ] {
        fs::write(&config, text).unwrap();
        let outcome = podwired(netns, &config, &[]);
        assert_eq!(outcome.code, Some(1), "{words:?}: {outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{words:?}: {}", outcome.stderr);
        assert!(!socket.exists(), "no socket is left: {words:?}");
    }
    assert!(!bare.has_interface("podwire0"));
    assert!(taken.ip("-d link show podwire0").contains("veth"));
    assert!(Api::of(&running).warnings().is_empty(), "the other daemon did not notice");
}

#[test]
fn a_damaged_store_without_a_copy_is_left_alone_and_warned_of_while_frames_are_forwarded() {
    let mut node = Node::new(spec());
    underlay(&node);
    let store = node.store().main;
    fs::create_dir(store.parent().unwrap()).unwrap();
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    fs::write(&store, &garbage).unwrap();
    node.start();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    assert!(ping(probe::Path::v4(&a, &b), Ping::default()).all());
    let warnings = Api::of(&node).warnings();
    let said =
        |words: &str| warnings.iter().any(|warning| warning.contains("podwired.redb") && warning.contains(words));
    assert!(said("is damaged") && said("move it away"), "{warnings:?}");
    assert!(node.podwire(&["status"]).contains("is damaged"), "people see it too");
    assert_eq!(fs::read(&store).unwrap(), garbage);
}

#[test]
fn a_state_directory_without_room_refuses_statements_and_forwards_on() {
    let (full, _disk) = on_tmpfs("size=4k");
    let warnings = Api::of(&full).warnings();
    assert!(warnings.iter().any(|warning| warning.contains("the store")), "{warnings:?}");

    let (node, disk) = on_tmpfs("size=6m");
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let api = Api::of(&node);
    disk.fill();
    let routes: Vec<Object> =
        (0..20_000).map(|n: u32| route(&format!("10.{}.{}.0/24", 16 + n / 256, n % 256), Via::Blackhole)).collect();
    let generation = api.generation();
    let sentence = refused(api.ask(api.client.change(Owner::Cli, &routes, &[])));
    assert!(sentence.contains("the store") && sentence.contains("space, and ask again"), "{sentence}");
    assert_eq!((api.generation(), api.ask(api.client.routes()).unwrap().len()), (generation, 0));
    assert!(ping(probe::Path::v4(&a, &b), Ping::default()).all());
    disk.make_room();
    api.ask(api.client.change(Owner::Cli, &routes[..500], &[])).expect("with room it is stored");
}

#[test]
fn the_socket_and_the_store_are_for_root_only() {
    let node = node();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = node.state_dir();
    let Place { main, copy, .. } = node.store();
    for file in [node.socket(), main, copy] {
        assert_eq!(mode(file.clone()), 0o600, "{}", file.display());
    }
    assert_eq!(mode(state), 0o700);
}
