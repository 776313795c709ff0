//! Puts received packets, of a tunnel or plain ones, into a batch, and those that continue one another into one frame.
//!
//! For uplinks and pods' ports that get packets one by one. Several flows may be open at once; a frame has the place in the batch of its
//! first segment, and whatever else of its flow follows ends it, so that no flow is reordered. Nothing is held back: a
//! frame is in the batch from the first. What may be joined is `segment`'s affair.

use arrayvec::ArrayVec;

use crate::frame::{Batch, Frame, FramePool, Outer};
use crate::limits::{FRAME_BUFFER_BYTES, FRAME_BYTES_MAX, FRAME_HEADROOM_BYTES, RUNS_MAX};
use crate::segment::{Join, Run, Segment};
use crate::wire::vxlan;

/// The longest run fits a frame, with its tunnel header.
const _: () = assert!(vxlan::HEADER_LEN + FRAME_BYTES_MAX <= FRAME_BUFFER_BYTES - FRAME_HEADROOM_BYTES);

/// One flow's run, in the frame at a place of the batch.
#[derive(Debug)]
struct Open {
    at: usize,
    run: Run,
}

/// The runs of one receiving half, oldest first. [`Coalescer::finish`] ends them all before the batch is decided.
#[derive(Debug)]
pub struct Coalescer {
    open: ArrayVec<Open, RUNS_MAX>,
    /// Bytes of the tunnel's header in front of each Ethernet frame.
    tunnel_len: usize,
    /// Whether the last packet is of a run that is open.
    midstream: bool,
}

impl Coalescer {
    /// For what came out of a tunnel, from the VXLAN header on.
    #[must_use]
    pub fn of_tunnel() -> Self {
        Self { open: ArrayVec::new(), tunnel_len: vxlan::HEADER_LEN, midstream: false }
    }

    /// For Ethernet frames as they are.
    #[must_use]
    pub fn of_frames() -> Self {
        Self { open: ArrayVec::new(), tunnel_len: 0, midstream: false }
    }

    /// Adds a packet to a frame of the batch, or to the batch as a frame of its own; `outer` is of its tunnel. False, and
    /// nothing done, when there is no room or no buffer for another frame.
    pub fn add(
        &mut self,
        pool: &mut FramePool,
        batch: &mut Batch,
        bytes: &[u8],
        outer: impl Into<Option<Outer>>,
    ) -> bool {
        let outer = outer.into();
        let segment = bytes.get(self.tunnel_len..).and_then(Segment::read);
        if let Some(segment) = &segment
            && self.join(batch, bytes, segment, outer)
        {
            return true;
        }
        if batch.room() == 0 {
            return false;
        }
        let Some(mut frame) = pool.take() else { return false };
        frame.fill(bytes);
        frame.outer = outer;
        batch.push(frame);
        let run = segment.as_ref().and_then(Run::begin);
        self.midstream = run.is_some();
        if let Some(run) = run {
            if self.open.is_full() {
                let oldest = self.open.remove(0);
                self.close(batch, &oldest);
            }
            self.open.push(Open { at: batch.len() - 1, run });
        }
        true
    }

    /// Joins a segment to its flow's run, or ends that.
    fn join(&mut self, batch: &mut Batch, bytes: &[u8], segment: &Segment<'_>, outer: Option<Outer>) -> bool {
        for place in 0..self.open.len() {
            let open = &mut self.open[place];
            let frame = &mut batch.items_mut()[open.at].frame;
            let (tunnel, first) = frame.bytes().split_at(self.tunnel_len);
            if !segment.is_flow_of(first) {
                continue;
            }
            let same_tunnel = frame.outer == outer && bytes.starts_with(tunnel);
            let joined = if same_tunnel { open.run.join(first, segment) } else { Join::Refused };
            if joined != Join::Refused {
                let fits = frame.append(segment.payload());
                debug_assert!(fits, "a run is no longer than an IP packet, and a frame holds one");
            }
            self.midstream = joined == Join::Joined;
            if !self.midstream {
                let ended = self.open.remove(place);
                self.close(batch, &ended);
            }
            return joined != Join::Refused;
        }
        false
    }

    /// Ends all runs, to be called when a batch is handed over. True when the last packet's had not ended by itself: its
    /// sender has more to send.
    pub fn finish(&mut self, batch: &mut Batch) -> bool {
        while let Some(open) = self.open.pop() {
            self.close(batch, &open);
        }
        std::mem::take(&mut self.midstream)
    }

    fn close(&self, batch: &mut Batch, open: &Open) {
        let frame: &mut Frame = &mut batch.items_mut()[open.at].frame;
        if let Some(offload) = open.run.finish(&mut frame.bytes_mut()[self.tunnel_len..]) {
            // Said of the inner frame; the tunnel's header is in front of it.
            frame.pull(self.tunnel_len);
            frame.offload = offload;
            frame.push(self.tunnel_len);
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::limits::BATCH_FRAMES;
    use crate::wire::{checksum, tcp};

    const SIZE: u32 = 100;

    /// The `number`th segment of a flow's bytes, in a tunnel with this VNI.
    fn datagram(flow: u16, number: u32, vni: u8) -> Vec<u8> {
        let mut bytes = vec![8, 0, 0, 0, 0, 0, vni, 0];
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 1, 0, 1], [10, 2, 0, 1], 60);
        let payload = [u8::try_from(number).unwrap(); SIZE as usize];
        builder.tcp(flow, 80, number * SIZE, 500).ack(1).write(&mut bytes, &payload).unwrap();
        bytes
    }

    fn outer(last: u8, tos: u8) -> Outer {
        Outer { remote: [192, 0, 2, last].into(), tos }
    }

    /// What is in the batch: each frame's flow and segments.
    fn coalesced(datagrams: impl IntoIterator<Item = (Vec<u8>, Outer)>) -> Vec<(u16, usize)> {
        let (mut pool, mut batch, mut coalescer) = (FramePool::new(BATCH_FRAMES), Batch::new(), Coalescer::of_tunnel());
        for (bytes, outer) in datagrams {
            assert!(coalescer.add(&mut pool, &mut batch, &bytes, outer));
        }
        coalescer.finish(&mut batch);
        let port = |frame: &Frame| u16::from_be_bytes([frame.bytes()[8 + 34], frame.bytes()[8 + 35]]);
        batch.items().iter().map(|item| (port(&item.frame), item.frame.segments())).collect()
    }

    #[test]
    fn flows_that_are_interleaved_join_each_with_itself() {
        let datagrams = (0..30).map(|at| (datagram(1 + at % 3, u32::from(at / 3), 1), outer(1, 0)));
        assert_eq!(coalesced(datagrams), [(1, 10), (2, 10), (3, 10)]);
    }

    /// With other TCP flags; they are in the checksum.
    fn flagged(mut bytes: Vec<u8>, flags: u8) -> Vec<u8> {
        let (at, check) = (8 + 34 + 13, 8 + 34 + 16);
        let field = u16::from_be_bytes([bytes[check], bytes[check + 1]]);
        let changed = checksum::update(field, bytes[at].into(), flags.into());
        bytes[at] = flags;
        bytes[check..check + 2].copy_from_slice(&changed.to_be_bytes());
        bytes
    }

    #[test]
    fn a_burst_says_whether_its_last_packet_has_more_to_follow() {
        let (ack, push, fin) = (tcp::FLAG_ACK, tcp::FLAG_ACK | tcp::FLAG_PSH, tcp::FLAG_ACK | tcp::FLAG_FIN);
        for (flags, midstream) in [
            (&[ack][..], true),
            (&[ack, ack], true),
            (&[push], false),
            (&[ack, push], false),
            (&[fin], false),
            (&[ack, fin], false),
            (&[push, ack], true),
        ] {
            let (mut pool, mut batch, mut coalescer) = (FramePool::new(8), Batch::new(), Coalescer::of_tunnel());
            for (number, &flags) in (0..).zip(flags) {
                coalescer.add(&mut pool, &mut batch, &flagged(datagram(1, number, 1), flags), outer(1, 0));
            }
            assert_eq!(coalescer.finish(&mut batch), midstream, "{flags:?}");
            assert!(!coalescer.finish(&mut batch), "said once");
            coalescer.add(&mut pool, &mut batch, &flagged(datagram(2, 0, 1), ack), outer(1, 0));
            coalescer.add(&mut pool, &mut batch, b"no TCP", outer(1, 0));
            assert!(!coalescer.finish(&mut batch), "the last packet tells");
        }
    }

    #[test]
    fn more_flows_than_may_be_open_end_the_oldest() {
        let flows = u16::try_from(RUNS_MAX).unwrap() + 1;
        let round = |number| (1..=flows).map(move |flow| (datagram(flow, number, 1), outer(1, 0)));
        assert!(coalesced(round(0).chain(round(1))).iter().all(|&(_, segments)| segments == 1));
        let fitting = |number| round(number).skip(1);
        assert!(coalesced(fitting(0).chain(fitting(1))).iter().all(|&(_, segments)| segments == 2));
    }

    #[test]
    fn only_what_came_the_same_way_joins() {
        for (vni, second, segments) in
            [(1, outer(1, 0), 2), (2, outer(1, 0), 1), (1, outer(2, 0), 1), (1, outer(1, 3), 1)]
        {
            let frames = coalesced([(datagram(1, 0, 1), outer(1, 0)), (datagram(1, 1, vni), second)]);
            assert_eq!(frames[0], (1, segments), "{vni} {second:?}");
        }
    }

    #[test]
    fn frames_of_no_tunnel_join_alike() {
        let (mut pool, mut batch, mut coalescer) = (FramePool::new(2), Batch::new(), Coalescer::of_frames());
        for number in 0..3 {
            assert!(coalescer.add(&mut pool, &mut batch, &datagram(7, number, 1)[vxlan::HEADER_LEN..], None));
        }
        coalescer.finish(&mut batch);
        let frame = &batch.items()[0].frame;
        assert_eq!((batch.len(), frame.segments(), frame.outer), (1, 3, None));
        let headers = crate::wire::parse(frame.bytes(), &frame.offload).unwrap();
        assert_eq!(frame.len(), headers.header_len() + 3 * SIZE as usize);
    }

    #[test]
    fn the_offload_is_that_of_the_frame_with_its_tunnel_header() {
        let (mut pool, mut batch, mut coalescer) = (FramePool::new(2), Batch::new(), Coalescer::of_tunnel());
        for number in 0..3 {
            assert!(coalescer.add(&mut pool, &mut batch, &datagram(7, number, 1), outer(1, 0)));
        }
        coalescer.finish(&mut batch);
        let frame = &mut batch.items_mut()[0].frame;
        assert!(frame.pull(vxlan::HEADER_LEN));
        let headers = crate::wire::parse(frame.bytes(), &frame.offload).unwrap();
        let gso = frame.offload.gso.unwrap();
        assert_eq!((usize::from(gso.header_len), u32::from(gso.size)), (headers.header_len(), SIZE));
        assert_eq!(frame.bytes().len(), headers.header_len() + 3 * SIZE as usize);
    }

    #[test]
    fn what_finds_no_room_stays_with_the_caller_and_what_joins_needs_none() {
        let (mut pool, mut batch, mut coalescer) = (FramePool::new(1), Batch::new(), Coalescer::of_tunnel());
        assert!(coalescer.add(&mut pool, &mut batch, &datagram(1, 0, 1), outer(1, 0)));
        assert!(!coalescer.add(&mut pool, &mut batch, &datagram(2, 0, 1), outer(1, 0)));
        assert!(coalescer.add(&mut pool, &mut batch, &datagram(1, 1, 1), outer(1, 0)));
        assert!(!coalescer.add(&mut pool, &mut batch, &[], outer(1, 0)));
        coalescer.finish(&mut batch);
        assert_eq!((batch.len(), batch.items()[0].frame.segments()), (1, 2));
    }
}
