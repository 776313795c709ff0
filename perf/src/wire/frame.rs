//! Test frames: UDP over IPv4 with a signature in the payload, as traffic generators of RFC 2544 have it, so that the
//! shortest frame of Ethernet holds one.
//!
//! The signature is 18 bytes, big-endian: 2 of magic, 2 the trial, 6 the number within the flow, 8 the wall clock in
//! nanoseconds when the frame was made. The flow is the UDP source port. UDP checksums are left out (RFC 768 lets them
//! be), so that a frame costs no sum.

use std::net::Ipv4Addr;

use podwire_control::model::Mac;
use podwire_vswitch::wire::{Arp, UdpHeader, arp, ethernet, ipv4, udp};

/// Bytes of the frame check sequence, which the NIC adds.
pub(super) const FCS_BYTES: usize = 4;
/// Source port of the first flow.
pub(super) const FIRST_PORT: u16 = 1_024;
/// Flows there can be: as many as source ports.
pub(super) const FLOWS_MAX: u16 = 60_000;

const L3_AT: usize = ethernet::HEADER_LEN;
const L4_AT: usize = L3_AT + ipv4::HEADER_LEN_MIN;
const SIGNATURE_AT: usize = L4_AT + udp::HEADER_LEN;
/// Headers and signature.
const HEAD_BYTES: usize = SIGNATURE_AT + 18;
/// What a test frame's payload begins with; `bpf/take.bpf.c` looks for it there.
pub(super) const MAGIC: [u8; 2] = *b"pW";

/// Between whom frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    pub(super) src_mac: Mac,
    pub(super) dst_mac: Mac,
    pub(super) src_ip: Ipv4Addr,
    pub(super) dst_ip: Ipv4Addr,
    pub(super) dst_port: u16,
}

impl Addresses {
    /// What teaches bridges and routers on the way where the receiver is: an ARP announcement (RFC 5227, 3) of its MAC, which
    /// is not the frames' destination when a router is between.
    pub(super) fn announcement(&self, receiver: Mac) -> [u8; 60] {
        let mut frame = [0; 60];
        ethernet::write_header(&mut frame, Mac([0xff; 6]), receiver, ethernet::ETHERTYPE_ARP);
        let announced = Arp {
            operation: arp::OPERATION_REQUEST,
            sender_mac: receiver,
            sender_ip: self.dst_ip,
            target_mac: Mac::ZERO,
            target_ip: self.dst_ip,
        };
        arp::write(&mut frame[L3_AT..], &announced);
        frame
    }

    /// Headers of a frame of so many bytes, FCS left out.
    fn headers(&self, frame_bytes: usize) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        ethernet::write_header(&mut head, self.dst_mac, self.src_mac, ethernet::ETHERTYPE_IPV4);
        let len = |from: usize| u16::try_from(frame_bytes - from).unwrap_or(u16::MAX);
        let (src, dst) = (self.src_ip, self.dst_ip);
        let (total_len, protocol) = (len(L3_AT), udp::PROTOCOL);
        let fields = ipv4::Ipv4Fields { tos: 0, total_len, id: 0, df: true, ttl: 64, protocol, src, dst };
        ipv4::write_header(&mut head[L3_AT..], &fields);
        let header = UdpHeader { src_port: 0, dst_port: self.dst_port, len: len(L4_AT) };
        udp::write_header(&mut head[L4_AT..], &header, 0);
        head[SIGNATURE_AT..SIGNATURE_AT + 2].copy_from_slice(&MAGIC);
        head
    }
}

/// The frames of one sender: its flows in turn, and the lengths in turn.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// A head for each length in turn, and the bytes behind it.
    turns: Vec<([u8; HEAD_BYTES], usize)>,
    /// Source port and the next number of each flow.
    flows: Vec<(u16, u64)>,
    turn: usize,
    flow: usize,
}

impl Stream {
    /// `lengths` are those of frames in bytes, FCS counted; `flows` are numbered from 0.
    pub(super) fn new(addresses: &Addresses, lengths: &[usize], flows: impl Iterator<Item = u16>) -> Self {
        let turn = |&bytes: &usize| {
            let bytes = bytes.max(HEAD_BYTES + FCS_BYTES) - FCS_BYTES;
            (addresses.headers(bytes), bytes - HEAD_BYTES)
        };
        let flows = flows.map(|flow| (FIRST_PORT + flow, 0)).collect();
        Self { turns: lengths.iter().map(turn).collect(), flows, turn: 0, flow: 0 }
    }

    /// From now on frames are of this trial, and numbered from 0.
    pub(super) fn begin(&mut self, trial: u16) {
        for (head, _) in &mut self.turns {
            head[SIGNATURE_AT + 2..SIGNATURE_AT + 4].copy_from_slice(&trial.to_be_bytes());
        }
        self.flows.iter_mut().for_each(|(_, next)| *next = 0);
    }

    /// The next frame: its head, and how many bytes are to follow. The same until [`Stream::advance`].
    #[inline]
    pub(super) fn frame(&self, unix_ns: u64) -> ([u8; HEAD_BYTES], usize) {
        let (mut head, rest) = self.turns[self.turn];
        let (port, number) = self.flows[self.flow];
        head[L4_AT..L4_AT + 2].copy_from_slice(&port.to_be_bytes());
        head[SIGNATURE_AT + 4..SIGNATURE_AT + 10].copy_from_slice(&number.to_be_bytes()[2..]);
        head[SIGNATURE_AT + 10..].copy_from_slice(&unix_ns.to_be_bytes());
        (head, rest)
    }

    /// The frame was sent.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.flows[self.flow].1 += 1;
        self.turn = if self.turn + 1 == self.turns.len() { 0 } else { self.turn + 1 };
        self.flow = if self.flow + 1 == self.flows.len() { 0 } else { self.flow + 1 };
    }
}

/// What a received test frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) trial: u16,
    pub(super) flow: u16,
    pub(super) number: u64,
    /// When it was made.
    pub(super) unix_ns: u64,
}

impl Mark {
    /// Reads the first bytes of a frame; none when it is no test frame to this port.
    #[inline]
    pub(super) fn read(head: &[u8], dst_port: u16) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = head.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let long = |at: usize| head[at..at + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let is_ours = word(L3_AT - 2) == ethernet::ETHERTYPE_IPV4
            && head[L3_AT] == 0x45
            && head[L3_AT + 9] == udp::PROTOCOL
            && word(L4_AT + 2) == dst_port
            && head[SIGNATURE_AT..SIGNATURE_AT + 2] == MAGIC;
        let flow = word(L4_AT).checked_sub(FIRST_PORT)?;
        let number = long(SIGNATURE_AT + 2) & 0xffff_ffff_ffff;
        (is_ours && flow < FLOWS_MAX).then(|| Self {
            trial: word(SIGNATURE_AT + 2),
            flow,
            number,
            unix_ns: long(SIGNATURE_AT + 10),
        })
    }
}

#[cfg(test)]
mod tests {
    use podwire_vswitch::frame::Offload;
    use podwire_vswitch::wire::{L4, parse};

    use super::*;

    const ADDRESSES: Addresses = Addresses {
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_ip: Ipv4Addr::new(198, 18, 0, 1),
        dst_ip: Ipv4Addr::new(198, 19, 0, 1),
        dst_port: 9,
    };

    #[test]
    fn frames_are_whole_and_read_back_in_the_order_of_flows_and_lengths() {
        let mut stream = Stream::new(&ADDRESSES, &[64, 1_518], [3, 5, 7].into_iter());
        stream.begin(77);
        for at in 0..12_u64 {
            let (head, rest) = stream.frame(1_000 + at);
            let frame = [&head[..], &vec![0; rest]].concat();
            assert_eq!(frame.len() + FCS_BYTES, if at % 2 == 0 { 64 } else { 1_518 });
            let headers = parse(&frame, &Offload::default()).unwrap();
            assert!(matches!(headers.l4, L4::Udp(udp) if usize::from(udp.len) == frame.len() - L4_AT), "{headers:?}");
            let flow = [3, 5, 7][usize::try_from(at % 3).unwrap()];
            assert_eq!(Mark::read(&frame, 9), Some(Mark { trial: 77, flow, number: at / 3, unix_ns: 1_000 + at }));
            stream.advance();
        }
    }

    #[test]
    fn what_is_no_test_frame_is_not_read() {
        let (head, _) = Stream::new(&ADDRESSES, &[64], 0..1).frame(1);
        assert!(Mark::read(&head, 9).is_some());
        assert_eq!(Mark::read(&head, 10), None, "another port");
        assert_eq!(Mark::read(&head[..59], 9), None, "too short");
        for at in [12, 14, 23, 42] {
            let mut other = head;
            other[at] ^= 1;
            assert_eq!(Mark::read(&other, 9), None, "byte {at}");
        }
    }

    #[test]
    fn the_announcement_is_the_receivers_own() {
        let receiver = Mac([2, 0, 0, 0, 0, 3]);
        let frame = ADDRESSES.announcement(receiver);
        let said = arp::read(&frame[L3_AT..]).unwrap();
        assert_eq!((said.sender_mac, said.sender_ip, said.target_ip), (receiver, ADDRESSES.dst_ip, ADDRESSES.dst_ip));
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &receiver.0[..]));
    }
}
