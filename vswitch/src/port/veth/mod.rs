//! veth-xdp ports: a pod's interface as one end of a veth pair, whose other end the switch serves with AF_XDP. For small
//! packets; super-frames are cut before they get here, since AF_XDP carries none, nor checksums left to do.
//!
//! The switch's end is in the switch's own namespace, receives on one queue and has a queue to send on for each worker, so
//! that each has a socket of its own. A [`VethPort`] is what the control side keeps; the halves are made once, when it is
//! opened. The pair survives the process, and with it the pod's addresses and connections; [`VethPort::remove`] ends it.

mod setup;

use std::os::fd::BorrowedFd;

use ipnet::IpNet;

pub use setup::{VethPortError, device_name, remove_leftover};

use super::interface::{Interface, InterfaceSpec};
use super::{Coalescer, Flushed, Outgoing, PortRx, PortTx, RxStatus, TURN_BYTES, TxError};
use crate::frame::{Batch, FramePool};
use crate::limits::BATCH_FRAMES;
use crate::sys::bpf::AttachMode;
use crate::sys::netlink::Netlink;
use crate::sys::xsk::{SLOT_DATA_BYTES, Slot, XskReceiver, XskSender, XskStatistics, XskWatch};

/// A veth pair that is served.
#[derive(Debug)]
pub struct VethPort {
    /// The pod's end.
    interface: Interface,
    /// The switch's end.
    device: Interface,
    mode: AttachMode,
    passed_over: Option<String>,
    watch: XskWatch,
}

/// What workers get of a port.
#[derive(Debug)]
pub struct VethHalves {
    /// The one receiving half.
    pub rx: VethRx,
    /// A sending half for each worker.
    pub tx: Vec<VethTx>,
}

impl VethPort {
    /// Makes the pair, or takes over the one that `port` left from before, and makes the pod's end what the spec says: with
    /// the checksum offload off, since nobody on this side would complete a sum. The halves are for this many workers.
    ///
    /// # Errors
    /// [`VethPortError`]; nothing is left behind that was not there.
    pub fn open(port: &str, spec: &InterfaceSpec, workers: usize) -> Result<(Self, VethHalves), VethPortError> {
        setup::open(port, spec, workers)
    }

    /// The pod's end.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Name of the switch's end.
    #[must_use]
    pub fn device(&self) -> &str {
        self.device.ifname()
    }

    /// Where the kernel runs the program.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Why it does not run in the driver, where it does not.
    #[must_use]
    pub fn passed_over(&self) -> Option<&str> {
        self.passed_over.as_deref()
    }

    /// Makes the pod's end what a changed spec says; see [`Interface::update`].
    ///
    /// # Errors
    /// [`VethPortError`]; some of it may be done then.
    pub fn update(&self, spec: &InterfaceSpec, given: &[IpNet]) -> Result<(), VethPortError> {
        setup::check_mtu(&spec.ifname, spec.mtu)?;
        Ok(self.interface.update(spec, given)?)
    }

    /// Changes the MTU while frames flow.
    ///
    /// # Errors
    /// [`VethPortError`].
    pub fn set_mtu(&self, mtu: u16) -> Result<(), VethPortError> {
        setup::check_mtu(self.interface.ifname(), mtu)?;
        Ok(self.interface.set_mtu(mtu)?)
    }

    /// What the kernel counted of the receiving socket: frames that were lost before they became frames of ours.
    #[must_use]
    pub fn statistics(&self) -> XskStatistics {
        // A socket that does not say any more counts nothing any more.
        self.watch.statistics().unwrap_or_default()
    }

    /// Whether the pair is still there; it goes with either end. True when the kernel does not say.
    pub fn is_there(&self, netlink: &mut Netlink) -> bool {
        let found = netlink.find_link(self.device.ifname());
        found.map_or(true, |link| link.is_some_and(|link| link.index == self.device.index()))
    }

    /// Removes the pair. A pair that is gone already, with its namespace perhaps, is no error.
    ///
    /// # Errors
    /// [`VethPortError`].
    pub fn remove(self) -> Result<(), VethPortError> {
        Ok(self.device.remove()?)
    }
}

/// Receives what the pod sends. Never says [`RxStatus::Closed`]: an AF_XDP socket tells poll nothing of its device's end, so
/// that the control side looks after it ([`VethPort::is_there`]).
#[derive(Debug)]
pub struct VethRx {
    socket: XskReceiver,
    coalescer: Coalescer,
}

impl VethRx {
    fn new(socket: XskReceiver) -> Self {
        Self { socket, coalescer: Coalescer::of_frames() }
    }

    /// Copies a frame into the batch, which has room for it.
    fn add(&mut self, slot: Slot, pool: &mut FramePool, batch: &mut Batch) {
        let bytes = self.socket.bytes(&slot);
        let added = self.coalescer.add(pool, batch, bytes, None);
        debug_assert!(added, "there was room for a frame");
        // With the longest MTU a frame fits a slot; if ever one did not, its rest would be no frame.
        debug_assert!(!slot.is_continued(), "a frame in several slots");
        self.socket.release(slot);
    }
}

impl PortRx for VethRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let frames_max = batch.len() + budget.min(batch.room()).min(pool.free());
        let mut status = RxStatus::More;
        let mut bytes = 0;
        while batch.len() < frames_max && bytes < TURN_BYTES {
            let Some(slot) = self.socket.receive() else {
                status = RxStatus::Drained;
                break;
            };
            bytes += self.socket.bytes(&slot).len();
            self.add(slot, pool, batch);
        }
        self.coalescer.finish(batch);
        self.socket.refill_when_due(status == RxStatus::Drained);
        status
    }

    /// A burst is bounded in bytes, and all of it together is what segments are joined in.
    fn step_frames(&self) -> usize {
        BATCH_FRAMES
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd())
    }
}

/// Sends to the pod, on the queue of one worker.
#[derive(Debug)]
pub struct VethTx {
    socket: XskSender,
}

impl VethTx {
    fn new(socket: XskSender) -> Self {
        Self { socket }
    }
}

impl PortTx for VethTx {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        for (headers, payload) in out.packets() {
            // The socket may send it in several slots, and the pair would drop it.
            if headers.len() + payload.len() > SLOT_DATA_BYTES {
                return Err(TxError::TooBig { path_mtu: None });
            }
            self.socket.send_packet(&[headers, payload]).map_err(|_full| TxError::Full)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Flushed {
        self.socket.kick_all();
        Flushed { has_unsent: self.socket.wants_kick(), ..Flushed::default() }
    }
}

#[cfg(test)]
mod tests;
