//! The matrix over memory ports, in full: paths x families x traffic x pod MTUs x super-frames.
//!
//! What is sent arrives byte for byte at the right port and nowhere else, with the right MACs, TTL and checksums.
//! etherparse decodes and reassembles, so that the engine is not its own judge.
#![forbid(unsafe_code)]

mod decode;
mod path;
mod traffic;

use podwire_tests::plan::{NodePlan, OVERHEAD6};
use podwire_tests::sim::{Faults, SimNet, SimPort, SimSwitch, peer_of_plan, planned_spec};
use podwire_vswitch::compile::NodeSpec;
use podwire_vswitch::port::PortCaps;

use path::Path;
use traffic::Traffic;

/// Pod MTUs. IPv6 begins at 1,280.
const MTUS: [u16; 5] = [576, 1_280, 1_450, 1_500, 9_000];

/// Two nodes with pods 10 and 11 each, on an underlay that carries the pods' MTU over either family.
fn net(mtu: u16, pods: PortCaps, uplink: PortCaps) -> SimNet {
    let node = |n: u8| {
        let spec = NodeSpec { underlay_mtu: mtu + OVERHEAD6, ..planned_spec(NodePlan(n)) };
        let mut switch = SimSwitch::new(spec);
        switch.port(SimPort::host().caps(pods).mtu(mtu)).port(SimPort::uplink().caps(uplink));
        for host in [10, 11] {
            let name = format!("pod{host}");
            switch.port(SimPort::pod(&name, &NodePlan(n).pod(host)).caps(pods).mtu(mtu));
        }
        switch.state(peer_of_plan(NodePlan(3 - n)));
        (switch, NodePlan(n).underlay().map(|address| address.addr()).to_vec())
    };
    SimNet::new(vec![node(1), node(2)], Faults::default(), 1)
}

/// Sends the traffic over the path and holds what arrives to it.
#[track_caller]
fn carry(net: &mut SimNet, path: &Path, traffic: Traffic, mtu: u16, super_frames: bool) {
    let case = format!("{} {traffic:?}, MTU {mtu}, super-frames {super_frames}", path.name);
    let sent = traffic.frames(path, mtu, super_frames);
    let (from, port) = path.from;
    for frame in &sent.frames {
        net.switch(from).inject(port, frame.clone());
    }
    net.run();

    let arrives = path.arrival(traffic);
    let (to, port) = arrives.at;
    let arrived = net.switch(to).take(port);
    for (at, frame) in arrived.iter().enumerate() {
        decode::check(frame, &arrives, mtu).unwrap_or_else(|wrong| panic!("{case}: frame {at}: {wrong}"));
    }
    let payload = decode::payload(&arrived, &arrives).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
    assert!(payload == sent.payload, "{case}: {} bytes arrived of {}", payload.len(), sent.payload.len());
    let whole = super_frames && !path.between_nodes && matches!(traffic, Traffic::Tcp | Traffic::Udp);
    let expected = if whole { 1 } else { sent.packets };
    assert_eq!(arrived.len(), expected, "{case}: frames");
    for switch in 0..2 {
        let elsewhere = net.switch(switch).take_all();
        assert!(elsewhere.is_empty(), "{case}: also sent: {:?}", elsewhere.keys());
    }
    assert_eq!(net.count().too_big, 0, "{case}: longer than the underlay carries");
}

#[test]
fn everything_arrives_everywhere_at_every_mtu_with_and_without_super_frames() {
    let mut carried = 0;
    for mtu in MTUS {
        for super_frames in [false, true] {
            let caps = if super_frames { PortCaps::ALL } else { PortCaps::NONE };
            let mut net = net(mtu, caps, PortCaps::NONE);
            for path in path::all().iter().filter(|path| !path.v6 || mtu >= 1_280) {
                for traffic in Traffic::ALL {
                    carry(&mut net, path, traffic, mtu, super_frames);
                    carried += 1;
                }
            }
        }
    }
    // Five paths, five kinds of traffic, with and without super-frames; nine pairs of family and MTU.
    assert_eq!(carried, 5 * 5 * 2 * 9);
}

#[test]
fn a_wire_that_leaves_checksums_and_segments_to_nobody_still_delivers_tcp() {
    // As kernel peers on veth send: whole super-frames in one datagram, and bare pseudo-header sums.
    for mtu in MTUS {
        for pods in [PortCaps::ALL, PortCaps::NONE] {
            let mut net = net(mtu, pods, PortCaps::ALL);
            for path in path::all().iter().filter(|path| path.between_nodes && (!path.v6 || mtu >= 1_280)) {
                let sent = Traffic::Tcp.frames(path, mtu, true);
                net.switch(0).inject(path.from.1, sent.frames[0].clone());
                net.run();
                let arrives = path.arrival(Traffic::Tcp);
                let arrived = net.switch(1).take(arrives.at.1);
                for frame in &arrived {
                    decode::check(frame, &arrives, mtu).unwrap_or_else(|wrong| panic!("{} {mtu}: {wrong}", path.name));
                }
                assert_eq!(decode::payload(&arrived, &arrives).as_ref(), Ok(&sent.payload), "{} {mtu}", path.name);
                assert_eq!(arrived.len() == 1, pods.tcp4, "{} {mtu}: {} frames", path.name, arrived.len());
            }
        }
    }
}
