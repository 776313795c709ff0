//! The switch cuts super-frames as the kernel does: the same one goes through `segment::prepare` and through a real
//! kernel vxlan device on a wire without offloads, and the packets must be the same to the last byte.
//!
//! The kernel's way in is a TAP of a routing namespace, so the packets it sends have a TTL less and its tunnel's MAC
//! addresses; `prepare` gets the frame with those already in it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod case;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use podwire_control::model::Mac;
use podwire_tests::kernel_peer::{KernelPeer, PeerSpec};
use podwire_tests::netns::{Netns, Wire};
use podwire_tests::plan::{self, NodePlan};
use podwire_tests::underlay::{RemoteNode, join_underlay};
use podwire_vswitch::frame::Frame;
use podwire_vswitch::port::interface::InterfaceSpec;
use podwire_vswitch::port::tap::TapPort;
use podwire_vswitch::port::{Outgoing, PortCaps, PortTx};
use podwire_vswitch::segment::{Arena, Prepared, prepare};
use podwire_vswitch::wire;

use case::{Case, ETHERNET_BYTES, L4, SEQUENCE, add_words, cases, folded, pseudo_sum};

const REMOTE_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x22]);
const SENDER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x11]);
const ROUTER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
/// What the tunnel carries over the kit's IPv4 underlay of 1500 bytes.
const TUNNEL_MTU: u16 = 1_450;
const TTL: u8 = 61;

/// A kernel router between a TAP and its vxlan device, and a far end that keeps what comes out.
struct Kernel {
    peer: KernelPeer,
    tap: TapPort,
    tunnel_mac: Mac,
    far: UdpSocket,
    _far_netns: Netns,
}

impl Kernel {
    fn new() -> Self {
        let mut spec = PeerSpec::planned(NodePlan(1));
        spec.underlay.truncate(1);
        let (peer, far_netns) = (KernelPeer::new(spec), Netns::new("far"));
        let remote = NodePlan(2).underlay()[0];
        let wire = Wire { offloads: false, ..Wire::default() };
        join_underlay((&peer.netns, &peer.spec.underlay), (&far_netns, &[remote]), wire);
        peer.start();
        peer.reach(&RemoteNode {
            name: "far".into(),
            pod_cidrs: NodePlan(2).pod_cidrs().to_vec(),
            underlay: vec![remote],
            mac: REMOTE_MAC.to_string(),
            mac6: REMOTE_MAC.to_string(),
        });
        let tunnel_mac = peer.as_remote().mac.parse().unwrap();
        let tap = TapPort::create(&InterfaceSpec::new(Some(peer.netns.path()), "in", ROUTER_MAC, 9_000)).unwrap();
        // The source's own way is another one.
        for interface in ["all", "in"] {
            peer.netns.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0");
        }
        let far = far_netns.enter(|| UdpSocket::bind((remote.addr(), plan::VXLAN_PORT)).unwrap());
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { peer, tap, tunnel_mac, far, _far_netns: far_netns }
    }

    /// Routes a frame through the tunnel and gives the first `count` inner frames that come out.
    fn forward(&self, frame: &Frame, count: usize) -> Vec<Vec<u8>> {
        self.tap.tx(0).tx(&Outgoing { frame, pieces: None, encap: None }).unwrap();
        let mut packets = Vec::new();
        let mut buffer = vec![0; 65_536];
        while packets.len() < count {
            match self.far.recv(&mut buffer) {
                Ok(len) if is_ours(&buffer[8..len]) => packets.push(buffer[8..len].to_vec()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
        }
        packets
    }

    /// Whether anything more comes that no one expects.
    fn has_more(&self) -> bool {
        thread::sleep(Duration::from_millis(20));
        self.far.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        while let Ok(len) = self.far.recv(&mut buffer) {
            if is_ours(&buffer[8..len.min(64)]) {
                return true;
            }
        }
        false
    }
}

/// Whether a frame out of the tunnel is of a case; the namespaces' own multicast is not.
fn is_ours(frame: &[u8]) -> bool {
    frame.starts_with(&REMOTE_MAC.0)
}

/// What the switch would send for the case.
fn cut(case: &Case, src: Mac) -> Vec<Vec<u8>> {
    let mut frame = case.frame(REMOTE_MAC, src, TTL - 1);
    let headers = wire::parse(frame.bytes(), &frame.offload);
    let headers = headers.unwrap_or_else(|reason| panic!("{}: {reason:?}", case.name));
    let mut arena = Arena::new();
    let prepared = prepare(&mut frame, &headers, PortCaps::NONE, TUNNEL_MTU, &mut arena);
    let prepared = prepared.unwrap_or_else(|reason| panic!("{}: {reason:?}", case.name));
    let pieces = (prepared == Prepared::Cut).then(|| arena.pieces());
    let out = Outgoing { frame: &frame, pieces, encap: None };
    out.packets().map(|(header, payload)| [header, payload].concat()).collect()
}

#[test]
fn the_kernel_cuts_the_same_frames_into_the_same_packets() {
    let kernel = Kernel::new();
    let mut failures = Vec::new();
    for case in cases() {
        let ours = cut(&case, kernel.tunnel_mac);
        let theirs = kernel.forward(&case.frame(ROUTER_MAC, SENDER_MAC, TTL), ours.len());
        if let Some(difference) = difference(&ours, &theirs) {
            failures.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!kernel.has_more(), "the kernel sent more packets than the switch");
    drop(kernel.peer);
}

/// Where two lists of packets differ first.
fn difference(ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} packets of ours, {} of the kernel's", ours.len(), theirs.len()));
    }
    let packet = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs)?;
    let (ours, theirs) = (&ours[packet], &theirs[packet]);
    let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap_or(ours.len().min(theirs.len()));
    let head = |bytes: &[u8]| bytes[..bytes.len().min(80)].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(format!("packet {packet} differs at byte {at}\n  ours   {}\n  kernel {}", head(ours), head(theirs)))
}

/// A receiver that knows nothing of the engine: fragments by identification and offset, checksums, bytes in order.
#[test]
fn what_was_cut_reassembles_to_the_bytes_that_were_sent() {
    for case in cases() {
        let mut stream = Vec::new();
        for (header, datagram) in reassemble(&case, &cut(&case, SENDER_MAC)) {
            let protocol = if matches!(case.l4, L4::Udp) { IpNumber::UDP } else { IpNumber::TCP };
            let pseudo = pseudo_sum(case.v6, protocol, datagram.len());
            assert_eq!(folded(add_words(&datagram, pseudo.into())), 0xffff, "{}: checksum", case.name);
            let payload = match case.l4 {
                L4::Udp => {
                    let (udp, payload) = UdpHeader::from_slice(&datagram).unwrap();
                    assert_eq!(usize::from(udp.length), datagram.len(), "{}", case.name);
                    payload
                }
                L4::Tcp { .. } => {
                    let (tcp, payload) = TcpHeader::from_slice(&datagram).unwrap();
                    let offset = u32::try_from(stream.len()).unwrap();
                    assert_eq!(tcp.sequence_number, SEQUENCE.wrapping_add(offset), "{}", case.name);
                    payload
                }
            };
            assert!(header.len() <= usize::from(TUNNEL_MTU), "{}", case.name);
            stream.extend_from_slice(payload);
        }
        assert!(stream == case.payload(), "{}: other bytes came back", case.name);
    }
}

/// L3 header of the first fragment and the whole L4 packet of each IP packet, from frames that come in order.
fn reassemble(case: &Case, frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut whole: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut more = false;
    for frame in frames {
        let packet = &frame[ETHERNET_BYTES..];
        assert!(packet.len() <= usize::from(TUNNEL_MTU), "{}: {} bytes", case.name, packet.len());
        if case.v6 {
            let (ip, rest) = Ipv6Header::from_slice(packet).unwrap();
            assert_eq!(usize::from(ip.payload_length), rest.len(), "{}", case.name);
            whole.push((ip.to_bytes().to_vec(), rest.to_vec()));
            continue;
        }
        let (ip, rest) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "{}", case.name);
        assert_eq!(usize::from(ip.total_len), packet.len(), "{}", case.name);
        let offset = usize::from(ip.fragment_offset.value()) * 8;
        if more {
            let (_, datagram) = whole.last_mut().unwrap();
            assert_eq!(datagram.len(), offset, "{}: a gap between fragments", case.name);
            datagram.extend_from_slice(rest);
        } else {
            assert_eq!(offset, 0, "{}: a packet starts in its middle", case.name);
            whole.push((ip.to_bytes().to_vec(), rest.to_vec()));
        }
        more = ip.more_fragments;
    }
    assert!(!more, "{}: the last fragment is missing", case.name);
    whole
}
