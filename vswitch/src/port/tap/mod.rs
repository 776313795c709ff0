//! TAP ports: a pod's interface or the node's own, with super-frames and partial checksums carried both ways.
//!
//! A [`TapPort`] is the device with its queues; it gives out receiving halves (one a queue) and sending halves (as
//! many as there are workers: writing to a TAP is safe from several threads). The device is persistent: dropping the
//! halves leaves it to a restart, [`TapPort::remove`] ends it. A pod's namespace lives as long as any half does.

mod setup;
pub mod vnet;

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use setup::Found;
pub use setup::TapPortError;

use super::interface::{Interface, InterfaceError, InterfaceSpec, inside};
use super::{Outgoing, PortCaps, PortRx, PortTx, RxStatus, TxError};
use crate::frame::{Batch, FramePool};
use crate::sys::netns::NetnsHandle;
use crate::sys::tap::{self, OpenTap, TapError, TapOffloads, VNET_HEADER_BYTES, read_frame, write_frame};

/// A TAP device with its open queues.
#[derive(Debug)]
pub struct TapPort {
    interface: Interface,
    queues: Vec<Arc<OwnedFd>>,
    offloads: TapOffloads,
}

impl TapPort {
    /// [`TapPort::open`] with one queue and all offloads.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn create(spec: &InterfaceSpec) -> Result<Self, TapPortError> {
        Self::open(spec, 1, TapOffloads::ALL)
    }

    /// Makes the device, or attaches to the one left from before, and makes it what the spec says. A device left from
    /// before with one queue stays so; see [`TapPort::queues`]. Offloads are those allowed, as far as the kernel has them.
    ///
    /// # Errors
    /// [`TapPortError`]; nothing is left behind that was not there.
    pub fn open(spec: &InterfaceSpec, queues: usize, allowed: TapOffloads) -> Result<Self, TapPortError> {
        Self::set_up(spec, Found::Configured, || tap::open(&spec.ifname, queues, allowed))
    }

    /// The same with one queue, but a device left from before stays as it is until [`Interface::update`]: frames need not
    /// wait for that. With `kept` it goes on with queues of this very device that were open all the time
    /// ([`tap::identify`]), and what lies in them.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn attach(
        spec: &InterfaceSpec,
        kept: Option<Vec<OwnedFd>>,
        allowed: TapOffloads,
    ) -> Result<Self, TapPortError> {
        Self::set_up(spec, Found::AsItIs, || match kept {
            Some(queues) => tap::resume(&spec.ifname, queues, allowed),
            None => tap::open(&spec.ifname, 1, allowed),
        })
    }

    fn set_up(
        spec: &InterfaceSpec,
        found: Found,
        open: impl FnOnce() -> Result<OpenTap, TapError> + Send,
    ) -> Result<Self, TapPortError> {
        let netns = spec.netns.as_deref().map(NetnsHandle::open).transpose().map_err(InterfaceError::from)?;
        let opened = inside(netns.as_ref(), || setup::open_and_configure(spec, found, open));
        let (tap, index) = opened.map_err(InterfaceError::from)??;
        let queues = tap.queues.into_iter().map(Arc::new).collect();
        Ok(Self { interface: Interface::new(&spec.ifname, index, netns), queues, offloads: tap.offloads })
    }

    /// What it is to the stack behind it.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The queues' descriptors.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.as_fd())
    }

    /// Queues it has, each with one receiving half.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Offloads the kernel granted.
    #[must_use]
    pub fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    /// What it takes, which goes by what was granted.
    #[must_use]
    pub fn caps(&self) -> PortCaps {
        let TapOffloads { checksum, tso, uso, tso_ecn: _ } = self.offloads;
        PortCaps { checksum, tcp4: tso, tcp6: tso, udp: uso }
    }

    /// The receiving half of one queue. Each queue is for one worker.
    #[must_use]
    pub fn rx(&self, queue: usize) -> TapRx {
        TapRx { queue: Arc::clone(&self.queues[queue % self.queues.len()]) }
    }

    /// A sending half for a worker. Frames written through a queue make the kernel answer on that queue.
    #[must_use]
    pub fn tx(&self, worker: usize) -> TapTx {
        TapTx { queue: Arc::clone(&self.queues[worker % self.queues.len()]) }
    }

    /// Removes the device. The halves get [`RxStatus::Closed`] and [`TxError::Down`] from then on. A device that is
    /// gone already, with its namespace perhaps, is no error.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn remove(self) -> Result<(), TapPortError> {
        Ok(self.interface.remove()?)
    }
}

/// Receives what the stack behind the TAP sends.
#[derive(Debug)]
pub struct TapRx {
    queue: Arc<OwnedFd>,
}

impl PortRx for TapRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        for _ in 0..budget.min(batch.room()) {
            let Some(mut frame) = pool.take() else { return RxStatus::More };
            let mut header = [0; VNET_HEADER_BYTES];
            match read_frame(self.queue.as_fd(), &mut header, frame.space_mut()) {
                Ok(len) => {
                    frame.set_len(len);
                    frame.offload = vnet::read(header);
                    batch.push(frame);
                }
                Err(errno) => {
                    pool.give(frame);
                    return match errno {
                        Errno::EAGAIN => RxStatus::Drained,
                        Errno::EINTR => RxStatus::More,
                        // EBADFD: the device was removed, by us, by hand or with its namespace.
                        _ => RxStatus::Closed,
                    };
                }
            }
        }
        RxStatus::More
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.as_fd())
    }
}

/// Sends to the stack behind the TAP.
#[derive(Clone, Debug)]
pub struct TapTx {
    queue: Arc<OwnedFd>,
}

impl PortTx for TapTx {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        // Packets that were cut are complete in themselves; the frame's offload is that of the whole.
        let header = if out.pieces.is_some() { vnet::COMPLETE } else { vnet::write(&out.frame.offload) };
        for (headers, payload) in out.packets() {
            let spans = [IoSlice::new(&header), IoSlice::new(headers), IoSlice::new(payload)];
            write_frame(self.queue.as_fd(), &spans).map_err(tx_error)?;
        }
        Ok(())
    }
}

fn tx_error(errno: Errno) -> TxError {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => TxError::Full,
        Errno::EIO | Errno::EBADFD | Errno::ENODEV | Errno::ENETDOWN => TxError::Down,
        _ => TxError::Refused,
    }
}

#[cfg(test)]
mod tests;
