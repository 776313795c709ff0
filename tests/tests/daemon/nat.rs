//! Leaving the node: who is masqueraded, who is not, and ports of the node that lead to pods.
//!
//! The world outside is a namespace on the node's underlay that knows no way back to pods.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use podwire_control::model::{HostPort, Object, Owner, Transport};
use podwire_tests::pod::Pod;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::{Path, tcp, udp};
use podwire_tests::underlay::join_underlay;
use podwire_tests::{Netns, Node, NodePlan, NodeSpec, Wire, plan};
use podwire_vswitch::daemon::config::Config;
use podwire_vswitch::daemon::controller::Controller;
use podwire_vswitch::daemon::events::EventBus;
use podwire_vswitch::daemon::ledger::Change;
use podwire_vswitch::daemon::nat::{Mapping, TABLE};

use crate::api::{Api, eventually, pod, port};
use crate::reload::reload;

/// Within what somebody else's flush is made good.
const RESTORED_WITHIN: Duration = Duration::from_secs(15);
/// How long nothing has to come until nothing comes.
const SILENCE: Duration = Duration::from_millis(500);

/// A node of the plan that is not started yet, and a host beside it on its underlay, in the place of node 9.
fn outside() -> (Node, Netns) {
    let node = Node::new(NodeSpec::planned(NodePlan(1)));
    let outside = Netns::new("outside");
    join_underlay((&node.netns, &node.spec.underlay), (&outside, &NodePlan(9).underlay()), Wire::default());
    (node, outside)
}

fn masquerades(node: &Node) -> bool {
    node.netns.exec("nft", &["list", "table", "inet", TABLE]).ok()
}

/// Who sends, as the receiver of a UDP datagram sees it; none when nothing comes, or no answer finds back.
fn sender_seen(from: &Netns, source: IpAddr, to: &Netns, target: SocketAddr) -> Option<IpAddr> {
    let receiver = to.enter(|| UdpSocket::bind(target)).unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let sender = from.enter(|| UdpSocket::bind(SocketAddr::new(source, 0))).unwrap();
    sender.set_read_timeout(Some(SILENCE)).unwrap();
    sender.send_to(b"who am I?", target).unwrap();
    let mut buffer = [0; 64];
    let (_, seen) = receiver.recv_from(&mut buffer).ok()?;
    receiver.send_to(b"answer", seen).ok()?;
    sender.recv_from(&mut buffer).ok()?;
    Some(seen.ip())
}

fn family_of(addresses: &[ipnet::IpNet], v6: bool) -> IpAddr {
    plan::of_family(addresses, v6)
}

#[test]
fn a_pod_leaves_the_cluster_with_the_nodes_address_and_nobody_else_is_changed() {
    let (mut node, outside) = outside();
    for (key, value) in [("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0")] {
        node.netns.sysctl(key, value);
    }
    node.start();
    let api = Api::of(&node);
    assert!(api.warnings().is_empty(), "{:?}", api.warnings());
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let gateways = NodePlan(1).gateways();
    for v6 in [false, true] {
        let pod_address = family_of(&a.addresses, v6);
        let (own, far) = (family_of(&node.spec.underlay, v6), family_of(&NodePlan(9).underlay(), v6));
        let out = Path { from: &a.netns, to: &outside, source: pod_address, target: far };
        assert!(ping(out, Ping::default()).all(), "{out:?}");
        assert_eq!(tcp::transfer(out, 3_000_000).unwrap().bytes, 3_000_000);
        assert!(udp::exchange(out, 1_200, 40).unwrap().all());
        assert_eq!(sender_seen(&a.netns, pod_address, &outside, SocketAddr::new(far, 5300)), Some(own));

        let other = SocketAddr::new(b.like(pod_address), 5300);
        assert_eq!(sender_seen(&a.netns, pod_address, &b.netns, other), Some(pod_address), "pod to pod");
        let gateway = family_of(&gateways, v6);
        assert_eq!(sender_seen(&node.netns, gateway, &b.netns, other), Some(gateway), "node to pod");
        for node_address in [own, gateway] {
            let at_node = SocketAddr::new(node_address, 5300);
            assert_eq!(sender_seen(&a.netns, pod_address, &node.netns, at_node), Some(pod_address), "pod to node");
        }
    }
}

#[test]
fn masquerading_follows_the_file_outlives_a_flush_and_the_process_and_goes_with_cleanup() {
    let (mut node, outside) = outside();
    node.spec = node.spec.clone().line("host", "masquerade = false");
    node.start();
    let a = pod(&node, 10);
    let (source, target) = (a.v4(), SocketAddr::new(family_of(&NodePlan(9).underlay(), false), 5300));
    let seen = || sender_seen(&a.netns, source, &outside, target);
    assert_eq!((masquerades(&node), seen()), (false, None));
    outside.ip("route add 10.244.1.0/24 via 172.31.0.1");
    assert_eq!(seen(), Some(source));
    outside.ip("route del 10.244.1.0/24");

    let on = ("masquerade = false", "masquerade = true");
    let own = Some(family_of(&node.spec.underlay, false));
    assert!(reload(&node, &[on]).contains("host.masquerade"));
    assert_eq!((masquerades(&node), seen()), (true, own));
    assert!(reload(&node, &[]).contains("host.masquerade"));
    assert_eq!((masquerades(&node), seen()), (false, None));

    assert!(reload(&node, &[on]).contains("host.masquerade"));
    let _ = node.netns.exec("nft", &["flush", "ruleset"]).expect("nft flushes");
    assert!(!masquerades(&node));
    eventually(RESTORED_WITHIN, "the rules are back", || masquerades(&node));
    assert_eq!(seen(), own);

    assert!(node.stop() && masquerades(&node), "the rules stay, as pods do");
    let cleaned = node.cleanup();
    assert!(cleaned.ok() && cleaned.stdout.contains("removed nftables table inet podwire"), "{cleaned:?}");
    assert!(!masquerades(&node));
}

#[test]
fn what_nft_refuses_is_a_warning_as_long_as_it_does() {
    let (mut node, outside) = outside();
    let folder = tempfile::tempdir().unwrap();
    let (program, broken) = (folder.path().join("nft"), folder.path().join("broken"));
    let text = format!(
        "#!/bin/sh\n[ ! -e {} ] || {{ echo out of order >&2; exit 1; }}\nexec /usr/sbin/nft \"$@\"\n",
        broken.display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&broken, "").unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    node.spec.environment.push(("PATH".into(), path));
    node.start();
    let (api, a) = (Api::of(&node), pod(&node, 10));
    let warnings = api.warnings();
    assert!(matches!(&warnings[..], [one] if one.contains("nft refuses the rules: out of order;")), "{warnings:?}");
    assert!(ping(Path::from_node(&node.netns, &NodePlan(1).gateways(), &a, false), Ping::default()).all());
    fs::remove_file(&broken).unwrap();
    eventually(RESTORED_WITHIN, "the warning goes", || api.warnings().is_empty());
    let far = SocketAddr::new(family_of(&NodePlan(9).underlay(), false), 5300);
    assert_eq!(sender_seen(&a.netns, a.v4(), &outside, far), Some(family_of(&node.spec.underlay, false)));
}

#[test]
fn another_nodes_own_address_is_outside_the_cluster() {
    let (one, two) = Node::pair(Wire::default());
    let (a, b) = (pod(&one, 10), two.pod("pod-b", &NodePlan(2).pod(10)));
    for v6 in [false, true] {
        let source = family_of(&a.addresses, v6);
        let other = SocketAddr::new(family_of(&two.spec.underlay, v6), 5300);
        assert_eq!(sender_seen(&a.netns, source, &two.netns, other), Some(family_of(&one.spec.underlay, v6)));
        let remote = SocketAddr::new(b.like(source), 5300);
        assert_eq!(sender_seen(&a.netns, source, &b.netns, remote), Some(source), "pod to remote pod");
    }
}

#[test]
fn a_service_that_the_node_translates_answers_pods_wherever_it_runs() {
    let (one, two) = Node::pair(Wire::default());
    let (a, near, far) = (pod(&one, 10), pod(&one, 11), two.pod("far", &NodePlan(2).pod(10)));
    let rules = "add table inet services; add chain inet services c { type nat hook prerouting priority dstnat; }; \
                 add rule inet services c ip daddr 10.96.0.1 dnat ip to 10.244.1.11; \
                 add rule inet services c ip daddr 10.96.0.2 dnat ip to 10.244.2.10";
    let _ = one.netns.exec("nft", &[rules]).expect("nft takes them");
    for (service, pod) in [("10.96.0.1:80", &near), ("10.96.0.2:80", &far)] {
        let seen = connect(&a.netns, service.parse().unwrap(), pod, 80).unwrap();
        assert_eq!(seen, family_of(&NodePlan(1).gateways(), false), "{service}");
    }
}

/// A node whose switch runs in the test's own process, so that it can be told of host ports.
struct InProcess {
    controller: Controller,
    node: Node,
    outside: Netns,
}

impl InProcess {
    fn start(lines: &[&str]) -> Self {
        let (mut node, outside) = outside();
        for line in lines {
            node.spec = node.spec.clone().line("host", line);
        }
        let folder = node.log_path().parent().unwrap().to_owned();
        let text = node.spec.toml(&node.socket(), &folder.join("state"));
        let config = Config::parse(&folder.join("podwired.toml"), &text).unwrap();
        let controller = node.netns.enter(|| Controller::start(config, EventBus::new(|| 0))).unwrap();
        Self { controller, node, outside }
    }

    fn pod(&mut self, host: u8) -> Pod {
        let pod = Pod::unattached(&format!("pod-{host}"), &NodePlan(1).pod(host));
        let upserts = vec![Object::Port(port(&pod.name, &pod.netns, host))];
        let change = Change { upserts, deletes: Vec::new(), ignore_missing: false };
        let controller = &mut self.controller;
        self.node.netns.enter(|| controller.change(Owner::Cli, change)).unwrap();
        pod
    }

    fn set_host_ports(&mut self, of_pods: &[(&Pod, Vec<HostPort>)]) {
        let mappings = of_pods.iter().flat_map(|(pod, ports)| Mapping::of_pod(ports, &pod.addresses)).collect();
        let controller = &mut self.controller;
        self.node.netns.enter(|| controller.set_host_ports(mappings)).unwrap();
        assert_eq!(self.controller.status().warnings, [""; 0]);
    }

    fn own(&self, v6: bool) -> IpAddr {
        family_of(&self.node.spec.underlay, v6)
    }
}

fn host_port(host_ip: Option<&str>, host_port: u16, container_port: u16, transport: Transport) -> HostPort {
    HostPort { host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port, transport }
}

/// Connects, and gives who the listener in the pod saw.
fn connect(from: &Netns, to: SocketAddr, pod: &Pod, container_port: u16) -> io::Result<IpAddr> {
    let at = SocketAddr::new(pod.like(to.ip()), container_port);
    // The last connection to that port may be going still.
    let mut bound = pod.netns.enter(|| TcpListener::bind(at));
    for _ in 0..20 {
        if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            std::thread::sleep(Duration::from_millis(50));
            bound = pod.netns.enter(|| TcpListener::bind(at));
        }
    }
    let listener = bound.unwrap();
    let _open = from.enter(|| TcpStream::connect_timeout(&to, SILENCE))?;
    Ok(listener.accept()?.1.ip())
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere() {
    let mut world = InProcess::start(&["masquerade = false"]);
    let (a, b) = (world.pod(10), world.pod(11));
    let ports = vec![host_port(None, 8080, 80, Transport::Tcp)];
    let only_here = vec![
        host_port(Some("127.0.0.1"), 8081, 80, Transport::Tcp),
        host_port(Some("172.31.0.1"), 8082, 81, Transport::Tcp),
    ];
    world.set_host_ports(&[(&a, ports), (&b, only_here)]);
    let (node, outside) = (&world.node.netns, &world.outside);
    for v6 in [false, true] {
        let (own, far) = (world.own(v6), family_of(&NodePlan(9).underlay(), v6));
        let gateway = family_of(&NodePlan(1).gateways(), v6);
        let at = SocketAddr::new(own, 8080);
        assert_eq!(connect(outside, at, &a, 80).unwrap(), far, "the pod sees who comes from outside");
        assert_eq!(connect(&b.netns, at, &a, 80).unwrap(), gateway, "from another pod of the node");
        assert_eq!(connect(&a.netns, at, &a, 80).unwrap(), gateway, "from the pod itself");
        assert_eq!(connect(&a.netns, SocketAddr::new(gateway, 8080), &a, 80).unwrap(), gateway, "by the gateway");
        assert_eq!(connect(node, at, &a, 80).unwrap(), own, "from the node");
    }
    let loopback = |port| SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    let gateway = family_of(&NodePlan(1).gateways(), false);
    assert_eq!(connect(node, loopback(8080), &a, 80).unwrap(), gateway);
    assert_eq!(connect(node, loopback(8081), &b, 80).unwrap(), gateway);
    assert!(connect(outside, SocketAddr::new(world.own(false), 8081), &b, 80).is_err());
    assert!(connect(node, "[::1]:8080".parse().unwrap(), &a, 80).is_err());
    assert!(connect(outside, SocketAddr::new(world.own(false), 8082), &b, 81).is_ok());
    assert!(connect(outside, SocketAddr::new(world.own(true), 8082), &b, 81).is_err());
    assert!(connect(node, loopback(8082), &b, 81).is_err());
    // Pods' own connections through the node to the same port of others go where they are sent.
    let elsewhere = SocketAddr::new(b.v4(), 8080);
    assert!(connect(&a.netns, elsewhere, &b, 8080).is_ok());

    world.set_host_ports(&[]);
    assert!(connect(&world.outside, SocketAddr::new(world.own(false), 8080), &a, 80).is_err());
    assert!(!masquerades(&world.node), "with nothing to do there is no table");
}

#[test]
fn a_udp_client_that_never_pauses_is_led_to_the_new_pod() {
    let mut world = InProcess::start(&[]);
    let (a, b) = (world.pod(10), world.pod(11));
    for v6 in [false, true] {
        let receivers = [&a, &b].map(|pod| {
            let at = SocketAddr::new(family_of(&pod.addresses, v6), 53);
            let socket = pod.netns.enter(|| UdpSocket::bind(at)).unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            socket
        });
        let far = SocketAddr::new(family_of(&NodePlan(9).underlay(), v6), 0);
        let client = world.outside.enter(|| UdpSocket::bind(far)).unwrap();
        let to = SocketAddr::new(world.own(v6), 5353);
        let ask = |pod: usize| {
            client.send_to(b"?", to).unwrap();
            receivers[pod].recv_from(&mut [0; 8]).is_ok()
        };
        let ports = || vec![host_port(None, 5353, 53, Transport::Udp)];
        assert!(!ask(0), "before there is a mapping");
        world.set_host_ports(&[(&a, ports())]);
        assert!(ask(0));
        world.set_host_ports(&[(&b, ports())]);
        assert!(ask(1));
        world.set_host_ports(&[]);
        assert!(!ask(1));
    }
}

#[test]
fn pods_do_not_reach_the_nodes_loopback_addresses_through_host_ports() {
    let mut world = InProcess::start(&[]);
    let a = world.pod(10);
    world.set_host_ports(&[(&a, vec![host_port(None, 8080, 80, Transport::Tcp)])]);
    let setting = |world: &InProcess| {
        let path = "/proc/sys/net/ipv4/conf/podwire0/route_localnet";
        world.node.netns.enter(|| fs::read_to_string(path)).unwrap().trim().to_owned()
    };
    assert_eq!(setting(&world), "1");
    a.netns.ip("route del table local local 127.0.0.0/8 dev lo");
    a.netns.ip("route del table local local 127.0.0.1 dev lo");
    a.netns.ip("route add 127.0.0.1/32 via 10.244.1.1 dev eth0 src 10.244.1.10");
    let secret = "127.0.0.1:9999".parse::<SocketAddr>().unwrap();
    let _listener = world.node.netns.enter(|| TcpListener::bind(secret)).unwrap();
    assert!(a.netns.enter(|| TcpStream::connect_timeout(&secret, SILENCE)).is_err());
    let dropped = world.controller.drops();
    assert!(dropped.iter().any(|drop| drop.reason == "martian" && drop.frames > 0), "they were sent: {dropped:?}");
    world.set_host_ports(&[]);
    assert_eq!(setting(&world), "0");
}
