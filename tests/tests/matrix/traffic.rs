//! What is sent: TCP, UDP, ICMP and fragments, sized by the MTU so that every packet is full.

use podwire_tests::packet::{Packet, flag};
use podwire_vswitch::port::memory::MemoryFrame;

use crate::path::Path;

/// A kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traffic {
    Tcp,
    Udp,
    Icmp,
    FragmentsInOrder,
    FragmentsOutOfOrder,
}

/// Frames to inject, and what they carry together.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) frames: Vec<MemoryFrame>,
    /// Packets they stand for.
    pub(crate) packets: usize,
    pub(crate) payload: Vec<u8>,
}

impl Traffic {
    pub(crate) const ALL: [Self; 5] =
        [Self::Tcp, Self::Udp, Self::Icmp, Self::FragmentsInOrder, Self::FragmentsOutOfOrder];

    /// The frames that a sender with this MTU gives to its port.
    pub(crate) fn frames(self, path: &Path, mtu: u16, super_frames: bool) -> Sent {
        let ip_header = if path.v6 { 40 } else { 20 };
        let room = usize::from(mtu) - ip_header;
        match self {
            Self::Tcp => {
                let flags = flag::ACK | flag::PSH;
                let packet = Packet::tcp(path.src, path.dst, u32::MAX - 100, flags, &pattern(3 * (room - 20) + 17));
                cut(packet, path, room - 20, super_frames)
            }
            Self::Udp => {
                let packet = Packet::udp(path.src, path.dst, &pattern(3 * (room - 8) - 5));
                cut(packet, path, room - 8, super_frames)
            }
            Self::Icmp => {
                let packet = Packet::echo_request(path.src, path.dst, &pattern(room - 8));
                let frame = packet.macs(path.sent.0, path.sent.1).frame();
                Sent { frames: vec![frame], packets: 1, payload: pattern(room - 8) }
            }
            Self::FragmentsInOrder | Self::FragmentsOutOfOrder => {
                let payload = pattern(3 * usize::from(mtu));
                let packet = Packet::udp(path.src, path.dst, &payload).may_fragment();
                let mut fragments = packet.macs(path.sent.0, path.sent.1).fragments(mtu.into());
                if self == Self::FragmentsOutOfOrder {
                    fragments.rotate_left(2);
                    fragments.reverse();
                }
                let frames: Vec<_> = fragments.iter().map(Packet::frame).collect();
                Sent { packets: frames.len(), frames, payload }
            }
        }
    }
}

/// As one super-frame, or as the packets it stands for.
fn cut(packet: Packet, path: &Path, size: usize, super_frames: bool) -> Sent {
    let packet = packet.macs(path.sent.0, path.sent.1);
    let segments = packet.segments(size);
    let frames = if super_frames {
        vec![packet.super_frame(u16::try_from(size).expect("an MTU has 16 bits"))]
    } else {
        segments.iter().map(Packet::frame).collect()
    };
    Sent { frames, packets: segments.len(), payload: packet.payload }
}

/// Bytes that differ from their neighbours, near and far.
fn pattern(len: usize) -> Vec<u8> {
    let byte = |at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..).take(len).map(byte).collect()
}
