//! One node is podwired, the other a plain namespace with a kernel bridge and kernel VXLAN, set up as flannel does.
//!
//! The kernel judges here: what the switch sends must be right for its stack, and whatever the kernel sends must
//! arrive, on an untouched veth too, where its tunnel leaves inner checksums and super-frames unfinished.
#![allow(clippy::unwrap_used, reason = "a test")]

use podwire_tests::kernel_peer::{KernelPeer, PeerSpec};
use podwire_tests::netns::Wire;
use podwire_tests::node::{Node, NodeSpec, UplinkKind};
use podwire_tests::plan::NodePlan;
use podwire_tests::pod::Pod;
use podwire_tests::probe::Path;
use podwire_tests::probe::capture::checksums;
use podwire_tests::probe::fragment::{Cut, Order, fragments};
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::tcp::{counter, transfer};
use podwire_tests::probe::udp::{exchange, train};
use podwire_tests::underlay::join_underlay;

const POD: u8 = 10;
/// The port flannel uses, which is not the default.
const FLANNEL_PORT: u16 = 8472;
/// Bytes of a TCP transfer: long enough that a stall or a retransmission for every packet shows in its speed.
const TRANSFER_BYTES: u64 = 16_000_000;
/// Slower than this is broken, however busy the machine (a debug build here makes 0.2 to 1): when checksums or lengths
/// are wrong, each burst waits for a retransmission timer, and what is left is a hundredth of that.
const GBPS_MIN: f64 = 0.05;
/// Share of the segments of a transfer that may be sent again.
const RETRANSMITS_MAX: u64 = TRANSFER_BYTES / 1_400 / 50;
/// Times a transfer may be tried, since a machine may be busy just then.
const TRIES: usize = 3;

/// A podwired node and a kernel's, one pod each, each knowing the other.
struct Fixture {
    node: Node,
    peer: KernelPeer,
    pod: Pod,
    kernel_pod: Pod,
}

/// What differs between fixtures.
#[derive(Clone, Copy, Debug)]
struct Shape {
    wire: Wire,
    /// Whether the kernel's tunnel sends outer UDP checksums.
    outer_checksum: bool,
    /// Whether podwired does.
    our_checksum: bool,
    /// Families of the underlay.
    underlay: &'static [bool],
    /// The kernel's VNI.
    vni: u32,
    /// How podwired receives.
    uplink: UplinkKind,
}

const DUAL_STACK: &[bool] = &[false, true];

impl Default for Shape {
    fn default() -> Self {
        let (vni, uplink) = (podwire_tests::plan::VNI, UplinkKind::Udp);
        Self { wire: Wire::default(), outer_checksum: true, our_checksum: true, underlay: DUAL_STACK, vni, uplink }
    }
}

impl Fixture {
    fn new(shape: Shape) -> Self {
        let (mut spec, mut peer) = (NodeSpec::planned(NodePlan(1)), PeerSpec::planned(NodePlan(2)));
        if !shape.our_checksum {
            spec = spec.line("vxlan", "outer_checksum = false");
        }
        for underlay in [&mut spec.underlay, &mut peer.underlay] {
            underlay.retain(|address| shape.underlay.contains(&address.addr().is_ipv6()));
        }
        spec.uplink = shape.uplink;
        (spec.port, peer.port) = (FLANNEL_PORT, FLANNEL_PORT);
        (peer.vni, peer.outer_checksum, peer.underlay_mtu) = (shape.vni, shape.outer_checksum, shape.wire.mtu);
        let (mut node, peer) = (Node::new(spec), KernelPeer::new(peer));
        join_underlay((&node.netns, &node.spec.underlay), (&peer.netns, &peer.spec.underlay), shape.wire);
        node.start();
        peer.start();
        node.reach(&peer.as_remote());
        peer.reach(&node.as_remote());
        let pod = node.pod("pod", &NodePlan(1).pod(POD));
        let kernel_pod = peer.pod("kernelpod", &NodePlan(2).pod(POD));
        if matches!(shape.uplink, UplinkKind::XdpBoth(_)) {
            node.wait_for_xdp();
        }
        Self { node, peer, pod, kernel_pod }
    }

    /// Both families, both directions.
    fn paths(&self) -> [Path<'_>; 4] {
        let (v4, v6) = (Path::v4(&self.pod, &self.kernel_pod), Path::v6(&self.pod, &self.kernel_pod));
        [v4, v4.reversed(), v6, v6.reversed()]
    }

    fn mtu(&self) -> u16 {
        self.peer.spec.mtu()
    }
}

/// TCP keeps its speed and sends next to nothing again.
#[track_caller]
fn assert_tcp(path: Path<'_>) {
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let before = counter(path.from, "RetransSegs");
        let done = transfer(path, TRANSFER_BYTES).unwrap_or_else(|error| panic!("TCP to {}: {error}", path.target));
        let again = counter(path.from, "RetransSegs") - before;
        if done.gbps() >= GBPS_MIN && again <= RETRANSMITS_MAX {
            return;
        }
        tries.push(format!("{:.2} Gb/s with {again} retransmissions", done.gbps()));
    }
    panic!("TCP to {} crawls: {tries:?}", path.target);
}

/// Single datagrams of any size, and a super-frame's worth of them.
#[track_caller]
fn assert_udp(path: Path<'_>, mtu: u16) {
    let full = usize::from(mtu) - 48;
    for size in [1, full, full + 1_000] {
        let result = exchange(path, size, 32).unwrap();
        assert!(result.all(), "UDP of {size} bytes to {}: {result:?}", path.target);
    }
    let sizes = train(path, 10 * full + 5, u16::try_from(full).unwrap()).unwrap();
    let expected: Vec<usize> = [vec![full; 10], vec![5]].concat();
    assert_eq!(sizes, expected, "a train to {}", path.target);
}

#[track_caller]
fn assert_icmp(path: Path<'_>, mtu: u16) {
    let long = Ping { count: 1, payload: 4_000, ..Ping::default() };
    for how in [Ping::default(), Ping::of_ip_length(path.is_v6(), mtu), long] {
        let result = ping(path, how);
        assert!(result.all(), "{how:?} to {}: {}", path.target, result.text);
    }
}

#[track_caller]
fn assert_fragments(path: Path<'_>) {
    for (id, order) in (1..).zip(Order::ALL) {
        let cut = Cut { payload: 4_000, piece: 1_000, id };
        assert!(fragments(path, cut, order).unwrap(), "fragments {order:?} to {}", path.target);
    }
}

/// Everything, every way; nothing refused, nothing switched off.
#[track_caller]
fn check(shape: Shape) -> Fixture {
    let fixture = Fixture::new(shape);
    for path in fixture.paths() {
        assert_icmp(path, fixture.mtu());
        assert_udp(path, fixture.mtu());
        assert_fragments(path);
        assert_tcp(path);
    }
    for counter in ["drop:tx_refused", "drop:offload_invalid", "drop:l4_malformed", "drop:vxlan_not_for_us"] {
        assert_eq!(fixture.node.total(counter), 0, "{counter}");
    }
    assert_eq!(fixture.node.total("offload_disabled"), 0);
    fixture.node.assert_every_frame_is_counted();
    fixture
}

#[test]
fn on_an_untouched_veth_with_outer_checksums() {
    let fixture = check(Shape::default());
    // The kernel left checksums to a device that a veth is not.
    assert!(fixture.node.total("partial_from_wire") > 0);
}

#[test]
fn on_an_untouched_veth_without_outer_checksums() {
    let fixture = check(Shape { outer_checksum: false, ..Shape::default() });
    assert!(fixture.node.total("partial_from_wire") > 0);
}

#[test]
fn on_a_wire_without_offloads_with_outer_checksums() {
    let wire = Wire { offloads: false, ..Wire::default() };
    let fixture = check(Shape { wire, ..Shape::default() });
    // One in 65,536 right checksums is the pseudo-header's sum by chance; completing it again does it no harm.
    let (by_chance, forwarded) = (fixture.node.total("partial_from_wire"), fixture.node.total("forward"));
    assert!(by_chance * 1_000 < forwarded, "{by_chance} of {forwarded}");
}

#[test]
fn on_a_wire_without_offloads_without_outer_checksums() {
    let wire = Wire { offloads: false, ..Wire::default() };
    check(Shape { wire, outer_checksum: false, ..Shape::default() });
}

/// The kernel's tunnel leaves inner checksums to a device that is not there, and computes the outer one as if it were.
#[test]
fn by_af_xdp_in_each_copy_mode_on_an_untouched_veth() {
    for mode in ["native", "generic"] {
        let fixture = check(Shape { uplink: UplinkKind::Xdp(mode), ..Shape::default() });
        assert!(fixture.node.total("partial_from_wire") > 0);
        assert!(fixture.node.total("xdp_rx_frames") > 0, "nothing came through AF_XDP in {mode} mode");
        for lost in ["xdp_malformed", "xdp_checksum_errors", "xsk_rx_dropped", "xsk_rx_invalid"] {
            assert_eq!(fixture.node.total(lost), 0, "{lost} in {mode} mode");
        }
    }
}

/// What the switch sends has outer headers of its own; the kernel's tunnel judges them, over both families.
#[test]
fn by_af_xdp_both_ways_with_and_without_outer_checksums() {
    let by_xdp = Shape { uplink: UplinkKind::XdpBoth("native"), ..Shape::default() };
    for shape in [by_xdp, Shape { outer_checksum: false, our_checksum: false, ..by_xdp }] {
        let fixture = check(shape);
        assert!(fixture.node.total("xdp_tx_packets") > TRANSFER_BYTES / 1_450, "sent by UDP");
        assert_eq!(fixture.node.total("xsk_tx_invalid"), 0);
    }
}

#[test]
fn by_af_xdp_on_a_wire_without_offloads() {
    let wire = Wire { offloads: false, ..Wire::default() };
    let fixture = check(Shape { wire, uplink: UplinkKind::Xdp("auto"), ..Shape::default() });
    assert!(fixture.node.total("xdp_rx_frames") > 0);
    assert_eq!(fixture.node.total("xdp_checksum_errors"), 0);
}

#[test]
fn outer_checksums_are_zero_where_the_file_says_so_and_a_peer_that_knows_takes_them() {
    for our_checksum in [true, false] {
        let shape = Shape { outer_checksum: false, our_checksum, ..Shape::default() };
        let fixture = if our_checksum { Fixture::new(shape) } else { check(shape) };
        for (path, underlay) in [fixture.paths()[0], fixture.paths()[2]].into_iter().zip(&fixture.node.spec.underlay) {
            let seen = checksums(&fixture.peer.netns, underlay.addr(), FLANNEL_PORT, || {
                assert!(ping(path, Ping::default()).all(), "to {}", path.target);
            });
            assert!(!seen.is_empty() && seen.iter().all(|&field| (field != 0) == our_checksum), "{seen:x?}");
        }
        let status = fixture.node.podwire_json(&["status"]);
        let offloads = status["offloads"].as_array().unwrap();
        let segment = offloads.iter().find(|offload| offload["name"] == "udp_segment").unwrap();
        assert_eq!(segment["on"], our_checksum, "{segment}");
        assert!(our_checksum || segment["why"].as_str().unwrap().contains("vxlan.outer_checksum"), "{segment}");
    }
}

#[test]
fn over_an_ipv4_underlay_both_families_share_one_device() {
    check(Shape { underlay: &[false], ..Shape::default() });
}

#[test]
fn over_an_ipv6_underlay_both_families_share_one_device() {
    check(Shape { underlay: &[true], ..Shape::default() });
}

/// The kernel then sends what is short enough for the pod, but as super-frames whose cuts nobody knows.
#[test]
fn a_pod_with_a_smaller_mtu_than_the_tunnels_gets_segments_that_fit() {
    let fixture = Fixture::new(Shape::default());
    let small = fixture.node.pod_with("small", &NodePlan(1).pod(POD + 1), &["--mtu", "1280"]);
    for path in [Path::v4(&small, &fixture.kernel_pod), Path::v6(&small, &fixture.kernel_pod)] {
        assert_tcp(path);
        assert_tcp(path.reversed());
    }
    assert_eq!(fixture.node.total("drop:too_big"), 0);
}

#[test]
fn with_another_vni_nothing_passes_and_every_frame_is_counted() {
    let fixture = Fixture::new(Shape { vni: 7, ..Shape::default() });
    for path in fixture.paths() {
        let result = ping(path, Ping { count: 2, wait_seconds: 1, ..Ping::default() });
        assert_eq!(result.received, 0, "{} answered: {}", path.target, result.text);
    }
    // Of the kernel pod's two pings a family; what the pod sent was the kernel's to drop.
    assert!(fixture.node.total("drop:vxlan_unknown_vni") >= 4);
    fixture.node.assert_every_frame_is_counted();
}

#[test]
fn a_vtep_that_nobody_named_is_not_listened_to() {
    let fixture = Fixture::new(Shape::default());
    for cidr in NodePlan(2).pod_cidrs() {
        fixture.node.podwire(&["route", "del", &cidr.to_string()]);
    }
    fixture.node.podwire(&["vtep", "del", &fixture.peer.spec.name]);
    let path = Path::v4(&fixture.kernel_pod, &fixture.pod);
    let result = ping(path, Ping { count: 1, wait_seconds: 1, ..Ping::default() });
    assert_eq!(result.received, 0, "{}", result.text);
    assert!(fixture.node.total("drop:vxlan_unknown_vtep") >= 1);
}

/// A flannel node speaks from its subnet's network address, which its tunnel device bears.
#[test]
fn a_flannel_node_reaches_pods_from_its_subnets_first_address() {
    let fixture = Fixture::new(Shape::default());
    for (v6, cidr) in [false, true].into_iter().zip(NodePlan(2).pod_cidrs()) {
        let target = if v6 { fixture.pod.v6() } else { fixture.pod.v4() };
        let path = Path { from: &fixture.peer.netns, to: &fixture.pod.netns, source: cidr.network(), target };
        assert_icmp(path, fixture.mtu());
        assert_udp(path, fixture.mtu());
        let done = transfer(path, TRANSFER_BYTES);
        assert!(done.is_ok(), "{done:?}");
        // And the pod reaches it, as a probe of the node's health would.
        assert_icmp(path.reversed(), fixture.mtu());
    }
}

/// The nodes themselves, from their gateway addresses: a kubelet that probes a pod of the other node's kind.
#[test]
fn nodes_and_pods_of_both_kinds_reach_each_other() {
    let fixture = Fixture::new(Shape::default());
    for v6 in [false, true] {
        let node = Path::from_node(&fixture.node.netns, &NodePlan(1).gateways(), &fixture.kernel_pod, v6);
        let peer = Path::from_node(&fixture.peer.netns, &NodePlan(2).gateways(), &fixture.pod, v6);
        for path in [node, node.reversed(), peer, peer.reversed()] {
            assert_icmp(path, fixture.mtu());
            let done = transfer(path, TRANSFER_BYTES / 4);
            assert!(done.is_ok(), "from {} to {}: {done:?}", path.source, path.target);
        }
    }
}
