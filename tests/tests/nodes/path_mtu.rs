//! The underlay is narrower than the nodes think, and path MTU discovery must save what runs over it.

use podwire_tests::netns::{Netns, Wire};
use podwire_tests::node::{Node, NodeSpec, UplinkKind};
use podwire_tests::plan::{NodePlan, UNDERLAY};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::tcp::transfer;
use podwire_tests::probe::udp::{exchange, is_told_too_big};
use podwire_tests::underlay::join_through_routers;

use super::{Fixture, assert_ping};

/// Bytes sent through a connection.
const TRANSFER_BYTES: u64 = 1_000_000;
/// UDP payload that fits the pods' own MTU of 1430, but not the path.
const LONG_DATAGRAM: usize = 1_370;

/// Two nodes with links of 1500 bytes, and routers between them whose common link carries less.
fn routed(narrow: u16, uplink: UplinkKind) -> (Fixture, [Netns; 2]) {
    let node = |number| {
        let plan = NodePlan(number);
        Node::new(NodeSpec {
            underlay: plan.routed_underlay().to_vec(),
            ..NodeSpec::planned(plan).receiving_by(uplink)
        })
    };
    let (mut here, mut there) = (node(1), node(2));
    let nodes = [(&here.netns, NodePlan(1)), (&there.netns, NodePlan(2))];
    let routers = join_through_routers(nodes, Wire { mtu: narrow, ..Wire::default() });
    Node::introduce(&mut here, &mut there);
    (Fixture::new(here, there), routers)
}

fn check_rescue(fixture: &Fixture, path: Path<'_>) {
    assert_ping(path);
    let done = transfer(path, TRANSFER_BYTES);
    assert!(done.is_ok(), "TCP to {} was not saved: {done:?}", path.target);
    // The answers below come back as long as the questions, so that both ends have to be told first.
    for way in [path, path.reversed()] {
        let told = is_told_too_big(way, LONG_DATAGRAM);
        assert!(matches!(told, Ok(true)), "UDP with DF to {}: {told:?}", way.target);
    }
    // Without DF the sender's kernel fragments what it knows to be too long.
    let result = exchange(path, LONG_DATAGRAM, 8).unwrap();
    assert!(result.all(), "UDP without DF to {}: {result:?}", path.target);
    assert!(fixture.here.total("path_mtu_lowered") > 0);
}

/// What the router answers to packets from AF_XDP reaches the kernel's sockets, and the kernel's routes tell the switch.
#[test]
fn a_router_with_a_narrow_link_is_discovered_when_af_xdp_sends() {
    let (fixture, _routers) = routed(1380, UplinkKind::XdpBoth("native"));
    for node in [&fixture.here, &fixture.there] {
        node.wait_for_xdp();
    }
    for path in fixture.paths() {
        check_rescue(&fixture, path);
    }
    assert!(fixture.here.total("xdp_tx_packets") > 0);
}

#[test]
fn a_router_with_a_narrow_link_is_discovered_over_ipv4_and_ipv6() {
    let (fixture, _routers) = routed(1380, UplinkKind::Udp);
    for path in fixture.paths() {
        check_rescue(&fixture, path);
    }
    for path in fixture.paths() {
        let done = transfer(path.reversed(), TRANSFER_BYTES);
        assert!(done.is_ok(), "TCP from {} was not saved: {done:?}", path.target);
    }
}

#[test]
fn a_node_whose_own_link_is_narrowed_after_its_start_tells_its_pods() {
    let (here, there) = Node::pair(Wire::default());
    let fixture = Fixture::new(here, there);
    for path in fixture.paths() {
        let whole = ping(path, Ping::of_ip_length(path.is_v6(), 1430));
        assert!(whole.all(), "the tunnel carries 1430 bytes at first: {}", whole.text);
    }
    // Both ends: a veth drops what is longer than the receiving end's MTU.
    for node in [&fixture.here, &fixture.there] {
        node.netns.ip(&format!("link set {UNDERLAY} mtu 1380"));
    }
    for path in fixture.paths() {
        check_rescue(&fixture, path);
    }
    for path in fixture.paths() {
        let done = transfer(path.reversed(), TRANSFER_BYTES);
        assert!(done.is_ok(), "TCP from {} was not saved: {done:?}", path.target);
    }
}
