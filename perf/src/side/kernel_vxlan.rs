//! Two kernel nodes in flannel's configuration, one pod each: bridge, routes, and a VXLAN device without learning whose
//! neighbours and FDB entries are stated.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::kernel_bridge::{join, switch_off_bridge_nf};
use super::{MTU, POD_INTERFACE, Side, quiet, subnet24};
use crate::lab::{Netns, Wire, cable, must};

const OVERHEAD: u16 = 50;
const POD_MTU: u16 = MTU - OVERHEAD;

pub(super) fn build(label: &str, wire: Wire) -> Result<Side> {
    let nodes = [Netns::new(&format!("{label}-node1"))?, Netns::new(&format!("{label}-node2"))?];
    underlay(&nodes, wire)?;
    let mut pods = Vec::new();
    for (number, node) in (1..).zip(&nodes) {
        let pod = Netns::new(&format!("{label}-pod{number}"))?;
        tunnel(node, number, 3 - number)?;
        bridge(node, &pod, number)?;
        pods.push(pod);
    }
    let to = pods.remove(1);
    let interfaces = (0..2).flat_map(|at| ["uplink", "flannel.1", "pod"].map(|name| (at, name.to_owned()))).collect();
    Ok(Side { others: nodes.into(), interfaces, ..quiet(pods.remove(0), to, subnet(2, 2)) })
}

/// The cable between two nodes, with an address at each end.
pub(super) fn underlay(nodes: &[Netns; 2], wire: Wire) -> Result<()> {
    cable((&nodes[0], "uplink"), (&nodes[1], "uplink"), MTU, wire)?;
    (1..).zip(nodes).try_for_each(|(number, node)| node.address("uplink", subnet24(node_address(number))))
}

/// Underlay address of a node.
pub(super) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 9, number)
}

fn subnet(node: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 250, node, host)
}

fn vtep_mac(node: u8) -> String {
    format!("02:00:00:00:09:{node:02x}")
}

fn tunnel(node: &Netns, number: u8, other: u8) -> Result<()> {
    node.sysctl("net.ipv4.ip_forward", "1")?;
    let (mac, local) = (vtep_mac(number), node_address(number));
    node.ip(&format!(
        "link add flannel.1 address {mac} mtu {POD_MTU} type vxlan id 1 dev uplink local {local} dstport 8472 nolearning"
    ))?;
    node.ip(&format!("address add {}/32 dev flannel.1", subnet(number, 0)))?;
    node.up("flannel.1")?;
    let (gateway, mac) = (subnet(other, 0), vtep_mac(other));
    node.ip(&format!("route add {gateway}/24 via {gateway} dev flannel.1 onlink"))?;
    node.ip(&format!("neighbour add {gateway} lladdr {mac} dev flannel.1 nud permanent"))?;
    let remote = node_address(other);
    must(&format!("bridge -n {} fdb append {mac} dev flannel.1 dst {remote}", node.name())).map(drop)
}

fn bridge(node: &Netns, pod: &Netns, number: u8) -> Result<()> {
    node.ip(&format!("link add cni0 mtu {POD_MTU} type bridge"))?;
    switch_off_bridge_nf(node)?;
    node.address("cni0", subnet24(subnet(number, 1)))?;
    join(node, pod, "pod", "cni0", POD_MTU)?;
    pod.address(POD_INTERFACE, subnet24(subnet(number, 2)))?;
    pod.ip(&format!("route add default via {}", subnet(number, 1))).map(drop)
}
