//! The stated objects, searched from front to back for every question.

use std::net::IpAddr;

use ipnet::IpNet;
use podwire_control::model::{Bridge, Guard, Mac, Object, Port, Via, Vtep};
use podwire_vswitch::compile::{HOST_PORT, UPLINK_PORT};

use super::{AGEING_SECONDS, Place, Reference, Way};

/// Inner bytes that VXLAN takes from the underlay's MTU: 14 + 8 + 8, and the outer IP header.
const OVERHEAD_V4: usize = 50;
const OVERHEAD_V6: usize = 70;

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Hop {
    Local { port: String, mac: Mac },
    NoSuchPod,
    Vtep(String),
    Host,
    Outside,
    NoRoute,
    Blackhole,
}

impl Reference {
    /// Ports whose device is open, with that bridge (none: the pod segment).
    pub(super) fn ports(&self) -> impl Iterator<Item = &Port> {
        self.objects.iter().filter_map(|object| match object {
            Object::Port(port) if self.devices.contains_key(port.name.as_str()) => Some(port),
            _ => None,
        })
    }

    pub(super) fn port(&self, name: &str) -> Option<&Port> {
        self.ports().find(|port| port.name.as_str() == name)
    }

    pub(super) fn bridge_of(&self, port: &str) -> Option<String> {
        self.port(port)?.bridge.as_ref().map(ToString::to_string)
    }

    pub(super) fn vteps(&self) -> impl Iterator<Item = &Vtep> {
        self.objects.iter().filter_map(|object| if let Object::Vtep(vtep) = object { Some(vtep) } else { None })
    }

    pub(super) fn vtep(&self, name: &str) -> Option<&Vtep> {
        self.vteps().find(|vtep| vtep.name.as_str() == name)
    }

    pub(super) fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        self.objects.iter().filter_map(|object| if let Object::Bridge(bridge) = object { Some(bridge) } else { None })
    }

    pub(super) fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges().find(|bridge| bridge.name.as_str() == name)
    }

    pub(super) fn has_host(&self) -> bool {
        self.devices.contains_key(HOST_PORT)
    }

    pub(super) fn has_uplink(&self) -> bool {
        self.devices.contains_key(UPLINK_PORT)
    }

    /// The node's own address and the subnet's first one, of a family.
    pub(super) fn gateway(&self, v6: bool) -> Option<(IpAddr, IpAddr)> {
        let cidr = self.node.pod_cidrs.iter().find(|cidr| cidr.addr().is_ipv6() == v6)?;
        let first = cidr.network();
        let next: IpAddr = match first {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
        };
        Some((next, first))
    }

    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateway(address.is_ipv6()).is_some_and(|(gateway, _)| gateway == address)
    }

    /// MACs the switch routes for.
    pub(super) fn is_router(&self, mac: Mac) -> bool {
        mac == self.node.gateway_mac() || mac == self.node.vtep_mac()
    }

    /// The longest prefix that covers the address; of equal ones what is stated over what follows by itself.
    #[must_use]
    pub(super) fn hop(&self, address: IpAddr) -> Hop {
        let mut best: Option<(u8, Hop)> = None;
        let mut consider = |prefix: IpNet, hop: Hop| {
            if prefix.contains(&address) && best.as_ref().is_none_or(|(len, _)| prefix.prefix_len() >= *len) {
                best = Some((prefix.prefix_len(), hop));
            }
        };
        self.node.cluster_cidrs.iter().for_each(|cidr| consider(*cidr, Hop::NoRoute));
        self.node.pod_cidrs.iter().for_each(|cidr| consider(*cidr, Hop::NoSuchPod));
        for port in self.ports().filter(|port| port.bridge.is_none()) {
            for own in &port.addresses {
                let hop = Hop::Local { port: port.name.to_string(), mac: port.mac_in_force() };
                consider(IpNet::from(own.addr()), hop);
            }
        }
        for object in &self.objects {
            let Object::Route(route) = object else { continue };
            let hop = match &route.via {
                Via::Host => Hop::Host,
                Via::Blackhole => Hop::Blackhole,
                Via::Vtep(name) => Hop::Vtep(name.to_string()),
                // A route to a port that is closed keeps what it covers from wider ones.
                Via::Port(name) => self
                    .port(name.as_str())
                    .map_or(Hop::NoRoute, |port| Hop::Local { port: name.to_string(), mac: port.mac_in_force() }),
            };
            consider(route.prefix, hop);
        }
        best.map_or(Hop::Outside, |(_, hop)| hop)
    }

    /// Remote address and inner MAC for a family's packets.
    pub(super) fn endpoint(vtep: &Vtep, inner_v6: bool) -> Option<(IpAddr, Mac)> {
        let v4 = vtep.v4.map(|end| (IpAddr::V4(end.remote), end.mac));
        let v6 = vtep.v6.map(|end| (IpAddr::V6(end.remote), end.mac));
        if inner_v6 { v6.or(v4) } else { v4.or(v6) }
    }

    /// The way into a tunnel for a packet of this family and TOS.
    pub(super) fn tunnel_way(&self, vtep: &Vtep, vni: u32, inner_v6: bool, tos: u8) -> Option<Way> {
        let (remote, _) = Self::endpoint(vtep, inner_v6)?;
        let overhead = if remote.is_ipv6() { OVERHEAD_V6 } else { OVERHEAD_V4 };
        let mtu = usize::from(self.node.underlay_mtu).saturating_sub(overhead);
        let outer_tos = if self.node.copy_dscp { tos } else { tos & 3 };
        Some(Way { to: Place::Tunnel(vtep.name.to_string()), tunnel: Some((remote, vni, outer_tos)), mtu })
    }

    pub(super) fn routed_vni(&self, vtep: &Vtep) -> u32 {
        vtep.vni.unwrap_or(self.node.vni).get()
    }

    /// Where a station is: pinned, or seen in the last five minutes.
    pub(super) fn station(&self, bridge: Option<&str>, mac: Mac, now_s: u64) -> Option<Place> {
        self.pinned(bridge, mac).or_else(|| {
            let (place, seen_s) = self.learned.get(&(bridge.map(str::to_owned), mac))?;
            (now_s - seen_s < AGEING_SECONDS).then(|| place.clone())
        })
    }

    fn pinned(&self, bridge: Option<&str>, mac: Mac) -> Option<Place> {
        for object in &self.objects {
            let Object::Mac(pin) = object else { continue };
            if pin.mac == mac && pin.bridge.as_ref().map(|name| name.as_str()) == bridge {
                return self.port(pin.port.as_str()).map(|port| Place::Port(port.name.to_string()));
            }
        }
        let owns = |port: &&Port| {
            matches!(port.guard, Guard::On { .. })
                && port.mac_in_force() == mac
                && port.bridge.as_ref().map(|name| name.as_str()) == bridge
        };
        self.ports().find(owns).map(|port| Place::Port(port.name.to_string()))
    }

    /// Notes where a station was seen.
    pub(super) fn learn(&mut self, bridge: Option<&str>, mac: Mac, place: &Place, now_s: u64) {
        if self.pinned(bridge, mac).is_none() {
            self.learned.insert((bridge.map(str::to_owned), mac), (place.clone(), now_s));
        }
    }

    /// Largest L3 packet of a port.
    pub(super) fn port_mtu(&self, name: &str) -> usize {
        self.devices.get(name).map_or(0, |device| usize::from(device.mtu))
    }
}
