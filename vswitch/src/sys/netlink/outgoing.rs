//! The way of an outgoing packet as the kernel would choose it: route, next hop, and the next hop's MAC address.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use podwire_control::model::Mac;

use super::route::ip_of;
use super::{Netlink, NetlinkError, family_of};

/// The route a packet to one destination takes now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteTo {
    /// Interface index.
    pub device: u32,
    /// The next hop, which may be of the other family (RFC 8950); none when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// MTU in bytes that the route states, or that the kernel has learned of the path; none for the interface's.
    pub mtu: Option<u32>,
    /// TTL or hop limit that the route states.
    pub hop_limit: Option<u8>,
    /// Whether it leads out of the interface as a plain packet: not to this node itself, and without a tunnel or label of
    /// the route's own (`RTA_ENCAP`).
    pub plain: bool,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, where it is known and no attempt to reach it has failed since.
    pub mac: Option<Mac>,
    /// Whether the kernel will ask again before it relies on it.
    pub stale: bool,
}

impl Netlink {
    /// The route that the kernel chooses for a packet from one of our addresses; none when it has none.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn route_to(&mut self, source: IpAddr, destination: IpAddr) -> Result<Option<RouteTo>, NetlinkError> {
        let mut query = RouteMessage::default();
        let bits = if destination.is_ipv4() { 32 } else { 128 };
        query.header.address_family = family_of(destination);
        (query.header.destination_prefix_length, query.header.source_prefix_length) = (bits, bits);
        query.attributes.push(RouteAttribute::Destination(destination.into()));
        query.attributes.push(RouteAttribute::Source(source.into()));
        let action = format!("look up the route from {source} to {destination}");
        let answers = match self.request(RouteNetlinkMessage::GetRoute(query), 0, action) {
            Err(error) if is_no_route(&error) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => route(&message),
            _ => None,
        }))
    }

    /// The neighbours on one interface, both families.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn neighbours(&mut self, device: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut query = NeighbourMessage::default();
        query.attributes.push(NeighbourAttribute::IfIndex(device));
        let action = format!("list the neighbours on interface number {device}");
        let answers = self.dump(RouteNetlinkMessage::GetNeighbour(query), action)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == device => neighbour(&message),
                _ => None,
            })
            .collect())
    }

    /// Has the kernel do what a packet of its own to a neighbour would make it do (`NTF_USE`): ask for the MAC address, or
    /// ask again when it has become stale.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn use_neighbour(&mut self, device: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address);
        message.header.ifindex = device;
        message.header.flags = NeighbourFlags::Use;
        message.header.kind = RouteType::Unicast;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let action = format!("have {address} resolved on interface number {device}");
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, action).map(drop)
    }
}

/// The TTL (IPv4) and the hop limit (IPv6) of packets of this node's own out of an interface, where no route says
/// otherwise; 64 where the kernel does not say.
#[must_use]
pub fn default_hop_limits(device: &str) -> [u8; 2] {
    let paths = ["/proc/sys/net/ipv4/ip_default_ttl".to_owned(), format!("/proc/sys/net/ipv6/conf/{device}/hop_limit")];
    paths.map(|path| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(64))
}

/// Unreachable, prohibited, a blackhole, or nothing at all; or the source is not ours.
fn is_no_route(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::ENETDOWN))
}

fn route(message: &RouteMessage) -> Option<RouteTo> {
    let plain = message.header.kind == RouteType::Unicast;
    let mut route = RouteTo { device: 0, gateway: None, mtu: None, hop_limit: None, plain };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.device = *index,
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => route.gateway = Some((*v4).into()),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => route.gateway = Some((*v6).into()),
            RouteAttribute::Via(_) | RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => route.plain = false,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => route.mtu = Some(*mtu),
                        RouteMetric::Hoplimit(limit) => {
                            route.hop_limit = u8::try_from(*limit).ok().filter(|&limit| limit > 0);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (route.device != 0).then_some(route)
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    let state = message.header.state;
    let believed = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let mac = mac.filter(|mac| believed && mac.is_station());
    Some(Neighbour { address: address?, mac, stale: state == NeighbourState::Stale })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::netns::testing::wire;

    #[test]
    fn the_kernel_says_which_way_a_packet_takes_and_how_long_it_may_be() {
        let (near, _far) = wire();
        near.ip("route add 10.20.0.0/16 via 10.9.0.2 mtu 1300 hoplimit 9");
        near.ip("route add 10.30.0.0/16 via inet6 fd00:9::2");
        near.ip("route add fd00:20::/64 via fd00:9::2");
        near.ip("route add unreachable 10.40.0.0/16");
        near.ip("route add 10.50.0.0/16 encap ip id 7 dst 10.9.0.2 via 10.9.0.2 dev nic");
        near.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let device = netlink.link("nic").unwrap().index;
            let gateway = |text: &str| Some(text.parse().unwrap());
            let plain = RouteTo { device, gateway: None, mtu: None, hop_limit: None, plain: true };
            for (source, to, wanted) in [
                ("10.9.0.1", "10.9.0.2", plain),
                ("fd00:9::1", "fd00:9::2", plain),
                (
                    "10.9.0.1",
                    "10.20.0.1",
                    RouteTo { gateway: gateway("10.9.0.2"), mtu: Some(1_300), hop_limit: Some(9), ..plain },
                ),
                ("10.9.0.1", "10.30.0.1", RouteTo { gateway: gateway("fd00:9::2"), ..plain }),
                ("fd00:9::1", "fd00:20::1", RouteTo { gateway: gateway("fd00:9::2"), ..plain }),
                ("10.9.0.1", "10.50.0.1", RouteTo { gateway: gateway("10.9.0.2"), plain: false, ..plain }),
            ] {
                let found = netlink.route_to(source.parse().unwrap(), to.parse().unwrap()).unwrap().unwrap();
                // An MTU of the interface may be stated too.
                let mtu = found.mtu.filter(|&mtu| mtu != 1_500);
                assert_eq!(
                    RouteTo { mtu, hop_limit: found.hop_limit.filter(|&hops| hops != 64), ..found },
                    wanted,
                    "{to}"
                );
            }
            for (source, to) in [("10.9.0.1", "10.40.0.1"), ("10.9.0.1", "192.0.2.1"), ("10.9.0.7", "10.9.0.2")] {
                assert_eq!(netlink.route_to(source.parse().unwrap(), to.parse().unwrap()).unwrap(), None, "{to}");
            }
            let own = netlink.route_to("10.9.0.1".parse().unwrap(), "10.9.0.1".parse().unwrap()).unwrap().unwrap();
            assert!(!own.plain, "to itself");
            assert_eq!(default_hop_limits("nic"), [64; 2]);
        });
    }

    #[test]
    fn a_neighbour_that_is_used_is_resolved_and_one_that_is_not_there_has_no_mac() {
        let (near, far) = wire();
        let mac = far.enter(|| Netlink::open().unwrap().link("far").unwrap().mac);
        near.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let device = netlink.link("nic").unwrap().index;
            let addresses = ["10.9.0.2", "fd00:9::2", "10.9.0.77"].map(|text| text.parse::<IpAddr>().unwrap());
            let mut found = [None; 3];
            // Over IPv6 the kernel asks from its link-local address, which a new interface may use after a second or two.
            for _ in 0..300 {
                for address in addresses {
                    netlink.use_neighbour(device, address).unwrap();
                }
                let known = netlink.neighbours(device).unwrap();
                found =
                    addresses.map(|address| known.iter().find(|one| one.address == address).and_then(|one| one.mac));
                if found[..2].iter().all(Option::is_some) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(found, [mac, mac, None]);
            assert_eq!(netlink.neighbours(device + 1).unwrap(), []);
        });
    }
}
