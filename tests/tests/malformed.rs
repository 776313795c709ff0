//! Frames that nobody sane sends, at every port: the switch never panics, counts each once, and drops the invalid
//! ones for a named reason.
//!
//! Random cases print what failed, with the seed that makes it again (proptest). The law is checked by every run.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::net::IpAddr;

use podwire_control::model::{Mac, Object};
use podwire_tests::NodePlan;
use podwire_tests::packet::{L4, Packet, Sum, advertisement, arp, flag, solicitation, vxlan};
use podwire_tests::plan::{self, VNI};
use podwire_tests::sim::{HOST, SimPort, SimSwitch, UPLINK, bridge, peer_of_plan, planned_spec};
use podwire_vswitch::frame::{Checksum, Gso, GsoKind, Offload, Outer};
use podwire_vswitch::port::PortCaps;
use podwire_vswitch::port::memory::MemoryFrame;
use proptest::prelude::*;

/// VNI of the stretched bridge.
const STRETCHED: u32 = 100;
/// Where frames are injected: a guarded pod, an unguarded one, one on a stretched and VLAN-transparent bridge, the
/// host, and the uplink with a known sender's address.
const PORTS: [&str; 5] = ["a", "wild", "wide", HOST, UPLINK];

/// Node 1 with every kind of port, some of which take no offloads, and narrow ones.
fn node() -> SimSwitch {
    let mut switch = SimSwitch::planned(1);
    switch.state(peer_of_plan(NodePlan(2)));
    let mut lan = bridge("lan", Some(STRETCHED), &["node2"]);
    lan.vlan_transparent = true;
    switch.state([Object::Bridge(lan)]);
    switch.pod("a", &NodePlan(1).pod(10));
    switch.port(SimPort::pod("wild", &NodePlan(1).pod(11)).unguarded().caps(PortCaps::NONE).mtu(1_280));
    for name in ["wide", "wider"] {
        switch.port(SimPort::pod(name, &[]).unguarded().bridge("lan").mtu(1_450));
    }
    switch
}

fn address(node: u8, host: u8, v6: bool) -> IpAddr {
    plan::of_family(&NodePlan(node).pod(host), v6)
}

fn pod(host: u8) -> Mac {
    Mac::of_ip(address(1, host, false))
}

fn gateway() -> Mac {
    planned_spec(NodePlan(1)).gateway_mac()
}

fn vtep(node: u8) -> Mac {
    planned_spec(NodePlan(node)).vtep_mac()
}

/// One frame of each kind the switch reads, as pod `a` may send them.
fn sound() -> Vec<MemoryFrame> {
    let mut frames = Vec::new();
    for v6 in [false, true] {
        let own = address(1, 10, v6);
        for dst in [address(1, 11, v6), address(2, 10, v6), address(1, 1, v6), address(1, 77, v6)] {
            let payload = vxlan(VNI, &Packet::udp(own, dst, b"nested").macs(vtep(1), vtep(2)).bytes());
            let packets = [
                Packet::udp(own, dst, &payload),
                Packet::tcp(own, dst, 7, flag::ACK, &[7; 33]),
                Packet::echo_request(own, dst, &[7; 21]),
                Packet { fragment: Some((8, true)), ..Packet::new(own, dst, L4::Raw { protocol: 17 }, &[7; 64]) },
                Packet::udp(own, dst, &[7; 20]).sum(Sum::Partial),
                Packet { options: vec![7, 7, 4, 0, 0, 0, 0, 1], ..Packet::udp(own, dst, &[7; 9]) },
                Packet::udp(own, dst, &[7; 8]).vlan(9),
            ];
            frames.extend(packets.map(|packet| packet.macs(gateway(), pod(10)).frame()));
            let long = Packet::tcp(own, dst, 7, flag::ACK | flag::PSH, &[7; 4_000]).macs(gateway(), pod(10));
            frames.push(long.super_frame(1_200));
        }
    }
    let (own, other) = (address(1, 10, true), address(1, 11, true));
    frames.push(solicitation(own, other, Some(pod(10))).frame());
    frames.push(advertisement(own, other, 0x60, own, pod(10)).macs(pod(11), pod(10)).frame());
    let (own, other) = (address(1, 10, false), address(1, 11, false));
    frames.push(MemoryFrame::new(arp(Mac::BROADCAST, 1, (pod(10), own), (Mac::ZERO, other))));
    frames
}

/// Injects the frame at a port (as a datagram of node 2's at the uplink), and runs. The names of the outcomes.
fn outcome(switch: &mut SimSwitch, port: &str, frame: &MemoryFrame, vni: u32) -> String {
    let frame = if port == UPLINK {
        let outer = Outer { remote: plan::of_family(&NodePlan(2).underlay(), false), tos: 2 };
        MemoryFrame::new(vxlan(vni, &frame.bytes)).with_outer(outer)
    } else {
        frame.clone()
    };
    raw_outcome(switch, port, frame)
}

fn raw_outcome(switch: &mut SimSwitch, port: &str, frame: MemoryFrame) -> String {
    let before = switch.totals();
    switch.inject(port, frame);
    assert_eq!(switch.run(), 1);
    drop(switch.take_all());
    let after = switch.totals();
    let pairs = before.0.ports.outcomes().zip(after.0.ports.outcomes());
    let mut ended = pairs.filter(|((_, was), (_, is))| is > was).map(|((outcome, _), _)| outcome.to_string());
    let first = ended.next().expect("the law holds");
    assert_eq!(ended.next(), None, "beside {first}");
    first
}

#[test]
fn a_frame_cut_anywhere_inside_its_headers_or_packet_is_dropped_by_name() {
    let mut switch = node();
    for frame in sound() {
        for port in PORTS {
            for len in 0..frame.bytes.len() {
                // Of a long frame every byte near its headers, and some of the rest.
                if len > 200 && len % 97 != 0 {
                    continue;
                }
                let cut = MemoryFrame { bytes: frame.bytes[..len].to_vec(), ..frame.clone() };
                for vni in [VNI, STRETCHED] {
                    let ended = outcome(&mut switch, port, &cut, vni);
                    let dropped = ended.starts_with("drop:");
                    assert!(dropped, "{len} of {} bytes at {port} ended in {ended}", frame.bytes.len());
                }
            }
        }
        switch.advance(std::time::Duration::from_secs(1));
    }
}

#[test]
fn a_datagram_cut_anywhere_is_dropped_by_name() {
    let mut switch = node();
    let outer = Outer { remote: plan::of_family(&NodePlan(2).underlay(), true), tos: 0 };
    for v6 in [false, true] {
        let packet = Packet::tcp(address(2, 10, v6), address(1, 10, v6), 1, 0, &[7; 50]).macs(vtep(1), vtep(2));
        let whole = vxlan(VNI, &packet.bytes());
        for len in 0..whole.len() {
            let ended = raw_outcome(&mut switch, UPLINK, MemoryFrame::new(&whole[..len]).with_outer(outer));
            assert!(ended.starts_with("drop:"), "{len} bytes ended in {ended}");
        }
        assert_eq!(raw_outcome(&mut switch, UPLINK, MemoryFrame::new(whole).with_outer(outer)), "forward");
    }
}

#[test]
fn absurd_lengths_in_any_header_never_carry_the_switch_beyond_the_frame() {
    let mut switch = node();
    for frame in sound() {
        for port in PORTS {
            for at in 12..frame.bytes.len().min(90) - 1 {
                for value in [0_u16, 1, 7, 0x7fff, 0xffff] {
                    let mut absurd = frame.clone();
                    absurd.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
                    outcome(&mut switch, port, &absurd, VNI);
                }
            }
        }
        switch.advance(std::time::Duration::from_secs(1));
    }
}

#[test]
fn self_addressed_loops_end() {
    let own = |v6| address(1, 10, v6);
    for v6 in [false, true] {
        for (port, expected) in [("a", "drop:martian"), ("wild", "drop:martian")] {
            let host = if port == "a" { 10 } else { 11 };
            let address = address(1, host, v6);
            let packet = Packet::udp(address, address, b"me").macs(gateway(), pod(host));
            assert_eq!(outcome(&mut node(), port, &packet.frame(), VNI), expected);
            let bridged = packet.macs(pod(host), pod(host));
            assert_eq!(outcome(&mut node(), port, &bridged.frame(), VNI), "drop:hairpin");
        }
        // In the gateway's name, to the gateway.
        let gateway_ip = address(1, 1, v6);
        for src in [gateway(), pod(11)] {
            let packet = Packet::echo_request(gateway_ip, gateway_ip, b"me").macs(gateway(), src);
            assert_eq!(outcome(&mut node(), "wild", &packet.frame(), VNI), "drop:martian");
        }
        let packet = Packet::echo_request(own(v6), gateway_ip, b"me").macs(gateway(), gateway());
        assert_eq!(outcome(&mut node(), "a", &packet.frame(), VNI), "drop:spoofed_mac");
        // The node to itself through the switch.
        let packet = Packet::udp(gateway_ip, address(1, 0, v6), b"me").macs(vtep(1), gateway());
        assert_eq!(outcome(&mut node(), HOST, &packet.frame(), VNI), "drop:no_such_pod");
        // Our own packets, back from the tunnel.
        let packet = Packet::udp(own(v6), address(2, 10, v6), b"me").macs(vtep(1), vtep(1));
        assert_eq!(outcome(&mut node(), UPLINK, &packet.frame(), VNI), "drop:tunnel_to_tunnel");
    }
}

#[test]
fn tunnels_in_tunnels_stay_payload_however_deep() {
    let mut bytes = Packet::udp(address(2, 10, false), address(1, 10, false), b"core").macs(vtep(1), vtep(2)).bytes();
    for _ in 0..20 {
        let packet = Packet {
            l4: L4::Udp { src: 4_789, dst: plan::VXLAN_PORT },
            ..Packet::udp(address(2, 10, false), address(1, 10, false), &vxlan(VNI, &bytes))
        };
        bytes = packet.macs(vtep(1), vtep(2)).bytes();
        if bytes.len() < 1_400 {
            assert_eq!(outcome(&mut node(), UPLINK, &MemoryFrame::new(bytes.clone()), VNI), "forward");
        }
    }
}

thread_local! {
    /// One switch for all random cases: what it has learned makes the next case a harder one.
    static SWITCH: RefCell<SimSwitch> = RefCell::new(node());
}

fn on_the_switch(port: usize, frame: &MemoryFrame, vni: u32, raw: bool) {
    SWITCH.with_borrow_mut(|switch| {
        let port = PORTS[port % PORTS.len()];
        switch.advance(std::time::Duration::from_millis(1));
        if raw {
            raw_outcome(switch, port, frame.clone())
        } else {
            outcome(switch, port, frame, vni)
        };
    });
}

fn any_offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Unknown),
        Just(Checksum::Good),
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        prop_oneof![Just(34_u16), Just(54), Just(38), Just(58)]
            .prop_flat_map(|start| (Just(start), prop_oneof![Just(2_u16), Just(6), Just(16)]))
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop_oneof![Just(GsoKind::Tcp4), Just(GsoKind::Tcp6), Just(GsoKind::Udp)];
    let gso = (kind, any::<u16>(), any::<u16>()).prop_map(|(kind, size, header_len)| Gso { kind, size, header_len });
    (checksum, prop::option::weighted(0.3, gso)).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

fn a_vni() -> impl Strategy<Value = u32> {
    prop_oneof![Just(VNI), Just(STRETCHED), 0..0x0100_0000_u32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_survived(
        port: usize, bytes in prop::collection::vec(any::<u8>(), 0..300), offload in any_offload(), vni in a_vni(), raw: bool,
    ) {
        on_the_switch(port, &MemoryFrame::new(bytes).with_offload(offload), vni, raw);
    }

    #[test]
    fn random_bytes_behind_a_sound_beginning_are_survived(
        port: usize, which: prop::sample::Index, keep in 14..80_usize,
        tail in prop::collection::vec(any::<u8>(), 0..300), vni in a_vni(),
    ) {
        let frames = sound();
        let frame = which.get(&frames);
        let bytes = [&frame.bytes[..keep.min(frame.bytes.len())], &tail].concat();
        on_the_switch(port, &MemoryFrame { bytes, ..frame.clone() }, vni, false);
    }

    #[test]
    fn random_mutations_of_sound_frames_are_survived(
        port: usize, which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        offload in prop::option::weighted(0.3, any_offload()), vni in a_vni(), fix_checksum: bool,
    ) {
        let frames = sound();
        let mut frame = which.get(&frames).clone();
        for (at, value) in changes {
            // Most changes go to the headers.
            let at = at.index(frame.bytes.len().min(120));
            frame.bytes[at] = value;
        }
        if fix_checksum {
            repair_ipv4(&mut frame.bytes);
        }
        if let Some(cut) = cut {
            frame.bytes.truncate(cut.index(frame.bytes.len() + 1));
        }
        if let Some(offload) = offload {
            frame.offload = offload;
        }
        on_the_switch(port, &frame, vni, false);
    }
}

/// Makes the checksum of a plain IPv4 header right, so that its other fields are looked at.
fn repair_ipv4(bytes: &mut [u8]) {
    let Some(header) = bytes.get_mut(14..) else { return };
    let len = header.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(header) = header.get_mut(..len).filter(|header| header.len() >= 20) else { return };
    header[10..12].fill(0);
    let sum = header.chunks(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&u16::try_from(!folded & 0xffff).expect("16 bits").to_be_bytes());
}
