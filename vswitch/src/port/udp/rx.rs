//! The receiving half: datagrams, merged or not, become one frame each, in order.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::UdpStatus;
use crate::frame::{Batch, FramePool, Outer};
use crate::port::{PortRx, RxStatus};
use crate::sys::udp::{DATAGRAM_BUFFERS, ReceiveBuffers, UdpSocket};

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
            let end = bytes.len().min(start + datagram.segment);
            frame.fill(&bytes[start..end]);
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
