//! Routes of the main table, and permanent neighbours.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use podwire_control::model::Mac;

use super::{Netlink, NetlinkError, family_of};

/// Routing protocol number that marks our routes in the node's table (as `proto 80` in `ip route`), so that we know
/// them again after a restart and touch no others. Not taken in linux/rtnetlink.h nor by a known routing daemon.
pub const ROUTE_PROTOCOL: u8 = 80;

/// One route of the main table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteSpec {
    /// Destinations.
    pub prefix: IpNet,
    /// Interface index.
    pub device: u32,
    /// Next hop; none when the destinations are on the link.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link though no address of the interface covers it.
    pub onlink: bool,
    /// Source address the node prefers for it.
    pub prefsrc: Option<IpAddr>,
}

impl Netlink {
    /// Adds a route, replacing one to the same prefix.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_route(&mut self, route: &RouteSpec) -> Result<(), NetlinkError> {
        let action = format!("add a route to {} over interface number {}", route.prefix, route.device);
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, action).map(drop)
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`NetlinkError`], also when there is none such.
    pub fn delete_route(&mut self, route: &RouteSpec) -> Result<(), NetlinkError> {
        let action = format!("remove the route to {} over interface number {}", route.prefix, route.device);
        self.request(RouteNetlinkMessage::DelRoute(route_message(route)), 0, action).map(drop)
    }

    /// Our own routes ([`ROUTE_PROTOCOL`]) over one interface, both families.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn own_routes(&mut self, device: u32) -> Result<Vec<RouteSpec>, NetlinkError> {
        let mut routes = Vec::new();
        for any in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            let mut query = RouteMessage::default();
            query.header.address_family = family_of(any.addr());
            let answers = self.dump(RouteNetlinkMessage::GetRoute(query), "list routes")?;
            routes.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => own_route(&message, any, device),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// Makes our own routes over an interface exactly these: adds what is missing, removes what is too many, leaves
    /// everybody else's alone.
    ///
    /// # Errors
    /// The first [`NetlinkError`], after everything was tried.
    pub fn sync_routes(&mut self, device: u32, wanted: &[RouteSpec]) -> Result<(), NetlinkError> {
        let stale = self.own_routes(device)?;
        let stale = stale.iter().filter(|old| wanted.iter().all(|new| new.prefix != old.prefix));
        let removed = stale.map(|old| self.delete_route(old)).collect::<Vec<_>>();
        let added = wanted.iter().map(|new| self.add_route(new)).collect::<Vec<_>>();
        added.into_iter().chain(removed).collect()
    }

    /// States a neighbour for good, so that it is never asked for.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_neighbour(&mut self, device: u32, address: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address);
        message.header.ifindex = device;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let action = format!("add neighbour {address} at {mac} to interface number {device}");
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, action).map(drop)
    }
}

fn route_message(route: &RouteSpec) -> RouteMessage {
    let prefix = route.prefix.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    // IPv6 has no scopes of routes; the kernel ignores it there.
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    if prefix.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    }
    message.attributes.push(RouteAttribute::Oif(route.device));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.prefsrc.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn own_route(message: &RouteMessage, any: IpNet, device: u32) -> Option<RouteSpec> {
    let ours = message.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        && message.header.table == RouteHeader::RT_TABLE_MAIN;
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    let prefix = IpNet::new(any.addr(), message.header.destination_prefix_length).ok()?;
    let mut route = RouteSpec { prefix, device: 0, gateway: None, onlink, prefsrc: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.prefix = IpNet::new(ip_of(address)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::PrefSource(address) => route.prefsrc = ip_of(address),
            RouteAttribute::Oif(index) => route.device = *index,
            _ => {}
        }
    }
    (ours && route.device == device).then_some(route)
}

pub(super) fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::TestNetns;

    fn route(device: u32, prefix: &str, gateway: Option<&str>, prefsrc: Option<&str>) -> RouteSpec {
        let ip = |text: &str| text.parse().unwrap();
        let (gateway, prefsrc) = (gateway.map(ip), prefsrc.map(ip));
        RouteSpec { prefix: prefix.parse().unwrap(), device, gateway, onlink: gateway.is_some(), prefsrc }
    }

    #[test]
    fn our_routes_become_exactly_those_asked_for_and_others_stay() {
        let netns = TestNetns::new();
        netns.ip("link add dev0 type veth peer name dev1");
        netns.ip("link set dev1 up");
        netns.ip("link set dev0 up");
        netns.ip("addr add 10.9.0.1/32 dev dev0");
        netns.ip("addr add fd09::1/128 dev dev0 nodad");
        netns.ip("route add 10.77.0.0/16 dev dev0");
        netns.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let device = netlink.link("dev0").unwrap().index;
            let first = [
                route(device, "10.9.0.0/16", None, Some("10.9.0.1")),
                route(device, "fd09::/32", None, Some("fd09::1")),
                route(device, "0.0.0.0/0", Some("10.9.0.2"), None),
                route(device, "::/0", Some("fd09::2"), None),
            ];
            netlink.sync_routes(device, &first).unwrap();
            netlink.sync_routes(device, &first).unwrap();
            let found = netlink.own_routes(device).unwrap();
            assert_eq!(found.len(), 4, "{found:?}");
            assert!(first.iter().all(|wanted| found.contains(wanted)), "{found:?}");
            netlink.sync_routes(device, &first[1..2]).unwrap();
            assert_eq!(netlink.own_routes(device).unwrap(), first[1..2]);
        });
        assert!(netns.ip("route show").contains("10.77.0.0/16"));
        let shown = netns.ip("-6 route show fd09::/32");
        assert!(shown.contains("src fd09::1") && shown.contains("proto 80"), "{shown}");
    }

    #[test]
    fn a_permanent_neighbour_is_stated_in_both_families() {
        let netns = TestNetns::new();
        netns.ip("link add dev0 type veth peer name dev1");
        netns.ip("link set dev0 up");
        netns.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let device = netlink.link("dev0").unwrap().index;
            for address in ["10.9.0.2", "fd09::2"] {
                netlink.add_neighbour(device, address.parse().unwrap(), Mac([2, 0, 0, 0, 0, 9])).unwrap();
            }
        });
        let shown = netns.ip("neigh show dev dev0");
        assert_eq!(shown.matches("lladdr 02:00:00:00:00:09 PERMANENT").count(), 2, "{shown}");
    }
}
