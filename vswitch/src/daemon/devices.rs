//! The devices behind the ports: opened as the objects say, watched, and taken away again.
//!
//! Knows how a pod's interface, the host's TAP and the uplink are to be made; not what is forwarded between them.

mod kept;
mod open;
mod start;
mod together;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use podwire_control::model::{self, Mac, PortKind};

pub use self::open::Closing;
use self::open::OpenPort;
pub(super) use self::start::AtStart;
pub(super) use self::together::together;
use super::config::{Config, Offloads, Uplink, UplinkMtu, Vxlan, XdpUplink as XdpConfig};
use super::netns_dirs::OutsideNetnsDirs;
use super::underlay::Underlay;
use crate::compile::{Device, HOST_PORT, NodeSpec, UPLINK_PORT};
use crate::port::interface::{GSO_BYTES_MAX, InterfaceError, InterfaceRoute, InterfaceSpec, TUNNEL_GSO_BYTES_MAX};
use crate::port::tap::TapPortError;
use crate::port::udp::{UdpSpec, UdpStatus, UdpUplink};
use crate::port::veth::VethPortError;
use crate::port::xdp::{Ways, XdpAttachment, XdpError, XdpSpec, XdpStatus, XdpTxSpec, XdpUplink};
use crate::port::{PortCaps, PortRx, PortTx};
use crate::switch::{PortHalves, RxHalves};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::tap::TapOffloads;
use crate::sys::udp::UdpError;
use crate::sys::xsk::XskStatistics;

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
    /// A veth pair.
    #[error(transparent)]
    Veth(#[from] VethPortError),
    /// The interface either is to the stack behind it.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
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

/// All open devices.
#[derive(Debug)]
pub struct Devices {
    workers: usize,
    /// Largest super-frame a TAP's stack may build, in bytes.
    gso_bytes_max: u32,
    allowed: Offloads,
    ports: HashMap<String, OpenPort>,
    /// What the kernel had counted for veth-xdp ports that were closed; none while there was none.
    closed_veths: Option<XskStatistics>,
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
        let (ports, table) = (HashMap::new(), HashMap::new());
        let (closed_veths, uplink, xdp, underlay) = (None, None, None, None);
        Self { workers, gso_bytes_max, allowed, ports, closed_veths, uplink, xdp, underlay, table }
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
        self.ports.get(name).and_then(OpenPort::offloads)
    }

    /// Ports that are slower than their kind should be, and why.
    pub fn slow_ports(&self) -> impl Iterator<Item = (&str, String)> {
        self.ports.iter().filter_map(|(name, open)| Some((name.as_str(), open.slow()?)))
    }

    /// What the kernel counted for all veth-xdp ports since the start; none when there was none.
    #[must_use]
    pub fn veth_statistics(&self) -> Option<XskStatistics> {
        let open = self.ports.values().filter_map(OpenPort::xsk_statistics);
        open.chain(self.closed_veths).reduce(|sum, one| sum + one)
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

    /// Opens a pod's device, or attaches to the one that is left from before.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind then.
    pub fn open_pod(&mut self, port: &model::Port, node: &NodeSpec, mtu: u16) -> Result<PortHalves, DeviceError> {
        let (spec, name) = (self.pod_spec(port, node, mtu), port.name.as_str());
        let opened = match port.kind {
            PortKind::Tap => OpenPort::tap(name, &spec, self.workers, self.tap_offloads()),
            PortKind::VethXdp => OpenPort::veth(name, &spec, self.workers),
        };
        opened.map(|opened| self.keep(name, opened))
    }

    /// What TAPs may do.
    fn tap_offloads(&self) -> TapOffloads {
        let Offloads { checksum, tso, uso, .. } = self.allowed;
        TapOffloads { checksum, tso, tso_ecn: tso, uso }
    }

    fn keep(&mut self, name: &str, (open, halves): (OpenPort, PortHalves)) -> PortHalves {
        self.table.insert(name.to_owned(), open.device);
        self.ports.insert(name.to_owned(), open);
        halves
    }

    /// Whether a port's device is open and is the interface the port names, which is still where its namespace's path
    /// leads.
    #[must_use]
    pub fn is_at(&self, port: &model::Port) -> bool {
        self.ports.get(port.name.as_str()).is_some_and(|open| open.is_at(&port.netns, &port.ifname))
    }

    /// Brings an open pod's device in line with its changed port, while frames flow.
    ///
    /// # Errors
    /// [`DeviceError`]; some of it may be done then.
    pub fn update_pod(&mut self, port: &model::Port, node: &NodeSpec, mtu: u16) -> Result<(), DeviceError> {
        let spec = self.pod_spec(port, node, mtu);
        let Some(open) = self.ports.get_mut(port.name.as_str()) else { return Ok(()) };
        let done = open.update(&spec);
        self.table.insert(port.name.to_string(), open.device);
        done
    }

    /// What of a pod's open device is not as its port says, a sentence each.
    ///
    /// # Errors
    /// [`DeviceError`] when it can not be looked at.
    pub fn drifts(&self, port: &model::Port, node: &NodeSpec, mtu: u16) -> Result<Vec<String>, DeviceError> {
        match self.ports.get(port.name.as_str()) {
            Some(open) => Ok(open.interface().drifts(&self.pod_spec(port, node, mtu))?),
            None => Ok(vec![format!("port {} is not open", port.name)]),
        }
    }

    /// What a pod's interface is to be: as its port says, with a default route a family it has on the pods' segment.
    fn pod_spec(&self, port: &model::Port, node: &NodeSpec, mtu: u16) -> InterfaceSpec {
        let mut spec =
            InterfaceSpec::new(Some(port.netns.clone()), &port.ifname, port.mac_in_force(), port.mtu.unwrap_or(mtu));
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
        let spec = self.host_spec(interface, node, mtu);
        let opened = OpenPort::tap(HOST_PORT, &spec, self.workers, self.tap_offloads());
        opened.map(|opened| self.keep(HOST_PORT, opened))
    }

    fn host_spec(&self, interface: &str, node: &NodeSpec, mtu: u16) -> InterfaceSpec {
        let mut spec = InterfaceSpec::new(None, interface, node.gateway_mac(), mtu);
        spec.gso_bytes_max = self.gso_bytes_max;
        spec.addresses = node.gateways().map(IpNet::from).collect();
        spec.routes = host_routes(node);
        spec
    }

    /// Brings the host's routes in line with changed cluster CIDRs.
    ///
    /// # Errors
    /// [`DeviceError`] when the kernel refuses one.
    pub fn sync_host_routes(&self, node: &NodeSpec) -> Result<(), DeviceError> {
        match self.ports.get(HOST_PORT) {
            Some(host) => Ok(host.interface().sync_routes(&host_routes(node))?),
            None => Ok(()),
        }
    }

    /// Changes the MTU of every interface that did not ask for one of its own, and notes the underlay's as the uplink's.
    ///
    /// # Errors
    /// The first [`DeviceError`]; the other interfaces are changed all the same.
    pub fn set_mtu(&mut self, own: impl Fn(&str) -> bool, mtu: u16, underlay: u16) -> Result<(), DeviceError> {
        if let Some(uplink) = self.table.get_mut(UPLINK_PORT) {
            uplink.mtu = underlay;
        }
        let mut first_error = Ok(());
        for (name, open) in self.ports.iter_mut().filter(|(name, _)| !own(name)) {
            match open.set_mtu(mtu) {
                Ok(()) => {
                    self.table.insert(name.clone(), open.device);
                }
                Err(error) if first_error.is_ok() => first_error = Err(error),
                Err(_) => {}
            }
        }
        first_error
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
                self.underlay =
                    Some(Underlay::open(device, status.send_bytes_max(), uplink.addresses().collect(), ways)?);
            }
            self.xdp = Some(Ok(xdp.attachment));
        }
        Ok(PortHalves { rx: RxHalves::PerWorker(rx), tx })
    }

    /// Opens the sockets on the NIC; none when the NIC can not do it and need not.
    fn open_xdp(&mut self, uplink: &Uplink, xdp: &XdpConfig, port: u16) -> Result<Option<XdpUplink>, DeviceError> {
        let (device, addresses) = (xdp.device.clone(), uplink.addresses().collect());
        let spec = XdpSpec {
            device,
            addresses,
            port,
            mode: xdp.mode,
            tx: xdp.tx,
            busy_poll: xdp.busy_poll,
            workers: self.workers,
        };
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
        let open = self.ports.remove(name);
        if let Some(open) = &open {
            open.release(name);
        }
        if let Some(counted) = open.as_ref().and_then(OpenPort::xsk_statistics) {
            self.closed_veths = Some(self.closed_veths.unwrap_or_default() + counted);
        }
        Closing(open)
    }

    /// Ports whose device is gone, of those whose workers do not notice.
    #[must_use]
    pub fn gone(&self) -> Vec<String> {
        let Ok(mut netlink) = Netlink::open() else { return Vec::new() };
        self.ports.iter().filter(|(_, open)| open.is_gone(&mut netlink)).map(|(name, _)| name.clone()).collect()
    }

    /// Ports whose namespace path is gone or leads to another namespace now.
    #[must_use]
    pub fn vanished(&self) -> Vec<String> {
        self.ports.iter().filter(|(_, open)| open.is_lost()).map(|(name, _)| name.clone()).collect()
    }
}

/// What the node routes through the switch: the cluster, or at least its own pods; its source is the gateway.
fn host_routes(node: &NodeSpec) -> Vec<InterfaceRoute> {
    let own = node.pod_cidrs.iter().filter(|pods| !node.cluster_cidrs.iter().any(|all| all.contains(*pods)));
    let prefixes = node.cluster_cidrs.iter().chain(own);
    prefixes
        .map(|&prefix| InterfaceRoute {
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
