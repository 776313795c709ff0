//! Ports of the node that lead into a container, as the runtime asks for them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use podwire_tests::plan::of_family;
use podwire_tests::underlay::join_underlay;
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Wire};
use serde_json::json;

use crate::plugin::{Call, addresses};

/// How long nothing has to come until nothing comes.
const SILENCE: Duration = Duration::from_millis(500);

/// Who a listener sees, when a byte came back to who connected.
fn tcp(from: &Netns, to: SocketAddr, (container, at): (&Netns, SocketAddr)) -> io::Result<IpAddr> {
    let listener = container.enter(|| TcpListener::bind(at)).unwrap();
    let mut client = from.enter(|| TcpStream::connect_timeout(&to, SILENCE))?;
    let (mut server, seen) = listener.accept()?;
    server.write_all(b"!")?;
    client.read_exact(&mut [0])?;
    Ok(seen.ip())
}

/// Who a receiver of a datagram sees, when its answer came back.
fn udp(from: &Netns, to: SocketAddr, (container, at): (&Netns, SocketAddr)) -> io::Result<IpAddr> {
    let receiver = container.enter(|| UdpSocket::bind(at)).unwrap();
    let any: IpAddr = if to.is_ipv6() { "::".parse().unwrap() } else { "0.0.0.0".parse().unwrap() };
    let sender = from.enter(|| UdpSocket::bind(SocketAddr::new(any, 0))).unwrap();
    for socket in [&receiver, &sender] {
        socket.set_read_timeout(Some(SILENCE)).unwrap();
    }
    sender.send_to(b"?", to)?;
    let (_, seen) = receiver.recv_from(&mut [0; 8])?;
    receiver.send_to(b"!", seen)?;
    assert_eq!(sender.recv_from(&mut [0; 8])?.1, to, "the answer comes from where was asked");
    Ok(seen.ip())
}

#[test]
fn host_ports_lead_into_a_container_until_it_is_gone() {
    let mut node = Node::new(NodeSpec::planned(NodePlan(1)));
    let outside = Netns::new("outside");
    join_underlay((&node.netns, &node.spec.underlay), (&outside, &NodePlan(9).underlay()), Wire::default());
    node.start();
    let own = |v6| of_family(&node.spec.underlay, v6);
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": own(false)},
        {"hostPort": 5354, "containerPort": 54, "protocol": "udp", "hostIP": own(true)},
    ]);
    let netns = Netns::new("web");
    let call = Call::in_netns(&node, "web", &netns).key("runtimeConfig", json!({"portMappings": mappings}));
    let result = call.run("ADD").done();
    let given: Vec<IpNet> = addresses(&result).iter().map(|address| address.parse().unwrap()).collect();
    for v6 in [false, true] {
        let at = |port| SocketAddr::new(own(v6), port);
        let inside = |port| (&netns, SocketAddr::new(of_family(&given, v6), port));
        let far = of_family(&NodePlan(9).underlay(), v6);
        assert_eq!(tcp(&outside, at(8080), inside(80)).unwrap(), far);
        assert_eq!(udp(&outside, at(5353), inside(53)).unwrap(), far);
        assert_eq!(tcp(&outside, at(8081), inside(81)).is_ok(), !v6, "it is open on the IPv4 address alone");
        assert_eq!(udp(&outside, at(5354), inside(54)).is_ok(), v6, "it is open on the IPv6 address alone");
    }

    let other = Netns::new("other");
    let (code, words) =
        Call { config: call.config.clone(), ..Call::in_netns(&node, "other", &other) }.run("ADD").failed();
    assert!(code == 100 && words.contains("8080"), "{code}: {words}");
    call.run("DEL").done();
    let rules = node.netns.exec("nft", &["list", "ruleset"]).expect("nft lists");
    assert!(!rules.contains("8080") && !rules.contains("5354"), "{rules}");
    let taken_over = Call { config: call.config.clone(), ..Call::in_netns(&node, "other", &other) }.run("ADD").done();
    let at: IpNet = addresses(&taken_over)[0].parse().unwrap();
    let seen = tcp(&outside, SocketAddr::new(own(false), 8080), (&other, SocketAddr::new(at.addr(), 80)));
    assert_eq!(seen.unwrap(), of_family(&NodePlan(9).underlay(), false));
}
