//! A pod: a namespace with one interface, behind a podwire port or behind a kernel bridge.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netns::Netns;
use crate::plan;

/// Name of the interface inside a pod.
pub const POD_INTERFACE: &str = "eth0";

/// A pod and its addresses.
#[derive(Debug)]
pub struct Pod {
    /// The pod's namespace.
    pub netns: Netns,
    /// Name of its port.
    pub name: String,
    /// Addresses with the subnet's prefix, at most one a family.
    pub addresses: Vec<IpNet>,
}

impl Pod {
    /// A namespace for a pod, without an interface yet.
    #[must_use]
    #[track_caller]
    pub fn unattached(name: &str, addresses: &[IpNet]) -> Self {
        Self { netns: Netns::new(name), name: name.to_owned(), addresses: addresses.to_vec() }
    }

    /// The pod's IPv4 address.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn v4(&self) -> IpAddr {
        plan::of_family(&self.addresses, false)
    }

    /// The pod's IPv6 address.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn v6(&self) -> IpAddr {
        plan::of_family(&self.addresses, true)
    }

    /// The pod's address of the same family as `other`.
    #[must_use]
    #[track_caller]
    pub fn like(&self, other: IpAddr) -> IpAddr {
        plan::of_family(&self.addresses, other.is_ipv6())
    }
}
