//! Random switches: ports, bridges, VTEPs and routes from a small stock of names and addresses, so that they meet. No port is
//! limited: what a limit drops depends on time and order, which the cases of the `pipeline` ring hold fixed.

use std::net::IpAddr;

use ipnet::IpNet;
use podwire_control::model::{Bandwidth, Bridge, Guard, Key, Mac, Object, Port, PortKind, Vni};
use podwire_tests::reference::Reference;
use podwire_tests::sim::{self, HOST, SimPort, SimSwitch, UPLINK, planned_spec};
use podwire_tests::{NodePlan, plan};
use podwire_vswitch::compile::{Device, NodeSpec};
use podwire_vswitch::port::PortCaps;
use proptest::prelude::*;

/// The node under test.
pub(crate) const NODE: NodePlan = NodePlan(1);
/// A VLAN-transparent bridge that is stretched over VXLAN, and its VNI.
pub(crate) const STRETCHED: &str = "stretched";
pub(crate) const STRETCHED_VNI: u32 = 50;
/// A bridge of this node alone.
pub(crate) const LOCAL: &str = "local";
/// VNI of the VTEPs that have one of their own.
pub(crate) const OWN_VNI: u32 = 77;
/// Sources that some guards allow beside the port's own.
pub(crate) const ALLOWED: [&str; 2] = ["192.168.7.0/24", "fd00:7::/64"];

/// One pod, described.
#[derive(Clone, Debug)]
pub(crate) struct PodShape {
    /// 0 the pod segment, 1 the stretched bridge, 2 the local one.
    pub(crate) segment: u8,
    /// 0 own addresses, 1 and allowed prefixes, 2 off.
    pub(crate) guard: u8,
    pub(crate) mtu: u16,
    pub(crate) all_caps: bool,
    /// Bit 0 IPv4, bit 1 IPv6.
    pub(crate) families: u8,
}

/// One switch, described.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    /// Families the node's pod segment has.
    pub(crate) families: u8,
    pub(crate) host: bool,
    pub(crate) uplink: bool,
    pub(crate) underlay_mtu: u16,
    pub(crate) copy_dscp: bool,
    pub(crate) pods: Vec<PodShape>,
    /// Families of each VTEP's endpoints, and whether it has a VNI of its own.
    pub(crate) vteps: Vec<(u8, bool)>,
    /// Index into the stock of prefixes, and where it leads.
    pub(crate) routes: Vec<(usize, u8)>,
    pub(crate) transparent: bool,
    /// VTEPs the stretched bridge floods to, by bit.
    pub(crate) flood: u8,
    /// Pods that are stated and whose device is not open, by bit.
    pub(crate) closed: u8,
    /// Strangers' MACs pinned to pods.
    pub(crate) pins: Vec<(u8, usize)>,
}

/// Prefixes that routes are stated for: remote pods, services, somebody's network, the whole world.
const PREFIXES: [&str; 16] = [
    "10.244.2.0/24",
    "fd00:244:2::/64",
    "10.244.3.0/24",
    "fd00:244:3::/64",
    "10.244.4.0/24",
    "fd00:244:4::/64",
    "10.244.2.64/26",
    "fd00:244:2::40/122",
    "10.96.0.0/12",
    "fd00:96::/108",
    "192.168.7.0/24",
    "fd00:7::/64",
    "10.244.1.12/32",
    "fd00:244:1::c/128",
    "0.0.0.0/0",
    "::/0",
];

pub(crate) fn topologies() -> BoxedStrategy<Topology> {
    let pod = (
        prop_oneof![6 => Just(0_u8), 2 => Just(1), 1 => Just(2)],
        prop_oneof![6 => Just(0_u8), 2 => Just(1), 2 => Just(2)],
        prop_oneof![Just(1_430_u16), Just(1_450), Just(1_280)],
        any::<bool>(),
        prop_oneof![6 => Just(3_u8), 1 => Just(1), 1 => Just(2), 1 => Just(0)],
    )
        .prop_map(|(segment, guard, mtu, all_caps, families)| PodShape { segment, guard, mtu, all_caps, families });
    let node = (
        prop_oneof![6 => Just(3_u8), 1 => Just(1), 1 => Just(2)],
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.9),
        prop_oneof![3 => Just(1_500_u16), 1 => Just(1_400), 1 => Just(1_350)],
        any::<bool>(),
    );
    let lists = (
        prop::collection::vec(pod, 1..7),
        prop_oneof![1 => Just(0..1_usize), 6 => Just(1..4)]
            .prop_flat_map(|count| prop::collection::vec((1_u8..4, prop::bool::weighted(0.2)), count)),
        prop::collection::vec((0..PREFIXES.len(), prop_oneof![3 => 0_u8..4, 1 => 4_u8..10]), 0..16),
        prop::collection::vec((0_u8..3, 0_usize..6), 0..3),
    );
    let closed = prop_oneof![4 => Just(0_u8), 1 => any::<u8>()];
    (node, lists, any::<bool>(), 0_u8..8, closed)
        .prop_map(|(node, lists, transparent, flood, closed)| {
            let (families, host, uplink, underlay_mtu, copy_dscp) = node;
            let (pods, vteps, routes, pins) = lists;
            Topology {
                families,
                host,
                uplink,
                underlay_mtu,
                copy_dscp,
                pods,
                vteps,
                routes,
                transparent,
                flood,
                closed,
                pins,
            }
        })
        .boxed()
}

pub(crate) fn pod_name(at: usize) -> String {
    format!("pod{at}")
}

/// Addresses of the pod at a place, which start at .10.
pub(crate) fn pod_ip(at: usize, v6: bool) -> IpAddr {
    let host = u8::try_from(10 + at).expect("few pods");
    plan::of_family(&NODE.pod(host), v6)
}

pub(crate) fn vtep_name(at: usize) -> String {
    format!("node{}", 2 + at)
}

fn vtep_plan(at: usize) -> NodePlan {
    NodePlan(u8::try_from(2 + at).expect("few VTEPs"))
}

/// Underlay address of a VTEP.
pub(crate) fn vtep_remote(at: usize, v6: bool) -> IpAddr {
    plan::of_family(&vtep_plan(at).underlay(), v6)
}

/// Inner MAC of a VTEP's endpoint; each family has its own, as with flannel.
pub(crate) fn vtep_mac(at: usize, v6: bool) -> Mac {
    Mac([0x0a, 0x5a, 0, 0, u8::from(v6), u8::try_from(at).expect("few VTEPs")])
}

/// A station nobody stated.
pub(crate) fn stranger(number: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0, number])
}

impl Topology {
    pub(crate) fn spec(&self) -> NodeSpec {
        let mut spec = planned_spec(NODE);
        let has = |net: &IpNet| self.families & if net.addr().is_ipv4() { 1 } else { 2 } != 0;
        spec.pod_cidrs.retain(has);
        spec.underlay_mtu = self.underlay_mtu;
        spec.copy_dscp = self.copy_dscp;
        spec
    }

    fn port(&self, at: usize) -> Port {
        let shape = &self.pods[at];
        let host = u8::try_from(10 + at).expect("few pods");
        let wanted = if shape.segment == 0 { shape.families & self.families } else { shape.families };
        let addresses = NODE.pod(host).into_iter().filter(|net| wanted & if net.addr().is_ipv4() { 1 } else { 2 } != 0);
        let allowed = ALLOWED.map(|prefix| prefix.parse().expect("a prefix")).to_vec();
        Port {
            name: pod_name(at).parse().expect("a port's name"),
            kind: PortKind::Tap,
            netns: format!("/run/netns/{}", pod_name(at)).into(),
            ifname: "eth0".to_owned(),
            addresses: addresses.collect(),
            mac: None,
            mtu: None,
            bridge: [None, Some(STRETCHED), Some(LOCAL)][usize::from(shape.segment)]
                .map(|name| name.parse().expect("a bridge's name")),
            guard: match shape.guard {
                0 => Guard::On { allowed: Vec::new() },
                1 => Guard::On { allowed },
                _ => Guard::Off,
            },
            bandwidth: Bandwidth::default(),
        }
    }

    /// Whether the device of the pod at a place is open.
    pub(crate) fn is_open(&self, at: usize) -> bool {
        self.closed >> at & 1 == 0
    }

    /// MAC of the pod at a place.
    pub(crate) fn pod_mac(&self, at: usize) -> Mac {
        self.port(at).mac_in_force()
    }

    /// Everything stated, no key twice.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = (0..self.pods.len()).map(|at| Object::Port(self.port(at))).collect();
        let flooded = (0..self.vteps.len()).filter(|at| self.flood >> at & 1 == 1);
        objects.push(Object::Bridge(Bridge {
            name: STRETCHED.parse().expect("a bridge's name"),
            vni: Vni::try_from(STRETCHED_VNI).ok(),
            flood: flooded.map(|at| vtep_name(at).parse().expect("a VTEP's name")).collect(),
            vlan_transparent: self.transparent,
        }));
        objects.push(Object::Bridge(sim::bridge(LOCAL, None, &[])));
        for (at, &(families, own_vni)) in self.vteps.iter().enumerate() {
            let ends = [false, true].into_iter().filter(|&v6| families & if v6 { 2 } else { 1 } != 0);
            let ends: Vec<_> = ends.map(|v6| (vtep_remote(at, v6), vtep_mac(at, v6))).collect();
            let mut vtep = sim::vtep(&vtep_name(at), &ends);
            vtep.vni = own_vni.then(|| Vni::try_from(OWN_VNI).expect("a VNI"));
            objects.push(Object::Vtep(vtep));
        }
        objects.extend(self.routes.iter().filter_map(|&(prefix, via)| self.route(PREFIXES[prefix], usize::from(via))));
        for &(number, pod) in &self.pins {
            if let Some(shape) = self.pods.get(pod) {
                let bridge = [None, Some(STRETCHED), Some(LOCAL)][usize::from(shape.segment)];
                objects.push(sim::static_mac(bridge, stranger(number), &pod_name(pod)));
            }
        }
        last_of_each_key(objects)
    }

    /// A route of the stock.
    pub(crate) fn route_of_stock(&self, at: usize, via: u8) -> Option<Object> {
        self.route(PREFIXES[at % PREFIXES.len()], usize::from(via))
    }

    /// The pod at a place with its device.
    pub(crate) fn pod_port(&self, at: usize) -> SimPort {
        let shape = &self.pods[at];
        self.sim_pod(&pod_name(at)).mtu(shape.mtu).caps(if shape.all_caps { PortCaps::ALL } else { PortCaps::NONE })
    }

    /// A route that leads somewhere: 0 to 3 a VTEP, 4 to 7 a pod.
    fn route(&self, prefix: &str, via: usize) -> Option<Object> {
        match via {
            0..4 => (!self.vteps.is_empty()).then(|| sim::route(prefix, &vtep_name(via % self.vteps.len()))),
            4..8 => Some(sim::port_route(prefix, &pod_name(via % self.pods.len()))),
            8 => Some(sim::host_route(prefix)),
            _ => Some(sim::blackhole(prefix)),
        }
    }

    /// The devices of all ports.
    pub(crate) fn devices(&self) -> Vec<(String, Device)> {
        let caps = |all| if all { PortCaps::ALL } else { PortCaps::NONE };
        let gateway = self.spec().gateway_mac();
        let open = self.pods.iter().enumerate().filter(|&(at, _)| self.is_open(at));
        let pods = open.map(|(at, shape)| {
            (pod_name(at), Device { mac: self.pod_mac(at), mtu: shape.mtu, caps: caps(shape.all_caps) })
        });
        let host = self.host.then(|| (HOST.to_owned(), Device { mac: gateway, mtu: 1_430, caps: caps(true) }));
        let uplink =
            self.uplink.then(|| (UPLINK.to_owned(), Device { mac: gateway, mtu: u16::MAX, caps: caps(false) }));
        pods.chain(host).chain(uplink).collect()
    }

    /// The real engine.
    pub(crate) fn switch(&self) -> SimSwitch {
        self.on(SimSwitch::new(self.spec()))
    }

    /// The real engine with a flow cache of so many flows, or without one.
    pub(crate) fn switch_with_flows(&self, flows: usize) -> SimSwitch {
        self.on(SimSwitch::with_flows(self.spec(), flows))
    }

    fn on(&self, mut switch: SimSwitch) -> SimSwitch {
        let open =
            |object: &Object| matches!(object, Object::Port(port) if self.sim_names().contains(&port.name.to_string()));
        switch.state(self.objects().into_iter().filter(|object| !open(object)));
        for port in self.sim_ports() {
            switch.port(port);
        }
        switch
    }

    fn sim_names(&self) -> Vec<String> {
        self.devices().into_iter().map(|(name, _)| name).collect()
    }

    /// Every port with its device.
    pub(crate) fn sim_ports(&self) -> Vec<SimPort> {
        let port = |(name, device): (String, Device)| {
            let port = match name.as_str() {
                HOST => SimPort::host(),
                UPLINK => SimPort::uplink(),
                _ => self.sim_pod(&name),
            };
            port.mtu(device.mtu).caps(device.caps)
        };
        self.devices().into_iter().map(port).collect()
    }

    fn sim_pod(&self, name: &str) -> SimPort {
        let at = (0..self.pods.len()).find(|&at| pod_name(at) == name).expect("a pod of this topology");
        let port = self.port(at);
        let pod = SimPort::pod(name, &port.addresses);
        let pod = match &port.bridge {
            Some(bridge) => pod.bridge(bridge.as_str()),
            None => pod,
        };
        match &port.guard {
            Guard::On { allowed } => pod.allowed(allowed),
            Guard::Off => pod.unguarded(),
        }
    }

    /// What it is held to.
    pub(crate) fn reference(&self) -> Reference {
        Reference::new(&self.spec(), &self.objects(), self.devices())
    }
}

/// As a ledger has it: a later object takes the place of an earlier one of its key.
fn last_of_each_key(objects: Vec<Object>) -> Vec<Object> {
    let mut keys: Vec<Key> = Vec::new();
    let mut kept: Vec<Object> = Vec::new();
    for object in objects.into_iter().rev() {
        if !keys.contains(&object.key()) {
            keys.push(object.key());
            kept.push(object);
        }
    }
    kept.reverse();
    kept
}
