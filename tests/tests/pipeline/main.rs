//! The pipeline, case by case: these bytes in, exactly those bytes out, and the one outcome counted.
//!
//! Each case runs the real engine over memory ports. `check` compares everything: what left every port with its
//! offload and tunnel, the outcome of the frame, and the events. Entropy is compared by the one case that is about it.
#![forbid(unsafe_code)]

mod bridge;
mod decap;
mod encap;
mod guard;
mod icmp;
mod limit;
mod offload;
mod parse;
mod resolve;
mod route;
mod transmit;

use std::collections::BTreeMap;
use std::net::IpAddr;

use podwire_control::model::{Mac, Vni};
use podwire_tests::packet::vxlan;
use podwire_tests::sim::{FLOW_EVENTS, SimSwitch, peer_of_plan, planned_spec};
use podwire_tests::{NodePlan, plan};
use podwire_vswitch::frame::{Encap, Outer};
use podwire_vswitch::id::VtepId;
use podwire_vswitch::port::memory::MemoryFrame;
use podwire_vswitch::stats::{Event, Totals};

/// Both families, for cases that hold for either.
const FAMILIES: [bool; 2] = [false, true];
/// A node that no pod belongs to.
const OUTSIDE4: &str = "192.0.2.7";
const OUTSIDE6: &str = "2001:db8::7";

/// Node 1 of the plan with pods `a` (host number 10) and `b` (11), knowing node 2.
fn node() -> SimSwitch {
    let mut switch = SimSwitch::planned(1);
    switch.pod("a", &NodePlan(1).pod(10)).pod("b", &NodePlan(1).pod(11));
    switch.state(peer_of_plan(NodePlan(2)));
    switch
}

/// An address of a pod of the plan.
fn address(node: u8, host: u8, v6: bool) -> IpAddr {
    plan::of_family(&NodePlan(node).pod(host), v6)
}

/// An address outside the cluster.
fn outside(v6: bool) -> IpAddr {
    if v6 { ip(OUTSIDE6) } else { ip(OUTSIDE4) }
}

/// The underlay address of a node.
fn underlay(node: u8, v6: bool) -> IpAddr {
    plan::of_family(&NodePlan(node).underlay(), v6)
}

/// The MAC of a pod of the plan.
fn mac_of(node: u8, host: u8) -> Mac {
    Mac::of_ip(address(node, host, false))
}

fn a() -> Mac {
    mac_of(1, 10)
}

fn b() -> Mac {
    mac_of(1, 11)
}

/// The gateway of node 1.
fn gateway() -> Mac {
    planned_spec(NodePlan(1)).gateway_mac()
}

/// The VTEP of a node.
fn vtep(node: u8) -> Mac {
    planned_spec(NodePlan(node)).vtep_mac()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A stranger's MAC.
fn stranger(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

/// A frame without IP, padded to the shortest Ethernet frame.
fn plain(dst: Mac, src: Mac) -> Vec<u8> {
    [&dst.0[..], &src.0, &[0x88, 0xb5], &[0x55; 46]].concat()
}

fn frame(bytes: impl Into<Vec<u8>>) -> MemoryFrame {
    MemoryFrame::new(bytes)
}

/// A frame that left by the tunnel to node 2 over this family of underlay.
fn tunnelled(frame: MemoryFrame, over_v6: bool, tos: u8) -> MemoryFrame {
    let vni = Vni::try_from(plan::VNI).expect("a VNI");
    MemoryFrame { encap: Some(Encap { vtep: VtepId(0), remote: underlay(2, over_v6), vni, tos, entropy: 0 }), ..frame }
}

/// A datagram from node 2 over IPv4 with the cluster's VNI.
fn from_node2(inner: &[u8]) -> MemoryFrame {
    datagram(2, plan::VNI, 0, inner)
}

fn datagram(node: u8, vni: u32, tos: u8, inner: &[u8]) -> MemoryFrame {
    frame(vxlan(vni, inner)).with_outer(Outer { remote: underlay(node, false), tos })
}

/// Injects a frame, and holds what comes out and what is counted to the expectation. A flood is expected to count a
/// copy for each frame that leaves, and a drop to have originated what leaves.
#[track_caller]
fn check(switch: &mut SimSwitch, (port, input): (&str, MemoryFrame), outcome: &str, out: &[(&str, MemoryFrame)]) {
    check_events(switch, (port, input), outcome, out, &[]);
}

/// As `check`, with events that are counted beside.
#[track_caller]
fn check_events(
    switch: &mut SimSwitch,
    (port, input): (&str, MemoryFrame),
    outcome: &str,
    out: &[(&str, MemoryFrame)],
    events: &[(Event, u64)],
) {
    let before = switch.totals();
    switch.inject(port, input);
    assert_eq!(switch.run(), 1, "one frame is received");
    let after = switch.totals();
    assert_eq!(outcomes(&before, &after), [(outcome.to_owned(), 1)], "outcome");

    let mut expected: BTreeMap<&str, u64> = events.iter().map(|(event, count)| (event.name(), *count)).collect();
    if !out.is_empty() && outcome == "flood" {
        expected.insert(Event::FloodCopies.name(), out.len() as u64);
    } else if !out.is_empty() && outcome.starts_with("drop:") {
        expected.insert(Event::Originated.name(), 1);
    }
    let counted = |event: Event| (event.name(), after.event(event) - before.event(event));
    let counted: BTreeMap<&str, u64> =
        Event::ALL.iter().filter(|event| !FLOW_EVENTS.contains(event)).map(|&event| counted(event)).collect();
    let counted: BTreeMap<&str, u64> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, expected, "events");

    let mut wanted: BTreeMap<String, Vec<MemoryFrame>> = BTreeMap::new();
    for (port, frame) in out {
        wanted.entry((*port).to_owned()).or_default().push(frame.clone());
    }
    assert_eq!(shown(&taken(switch)), shown(&wanted), "frames sent");
}

/// What all ports sent, without entropy.
fn taken(switch: &SimSwitch) -> BTreeMap<String, Vec<MemoryFrame>> {
    let mut all = switch.take_all();
    all.values_mut().flatten().filter_map(|frame| frame.encap.as_mut()).for_each(|encap| encap.entropy = 0);
    all
}

/// In hex, so that two that differ can be laid side by side.
fn shown(frames: &BTreeMap<String, Vec<MemoryFrame>>) -> String {
    let mut text = String::new();
    for (port, frame) in frames.iter().flat_map(|(port, frames)| frames.iter().map(move |frame| (port, frame))) {
        let hex: String = frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{port}: {hex}\n  {:?} {:?}\n", frame.offload, frame.encap);
    }
    text
}

/// Outcomes that were counted in between.
fn outcomes(before: &Totals, after: &Totals) -> Vec<(String, u64)> {
    let pairs = before.0.ports.outcomes().zip(after.0.ports.outcomes());
    let changed = pairs.map(|((outcome, was), (_, is))| (outcome.to_string(), is - was));
    changed.filter(|(_, count)| *count > 0).collect()
}
