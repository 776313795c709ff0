//! The ways between a pod or a node and another, and what a packet must look like at their ends.

use std::net::IpAddr;

use podwire_control::model::Mac;
use podwire_tests::plan::{NodePlan, of_family};
use podwire_tests::sim::{HOST, planned_spec};

use crate::traffic::Traffic;

/// A switch, counted from 0, and a port of it.
pub(crate) type At = (usize, &'static str);

/// One way.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) name: String,
    pub(crate) v6: bool,
    pub(crate) between_nodes: bool,
    pub(crate) from: At,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Destination and source MAC as sent.
    pub(crate) sent: (Mac, Mac),
    end: Arrival,
}

/// How a packet arrives.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: At,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Destination and source MAC.
    pub(crate) macs: (Mac, Mac),
    pub(crate) ttl: u8,
}

impl Path {
    /// How this traffic arrives. The gateway's echo is answered by the switch itself, back to the pod.
    pub(crate) fn arrival(&self, traffic: Traffic) -> Arrival {
        if traffic == Traffic::Icmp && self.end.at.1 == HOST {
            let (dst, src) = self.sent;
            return Arrival { at: self.from, src: self.dst, dst: self.src, macs: (src, dst), ttl: 64 };
        }
        self.end.clone()
    }
}

fn address(node: u8, host: u8, v6: bool) -> IpAddr {
    of_family(&NodePlan(node).pod(host), v6)
}

fn pod(node: u8, host: u8) -> Mac {
    Mac::of_ip(address(node, host, false))
}

fn gateway(node: u8) -> Mac {
    planned_spec(NodePlan(node)).gateway_mac()
}

fn vtep(node: u8) -> Mac {
    planned_spec(NodePlan(node)).vtep_mac()
}

/// All five ways in both families.
pub(crate) fn all() -> Vec<Path> {
    [false, true].into_iter().flat_map(of).collect()
}

fn of(v6: bool) -> Vec<Path> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let path = |name: &str, from: (At, IpAddr), to: (At, IpAddr), sent, macs, hops: u8| Path {
        name: format!("{name}, {family}:"),
        v6,
        between_nodes: from.0.0 != to.0.0,
        from: from.0,
        src: from.1,
        dst: to.1,
        sent,
        end: Arrival { at: to.0, src: from.1, dst: to.1, macs, ttl: 64 - hops },
    };
    let own = ((0, "pod10"), address(1, 10, v6));
    let neighbour = ((0, "pod11"), address(1, 11, v6));
    let remote = ((1, "pod10"), address(2, 10, v6));
    let node = ((0, HOST), address(1, 1, v6));
    let bridged = (pod(1, 11), pod(1, 10));
    let to_own = (pod(1, 10), gateway(1));
    let behind_tunnel = (pod(2, 10), gateway(2));
    vec![
        path("same node", own, neighbour, bridged, bridged, 0),
        path("across nodes", own, remote, (gateway(1), pod(1, 10)), behind_tunnel, 2),
        path("node to own pod", node, own, to_own, to_own, 0),
        path("node to remote pod", node, remote, (vtep(1), gateway(1)), behind_tunnel, 2),
        path("pod to node", own, node, (gateway(1), pod(1, 10)), (gateway(1), pod(1, 10)), 0),
    ]
}
