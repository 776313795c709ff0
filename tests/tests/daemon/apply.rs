//! Statements are taken over as a whole or not at all, and are in force when the answer comes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use podwire_control::model::{Guard, Key, Object, Owner, Port, PortState, Via};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Netns, Node, Pod};

use crate::api::{Api, at, eventually, node, pod, port, refused, route};

/// All that a refused statement must leave as it was.
fn state(node: &Node, api: &Api, pods: &[&Pod]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    state.insert("generation".into(), api.generation().to_string());
    let ports: Vec<_> = api.ports().into_iter().map(|port| (port.id, port.name, port.addresses, port.state)).collect();
    state.insert("ports".into(), format!("{ports:?}"));
    state.insert("routes".into(), format!("{:?}", api.ask(api.client.routes()).unwrap()));
    for pod in pods {
        let links = pod.netns.ip("-o addr show") + &pod.netns.ip("route show table all");
        state.insert(format!("interfaces of {}", pod.name), links);
    }
    let store = node.store().main;
    state.insert("store".into(), format!("{:?}", fs::metadata(store).unwrap().modified().unwrap()));
    state
}

#[test]
fn a_statement_with_one_bad_object_changes_nothing_and_names_object_and_remedy() {
    let node = node();
    let api = Api::of(&node);
    let (a, b, fresh) = (pod(&node, 10), pod(&node, 11), Netns::new("fresh"));
    fresh.ip("link add cable type veth peer name wall");
    let before = state(&node, &api, &[&a, &b]);
    let good = [
        Object::Port(port("pod-10", &a.netns, 10)),
        Object::Port(Port { mtu: Some(1400), ..port("pod-11", &b.netns, 11) }),
        Object::Port(port("new", &fresh, 12)),
        route("10.9.0.0/16", Via::Port("new".parse().unwrap())),
    ];
    let gone = std::path::Path::new("/run/netns/pwt-there-is-no-such-namespace");
    for (bad, object, remedy) in [
        (route("10.8.0.0/16", Via::Vtep("nobody".parse().unwrap())), "route 10.8.0.0/16", "add vtep nobody first"),
        (Object::Port(Port { ifname: "eth1".into(), ..port("twin", &fresh, 10) }), "port", "give one of them another"),
        (Object::Port(at("vanished", gone, 13)), "port vanished", "check that the path exists"),
        (Object::Port(at("file", "/etc/hostname".as_ref(), 13)), "port file", "is not below /run/netns, "),
        (Object::Port(at("pipe", "/proc/self/ns/uts".as_ref(), 13)), "port pipe", "give a path as in /run/netns/NAME"),
        (Object::Port(at("own", &node.netns.path(), 13)), "port own", "give a pod's"),
        (Object::Port(Port { ifname: "cable".into(), ..port("taken", &fresh, 13) }), "port taken", "use another name"),
        (
            Object::Port(Port { bridge: Some("blue".parse().unwrap()), ..port("nobridge", &fresh, 13) }),
            "port",
            "add bridge blue",
        ),
    ] {
        let objects: Vec<Object> = good.iter().cloned().chain([bad]).collect();
        let sentence = refused(api.ask(api.client.apply(Owner::Cli, &objects)));
        assert!(sentence.contains(object) && sentence.contains(remedy), "{object}, {remedy}: {sentence}");
        assert_eq!(state(&node, &api, &[&a, &b]), before, "{sentence}");
        assert!(!fresh.has_interface("eth0") && !fresh.has_interface("eth1"), "{sentence}");
    }
    assert!(ping(Path::v4(&a, &b), Ping::default()).all());
    api.ask(api.client.apply(Owner::Cli, &good)).expect("without the bad one it stands");
    assert!(fresh.has_interface("eth0"));
}

#[test]
fn the_same_statement_again_is_no_new_generation_and_nobody_elses_objects_are_touched() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), Netns::new("b"));
    let mine = [Object::Port(port("mine", &b, 11)), route("10.9.0.0/16", Via::Port("mine".parse().unwrap()))];
    let first = api.ask(api.client.apply(Owner::Kubernetes, &mine)).unwrap();
    assert_eq!((first.changed.len(), first.unchanged), (2, 0));
    let again = api.ask(api.client.apply(Owner::Kubernetes, &mine)).unwrap();
    assert_eq!((again.generation, again.changed.len(), again.unchanged), (first.generation, 0, 2));
    assert_eq!(api.generation(), first.generation);

    let stolen = Object::Port(Port { ifname: "eth7".into(), ..port("pod-10", &b, 20) });
    let shadowed = api.ask(api.client.apply(Owner::Kubernetes, &[mine[0].clone(), stolen])).unwrap();
    assert_eq!(shadowed.changed.len(), 2, "one route less, one port more that the CLI's hides");
    assert!(!b.has_interface("eth7"));
    api.ask(api.client.apply(Owner::Kubernetes, &[])).unwrap();
    let names: Vec<String> = api.ports().into_iter().map(|port| port.name).collect();
    assert!(names.contains(&"pod-10".to_owned()) && !names.contains(&"mine".to_owned()), "{names:?}");
    assert!(a.netns.has_interface("eth0") && !b.has_interface("eth0"));
    let missing = refused(api.ask(api.client.change(Owner::Kubernetes, &[], &[Key::Port("pod-10".parse().unwrap())])));
    assert!(missing.contains("stated by cli"), "{missing}");
}

#[test]
fn the_packet_after_the_answer_goes_the_new_way() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    b.netns.ip("addr add 10.9.0.1/32 dev eth0");
    let to_b = Via::Port("pod-11".parse().unwrap());
    let receiver = b.netns.enter(|| UdpSocket::bind("10.9.0.1:7000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let sender = a.netns.enter(|| UdpSocket::bind(SocketAddr::new(a.v4(), 0)).unwrap());
    let set = |via: &Via| api.ask(api.client.change(Owner::Cli, &[route("10.9.0.0/16", via.clone())], &[])).unwrap();
    // Each packet is settled before the next change: one that is under way may go either way.
    for round in 1..=25_u8 {
        set(&to_b);
        sender.send_to(&[round], "10.9.0.1:7000").unwrap();
        let mut byte = [0];
        receiver.recv_from(&mut byte).unwrap_or_else(|error| panic!("packet {round} did not arrive: {error}"));
        assert_eq!(byte, [round], "none that was sent into the blackhole");
        set(&Via::Blackhole);
        sender.send_to(&[100 + round], "10.9.0.1:7000").unwrap();
        let counted = || api.count("drop:blackhole") == u64::from(round);
        eventually(Duration::from_secs(2), "the blackhole swallows it", counted);
    }
}

#[test]
fn interfaces_change_hands_within_one_statement() {
    let node = node();
    let api = Api::of(&node);
    let (witness, netns) = (pod(&node, 10), Netns::new("shared"));
    let named = |name: &str, ifname: &str, host: u8| {
        Object::Port(Port { ifname: ifname.into(), guard: Guard::Off, ..port(name, &netns, host) })
    };
    api.ask(api.client.apply(Owner::Cni, &[named("one", "eth0", 20), named("two", "eth1", 21)])).unwrap();
    // Both swap, then one is renamed.
    for objects in
        [[named("one", "eth1", 20), named("two", "eth0", 21)], [named("one", "eth1", 20), named("three", "eth0", 21)]]
    {
        api.ask(api.client.apply(Owner::Cni, &objects)).unwrap();
        let addresses = netns.ip("-o -4 addr show dev eth0");
        assert!(addresses.contains("10.244.1.21"), "{addresses}");
        assert!(api.ports().iter().all(|port| port.state == PortState::Up), "{:?}", api.ports());
        let target = "10.244.1.21".parse().unwrap();
        let path = Path { from: &witness.netns, to: &netns, source: witness.v4(), target };
        assert!(ping(path, Ping::default()).all());
    }
}
