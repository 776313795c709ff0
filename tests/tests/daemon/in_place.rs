//! A changed port keeps its interface: addresses, MTU and MAC change under what runs in the pod.

use podwire_control::model::{Object, Owner, Port};
use podwire_tests::Pod;
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};

use crate::api::{Api, node, pod, port, refused};
use crate::stream::Stream;

/// An address that somebody else put on a pod's interface.
const FOREIGN: &str = "192.168.9.1/32";

/// Interface number, MTU and MAC.
fn link(pod: &Pod) -> [String; 3] {
    let line = pod.netns.ip("-o link show dev eth0");
    let behind = |word: &str| line.split(word).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    [line.split(':').next().unwrap().to_owned(), behind("mtu "), behind("link/ether ")]
}

/// Addresses but for link-local ones.
fn addresses(pod: &Pod) -> Vec<String> {
    let shown = pod.netns.ip("-o addr show dev eth0 scope global");
    let mut all: Vec<String> = shown.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect();
    all.sort();
    all
}

fn reaches(from: &Pod, to: &Pod, target: &str) -> bool {
    let path = Path { target: target.parse().unwrap(), ..Path::v4(from, to) };
    ping(path, Ping { wait_seconds: 1, ..Ping::default() }).all()
}

#[test]
fn a_changed_mtu_and_more_addresses_cost_no_packet() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    b.netns.ip(&format!("addr add {FOREIGN} dev eth0"));
    let [index, _, mac] = link(&b);
    let stream = Stream::start(&a, &b);
    let mut changed = port("pod-11", &b.netns, 11);
    changed.mtu = Some(1_300);
    for more in ["10.244.1.77/24", "fd00:244:1::77/64"] {
        changed.addresses.push(more.parse().unwrap());
    }
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed.clone())], &[])).unwrap();
    assert!(reaches(&a, &b, "10.244.1.77") && reaches(&a, &b, "fd00:244:1::77"));
    changed.addresses.truncate(2);
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed)], &[])).unwrap();
    assert_eq!(stream.end().1, 0, "packets lost");
    assert_eq!(link(&b), [index, "1300".into(), mac]);
    assert_eq!(addresses(&b), ["10.244.1.11/24", FOREIGN, "fd00:244:1::b/64"]);
    let reported = api.ports().into_iter().find(|port| port.name == "pod-11").unwrap();
    assert_eq!(reported.mtu, 1_300);
    assert!(!reaches(&a, &b, "10.244.1.77"));
}

#[test]
fn another_first_address_changes_the_mac_and_keeps_the_interface() {
    let node = node();
    let api = Api::of(&node);
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    assert!(ping(Path::v4(&a, &b), Ping::default()).all() && ping(Path::v6(&a, &b), Ping::default()).all());
    b.netns.ip(&format!("addr add {FOREIGN} dev eth0"));
    let [index, mtu, before] = link(&b);
    let moved = port("pod-11", &b.netns, 12);
    let mac = moved.mac_in_force().to_string();
    api.ask(api.client.change(Owner::Cli, &[Object::Port(moved)], &[])).unwrap();
    assert_ne!(before, mac);
    assert_eq!(link(&b), [index, mtu, mac]);
    assert_eq!(addresses(&b), ["10.244.1.12/24", FOREIGN, "fd00:244:1::c/64"]);
    assert!(reaches(&a, &b, "10.244.1.12") && reaches(&a, &b, "fd00:244:1::c"));
    assert!(!reaches(&a, &b, "10.244.1.11"));
    assert!(b.netns.ip("route show default").contains("via 10.244.1.1"));
    let dropped = node.total("drop:spoofed_ip");
    assert_eq!(dropped, 0, "its link-local address follows its MAC");
}

#[test]
fn a_refused_request_takes_back_what_it_had_changed_in_place() {
    let node = node();
    let api = Api::of(&node);
    let (a, b, c) = (pod(&node, 10), pod(&node, 11), pod(&node, 12));
    let before = (link(&b), addresses(&b), api.generation());
    let changed = Port { mtu: Some(1_300), ..port("pod-11", &b.netns, 13) };
    // Its own device has to go first, so that the other's change is done by then.
    let nowhere = Port { netns: "/run/netns/pwt-nowhere".into(), ..port("pod-12", &c.netns, 12) };
    let both = [changed, nowhere].map(Object::Port);
    let sentence = refused(api.ask(api.client.change(Owner::Cli, &both, &[])));
    assert!(sentence.contains("port pod-12") && !sentence.contains("port pod-11"), "{sentence}");
    assert_eq!((link(&b), addresses(&b), api.generation()), before);
    for to in [&b, &c] {
        assert!(ping(Path::v4(&a, to), Ping::default()).all() && ping(Path::v6(&a, to), Ping::default()).all());
    }
}
