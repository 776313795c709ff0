//! The network between nodes: one cable, and what each node tells the other to be reached over it.

use ipnet::IpNet;

use crate::netns::{Netns, Wire};
use crate::plan;

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
