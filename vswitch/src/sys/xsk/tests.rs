//! Sockets on a veth of a namespace of their own, with the steering program in front. Need root.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::sys::bpf::{AttachMode, SteerSpec, Steering};
use crate::sys::netlink::Netlink;
use crate::sys::netns::testing::{TestNetns, wire};
use crate::wire::checksum;

const PORT: u16 = 4_789;

/// What the steering program takes: a VXLAN header and an inner frame with one IPv4 packet of TCP, `len` bytes in all, which
/// `number` tells from others.
fn tunnelled(number: usize, len: usize) -> Vec<u8> {
    let total = u16::try_from(len - 22).unwrap().to_be_bytes();
    let head = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &[2; 12], &[8, 0, 0x45, 0], &total, &[0, 0, 0x40, 0, 64, 6]].concat();
    let rest = (head.len()..len).map(|at| u8::try_from((at + number) % 251).unwrap());
    head.iter().copied().chain(rest).collect()
}

fn open(queue: u32, mode: BindMode) -> Result<XskSocket, XskError> {
    XskSocket::open(&XskSpec { device: "nic".into(), queue, mode, slots: SlotPlan::UPLINK })
}

/// A program on `nic` that steers to this socket.
fn steer(socket: &XskReceiver, mode: AttachMode) -> Steering {
    let index = Netlink::open().unwrap().link("nic").unwrap().index;
    let addresses = vec!["10.9.0.1".parse().unwrap()];
    let mut steering =
        Steering::load(&SteerSpec { addresses, port: PORT, frame_bytes_max: 70_000, merged: false }).unwrap();
    steering.attach("nic", index, mode).unwrap();
    steering.set_socket(0, socket.fd()).unwrap();
    steering
}

#[track_caller]
fn assert_conserved(socket: &mut XskReceiver) {
    let census = socket.census();
    assert_eq!(census.total(), SlotPlan::UPLINK.receive, "{census:?}");
}

/// Packets as they came, each put together from its slots.
fn receive(socket: &mut XskReceiver, count: usize) -> Vec<Vec<u8>> {
    let (mut packets, mut packet) = (vec![], vec![]);
    for _ in 0..200 {
        while let Some(slot) = socket.receive() {
            assert_conserved(socket);
            packet.extend_from_slice(socket.bytes(&slot));
            let continued = slot.is_continued();
            socket.release(slot);
            if !continued {
                packets.push(std::mem::take(&mut packet));
            }
        }
        socket.refill();
        assert_conserved(socket);
        if packets.len() >= count {
            return packets;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!(
        "{} packets of {count} came: {:?} {:?}",
        packets.len(),
        socket.watch().unwrap().statistics(),
        socket.census()
    );
}

#[test]
fn datagrams_come_in_order_and_no_slot_is_lost() {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let (near, far) = wire();
        near.enter(|| {
            let XskSocket { receiver: mut socket, sender: _sender } = open(0, BindMode::Copy).unwrap();
            let _steering = steer(&socket, mode);
            let sender = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
            // More than the socket has slots, so that each is used again.
            for round in 0..(SlotPlan::UPLINK.total() / 64 + 20) {
                for number in 0..64 {
                    sender.send_to(&tunnelled(round + number, 100 + number), ("10.9.0.1", PORT)).unwrap();
                }
                let packets = receive(&mut socket, 64);
                assert_eq!(packets.len(), 64);
                for (number, packet) in packets.iter().enumerate() {
                    let payload = &packet[14 + 20 + 8..];
                    assert_eq!(payload, tunnelled(round + number, 100 + number), "{mode}");
                }
            }
            assert_eq!(socket.watch().unwrap().statistics().unwrap(), XskStatistics::default());
            assert_eq!(socket.census().held, 0);
        });
    }
}

#[test]
fn a_packet_longer_than_a_slot_comes_in_several() {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let (near, far) = wire();
        near.ip("link set nic mtu 9000");
        far.ip("link set far mtu 9000");
        near.enter(|| {
            let mut socket = open(0, BindMode::Copy).unwrap().receiver;
            assert!(socket.is_multi_buffer(), "this kernel has XDP_USE_SG");
            let _steering = steer(&socket, mode);
            let payload = tunnelled(0, 8_900);
            let sender = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
            sender.send_to(&payload, ("10.9.0.1", PORT)).unwrap();
            let packets = receive(&mut socket, 1);
            assert_eq!(packets[0][14 + 20 + 8..], payload, "{mode}");
        });
    }
}

#[test]
fn packets_are_sent_and_their_slots_come_back() {
    let (near, far) = wire();
    let receiver = far.enter(|| UdpSocket::bind("10.9.0.2:7000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let far_mac = far.enter(|| Netlink::open().unwrap().link("far").unwrap().mac.unwrap());
    near.enter(|| {
        let mut socket = open(0, BindMode::Copy).unwrap().sender;
        let conserved = |socket: &XskSender| assert_eq!(socket.census().total(), SlotPlan::UPLINK.send);
        let ip = [&[0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0x66, 0xb8, 10, 9, 0, 1, 10, 9, 0, 2][..]].concat();
        let udp = [&6_000_u16.to_be_bytes()[..], &7_000_u16.to_be_bytes(), &13_u16.to_be_bytes(), &[0; 2]].concat();
        let head = [&far_mac.0[..], &[2, 0, 0, 0, 0, 1, 8, 0], &ip, &udp].concat();
        for number in 0..3_000_u16 {
            let mut slot = socket.take().expect("slots come back");
            assert!(socket.write(&mut slot, &[&head, b"abc", &number.to_be_bytes()]));
            socket.send(slot).expect("the ring has room");
            socket.kick();
            conserved(&socket);
            let mut bytes = [0; 16];
            let (len, _) = receiver.recv_from(&mut bytes).unwrap();
            assert_eq!(bytes[..len], [&b"abc"[..], &number.to_be_bytes()].concat());
        }
        socket.kick();
        assert_eq!(socket.unsent(), 0);
        let mut slot = socket.take().unwrap();
        assert!(!socket.write(&mut slot, &[&[0; SLOT_DATA_BYTES + 1]]), "longer than a slot");
        socket.release(slot);
        conserved(&socket);
    });
}

/// An Ethernet frame to this MAC with a UDP datagram to 10.9.0.2:7000 of so many bytes.
fn datagram_frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let [udp_len, total] = [len + 8, len + 28].map(|len| u16::try_from(len).unwrap().to_be_bytes());
    let mut ip = [&[0x45, 0][..], &total, &[0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]].concat();
    let check = checksum::finish(checksum::sum(&ip)).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    let udp = [&6_000_u16.to_be_bytes()[..], &7_000_u16.to_be_bytes(), &udp_len, &[0; 2]].concat();
    let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
    [&to[..], &[2, 0, 0, 0, 0, 1, 8, 0], &ip, &udp, &payload].concat()
}

#[test]
fn a_packet_goes_out_in_as_many_slots_as_it_takes_and_they_come_back() {
    let (near, far) = wire();
    near.ip("link set nic mtu 65535");
    far.ip("link set far mtu 65535");
    let receiver = far.enter(|| UdpSocket::bind("10.9.0.2:7000").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let far_mac = far.enter(|| Netlink::open().unwrap().link("far").unwrap().mac.unwrap());
    near.enter(|| {
        let XskSocket { receiver: other, sender: mut socket } = open(0, BindMode::Copy).unwrap();
        let longest = packet_bytes_max(true);
        let edges = (1..=8).flat_map(|slots| [slots * SLOT_DATA_BYTES - 42, slots * SLOT_DATA_BYTES - 41]);
        // More than the socket has slots, so that each is used for the first, the last and the only part of a packet.
        for len in edges.chain([100, 8_972, 1, 100]).cycle().filter(|len| len + 42 <= longest).take(1_200) {
            let frame = datagram_frame(far_mac.0, len);
            // Spans that end nowhere near a slot's end.
            let (headers, payload) = frame.split_at(42);
            let spans: Vec<&[u8]> = std::iter::once(headers).chain(payload.chunks(1_111)).collect();
            socket.send_packet(&spans).unwrap();
            socket.kick_all();
            let mut bytes = vec![0; 65_536];
            let (got, _) = receiver.recv_from(&mut bytes).unwrap();
            assert_eq!(bytes[..got], *payload, "{len} bytes");
        }
        socket.kick_all();
        assert_eq!(socket.census(), Census { free: SlotPlan::UPLINK.send, ..Census::default() });
        assert_eq!(socket.send_packet(&[&[0; 3_000], &vec![0; longest - 2_999]]), Err(Unsent::TooLong));
        assert_eq!(socket.census(), Census { free: SlotPlan::UPLINK.send, ..Census::default() });
        assert_eq!(other.watch().unwrap().statistics().unwrap(), XskStatistics::default());
    });
}

#[test]
fn a_packet_of_several_slots_is_queued_whole_or_not_at_all() {
    let (near, _far) = wire();
    near.enter(|| {
        let mut socket = open(0, BindMode::Copy).unwrap().sender;
        near.ip("link set nic down");
        let three = vec![0; 2 * SLOT_DATA_BYTES + 1];
        let sent = std::iter::from_fn(|| socket.send_packet(&[&three]).ok()).count();
        assert_eq!(sent, SlotPlan::UPLINK.send / 3);
        let census = socket.census();
        assert_eq!((census.total(), census.free), (SlotPlan::UPLINK.send, SlotPlan::UPLINK.send % 3));
        assert_eq!(socket.send_packet(&[&three]), Err(Unsent::Full));
        assert_eq!(socket.census(), census);
        assert_eq!(socket.send_packet(&[&[0; 60]]), Ok(()), "there is room for a short one");
        assert_eq!(socket.census().total(), SlotPlan::UPLINK.send);
    });
}

#[test]
fn the_halves_of_a_socket_work_on_two_threads_with_slots_of_their_own() {
    let (near, far) = wire();
    let far_socket = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
    let (mut receiver, mut sender, _steering) = near.enter(|| {
        let XskSocket { receiver, sender } = open(0, BindMode::Copy).unwrap();
        let steering = steer(&receiver, AttachMode::Native);
        (receiver, sender, steering)
    });
    let sending = std::thread::spawn(move || {
        for _ in 0..5_000 {
            if let Some(mut slot) = sender.take() {
                assert!(sender.write(&mut slot, &[&[2; 12], &[0x88, 0xb5], &[7; 50]]));
                sender.send(slot).expect("the ring has room for every slot");
            }
            sender.kick();
            assert_eq!(sender.census().total(), SlotPlan::UPLINK.send);
        }
        sender.unsent()
    });
    for round in 0..100 {
        far_socket.send_to(&tunnelled(round, 200), ("10.9.0.1", PORT)).unwrap();
        let packets = receive(&mut receiver, 1);
        assert_eq!(packets[0][14 + 20 + 8..], tunnelled(round, 200));
    }
    assert_eq!(sending.join().unwrap(), 0);
    assert_conserved(&mut receiver);
}

#[test]
fn a_refusal_says_which_queue_of_which_nic_and_why() {
    let (near, _far) = wire();
    near.enter(|| {
        let error = open(0, BindMode::ZeroCopy).unwrap_err().to_string();
        assert!(error.contains("queue 0 of nic in zero-copy mode: the driver does not support it"), "{error}");
        let error = open(7, BindMode::Copy).unwrap_err().to_string();
        assert!(error.contains("queue 7 of nic in copy mode"), "{error}");
    });
}

#[test]
fn a_queue_can_be_bound_again_at_once_after_its_socket_was_closed() {
    let (near, _far) = wire();
    near.enter(|| {
        for _ in 0..5 {
            let socket = open(0, BindMode::Copy).unwrap();
            let steering = steer(&socket.receiver, AttachMode::Native);
            drop(steering);
            drop(socket);
        }
    });
}

#[test]
fn a_nic_says_how_many_queues_it_receives_and_sends_on() {
    let near = TestNetns::new();
    near.ip("link add nic numrxqueues 4 numtxqueues 2 type veth peer name far");
    near.enter(|| {
        assert_eq!(queues("nic").unwrap(), Queues { receive: 4, send: 2 });
        assert_eq!(queues("lo").unwrap(), Queues { receive: 1, send: 1 }, "its driver does not say");
        let error = queues("nowhere").unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    });
}

/// Takes `CAP_NET_ADMIN` from the calling thread (linux/capability.h).
fn without_net_admin() {
    const NET_ADMIN: u32 = 1 << 12;
    let header = [0x2008_0522_u32, 0];
    // Effective, permitted, inheritable; for the first 32 and for the others.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: header and sets are those of the version that the header names, and outlive the calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0][0] &= !NET_ADMIN;
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn busy_polling_needs_a_capability() {
    let (near, _far) = wire();
    near.enter(|| {
        let mut socket = open(0, BindMode::Copy).unwrap().receiver;
        assert_eq!(socket.prefer_busy_poll(), Ok(()));
        socket.poll_driver();
        assert_conserved(&mut socket);
        without_net_admin();
        assert_eq!(socket.prefer_busy_poll(), Err(Errno::EPERM));
    });
}
