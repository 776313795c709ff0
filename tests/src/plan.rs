//! The numbers of the test topology, in one place: what node N and its pods are called and addressed.
//!
//! `tests/demo.sh` draws the same plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// VXLAN network identifier of the cluster.
pub const VNI: u32 = 1;
/// UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// Bytes VXLAN adds over IPv4.
pub const OVERHEAD4: u16 = 50;
/// Bytes VXLAN adds over IPv6.
pub const OVERHEAD6: u16 = 70;
/// Name of a node's interface on the underlay.
pub const UNDERLAY: &str = "eth0";

/// Node number 1 to 254 of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePlan(pub u8);

impl NodePlan {
    /// `node1` and so on.
    #[must_use]
    pub fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// The node's underlay addresses, IPv4 and IPv6, with their prefix.
    #[must_use]
    pub fn underlay(self) -> [IpNet; 2] {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, self.0), 24);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, u16::from(self.0)), 64);
        [v4.into(), v6.into()]
    }

    /// The node's underlay addresses where every node is on a subnet of its own, behind a router.
    #[must_use]
    pub fn routed_underlay(self) -> [IpNet; 2] {
        self.on_routed_underlay(1)
    }

    /// The router's addresses on this node's underlay subnet.
    #[must_use]
    pub fn underlay_router(self) -> [IpNet; 2] {
        self.on_routed_underlay(254)
    }

    /// Addresses of the first and the second router on the link between them.
    #[must_use]
    pub fn between_routers() -> [[IpNet; 2]; 2] {
        [Self(255).on_routed_underlay(1), Self(255).on_routed_underlay(2)]
    }

    fn on_routed_underlay(self, host: u8) -> [IpNet; 2] {
        let (node, last) = (u16::from(self.0), u16::from(host));
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, self.0, host), 24);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x31, node, 0, 0, 0, 0, last), 64);
        [v4.into(), v6.into()]
    }

    /// The node's pod subnets, IPv4 and IPv6.
    #[must_use]
    pub fn pod_cidrs(self) -> [IpNet; 2] {
        [self.pod(0)[0].trunc(), self.pod(0)[1].trunc()]
    }

    /// The subnets of all nodes' pods.
    #[must_use]
    pub fn cluster_cidrs() -> [IpNet; 2] {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0), 32);
        [v4.into(), v6.into()]
    }

    /// The gateway of the node's pods, which is the node: the first address of each subnet.
    #[must_use]
    pub fn gateways(self) -> [IpNet; 2] {
        self.pod(1)
    }

    /// Addresses of the pod with this host number, with the subnet's prefix; the gateway has 1.
    #[must_use]
    pub fn pod(self, host: u8) -> [IpNet; 2] {
        let node = u16::from(self.0);
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, self.0, host), 24);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, node, 0, 0, 0, 0, u16::from(host)), 64);
        [v4.into(), v6.into()]
    }
}

/// The first address of a family in a list.
///
/// # Panics
/// When the list has none.
#[must_use]
#[track_caller]
pub fn of_family(addresses: &[IpNet], v6: bool) -> IpAddr {
    let found = addresses.iter().map(IpNet::addr).find(|address| address.is_ipv6() == v6);
    found.unwrap_or_else(|| panic!("no {} address among {addresses:?}", if v6 { "IPv6" } else { "IPv4" }))
}
