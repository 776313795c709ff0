//! An xdp uplink on a veth, with a UDP uplink at the far end. Need root, and fail without.

use std::net::UdpSocket;
use std::time::Duration;

use podwire_control::model::Vni;

use super::*;
use crate::frame::{Batch, Encap, Frame, FramePool, Outer};
use crate::id::VtepId;
use crate::port::udp::{UdpSpec, UdpUplink};
use crate::port::{Outgoing, PortRx, PortTx, RxStatus};
use crate::sys::bpf::attached;
use crate::sys::netns::testing::{TestNetns, run, wire};
use crate::sys::xsk::XskStatistics;
use crate::wire::{checksum, tcp};

const PORT: u16 = 4_789;
const TOS: u8 = 0b1011_1010;
const VXLAN_HEADER: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
const COPY_MODES: [XdpMode; 2] = [XdpMode::Native, XdpMode::Generic];

fn spec(mode: Option<XdpMode>) -> XdpSpec {
    let addresses = ["10.9.0.1", "fd00:9::1"].map(|text| text.parse().unwrap()).to_vec();
    XdpSpec { device: "nic".into(), addresses, port: PORT, mode, tx: UplinkTx::Auto, busy_poll: false, workers: 1 }
}

fn udp_uplink(host: u8) -> UdpUplink {
    let addresses = [format!("10.9.0.{host}"), format!("fd00:9::{host}")].map(|text| text.parse().unwrap()).to_vec();
    UdpUplink::open(&UdpSpec { addresses, port: PORT, workers: 1, segmentation: true, merging: true, checksum: true })
        .unwrap()
}

/// An inner frame with one whole IPv4 packet of `len` bytes, of TCP.
fn inner(number: usize, len: usize) -> Vec<u8> {
    let total = u16::try_from(len).unwrap().to_be_bytes();
    let mut frame =
        [&[2; 12][..], &[8, 0, 0x45, 0], &total, &vec![u8::try_from(number % 251).unwrap(); len - 4]].concat();
    frame[14 + 9] = tcp::PROTOCOL;
    frame
}

fn send(uplink: &mut UdpUplink, remote: &str, inner: &[u8]) {
    let vni = Vni::try_from(42).unwrap();
    let encap = Encap { vtep: VtepId(0), remote: remote.parse().unwrap(), vni, tos: TOS, entropy: 1 };
    let mut frame = Frame::new();
    frame.fill(inner);
    uplink.workers[0].tx.tx(&Outgoing { frame: &frame, pieces: None, encap: Some(&encap) }).unwrap();
}

type Received = (Vec<u8>, Option<Outer>);

/// Receives until `count` frames have come, as a worker would; says after how long at most that they did not.
fn receive(rx: &mut dyn PortRx, count: usize) -> Vec<Received> {
    let (mut pool, mut seen) = (FramePool::new(8), vec![]);
    for _ in 0..400 {
        let mut batch = Batch::new();
        let status = rx.rx(&mut pool, &mut batch, 4);
        seen.extend(batch.items().iter().map(|item| (item.frame.bytes().to_vec(), item.frame.outer)));
        batch.recycle(&mut pool);
        assert_eq!(pool.free(), 8);
        if seen.len() >= count {
            return seen;
        }
        if status == RxStatus::Drained {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("{} frames of {count} came", seen.len());
}

#[test]
fn frames_come_as_through_the_udp_uplink_and_in_order() {
    for (mode, [near_address, far_address]) in COPY_MODES
        .into_iter()
        .flat_map(|mode| [["10.9.0.1", "10.9.0.2"], ["fd00:9::1", "fd00:9::2"]].map(|pair| (mode, pair)))
    {
        let (near, far) = wire();
        let mut sender = far.enter(|| udp_uplink(2));
        near.enter(|| {
            let mut uplink = XdpUplink::open(&spec(Some(mode))).unwrap();
            for number in 0..500 {
                send(&mut sender, near_address, &inner(number, 20 + number));
            }
            let received = receive(&mut uplink.workers[0][0], 500);
            let outer = Some(Outer { remote: far_address.parse().unwrap(), tos: TOS });
            for (number, (bytes, from)) in received.into_iter().enumerate() {
                assert_eq!(bytes, [&VXLAN_HEADER[..], &inner(number, 20 + number)].concat(), "{mode}, frame {number}");
                assert_eq!(from, outer);
            }
            let status = uplink.attachment.status();
            assert_eq!((status.malformed(), status.checksum_errors(), status.queues()), (0, 0, 1));
            assert_eq!(status.statistics(), XskStatistics::default());
        });
    }
}

#[test]
fn a_half_that_busy_polls_gets_all_that_comes() {
    for mode in COPY_MODES {
        let (near, far) = wire();
        let mut sender = far.enter(|| udp_uplink(2));
        near.enter(|| {
            let mut uplink = XdpUplink::open(&XdpSpec { busy_poll: true, ..spec(Some(mode)) }).unwrap();
            let rx = &mut uplink.workers[0][0];
            assert!(rx.drives_device());
            for number in 0..300 {
                send(&mut sender, "10.9.0.1", &inner(number, 20 + number));
                let (bytes, _) = receive(rx, 1).remove(0);
                assert_eq!(bytes, [&VXLAN_HEADER[..], &inner(number, 20 + number)].concat(), "{mode}, frame {number}");
            }
            let status = uplink.attachment.status();
            assert_eq!(status.busy_poll(), BusyPoll::On, "{mode}");
            // It depends on the kernel whether it knows a veth's in native mode.
            assert!(mode == XdpMode::Native || status.queues_without_napi() == 1);
            assert_eq!(status.statistics(), XskStatistics::default());
        });
    }
}

#[test]
fn busy_polling_is_off_unless_asked_for() {
    let (near, _far) = wire();
    near.enter(|| {
        let uplink = XdpUplink::open(&spec(None)).unwrap();
        assert_eq!(uplink.attachment.status().busy_poll(), BusyPoll::Off);
        assert!(!uplink.workers[0][0].drives_device());
    });
}

#[test]
fn a_frame_of_several_slots_comes_whole() {
    for mode in COPY_MODES {
        let (near, far) = wire();
        near.ip("link set nic mtu 9000");
        far.ip("link set far mtu 9000");
        let mut sender = far.enter(|| udp_uplink(2));
        near.enter(|| {
            let mut uplink = XdpUplink::open(&spec(Some(mode))).unwrap();
            assert!(uplink.attachment.status().is_multi_buffer());
            let frame = inner(5, 8_900);
            send(&mut sender, "10.9.0.1", &frame);
            let (bytes, _) = receive(&mut uplink.workers[0][0], 1).remove(0);
            assert_eq!(bytes, [&VXLAN_HEADER[..], &frame].concat(), "{mode}");
        });
    }
}

#[test]
fn what_is_not_one_whole_packet_and_what_comes_after_closing_reaches_the_udp_socket() {
    for mode in COPY_MODES {
        let (near, far) = wire();
        let mut sender = far.enter(|| udp_uplink(2));
        near.enter(|| {
            let mut beside = udp_uplink(1);
            let XdpUplink { mut workers, attachment, .. } = XdpUplink::open(&spec(Some(mode))).unwrap();
            let with_trailer = [inner(1, 100), vec![9; 30]].concat();
            send(&mut sender, "10.9.0.1", &with_trailer);
            send(&mut sender, "10.9.0.1", &inner(2, 100));
            let (bytes, _) = receive(&mut beside.workers[0].rx[0], 1).remove(0);
            assert_eq!(bytes[8..], with_trailer, "{mode}");
            let (bytes, _) = receive(&mut workers[0][0], 1).remove(0);
            assert_eq!(bytes[8..], inner(2, 100), "{mode}");

            drop(attachment);
            send(&mut sender, "10.9.0.1", &inner(3, 100));
            let (bytes, _) = receive(&mut beside.workers[0].rx[0], 1).remove(0);
            assert_eq!(bytes[8..], inner(3, 100), "{mode}: the program is gone, and the sockets are not");
        });
    }
}

#[test]
fn other_traffic_of_the_nic_is_not_touched() {
    let (near, far) = wire();
    near.enter(|| {
        let _uplink = XdpUplink::open(&spec(None)).unwrap();
        let other = UdpSocket::bind("10.9.0.1:5000").unwrap();
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sender = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
        sender.send_to(b"hello", "10.9.0.1:5000").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(other.recv(&mut bytes).unwrap(), 5);
    });
}

#[test]
fn the_best_mode_is_taken_and_says_why_better_ones_are_not() {
    let (near, _far) = wire();
    near.enter(|| {
        let uplink = XdpUplink::open(&spec(None)).unwrap();
        let status = uplink.attachment.status();
        assert_eq!(status.mode(), XdpMode::Native);
        let [why] = status.passed_over() else { panic!("{status:?}") };
        assert!(why.starts_with("zerocopy: ") && why.contains("the driver does not support it"), "{why}");
        drop(uplink);
        let error = XdpUplink::open(&spec(Some(XdpMode::ZeroCopy))).unwrap_err().to_string();
        assert!(error.contains("no AF_XDP mode works on nic: zerocopy: "), "{error}");
        assert_eq!(attached("nic").unwrap(), None, "nothing is left behind");
    });
}

#[test]
fn each_queue_has_a_socket_and_workers_share_them() {
    let near = TestNetns::new();
    near.ip("link add nic numrxqueues 3 numtxqueues 3 type veth peer name far numrxqueues 3 numtxqueues 3");
    near.ip("link set nic up");
    near.enter(|| {
        let uplink = XdpUplink::open(&XdpSpec { workers: 2, ..spec(Some(XdpMode::Generic)) }).unwrap();
        let halves: Vec<usize> = uplink.workers.iter().map(Vec::len).collect();
        assert_eq!(halves, [2, 1]);
        assert_eq!(uplink.attachment.status().queues(), 3);
    });
}

#[test]
fn somebody_elses_program_is_left_alone_and_a_second_uplink_refused() {
    let (near, _far) = wire();
    let object = include_bytes!("../../../bpf/steer.bpf.o");
    let text: Vec<u8> = object.to_vec();
    let foreign: Vec<u8> = replaced(&text, b"podwire_steer", b"foreign_steer");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), foreign).unwrap();
    let path = file.path().to_str().unwrap();
    near.enter(|| {
        run("ip", &["link", "set", "dev", "nic", "xdpgeneric", "obj", path, "sec", "xdp.frags"]);
        let error = XdpUplink::open(&spec(None)).unwrap_err().to_string();
        assert!(error.contains("nic runs another XDP program already (foreign_steer"), "{error}");
        assert!(attached("nic").unwrap().is_some(), "it still runs");
        run("ip", &["link", "set", "dev", "nic", "xdpgeneric", "off"]);

        let _first = XdpUplink::open(&spec(None)).unwrap();
        let error = XdpUplink::open(&spec(None)).unwrap_err().to_string();
        assert!(error.contains("another podwired uses nic"), "{error}");
    });
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// A whole frame to 10.9.0.1 with this outer UDP checksum.
fn frame_with_checksum(vxlan: &[u8], field: u16) -> Vec<u8> {
    let udp_len = u16::try_from(8 + vxlan.len()).unwrap();
    let total = (20 + udp_len).to_be_bytes();
    let mut ip = [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]].concat();
    let check = checksum::finish(checksum::sum(&ip)).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    let udp =
        [&6_000_u16.to_be_bytes()[..], &PORT.to_be_bytes(), &udp_len.to_be_bytes(), &field.to_be_bytes()].concat();
    [&[2; 12][..], &[8, 0], &ip, &udp, vxlan].concat()
}

#[test]
fn damaged_datagrams_are_counted_and_thrown_away() {
    let (near, far) = wire();
    let (device, slots) = ("far".to_owned(), SlotPlan { receive: 64, send: 64 });
    let open_far = || XskSocket::open(&XskSpec { device, queue: 0, mode: BindMode::Copy, slots }).unwrap().sender;
    let mut sender = far.enter(open_far);
    near.enter(|| {
        let mut uplink = XdpUplink::open(&spec(None)).unwrap();
        let vxlan = [&VXLAN_HEADER[..], &inner(1, 60)].concat();
        for field in [0x1234, 0] {
            let mut slot = sender.take().unwrap();
            assert!(sender.write(&mut slot, &[&frame_with_checksum(&vxlan, field)]));
            sender.send(slot).unwrap();
            sender.kick();
        }
        let (bytes, _) = receive(&mut uplink.workers[0][0], 1).remove(0);
        assert_eq!(bytes, vxlan);
        assert_eq!(uplink.attachment.status().checksum_errors(), 1);
    });
}
