//! The network between nodes: one cable, and what each node tells the other to be reached over it.

use ipnet::IpNet;

use crate::netns::{Netns, Wire};
use crate::plan::{self, NodePlan};

/// What a node must know of another one to reach its pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteNode {
    /// Name of the other node.
    pub name: String,
    /// Its pod subnets.
    pub pod_cidrs: Vec<IpNet>,
    /// Its underlay addresses, at most one a family.
    pub underlay: Vec<IpNet>,
    /// MAC address of its VTEP over IPv4.
    pub mac: String,
    /// MAC address of its VTEP over IPv6; often the same.
    pub mac6: String,
}

/// Lays the underlay: a cable between two nodes, and each one's addresses on it.
#[track_caller]
pub fn join_underlay(a: (&Netns, &[IpNet]), b: (&Netns, &[IpNet]), wire: Wire) {
    Netns::veth((a.0, plan::UNDERLAY), (b.0, plan::UNDERLAY), wire);
    for (netns, addresses) in [a, b] {
        for &address in addresses {
            netns.address(plan::UNDERLAY, address);
        }
    }
}

/// Lays an underlay with two routers between two nodes, so that the path can be narrower than the nodes' own links,
/// which are plain. The nodes get the addresses of [`NodePlan::routed_underlay`]; the routers are gone with the value.
#[must_use]
#[track_caller]
pub fn join_through_routers(nodes: [(&Netns, NodePlan); 2], middle: Wire) -> [Netns; 2] {
    let routers = nodes.map(|(netns, plan)| {
        let router = Netns::new("router");
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        router.skip_address_detection();
        Netns::veth((netns, plan::UNDERLAY), (&router, "node"), Wire::default());
        for (own, gateway) in plan.routed_underlay().into_iter().zip(plan.underlay_router()) {
            router.address("node", gateway);
            netns.address(plan::UNDERLAY, own);
            netns.default_route(gateway.addr());
        }
        router
    });
    Netns::veth((&routers[0], "middle"), (&routers[1], "middle"), middle);
    for (router, addresses) in routers.iter().zip(NodePlan::between_routers()) {
        addresses.into_iter().for_each(|address| router.address("middle", address));
    }
    for (router, gateways) in routers.iter().zip(NodePlan::between_routers().into_iter().rev()) {
        gateways.into_iter().for_each(|gateway| router.default_route(gateway.addr()));
    }
    routers
}
