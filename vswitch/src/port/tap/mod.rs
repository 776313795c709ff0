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

use ipnet::IpNet;
use nix::errno::Errno;

pub use setup::{GSO_BYTES_MAX, TUNNEL_GSO_BYTES_MAX, TapPortError, TapRoute, TapSpec};

use super::{Outgoing, PortCaps, PortRx, PortTx, RxStatus, TxError};
use crate::frame::{Batch, FramePool};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::{NetnsHandle, NetnsId, in_netns};
use crate::sys::tap::{TapOffloads, VNET_HEADER_BYTES, read_frame, write_frame};

/// A TAP device with its open queues.
#[derive(Debug)]
pub struct TapPort {
    ifname: String,
    index: u32,
    netns: Option<NetnsHandle>,
    queues: Vec<Arc<OwnedFd>>,
    offloads: TapOffloads,
}

impl TapPort {
    /// [`TapPort::open`] with one queue.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn create(spec: &TapSpec) -> Result<Self, TapPortError> {
        Self::open(spec, 1)
    }

    /// Makes the device, or attaches to the one left from before, and makes it what the spec says. A device left from
    /// before with one queue stays so; see [`TapPort::queues`].
    ///
    /// # Errors
    /// [`TapPortError`]; nothing is left behind that was not there.
    pub fn open(spec: &TapSpec, queues: usize) -> Result<Self, TapPortError> {
        let netns = spec.netns.as_deref().map(NetnsHandle::open).transpose()?;
        let (tap, index) = inside(netns.as_ref(), || setup::open_and_configure(spec, queues))??;
        let queues = tap.queues.into_iter().map(Arc::new).collect();
        Ok(Self { ifname: spec.ifname.clone(), index, netns, queues, offloads: tap.offloads })
    }

    /// The device's name.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// The namespace it lives in; none for the switch's own. Compare with `sys::netns::identity_of` to see whether the
    /// path still leads there.
    #[must_use]
    pub fn netns_id(&self) -> Option<NetnsId> {
        self.netns.as_ref().map(NetnsHandle::id)
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

    /// Makes the device what a changed spec says, while frames flow: addresses, MTU, MAC and routes. Namespace and name
    /// stay, `given` are the addresses of the spec before. A new MAC takes the device down for a moment.
    ///
    /// # Errors
    /// [`TapPortError`]; some of it may be done then.
    pub fn update(&self, spec: &TapSpec, given: &[IpNet]) -> Result<(), TapPortError> {
        self.configure(|netlink, index| {
            let link = netlink.link_at(index)?;
            setup::configure(netlink, spec, given, &link)
        })
    }

    /// Changes the MTU while frames flow.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn set_mtu(&self, mtu: u16) -> Result<(), TapPortError> {
        self.configure(|netlink, index| netlink.set_mtu(index, mtu.into()))
    }

    /// Makes the routes through the device exactly these: for the host TAP, the cluster's prefixes with the gateway's
    /// address as their source. Routes of others through it stay.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn sync_routes(&self, routes: &[TapRoute]) -> Result<(), TapPortError> {
        self.configure(|netlink, index| {
            let routes: Vec<_> = routes.iter().map(|route| setup::direct_route(route, index)).collect();
            netlink.sync_routes(index, &routes)
        })
    }

    /// Removes the device. The halves get [`RxStatus::Closed`] and [`TxError::Down`] from then on. A device that is
    /// gone already, with its namespace perhaps, is no error.
    ///
    /// # Errors
    /// [`TapPortError`].
    pub fn remove(self) -> Result<(), TapPortError> {
        self.configure(|netlink, index| match netlink.delete_link(index) {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        })
    }

    fn configure(
        &self,
        work: impl FnOnce(&mut Netlink, u32) -> Result<(), NetlinkError> + Send,
    ) -> Result<(), TapPortError> {
        let done = inside(self.netns.as_ref(), || work(&mut Netlink::open()?, self.index))?;
        done.map_err(|source| TapPortError::Netlink { ifname: self.ifname.clone(), source })
    }
}

fn inside<T: Send>(netns: Option<&NetnsHandle>, work: impl FnOnce() -> T + Send) -> Result<T, TapPortError> {
    match netns {
        Some(netns) => Ok(in_netns(netns, work)?),
        None => Ok(work()),
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
