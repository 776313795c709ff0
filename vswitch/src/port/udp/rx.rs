//! The receiving half: datagrams, merged by the kernel or not, become frames in order; TCP segments that continue one
//! another become one ([`Coalescer`]).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::UdpStatus;
use crate::frame::{Batch, FramePool, Gso, GsoKind, Outer};
use crate::limits::BATCH_FRAMES;
use crate::port::{Coalescer, PortRx, RxStatus};
use crate::sys::udp::{DATAGRAM_BUFFERS, ReceiveBuffers, UdpSocket};
use crate::wire::{ethernet, ipv4, ipv6, vxlan};

/// Buffers a burst fills when they are long: a few, so that what one call brings stays in cache until it is sent.
const MERGED_BUFFERS: usize = 4;
/// Bytes a buffer has on average when the kernel merges datagrams.
const MERGED_BYTES: usize = 8_192;

/// Receives from one socket. A burst that does not fit the batch waits here for the next call.
#[derive(Debug)]
pub struct UdpRx {
    socket: UdpSocket,
    buffers: ReceiveBuffers,
    /// The buffer to continue with, and the byte in it.
    next: (usize, usize),
    coalescer: Coalescer,
    /// Buffers to fill in the next burst.
    wanted: usize,
    status: Arc<UdpStatus>,
}

impl UdpRx {
    pub(super) fn new(socket: UdpSocket, status: Arc<UdpStatus>) -> Self {
        Self {
            socket,
            buffers: ReceiveBuffers::new(),
            next: (0, 0),
            coalescer: Coalescer::of_tunnel(),
            wanted: MERGED_BUFFERS,
            status,
        }
    }

    /// Whether received datagrams wait for room in a batch.
    fn has_pending(&self) -> bool {
        self.next.0 < self.buffers.len()
    }

    /// Moves pending datagrams into the batch, until that has `frames_max` frames. Stops early when the batch is full or
    /// the pool empty.
    fn deliver(&mut self, pool: &mut FramePool, batch: &mut Batch, frames_max: usize) {
        while self.next.0 < self.buffers.len() && batch.len() < frames_max {
            let (at, start) = self.next;
            let (datagram, bytes) = self.buffers.datagram(at);
            let outer = Outer { remote: datagram.remote, tos: datagram.tos };
            let whole = start == 0 && datagram.segment < bytes.len() && is_one_frame(bytes);
            let end = if whole { bytes.len() } else { bytes.len().min(start + datagram.segment) };
            if whole {
                let Some(mut frame) = pool.take() else { break };
                frame.fill(bytes);
                frame.outer = Some(outer);
                let size = u16::try_from(datagram.segment).unwrap_or(u16::MAX);
                frame.offload.gso = Some(Gso { kind: GsoKind::Udp, size, header_len: 0 });
                batch.push(frame);
            } else if !self.coalescer.add(pool, batch, &bytes[start..end], outer) {
                break;
            }
            self.next = if end == bytes.len() { (at + 1, 0) } else { (at, end) };
        }
    }

    /// Hands over what is pending, or else one burst.
    fn receive(&mut self, pool: &mut FramePool, batch: &mut Batch, frames_max: usize) -> RxStatus {
        let mut last = false;
        if !self.has_pending() {
            last = match self.fetch() {
                Ok(last) => last,
                Err(status) => return status,
            };
        }
        self.deliver(pool, batch, frames_max);
        if last && !self.has_pending() { RxStatus::Drained } else { RxStatus::More }
    }

    /// Fetches the next burst: says whether it was the socket's last, or the status to end with.
    fn fetch(&mut self) -> Result<bool, RxStatus> {
        let before = self.buffers.truncated();
        let wanted = self.wanted;
        let received = self.socket.recv_many(&mut self.buffers, wanted);
        self.next = (0, 0);
        self.status.truncated.fetch_add(self.buffers.truncated() - before, Ordering::Relaxed);
        match received {
            // Fewer than asked for: the socket was empty, which saves asking again. epoll is level-triggered.
            Ok(count) => {
                self.wanted = next_burst(wanted, count, self.buffers.bytes());
                Ok(count < wanted)
            }
            Err(Errno::EAGAIN) => Err(RxStatus::Drained),
            Err(Errno::EBADF | Errno::ENOTSOCK) => Err(RxStatus::Closed),
            Err(_) => {
                // A pending error of the socket, such as an ICMP answer to something sent; it is cleared by reading.
                self.status.receive_errors.fetch_add(1, Ordering::Relaxed);
                Err(RxStatus::More)
            }
        }
    }
}

/// How many buffers to fill next, after `count` of `wanted` were, with so many bytes: more when short datagrams filled
/// them all, few when they are long or did not come.
fn next_burst(wanted: usize, count: usize, bytes: usize) -> usize {
    if bytes > count * MERGED_BYTES || count < MERGED_BUFFERS {
        MERGED_BUFFERS
    } else if count == wanted {
        DATAGRAM_BUFFERS
    } else {
        wanted
    }
}

/// Whether a buffer that the kernel gives a segment size for is one VXLAN datagram nevertheless. On a veth a kernel
/// tunnel hands over an inner UDP super-frame as it is, and the size is that of the inner datagrams, which the inner IP
/// header tells: it spans all of the buffer, where merged datagrams have one each.
fn is_one_frame(bytes: &[u8]) -> bool {
    let inner = bytes.get(vxlan::HEADER_LEN..).unwrap_or_default();
    let packet = inner.get(ethernet::HEADER_LEN..).unwrap_or_default();
    match ethernet::View::new(inner).map(ethernet::View::ethertype) {
        Some(ethernet::ETHERTYPE_IPV4) => {
            ipv4::View::new(packet).is_some_and(|view| usize::from(view.total_len()) == packet.len())
        }
        Some(ethernet::ETHERTYPE_IPV6) => ipv6::View::new(packet)
            .is_some_and(|view| ipv6::HEADER_LEN + usize::from(view.payload_len()) == packet.len()),
        _ => false,
    }
}

impl PortRx for UdpRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let frames_max = batch.len() + budget.min(batch.room());
        if frames_max == batch.len() {
            return RxStatus::More;
        }
        let status = self.receive(pool, batch, frames_max);
        status.in_midstream(self.coalescer.finish(batch))
    }

    /// A burst is bounded in bytes by [`Self::fetch`], and all of it together is what segments are joined in.
    fn step_frames(&self) -> usize {
        BATCH_FRAMES
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VXLAN datagram whose inner IPv4 packet says it is `total_len` bytes long, with `len` bytes behind Ethernet.
    fn datagram(total_len: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; vxlan::HEADER_LEN + ethernet::HEADER_LEN + len];
        let ethertype = vxlan::HEADER_LEN + 12;
        bytes[ethertype..ethertype + 2].copy_from_slice(&ethernet::ETHERTYPE_IPV4.to_be_bytes());
        bytes[ethertype + 2] = 0x45;
        bytes[ethertype + 4..ethertype + 6].copy_from_slice(&total_len.to_be_bytes());
        bytes
    }

    #[test]
    fn bursts_grow_when_short_datagrams_fill_them() {
        for (wanted, count, bytes, next) in [
            (4, 4, 4 * 1_500, 64),
            (64, 64, 64 * 1_500, 64),
            (64, 40, 40 * 1_500, 64),
            (64, 2, 2 * 1_500, 4),
            (64, 5, 5 * 62_000, 4),
            (4, 0, 0, 4),
        ] {
            assert_eq!(next_burst(wanted, count, bytes), next, "{count} of {wanted}");
        }
    }

    #[test]
    fn a_buffer_is_one_frame_when_its_inner_packet_spans_it() {
        assert!(is_one_frame(&datagram(7_000, 7_000)));
        assert!(!is_one_frame(&datagram(1_450, 7_000)), "the first of several that the kernel merged");
        assert!(!is_one_frame(&datagram(7_001, 7_000)));
        assert!(!is_one_frame(&[0; 21]), "too short to say");
    }
}
