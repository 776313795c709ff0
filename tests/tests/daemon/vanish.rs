//! Namespaces and interfaces that vanish under their ports.

use std::time::Duration;

use podwire_control::model::{EventKind, Key, Object, Owner, Via};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Wire, command};

use crate::api::{Api, eventually, node, pod, port, refused, route};

/// What the issue promises.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_port_closes_when_its_namespace_vanishes_and_comes_back_with_it() {
    let node = node();
    let (api, witness) = (Api::of(&node), Netns::new("witness"));
    let (stays, goes) = (pod(&node, 10), pod(&node, 11));
    assert!(ping(Path::v4(&stays, &goes), Ping::default()).all());
    Netns::veth((&goes.netns, "cable"), (&witness, "cable"), Wire::default());
    let mut events = api.ask(api.client.events()).unwrap();

    command::must(&format!("ip netns del {}", goes.netns.name()));
    let took = eventually(NOTICED_WITHIN, "the port closes", || api.closed("pod-11").is_some());
    let event = api.event(&mut events, |event| event.kind == EventKind::PortClosed);
    assert_eq!(event.object, "port pod-11");
    let reason = api.closed("pod-11").unwrap();
    assert!(reason.contains("namespace is gone") && reason.contains("delete the port, or add it again"), "{reason}");
    assert!(api.warnings().iter().any(|warning| warning.contains("pod-11")), "{:?}", api.warnings());
    eventually(NOTICED_WITHIN, "the namespace is freed", || !witness.has_interface("cable"));
    eprintln!("noticed after {took:?}");

    // Others go on, and so do requests that do not speak of it; one that does is refused.
    assert!(
        ping(Path::from_node(&node.netns, &podwire_tests::NodePlan(1).gateways(), &stays, false), Ping::default())
            .all()
    );
    node.podwire(&["route", "add", "10.9.0.0/16", "via", "blackhole"]);
    let again = Object::Port(port("pod-11", &goes.netns, 11));
    let sentence = refused(api.ask(api.client.change(Owner::Cli, std::slice::from_ref(&again), &[])));
    assert!(sentence.contains("port pod-11") && sentence.contains("check that the path exists"), "{sentence}");
    assert!(api.closed("pod-11").is_some(), "a refused try leaves it listed");

    command::must(&format!("ip netns add {}", goes.netns.name()));
    api.ask(api.client.change(Owner::Cli, &[again], &[])).unwrap();
    assert_eq!(api.closed("pod-11"), None);
    assert!(ping(Path::v4(&stays, &goes), Ping::default()).all());
    assert!(api.warnings().is_empty(), "{:?}", api.warnings());
}

#[test]
fn a_port_whose_namespace_is_gone_can_be_deleted() {
    let node = node();
    let api = Api::of(&node);
    let goes = pod(&node, 11);
    command::must(&format!("ip netns del {}", goes.netns.name()));
    eventually(NOTICED_WITHIN, "the port closes", || api.closed("pod-11").is_some());
    node.podwire(&["port", "del", "pod-11"]);
    assert!(api.ports().iter().all(|port| port.name != "pod-11"));
    command::must(&format!("ip netns add {}", goes.netns.name()));
}

#[test]
fn an_interface_that_is_removed_by_hand_closes_its_port_only() {
    let node = node();
    let api = Api::of(&node);
    let (stays, goes) = (pod(&node, 10), pod(&node, 11));
    goes.netns.ip("link del eth0");
    eventually(NOTICED_WITHIN, "the port closes", || api.closed("pod-11").is_some());
    assert!(api.closed("pod-11").unwrap().contains("its device is gone"));
    api.ask(api.client.change(Owner::Cli, &[Object::Port(port("pod-11", &goes.netns, 11))], &[])).unwrap();
    assert!(ping(Path::v4(&stays, &goes), Ping::default()).all());
}

#[test]
fn the_nodes_own_interface_is_made_again_when_it_is_removed_by_hand() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let gateways = podwire_tests::NodePlan(1).gateways();
    let reaches = |v6| ping(Path::from_node(&node.netns, &gateways, &a, v6), Ping::default()).all();
    let shown = || [node.netns.mac("podwire0"), node.netns.ip("route show dev podwire0")];
    let routes6 = || node.netns.ip("-6 route show dev podwire0 proto 80");
    assert!(reaches(false) && reaches(true));
    let before = (shown(), routes6());
    let mut events = api.ask(api.client.events()).unwrap();

    node.netns.ip("link del podwire0");
    let took = eventually(NOTICED_WITHIN, "it is there again", || node.netns.has_interface("podwire0"));
    eprintln!("made again after {took:?}");
    let closed = api.event(&mut events, |event| event.kind == EventKind::PortClosed);
    assert_eq!(closed.object, "port host");
    assert!(closed.text.contains("its device is gone; podwired makes it again"), "{closed:?}");
    let added = api.event(&mut events, |event| event.kind == EventKind::PortAdded);
    assert!(added.object == "port host" && added.text.contains("podwire0 was made again"), "{added:?}");
    assert!(api.warnings().is_empty(), "{:?}", api.warnings());
    assert_eq!((shown(), routes6()), before);
    assert!(reaches(false) && reaches(true));
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
}

#[test]
fn what_stands_in_the_place_of_the_nodes_interface_is_named_until_it_goes() {
    let node = node();
    let api = Api::of(&node);
    let a = pod(&node, 10);
    let gateways = podwire_tests::NodePlan(1).gateways();
    // One after the other without a moment for podwired between them.
    let swap = "link del podwire0\nlink add podwire0 type bridge\n";
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), swap).unwrap();
    node.netns.ip(&format!("-batch {}", script.path().display()));
    let warned = || api.warnings().join("\n").contains("port host: podwire0 exists and is a bridge device");
    eventually(NOTICED_WITHIN, "the warning names it", warned);
    node.netns.ip("link del podwire0");
    eventually(NOTICED_WITHIN, "the warning goes", || api.warnings().is_empty());
    assert!(ping(Path::from_node(&node.netns, &gateways, &a, false), Ping::default()).all());
}

#[test]
fn a_port_that_takes_the_place_of_a_removed_one_is_not_closed_in_its_stead() {
    let node = node();
    let api = Api::of(&node);
    let (stays, changes) = (pod(&node, 10), pod(&node, 11));
    let slot = |name: &str| api.ports().into_iter().find(|port| port.name == name).map(|port| port.id);
    let before = slot("pod-11");
    let mut events = api.ask(api.client.events()).unwrap();
    for ifname in ["eth1", "eth2"] {
        let as_before = port("pod-11", &changes.netns, 11);
        let changed = Object::Port(podwire_control::model::Port { ifname: ifname.into(), ..as_before });
        api.ask(api.client.change(Owner::Cli, &[changed], &[])).unwrap();
    }
    // Two ticks later, whatever a worker had to say of the old device has been heard.
    let prefix = |n: u8| route(&format!("10.9.{n}.0/24"), Via::Blackhole);
    for n in 0..12 {
        api.ask(api.client.change(Owner::Cli, &[prefix(n)], &[])).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let last = Key::Route("10.9.11.0/24".parse().unwrap()).to_string();
    api.event(&mut events, |event| {
        assert_ne!(event.kind, EventKind::PortClosed, "{event:?}");
        event.object == last
    });
    assert_eq!((slot("pod-11"), api.closed("pod-11")), (before, None), "a changed port keeps its slot");
    assert!(changes.netns.has_interface("eth2") && !changes.netns.has_interface("eth0"));
    assert!(ping(Path::v4(&stays, &changes), Ping::default()).all());
}
