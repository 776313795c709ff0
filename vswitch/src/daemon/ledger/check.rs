//! How objects must fit together: references lead somewhere, nothing is claimed twice, limits hold.
//!
//! A fault names the object that does not fit; where that is because another one goes away, the refusal names
//! that one, since it is what the request asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use podwire_control::model::{BridgeName, Key, Mac, Object, Owner, Port, StaticMac, Via, Vtep};

use super::{Changes, Effective, POD_SEGMENT, RESERVED_PORTS, Refusal};
use crate::limits;

/// One thing that does not fit. Comparable, so that new faults can be told from old ones.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Fault {
    /// `from` needs `to`, which is not there.
    Dangling { from: Key, owner: Owner, to: Key, relation: &'static str },
    /// Both have what only one may have.
    Clash { one: Key, other: Key, what: String },
    /// Anything else.
    Wrong { key: Key, reason: String },
}

impl Fault {
    /// The refusal of a request that makes these changes: it names an object the request asked for.
    pub(super) fn into_refusal(self, changes: &Changes) -> Refusal {
        match self {
            Self::Wrong { key, reason } => Refusal { key, reason },
            Self::Clash { one, other, what } => {
                let (key, other) = if changes.touches(&one) { (one, other) } else { (other, one) };
                Refusal { key, reason: format!("{other} has {what} too; give one of them another") }
            }
            Self::Dangling { from, owner, to, relation } if changes.removed.binary_search(&to).is_ok() => {
                let reason = format!("{from} ({owner}) still {relation} it; delete or change {from} first");
                Refusal { key: to, reason }
            }
            Self::Dangling { from, to, relation, .. } => {
                let pods = matches!(&to, Key::Bridge(name) if name.as_str() == POD_SEGMENT);
                let reason = if pods {
                    format!("it names the node's own segment {POD_SEGMENT}; leave the bridge out to mean that one")
                } else {
                    format!("it {relation} {to}, which does not exist; add {to} first, or in the same request")
                };
                Refusal { key: from, reason }
            }
        }
    }
}

/// All that does not fit in a view.
pub(super) fn faults(view: &Effective<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, owner, object) in view.iter() {
        references(view, key, owner, object, &mut faults);
        if let Some(reason) = alone(object) {
            faults.push(Fault::Wrong { key: key.clone(), reason });
        }
    }
    let mut claims = Claims { taken: BTreeMap::new(), faults };
    for (_, port) in view.ports() {
        claims.of_port(port);
    }
    for (_, vtep) in view.vteps() {
        claims.of_vtep(vtep);
    }
    let mut faults = claims.faults;
    faults.extend(view.macs().filter_map(|(_, mac)| misplaced(view, mac)));
    faults
}

/// The references of one object that lead nowhere.
fn references(view: &Effective<'_>, from: &Key, owner: Owner, object: &Object, faults: &mut Vec<Fault>) {
    let mut need = |to: Key, relation: &'static str| {
        if view.get(&to).is_none() {
            faults.push(Fault::Dangling { from: from.clone(), owner, to, relation });
        }
    };
    match object {
        Object::Port(Port { bridge: Some(bridge), .. }) => need(Key::Bridge(bridge.clone()), "is a member of"),
        Object::Port(_) | Object::Vtep(_) => {}
        Object::Bridge(bridge) => bridge.flood.iter().for_each(|vtep| need(Key::Vtep(vtep.clone()), "floods to")),
        Object::Mac(mac) => {
            if let Some(bridge) = &mac.bridge {
                need(Key::Bridge(bridge.clone()), "is pinned on");
            }
            need(Key::Port(mac.port.clone()), "is pinned to");
        }
        Object::Route(route) => match &route.via {
            Via::Vtep(vtep) => need(Key::Vtep(vtep.clone()), "leads to"),
            Via::Port(port) => need(Key::Port(port.clone()), "leads to"),
            Via::Host | Via::Blackhole => {}
        },
    }
}

/// What the switch refuses of an object whatever stands beside it; the rest of that is the model's to check.
fn alone(object: &Object) -> Option<String> {
    match object {
        Object::Port(port) if RESERVED_PORTS.contains(&port.name.as_str()) => {
            Some("the name is the switch's own; choose another".to_owned())
        }
        Object::Port(port) if port.addresses.len() > limits::PORT_ADDRESSES_MAX => Some(format!(
            "it has {} addresses, and a port may have {}; state fewer, and allow further sources by its spoof guard",
            port.addresses.len(),
            limits::PORT_ADDRESSES_MAX
        )),
        Object::Bridge(bridge) if bridge.name.as_str() == POD_SEGMENT => {
            Some("the name is the node's own pod segment's; choose another".to_owned())
        }
        _ => None,
    }
}

/// What may be claimed once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Address(Option<&'a BridgeName>, IpAddr),
    Mac(Option<&'a BridgeName>, Mac),
    Interface(&'a std::path::Path, &'a str),
    Endpoint(IpAddr),
}

struct Claims<'a> {
    taken: BTreeMap<Claim<'a>, Key>,
    faults: Vec<Fault>,
}

impl<'a> Claims<'a> {
    fn of_port(&mut self, port: &'a Port) {
        let key = Key::Port(port.name.clone());
        let bridge = port.bridge.as_ref();
        for address in &port.addresses {
            self.claim(Claim::Address(bridge, address.addr()), &key, || format!("the address {}", address.addr()));
        }
        let mac = port.mac_in_force();
        self.claim(Claim::Mac(bridge, mac), &key, || format!("the MAC {mac}"));
        self.claim(Claim::Interface(&port.netns, &port.ifname), &key, || {
            format!("the interface {} in {}", port.ifname, port.netns.display())
        });
    }

    fn of_vtep(&mut self, vtep: &'a Vtep) {
        let key = Key::Vtep(vtep.name.clone());
        let v4 = vtep.v4.map(|end| IpAddr::V4(end.remote));
        let v6 = vtep.v6.map(|end| IpAddr::V6(end.remote));
        for remote in v4.into_iter().chain(v6) {
            self.claim(Claim::Endpoint(remote), &key, || format!("the remote address {remote}"));
        }
    }

    fn claim(&mut self, claim: Claim<'a>, key: &Key, what: impl Fn() -> String) {
        match self.taken.get(&claim) {
            None => {
                self.taken.insert(claim, key.clone());
            }
            Some(other) if other == key => {
                let reason = format!("it states {} twice; state it once", what());
                self.faults.push(Fault::Wrong { key: key.clone(), reason });
            }
            Some(other) => {
                self.faults.push(Fault::Clash { one: key.clone(), other: other.clone(), what: what() });
            }
        }
    }
}

/// A MAC pinned on another bridge than its port is on.
fn misplaced(view: &Effective<'_>, mac: &StaticMac) -> Option<Fault> {
    let port = view.port(&mac.port).filter(|port| port.bridge != mac.bridge)?;
    let segment = |bridge: Option<&BridgeName>| bridge.map_or(POD_SEGMENT, BridgeName::as_str).to_owned();
    let (of_port, of_mac) = (segment(port.bridge.as_ref()), segment(mac.bridge.as_ref()));
    let reason = format!("port {} is on bridge {of_port}, not on {of_mac}; pin the MAC on {of_port}", port.name);
    Some(Fault::Wrong { key: Key::Mac { bridge: mac.bridge.clone(), mac: mac.mac }, reason })
}

/// How many there are of what one switch may have a limited number of.
struct Counted {
    count: usize,
    max: usize,
    what: &'static str,
    is_one: fn(&Key) -> bool,
}

/// The limits that `added` objects, named in order, exceed. Taking away is always allowed.
pub(super) fn limits<'k>(view: &Effective<'_>, added: impl Iterator<Item = &'k Key> + Clone) -> Vec<Refusal> {
    let (vteps, own) = (view.vteps().count(), RESERVED_PORTS.len());
    let all = [
        Counted {
            count: view.ports().count() + vteps + own,
            max: limits::PORTS_MAX,
            what: "ports, tunnels and the switch's own included",
            is_one: |key| matches!(key, Key::Port(_) | Key::Vtep(_)),
        },
        Counted { count: vteps, max: limits::VTEPS_MAX, what: "VTEPs", is_one: |key| matches!(key, Key::Vtep(_)) },
        Counted {
            count: view.bridges().count() + 1,
            max: limits::BRIDGES_MAX,
            what: "bridges, the pod segment included",
            is_one: |key| matches!(key, Key::Bridge(_)),
        },
        Counted {
            count: view.routes().count(),
            max: limits::ROUTES_MAX,
            what: "routes",
            is_one: |key| matches!(key, Key::Route(_)),
        },
    ];
    let exceeded = all.into_iter().filter(|counted| counted.count > counted.max);
    exceeded
        .filter_map(|Counted { count, max, what, is_one }| {
            let key = added.clone().filter(|key| is_one(key)).last()?.clone();
            let reason = format!("that would be {count} {what}, and one switch may have {max}; delete some first");
            Some(Refusal { key, reason })
        })
        .collect()
}
