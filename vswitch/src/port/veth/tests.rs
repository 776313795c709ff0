//! Real veth pairs: the switch's ends in a namespace of their own, the pods' in others. Need root, and fail without.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use podwire_control::model::Mac;

use super::*;
use crate::frame::Frame;
use crate::limits::VETH_XDP_MTU_MAX;
use crate::port::{Piece, Pieces};
use crate::sys::epoll::{Epoll, Events};
use crate::sys::netns::testing::{TestNetns, run};
use crate::wire::checksum;

const WORKERS: usize = 3;

fn mac(number: u8) -> Mac {
    Mac([2, 0, 10, 244, 1, number])
}

/// A pod with a port on the switch, which is in a namespace of its own.
struct VethPod {
    netns: TestNetns,
    spec: InterfaceSpec,
    name: &'static str,
}

impl VethPod {
    fn new(name: &'static str, number: u8) -> Self {
        let netns = TestNetns::new();
        let mut spec = InterfaceSpec::new(Some(netns.path()), "eth0", mac(number), 1_450);
        spec.addresses =
            vec![format!("10.244.1.{number}/24").parse().unwrap(), format!("fd00:244:1::{number}/64").parse().unwrap()];
        spec.gateways = vec!["10.244.1.1".parse().unwrap(), "fd00:244:1::1".parse().unwrap()];
        Self { netns, spec, name }
    }

    fn open(&self, switch: &TestNetns) -> (VethPort, VethHalves) {
        self.try_open(switch).unwrap()
    }

    fn try_open(&self, switch: &TestNetns) -> Result<(VethPort, VethHalves), VethPortError> {
        // Its sockets are not `Sync`, which `enter` takes nothing of.
        switch.enter(|| VethPort::open(self.name, &self.spec, WORKERS))
    }

    fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.netns.enter(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }
}

/// Carries frames between two ports until told to stop, each frame out of the next worker's half.
fn forward(ports: &mut [VethHalves; 2], stop: &AtomicBool) {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::new());
    for (halves, token) in ports.iter().zip(0..) {
        epoll.add(halves.rx.poll_fd().unwrap(), token).unwrap();
    }
    let (mut pool, mut worker) = (FramePool::new(BATCH_FRAMES), 0);
    while !stop.load(Ordering::Relaxed) {
        epoll.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
        for from in 0..2 {
            let mut batch = Batch::new();
            while ports[from].rx.rx(&mut pool, &mut batch, BATCH_FRAMES) == RxStatus::More && batch.room() > 0 {}
            for item in batch.items() {
                worker = (worker + 1) % WORKERS;
                let half = &mut ports[1 - from].tx[worker];
                half.tx(&Outgoing { frame: &item.frame, pieces: None, encap: None }).unwrap();
                half.flush();
            }
            batch.recycle(&mut pool);
        }
    }
    assert_eq!(pool.free(), BATCH_FRAMES);
}

fn assert_conserved(halves: &mut VethHalves) {
    let census = halves.rx.socket.census();
    assert_eq!((census.total(), census.held), (halves.rx.socket.slots(), 0), "{census:?}");
    for half in &mut halves.tx {
        half.flush();
        let census = half.socket.census();
        assert_eq!((census.total(), census.held, census.tx), (half.socket.slots(), 0, 0), "{census:?}");
    }
}

/// The switch's namespace and two pods, between which frames are carried while `work` runs.
fn with_two_pods(work: impl FnOnce(&VethPod, &VethPod)) {
    let (switch, first, second) = (TestNetns::new(), VethPod::new("first", 10), VethPod::new("second", 11));
    let (_port1, halves1) = first.open(&switch);
    let (_port2, halves2) = second.open(&switch);
    let (mut halves, stop) = ([halves1, halves2], AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stopped = &stop;
        let forwarder = scope.spawn(move || {
            forward(&mut halves, stopped);
            halves
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&first, &second)));
        stop.store(true, Ordering::Relaxed);
        let mut halves = forwarder.join().unwrap();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        halves.iter_mut().for_each(assert_conserved);
    });
}

#[test]
fn the_pods_end_is_as_it_was_asked_for_and_ours_is_out_of_the_stacks_reach() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, halves) = pod.open(&switch);
    assert_eq!((port.mode(), port.passed_over(), halves.tx.len()), (AttachMode::Native, None, WORKERS));
    let link = pod.netns.ip("-d -j link show dev eth0");
    for part in ["\"address\":\"02:00:0a:f4:01:0a\"", "\"mtu\":1450", "\"UP\"", "\"info_kind\":\"veth\""] {
        assert!(link.contains(part), "{part} in {link}");
    }
    let addresses = pod.netns.ip("addr show dev eth0 scope global");
    assert!(addresses.contains("10.244.1.10/24") && addresses.contains("fd00:244:1::10/64"), "{addresses}");
    assert!(pod.netns.ip("route show default").contains("default via 10.244.1.1 dev eth0"));
    assert!(pod.netns.ip("-6 route show default").contains("default via fd00:244:1::1 dev eth0"));
    let features = run("ip", &["netns", "exec", &pod.netns.name, "ethtool", "-k", "eth0"]);
    assert!(features.contains("tx-checksumming: off"), "{features}");
    assert!(
        features.contains("tx-tcp-segmentation: off") && features.contains("tx-udp-segmentation: off"),
        "{features}"
    );
    assert!(port.device().starts_with("pwx") && port.device().len() == 15, "{}", port.device());
    assert_eq!(switch.ip(&format!("-o addr show dev {}", port.device())), "", "not even a link-local address");
}

#[test]
fn ports_have_names_of_their_own() {
    assert_eq!(device_name("pod-a"), device_name("pod-a"));
    let names: std::collections::HashSet<_> = (0..1_000).map(|number| device_name(&format!("pod-{number}"))).collect();
    assert_eq!(names.len(), 1_000);
}

#[test]
fn pods_reach_each_other_by_icmp_and_udp_of_both_families_and_no_slot_is_lost() {
    with_two_pods(|first, second| {
        for address in ["10.244.1.11", "fd00:244:1::11"] {
            let mut ping = Command::new("ip");
            ping.args(["netns", "exec", &first.netns.name, "ping", "-q", "-c", "3", "-i", "0.01", "-W", "5", address]);
            let output = ping.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        for (from, to) in [("10.244.1.10:7001", "10.244.1.11:7002"), ("[fd00:244:1::10]:7001", "[fd00:244:1::11]:7002")]
        {
            let (one, other) = (first.udp(from), second.udp(to));
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            // More than there are slots, each way.
            for number in 0..2_000_u32 {
                let length = 4 + number as usize % 1_390;
                let sent: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(length).collect();
                let mut received = [0; 2_000];
                one.send_to(&sent, to).unwrap();
                assert_eq!(other.recv_from(&mut received).unwrap(), (length, from));
                assert_eq!(received[..length], sent);
                other.send_to(&sent, from).unwrap();
                assert_eq!(one.recv_from(&mut received).unwrap(), (length, to));
            }
        }
    });
}

#[test]
fn a_frame_that_was_cut_arrives_packet_by_packet() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (_port, mut halves) = pod.open(&switch);
    let socket = pod.udp("10.244.1.10:7000");
    let mut frame = Frame::new();
    frame.fill(b"onetwosix");
    let (mut headers, mut list) = (Vec::new(), Vec::new());
    for at in 0..3 {
        let begin = u32::try_from(headers.len()).unwrap();
        let mut ip = [&[0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0][..], &[10, 244, 1, 11, 10, 244, 1, 10]].concat();
        let sum = checksum::finish(checksum::sum(&ip)).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        headers.extend_from_slice(&[&mac(10).0[..], &mac(11).0, &[8, 0], &ip].concat());
        headers.extend_from_slice(&[0x1b, 0x59, 0x1b, 0x58, 0, 11, 0, 0]);
        let length = u32::try_from(headers.len()).unwrap() - begin;
        list.push(Piece { header: (begin, length), payload: (at * 3, 3) });
    }
    let pieces = Some(Pieces { headers: &headers, list: &list });
    halves.tx[1].tx(&Outgoing { frame: &frame, pieces, encap: None }).unwrap();
    halves.tx[1].flush();
    for wanted in [b"one", b"two", b"six"] {
        let mut bytes = [0; 10];
        let (length, _) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], wanted);
    }
    frame.set_len(usize::from(VETH_XDP_MTU_MAX) + 1_000);
    let too_long = Outgoing { frame: &frame, pieces: None, encap: None };
    assert_eq!(halves.tx[0].tx(&too_long), Err(TxError::TooBig { path_mtu: None }));
    assert_conserved(&mut halves);
}

#[test]
fn a_burst_longer_than_the_slots_is_sent_whole() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (_port, mut halves) = pod.open(&switch);
    let before = received(&pod.netns);
    let mut frame = Frame::new();
    frame.fill(&[&mac(10).0[..], &mac(11).0, &[0x88, 0xb5], &[0; 50]].concat());
    for _ in 0..2_000 {
        halves.tx[2].tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
    }
    halves.tx[2].flush();
    assert_conserved(&mut halves);
    assert_eq!(received(&pod.netns) - before, 2_000);
}

/// Packets the pod's end received.
fn received(netns: &TestNetns) -> u64 {
    let path = ["netns", "exec", &netns.name, "cat", "/proc/net/dev"];
    let table = run("ip", &path);
    let row = table.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
    row.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn a_pair_survives_its_process_and_is_taken_over_with_what_the_pod_has() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, halves) = pod.open(&switch);
    let (ours, theirs) = (port.device.index(), port.interface().index());
    pod.netns.ip("addr add 10.244.1.99/24 dev eth0");
    drop((port, halves));
    let (port, mut halves) = pod.open(&switch);
    assert_eq!((port.device.index(), port.interface().index()), (ours, theirs));
    assert!(pod.netns.ip("addr show dev eth0").contains("10.244.1.99/24"));
    assert!(is_heard(&pod, &mut halves));
}

/// Whether the switch receives something when the pod sends.
fn is_heard(pod: &VethPod, halves: &mut VethHalves) -> bool {
    pod.udp("10.244.1.10:0").send_to(b"hello", "10.244.1.11:7000").unwrap();
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        let mut batch = Batch::new();
        halves.rx.rx(&mut FramePool::new(8), &mut batch, 8);
        !batch.is_empty()
    })
}

#[test]
fn while_nobody_serves_a_pod_the_nodes_stack_gets_nothing_of_it() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, halves) = pod.open(&switch);
    // An address for which the node would answer ARP on any of its interfaces.
    switch.ip("link set lo up");
    switch.ip("addr add 10.244.1.1/32 dev lo");
    drop((port, halves));
    let mut ping = Command::new("ip");
    ping.args(["netns", "exec", &pod.netns.name, "ping", "-q", "-c", "1", "-W", "1", "10.244.1.1"]);
    assert!(!ping.output().unwrap().status.success());
}

#[test]
fn a_pair_whose_end_was_removed_is_seen_to_be_gone_and_leaves_nothing() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, mut halves) = pod.open(&switch);
    let is_there = || switch.enter(|| port.is_there(&mut Netlink::open().unwrap()));
    assert!(is_there());
    pod.netns.ip("link del eth0");
    assert!(!is_there());
    let mut frame = Frame::new();
    frame.fill(&[0xff; 60]);
    // Nothing is there to take it, and nobody is hurt.
    let _ = halves.tx[0].tx(&Outgoing { frame: &frame, pieces: None, encap: None });
    halves.tx[0].flush();
    // What it sent before is still there to be had.
    assert_eq!(halves.rx.rx(&mut FramePool::new(64), &mut Batch::new(), 64), RxStatus::Drained);
    switch.enter(|| port.remove().unwrap());
    assert!(!switch.ip("link show").contains("pwx"));
}

#[test]
fn a_removed_port_leaves_nothing_in_either_namespace() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, halves) = pod.open(&switch);
    switch.enter(|| port.remove().unwrap());
    drop(halves);
    assert!(!switch.ip("link show").contains("pwx") && !pod.netns.ip("link show").contains("eth0"));
    let (_port, _halves) = pod.open(&switch);
    switch.enter(|| assert!(remove_leftover(pod.name).unwrap()));
    switch.enter(|| assert!(!remove_leftover(pod.name).unwrap()));
}

#[test]
fn a_stray_end_is_replaced_and_anothers_device_left_alone() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    switch.ip(&format!("link add {} type veth peer name stray", device_name(pod.name)));
    drop(pod.open(&switch));
    assert!(!switch.ip("link show").contains("stray"));
    let other = VethPod::new("pod-b", 11);
    other.netns.ip("link add eth0 type veth peer name eth1");
    let error = other.try_open(&switch).unwrap_err().to_string();
    assert!(error.contains("eth0 exists and is a veth device, not this port's end of a veth pair"), "{error}");
    assert!(other.netns.ip("link show").contains("eth1"));
}

#[test]
fn where_the_driver_is_not_to_be_had_the_stack_runs_the_program_and_the_port_says_why() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let (port, halves) = pod.open(&switch);
    let device = port.device().to_owned();
    drop((port, halves));
    // Where one runs in the stack, the kernel lets none run in the driver.
    switch.ip(&format!("link set dev {device} xdp off"));
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/redirect.bpf.o");
    switch.ip(&format!("link set dev {device} xdpgeneric obj {object} sec xdp"));
    let (port, mut halves) = pod.open(&switch);
    assert_eq!(port.mode(), AttachMode::Generic);
    assert!(port.passed_over().unwrap().contains("native mode"), "{:?}", port.passed_over());
    assert!(is_heard(&pod, &mut halves));
}

#[test]
fn a_second_switch_gets_no_pair_that_is_served() {
    let (switch, pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    let _served = pod.open(&switch);
    let error = pod.try_open(&switch).unwrap_err().to_string();
    assert!(error.contains("another socket has the queue"), "{error}");
}

#[test]
fn an_mtu_that_does_not_fit_is_refused_by_name_and_the_longest_that_does_works() {
    let (switch, mut pod) = (TestNetns::new(), VethPod::new("pod-a", 10));
    pod.spec.mtu = VETH_XDP_MTU_MAX + 1;
    let error = pod.try_open(&switch).unwrap_err().to_string();
    assert!(error.contains("eth0: an MTU of 3501") && error.contains("--mtu 3500"), "{error}");
    assert!(!switch.ip("link show").contains("pwx"));
    pod.spec.mtu = 1_400;
    let (port, mut halves) = pod.open(&switch);
    assert!(matches!(port.set_mtu(VETH_XDP_MTU_MAX + 1), Err(VethPortError::Mtu { .. })));
    port.set_mtu(VETH_XDP_MTU_MAX).unwrap();
    let socket = pod.udp("10.244.1.10:0");
    pod.netns.ip("neigh replace 10.244.1.11 lladdr 02:00:00:00:00:01 dev eth0");
    socket.send_to(&[7; VETH_XDP_MTU_MAX as usize - 28], "10.244.1.11:7000").unwrap();
    let mut pool = FramePool::new(64);
    for _ in 0..100 {
        let mut batch = Batch::new();
        halves.rx.rx(&mut pool, &mut batch, 64);
        if batch.items().iter().any(|item| item.frame.len() == usize::from(VETH_XDP_MTU_MAX) + 14) {
            return;
        }
        batch.recycle(&mut pool);
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the longest frame did not come");
}
