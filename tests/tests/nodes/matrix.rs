//! The matrix: ways x family x traffic x pod MTU x super-frames, every row of it, for each kind of uplink and of pod.
//!
//! One test an MTU, on a pair of nodes of its own, whose underlay carries exactly that.

use ipnet::IpNet;
use podwire_tests::netns::{Netns, Wire};
use podwire_tests::node::{Node, NodeSpec, UplinkKind};
use podwire_tests::plan::{NodePlan, OVERHEAD4, OVERHEAD6};
use podwire_tests::pod::{POD_INTERFACE, Pod};
use podwire_tests::probe::Path;
use podwire_tests::probe::fragment::{Cut, Order, fragments};
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::tcp::transfer;
use podwire_tests::probe::udp::{exchange, train};

use super::{OTHER_POD, POD};

/// Bytes of a TCP transfer: many super-frames.
const TRANSFER_BYTES: u64 = 2_000_000;
/// Longest IP and UDP headers of the datagrams sent: IPv6 with a fragment header, rounded up to eight.
const UDP_HEADERS: u16 = 56;
const HOST_INTERFACE: &str = "podwire0";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    SameNode,
    Across,
    NodeToOwnPod,
    NodeToRemotePod,
    PodToOwnGateway,
    PodToOwnUnderlay,
    PodToRemoteGateway,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Traffic {
    Tcp,
    Udp,
    Icmp,
    FragmentsInOrder,
    FragmentsOutOfOrder,
}

use Traffic::{FragmentsInOrder, FragmentsOutOfOrder, Icmp, Tcp, Udp};
use Way::{Across, NodeToOwnPod, NodeToRemotePod, PodToOwnGateway, PodToOwnUnderlay, PodToRemoteGateway, SameNode};

const WAYS: [Way; 7] =
    [SameNode, Across, NodeToOwnPod, NodeToRemotePod, PodToOwnGateway, PodToOwnUnderlay, PodToRemoteGateway];
const TRAFFICS: [Traffic; 5] = [Tcp, Udp, Icmp, FragmentsInOrder, FragmentsOutOfOrder];

/// Families of an underlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Underlay {
    V4,
    V6,
    Dual,
}

impl Underlay {
    fn has(self, v6: bool) -> bool {
        self == Self::Dual || (self == Self::V6) == v6
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    way: Way,
    v6: bool,
    traffic: Traffic,
    mtu: u16,
    super_frames: bool,
}

/// The rows of one MTU.
fn rows(mtu: u16, underlay: Underlay) -> Vec<Row> {
    let mut rows = Vec::new();
    for super_frames in [true, false] {
        for way in WAYS {
            for v6 in [false, true] {
                // IPv6 needs 1280; and a pod can not call an underlay address of a family the underlay lacks.
                let possible = !(v6 && mtu < 1280) && (way != PodToOwnUnderlay || underlay.has(v6));
                let row = |traffic| Row { way, v6, traffic, mtu, super_frames };
                rows.extend(TRAFFICS.map(row).into_iter().filter(|_| possible));
            }
        }
    }
    rows
}

/// Kinds of the pod, its neighbour on the same node, and the one on the other.
type Kinds = [&'static str; 3];
const TAPS: Kinds = ["tap"; 3];
const VETH: &str = "veth-xdp";

/// Two nodes, two pods on the first, one on the second.
struct Fixture {
    kinds: Kinds,
    here: Node,
    there: Node,
    pod: Pod,
    neighbour: Pod,
    remote: Pod,
}

impl Fixture {
    fn new(mtu: u16, underlay: Underlay, uplink: UplinkKind, kinds: Kinds) -> Self {
        let v4_only = mtu < 1280;
        let spec = |number| {
            let mut spec = NodeSpec::planned(NodePlan(number)).receiving_by(uplink);
            spec.underlay.retain(|address| underlay.has(address.addr().is_ipv6()));
            for subnets in [&mut spec.pod_cidrs, &mut spec.cluster_cidrs] {
                subnets.retain(|subnet| !(v4_only && subnet.addr().is_ipv6()));
            }
            spec
        };
        let overhead = if underlay.has(true) { OVERHEAD6 } else { OVERHEAD4 };
        let wire = Wire { mtu: mtu + overhead, ..Wire::default() };
        let (here, there) = Node::pair_of([spec(1), spec(2)], wire);
        let pod = |node: &Node, number, host, kind| {
            let addresses: Vec<IpNet> = NodePlan(number).pod(host).to_vec();
            let kept = if v4_only { &addresses[..1] } else { &addresses[..] };
            node.pod_with(&format!("pod{number}-{host}"), kept, &["--kind", kind])
        };
        let [first, second, third] = kinds;
        let (own, neighbour) = (pod(&here, 1, POD, first), pod(&here, 1, OTHER_POD, second));
        let remote = pod(&there, 2, POD, third);
        Self { kinds, here, there, pod: own, neighbour, remote }
    }

    fn path(&self, way: Way, v6: bool) -> Path<'_> {
        let (here, there) = (NodePlan(1).gateways(), NodePlan(2).gateways());
        let between = |from, to| if v6 { Path::v6(from, to) } else { Path::v4(from, to) };
        match way {
            SameNode => between(&self.pod, &self.neighbour),
            Across => between(&self.pod, &self.remote),
            NodeToOwnPod => Path::from_node(&self.here.netns, &here, &self.pod, v6),
            NodeToRemotePod => Path::from_node(&self.here.netns, &here, &self.remote, v6),
            PodToOwnGateway => Path::from_node(&self.here.netns, &here, &self.pod, v6).reversed(),
            PodToOwnUnderlay => Path::from_node(&self.here.netns, &self.here.spec.underlay, &self.pod, v6).reversed(),
            PodToRemoteGateway => Path::from_node(&self.there.netns, &there, &self.pod, v6).reversed(),
        }
    }

    /// Switches super-frames on or off in all pods that have them, and for what the nodes themselves send.
    fn set_super_frames(&self, on: bool) {
        let pods = [&self.pod, &self.neighbour, &self.remote].into_iter().zip(self.kinds);
        let pods = pods.filter(|(_, kind)| *kind == "tap").map(|(pod, _)| (&pod.netns, POD_INTERFACE));
        let nodes = [(&self.here.netns, HOST_INTERFACE), (&self.there.netns, HOST_INTERFACE)];
        let all: Vec<(&Netns, &str)> = pods.chain(nodes).collect();
        for (netns, interface) in all {
            netns.offloads(interface, on);
        }
    }
}

/// Sends the row's traffic and says what went wrong.
fn run(path: Path<'_>, row: Row) -> Result<(), String> {
    let full = usize::from(row.mtu - UDP_HEADERS);
    match row.traffic {
        Tcp => transfer(path, TRANSFER_BYTES).map(drop).map_err(|error| error.to_string()),
        Udp => datagrams(path, row, full),
        Icmp => echoes(path, row),
        FragmentsInOrder => fragmented(path, full, Order::First),
        FragmentsOutOfOrder => {
            fragmented(path, full, Order::Last)?;
            fragmented(path, full, Order::Interleaved)
        }
    }
}

/// Small ones, full ones, ones that the sender fragments, and trains in one super-frame.
fn datagrams(path: Path<'_>, row: Row, full: usize) -> Result<(), String> {
    // Bursts of the longest must fit the receiver's socket buffer.
    for size in [1, full, full + full.min(1_500)] {
        let result = exchange(path, size, 16).map_err(|error| format!("{size} bytes: {error}"))?;
        if !result.all() {
            return Err(format!("{size} bytes: {result:?}"));
        }
    }
    if row.super_frames {
        let segment = u16::try_from(full).expect("an MTU fits");
        let bytes = (5 * full + 7).min(60_000);
        let sizes = train(path, bytes, segment).map_err(|error| format!("train: {error}"))?;
        let whole = bytes / full;
        if sizes.len() != whole + 1 || sizes[..whole].iter().any(|&size| size != full) {
            return Err(format!("a train of {bytes} bytes came as {sizes:?}"));
        }
    }
    Ok(())
}

/// One echo of exactly the MTU that may not be fragmented, and one that must be.
fn echoes(path: Path<'_>, row: Row) -> Result<(), String> {
    let long = Ping { count: 1, payload: row.mtu * 2 + 1, ..Ping::default() };
    for how in [Ping::of_ip_length(row.v6, row.mtu), long] {
        let result = ping(path, how);
        if !result.all() {
            return Err(format!("{how:?}: {}", result.text));
        }
    }
    Ok(())
}

fn fragmented(path: Path<'_>, full: usize, order: Order) -> Result<(), String> {
    let piece = full & !7;
    let cut = Cut { payload: 3 * piece + 100, piece, id: 0x4242 + order as u16 };
    match fragments(path, cut, order) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{order:?}: the datagram did not arrive whole")),
        Err(error) => Err(format!("{order:?}: {error}")),
    }
}

/// Runs the rows of one MTU; all of them, so that a failure shows its pattern.
#[track_caller]
fn check(mtu: u16, underlay: Underlay, uplink: UplinkKind) {
    check_kinds(mtu, underlay, uplink, TAPS);
}

#[track_caller]
fn check_kinds(mtu: u16, underlay: Underlay, uplink: UplinkKind, kinds: Kinds) {
    let fixture = Fixture::new(mtu, underlay, uplink, kinds);
    let rows = rows(mtu, underlay);
    let (mut super_frames, mut failures) = (true, Vec::new());
    for row in &rows {
        if row.super_frames != super_frames {
            super_frames = row.super_frames;
            fixture.set_super_frames(super_frames);
        }
        if let Err(why) = run(fixture.path(row.way, row.v6), *row) {
            failures.push(format!("{row:?}: {why}"));
        }
    }
    let drops = fixture.here.podwire(&["drops"]) + &fixture.there.podwire(&["drops"]);
    assert!(failures.is_empty(), "of {} rows failed:\n{}\n{drops}", rows.len(), failures.join("\n"));
    for node in [&fixture.here, &fixture.there] {
        assert_eq!(node.total("drop:tx_refused") + node.total("drop:uncuttable"), 0, "{}", node.spec.name);
        node.assert_every_frame_is_counted();
        if let UplinkKind::Xdp(mode) | UplinkKind::XdpBoth(mode) = uplink {
            assert_eq!(node.podwire_json(&["status"])["uplink"]["xdp"]["mode"], mode);
            assert!(node.total("xdp_rx_frames") > 0, "nothing came through AF_XDP");
            for lost in ["xdp_malformed", "xdp_checksum_errors", "xsk_rx_dropped", "xsk_rx_invalid", "xsk_tx_invalid"] {
                assert_eq!(node.total(lost), 0, "{lost} of {}", node.spec.name);
            }
            let sent = node.total("xdp_tx_packets") > 0;
            assert_eq!(sent, matches!(uplink, UplinkKind::XdpBoth(_)), "sent through AF_XDP");
        }
    }
}

// Each MTU has an underlay of another kind, so that both overheads and the mixed case come up.

#[test]
fn pods_with_an_mtu_of_576_over_an_ipv4_underlay() {
    check(576, Underlay::V4, UplinkKind::Udp);
}

#[test]
fn pods_with_an_mtu_of_1280_over_an_ipv6_underlay() {
    check(1280, Underlay::V6, UplinkKind::Udp);
}

#[test]
fn pods_with_an_mtu_of_1450_over_an_ipv4_underlay() {
    check(1450, Underlay::V4, UplinkKind::Udp);
}

#[test]
fn pods_with_an_mtu_of_1500_over_a_dual_stack_underlay() {
    check(1500, Underlay::Dual, UplinkKind::Udp);
}

#[test]
fn pods_with_an_mtu_of_9000_over_a_dual_stack_underlay() {
    check(9000, Underlay::Dual, UplinkKind::Udp);
}

#[test]
fn the_xdp_uplink_in_native_mode_with_an_mtu_of_1450() {
    check(1450, Underlay::V4, UplinkKind::Xdp("native"));
}

#[test]
fn the_xdp_uplink_in_native_mode_with_frames_of_several_slots() {
    check(9000, Underlay::Dual, UplinkKind::Xdp("native"));
}

#[test]
fn the_xdp_uplink_that_sends_too_in_native_mode() {
    check(1450, Underlay::V4, UplinkKind::XdpBoth("native"));
}

#[test]
fn the_xdp_uplink_that_sends_too_in_generic_mode_over_an_ipv6_underlay() {
    check(1280, Underlay::V6, UplinkKind::XdpBoth("generic"));
}

#[test]
fn the_xdp_uplink_that_sends_too_in_native_mode_with_frames_of_several_slots() {
    check(9000, Underlay::Dual, UplinkKind::XdpBoth("native"));
}

#[test]
fn the_xdp_uplink_that_sends_too_in_generic_mode_with_frames_of_several_slots() {
    check(9000, Underlay::Dual, UplinkKind::XdpBoth("generic"));
}

#[test]
fn the_xdp_uplink_in_generic_mode_over_an_ipv6_underlay() {
    check(1280, Underlay::V6, UplinkKind::Xdp("generic"));
}

#[test]
fn the_xdp_uplink_in_generic_mode_with_frames_of_several_slots() {
    check(9000, Underlay::Dual, UplinkKind::Xdp("generic"));
}

#[test]
fn veth_xdp_pods_talk_to_tap_pods_beside_them_and_to_their_like_on_another_node() {
    check_kinds(1450, Underlay::V4, UplinkKind::Udp, [VETH, "tap", VETH]);
}

#[test]
fn veth_xdp_pods_talk_to_their_like_beside_them_and_to_tap_pods_behind_an_xdp_uplink() {
    check_kinds(1280, Underlay::V6, UplinkKind::Xdp("native"), [VETH, VETH, "tap"]);
}

#[test]
fn veth_xdp_pods_with_their_longest_mtu() {
    check_kinds(3500, Underlay::Dual, UplinkKind::Udp, [VETH, "tap", VETH]);
}
