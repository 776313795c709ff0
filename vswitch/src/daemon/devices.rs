//! The devices behind the ports: opened as the objects say, watched, and taken away again.
//!
//! Knows how a pod's TAP, the host's TAP and the uplink are to be made; not what is forwarded between them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use podwire_control::model::{self, Mac};

use super::config::{Config, Offloads, Uplink, UplinkMtu, Vxlan, XdpUplink as XdpConfig};
use super::netns_dirs::OutsideNetnsDirs;
use super::underlay::Underlay;
use crate::compile::{Device, HOST_PORT, NodeSpec, UPLINK_PORT};
use crate::port::tap::{GSO_BYTES_MAX, TUNNEL_GSO_BYTES_MAX, TapPort, TapPortError, TapRoute, TapSpec};
use crate::port::udp::{UdpSpec, UdpStatus, UdpUplink};
use crate::port::xdp::{Ways, XdpAttachment, XdpError, XdpSpec, XdpStatus, XdpTxSpec, XdpUplink};
use crate::port::{PortCaps, PortRx, PortTx};
use crate::switch::{PortHalves, RxHalves};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::{NetnsId, identity_of};
use crate::sys::tap::TapOffloads;
use crate::sys::udp::UdpError;

/// MTU of the underlay when there is none to ask: Ethernet's.
const DEFAULT_UNDERLAY_MTU: u16 = 1_500;

/// A device can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Where the pod's namespace is.
    #[error(transparent)]
    Netns(#[from] OutsideNetnsDirs),
    /// A TAP.
    #[error(transparent)]
    Tap(#[from] TapPortError),
    /// The uplink's sockets.
    #[error("uplink: {0}")]
    Udp(#[from] UdpError),
    /// The uplink's NIC.
    #[error("uplink: {0}")]
    Xdp(#[from] XdpError),
    /// The kernel does not say which interface bears the uplink's address.
    #[error("uplink: {0}")]
    Netlink(#[from] NetlinkError),
    /// No interface bears it.
    #[error("no interface has the uplink's address {0}; give the node that address, or correct uplink.address")]
    NoSuchAddress(IpAddr),
}

/// One open TAP.
#[derive(Debug)]
struct OpenTap {
    tap: TapPort,
    device: Device,
    /// Where the namespace was when the TAP was opened; none for the host's.
    netns: Option<(PathBuf, NetnsId)>,
    /// The addresses it was given.
    addresses: Vec<IpNet>,
}

/// All open devices.
#[derive(Debug)]
pub struct Devices {
    workers: usize,
    /// Largest super-frame a TAP's stack may build, in bytes.
    gso_bytes_max: u32,
    allowed: Offloads,
    taps: HashMap<String, OpenTap>,
    uplink: Option<Arc<UdpStatus>>,
    /// Of an `xdp` uplink; or why there is none though one was asked for.
    xdp: Option<Result<XdpAttachment, String>>,
    /// Of an uplink that sends through AF_XDP.
    underlay: Option<Underlay>,
    /// What the compiler is told: name to MAC, MTU and caps.
    table: HashMap<String, Device>,
}

impl Devices {
    /// None open yet; each will have halves for this many workers, and use the offloads that are allowed. Where there is
    /// an uplink, super-frames are kept short enough for a tunnel.
    #[must_use]
    pub fn new(workers: usize, has_uplink: bool, allowed: Offloads) -> Self {
        let gso_bytes_max = if has_uplink { TUNNEL_GSO_BYTES_MAX } else { GSO_BYTES_MAX };
        let (taps, table) = (HashMap::new(), HashMap::new());
        Self { workers, gso_bytes_max, allowed, taps, uplink: None, xdp: None, underlay: None, table }
    }

    /// What the compiler is told.
    #[must_use]
    pub fn table(&self) -> &HashMap<String, Device> {
        &self.table
    }

    /// Whether the port's device is open.
    #[must_use]
    pub fn is_open(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// What the kernel granted a TAP.
    #[must_use]
    pub fn offloads(&self, name: &str) -> Option<TapOffloads> {
        self.taps.get(name).map(|open| open.tap.offloads())
    }

    /// How the uplink fares.
    #[must_use]
    pub fn uplink(&self) -> Option<&UdpStatus> {
        self.uplink.as_deref()
    }

    /// How an `xdp` uplink fares; or why the UDP sockets alone serve, though one was asked for.
    #[must_use]
    pub fn xdp(&self) -> Option<Result<&XdpStatus, &str>> {
        self.xdp.as_ref().map(|xdp| xdp.as_ref().map(XdpAttachment::status).map_err(String::as_str))
    }

    /// The underlay, where the uplink sends through AF_XDP.
    #[must_use]
    pub fn underlay(&self) -> Option<&Underlay> {
        self.underlay.as_ref()
    }

    /// Looks at the underlay for these remote VTEPs, where the uplink sends through AF_XDP.
    pub fn look_at_underlay(&mut self, remotes: impl IntoIterator<Item = IpAddr>) {
        if let Some(underlay) = &mut self.underlay {
            underlay.look(remotes);
        }
    }

    /// Opens a pod's TAP, or attaches to the one that is left from before.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind then.
    pub fn open_pod(&mut self, port: &model::Port, node: &NodeSpec, mtu: u16) -> Result<PortHalves, DeviceError> {
        self.open_tap(port.name.as_str(), &self.pod_spec(port, node, mtu))
    }

    /// Whether a port's TAP is open and is the interface the port names, which is still where its namespace's path leads.
    #[must_use]
    pub fn is_at(&self, port: &model::Port) -> bool {
        self.taps.get(port.name.as_str()).is_some_and(|open| {
            let here = open.netns.as_ref().filter(|(path, id)| *path == port.netns && identity_of(path) == Some(*id));
            here.is_some() && open.tap.ifname() == port.ifname
        })
    }

    /// Brings an open pod's TAP in line with its changed port, while frames flow.
    ///
    /// # Errors
    /// [`DeviceError`]; some of it may be done then.
    pub fn update_pod(&mut self, port: &model::Port, node: &NodeSpec, mtu: u16) -> Result<(), DeviceError> {
        let spec = self.pod_spec(port, node, mtu);
        let Some(open) = self.taps.get_mut(port.name.as_str()) else { return Ok(()) };
        let given = std::mem::replace(&mut open.addresses, spec.addresses.clone());
        open.device = Device { mac: spec.mac, mtu: spec.mtu, ..open.device };
        self.table.insert(port.name.to_string(), open.device);
        Ok(open.tap.update(&spec, &given)?)
    }

    /// What a pod's TAP is to be: as its port says, with a default route a family it has on the pods' segment.
    fn pod_spec(&self, port: &model::Port, node: &NodeSpec, mtu: u16) -> TapSpec {
        let mut spec =
            TapSpec::new(Some(port.netns.clone()), &port.ifname, port.mac_in_force(), port.mtu.unwrap_or(mtu));
        spec.gso_bytes_max = self.gso_bytes_max;
        spec.addresses.clone_from(&port.addresses);
        let on_segment = port.bridge.is_none();
        let has_family = |gateway: &IpAddr| port.addresses.iter().any(|own| own.addr().is_ipv4() == gateway.is_ipv4());
        spec.gateways = node.gateways().filter(|gateway| on_segment && has_family(gateway)).collect();
        spec
    }

    /// Opens the host's TAP in this process's own namespace, with the routes to the cluster.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind then.
    pub fn open_host(&mut self, interface: &str, node: &NodeSpec, mtu: u16) -> Result<PortHalves, DeviceError> {
        let mut spec = TapSpec::new(None, interface, node.gateway_mac(), mtu);
        spec.gso_bytes_max = self.gso_bytes_max;
        spec.addresses = node.gateways().map(IpNet::from).collect();
        spec.routes = host_routes(node);
        self.open_tap(HOST_PORT, &spec)
    }

    /// Brings the host's routes in line with changed cluster CIDRs.
    ///
    /// # Errors
    /// [`DeviceError`] when the kernel refuses one.
    pub fn sync_host_routes(&self, node: &NodeSpec) -> Result<(), DeviceError> {
        match self.taps.get(HOST_PORT) {
            Some(host) => Ok(host.tap.sync_routes(&host_routes(node))?),
            None => Ok(()),
        }
    }

    /// Changes the MTU of every TAP that did not ask for one of its own, and notes the underlay's as the uplink's.
    ///
    /// # Errors
    /// The first [`DeviceError`]; the other TAPs are changed all the same.
    pub fn set_mtu(&mut self, own: impl Fn(&str) -> bool, mtu: u16, underlay: u16) -> Result<(), DeviceError> {
        if let Some(uplink) = self.table.get_mut(UPLINK_PORT) {
            uplink.mtu = underlay;
        }
        let mut first_error = Ok(());
        for (name, open) in self.taps.iter_mut().filter(|(name, _)| !own(name)) {
            match open.tap.set_mtu(mtu) {
                Ok(()) => {
                    open.device.mtu = mtu;
                    self.table.insert(name.clone(), open.device);
                }
                Err(error) if first_error.is_ok() => first_error = Err(error.into()),
                Err(_) => {}
            }
        }
        first_error
    }

    fn open_tap(&mut self, name: &str, spec: &TapSpec) -> Result<PortHalves, DeviceError> {
        let Offloads { checksum, tso, uso, .. } = self.allowed;
        let offloads = TapOffloads { checksum, tso, tso_ecn: tso, uso };
        let tap = TapPort::open(&TapSpec { offloads, ..spec.clone() }, 1)?;
        let device = Device { mac: spec.mac, mtu: spec.mtu, caps: tap.caps() };
        let netns = spec.netns.clone().zip(tap.netns_id());
        let tx = (0..self.workers).map(|worker| -> Box<dyn PortTx> { Box::new(tap.tx(worker)) }).collect();
        let halves = PortHalves { rx: RxHalves::One(Box::new(tap.rx(0))), tx };
        self.taps.insert(name.to_owned(), OpenTap { tap, device, netns, addresses: spec.addresses.clone() });
        self.table.insert(name.to_owned(), device);
        Ok(halves)
    }

    /// Opens the uplink's sockets: the UDP ones always, and those on the NIC where there are any. The UDP ones are
    /// visited first, since what passes to them was sent before what follows it on the NIC.
    ///
    /// # Errors
    /// [`DeviceError`] when an address can not be bound, or the NIC can not be used. With a free choice of mode and a NIC
    /// that can do none of them, the UDP sockets serve alone.
    pub fn open_uplink(&mut self, uplink: &Uplink, vxlan: Vxlan, mtu: u16) -> Result<PortHalves, DeviceError> {
        let (addresses, checksum) = (uplink.addresses().collect(), vxlan.outer_checksum);
        let Offloads { udp_segment: segmentation, udp_gro: merging, .. } = self.allowed;
        let spec = UdpSpec { addresses, port: vxlan.port, workers: self.workers, segmentation, merging, checksum };
        let open = UdpUplink::open(&spec)?;
        self.uplink = Some(open.status);
        self.table.insert(UPLINK_PORT.to_owned(), Device { mac: Mac::ZERO, mtu, caps: PortCaps::NONE });
        let mut xdp = match uplink.xdp() {
            Some(xdp) => self.open_xdp(uplink, xdp, vxlan.port)?,
            None => None,
        };
        let ways = Arc::new(Ways::default());
        let sending = XdpTxSpec { ways: Arc::clone(&ways), port: vxlan.port, checksum };
        let mut rx: Vec<Vec<Box<dyn PortRx>>> = Vec::new();
        let mut tx: Vec<Box<dyn PortTx>> = Vec::new();
        for (worker, halves) in open.workers.into_iter().enumerate() {
            rx.push(halves.rx.into_iter().map(|half| -> Box<dyn PortRx> { Box::new(half) }).collect());
            tx.push(match &mut xdp {
                Some(xdp) => xdp.sending_half(worker, halves.tx, &sending),
                None => Box::new(halves.tx),
            });
        }
        if let Some(xdp) = xdp {
            for (own, halves) in rx.iter_mut().zip(xdp.workers) {
                own.extend(halves.into_iter().map(|half| -> Box<dyn PortRx> { Box::new(half) }));
            }
            let (status, device) = (xdp.attachment.status(), uplink.device.as_deref().unwrap_or_default());
            tracing::info!(
                device,
                mode = %status.mode(),
                queues = status.queues(),
                senders = status.senders(),
                "the uplink receives through AF_XDP"
            );
            if status.senders() > 0 {
                self.underlay = Some(Underlay::open(device, uplink.addresses().collect(), ways)?);
            }
            self.xdp = Some(Ok(xdp.attachment));
        }
        Ok(PortHalves { rx: RxHalves::PerWorker(rx), tx })
    }

    /// Opens the sockets on the NIC; none when the NIC can not do it and need not.
    fn open_xdp(&mut self, uplink: &Uplink, xdp: &XdpConfig, port: u16) -> Result<Option<XdpUplink>, DeviceError> {
        let (device, addresses) = (xdp.device.clone(), uplink.addresses().collect());
        let spec = XdpSpec { device, addresses, port, mode: xdp.mode, tx: xdp.tx, workers: self.workers };
        match XdpUplink::open(&spec) {
            Ok(open) => Ok(Some(open)),
            Err(error) if xdp.mode.is_none() && error.is_inability() => {
                tracing::warn!(device = xdp.device, %error, "the uplink uses UDP sockets only");
                self.xdp = Some(Err(error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a port's device out of the table; [`Closing::finish`] ends it, once no worker has its halves any more.
    #[must_use]
    pub fn close(&mut self, name: &str) -> Closing {
        self.table.remove(name);
        Closing { tap: self.taps.remove(name).map(|open| open.tap) }
    }

    /// Ports whose namespace path is gone or leads to another namespace now.
    #[must_use]
    pub fn vanished(&self) -> Vec<String> {
        let gone = |open: &OpenTap| open.netns.as_ref().is_some_and(|(path, id)| identity_of(path) != Some(*id));
        self.taps.iter().filter(|(_, open)| gone(open)).map(|(name, _)| name.clone()).collect()
    }
}

/// A device on its way out.
#[derive(Debug)]
pub struct Closing {
    tap: Option<TapPort>,
}

impl Closing {
    /// Removes the interface. One that is gone already is fine.
    ///
    /// # Errors
    /// [`DeviceError`] when the kernel refuses.
    pub fn finish(self) -> Result<(), DeviceError> {
        match self.tap {
            Some(tap) => Ok(tap.remove()?),
            None => Ok(()),
        }
    }
}

/// What the node routes through the switch: the cluster, or at least its own pods; its source is the gateway.
fn host_routes(node: &NodeSpec) -> Vec<TapRoute> {
    let own = node.pod_cidrs.iter().filter(|pods| !node.cluster_cidrs.iter().any(|all| all.contains(*pods)));
    let prefixes = node.cluster_cidrs.iter().chain(own);
    prefixes
        .map(|&prefix| TapRoute {
            prefix,
            prefsrc: node.gateways().find(|gateway| gateway.is_ipv4() == prefix.addr().is_ipv4()),
        })
        .collect()
}

/// The underlay's MTU: as configured, or that of the interface that bears the uplink's address, the smaller of the two
/// where there are two.
///
/// # Errors
/// [`DeviceError`] when no interface bears an address.
pub fn underlay_mtu(config: &Config) -> Result<u16, DeviceError> {
    let Some(uplink) = &config.uplink else { return Ok(DEFAULT_UNDERLAY_MTU) };
    if let UplinkMtu::Bytes(mtu) = uplink.mtu {
        return Ok(mtu);
    }
    let mut netlink = Netlink::open()?;
    let mut smallest = u16::MAX;
    for address in uplink.addresses() {
        let link = netlink.link_of_address(address)?.ok_or(DeviceError::NoSuchAddress(address))?;
        smallest = smallest.min(u16::try_from(link.mtu).unwrap_or(u16::MAX));
    }
    Ok(smallest)
}
