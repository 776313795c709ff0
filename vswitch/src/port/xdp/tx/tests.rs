//! Sending over a veth whose far end sees whole frames. Need root, and fail without.

use std::net::IpAddr;
use std::time::Duration;

use podwire_control::model::{Mac, Vni};

use super::*;
use crate::frame::Frame;
use crate::id::VtepId;
use crate::port::udp::{UdpSpec, UdpUplink};
use crate::port::xdp::{UplinkTx, WayTable, XdpAttachment, XdpMode, XdpSpec, XdpUplink};
use crate::port::{Piece, Pieces};
use crate::sys::bpf::{AttachMode, SteerSpec, Steering};
use crate::sys::netlink::Netlink;
use crate::sys::netns::testing::{TestNetns, run, wire};
use crate::sys::xsk::{BindMode, SlotPlan, XskReceiver, XskSocket, XskSpec};
use crate::wire::tcp;

const PORT: u16 = 4_789;
const REMOTES: [&str; 2] = ["10.9.0.2", "fd00:9::2"];
const TOS: u8 = 0b1011_1010;

fn ips(texts: [&str; 2]) -> Vec<IpAddr> {
    texts.map(|text| text.parse().unwrap()).to_vec()
}

/// The far end: sees what comes as it is on the wire.
struct Far {
    receiver: XskReceiver,
    /// The slots so far of a frame that comes in several.
    partial: Vec<u8>,
    _steering: Steering,
    mac: Mac,
}

impl Far {
    fn open(netns: &TestNetns) -> Self {
        netns.enter(|| {
            let link = Netlink::open().unwrap().link("far").unwrap();
            let (device, slots) = ("far".to_owned(), SlotPlan::UPLINK);
            let receiver =
                XskSocket::open(&XskSpec { device, queue: 0, mode: BindMode::Copy, slots }).unwrap().receiver;
            let spec = SteerSpec { addresses: ips(REMOTES), port: PORT, frame_bytes_max: 70_000, merged: false };
            let mut steering = Steering::load(&spec).unwrap();
            steering.attach("far", link.index, AttachMode::Native).unwrap();
            steering.set_socket(0, receiver.fd()).unwrap();
            Self { receiver, partial: Vec::new(), _steering: steering, mac: link.mac.unwrap() }
        })
    }

    /// Whole frames, until `count` have come.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for _ in 0..400 {
            while let Some(slot) = self.receiver.receive() {
                self.partial.extend_from_slice(self.receiver.bytes(&slot));
                if !slot.is_continued() {
                    frames.push(std::mem::take(&mut self.partial));
                }
                self.receiver.release(slot);
            }
            self.receiver.refill();
            if frames.len() >= count {
                return frames;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} frames of {count} came", frames.len());
    }
}

/// The near end: one worker's sending half, and what it has no business to know.
struct Near {
    tx: Box<dyn PortTx>,
    ways: Arc<Ways>,
    attachment: XdpAttachment,
    mac: Mac,
}

impl Near {
    /// To be called in the near namespace.
    fn open(checksum: bool, mode: XdpMode) -> Self {
        let addresses = ips(["10.9.0.1", "fd00:9::1"]);
        let udp = UdpSpec {
            addresses: addresses.clone(),
            port: PORT,
            workers: 1,
            segmentation: true,
            merging: true,
            checksum,
        };
        let udp = UdpUplink::open(&udp).unwrap().workers.remove(0).tx;
        let spec = XdpSpec {
            device: "nic".into(),
            addresses,
            port: PORT,
            mode: Some(mode),
            tx: UplinkTx::Xdp,
            busy_poll: false,
            workers: 1,
        };
        let mut uplink = XdpUplink::open(&spec).unwrap();
        let ways = Arc::new(Ways::default());
        let tx = uplink.sending_half(0, udp, &XdpTxSpec { ways: Arc::clone(&ways), port: PORT, checksum });
        let mac = Netlink::open().unwrap().link("nic").unwrap().mac.unwrap();
        Self { tx, ways, attachment: uplink.attachment, mac }
    }

    fn over_the_nic(&self, far: Mac, mtu: u16) {
        let way = Way { next_hop: far, source: self.mac, mtu, hop_limit: 64 };
        let table: WayTable = ips(REMOTES).into_iter().map(|remote| (remote, way)).collect();
        drop(self.ways.replace(table));
    }

    fn send(&mut self, remote: &str, frame: &Frame, pieces: Option<Pieces<'_>>) -> Result<(), TxError> {
        let vni = Vni::try_from(42).unwrap();
        let encap = Encap { vtep: VtepId(0), remote: remote.parse().unwrap(), vni, tos: TOS, entropy: 0x8765_4321 };
        let result = self.tx.tx(&Outgoing { frame, pieces, encap: Some(&encap) });
        self.tx.flush();
        result
    }
}

/// An inner frame with one whole IPv4 packet of `len` bytes, of TCP.
fn inner(number: usize, len: usize) -> Frame {
    let total = u16::try_from(len).unwrap().to_be_bytes();
    let head = [&[2; 12][..], &[8, 0, 0x45, 0], &total, &[0; 5], &[tcp::PROTOCOL]].concat();
    let rest = (head.len()..len + 14).map(|at| u8::try_from((at * 7 + number) % 251).unwrap());
    let bytes: Vec<u8> = head.iter().copied().chain(rest).collect();
    let mut frame = Frame::new();
    frame.fill(&bytes);
    frame
}

#[test]
fn each_byte_is_what_the_kernels_udp_socket_sends() {
    for (checksum, mode) in [(true, XdpMode::Native), (false, XdpMode::Native), (true, XdpMode::Generic)] {
        let (near, far) = wire();
        let mut far = Far::open(&far);
        near.enter(|| {
            // Else the kernel leaves checksums to the veth, which leaves them undone.
            run("ethtool", &["-K", "nic", "tx", "off"]);
            let mut near = Near::open(checksum, mode);
            for remote in REMOTES {
                for len in [60, 61, 1_000, 1_400] {
                    drop(near.ways.replace(WayTable::default()));
                    near.send(remote, &inner(len, len), None).unwrap();
                    let mut by_kernel = far.receive(1).remove(0);
                    near.over_the_nic(far.mac, 1_500);
                    near.send(remote, &inner(len, len), None).unwrap();
                    let mut by_us = far.receive(1).remove(0);
                    if remote.contains(':') {
                        // The flow label: the kernel's is a hash with a secret.
                        for frame in [&mut by_kernel, &mut by_us] {
                            frame[15] &= 0xf0;
                            frame[16..18].fill(0);
                        }
                    }
                    assert_eq!(by_us, by_kernel, "{remote}, {len} bytes, checksum {checksum}, {mode}");
                }
            }
            assert_eq!(near.attachment.status().sent(), 8);
        });
    }
}

#[test]
fn a_frame_that_was_cut_goes_out_packet_by_packet_and_no_slot_is_lost() {
    let (near, far) = wire();
    let mut far = Far::open(&far);
    near.enter(|| {
        let mut near = Near::open(true, XdpMode::Native);
        near.over_the_nic(far.mac, 1_500);
        let template = inner(3, 1_400);
        let (headers, payload) = (template.bytes()[..54].to_vec(), template.bytes()[54..].to_vec());
        let mut frame = Frame::new();
        frame.fill(&payload.repeat(40));
        let part = u32::try_from(payload.len()).unwrap();
        let list: Vec<Piece> = (0..40).map(|at| Piece { header: (0, 54), payload: (at * part, part) }).collect();
        // Many times the slots there are; a debug build counts them after each.
        for _ in 0..100 {
            let pieces = Pieces { headers: &headers, list: &list };
            assert_eq!(near.send("10.9.0.2", &frame, Some(pieces)), Ok(()));
            for bytes in far.receive(40) {
                assert_eq!(bytes[50..], *template.bytes());
            }
        }
        assert_eq!(near.attachment.status().sent(), 4_000);
    });
}

#[test]
fn packets_of_several_slots_go_out_whole_between_short_ones() {
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let (near, far) = wire();
        near.ip("link set nic mtu 9000");
        far.ip("link set far mtu 9000");
        let mut far = Far::open(&far);
        near.enter(|| {
            let mut near = Near::open(true, mode);
            assert_eq!(near.attachment.status().send_bytes_max(), 30_706);
            near.over_the_nic(far.mac, 9_000);
            for round in 0..500 {
                for len in [8_900, 60, 3_776, 3_777] {
                    let frame = inner(round, len);
                    assert_eq!(near.send("10.9.0.2", &frame, None), Ok(()));
                    assert_eq!(far.receive(1)[0][50..], *frame.bytes(), "{mode}, {len} bytes");
                }
            }
            assert_eq!(near.attachment.status().sent(), 2_000);
            assert_eq!(near.attachment.status().statistics().tx_invalid, 0);
        });
    }
}

#[test]
fn what_is_longer_than_the_path_takes_is_refused_whole_and_says_what_it_takes() {
    let (near, far) = wire();
    let mut far = Far::open(&far);
    near.enter(|| {
        let mut near = Near::open(true, XdpMode::Native);
        near.over_the_nic(far.mac, 1_300);
        let refused = Err(TxError::TooBig { path_mtu: Some(1_300) });
        assert_eq!(near.send("10.9.0.2", &inner(1, 1_251), None), refused);
        assert_eq!(near.send("fd00:9::2", &inner(1, 1_231), None), refused);
        assert_eq!(near.send("10.9.0.2", &inner(1, 1_250), None), Ok(()));
        assert_eq!(near.send("fd00:9::2", &inner(1, 1_230), None), Ok(()));
        assert_eq!(far.receive(2).len(), 2);
    });
}

#[test]
fn a_queue_that_takes_nothing_more_says_full_and_goes_on_when_it_can() {
    let (near, far) = wire();
    let mut far = Far::open(&far);
    near.enter(|| {
        let mut half = Near::open(true, XdpMode::Native);
        half.over_the_nic(far.mac, 1_500);
        near.ip("link set nic down");
        let results: Vec<_> = (0..1_100).map(|_| half.send("10.9.0.2", &inner(1, 100), None)).collect();
        let taken = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(taken, SlotPlan::UPLINK.send);
        assert!(results[taken..].iter().all(|&result| result == Err(TxError::Full)));
        near.ip("link set nic up");
        half.tx.flush();
        assert_eq!(far.receive(taken).len(), taken);
        assert_eq!(half.send("10.9.0.2", &inner(1, 100), None), Ok(()));
    });
}

#[test]
fn workers_without_a_queue_of_the_nics_send_by_udp() {
    let near = TestNetns::new();
    near.ip("link add nic numrxqueues 3 numtxqueues 2 type veth peer name far numrxqueues 2 numtxqueues 3");
    near.ip("link set nic up");
    near.enter(|| {
        for (tx, wanted) in [(UplinkTx::Xdp, 2), (UplinkTx::Auto, 0), (UplinkTx::Udp, 0)] {
            let (addresses, mode) = (Vec::new(), Some(XdpMode::Generic));
            let spec = XdpSpec { device: "nic".into(), addresses, port: PORT, mode, tx, busy_poll: false, workers: 4 };
            let mut uplink = XdpUplink::open(&spec).unwrap();
            let udp = UdpSpec {
                addresses: Vec::new(),
                port: PORT,
                workers: 4,
                segmentation: true,
                merging: true,
                checksum: true,
            };
            let sending = XdpTxSpec { ways: Arc::default(), port: PORT, checksum: true };
            for (worker, halves) in UdpUplink::open(&udp).unwrap().workers.into_iter().enumerate() {
                drop(uplink.sending_half(worker, halves.tx, &sending));
            }
            assert_eq!(uplink.attachment.status().senders(), wanted, "{tx:?}");
        }
    });
}
