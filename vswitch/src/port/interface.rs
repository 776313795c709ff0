//! The interface in front of a port's stack, whatever device it is: address, MTU, routes, up; the same again after a
//! restart changes nothing. How the device is made is the port kind's own affair.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::Mac;

use crate::sys::netlink::{Link, Netlink, NetlinkError, RouteSpec};
use crate::sys::netns::{NetnsError, NetnsHandle, NetnsId, in_netns, set_ipv4_conf, set_ipv6_conf};

/// Largest super-frame, in bytes, that the stack behind a TAP may build at all (`GSO_LEGACY_MAX_SIZE`).
pub const GSO_BYTES_MAX: u32 = 65_536;
/// The same where frames may leave through a tunnel. A little less, so that a frame with a VXLAN header added to each of
/// its segments (45 of them at an MTU of 1450) still fits one `UDP_SEGMENT` send of 65,507 bytes: measured 1.02 to
/// 1.13 times the kernel's VXLAN, against 0.75 with two sends.
pub const TUNNEL_GSO_BYTES_MAX: u32 = 62_000;

/// What can go wrong when an interface is set up.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its configuration.
    #[error("interface {ifname}: {source}")]
    Netlink {
        /// The interface's name.
        ifname: String,
        /// What went wrong.
        source: NetlinkError,
    },
    /// The name is another device's.
    #[error(
        "{ifname} exists and is a {kind} device, not this port's {wanted}; remove it (`ip link del {ifname}`) or use another name"
    )]
    OtherDevice {
        /// The interface's name.
        ifname: String,
        /// Its kind.
        kind: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A route through an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceRoute {
    /// Destinations.
    pub prefix: IpNet,
    /// Source address the stack prefers for them; one of the device's.
    pub prefsrc: Option<IpAddr>,
}

/// What a pod's interface, or the node's own, shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceSpec {
    /// Namespace it lives in; none for the switch's own, where the host's is.
    pub netns: Option<PathBuf>,
    /// Name in there.
    pub ifname: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest L3 packet in bytes.
    pub mtu: u16,
    /// Largest super-frame the stack behind it builds, in bytes: [`GSO_BYTES_MAX`] or [`TUNNEL_GSO_BYTES_MAX`].
    pub gso_bytes_max: u32,
    /// Its addresses, with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Default routes, at most one a family; none for the host.
    pub gateways: Vec<IpAddr>,
    /// Further routes through the device, such as the cluster's prefixes for the host.
    pub routes: Vec<InterfaceRoute>,
}

impl InterfaceSpec {
    /// An interface without addresses or routes.
    #[must_use]
    pub fn new(netns: Option<PathBuf>, ifname: &str, mac: Mac, mtu: u16) -> Self {
        let (addresses, gateways, routes) = (Vec::new(), Vec::new(), Vec::new());
        let ifname = ifname.to_owned();
        Self { netns, ifname, mac, mtu, gso_bytes_max: GSO_BYTES_MAX, addresses, gateways, routes }
    }

    /// The default routes and the others, as the kernel wants them.
    fn kernel_routes(&self, device: u32) -> Vec<RouteSpec> {
        let default = |gateway: &IpAddr| {
            let prefix = match gateway {
                IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
                IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
            };
            // An address as /32 or /128 leaves the gateway outside every subnet; it is on the link nevertheless.
            let onlink = !self.addresses.iter().any(|subnet| subnet.contains(gateway));
            RouteSpec { prefix, device, gateway: Some(*gateway), onlink, prefsrc: None }
        };
        let other = |route: &InterfaceRoute| direct_route(route, device);
        self.gateways.iter().map(default).chain(self.routes.iter().map(other)).collect()
    }
}

fn direct_route(route: &InterfaceRoute, device: u32) -> RouteSpec {
    RouteSpec { prefix: route.prefix, device, gateway: None, onlink: false, prefsrc: route.prefsrc }
}

/// An interface that is there, in its namespace.
#[derive(Debug)]
pub struct Interface {
    ifname: String,
    index: u32,
    netns: Option<NetnsHandle>,
}

impl Interface {
    pub(super) fn new(ifname: &str, index: u32, netns: Option<NetnsHandle>) -> Self {
        Self { ifname: ifname.to_owned(), index, netns }
    }

    /// Its name.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Its number in its namespace.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The namespace it lives in; none for the switch's own. Compare with `sys::netns::identity_of` to see whether the
    /// path still leads there.
    #[must_use]
    pub fn netns_id(&self) -> Option<NetnsId> {
        self.netns.as_ref().map(NetnsHandle::id)
    }

    /// Makes it what a changed spec says, while frames flow: addresses, MTU, MAC and routes. Namespace and name stay,
    /// `given` are the addresses of the spec before. A new MAC takes it down for a moment.
    ///
    /// # Errors
    /// [`InterfaceError`]; some of it may be done then.
    pub fn update(&self, spec: &InterfaceSpec, given: &[IpNet]) -> Result<(), InterfaceError> {
        self.configure(|netlink, index| {
            let link = netlink.link_at(index)?;
            configure(netlink, spec, given, &link)
        })
    }

    /// Changes the MTU while frames flow.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn set_mtu(&self, mtu: u16) -> Result<(), InterfaceError> {
        self.configure(|netlink, index| netlink.set_mtu(index, mtu.into()))
    }

    /// Makes the routes through it exactly these: for the host's, the cluster's prefixes with the gateway's address as
    /// their source. Routes of others through it stay.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn sync_routes(&self, routes: &[InterfaceRoute]) -> Result<(), InterfaceError> {
        self.configure(|netlink, index| {
            let routes: Vec<_> = routes.iter().map(|route| direct_route(route, index)).collect();
            netlink.sync_routes(index, &routes)
        })
    }

    /// What of it is not as the spec says, a sentence each.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn drifts(&self, spec: &InterfaceSpec) -> Result<Vec<String>, InterfaceError> {
        self.configure(|netlink, index| drifts(netlink, spec, index))
    }

    /// Removes the device. One that is gone already, with its namespace perhaps, is no error.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub(super) fn remove(&self) -> Result<(), InterfaceError> {
        self.configure(|netlink, index| match netlink.delete_link(index) {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        })
    }

    fn configure<T: Send>(
        &self,
        work: impl FnOnce(&mut Netlink, u32) -> Result<T, NetlinkError> + Send,
    ) -> Result<T, InterfaceError> {
        let done = inside(self.netns.as_ref(), || work(&mut Netlink::open()?, self.index))?;
        done.map_err(|source| InterfaceError::Netlink { ifname: self.ifname.clone(), source })
    }
}

/// Does something in a namespace, or in the calling thread's own.
pub(super) fn inside<T: Send>(netns: Option<&NetnsHandle>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    match netns {
        Some(netns) => in_netns(netns, work),
        None => Ok(work()),
    }
}

/// The refusal of a device that is not the port's though it has the name.
pub(super) fn other_device(link: &Link, wanted: &'static str) -> InterfaceError {
    let kind = link.kind.clone().unwrap_or_else(|| "physical".to_owned());
    InterfaceError::OtherDevice { ifname: link.name.clone(), kind, wanted }
}

/// Makes an existing device what the spec says; `given` are addresses it had by an earlier one.
pub(super) fn configure(
    netlink: &mut Netlink,
    spec: &InterfaceSpec,
    given: &[IpNet],
    link: &Link,
) -> Result<(), NetlinkError> {
    let new_mac = link.mac != Some(spec.mac);
    if new_mac && link.up {
        // The kernel derives the link-local IPv6 address from the MAC when the device comes up, and the switch's
        // spoof guard knows no other.
        netlink.set_down(link.index)?;
    }
    if new_mac {
        netlink.set_mac(link.index, spec.mac)?;
    }
    if link.mtu != u32::from(spec.mtu) {
        netlink.set_mtu(link.index, spec.mtu.into())?;
    }
    if link.gso_max_size != spec.gso_bytes_max {
        // Kernels before 4.16 refuse; super-frames are then longer and need two sends towards the uplink.
        let _slower = netlink.set_gso_max_size(link.index, spec.gso_bytes_max);
    }
    keep_neighbours(&spec.ifname);
    configure_ipv6(spec);
    if let Some(loopback) = netlink.find_link("lo")?.filter(|loopback| !loopback.up) {
        netlink.set_up(loopback.index)?;
    }
    // So that others' addresses of a subnet outlive ours.
    set_ipv4_conf(&spec.ifname, "promote_secondaries", "1");
    if new_mac || !link.up {
        netlink.set_up(link.index)?;
    }
    netlink.sync_addresses(link.index, &spec.addresses, given)?;
    netlink.sync_routes(link.index, &spec.kernel_routes(link.index))
}

/// What of a device is not as the spec says.
fn drifts(netlink: &mut Netlink, spec: &InterfaceSpec, index: u32) -> Result<Vec<String>, NetlinkError> {
    let name = &spec.ifname;
    let Some(link) = netlink.find_link(name)?.filter(|link| link.index == index) else {
        return Ok(vec![format!("interface {name} is gone")]);
    };
    let mut drifts = Vec::new();
    if !link.up {
        drifts.push(format!("interface {name} is down"));
    }
    if link.mac != Some(spec.mac) {
        let has = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        drifts.push(format!("the MAC of {name} is {has}, not {}", spec.mac));
    }
    if link.mtu != u32::from(spec.mtu) {
        drifts.push(format!("the MTU of {name} is {}, not {}", link.mtu, spec.mtu));
    }
    let addresses = netlink.addresses()?;
    for wanted in &spec.addresses {
        if !addresses.iter().any(|at| at.index == index && at.address == *wanted) {
            drifts.push(format!("{name} has lost its address {wanted}"));
        }
    }
    let routes = netlink.own_routes(index)?;
    for wanted in spec.kernel_routes(index) {
        if !routes.iter().any(|route| route.prefix == wanted.prefix && route.gateway == wanted.gateway) {
            let via = wanted.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            drifts.push(format!("the route to {}{via} through {name} is gone", wanted.prefix));
        }
    }
    Ok(drifts)
}

/// Has the stack remember its neighbours while podwired is away, which the kernel takes for a lost carrier: who asks anew
/// meanwhile gets no answer, and asks again only after a second. Linux 5.16 has these.
fn keep_neighbours(ifname: &str) {
    set_ipv4_conf(ifname, "arp_evict_nocarrier", "0");
    set_ipv6_conf(ifname, "ndisc_evict_nocarrier", "0");
}

/// Before the device is up, so that its link-local address is usable at once too: no duplicate address detection,
/// no router advertisements; and IPv6 on, which container runtimes switch off by default.
fn configure_ipv6(spec: &InterfaceSpec) {
    if spec.addresses.iter().any(|address| address.addr().is_ipv6()) {
        set_ipv6_conf(&spec.ifname, "disable_ipv6", "0");
    }
    for key in ["accept_dad", "dad_transmits", "accept_ra"] {
        set_ipv6_conf(&spec.ifname, key, "0");
    }
}
