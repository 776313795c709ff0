//! The receiving half: datagrams, merged or not, become one frame each, in order.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::UdpStatus;
use crate::frame::{Batch, FramePool, Gso, GsoKind, Outer};
use crate::port::{PortRx, RxStatus};
use crate::sys::udp::{DATAGRAM_BUFFERS, ReceiveBuffers, UdpSocket};
use crate::wire::{ethernet, ipv4, ipv6, vxlan};

/// Receives from one socket. A burst that does not fit the batch waits here for the next call.
#[derive(Debug)]
pub struct UdpRx {
    socket: UdpSocket,
    buffers: ReceiveBuffers,
    /// The buffer to continue with, and the byte in it.
    next: (usize, usize),
    status: Arc<UdpStatus>,
}

impl UdpRx {
    pub(super) fn new(socket: UdpSocket, status: Arc<UdpStatus>) -> Self {
        Self { socket, buffers: ReceiveBuffers::new(), next: (0, 0), status }
    }

    /// Whether received datagrams wait for room in a batch.
    fn has_pending(&self) -> bool {
        self.next.0 < self.buffers.len()
    }

    /// Moves pending datagrams into the batch, at most `budget`; gives how many. Stops early when the batch is full or
    /// the pool empty.
    fn deliver(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> usize {
        let mut delivered = 0;
        while self.next.0 < self.buffers.len() && delivered < budget && batch.room() > 0 {
            let (at, start) = self.next;
            let (datagram, bytes) = self.buffers.datagram(at);
            let Some(mut frame) = pool.take() else { break };
            let whole = start == 0 && datagram.segment < bytes.len() && is_one_frame(bytes);
            let end = if whole { bytes.len() } else { bytes.len().min(start + datagram.segment) };
            frame.fill(&bytes[start..end]);
            if whole {
                let size = u16::try_from(datagram.segment).unwrap_or(u16::MAX);
                frame.offload.gso = Some(Gso { kind: GsoKind::Udp, size, header_len: 0 });
            }
            frame.outer = Some(Outer { remote: datagram.remote, tos: datagram.tos });
            batch.push(frame);
            delivered += 1;
            self.next = if end == bytes.len() { (at + 1, 0) } else { (at, end) };
        }
        delivered
    }

    /// Fetches the next burst: says whether it was the socket's last, or the status to end with.
    fn fetch(&mut self) -> Result<bool, RxStatus> {
        let before = self.buffers.truncated();
        let received = self.socket.recv_many(&mut self.buffers);
        self.next = (0, 0);
        self.status.truncated.fetch_add(self.buffers.truncated() - before, Ordering::Relaxed);
        match received {
            // Fewer than asked for: the socket was empty, which saves asking again. epoll is level-triggered.
            Ok(count) => Ok(count < DATAGRAM_BUFFERS),
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
        let mut left = budget.min(batch.room());
        while left > 0 {
            let mut last_burst = false;
            if !self.has_pending() {
                last_burst = match self.fetch() {
                    Ok(last) => last,
                    Err(status) => return status,
                };
            }
            left -= self.deliver(pool, batch, left);
            match (self.has_pending(), last_burst) {
                (true, _) => return RxStatus::More,
                (false, true) => return RxStatus::Drained,
                (false, false) => {}
            }
        }
        RxStatus::More
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
    fn a_buffer_is_one_frame_when_its_inner_packet_spans_it() {
        assert!(is_one_frame(&datagram(7_000, 7_000)));
        assert!(!is_one_frame(&datagram(1_450, 7_000)), "the first of several that the kernel merged");
        assert!(!is_one_frame(&datagram(7_001, 7_000)));
        assert!(!is_one_frame(&[0; 21]), "too short to say");
    }
}
