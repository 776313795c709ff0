//! The objects an owner states, their keys, and what came of stating them.

use std::path::PathBuf;

use super::{
    ConvertError, Number, Result, enumeration, needed, number, numbers, optional, rows, same, shown, text, texts,
};
use crate::model::{self, Invalid, Key, Object, Vni};
use crate::proto as pb;

const MTU_REMEDY: &str = "use 576 to 65535";
const VNI_REMEDY: &str = "use a number from 0 to 16777215";

numbers! {
    Owner, Owner { File, Cli, Cni, Kubernetes, Etcd, Kernel };
    PortKind, PortKind { Tap, VethXdp };
    Action, Action { Added, Changed, Removed };
}

/// Reads an optional VNI.
pub(super) fn vni(object: &str, given: Option<u32>) -> Result<Option<Vni>> {
    given.map(|given| number(object, "vni", given, VNI_REMEDY)).transpose()
}

impl From<&model::Guard> for pb::Guard {
    fn from(guard: &model::Guard) -> Self {
        match guard {
            model::Guard::Off => Self { off: true, allowed: Vec::new() },
            model::Guard::On { allowed } => Self { off: false, allowed: shown(allowed) },
        }
    }
}

/// Reads a guard; an absent one is on, with nothing allowed beside.
pub(super) fn guard(object: &str, given: Option<&pb::Guard>) -> Result<model::Guard> {
    match given {
        None => Ok(model::Guard::On { allowed: Vec::new() }),
        Some(guard) if !guard.off => Ok(model::Guard::On { allowed: texts(object, "allowed", &guard.allowed)? }),
        Some(guard) if guard.allowed.is_empty() => Ok(model::Guard::Off),
        Some(_) => Err(Invalid {
            object: object.to_owned(),
            field: "guard",
            problem: "is off, but prefixes are allowed beside".into(),
            remedy: "switch it on, or leave the prefixes out".into(),
        }
        .into()),
    }
}

same! {
    model::RateLimit, pb::RateLimit { bits_per_s, burst_bits };
}

impl From<model::Bandwidth> for pb::Bandwidth {
    fn from(bandwidth: model::Bandwidth) -> Self {
        Self { ingress: bandwidth.ingress.map(Into::into), egress: bandwidth.egress.map(Into::into) }
    }
}

/// Reads limits; absent ones are none.
pub(super) fn bandwidth(given: Option<pb::Bandwidth>) -> model::Bandwidth {
    let given = given.unwrap_or_default();
    model::Bandwidth { ingress: given.ingress.map(Into::into), egress: given.egress.map(Into::into) }
}

impl From<&model::Port> for pb::Port {
    fn from(port: &model::Port) -> Self {
        Self {
            name: port.name.to_string(),
            kind: pb::PortKind::from(port.kind).into(),
            netns: port.netns.to_string_lossy().into_owned(),
            ifname: port.ifname.clone(),
            addresses: shown(&port.addresses),
            mac: port.mac.map(|mac| mac.to_string()),
            mtu: port.mtu.map(u32::from),
            bridge: port.bridge.as_ref().map(ToString::to_string),
            guard: Some((&port.guard).into()),
            bandwidth: Some(port.bandwidth.into()),
        }
    }
}

impl TryFrom<&pb::Port> for model::Port {
    type Error = ConvertError;

    fn try_from(port: &pb::Port) -> Result<Self> {
        let object = &format!("port {}", port.name);
        Ok(Self {
            name: text(object, "name", &port.name)?,
            kind: enumeration(object, "kind", port.kind)?,
            netns: PathBuf::from(&port.netns),
            ifname: port.ifname.clone(),
            addresses: texts(object, "address", &port.addresses)?,
            mac: optional(object, "mac", port.mac.as_ref())?,
            mtu: port.mtu.map(|mtu| number(object, "mtu", mtu, MTU_REMEDY)).transpose()?,
            bridge: optional(object, "bridge", port.bridge.as_ref())?,
            guard: guard(object, port.guard.as_ref())?,
            bandwidth: bandwidth(port.bandwidth),
        })
    }
}

impl From<&model::Bridge> for pb::Bridge {
    fn from(bridge: &model::Bridge) -> Self {
        Self {
            name: bridge.name.to_string(),
            vni: bridge.vni.map(Vni::get),
            flood: shown(&bridge.flood),
            vlan_transparent: bridge.vlan_transparent,
        }
    }
}

impl TryFrom<&pb::Bridge> for model::Bridge {
    type Error = ConvertError;

    fn try_from(bridge: &pb::Bridge) -> Result<Self> {
        let object = &format!("bridge {}", bridge.name);
        Ok(Self {
            name: text(object, "name", &bridge.name)?,
            vni: vni(object, bridge.vni)?,
            flood: texts(object, "flood", &bridge.flood)?,
            vlan_transparent: bridge.vlan_transparent,
        })
    }
}

impl From<&model::StaticMac> for pb::StaticMac {
    fn from(mac: &model::StaticMac) -> Self {
        let bridge = mac.bridge.as_ref().map(ToString::to_string);
        Self { bridge, mac: mac.mac.to_string(), port: mac.port.to_string() }
    }
}

impl TryFrom<&pb::StaticMac> for model::StaticMac {
    type Error = ConvertError;

    fn try_from(mac: &pb::StaticMac) -> Result<Self> {
        let object = &format!("mac {}", mac.mac);
        Ok(Self {
            bridge: optional(object, "bridge", mac.bridge.as_ref())?,
            mac: text(object, "mac", &mac.mac)?,
            port: text(object, "port", &mac.port)?,
        })
    }
}

impl From<&model::Route> for pb::Route {
    fn from(route: &model::Route) -> Self {
        use pb::via::NextHop;
        let next_hop = match &route.via {
            model::Via::Vtep(name) => NextHop::Vtep(name.to_string()),
            model::Via::Port(name) => NextHop::Port(name.to_string()),
            model::Via::Host => NextHop::Host(pb::Host {}),
            model::Via::Blackhole => NextHop::Blackhole(pb::Blackhole {}),
        };
        Self { prefix: route.prefix.to_string(), via: Some(pb::Via { next_hop: Some(next_hop) }) }
    }
}

impl TryFrom<&pb::Route> for model::Route {
    type Error = ConvertError;

    fn try_from(route: &pb::Route) -> Result<Self> {
        use pb::via::NextHop;
        let object = &format!("route {}", route.prefix);
        let next_hop = route.via.as_ref().and_then(|via| via.next_hop.as_ref());
        let via = match needed(object, "via", next_hop, "give a VTEP, a port, the host or blackhole")? {
            NextHop::Vtep(name) => model::Via::Vtep(text(object, "via", name)?),
            NextHop::Port(name) => model::Via::Port(text(object, "via", name)?),
            NextHop::Host(_) => model::Via::Host,
            NextHop::Blackhole(_) => model::Via::Blackhole,
        };
        Ok(Self { prefix: text(object, "prefix", &route.prefix)?, via })
    }
}

impl From<&model::Vtep> for pb::Vtep {
    fn from(vtep: &model::Vtep) -> Self {
        let v4 = vtep.v4.map(|end| pb::Endpoint { remote: end.remote.to_string(), mac: end.mac.to_string() });
        let v6 = vtep.v6.map(|end| pb::Endpoint { remote: end.remote.to_string(), mac: end.mac.to_string() });
        Self { name: vtep.name.to_string(), endpoints: v4.into_iter().chain(v6).collect(), vni: vtep.vni.map(Vni::get) }
    }
}

impl TryFrom<&pb::Vtep> for model::Vtep {
    type Error = ConvertError;

    fn try_from(vtep: &pb::Vtep) -> Result<Self> {
        let object = &format!("vtep {}", vtep.name);
        let mut ends = Vec::with_capacity(vtep.endpoints.len());
        for end in &vtep.endpoints {
            ends.push((text(object, "remote", &end.remote)?, text(object, "mac", &end.mac)?));
        }
        let name = text(object, "name", &vtep.name)?;
        Ok(Self::of_endpoints(name, ends, vni(object, vtep.vni)?)?)
    }
}

impl From<&Object> for pb::Object {
    fn from(object: &Object) -> Self {
        use pb::object::Object as Kind;
        let kind = match object {
            Object::Port(port) => Kind::Port(port.into()),
            Object::Bridge(bridge) => Kind::Bridge(bridge.into()),
            Object::Mac(mac) => Kind::Mac(mac.into()),
            Object::Route(route) => Kind::Route(route.into()),
            Object::Vtep(vtep) => Kind::Vtep(vtep.into()),
        };
        Self { object: Some(kind) }
    }
}

impl TryFrom<pb::Object> for Object {
    type Error = ConvertError;

    fn try_from(given: pb::Object) -> Result<Self> {
        use pb::object::Object as Kind;
        let object = match needed("object", "kind", given.object, "give a port, bridge, mac, route or vtep")? {
            Kind::Port(port) => Self::Port((&port).try_into()?),
            Kind::Bridge(bridge) => Self::Bridge((&bridge).try_into()?),
            Kind::Mac(mac) => Self::Mac((&mac).try_into()?),
            Kind::Route(route) => Self::Route((&route).try_into()?),
            Kind::Vtep(vtep) => Self::Vtep((&vtep).try_into()?),
        };
        object.validate()?;
        Ok(object)
    }
}

impl From<&Key> for pb::Key {
    fn from(key: &Key) -> Self {
        use pb::key::Key as Kind;
        let kind = match key {
            Key::Port(name) => Kind::Port(name.to_string()),
            Key::Bridge(name) => Kind::Bridge(name.to_string()),
            Key::Vtep(name) => Kind::Vtep(name.to_string()),
            Key::Route(prefix) => Kind::Route(prefix.to_string()),
            Key::Mac { bridge, mac } => {
                Kind::Mac(pb::MacKey { bridge: bridge.as_ref().map(ToString::to_string), mac: mac.to_string() })
            }
        };
        Self { key: Some(kind) }
    }
}

impl TryFrom<pb::Key> for Key {
    type Error = ConvertError;

    fn try_from(given: pb::Key) -> Result<Self> {
        use pb::key::Key as Kind;
        Ok(match needed("key", "kind", given.key, "give a port, bridge, mac, route or vtep")? {
            Kind::Port(name) => Self::Port(text(&format!("port {name}"), "name", &name)?),
            Kind::Bridge(name) => Self::Bridge(text(&format!("bridge {name}"), "name", &name)?),
            Kind::Vtep(name) => Self::Vtep(text(&format!("vtep {name}"), "name", &name)?),
            Kind::Route(prefix) => Self::Route(text(&format!("route {prefix}"), "prefix", &prefix)?),
            Kind::Mac(key) => {
                let object = &format!("mac {}", key.mac);
                let mac = text(object, "mac", &key.mac)?;
                Self::Mac { bridge: optional(object, "bridge", key.bridge.as_ref())?, mac }
            }
        })
    }
}

impl From<model::Applied> for pb::Applied {
    fn from(applied: model::Applied) -> Self {
        let changed = applied.changed.iter().map(|changed| pb::Changed {
            key: Some((&changed.key).into()),
            action: pb::Action::from(changed.action).into(),
        });
        Self { generation: applied.generation, changed: changed.collect(), unchanged: applied.unchanged }
    }
}

impl TryFrom<pb::Changed> for model::Changed {
    type Error = ConvertError;

    fn try_from(changed: pb::Changed) -> Result<Self> {
        let key = needed("change", "key", changed.key, "use podwire and podwired of one version")?;
        Ok(Self { key: key.try_into()?, action: enumeration("change", "action", changed.action)? })
    }
}

impl TryFrom<pb::Applied> for model::Applied {
    type Error = ConvertError;

    fn try_from(applied: pb::Applied) -> Result<Self> {
        let changed = rows(applied.changed)?;
        Ok(Self { generation: applied.generation, changed, unchanged: applied.unchanged })
    }
}
