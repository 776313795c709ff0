//! The rules as `nft` reads them. Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Mapping, TABLE};

/// What the rules are to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatSpec {
    /// Subnets of this node's pods.
    pub pod_cidrs: Vec<IpNet>,
    /// Subnets of the whole cluster's pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// The node's own interface on the switch.
    pub host_interface: String,
    /// Whether pods leave the cluster with an address of the node.
    pub masquerade: bool,
    /// Ports of the node that lead to pods.
    pub mappings: Vec<Mapping>,
    /// The node's addresses on the underlay.
    pub underlay: Vec<IpAddr>,
    /// UDP port of the tunnels.
    pub tunnel_port: u16,
}

impl NatSpec {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.masquerade && self.mappings.is_empty()
    }

    /// Rules that replace the table, whole and at once.
    #[must_use]
    pub fn rules(&self) -> String {
        format!("{}{self}", remove())
    }

    /// Subnets of all pods: the cluster's, and our own that are not in one of those.
    fn pods_anywhere(&self) -> impl Iterator<Item = &IpNet> {
        let own = self.pod_cidrs.iter().filter(|own| !self.cluster_cidrs.iter().any(|all| all.contains(*own)));
        self.cluster_cidrs.iter().chain(own)
    }

    fn maps(&self) -> impl Iterator<Item = Map<'_>> {
        // One address first: it is the closer match.
        let kinds = [(false, true), (true, true), (false, false), (true, false)];
        kinds.into_iter().map(|(v6, one)| Map::of(&self.mappings, v6, one)).filter(|map| !map.mappings.is_empty())
    }
}

/// Rules that take the table away, whether it is there or not.
pub(super) fn remove() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

impl Display for NatSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        if !self.mappings.is_empty() {
            self.host_ports(f)?;
        }
        if self.masquerade {
            self.leaving(f)?;
        }
        self.tunnels(f)?;
        self.hairpin(f)?;
        let host = &self.host_interface;
        writeln!(f, "\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat")?;
        writeln!(f, "\t\toifname \"{host}\" ct status dnat goto hairpin")?;
        writeln!(f, "\t\toifname \"{host}\" return")?;
        for net in self.pod_cidrs.iter().filter(|_| self.masquerade) {
            writeln!(f, "\t\t{} saddr {net} goto leaving", family(net))?;
        }
        writeln!(f, "\t}}\n}}")
    }
}

impl NatSpec {
    fn host_ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for map in self.maps() {
            map.declare(f)?;
        }
        // Nothing from ::1 reaches an interface, so what is sent there stays there.
        writeln!(f, "\tchain host_ports {{\n\t\tip6 daddr ::1 return")?;
        for map in self.maps() {
            map.look_up(f)?;
        }
        writeln!(f, "\t}}")?;
        for (hook, priority) in [("prerouting", "dstnat"), ("output", "-100")] {
            writeln!(f, "\tchain {hook} {{\n\t\ttype nat hook {hook} priority {priority}")?;
            writeln!(f, "\t\tfib daddr type local jump host_ports\n\t}}")?;
        }
        // With route_localnet the kernel would take these from pods.
        writeln!(f, "\tchain loopback {{\n\t\ttype filter hook prerouting priority raw")?;
        writeln!(f, "\t\tiifname \"{}\" ip daddr 127.0.0.0/8 drop\n\t}}", self.host_interface)
    }

    /// Tunnels are not tracked: that would cost each datagram a look-up for connections that nobody asks for, which what is
    /// inside of them is tracked for already where it has to be.
    fn tunnels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (hook, own) in
            [("prerouting", "daddr"), ("output", "saddr")].into_iter().filter(|_| !self.underlay.is_empty())
        {
            writeln!(f, "\tchain tunnels_{hook} {{\n\t\ttype filter hook {hook} priority raw")?;
            for address in &self.underlay {
                let (family, port) = (family(&IpNet::from(*address)), self.tunnel_port);
                writeln!(f, "\t\t{family} {own} {address} udp dport {port} notrack")?;
            }
            writeln!(f, "\t}}")?;
        }
        Ok(())
    }

    /// What the node has led from a pod to a pod, by a host port or by kube-proxy's rules: the switch would bring the answer
    /// straight back, past the node that has to translate it. Nor would one to 127.0.0.1 come back.
    fn hairpin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain hairpin {{\n\t\tip saddr 127.0.0.0/8 masquerade")?;
        for net in self.pods_anywhere() {
            writeln!(f, "\t\t{} saddr {net} masquerade", family(net))?;
        }
        writeln!(f, "\t}}")
    }

    /// IPv4's link-local addresses are masqueraded, since clouds have their metadata there.
    fn leaving(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain leaving {{")?;
        for net in self.pods_anywhere() {
            writeln!(f, "\t\t{} daddr {net} return", family(net))?;
        }
        writeln!(f, "\t\tip daddr {{ 224.0.0.0/4, 255.255.255.255 }} return")?;
        writeln!(f, "\t\tip6 daddr {{ fe80::/10, ff00::/8 }} return")?;
        writeln!(f, "\t\tmasquerade fully-random\n\t}}")
    }
}

fn family(net: &IpNet) -> &'static str {
    if net.addr().is_ipv4() { "ip" } else { "ip6" }
}

/// The mappings of a family, of those on all addresses or of those on single ones.
struct Map<'a> {
    family: &'static str,
    address: &'static str,
    one: bool,
    mappings: Vec<&'a Mapping>,
}

impl<'a> Map<'a> {
    fn of(all: &'a [Mapping], v6: bool, one: bool) -> Self {
        let (family, address) = if v6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
        let fits = |mapping: &&Mapping| mapping.pod.is_ipv6() == v6 && mapping.host_ip().is_some() == one;
        let mut mappings: Vec<&Mapping> = all.iter().filter(fits).collect();
        mappings.sort();
        Self { family, address, one, mappings }
    }

    fn name(&self) -> String {
        format!("{}_{}", self.family, if self.one { "one_address" } else { "all_addresses" })
    }

    fn declare(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        let key = if self.one { format!("{address} . ") } else { String::new() };
        writeln!(f, "\tmap {} {{", self.name())?;
        writeln!(f, "\t\ttype {key}inet_proto . inet_service : {address} . inet_service")?;
        writeln!(f, "\t\telements = {{")?;
        for mapping in &self.mappings {
            let port = &mapping.host_port;
            write!(f, "\t\t\t")?;
            if let Some(ip) = mapping.host_ip() {
                write!(f, "{ip} . ")?;
            }
            let (transport, pod) = (port.transport.name(), mapping.pod);
            writeln!(f, "{transport} . {} : {pod} . {},", port.host_port, port.container_port)?;
        }
        writeln!(f, "\t\t}}\n\t}}")
    }

    fn look_up(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family;
        let key = if self.one { format!("{family} daddr . ") } else { String::new() };
        writeln!(f, "\t\tdnat {family} to {key}meta l4proto . th dport map @{}", self.name())
    }
}
