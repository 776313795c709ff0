//! Ports of kind veth-xdp: stated and shown like others, kept over restart and crash, gone without a trace.

use std::time::Duration;

use podwire_control::model::{Object, Owner, PortKind};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::{Node, NodePlan, Pod, command};

use crate::api::{Api, eventually, node, pod, port, refused};
use crate::restart::{GAP_MAX, while_connected};

const NOTICED_WITHIN: Duration = Duration::from_secs(2);

fn veth_pod(node: &Node, host: u8) -> Pod {
    node.pod_with(&format!("pod-{host}"), &NodePlan(1).pod(host), &["--kind", "veth-xdp"])
}

/// The switch's ends of veth-xdp ports.
fn ends(node: &Node) -> usize {
    node.netns.ip("-o link show").lines().filter(|line| line.contains(" pwx")).count()
}

fn assert_reach(from: &Pod, to: &Pod) {
    for path in [Path::v4(from, to), Path::v6(to, from)] {
        assert!(ping(path, Ping::default()).all());
    }
}

#[test]
fn a_port_is_added_shown_changed_and_removed_with_its_pair() {
    let node = node();
    let (a, b) = (pod(&node, 10), veth_pod(&node, 11));
    let api = Api::of(&node);
    assert_reach(&a, &b);
    let shown = node.podwire(&["port", "show", "pod-11"]);
    assert!(shown.lines().any(|line| line.starts_with("device ") && line.ends_with("veth-xdp")), "{shown}");
    assert_eq!(ends(&node), 1);

    // Another address, in place; then another kind, which is another device.
    let mut changed = podwire_control::model::Port { kind: PortKind::VethXdp, ..port("pod-11", &b.netns, 12) };
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed.clone())], &[])).unwrap();
    assert!(b.netns.ip("addr show dev eth0").contains("10.244.1.12/24"));
    changed.mtu = Some(4_000);
    let sentence = refused(api.ask(api.client.change(Owner::Cli, &[Object::Port(changed.clone())], &[])));
    assert!(sentence.contains("port pod-11") && sentence.contains("an MTU of 4000"), "{sentence}");
    changed = port("pod-11", &b.netns, 11);
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed.clone())], &[])).unwrap();
    assert_eq!(ends(&node), 0);
    assert_reach(&a, &b);
    changed.kind = PortKind::VethXdp;
    api.ask(api.client.change(Owner::Cli, &[Object::Port(changed)], &[])).unwrap();
    assert_reach(&a, &b);

    node.assert_every_frame_is_counted();
    assert_eq!(node.total("veth_rx_dropped"), 0);
    node.podwire(&["port", "del", "pod-11"]);
    assert_eq!(node.total("veth_ring_full"), 0, "counted on when no such port is left");
    assert_eq!(ends(&node), 0);
    assert!(!b.netns.has_interface("eth0"));
}

#[test]
fn a_port_survives_restart_and_crash_and_connections_go_on() {
    let mut node = node();
    let (a, b) = (veth_pod(&node, 10), veth_pod(&node, 11));
    let number = |pod: &Pod| pod.netns.ip("-o link show dev eth0").split(':').next().unwrap().to_owned();
    let before = [number(&a), number(&b)];
    for crash in [false, true] {
        let gap = while_connected(&a, &b, || {
            if crash {
                node.kill();
            } else {
                assert!(node.stop(), "it ends by itself with 0");
            }
            node.start();
        });
        eprintln!("crash {crash}: the connection stood still for {gap:?}");
        assert!(gap < GAP_MAX, "{gap:?}");
        assert_eq!([number(&a), number(&b)], before, "the same interfaces");
        assert_reach(&a, &b);
        assert!(Api::of(&node).warnings().is_empty());
    }
}

#[test]
fn a_port_closes_when_its_namespace_or_its_interface_vanishes() {
    let node = node();
    let api = Api::of(&node);
    let (stays, goes, loses) = (veth_pod(&node, 10), veth_pod(&node, 11), veth_pod(&node, 12));
    command::must(&format!("ip netns del {}", goes.netns.name()));
    eventually(NOTICED_WITHIN, "the port closes", || api.closed("pod-11").is_some());
    eventually(NOTICED_WITHIN, "the pair goes", || ends(&node) == 2);
    loses.netns.ip("link del eth0");
    eventually(NOTICED_WITHIN, "the port closes", || api.closed("pod-12").is_some());
    assert!(api.closed("pod-12").unwrap().contains("its device is gone"));
    command::must(&format!("ip netns add {}", goes.netns.name()));
    for (name, pod, host) in [("pod-11", &goes, 11), ("pod-12", &loses, 12)] {
        let again = podwire_control::model::Port { kind: PortKind::VethXdp, ..port(name, &pod.netns, host) };
        api.ask(api.client.change(Owner::Cli, &[Object::Port(again)], &[])).unwrap();
        assert_reach(&stays, pod);
    }
    assert_eq!(ends(&node), 3);
}

#[test]
fn cleanup_takes_the_pair_away() {
    let mut node = node();
    let pod = veth_pod(&node, 10);
    node.kill();
    assert_eq!(ends(&node), 1, "a killed one leaves its pairs");
    let text = node.cleanup().expect("cleanup failed");
    assert!(text.contains("removed interface eth0 of pod pod-10"), "{text}");
    assert_eq!(ends(&node), 0);
    assert!(!pod.netns.has_interface("eth0"));
}
