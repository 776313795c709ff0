//! One open device behind a pod's port or the host's: a TAP, or a veth pair with AF_XDP.

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::DeviceError;
use super::kept::{self, Kept};
use crate::compile::Device;
use crate::port::interface::{Interface, InterfaceSpec};
use crate::port::tap::TapPort;
use crate::port::veth::VethPort;
use crate::port::{PortCaps, PortTx};
use crate::switch::{PortHalves, RxHalves};
use crate::sys::netlink::Netlink;
use crate::sys::netns::{NetnsId, identity_of, is_gone};
use crate::sys::tap::TapOffloads;
use crate::sys::xsk::XskStatistics;

/// What the kernel has for it.
#[derive(Debug)]
enum Made {
    Tap(TapPort),
    Veth(VethPort),
}

/// One open device.
#[derive(Debug)]
pub(super) struct OpenPort {
    made: Made,
    pub(super) device: Device,
    /// Where the namespace was when it was opened; none for the host's.
    netns: Option<(PathBuf, NetnsId)>,
    /// The addresses it was given.
    addresses: Vec<IpNet>,
}

impl OpenPort {
    /// Opens a port's TAP with these offloads, as far as the kernel has them, or goes on with the queues that were kept of
    /// it. The new one is kept from here on.
    pub(super) fn tap(
        port: &str,
        spec: &InterfaceSpec,
        workers: usize,
        allowed: TapOffloads,
        kept: &mut Kept,
    ) -> Result<(Self, PortHalves), DeviceError> {
        let tap = match kept.claim(port, spec) {
            Some(queues) => TapPort::resume(spec, queues, allowed).inspect_err(|_| kept::drop_kept(port))?,
            None => {
                let tap = TapPort::open(spec, 1, allowed)?;
                kept::keep(port, &tap);
                tap
            }
        };
        let caps = tap.caps();
        let tx = (0..workers).map(|worker| -> Box<dyn PortTx> { Box::new(tap.tx(worker)) }).collect();
        let halves = PortHalves { rx: RxHalves::One(Box::new(tap.rx(0))), tx };
        Ok((Self::new(Made::Tap(tap), spec, caps), halves))
    }

    /// Opens a veth pair for a port, with AF_XDP.
    pub(super) fn veth(port: &str, spec: &InterfaceSpec, workers: usize) -> Result<(Self, PortHalves), DeviceError> {
        let (veth, halves) = VethPort::open(port, spec, workers)?;
        let tx = halves.tx.into_iter().map(|half| -> Box<dyn PortTx> { Box::new(half) }).collect();
        let halves = PortHalves { rx: RxHalves::One(Box::new(halves.rx)), tx };
        let open = Self::new(Made::Veth(veth), spec, PortCaps::NONE);
        if let Some(reason) = open.slow() {
            tracing::warn!(port, reason, "the port is slower than it could be");
        }
        Ok((open, halves))
    }

    fn new(made: Made, spec: &InterfaceSpec, caps: PortCaps) -> Self {
        let device = Device { mac: spec.mac, mtu: spec.mtu, caps };
        let addresses = spec.addresses.clone();
        let mut open = Self { made, device, netns: None, addresses };
        open.netns = spec.netns.clone().zip(open.interface().netns_id());
        open
    }

    /// What it is to the stack behind it.
    pub(super) fn interface(&self) -> &Interface {
        match &self.made {
            Made::Tap(tap) => tap.interface(),
            Made::Veth(veth) => veth.interface(),
        }
    }

    /// What the kernel granted; none for a device without offloads.
    pub(super) fn offloads(&self) -> Option<TapOffloads> {
        match &self.made {
            Made::Tap(tap) => Some(tap.offloads()),
            Made::Veth(_) => None,
        }
    }

    /// Why it is slower than its kind should be, where it is.
    pub(super) fn slow(&self) -> Option<String> {
        match &self.made {
            Made::Tap(_) => None,
            Made::Veth(veth) => veth.passed_over().map(|reason| format!("in {} mode: {reason}", veth.mode())),
        }
    }

    /// What the kernel counted of a veth's socket.
    pub(super) fn xsk_statistics(&self) -> Option<XskStatistics> {
        match &self.made {
            Made::Tap(_) => None,
            Made::Veth(veth) => Some(veth.statistics()),
        }
    }

    /// Makes it what a changed spec says, while frames flow.
    pub(super) fn update(&mut self, spec: &InterfaceSpec) -> Result<(), DeviceError> {
        let given = std::mem::replace(&mut self.addresses, spec.addresses.clone());
        self.device = Device { mac: spec.mac, mtu: spec.mtu, ..self.device };
        match &self.made {
            Made::Tap(tap) => Ok(tap.interface().update(spec, &given)?),
            Made::Veth(veth) => Ok(veth.update(spec, &given)?),
        }
    }

    /// Changes the MTU.
    pub(super) fn set_mtu(&mut self, mtu: u16) -> Result<(), DeviceError> {
        match &self.made {
            Made::Tap(tap) => tap.interface().set_mtu(mtu)?,
            Made::Veth(veth) => veth.set_mtu(mtu)?,
        }
        self.device.mtu = mtu;
        Ok(())
    }

    /// Whether it is this interface, of the namespace the path leads to now.
    pub(super) fn is_at(&self, netns: &Path, ifname: &str) -> bool {
        let here = self.netns.as_ref().is_some_and(|(path, id)| path == netns && identity_of(path) == Some(*id));
        here && self.interface().ifname() == ifname
    }

    /// Whether its namespace's path is gone or leads to another now.
    pub(super) fn is_lost(&self) -> bool {
        self.netns.as_ref().is_some_and(|(path, id)| is_gone(path, *id))
    }

    /// Whether the device was taken away behind our back and no worker would notice.
    pub(super) fn is_gone(&self, netlink: &mut Netlink) -> bool {
        match &self.made {
            Made::Tap(_) => false,
            Made::Veth(veth) => !veth.is_there(netlink),
        }
    }

    /// Has the service manager let go of it, so that it keeps no namespace alive.
    pub(super) fn release(&self, port: &str) {
        match &self.made {
            Made::Tap(_) => kept::drop_kept(port),
            Made::Veth(_) => {}
        }
    }

    fn remove(self) -> Result<(), DeviceError> {
        match self.made {
            Made::Tap(tap) => Ok(tap.remove()?),
            Made::Veth(veth) => Ok(veth.remove()?),
        }
    }
}

/// A device on its way out.
#[derive(Debug)]
pub struct Closing(pub(super) Option<OpenPort>);

impl Closing {
    /// Removes the interface. One that is gone already is fine.
    ///
    /// # Errors
    /// [`DeviceError`] when the kernel refuses.
    pub fn finish(self) -> Result<(), DeviceError> {
        self.0.map_or(Ok(()), OpenPort::remove)
    }
}
