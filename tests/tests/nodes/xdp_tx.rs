//! An uplink that sends through AF_XDP follows the underlay: neighbours, next hops and routes change under traffic.

use std::thread;
use std::time::{Duration, Instant};

use podwire_tests::netns::{Netns, Wire};
use podwire_tests::node::{Node, NodeSpec, UplinkKind};
use podwire_tests::plan::{NodePlan, UNDERLAY};
use podwire_tests::probe::Path;
use podwire_tests::probe::ping::{Ping, ping};
use podwire_tests::probe::tcp::transfer;
use podwire_tests::probe::udp::exchange;

use super::{Fixture, assert_ping};

const TRANSFER_BYTES: u64 = 20_000_000;
/// A change of the underlay has to be followed within this; the probe itself takes its share.
const FOLLOWED: Duration = Duration::from_millis(1_200);

/// Nodes that send to each other through AF_XDP.
fn sending(change: impl Fn(NodeSpec) -> NodeSpec) -> Fixture {
    let spec = |number| change(NodeSpec::planned(NodePlan(number)).receiving_by(UplinkKind::XdpBoth("native")));
    let (here, there) = Node::pair_of([spec(1), spec(2)], Wire::default());
    let fixture = Fixture::new(here, there);
    for node in [&fixture.here, &fixture.there] {
        node.wait_for_xdp();
    }
    fixture
}

/// Both families, both directions.
fn all_ways(fixture: &Fixture) -> [Path<'_>; 4] {
    let [v4, v6] = fixture.paths();
    [v4, v4.reversed(), v6, v6.reversed()]
}

/// The far node's underlay address.
fn far(fixture: &Fixture) -> String {
    fixture.there.spec.underlay[0].addr().to_string()
}

#[track_caller]
fn until(patience: Duration, is: impl Fn() -> bool, seen: impl Fn() -> String) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < patience, "after {patience:?}: {}", seen());
        thread::sleep(Duration::from_millis(20));
    }
}

fn answers(path: Path<'_>) -> bool {
    ping(path, Ping { count: 1, ..Ping::default() }).all()
}

#[test]
fn two_nodes_that_send_through_af_xdp_carry_everything() {
    let fixture = sending(|spec| spec);
    for path in all_ways(&fixture) {
        assert_ping(path);
        let done = transfer(path, TRANSFER_BYTES);
        assert!(done.is_ok(), "TCP to {}: {done:?}", path.target);
        let datagrams = exchange(path, 3_000, 32).unwrap();
        assert!(datagrams.all(), "UDP to {}: {datagrams:?}", path.target);
    }
    for node in [&fixture.here, &fixture.there] {
        assert!(node.total("xdp_tx_packets") > 2 * TRANSFER_BYTES / 1_450, "sent by UDP: {:?}", node.sent_by());
        for lost in ["xsk_tx_invalid", "xdp_malformed", "xdp_checksum_errors"] {
            assert_eq!(node.total(lost), 0, "{lost}");
        }
        node.assert_every_frame_is_counted();
        let status = node.podwire_json(&["status"]);
        assert_eq!(status["uplink"]["xdp"]["tx"], "xdp");
        assert_eq!(status["uplink"]["xdp"]["tx_why"], "uplink.tx = \"xdp\"");
    }
}

#[test]
fn of_two_workers_and_one_queue_one_sends_by_udp_and_both_carry_streams() {
    let fixture = sending(|mut spec| {
        spec.cpus = Some("0-1".into());
        spec
    });
    for path in all_ways(&fixture) {
        let done = transfer(path, TRANSFER_BYTES);
        assert!(done.is_ok(), "TCP to {}: {done:?}", path.target);
    }
    let status = fixture.here.podwire_json(&["status"]);
    let why = status["uplink"]["xdp"]["tx_why"].as_str().unwrap();
    assert!(why.starts_with("1 of 2 workers through AF_XDP"), "{why}");
}

#[test]
fn a_peer_that_gets_another_mac_is_followed_within_a_second() {
    let fixture = sending(|spec| spec);
    for (family, setting) in [("ipv4", "arp_notify"), ("ipv6", "ndisc_notify")] {
        fixture.there.netns.sysctl(&format!("net.{family}.conf.{UNDERLAY}.{setting}"), "1");
    }
    assert_ping(fixture.paths()[0]);
    for mac in ["02:00:00:00:77:01", "02:00:00:00:77:02"] {
        fixture.there.netns.ip(&format!("link set {UNDERLAY} address {mac}"));
        let wanted = ("xdp".to_owned(), format!("via {} at {mac}", far(&fixture)));
        until(FOLLOWED, || fixture.here.sent_by()[0] == wanted, || format!("{:?}", fixture.here.sent_by()));
        assert_ping(fixture.paths()[0]);
    }
}

#[test]
fn another_next_hop_is_followed_and_an_unresolved_one_or_another_device_is_left_to_udp() {
    let fixture = sending(|spec| spec.over(false));
    let (here, there, far) = (&fixture.here.netns, &fixture.there.netns, far(&fixture));
    let path = fixture.paths()[0];
    let is = |by: &str, why: &str| fixture.here.sent_by()[0].0 == by && fixture.here.sent_by()[0].1.contains(why);
    let seen = || format!("{:?}", fixture.here.sent_by());

    there.ip(&format!("addr add 172.31.0.99/24 dev {UNDERLAY}"));
    here.ip(&format!("route add {far}/32 via 172.31.0.99"));
    until(FOLLOWED, || is("xdp", "via 172.31.0.99 at "), seen);
    assert_ping(path);

    here.ip(&format!("route replace {far}/32 via 172.31.0.77"));
    until(FOLLOWED, || is("udp", "the next hop 172.31.0.77 has no known MAC address yet"), seen);
    let before = fixture.here.total("xdp_tx_packets");
    assert!(!answers(path), "nobody is there");
    assert_eq!(fixture.here.total("xdp_tx_packets"), before);

    Netns::veth((here, "second"), (there, "second"), Wire::default());
    here.ip("addr add 172.32.0.1/24 dev second");
    there.ip("addr add 172.32.0.2/24 dev second");
    here.ip(&format!("route replace {far}/32 via 172.32.0.2"));
    until(FOLLOWED, || is("udp", "its route leaves by second"), seen);
    assert_ping(path);
    assert_eq!(fixture.here.total("xdp_tx_packets"), before, "by UDP, over the other cable");

    here.ip(&format!("route del {far}/32"));
    until(FOLLOWED, || is("xdp", "via "), seen);
    assert_ping(path);
    assert!(fixture.here.total("xdp_tx_packets") > before);
    let done = transfer(path, TRANSFER_BYTES);
    assert!(done.is_ok(), "{done:?}");
}
