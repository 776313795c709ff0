//! Real TAPs in namespaces of their own. Need root, and fail without.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::frame::{Checksum, Frame, GsoKind};
use crate::port::interface::{GSO_BYTES_MAX, InterfaceRoute, TUNNEL_GSO_BYTES_MAX};
use crate::port::{Piece, Pieces};
use crate::sys::clock::mono_now;
use crate::sys::epoll::{Epoll, Events};
use crate::sys::netlink::Netlink;
use crate::sys::netns::testing::TestNetns;
use crate::sys::udp::{ReceiveBuffers, Role, SendOptions, UdpSocket};
use crate::wire::checksum;
use podwire_control::model::Mac;

const MAC: Mac = Mac([2, 0, 10, 244, 1, 10]);
const PEER_MAC: Mac = Mac([2, 0, 10, 244, 1, 11]);
const QUEUE_BYTES: usize = 1 << 20;

fn spec(netns: &TestNetns) -> InterfaceSpec {
    let mut spec = InterfaceSpec::new(Some(netns.path()), "eth0", MAC, 1_450);
    spec.addresses = vec!["10.244.1.10/24".parse().unwrap(), "fd00:244:1::a/64".parse().unwrap()];
    spec.gateways = vec!["10.244.1.1".parse().unwrap(), "fd00:244:1::1".parse().unwrap()];
    spec
}

/// Receives until `wanted` says yes, and gives that frame.
fn receive(rx: &mut TapRx, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::new());
    epoll.add(rx.poll_fd().unwrap(), 0).unwrap();
    let mut pool = FramePool::new(1);
    for _ in 0..1_000 {
        let mut batch = Batch::new();
        let status = rx.rx(&mut pool, &mut batch, 1);
        if let Some(item) = batch.items_mut().first_mut().filter(|item| wanted(&item.frame)) {
            return std::mem::take(&mut item.frame);
        }
        batch.recycle(&mut pool);
        if status == RxStatus::Drained {
            epoll.wait(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "no such frame within five seconds");
        }
    }
    panic!("no such frame among a thousand");
}

fn is_ipv4(frame: &Frame, protocol: u8) -> bool {
    frame.bytes()[12..14] == [8, 0] && frame.bytes()[23] == protocol
}

#[test]
fn a_device_found_from_before_gets_the_super_frame_size_that_is_asked_for_now() {
    let netns = TestNetns::new();
    for gso_bytes_max in [GSO_BYTES_MAX, TUNNEL_GSO_BYTES_MAX, GSO_BYTES_MAX] {
        TapPort::create(&InterfaceSpec { gso_bytes_max, ..spec(&netns) }).unwrap();
        let link = netns.ip("-d -j link show dev eth0");
        assert!(link.contains(&format!("\"gso_max_size\":{gso_bytes_max}")), "{link}");
    }
}

#[test]
fn a_device_is_born_in_the_pod_as_it_was_asked_for() {
    let netns = TestNetns::new();
    let port = TapPort::create(&spec(&netns)).unwrap();
    assert_eq!(
        (port.caps(), port.queues(), port.interface().netns_id()),
        (PortCaps::ALL, 1, Some(netns.handle().id()))
    );
    let link = netns.ip("-d -j link show dev eth0");
    for part in ["\"address\":\"02:00:0a:f4:01:0a\"", "\"mtu\":1450", "\"UP\"", "\"persist\":true", "\"type\":\"tap\""]
    {
        assert!(link.contains(part), "{part} in {link}");
    }
    assert!(link.contains(&format!("\"gso_max_size\":{GSO_BYTES_MAX}")), "{link}");
    let addresses = netns.ip("addr show dev eth0 scope global");
    assert!(addresses.contains("10.244.1.10/24 brd 10.244.1.255"), "{addresses}");
    assert!(addresses.contains("fd00:244:1::a/64") && !addresses.contains("tentative"), "{addresses}");
    assert!(netns.ip("route show default").contains("default via 10.244.1.1 dev eth0"));
    assert!(netns.ip("-6 route show default").contains("default via fd00:244:1::1 dev eth0"));
    assert!(netns.ip("link show dev lo").contains("LOOPBACK,UP"));
}

#[test]
fn an_address_without_a_subnet_still_reaches_its_gateway() {
    let netns = TestNetns::new();
    let mut spec = spec(&netns);
    spec.addresses = vec!["10.244.1.10/32".parse().unwrap(), "fd00:244:1::a/128".parse().unwrap()];
    let _port = TapPort::create(&spec).unwrap();
    assert!(netns.ip("route get 192.0.2.1").contains("via 10.244.1.1 dev eth0"));
    assert!(netns.ip("-6 route get 2001:db8::1").contains("via fd00:244:1::1 dev eth0"));
}

#[test]
fn a_device_survives_its_port_and_is_attached_again_unchanged() {
    let netns = TestNetns::new();
    let index = TapPort::create(&spec(&netns)).unwrap().interface().index();
    let again = TapPort::create(&spec(&netns)).unwrap();
    assert_eq!(again.interface().index(), index);
    let addresses = netns.ip("-o addr show dev eth0 scope global");
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
    assert!(netns.ip("route get 192.0.2.1").contains("via 10.244.1.1 dev eth0"));
    assert!(netns.ip("-6 route get 2001:db8::1").contains("via fd00:244:1::1 dev eth0"));
    again.interface().set_mtu(1_400).unwrap();
    assert!(netns.ip("link show dev eth0").contains("mtu 1400"));
}

/// Addresses of the pod's interface and whether they bear podwire's mark, link-local ones included.
fn addresses(netns: &TestNetns) -> Vec<(String, bool)> {
    let all = netns.enter(|| {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link("eth0").unwrap().index;
        netlink.addresses().unwrap().into_iter().filter(|at| at.index == index).collect::<Vec<_>>()
    });
    let mut all: Vec<_> = all.into_iter().map(|at| (at.address.to_string(), at.ours)).collect();
    all.sort();
    all
}

fn expected(addresses: &[(&str, bool)]) -> Vec<(String, bool)> {
    let mut all: Vec<_> = addresses.iter().map(|&(address, ours)| (address.to_owned(), ours)).collect();
    all.sort();
    all
}

/// The link-local address that derives from [`MAC`].
const LINK_LOCAL: (&str, bool) = ("fe80::aff:fef4:10a/64", false);

#[test]
fn a_device_that_is_attached_again_loses_what_podwire_gave_it_and_keeps_what_others_did() {
    let netns = TestNetns::new();
    drop(TapPort::create(&spec(&netns)).unwrap());
    netns.ip("addr add 10.244.1.99/24 dev eth0");
    netns.ip("addr add fd00:99::1/64 dev eth0 nodad");
    netns.ip("route add 10.9.0.0/16 via 10.244.1.2 dev eth0");
    let others = [("10.244.1.99/24", false), ("fd00:99::1/64", false), LINK_LOCAL];
    let first = [("10.244.1.10/24", true), ("fd00:244:1::a/64", true)];
    assert_eq!(addresses(&netns), expected(&[&first[..], &others].concat()));
    // Another address, and another prefix length of one.
    let mut changed = spec(&netns);
    changed.addresses = vec!["10.244.1.20/24".parse().unwrap(), "fd00:244:1::a/80".parse().unwrap()];
    drop(TapPort::create(&changed).unwrap());
    let second = [("10.244.1.20/24", true), ("fd00:244:1::a/80", true)];
    assert_eq!(addresses(&netns), expected(&[&second[..], &others].concat()));
    assert!(netns.ip("route show").contains("10.9.0.0/16 via 10.244.1.2"), "a route of others stays");
    assert!(netns.ip("route get 192.0.2.1").contains("via 10.244.1.1 dev eth0"));
    // A family that goes takes its default route along.
    changed.addresses.truncate(1);
    changed.gateways.truncate(1);
    drop(TapPort::create(&changed).unwrap());
    assert_eq!(addresses(&netns), expected(&[&second[..1], &others].concat()));
    assert_eq!(netns.ip("-6 route show default"), "");
}

#[test]
fn a_device_with_another_mac_has_its_link_local_address_too() {
    let netns = TestNetns::new();
    drop(TapPort::create(&spec(&netns)).unwrap());
    let port = TapPort::create(&InterfaceSpec { mac: PEER_MAC, ..spec(&netns) }).unwrap();
    let all = [("10.244.1.10/24", true), ("fd00:244:1::a/64", true), ("fe80::aff:fef4:10b/64", false)];
    assert_eq!(addresses(&netns), expected(&all));
    assert!(netns.ip("-6 route get 2001:db8::1").contains("via fd00:244:1::1 dev eth0"));
    drop(port);
}

#[test]
fn a_ping_from_the_pod_is_received_and_its_answer_taken() {
    let netns = TestNetns::new();
    let port = TapPort::create(&spec(&netns)).unwrap();
    netns.ip("neigh add 10.244.1.1 lladdr 02:00:00:00:00:01 dev eth0");
    let mut ping = netns.enter(|| {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "5", "10.244.1.1"]).stdout(std::process::Stdio::null()).spawn().unwrap()
    });
    let (mut rx, mut tx) = (port.rx(0), port.tx(0));
    let mut frame = receive(&mut rx, |frame| is_ipv4(frame, 1));
    let bytes = frame.bytes_mut();
    let (dst, src): ([u8; 6], [u8; 6]) = (bytes[..6].try_into().unwrap(), bytes[6..12].try_into().unwrap());
    assert_eq!((dst, src), ([2, 0, 0, 0, 0, 1], MAC.0));
    bytes[..6].copy_from_slice(&src);
    bytes[6..12].copy_from_slice(&dst);
    let (from, to): ([u8; 4], [u8; 4]) = (bytes[26..30].try_into().unwrap(), bytes[30..34].try_into().unwrap());
    bytes[26..30].copy_from_slice(&to);
    bytes[30..34].copy_from_slice(&from);
    let field = u16::from_be_bytes([bytes[36], bytes[37]]);
    bytes[34] = 0;
    bytes[36..38].copy_from_slice(&checksum::update(field, 0x0800, 0).to_be_bytes());
    tx.tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
    assert!(ping.wait().unwrap().success());
}

/// Two pods whose neighbours are set, so that only what the test sends passes.
struct TwoPods {
    from: TestNetns,
    to: TestNetns,
    ports: [TapPort; 2],
}

impl TwoPods {
    fn new(queues: usize) -> Self {
        let (from, to) = (TestNetns::new(), TestNetns::new());
        let peer = InterfaceSpec {
            netns: Some(to.path()),
            mac: PEER_MAC,
            addresses: vec!["10.244.1.11/24".parse().unwrap()],
            gateways: vec![],
            ..spec(&from)
        };
        let ports = [
            TapPort::open(&spec(&from), queues, TapOffloads::ALL).unwrap(),
            TapPort::open(&peer, queues, TapOffloads::ALL).unwrap(),
        ];
        from.ip(&format!("neigh add 10.244.1.11 lladdr {PEER_MAC} dev eth0"));
        Self { from, to, ports }
    }

    fn sockets(&self) -> (UdpSocket, UdpSocket) {
        let open = |address: &str, role| UdpSocket::open(address.parse().unwrap(), role, QUEUE_BYTES).unwrap();
        let sender = self.from.enter(|| open("10.244.1.10:0", Role::Send));
        let receiver = self.to.enter(|| open("10.244.1.11:7777", Role::Receive));
        receiver.enable_merging().unwrap();
        (sender, receiver)
    }
}

fn options(segment: Option<u16>) -> SendOptions {
    SendOptions { remote: SocketAddr::new(Ipv4Addr::new(10, 244, 1, 11).into(), 7_777), tos: 0, segment }
}

#[test]
fn a_super_frame_crosses_from_pod_to_pod_in_one_piece() {
    let pods = TwoPods::new(1);
    let (sender, receiver) = pods.sockets();
    let payload: Vec<u8> = (0..10_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    sender.send(&[IoSlice::new(&payload)], &options(Some(1_000))).unwrap();
    let mut frame = receive(&mut pods.ports[0].rx(0), |frame| is_ipv4(frame, 17));
    assert_eq!(frame.len(), 14 + 20 + 8 + payload.len());
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 34, offset: 6 });
    let gso = frame.offload.gso.as_mut().unwrap();
    assert_eq!((gso.kind, gso.size), (GsoKind::Udp, 1_000));
    gso.header_len = 42;
    pods.ports[1].tx(0).tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
    let mut buffers = ReceiveBuffers::new();
    assert_eq!(receiver.recv_many(&mut buffers, 9), Ok(1));
    let (datagram, bytes) = buffers.datagram(0);
    assert_eq!((datagram.segment, bytes), (1_000, &payload[..]));
}

#[test]
fn packets_that_were_cut_are_written_one_by_one() {
    let pods = TwoPods::new(1);
    let (sender, receiver) = pods.sockets();
    sender.send(&[IoSlice::new(b"abcdef")], &options(None)).unwrap();
    let frame = receive(&mut pods.ports[0].rx(0), |frame| is_ipv4(frame, 17));
    // Two packets of three bytes each, without a UDP checksum.
    let mut headers = frame.bytes()[..42].to_vec();
    headers[16..18].copy_from_slice(&31_u16.to_be_bytes());
    headers[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&headers[14..34]));
    headers[24..26].copy_from_slice(&sum.to_be_bytes());
    headers[38..42].copy_from_slice(&[0, 11, 0, 0]);
    let list = [Piece { header: (0, 42), payload: (42, 3) }, Piece { header: (0, 42), payload: (45, 3) }];
    let pieces = Some(Pieces { headers: &headers, list: &list });
    pods.ports[1].tx(0).tx(&Outgoing { frame: &frame, pieces, encap: None }).unwrap();
    let mut buffers = ReceiveBuffers::new();
    assert_eq!(receiver.recv_many(&mut buffers, 9), Ok(2));
    assert_eq!((buffers.datagram(0).1, buffers.datagram(1).1), (&b"abc"[..], &b"def"[..]));
}

#[test]
fn a_device_of_several_queues_delivers_each_frame_on_one_of_them() {
    let pods = TwoPods::new(2);
    let (sender, _receiver) = pods.sockets();
    assert_eq!(pods.ports[0].queues(), 2);
    for _ in 0..20 {
        sender.send(&[IoSlice::new(b"abc")], &options(None)).unwrap();
    }
    let (mut pool, mut count) = (FramePool::new(64), 0);
    for queue in 0..2 {
        let mut batch = Batch::new();
        assert_eq!(pods.ports[0].rx(queue).rx(&mut pool, &mut batch, 64), RxStatus::Drained);
        count += batch.items().iter().filter(|item| is_ipv4(&item.frame, 17)).count();
        batch.recycle(&mut pool);
    }
    assert_eq!(count, 20);
}

#[test]
fn the_budget_and_the_pool_bound_what_is_received_and_lose_nothing() {
    let pods = TwoPods::new(1);
    let (sender, _receiver) = pods.sockets();
    let mut rx = pods.ports[0].rx(0);
    let (mut pool, mut seen) = (FramePool::new(2), 0);
    for _ in 0..9 {
        sender.send(&[IoSlice::new(b"abc")], &options(None)).unwrap();
    }
    for budget in (1..9).cycle() {
        let mut batch = Batch::new();
        let status = rx.rx(&mut pool, &mut batch, budget);
        assert!(batch.len() <= budget.min(2));
        seen += batch.items().iter().filter(|item| is_ipv4(&item.frame, 17)).count();
        batch.recycle(&mut pool);
        if status == RxStatus::Drained {
            break;
        }
    }
    assert_eq!((seen, pool.free()), (9, 2));
}

#[test]
fn a_removed_device_closes_its_halves() {
    let netns = TestNetns::new();
    let port = TapPort::create(&spec(&netns)).unwrap();
    let (mut rx, mut tx) = (port.rx(0), port.tx(0));
    let mut frame = Frame::new();
    frame.fill(&[0xff; 60]);
    port.remove().unwrap();
    assert!(!netns.ip("link show").contains("eth0"));
    let (mut pool, mut batch) = (FramePool::new(1), Batch::new());
    assert_eq!(rx.rx(&mut pool, &mut batch, 1), RxStatus::Closed);
    assert_eq!(tx.tx(&Outgoing { frame: &frame, pieces: None, encap: None }), Err(TxError::Down));
    assert_eq!(pool.free(), 1);
}

#[test]
fn a_device_that_is_down_says_so_and_one_that_vanished_can_still_be_removed() {
    let netns = TestNetns::new();
    let port = TapPort::create(&spec(&netns)).unwrap();
    let mut frame = Frame::new();
    frame.fill(&[0xff; 60]);
    let out = Outgoing { frame: &frame, pieces: None, encap: None };
    netns.ip("link set eth0 down");
    assert_eq!(port.tx(0).tx(&out), Err(TxError::Down));
    netns.ip("link set eth0 up");
    assert_eq!(port.tx(0).tx(&out), Ok(()));
    frame.set_len(3);
    let short = Outgoing { frame: &frame, pieces: None, encap: None };
    assert_eq!(port.tx(0).tx(&short), Err(TxError::Refused), "no Ethernet frame");
    netns.ip("link del eth0");
    port.remove().unwrap();
}

#[test]
fn the_host_device_routes_the_cluster_with_the_gateway_as_source() {
    let netns = TestNetns::new();
    netns.enter(|| {
        let mut spec = InterfaceSpec::new(None, "podwire0", MAC, 1_450);
        spec.addresses = vec!["10.244.1.1/32".parse().unwrap(), "fd00:244:1::1/128".parse().unwrap()];
        let route = |prefix: &str, prefsrc: &str| InterfaceRoute {
            prefix: prefix.parse().unwrap(),
            prefsrc: Some(prefsrc.parse().unwrap()),
        };
        let port = TapPort::create(&spec).unwrap();
        let routes = [route("10.244.0.0/16", "10.244.1.1"), route("fd00:244::/32", "fd00:244:1::1")];
        port.interface().sync_routes(&routes).unwrap();
        let v4 = netns.ip("route get 10.244.2.10");
        assert!(v4.contains("dev podwire0 src 10.244.1.1"), "{v4}");
        let v6 = netns.ip("-6 route get fd00:244:2::a");
        assert!(v6.contains("dev podwire0") && v6.contains("src fd00:244:1::1"), "{v6}");
        port.interface().sync_routes(&routes[1..]).unwrap();
        assert!(!netns.ip("route show").contains("10.244.0.0/16"));
    });
}

#[test]
fn a_set_up_that_fails_leaves_nothing_behind_and_says_what_it_tried() {
    let netns = TestNetns::new();
    let mut spec = spec(&netns);
    spec.routes = vec![InterfaceRoute { prefix: "10.0.0.0/8".parse().unwrap(), prefsrc: Some([10, 9, 9, 9].into()) }];
    let error = TapPort::create(&spec).unwrap_err().to_string();
    assert!(error.contains("interface eth0: cannot add a route to 10.0.0.0/8"), "{error}");
    assert!(!netns.ip("link show").contains("eth0"));
}

#[test]
fn another_device_of_the_name_is_left_alone() {
    let netns = TestNetns::new();
    netns.ip("link add eth0 type veth peer name eth1");
    let error = TapPort::create(&spec(&netns)).unwrap_err();
    assert!(
        matches!(&error, TapPortError::Interface(InterfaceError::OtherDevice { kind, .. }) if kind == "veth"),
        "{error}"
    );
    assert!(netns.ip("link show").contains("eth0"));
}

#[test]
fn neighbours_are_remembered_while_nobody_has_the_device_open() {
    let netns = TestNetns::new();
    let spec = spec(&netns);
    let port = TapPort::create(&spec).unwrap();
    let known = |family: &str| netns.ip(&format!("{family} neigh show dev {}", spec.ifname));
    netns.ip(&format!("neigh replace 10.244.1.77 lladdr 02:00:00:00:00:77 dev {} nud stale", spec.ifname));
    netns.ip(&format!("neigh replace fd00:244:1::77 lladdr 02:00:00:00:00:77 dev {} nud stale", spec.ifname));
    drop(port);
    let began = mono_now();
    while !netns.ip(&format!("link show dev {}", spec.ifname)).contains("state DOWN") {
        assert!(mono_now().since(began) < 5_000_000_000, "the kernel tells of the lost carrier");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for family in ["-4", "-6"] {
        assert!(known(family).contains("02:00:00:00:00:77"), "{family}: {}", known(family));
    }
}
