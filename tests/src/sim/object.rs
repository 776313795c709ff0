//! Objects to state to a simulated switch, from their text.

use std::net::IpAddr;

use podwire_control::model::{Bridge, BridgeName, Endpoint, Mac, Object, Route, StaticMac, Via, Vni, Vtep, VtepName};

use super::planned_spec;
use crate::plan::NodePlan;

/// A VTEP with up to one endpoint a family.
///
/// # Panics
/// When the name is none.
#[must_use]
#[track_caller]
pub fn vtep(name: &str, endpoints: &[(IpAddr, Mac)]) -> Vtep {
    let mut vtep = Vtep { name: name.parse().expect("a VTEP's name"), v4: None, v6: None, vni: None };
    for &(remote, mac) in endpoints {
        match remote {
            IpAddr::V4(remote) => vtep.v4 = Some(Endpoint { remote, mac }),
            IpAddr::V6(remote) => vtep.v6 = Some(Endpoint { remote, mac }),
        }
    }
    vtep
}

/// A route to another node.
#[must_use]
#[track_caller]
pub fn route(prefix: &str, vtep: &str) -> Object {
    via(prefix, Via::Vtep(vtep.parse().expect("a VTEP's name")))
}

/// A route to a pod.
#[must_use]
#[track_caller]
pub fn port_route(prefix: &str, port: &str) -> Object {
    via(prefix, Via::Port(port.parse().expect("a port's name")))
}

/// A route to the node's own stack.
#[must_use]
#[track_caller]
pub fn host_route(prefix: &str) -> Object {
    via(prefix, Via::Host)
}

/// A route to nowhere.
#[must_use]
#[track_caller]
pub fn blackhole(prefix: &str) -> Object {
    via(prefix, Via::Blackhole)
}

#[track_caller]
fn via(prefix: &str, via: Via) -> Object {
    Object::Route(Route { prefix: prefix.parse().expect("a prefix"), via })
}

/// A bridge; stretched over VXLAN when it has a VNI, and flooding to these VTEPs then.
///
/// # Panics
/// When a name or the VNI is none.
#[must_use]
#[track_caller]
pub fn bridge(name: &str, vni: Option<u32>, flood: &[&str]) -> Bridge {
    let vteps = flood.iter().map(|vtep| vtep.parse::<VtepName>().expect("a VTEP's name"));
    Bridge {
        name: name.parse::<BridgeName>().expect("a bridge's name"),
        vni: vni.map(|vni| Vni::try_from(vni).expect("a VNI")),
        flood: vteps.collect(),
        vlan_transparent: false,
    }
}

/// A MAC pinned to a port; on the pod segment when no bridge is named.
///
/// # Panics
/// When a name is none.
#[must_use]
#[track_caller]
pub fn static_mac(bridge: Option<&str>, mac: Mac, port: &str) -> Object {
    let bridge = bridge.map(|name| name.parse().expect("a bridge's name"));
    Object::Mac(StaticMac { bridge, mac, port: port.parse().expect("a port's name") })
}

/// What a node states of another node of the plan: its VTEP with both endpoints, and the routes to its pods.
#[must_use]
pub fn peer_of_plan(plan: NodePlan) -> Vec<Object> {
    let (name, mac) = (plan.name(), planned_spec(plan).vtep_mac());
    let routes = plan.pod_cidrs().map(|prefix| route(&prefix.to_string(), &name));
    let endpoints = plan.underlay().map(|address| (address.addr(), mac));
    std::iter::once(Object::Vtep(vtep(&name, &endpoints))).chain(routes).collect()
}
