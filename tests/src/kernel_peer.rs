//! A node without podwire: a kernel bridge and kernel VXLAN devices, configured the way flannel does it.
//!
//! flannel gives each remote node a subnet route through the tunnel device, whose next hop is the subnet's first
//! address (on-link), with a permanent neighbour entry for it and an FDB entry for that neighbour's MAC. Dual-stack
//! flannel runs a second device over the IPv6 underlay.

use ipnet::IpNet;

use crate::netns::{Netns, Wire};
use crate::plan::{self, NodePlan, OVERHEAD4, OVERHEAD6, UNDERLAY};
use crate::pod::{POD_INTERFACE, Pod};
use crate::underlay::RemoteNode;

const DEVICE4: &str = "flannel.1";
const DEVICE6: &str = "flannel-v6.1";
const BRIDGE: &str = "cni0";

/// What a kernel peer is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSpec {
    /// Name of the node.
    pub name: String,
    /// Pod subnets, one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// Underlay addresses with their prefix, at most one a family: one VXLAN device for each.
    pub underlay: Vec<IpNet>,
    /// Addresses the bridge bears, one a subnet.
    pub gateways: Vec<IpNet>,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Whether outer UDP checksums are sent.
    pub outer_checksum: bool,
    /// MTU of the underlay in bytes.
    pub underlay_mtu: u16,
    /// MTU of the tunnel devices and pods; derived from the underlay when not given.
    pub pod_mtu: Option<u16>,
}

impl PeerSpec {
    /// The plan's node, dual-stack inside and outside.
    #[must_use]
    pub fn planned(plan: NodePlan) -> Self {
        Self {
            name: plan.name(),
            pod_cidrs: plan.pod_cidrs().to_vec(),
            underlay: plan.underlay().to_vec(),
            gateways: plan.gateways().to_vec(),
            vni: plan::VNI,
            port: plan::VXLAN_PORT,
            outer_checksum: true,
            underlay_mtu: Wire::default().mtu,
            pod_mtu: None,
        }
    }

    fn tunnel_mtu(&self, overhead: u16) -> u16 {
        self.pod_mtu.unwrap_or(self.underlay_mtu - overhead)
    }

    /// MTU that fits every tunnel of the node.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        let v6 = self.underlay.iter().any(|net| net.addr().is_ipv6());
        self.tunnel_mtu(if v6 { OVERHEAD6 } else { OVERHEAD4 })
    }
}

/// A node that runs the kernel's bridge and VXLAN.
#[derive(Debug)]
pub struct KernelPeer {
    /// The node's own namespace.
    pub netns: Netns,
    /// How it was set up.
    pub spec: PeerSpec,
    pods: std::cell::Cell<u32>,
}

impl KernelPeer {
    /// Makes the namespace; the underlay is wired next, then [`Self::start`].
    #[must_use]
    #[track_caller]
    pub fn new(spec: PeerSpec) -> Self {
        let netns = Netns::new(&spec.name);
        netns.sysctl("net.ipv4.ip_forward", "1");
        netns.sysctl("net.ipv6.conf.all.forwarding", "1");
        netns.skip_address_detection();
        Self { netns, spec, pods: std::cell::Cell::new(0) }
    }

    /// Makes the bridge and the tunnel devices.
    #[track_caller]
    pub fn start(&self) {
        self.netns.ip(&format!("link add {BRIDGE} mtu {} type bridge", self.spec.mtu()));
        self.netns.ip(&format!("link set {BRIDGE} up"));
        for &gateway in &self.spec.gateways {
            self.netns.address(BRIDGE, gateway);
        }
        for underlay in &self.spec.underlay {
            self.tunnel(underlay);
        }
    }

    #[track_caller]
    fn tunnel(&self, underlay: &IpNet) {
        let PeerSpec { vni, port, outer_checksum, .. } = self.spec;
        let v6 = underlay.addr().is_ipv6();
        let (device, overhead) = if v6 { (DEVICE6, OVERHEAD6) } else { (DEVICE4, OVERHEAD4) };
        let checksum = match (v6, outer_checksum) {
            (false, true) => "udpcsum",
            (false, false) => "noudpcsum",
            (true, true) => "noudp6zerocsumtx noudp6zerocsumrx",
            (true, false) => "udp6zerocsumtx udp6zerocsumrx",
        };
        let mtu = self.spec.tunnel_mtu(overhead);
        self.netns.ip(&format!(
            "link add {device} mtu {mtu} type vxlan id {vni} dev {UNDERLAY} local {} dstport {port} nolearning {checksum}",
            underlay.addr()
        ));
        self.netns.ip(&format!("link set {device} addrgenmode none"));
        self.netns.ip(&format!("link set {device} up"));
        let inside = self.spec.pod_cidrs.iter().filter(|cidr| self.device_for(cidr) == device);
        for cidr in inside {
            let host = IpNet::new(cidr.network(), cidr.max_prefix_len()).expect("a host prefix fits its family");
            self.netns.address(device, host);
        }
    }

    /// The device that carries a subnet: of its own family where there is one, else the other.
    fn device_for(&self, cidr: &IpNet) -> &'static str {
        match (cidr.addr().is_ipv6(), self.has_underlay(false), self.has_underlay(true)) {
            (true, _, true) | (false, false, true) => DEVICE6,
            _ => DEVICE4,
        }
    }

    fn has_underlay(&self, v6: bool) -> bool {
        self.spec.underlay.iter().any(|net| net.addr().is_ipv6() == v6)
    }

    /// What another node must know of this one.
    #[must_use]
    #[track_caller]
    pub fn as_remote(&self) -> RemoteNode {
        let mac = |v6, device| if self.has_underlay(v6) { self.netns.mac(device) } else { String::new() };
        RemoteNode {
            name: self.spec.name.clone(),
            pod_cidrs: self.spec.pod_cidrs.clone(),
            underlay: self.spec.underlay.clone(),
            mac: mac(false, DEVICE4),
            mac6: mac(true, DEVICE6),
        }
    }

    /// Makes another node reachable: route, neighbour and FDB entry of each of its pod subnets.
    ///
    /// # Panics
    /// When the other node has no underlay address of the family that a subnet needs.
    #[track_caller]
    pub fn reach(&self, remote: &RemoteNode) {
        for cidr in &remote.pod_cidrs {
            let device = self.device_for(cidr);
            let outer_v6 = device == DEVICE6;
            let outer = plan::of_family(&remote.underlay, outer_v6);
            let mac = if outer_v6 { &remote.mac6 } else { &remote.mac };
            let gateway = cidr.network();
            self.netns.ip(&format!("neigh replace {gateway} lladdr {mac} dev {device} nud permanent"));
            self.netns.ip(&format!("route replace {cidr} via {gateway} dev {device} onlink"));
            let entry = format!("bridge -n {} fdb replace {mac} dev {device} dst {outer}", self.netns.name());
            crate::command::must(&entry);
        }
    }

    /// Adds a pod: a veth into the bridge, and default routes through the bridge's addresses.
    #[must_use]
    #[track_caller]
    pub fn pod(&self, name: &str, addresses: &[IpNet]) -> Pod {
        self.pod_with(name, addresses, Wire { mtu: self.spec.mtu(), offloads: true })
    }

    /// Adds a pod on a cable of the given kind.
    #[must_use]
    #[track_caller]
    pub fn pod_with(&self, name: &str, addresses: &[IpNet], wire: Wire) -> Pod {
        let pod = Pod::unattached(name, addresses);
        pod.netns.skip_address_detection();
        let number = self.pods.replace(self.pods.get() + 1);
        let outside = format!("veth{number}");
        Netns::veth((&pod.netns, POD_INTERFACE), (&self.netns, &outside), wire);
        self.netns.ip(&format!("link set {outside} master {BRIDGE}"));
        for &address in addresses {
            pod.netns.address(POD_INTERFACE, address);
            pod.netns.default_route(plan::of_family(&self.spec.gateways, address.addr().is_ipv6()));
        }
        pod
    }
}
