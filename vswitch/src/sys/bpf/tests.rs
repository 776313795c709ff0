//! The committed object: what it is made of, and what it does with hand-made frames (`BPF_PROG_TEST_RUN`). Need root.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use aya::{TestRun, TestRunOptions};

use super::*;
use crate::sys::netlink::Netlink;
use crate::sys::netns::testing::{TestNetns, run};
use crate::wire::checksum;

const PORT: u16 = 4_789;
const OURS_V4: &str = "10.0.0.1";
const OURS_V6: &str = "fd00::1";
/// linux/bpf.h: `enum xdp_action`.
const PASS: u32 = 2;
const REDIRECT: u32 = 4;
const FRAME_MAX: u32 = 1_800;

fn spec() -> SteerSpec {
    let addresses = [OURS_V6, OURS_V4].map(|text| text.parse().unwrap()).to_vec();
    SteerSpec { addresses, port: PORT, frame_bytes_max: FRAME_MAX, merged: false }
}

/// A socket that is bound to nothing, which is enough for a map.
fn af_xdp() -> OwnedFd {
    // SAFETY: a new descriptor that nothing else owns, or an error.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "no AF_XDP socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

impl Steering {
    /// What the program says of a frame.
    fn verdict(&mut self, frame: &[u8]) -> u32 {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.program.xdp().unwrap().test_run(options).unwrap();
        assert_eq!(&out[..frame.len()], frame, "the program changes nothing");
        result.return_value
    }
}

/// A VXLAN datagram with an inner IPv4 packet of a header and `payload` bytes.
fn udp(port: u16, payload: usize) -> Vec<u8> {
    datagram(
        port,
        &v4(&[&[0x45, 0][..], &u16::try_from(20 + payload).unwrap().to_be_bytes(), &vec![7; 16 + payload]].concat()),
    )
}

/// A UDP datagram with a VXLAN header and an inner frame.
fn datagram(port: u16, inner: &[u8]) -> Vec<u8> {
    let len = u16::try_from(16 + inner.len()).unwrap();
    let vxlan = [8, 0, 0, 0, 0, 0, 42, 0];
    [&50_000_u16.to_be_bytes()[..], &port.to_be_bytes(), &len.to_be_bytes(), &[0; 2], &vxlan, inner].concat()
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind.to_be_bytes(), packet].concat()
}

/// An IPv4 packet whose fragment field and options are given.
fn v4_packet(to: &str, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let to: Ipv4Addr = to.parse().unwrap();
    let header_len = 20 + options.len();
    let total = u16::try_from(header_len + payload.len()).unwrap();
    let first = 0x40 | u8::try_from(header_len / 4).unwrap();
    let fixed = [&[first, 0][..], &total.to_be_bytes(), &[0; 2], &fragment.to_be_bytes(), &[64, 17, 0, 0, 10, 0, 0, 2]];
    [&fixed.concat(), &to.octets()[..], options, payload].concat()
}

fn v6_packet(to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let to: Ipv6Addr = to.parse().unwrap();
    let from: Ipv6Addr = "fd00::2".parse().unwrap();
    let len = u16::try_from(payload.len()).unwrap();
    let fixed = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[next, 64], &from.octets(), &to.octets()];
    [&fixed.concat(), payload].concat()
}

fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(0x0800, packet)
}

fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(0x86dd, packet)
}

/// Our datagram with one byte of the frame changed.
fn changed(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

#[test]
fn the_object_is_of_the_source_beside_it() {
    super::testing::assert_made_of_its_source(OBJECT, "steer");
}

#[test]
fn the_object_holds_the_program_the_map_and_the_configuration_the_loader_names() {
    let steering = Steering::load(&spec()).unwrap();
    let programs: Vec<&str> = steering.program.bpf.programs().map(|(name, _)| name).collect();
    assert_eq!(programs, [PROGRAM]);
    assert!(steering.program.bpf.maps().any(|(name, _)| name == SOCKETS));
    assert!(PROGRAM.len() < 16, "the kernel keeps 15 bytes of a name, by which a leftover is recognised");
}

#[test]
fn tunnel_traffic_to_our_addresses_is_redirected() {
    let mut steering = Steering::load(&spec()).unwrap();
    let socket = af_xdp();
    steering.set_socket(0, socket.as_fd()).unwrap();
    let inner6 = v6(&v6_packet("fd00:244:1::2", 6, &[5; 33]));
    let frames = [
        ("IPv4", v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, 100)))),
        ("IPv4 with DF", v4(&v4_packet(OURS_V4, 0x4000, &[], &udp(PORT, 100)))),
        ("IPv6", v6(&v6_packet(OURS_V6, 17, &udp(PORT, 100)))),
        ("an inner IPv6 packet", v4(&v4_packet(OURS_V4, 0, &[], &datagram(PORT, &inner6)))),
        ("the shortest inner packet", v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, 0)))),
        ("padding of Ethernet behind", [v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, 0))), vec![0; 6]].concat()),
        ("the longest the sockets take", v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, FRAME_MAX as usize - 84)))),
    ];
    for (what, frame) in frames {
        assert_eq!(steering.verdict(&frame), REDIRECT, "{what}");
    }
}

#[test]
fn everything_else_passes_to_the_kernel() {
    let mut steering = Steering::load(&spec()).unwrap();
    let socket = af_xdp();
    steering.set_socket(0, socket.as_fd()).unwrap();
    let ours = || v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, 100)));
    let ours6 = || v6(&v6_packet(OURS_V6, 17, &udp(PORT, 100)));
    let vlan = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    // The UDP header tells more than the datagram has itself: it goes on behind.
    let udp_longer = |more: u16| {
        let whole = udp(PORT, 100);
        let len = u16::try_from(whole.len()).unwrap() + more;
        [&whole[..4], &len.to_be_bytes(), &whole[6..]].concat()
    };
    let tcp = |frame, at| changed(frame, at, 6);
    let frames = [
        ("another port", v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT + 1, 100)))),
        ("another address", v4(&v4_packet("10.0.0.3", 0, &[], &udp(PORT, 100)))),
        ("another IPv6 port", v6(&v6_packet(OURS_V6, 17, &udp(22, 100)))),
        ("another IPv6 address", v6(&v6_packet("fd00::3", 17, &udp(PORT, 100)))),
        ("an address that differs in its last byte only", v6(&v6_packet("fd00::2", 17, &udp(PORT, 100)))),
        ("TCP", tcp(ours(), 14 + 9)),
        ("TCP over IPv6", tcp(ours6(), 14 + 6)),
        ("a first fragment", v4(&v4_packet(OURS_V4, 0x2000, &[], &udp(PORT, 100)))),
        ("a later fragment", v4(&v4_packet(OURS_V4, 0x0010, &[], &udp(PORT, 100)))),
        ("an IPv6 fragment", v6(&v6_packet(OURS_V6, 44, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp(PORT, 100)].concat()))),
        ("IPv4 options", v4(&v4_packet(OURS_V4, 0, &[1, 1, 1, 0], &udp(PORT, 100)))),
        ("an impossible IPv4 header length", changed(ours(), 14, 0x44)),
        ("another version in IPv4", changed(ours(), 14, 0x65)),
        ("another version in IPv6", changed(ours6(), 14, 0x45)),
        ("a VLAN tag", vlan(ours())),
        ("a VLAN tag before IPv6", vlan(ours6())),
        ("a UDP length longer than the packet", v4(&v4_packet(OURS_V4, 0, &[], &udp_longer(1)))),
        ("a UDP length shorter than the packet", changed(ours(), 14 + 20 + 5, 60)),
        ("an IPv6 UDP length that does not fit", changed(ours6(), 14 + 40 + 5, 60)),
        (
            "too short for a VXLAN header",
            v4(&v4_packet(OURS_V4, 0, &[], &[&[0, 9, 18, 181, 0, 20][..], &[0; 14]].concat())),
        ),
        ("longer than the sockets take", v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, FRAME_MAX as usize - 83)))),
        ("ARP", ethernet(0x0806, &[0; 46])),
        ("an inner ARP", v4(&v4_packet(OURS_V4, 0, &[], &datagram(PORT, &ethernet(0x0806, &[0; 46]))))),
        ("bytes behind the inner packet", v4(&v4_packet(OURS_V4, 0, &[], &[udp_longer(4), vec![0; 4]].concat()))),
        ("two datagrams merged", v4(&v4_packet(OURS_V4, 0, &[], &[udp_longer(150), udp(PORT, 100)].concat()))),
        ("an inner packet longer than the datagram", changed(ours(), 14 + 20 + 8 + 8 + 14 + 3, 121)),
    ];
    for (what, frame) in frames {
        assert_eq!(steering.verdict(&frame), PASS, "{what}");
    }
    // Cut anywhere: the lengths no longer fit. The kernel tests no frame without an Ethernet header.
    for whole in [ours(), ours6()] {
        for len in 14..whole.len() {
            assert_eq!(steering.verdict(&whole[..len]), PASS, "cut to {len} bytes");
        }
        assert_eq!(steering.verdict(&whole), REDIRECT);
    }
}

/// A frame of ours with an inner packet of this protocol and this outer UDP checksum; `None` is the pseudo-header's sum.
fn unfinished(v6_outer: bool, v6_inner: bool, protocol: u8, field: Option<u16>) -> Vec<u8> {
    let inner = match v6_inner {
        true => v6(&v6_packet("fd00:244:1::2", protocol, &[5; 40])),
        false => changed(v4(&v4_packet("10.244.1.2", 0, &[], &[5; 40])), 14 + 9, protocol),
    };
    let datagram = datagram(PORT, &inner);
    let len = u32::try_from(datagram.len()).unwrap();
    let (frame, at, pseudo) = if v6_outer {
        let pseudo = checksum::pseudo_v6("fd00::2".parse().unwrap(), OURS_V6.parse().unwrap(), 17, len);
        (v6(&v6_packet(OURS_V6, 17, &datagram)), 14 + 40 + 6, pseudo)
    } else {
        let pseudo = checksum::pseudo_v4(Ipv4Addr::new(10, 0, 0, 2), OURS_V4.parse().unwrap(), 17, len);
        (v4(&v4_packet(OURS_V4, 0, &[], &datagram)), 14 + 20 + 6, pseudo)
    };
    let [high, low] = field.unwrap_or(checksum::fold(pseudo)).to_be_bytes();
    changed(changed(frame, at, high), at + 1, low)
}

#[test]
fn what_could_be_a_udp_super_frame_passes_where_there_are_any() {
    let socket = af_xdp();
    for merged in [true, false] {
        let mut steering = Steering::load(&SteerSpec { merged, ..spec() }).unwrap();
        steering.set_socket(0, socket.as_fd()).unwrap();
        for (v6_outer, v6_inner) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut verdict = |protocol, field| steering.verdict(&unfinished(v6_outer, v6_inner, protocol, field));
            let maybe = if merged { PASS } else { REDIRECT };
            assert_eq!(verdict(17, None), maybe, "UDP whose outer checksum was left to a NIC");
            assert_eq!(verdict(17, Some(0)), maybe, "UDP without an outer checksum");
            assert_eq!(verdict(17, Some(0x1234)), REDIRECT, "UDP in a finished datagram is one");
            for protocol in [6, 1, 58] {
                assert_eq!(verdict(protocol, None), REDIRECT, "protocol {protocol}");
            }
            assert_eq!(verdict(132, None), maybe, "SCTP has super-frames too");
        }
    }
}

#[test]
fn without_a_socket_or_an_address_everything_passes() {
    let frame4 = v4(&v4_packet(OURS_V4, 0, &[], &udp(PORT, 100)));
    let mut steering = Steering::load(&spec()).unwrap();
    assert_eq!(steering.verdict(&frame4), PASS, "no socket for the queue");
    let socket = af_xdp();
    steering.set_socket(1, socket.as_fd()).unwrap();
    assert_eq!(steering.verdict(&frame4), PASS, "a socket for another queue");
    steering.set_socket(0, socket.as_fd()).unwrap();
    assert_eq!(steering.verdict(&frame4), REDIRECT);
    steering.clear_sockets();
    assert_eq!(steering.verdict(&frame4), PASS, "the socket was taken away");
    assert!(steering.set_socket(QUEUES_MAX, socket.as_fd()).is_err(), "there are so many queues and no more");

    let mut nobody = Steering::load(&SteerSpec { addresses: vec![], ..spec() }).unwrap();
    nobody.set_socket(0, socket.as_fd()).unwrap();
    for to in ["0.0.0.0", OURS_V4] {
        assert_eq!(nobody.verdict(&v4(&v4_packet(to, 0, &[], &udp(PORT, 100)))), PASS, "{to}");
    }
    for to in ["::", OURS_V6] {
        assert_eq!(nobody.verdict(&v6(&v6_packet(to, 17, &udp(PORT, 100)))), PASS, "{to}");
    }
}

/// A veth whose near end is `nic`.
fn nic() -> TestNetns {
    let netns = TestNetns::new();
    netns.ip("link add nic type veth peer name far");
    netns.ip("link set nic up");
    netns.ip("link set far up");
    netns
}

#[test]
fn attaching_by_link_shows_and_vanishes_with_its_owner() {
    let netns = nic();
    netns.enter(|| {
        let index = Netlink::open().unwrap().link("nic").unwrap().index;
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let mut steering = Steering::load(&spec()).unwrap();
            steering.attach("nic", index, mode).unwrap();
            let found = attached("nic").unwrap().unwrap();
            assert!(found.is_ours(), "{found:?}");
            let error = Steering::load(&spec()).unwrap().attach("nic", index, mode).unwrap_err();
            assert!(error.to_string().contains("another program is attached"), "{error}");
            drop(steering);
            assert_eq!(attached("nic").unwrap(), None, "{mode} mode");
        }
    });
}

#[test]
fn a_leftover_of_ours_is_taken_away_with_or_without_a_link() {
    let netns = nic();
    netns.enter(|| {
        assert!(!detach_ours("nic").unwrap(), "nothing is there");
        let index = Netlink::open().unwrap().link("nic").unwrap().index;
        let mut held = Steering::load(&spec()).unwrap();
        held.attach("nic", index, AttachMode::Generic).unwrap();
        assert!(detach_ours("nic").unwrap());
        assert_eq!(attached("nic").unwrap(), None, "the link is held, but attached no more");

        let object = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/steer.bpf.o");
        run("ip", &["link", "set", "dev", "nic", "xdpgeneric", "obj", object, "sec", "xdp.frags"]);
        assert!(attached("nic").unwrap().unwrap().is_ours());
        assert!(detach_ours("nic").unwrap());
        assert_eq!(attached("nic").unwrap(), None);
    });
}

#[test]
fn a_nic_has_one_owner_at_a_time_in_its_namespace() {
    let netns = nic();
    netns.enter(|| {
        let first = NicLock::take("nic", 7).unwrap();
        let error = NicLock::take("nic", 7).unwrap_err();
        assert!(matches!(&error, BpfError::InUse { device } if device == "nic"), "{error}");
        let _other = NicLock::take("nic2", 8).unwrap();
        drop(first);
        let _again = NicLock::take("nic", 7).unwrap();
    });
    let elsewhere = nic();
    elsewhere.enter(|| drop(NicLock::take("nic", 7).unwrap()));
}
