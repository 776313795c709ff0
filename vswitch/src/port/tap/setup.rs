//! Making a TAP what its port says: address, MTU, routes, up; the same again after a restart changes nothing.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podwire_control::model::Mac;

use crate::sys::netlink::{Link, Netlink, NetlinkError, RouteSpec};
use crate::sys::netns::{NetnsError, set_ipv4_conf, set_ipv6_conf};
use crate::sys::tap::{LINK_KIND, OpenTap, TapError, TapOffloads, open};

/// Largest super-frame, in bytes, that the stack behind a TAP may build at all (`GSO_LEGACY_MAX_SIZE`).
pub const GSO_BYTES_MAX: u32 = 65_536;
/// The same where frames may leave through a tunnel. A little less, so that a frame with a VXLAN header added to each of
/// its segments (45 of them at an MTU of 1450) still fits one `UDP_SEGMENT` send of 65,507 bytes: measured 1.02 to
/// 1.13 times the kernel's VXLAN, against 0.75 with two sends.
pub const TUNNEL_GSO_BYTES_MAX: u32 = 62_000;

/// What can go wrong when a TAP port is set up.
#[derive(Debug, thiserror::Error)]
pub enum TapPortError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Its configuration.
    #[error("TAP {ifname}: {source}")]
    Netlink {
        /// The device's name.
        ifname: String,
        /// What went wrong.
        source: NetlinkError,
    },
    /// The name is another device's.
    #[error("{ifname} exists and is a {kind} device, no TAP; remove it (`ip link del {ifname}`) or use another name")]
    OtherDevice {
        /// The device's name.
        ifname: String,
        /// Its kind.
        kind: String,
    },
}

/// A route through a TAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapRoute {
    /// Destinations.
    pub prefix: IpNet,
    /// Source address the stack prefers for them; one of the device's.
    pub prefsrc: Option<IpAddr>,
}

/// What a TAP port shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapSpec {
    /// Namespace the device lives in; none for the switch's own, where the host TAP is.
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
    pub routes: Vec<TapRoute>,
    /// Offloads to use, as far as the kernel has them.
    pub offloads: TapOffloads,
}

impl TapSpec {
    /// A device without addresses or routes, with all offloads.
    #[must_use]
    pub fn new(netns: Option<PathBuf>, ifname: &str, mac: Mac, mtu: u16) -> Self {
        let (addresses, gateways, routes) = (Vec::new(), Vec::new(), Vec::new());
        let ifname = ifname.to_owned();
        let (gso_bytes_max, offloads) = (GSO_BYTES_MAX, TapOffloads::ALL);
        Self { netns, ifname, mac, mtu, gso_bytes_max, addresses, gateways, routes, offloads }
    }

    /// The default routes and the others, as the kernel wants them.
    pub(super) fn kernel_routes(&self, device: u32) -> Vec<RouteSpec> {
        let default = |gateway: &IpAddr| {
            let prefix = match gateway {
                IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
                IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
            };
            // An address as /32 or /128 leaves the gateway outside every subnet; it is on the link nevertheless.
            let onlink = !self.addresses.iter().any(|subnet| subnet.contains(gateway));
            RouteSpec { prefix, device, gateway: Some(*gateway), onlink, prefsrc: None }
        };
        let other = |route: &TapRoute| direct_route(route, device);
        self.gateways.iter().map(default).chain(self.routes.iter().map(other)).collect()
    }
}

pub(super) fn direct_route(route: &TapRoute, device: u32) -> RouteSpec {
    RouteSpec { prefix: route.prefix, device, gateway: None, onlink: false, prefsrc: route.prefsrc }
}

/// Opens the device and makes it what the spec says, in the calling thread's namespace. A device that was made and
/// could not be finished is removed again.
pub(super) fn open_and_configure(spec: &TapSpec, queues: usize) -> Result<(OpenTap, u32), TapPortError> {
    let failed = |source| TapPortError::Netlink { ifname: spec.ifname.clone(), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let before = netlink.find_link(&spec.ifname).map_err(failed)?;
    if let Some(kind) = before.as_ref().and_then(other_kind) {
        return Err(TapPortError::OtherDevice { ifname: spec.ifname.clone(), kind });
    }
    let tap = open(&spec.ifname, queues, spec.offloads)?;
    let link = netlink.link(&spec.ifname).map_err(failed)?;
    let index = link.index;
    match configure(&mut netlink, spec, &[], &link) {
        Ok(()) => Ok((tap, index)),
        Err(error) => {
            if before.is_none() {
                let _first_error_matters = netlink.delete_link(index);
            }
            Err(failed(error))
        }
    }
}

fn other_kind(link: &Link) -> Option<String> {
    let kind = link.kind.clone().unwrap_or_else(|| "physical".to_owned());
    (kind != LINK_KIND).then_some(kind)
}

/// Makes an existing device what the spec says; `given` are addresses it had by an earlier one.
pub(super) fn configure(
    netlink: &mut Netlink,
    spec: &TapSpec,
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

/// Before the device is up, so that its link-local address is usable at once too: no duplicate address detection,
/// no router advertisements; and IPv6 on, which container runtimes switch off by default.
fn configure_ipv6(spec: &TapSpec) {
    if spec.addresses.iter().any(|address| address.addr().is_ipv6()) {
        set_ipv6_conf(&spec.ifname, "disable_ipv6", "0");
    }
    for key in ["accept_dad", "dad_transmits", "accept_ra"] {
        set_ipv6_conf(&spec.ifname, key, "0");
    }
}
