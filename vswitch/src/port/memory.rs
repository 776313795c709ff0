//! A port without a device: two ends joined by bounded queues, for tests, simulation and benchmarks.
//!
//! The engine holds the halves, the test holds the [`MemoryPeer`]: what it injects is received, what is sent it takes,
//! each packet complete in one piece. The peer can also play a device that is full, down or refuses. Allocates.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::{Outgoing, PortCaps, PortRx, PortTx, RxStatus, TxError};
use crate::frame::{Batch, Encap, Frame, FramePool, Offload, Outer};

/// Frames each direction holds unless said otherwise.
pub const MEMORY_QUEUE_FRAMES: usize = 4_096;

/// One frame as the test sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryFrame {
    /// Its bytes, from the Ethernet header on (from the VXLAN header on, when `outer` is set).
    pub bytes: Vec<u8>,
    /// Checksum state and segmentation; plain for a packet that was cut from a frame.
    pub offload: Offload,
    /// What an uplink would know of it; only for injected frames.
    pub outer: Option<Outer>,
    /// The tunnel it was sent into; only for taken frames.
    pub encap: Option<Encap>,
}

impl MemoryFrame {
    /// A complete packet.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    /// With this checksum state and segmentation.
    #[must_use]
    pub fn with_offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// As received by an uplink; the bytes then start at the VXLAN header.
    #[must_use]
    pub fn with_outer(mut self, outer: Outer) -> Self {
        self.outer = Some(outer);
        self
    }

    /// Writes it into a frame.
    pub(super) fn fill(&self, frame: &mut Frame) {
        frame.fill(&self.bytes);
        frame.offload = self.offload;
        frame.outer = self.outer;
    }
}

/// The engine's side.
#[derive(Debug)]
pub struct MemoryPort {
    /// Receives what the peer injects.
    pub rx: MemoryRx,
    /// Sends to the peer; clone it, one a worker.
    pub tx: MemoryTx,
    /// What the port was said to take.
    pub caps: PortCaps,
}

impl MemoryPort {
    /// A port and its peer, with queues of [`MEMORY_QUEUE_FRAMES`].
    #[must_use]
    pub fn pair(caps: PortCaps) -> (Self, MemoryPeer) {
        Self::pair_with_capacity(caps, MEMORY_QUEUE_FRAMES)
    }

    /// A port and its peer whose queues hold `frames` each way; one more is [`TxError::Full`].
    #[must_use]
    pub fn pair_with_capacity(caps: PortCaps, frames: usize) -> (Self, MemoryPeer) {
        let (inject, injected) = bounded(frames);
        let (send, sent) = bounded(frames);
        let answer = Arc::new(Answer::default());
        let tx = MemoryTx { frames: send, answer: Arc::clone(&answer) };
        (Self { rx: MemoryRx { frames: injected }, tx, caps }, MemoryPeer { inject, sent, answer })
    }
}

/// What the device answers to every send, packed into a word so that sending takes no lock: 0 is none, else the low
/// byte says which and the rest is a path MTU.
#[derive(Debug, Default)]
struct Answer {
    word: AtomicU64,
    refuses_super_frames: AtomicBool,
}

impl Answer {
    fn set(&self, error: Option<TxError>) {
        let word = match error {
            None => 0,
            Some(TxError::Full) => 1,
            Some(TxError::Down) => 2,
            Some(TxError::Refused) => 3,
            Some(TxError::TooBig { path_mtu: None }) => 4,
            Some(TxError::TooBig { path_mtu: Some(mtu) }) => 5 | u64::from(mtu) << 8,
        };
        self.word.store(word, Ordering::Release);
    }

    fn get(&self) -> Result<(), TxError> {
        let word = self.word.load(Ordering::Acquire);
        Err(match word & 0xff {
            0 => return Ok(()),
            1 => TxError::Full,
            2 => TxError::Down,
            3 => TxError::Refused,
            4 => TxError::TooBig { path_mtu: None },
            _ => TxError::TooBig { path_mtu: u16::try_from(word >> 8).ok() },
        })
    }
}

/// The test's side. Dropping it is the device going away: [`RxStatus::Closed`] and [`TxError::Down`].
#[derive(Debug)]
pub struct MemoryPeer {
    inject: Sender<MemoryFrame>,
    sent: Receiver<MemoryFrame>,
    answer: Arc<Answer>,
}

impl MemoryPeer {
    /// Lets the port receive a frame. False, and the frame lost, when the queue is full or the port gone.
    pub fn inject(&self, frame: MemoryFrame) -> bool {
        self.inject.try_send(frame).is_ok()
    }

    /// Takes all that was sent so far, in order.
    #[must_use]
    pub fn take(&self) -> Vec<MemoryFrame> {
        self.sent.try_iter().collect()
    }

    /// Frames that wait to be received.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inject.len()
    }

    /// What every send ends in from now on; none for what the queue says.
    pub fn answer_with(&self, error: Option<TxError>) {
        self.answer.set(error);
    }

    /// From now on sends of uncut super-frames end in [`TxError::Refused`], whatever the port was said to take.
    pub fn refuse_super_frames(&self) {
        self.answer.refuses_super_frames.store(true, Ordering::Release);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct MemoryRx {
    frames: Receiver<MemoryFrame>,
}

impl PortRx for MemoryRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        for _ in 0..budget.min(batch.room()) {
            let Some(mut frame) = pool.take() else { return RxStatus::More };
            match self.frames.try_recv() {
                Ok(received) => {
                    received.fill(&mut frame);
                    batch.push(frame);
                }
                Err(nothing) => {
                    pool.give(frame);
                    return match nothing {
                        TryRecvError::Empty => RxStatus::Drained,
                        TryRecvError::Disconnected => RxStatus::Closed,
                    };
                }
            }
        }
        RxStatus::More
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The sending half.
#[derive(Clone, Debug)]
pub struct MemoryTx {
    frames: Sender<MemoryFrame>,
    answer: Arc<Answer>,
}

impl PortTx for MemoryTx {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        self.answer.get()?;
        let uncut = out.pieces.is_none() && out.frame.offload.gso.is_some();
        if uncut && self.answer.refuses_super_frames.load(Ordering::Acquire) {
            return Err(TxError::Refused);
        }
        let offload = if out.pieces.is_some() { Offload::default() } else { out.frame.offload };
        for (header, payload) in out.packets() {
            let frame =
                MemoryFrame { bytes: [header, payload].concat(), offload, outer: None, encap: out.encap.copied() };
            self.frames.try_send(frame).map_err(|refused| match refused {
                TrySendError::Full(_) => TxError::Full,
                TrySendError::Disconnected(_) => TxError::Down,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::frame::{Checksum, Gso, GsoKind};
    use crate::port::{Piece, Pieces};

    fn frame(bytes: &[u8]) -> Frame {
        let mut frame = Frame::new();
        frame.fill(bytes);
        frame
    }

    #[test]
    fn what_is_injected_is_received_with_its_side_information() {
        let (mut port, peer) = MemoryPort::pair(PortCaps::ALL);
        let (mut pool, mut batch) = (FramePool::new(4), Batch::new());
        let outer = Outer { remote: IpAddr::V4(Ipv4Addr::LOCALHOST), tos: 3 };
        let offload = Offload { checksum: Checksum::Good, gso: None };
        assert!(peer.inject(MemoryFrame::new([1, 2, 3]).with_offload(offload).with_outer(outer)));
        assert!(peer.inject(MemoryFrame::new([4])));
        assert_eq!(port.rx.rx(&mut pool, &mut batch, 1), RxStatus::More);
        assert_eq!((batch.len(), peer.waiting()), (1, 1));
        let first = &batch.items()[0].frame;
        assert_eq!((first.bytes(), first.offload, first.outer), (&[1, 2, 3][..], offload, Some(outer)));
        assert_eq!(port.rx.rx(&mut pool, &mut batch, 9), RxStatus::Drained);
        drop(peer);
        assert_eq!(port.rx.rx(&mut pool, &mut batch, 9), RxStatus::Closed);
        assert_eq!((batch.len(), pool.free()), (2, 2));
    }

    #[test]
    fn an_empty_pool_loses_nothing() {
        let (mut port, peer) = MemoryPort::pair(PortCaps::ALL);
        peer.inject(MemoryFrame::new([1]));
        assert_eq!(port.rx.rx(&mut FramePool::new(0), &mut Batch::new(), 9), RxStatus::More);
        assert_eq!(peer.waiting(), 1);
    }

    #[test]
    fn a_cut_frame_is_taken_as_complete_packets_and_a_whole_one_with_its_offload() {
        let (mut port, peer) = MemoryPort::pair(PortCaps::ALL);
        let mut whole = frame(&[10, 11, 12, 13]);
        let gso = Gso { kind: GsoKind::Udp, size: 2, header_len: 0 };
        whole.offload = Offload { checksum: Checksum::Good, gso: Some(gso) };
        let list = [Piece { header: (0, 1), payload: (0, 2) }, Piece { header: (1, 1), payload: (2, 2) }];
        let pieces = Some(Pieces { headers: &[1, 2], list: &list });
        port.tx.tx(&Outgoing { frame: &whole, pieces, encap: None }).unwrap();
        port.tx.tx(&Outgoing { frame: &whole, pieces: None, encap: None }).unwrap();
        let expected = [
            MemoryFrame::new([1, 10, 11]),
            MemoryFrame::new([2, 12, 13]),
            MemoryFrame::new([10, 11, 12, 13]).with_offload(whole.offload),
        ];
        assert_eq!(peer.take(), expected);
    }

    #[test]
    fn the_queue_and_the_peer_decide_what_a_send_ends_in() {
        let (mut port, peer) = MemoryPort::pair_with_capacity(PortCaps::ALL, 1);
        let frame = frame(&[1]);
        let out = Outgoing { frame: &frame, pieces: None, encap: None };
        assert_eq!(port.tx.tx(&out), Ok(()));
        assert_eq!(port.tx.tx(&out), Err(TxError::Full));
        assert_eq!(peer.take().len(), 1);
        for error in [
            TxError::Full,
            TxError::Down,
            TxError::Refused,
            TxError::TooBig { path_mtu: None },
            TxError::TooBig { path_mtu: Some(1_450) },
        ] {
            peer.answer_with(Some(error));
            assert_eq!(port.tx.clone().tx(&out), Err(error));
        }
        peer.answer_with(None);
        assert_eq!(port.tx.tx(&out), Ok(()));
        drop(peer);
        assert_eq!(port.tx.tx(&out), Err(TxError::Down));
    }
}
