//! A port of the node that leads to a pod, and which of them can not be had together.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use podwire_control::model::{HostPort, Transport};

/// A port of the node, and the address of the pod it leads to: of one family.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Mapping {
    /// The port, and the pod's.
    pub host_port: HostPort,
    /// The pod.
    pub pod: IpAddr,
}

impl Mapping {
    /// What the host ports of a pod with these addresses come to: a mapping for each family the pod has, or for that of
    /// the host IP. Of several addresses of a family the first is led to.
    #[must_use]
    pub fn of_pod(host_ports: &[HostPort], addresses: &[IpNet]) -> Vec<Self> {
        let pods: Vec<IpAddr> = [true, false]
            .iter()
            .filter_map(|&v4| addresses.iter().map(IpNet::addr).find(|pod| pod.is_ipv4() == v4))
            .collect();
        let fits =
            |host_port: &HostPort, pod: &IpAddr| host_port.host_ip.is_none_or(|ip| ip.is_ipv4() == pod.is_ipv4());
        let of_port = |host_port: &HostPort| {
            let pods: Vec<IpAddr> = pods.iter().copied().filter(|pod| fits(host_port, pod)).collect();
            let host_port = host_port.clone();
            pods.into_iter().map(move |pod| Self { host_port: host_port.clone(), pod })
        };
        host_ports.iter().flat_map(of_port).collect()
    }

    /// The node's address it is open on; none for all of its family, which `0.0.0.0` and `::` mean too.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        self.host_port.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.pod, self.host_port.container_port)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let port = |mapping: &Self| (mapping.pod.is_ipv4(), mapping.host_port.transport, mapping.host_port.host_port);
        let one_address = match (self.host_ip(), other.host_ip()) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        port(self) == port(other) && one_address
    }
}

/// `tcp port 8080 on 172.31.0.1`
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {} on ", self.host_port.transport.name(), self.host_port.host_port)?;
        match self.host_ip() {
            Some(ip) => write!(f, "{ip}"),
            None => write!(f, "every {} address", if self.pod.is_ipv4() { "IPv4" } else { "IPv6" }),
        }
    }
}

/// Why a mapping can not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    /// Another pod has that port.
    #[error("the node's {wanted} is taken: {taken} leads to pod {}; use another host port, or delete that pod", taken.pod)]
    Taken {
        /// What is asked for.
        wanted: Mapping,
        /// What there is.
        taken: Mapping,
    },
    /// The node's own tunnels come in there.
    #[error("the node's {wanted} is that of its tunnels (vxlan.port); use another host port")]
    Tunnel {
        /// What is asked for.
        wanted: Mapping,
    },
    /// Nothing that comes from `::1` is routed to an interface.
    #[error("the node's {wanted} can not lead to a pod, since Linux routes nothing from ::1; leave the host IP out")]
    Loopback {
        /// What is asked for.
        wanted: Mapping,
    },
}

/// Why a mapping can not be had beside those there are, and the node's tunnels. One on all addresses and one on a single
/// address can not be had together, as with bind(2) and in the rules by which kube-scheduler places pods: who gets a packet
/// would else depend on which of the node's addresses a client happens to use.
#[must_use]
pub fn conflict(taken: &[Mapping], tunnel_port: Option<u16>, wanted: &Mapping) -> Option<Conflict> {
    let HostPort { transport, host_port, .. } = wanted.host_port;
    if transport == Transport::Udp && tunnel_port == Some(host_port) {
        return Some(Conflict::Tunnel { wanted: wanted.clone() });
    }
    if wanted.host_ip() == Some(Ipv6Addr::LOCALHOST.into()) {
        return Some(Conflict::Loopback { wanted: wanted.clone() });
    }
    let taken = taken.iter().find(|taken| taken.overlaps(wanted))?;
    Some(Conflict::Taken { wanted: wanted.clone(), taken: taken.clone() })
}
