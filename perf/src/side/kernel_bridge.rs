//! Two pods on a kernel bridge by veth, as kubenet and flannel's bridge plugin have them.

use anyhow::{Result, bail};

use super::{MTU, POD_INTERFACE, Side, pod_address, pods, quiet, subnet24};
use crate::lab::{Netns, Wire, cable};

/// With these on, every bridged frame goes through iptables: another thing than a bridge, and much slower.
const BRIDGE_NF: [&str; 3] = [
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
];

pub(super) fn build(label: &str) -> Result<Side> {
    let node = Netns::new(&format!("{label}-node"))?;
    node.ip("link add br0 type bridge")?;
    switch_off_bridge_nf(&node)?;
    node.up("br0")?;
    let (from, to) = pods(label)?;
    let mut interfaces = Vec::new();
    for (pod, number) in [(&from, 1), (&to, 2)] {
        let outside = format!("veth{number}");
        join(&node, pod, &outside, "br0", MTU)?;
        pod.address(POD_INTERFACE, subnet24(pod_address(number)))?;
        interfaces.push((0, outside));
    }
    Ok(Side { others: vec![node], interfaces, ..quiet(from, to, pod_address(2)) })
}

/// Hangs a pod on a bridge.
pub(super) fn join(node: &Netns, pod: &Netns, outside: &str, bridge: &str, mtu: u16) -> Result<()> {
    cable((pod, POD_INTERFACE), (node, outside), mtu, Wire::Offloads)?;
    node.ip(&format!("link set {outside} master {bridge} up")).map(drop)
}

/// Nothing to do where the kernel has no `br_netfilter`.
pub(super) fn switch_off_bridge_nf(node: &Netns) -> Result<()> {
    for key in BRIDGE_NF {
        if node.read_sysctl(key)?.is_some_and(|value| value != "0") {
            node.sysctl(key, "0")?;
        }
        if let Some(value) = node.read_sysctl(key)?.filter(|value| value != "0") {
            bail!("{key} is {value} in {}: this would measure iptables and not the bridge; set it to 0", node.name());
        }
    }
    Ok(())
}
