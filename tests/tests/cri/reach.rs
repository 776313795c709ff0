//! Pods of a runtime reach whom they should: each other, their node, another node's pods, the world; and are reached.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use podwire_tests::{Netns, Node, Wire};

use crate::node::{RuntimeNode, is_reached, reaches, sandbox};

/// A world behind the node, which knows no way to pods.
const OUTSIDE: [&str; 2] = ["198.51.100.9/24", "2001:db8:100::9/64"];
const OWN: [&str; 2] = ["198.51.100.1/24", "2001:db8:100::1/64"];

fn outside(node: &Node) -> Netns {
    let outside = Netns::new("outside");
    outside.skip_address_detection();
    node.netns.skip_address_detection();
    Netns::veth((&node.netns, "world"), (&outside, "node"), Wire::default());
    for (own, far) in OWN.into_iter().zip(OUTSIDE) {
        node.netns.address("world", own.parse().unwrap());
        outside.address("node", far.parse().unwrap());
    }
    outside
}

fn address(text: &str) -> IpAddr {
    text.split('/').next().unwrap().parse().unwrap()
}

/// What a web server at this address says, asked from a namespace.
fn ask(from: &Netns, at: SocketAddr) -> String {
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    })
}

#[test]
fn sandboxes_reach_each_other_their_node_another_node_and_the_world() {
    let (node1, node2) = Node::pair(Wire::default());
    let world = outside(&node1);
    let (one, two) = (RuntimeNode::start(node1), RuntimeNode::start(node2));
    one.wait_for_network(true);
    let mut web = sandbox("web");
    web.host_ports = vec![(8080, 80)];
    let mut slow = sandbox("slow");
    slow.annotations = vec![("kubernetes.io/ingress-bandwidth".into(), "10M".into())];
    let ids = [one.runtime.run(&web).unwrap(), one.runtime.run(&slow).unwrap()];
    let far = two.runtime.run(&sandbox("far")).unwrap();
    let pods: Vec<Vec<IpAddr>> = ids.iter().map(|id| one.runtime.addresses(id)).collect();
    let far_pod = two.runtime.addresses(&far);
    for addresses in pods.iter().chain([&far_pod]) {
        assert_eq!(addresses.len(), 2, "one of each family: {addresses:?}");
    }
    let serve = "mkdir -p /srv && echo here > /srv/hello && exec /bin/busybox httpd -f -p 80 -h /srv";
    let container = one.runtime.container(&web, &ids[0], &["sh", "-c", &serve.replace("mkdir", "/bin/busybox mkdir")]);
    let gateways = ["10.244.1.1", "fd00:244:1::1"].map(address);
    let node = one.node.spec.underlay.iter().map(|own| own.addr());
    let targets: Vec<IpAddr> =
        pods[1].iter().chain(&far_pod).copied().chain(gateways).chain(node).chain(OUTSIDE.map(address)).collect();
    for to in targets {
        assert!(reaches(&one, &container, to), "the pod reaches {to}");
    }
    for to in pods[0].iter().chain(&pods[1]) {
        assert!(is_reached(&one.node.netns, *to), "the node reaches {to}");
    }
    for (at, own) in [(&one.node.netns, pods[0][0]), (&two.node.netns, pods[0][0])] {
        assert!(ask(at, SocketAddr::new(own, 80)).ends_with("here\n"), "{own} serves {}", at.name());
    }
    for own in OWN.map(address) {
        assert!(ask(&world, SocketAddr::new(own, 8080)).ends_with("here\n"), "the node's port at {own}");
    }
    let known = one.attachments();
    assert_eq!(known.len(), 2);
    let pod = |name: &str| known.iter().find(|one| one["pod"] == name).expect("the pod's name is known");
    assert_eq!(pod("default/web")["host_ports"][0], "8080 to 80/tcp");
    assert_eq!(pod("default/slow")["bandwidth"]["ingress"]["bits_per_s"], 10_000_000);
    one.uninstall();
    one.wait_for_network(false);
    one.install();
    one.wait_for_network(true);
}
