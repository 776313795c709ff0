//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope};

use super::{Netlink, NetlinkError, ROUTE_PROTOCOL, family_of};

/// Longest IPv4 prefix of a subnet that has a broadcast address (RFC 3021).
const BROADCAST_PREFIX_MAX: u8 = 30;

/// One address of one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkAddress {
    /// Interface index.
    pub index: u32,
    /// Address with its prefix length, host bits kept.
    pub address: IpNet,
    /// Whether it bears our mark (`IFA_PROTO`, the number our routes have). Kernels before 5.18 keep no such marks.
    pub ours: bool,
}

impl Netlink {
    /// Gives a link an address; the same address again is no error. An IPv6 address can be used at once: duplicate
    /// address detection is off for it, since the switch itself guards addresses.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = address_message(index, address);
        match address {
            IpNet::V4(net) if net.prefix_len() <= BROADCAST_PREFIX_MAX => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL)));
        let action = format!("add address {address} to interface number {index}");
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, action).map(drop)
    }

    /// Takes an address off a link.
    ///
    /// # Errors
    /// [`NetlinkError`], also when it does not bear it.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let action = format!("remove address {address} from interface number {index}");
        self.request(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0, action).map(drop)
    }

    /// Makes our addresses of a link exactly the wanted ones: adds what is missing, and removes those that bear our mark
    /// or that the caller knows it gave. Everybody else's stay: a pod may add addresses to its interface, and so may
    /// a chained CNI plugin. Link-local IPv6 addresses are never removed, since the kernel makes those.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn sync_addresses(&mut self, index: u32, wanted: &[IpNet], given: &[IpNet]) -> Result<(), NetlinkError> {
        let too_many = |at: &LinkAddress| {
            let gave = at.ours || given.contains(&at.address);
            at.index == index && gave && !wanted.contains(&at.address) && !is_link_local_v6(at.address.addr())
        };
        let stale: Vec<LinkAddress> = self.addresses()?.into_iter().filter(too_many).collect();
        // First the new ones, so that the link is never without an address, which would cost it all its routes.
        wanted.iter().try_for_each(|&address| self.add_address(index, address))?;
        for old in &stale {
            match self.delete_address(index, old.address) {
                Err(error) if error.is_not_found() => {}
                done => done?,
            }
        }
        if !stale.is_empty() {
            // An IPv6 address whose prefix length changed counted as there, and went with the old one.
            wanted.iter().try_for_each(|&address| self.add_address(index, address))?;
        }
        Ok(())
    }

    /// All addresses of all links of the namespace.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, NetlinkError> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list all addresses")?;
        let read = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => link_address(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(read).collect())
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = scope_of(address.addr());
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message
}

fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn scope_of(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => AddressScope::Host,
        IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
        _ if is_link_local_v6(address) => AddressScope::Link,
        _ => AddressScope::Universe,
    }
}

/// `IFA_LOCAL` is the link's own address; on a point-to-point link `IFA_ADDRESS` is the peer's. IPv6 often has the
/// second only.
fn link_address(message: &AddressMessage) -> Option<LinkAddress> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let other = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = IpNet::new(local.or(other)?, message.header.prefix_len).ok()?;
    let mark = AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL));
    Some(LinkAddress { index: message.header.index, address, ours: message.attributes.contains(&mark) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::TestNetns;

    #[test]
    fn addresses_are_added_twice_found_and_removed() {
        let netns = TestNetns::new();
        netns.ip("link add dev0 mtu 1400 type veth peer name dev1");
        netns.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link("dev0").unwrap().index;
            netlink.set_up(index).unwrap();
            for text in ["10.9.0.5/24", "10.9.0.9/32", "fd09::5/64"] {
                let address: IpNet = text.parse().unwrap();
                netlink.add_address(index, address).unwrap();
                netlink.add_address(index, address).unwrap();
                let bearer = netlink.link_of_address(address.addr()).unwrap().unwrap();
                assert_eq!((bearer.index, bearer.mtu), (index, 1_400), "{text}");
                assert_eq!(netlink.addresses().unwrap().iter().filter(|at| at.address == address).count(), 1);
            }
            netlink.delete_address(index, "10.9.0.5/24".parse().unwrap()).unwrap();
            assert_eq!(netlink.link_of_address("10.9.0.5".parse().unwrap()).unwrap(), None);
        });
        let shown = netns.ip("-6 addr show dev dev0 scope global");
        assert!(shown.contains("fd09::5/64") && shown.contains("nodad") && !shown.contains("tentative"), "{shown}");
    }
}
