//! Two uplinks talk over loopback and veth of namespaces of their own. Need root, and fail without.

use std::net::Ipv4Addr;

use podwire_control::model::Vni;

use super::*;
use crate::frame::{Batch, Encap, Frame, FramePool, Gso, GsoKind, Outer};
use crate::id::VtepId;
use crate::port::{Outgoing, Piece, Pieces, PortRx, PortTx, RxStatus, TxError};
use crate::sys::epoll::{Epoll, Events};
use crate::sys::netns::testing::TestNetns;

const PORT: u16 = 4_789;
const VXLAN_HEADER: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
const TOS: u8 = 0b1011_1011;

fn spec(addresses: &[&str]) -> UdpSpec {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    UdpSpec { addresses, port: PORT, workers: 1, segmentation: true, merging: true, checksum: true }
}

fn encap(remote: &str) -> Encap {
    let remote = remote.parse().unwrap();
    Encap { vtep: VtepId(0), remote, vni: Vni::try_from(42).unwrap(), tos: TOS, entropy: 0x8000_0000 }
}

/// A frame and the pieces it was cut into, each of a new header of ten bytes and a span of payload.
struct Cut {
    frame: Frame,
    headers: Vec<u8>,
    list: Vec<Piece>,
}

impl Cut {
    /// Pieces of these lengths, headers included, each with bytes of its own.
    fn new(lens: &[usize]) -> Self {
        let (mut headers, mut payload, mut list) = (vec![], vec![], vec![]);
        for (number, len) in (0..).zip(lens) {
            let number: usize = number;
            let to_u32 = |at: usize| u32::try_from(at).unwrap();
            list.push(Piece {
                header: (to_u32(headers.len()), 10),
                payload: (to_u32(payload.len()), to_u32(len - 10)),
            });
            headers.extend([u8::try_from(number % 251).unwrap(); 10]);
            payload.extend((10..*len).map(|at| u8::try_from((at * 7 + number) % 256).unwrap()));
        }
        let mut frame = Frame::new();
        frame.fill(&payload);
        assert_eq!(frame.len(), payload.len(), "the payload fits one frame");
        Self { frame, headers, list }
    }

    fn lend<'a>(&'a self, encap: &'a Encap) -> Outgoing<'a> {
        let pieces = Some(Pieces { headers: &self.headers, list: &self.list });
        Outgoing { frame: &self.frame, pieces, encap: Some(encap) }
    }

    /// What arrives: each packet behind a VXLAN header.
    fn expected(&self) -> Vec<Vec<u8>> {
        let encap = encap("127.0.0.1");
        let packets = self.lend(&encap);
        packets.packets().map(|(header, payload)| [&VXLAN_HEADER, header, payload].concat()).collect()
    }
}

type Received = (Vec<u8>, Option<Outer>);

/// Receives until `count` frames have come, at most `budget` a call, as a worker would.
fn receive(rx: &mut UdpRx, count: usize, budget: usize) -> Vec<Received> {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::new());
    epoll.add(rx.poll_fd().unwrap(), 0).unwrap();
    let (mut pool, mut seen) = (FramePool::new(budget), vec![]);
    while seen.len() < count {
        let mut batch = Batch::new();
        let status = rx.rx(&mut pool, &mut batch, budget);
        assert!(batch.len() <= budget);
        seen.extend(batch.items().iter().map(|item| (item.frame.bytes().to_vec(), item.frame.outer)));
        batch.recycle(&mut pool);
        assert_ne!(status, RxStatus::Closed);
        if status == RxStatus::Drained && seen.len() < count {
            epoll.wait(&mut events, Some(std::time::Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "{} of {count} frames after five seconds", seen.len());
        }
    }
    seen
}

/// Runs the test in a namespace with loopback up.
fn on_loopback(test: impl FnOnce() + Send) {
    let netns = TestNetns::new();
    netns.ip("link set lo up");
    netns.enter(test);
}

fn round_trip(from: &str, to: &str, lens: &[usize], budget: usize) {
    on_loopback(|| {
        let addresses = if from == to { vec![to] } else { vec![from, to] };
        let mut uplink = UdpUplink::open(&spec(&addresses[..1])).unwrap();
        // A family has one receiving socket; the other end is a second uplink, or the same for IPv6.
        let mut other = (from != to).then(|| UdpUplink::open(&spec(&addresses[1..])).unwrap());
        let (cut, encap) = (Cut::new(lens), encap(to));
        uplink.workers[0].tx.tx(&cut.lend(&encap)).unwrap();
        let receiver = other.as_mut().unwrap_or(&mut uplink);
        let seen = receive(&mut receiver.workers[0].rx[0], lens.len(), budget);
        let outer = Some(Outer { remote: from.parse().unwrap(), tos: TOS });
        let expected: Vec<_> = cut.expected().into_iter().map(|bytes| (bytes, outer)).collect();
        assert_eq!(seen.len(), expected.len());
        assert!(seen == expected, "in order, whole, with sender and TOS");
        assert_eq!(receiver.status.truncated(), 0);
        assert_eq!(uplink.status.segmentation_refused(), 0);
    });
}

#[test]
fn a_cut_frame_arrives_packet_by_packet_with_sender_and_tos() {
    round_trip("127.0.0.1", "127.0.0.2", &[1_450, 1_450, 1_450, 700], 64);
    round_trip("::1", "::1", &[1_450, 1_450, 1_450, 700], 64);
}

#[test]
fn a_merged_buffer_that_does_not_fit_is_continued_without_loss_or_reordering() {
    for budget in [1, 3, 64] {
        round_trip("127.0.0.1", "127.0.0.2", &[500; 100], budget);
    }
}

#[test]
fn packets_beyond_the_limits_of_one_send_go_out_in_several() {
    round_trip("127.0.0.1", "127.0.0.2", &[100; 300], 64);
    round_trip("127.0.0.1", "127.0.0.2", &[1_450; 46], 64);
    round_trip("127.0.0.1", "127.0.0.2", &[300, 200, 400, 400, 100, 100], 64);
}

#[test]
fn the_longest_sends_are_taken() {
    // With the VXLAN headers: 65,507 bytes over IPv4, 65,527 over IPv6.
    let lens = |total: usize| [vec![1_500 - 8; 43], vec![total - 43 * 1_500 - 8]].concat();
    round_trip("127.0.0.1", "127.0.0.2", &lens(65_507), 64);
    round_trip("::1", "::1", &lens(65_527), 64);
}

#[test]
fn the_kernel_has_segmentation_and_says_how_much() {
    on_loopback(|| assert!([64, 128].contains(&segment_limit()), "{}", segment_limit()));
    let loopback_is_down = TestNetns::new();
    loopback_is_down.enter(|| assert_eq!(segment_limit(), 64));
}

#[test]
fn a_refused_segmentation_is_switched_off_and_no_packet_is_lost() {
    // A namespace each: a socket that is closed lives on for a moment when another test forks, and would share the
    // port and take the packets.
    for (at, to) in [(0, "127.0.0.1"), (1, "::1")] {
        on_loopback(|| {
            // The kernel refuses segmentation without checksums.
            let without = UdpSpec { checksum: false, ..spec(&["127.0.0.1", "::1"]) };
            let mut uplink = UdpUplink::open(&without).unwrap();
            assert_eq!(uplink.status.segment_limit(), 0);
            uplink.status.segment_limit.store(64, Ordering::Relaxed);
            let (cut, encap) = (Cut::new(&[200; 9]), encap(to));
            for _ in 0..2 {
                uplink.workers[0].tx.tx(&cut.lend(&encap)).unwrap();
                let seen = receive(&mut uplink.workers[0].rx[at], 9, 64);
                assert!(seen.into_iter().map(|(bytes, _)| bytes).eq(cut.expected()));
            }
            assert_eq!((uplink.status.segment_limit(), uplink.status.segmentation_refused()), (0, 1));
            let counted = [0, 1].map(|_| uplink.workers[0].tx.flush().offloads_disabled);
            assert_eq!(counted, [1, 0]);
        });
    }
}

#[test]
fn flows_spread_over_source_ports_and_workers_and_all_arrive() {
    on_loopback(|| {
        let mut sender = UdpUplink::open(&spec(&["127.0.0.1"])).unwrap();
        let mut receiver = UdpUplink::open(&UdpSpec { workers: 3, ..spec(&["127.0.0.2"]) }).unwrap();
        let mut frame = Frame::new();
        frame.fill(&[9; 100]);
        // Fewer than a batch holds, should all go to one worker.
        let flows = 60;
        for flow in 0..flows {
            let encap = Encap { entropy: flow << 26, ..encap("127.0.0.2") };
            sender.workers[0].tx.tx(&Outgoing { frame: &frame, pieces: None, encap: Some(&encap) }).unwrap();
        }
        let mut count = 0;
        for worker in &mut receiver.workers {
            let (mut pool, mut batch) = (FramePool::new(64), Batch::new());
            while worker.rx[0].rx(&mut pool, &mut batch, 64) == RxStatus::More {}
            count += batch.len();
        }
        assert_eq!(count, flows as usize);
        let source_port = |flow: u32| {
            let encap = Encap { entropy: flow << 28, ..encap("127.0.0.2") };
            sender.workers[0].tx.socket(encap.remote, encap.entropy).unwrap().address().port()
        };
        let source_ports: std::collections::BTreeSet<_> = (0..16).map(source_port).collect();
        assert_eq!(source_ports.len(), SEND_SOCKETS);
    });
}

#[test]
fn a_packet_longer_than_the_path_is_too_big_and_segmentation_stays_on() {
    let netns = TestNetns::new();
    netns.ip("link add a0 mtu 1000 type veth peer name b0 mtu 1000");
    netns.ip("link set a0 up");
    netns.ip("link set b0 up");
    netns.ip("addr add 10.9.0.1/24 dev a0");
    netns.ip("route add 10.8.0.0/24 dev a0 mtu 900");
    netns.enter(|| {
        let mut uplink = UdpUplink::open(&spec(&["10.9.0.1"])).unwrap();
        let limit = uplink.status.segment_limit();
        let tx = &mut uplink.workers[0].tx;
        for (remote, path_mtu) in [("10.9.0.2", 1_000), ("10.8.0.2", 900)] {
            let encap = encap(remote);
            let too_big = Err(TxError::TooBig { path_mtu: Some(path_mtu) });
            let longest = usize::from(path_mtu) - 20 - 8 - 8;
            for lens in [&[longest + 1][..], &[longest + 1; 4]] {
                assert_eq!(tx.tx(&Cut::new(lens).lend(&encap)), too_big, "{remote}: {lens:?}");
            }
            assert_eq!(tx.tx(&Cut::new(&[longest; 4]).lend(&encap)), Ok(()));
        }
        assert_eq!((uplink.status.segment_limit(), uplink.status.segmentation_refused()), (limit, 0));
    });
}

#[test]
fn what_can_not_be_sent_says_why() {
    on_loopback(|| {
        let mut uplink = UdpUplink::open(&spec(&["127.0.0.1"])).unwrap();
        let tx = &mut uplink.workers[0].tx;
        let mut frame = Frame::new();
        frame.fill(&[9; 100]);
        let send =
            |tx: &mut UdpTx, frame: &Frame, encap: Option<&Encap>| tx.tx(&Outgoing { frame, pieces: None, encap });
        assert_eq!(send(tx, &frame, None), Err(TxError::Refused), "no tunnel");
        assert_eq!(send(tx, &frame, Some(&encap("::1"))), Err(TxError::Down), "no address of the family");
        assert_eq!(send(tx, &frame, Some(&encap("10.99.0.1"))), Err(TxError::Down), "no route");
        frame.fill(&[9; 65_507 - 8 + 1]);
        let too_big = TxError::TooBig { path_mtu: Some(u16::MAX) };
        assert_eq!(send(tx, &frame, Some(&encap("127.0.0.1"))), Err(too_big), "no datagram is that long");
        frame.offload.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1_000, header_len: 54 });
        assert_eq!(send(tx, &frame, Some(&encap("127.0.0.1"))), Err(TxError::Refused), "not cut");
    });
}

#[test]
fn an_address_that_is_not_ours_is_refused_with_its_name() {
    on_loopback(|| {
        let error = UdpUplink::open(&spec(&["192.0.2.7"])).unwrap_err();
        assert!(matches!(&error, UdpError::Bind { address, .. } if address.ip() == Ipv4Addr::new(192, 0, 2, 7)));
        assert!(error.to_string().contains("192.0.2.7:4789"), "{error}");
    });
}
