//! How an object is written in the store: JSON of a version of our own, so that the model may change freely.
//!
//! A record says its version before anything else is looked at. A field may only be added together with a new
//! version; records of older versions stay readable.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use podwire_control::model::{Bridge, Endpoint, Guard, Object, Port, PortKind, Route, StaticMac, Via, Vni, Vtep};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version written.
const VERSION: u32 = 1;

/// Why a record can not be read or written, in words.
pub(super) type RecordError = String;

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    object: ObjectV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ObjectV1 {
    Port(PortV1),
    Bridge(BridgeV1),
    Mac(MacV1),
    Route(RouteV1),
    Vtep(VtepV1),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortV1 {
    name: String,
    kind: PortKindV1,
    netns: PathBuf,
    ifname: String,
    addresses: Vec<IpNetV1>,
    mac: Option<String>,
    mtu: Option<u16>,
    bridge: Option<String>,
    /// Prefixes allowed beside the port's own; none when the guard is off.
    guard: Option<Vec<IpNetV1>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PortKindV1 {
    Tap,
    VethXdp,
}

impl From<PortKind> for PortKindV1 {
    fn from(kind: PortKind) -> Self {
        match kind {
            PortKind::Tap => Self::Tap,
            PortKind::VethXdp => Self::VethXdp,
        }
    }
}

impl From<PortKindV1> for PortKind {
    fn from(kind: PortKindV1) -> Self {
        match kind {
            PortKindV1::Tap => Self::Tap,
            PortKindV1::VethXdp => Self::VethXdp,
        }
    }
}

/// A prefix as text: address, slash, length.
pub(super) type IpNetV1 = String;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeV1 {
    name: String,
    vni: Option<u32>,
    flood: Vec<String>,
    vlan_transparent: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MacV1 {
    bridge: Option<String>,
    mac: String,
    port: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteV1 {
    prefix: IpNetV1,
    via: ViaV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ViaV1 {
    Vtep(String),
    Port(String),
    Host,
    Blackhole,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VtepV1 {
    name: String,
    v4: Option<EndpointV1<Ipv4Addr>>,
    v6: Option<EndpointV1<Ipv6Addr>>,
    vni: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointV1<A> {
    remote: A,
    mac: String,
}

/// The bytes of an object.
pub(super) fn encode(object: &Object) -> Result<Vec<u8>, RecordError> {
    let object = match object {
        Object::Port(port) => ObjectV1::Port(write_port(port)),
        Object::Bridge(bridge) => ObjectV1::Bridge(BridgeV1 {
            name: bridge.name.to_string(),
            vni: bridge.vni.map(Vni::get),
            flood: texts(&bridge.flood),
            vlan_transparent: bridge.vlan_transparent,
        }),
        Object::Mac(mac) => ObjectV1::Mac(MacV1 {
            bridge: mac.bridge.as_ref().map(ToString::to_string),
            mac: mac.mac.to_string(),
            port: mac.port.to_string(),
        }),
        Object::Route(route) => ObjectV1::Route(write_route(route)),
        Object::Vtep(vtep) => ObjectV1::Vtep(VtepV1 {
            name: vtep.name.to_string(),
            v4: vtep.v4.map(|end| EndpointV1 { remote: end.remote, mac: end.mac.to_string() }),
            v6: vtep.v6.map(|end| EndpointV1 { remote: end.remote, mac: end.mac.to_string() }),
            vni: vtep.vni.map(Vni::get),
        }),
    };
    serde_json::to_vec(&Record { version: VERSION, object }).map_err(|error| error.to_string())
}

/// The object of the bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Object, RecordError> {
    let record: Record = read(bytes, VERSION)?;
    match record.object {
        ObjectV1::Port(port) => read_port(port).map(Object::Port),
        ObjectV1::Bridge(bridge) => Ok(Object::Bridge(Bridge {
            name: parse(&bridge.name)?,
            vni: vni(bridge.vni)?,
            flood: bridge.flood.iter().map(|name| parse(name)).collect::<Result<_, _>>()?,
            vlan_transparent: bridge.vlan_transparent,
        })),
        ObjectV1::Mac(mac) => Ok(Object::Mac(StaticMac {
            bridge: mac.bridge.as_deref().map(parse).transpose()?,
            mac: parse(&mac.mac)?,
            port: parse(&mac.port)?,
        })),
        ObjectV1::Route(route) => read_route(&route).map(Object::Route),
        ObjectV1::Vtep(vtep) => {
            let v4 = vtep.v4.map(read_endpoint).transpose()?;
            let v6 = vtep.v6.map(read_endpoint).transpose()?;
            Ok(Object::Vtep(Vtep { name: parse(&vtep.name)?, v4, v6, vni: vni(vtep.vni)? }))
        }
    }
}

/// Reads a record of this version, and no other.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, RecordError> {
    let unreadable = |error: serde_json::Error| format!("it is no record: {error}");
    let Version { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version != known {
        return Err(format!("it is of version {version}, and this podwired reads version {known}"));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

fn write_port(port: &Port) -> PortV1 {
    PortV1 {
        name: port.name.to_string(),
        kind: port.kind.into(),
        netns: port.netns.clone(),
        ifname: port.ifname.clone(),
        addresses: texts(&port.addresses),
        mac: port.mac.map(|mac| mac.to_string()),
        mtu: port.mtu,
        bridge: port.bridge.as_ref().map(ToString::to_string),
        guard: match &port.guard {
            Guard::On { allowed } => Some(texts(allowed)),
            Guard::Off => None,
        },
    }
}

fn read_port(port: PortV1) -> Result<Port, RecordError> {
    Ok(Port {
        name: parse(&port.name)?,
        kind: port.kind.into(),
        netns: port.netns,
        ifname: port.ifname,
        addresses: networks(&port.addresses)?,
        mac: port.mac.as_deref().map(parse).transpose()?,
        mtu: port.mtu,
        bridge: port.bridge.as_deref().map(parse).transpose()?,
        guard: match port.guard {
            Some(allowed) => Guard::On { allowed: networks(&allowed)? },
            None => Guard::Off,
        },
    })
}

fn write_route(route: &Route) -> RouteV1 {
    let via = match &route.via {
        Via::Vtep(name) => ViaV1::Vtep(name.to_string()),
        Via::Port(name) => ViaV1::Port(name.to_string()),
        Via::Host => ViaV1::Host,
        Via::Blackhole => ViaV1::Blackhole,
    };
    RouteV1 { prefix: route.prefix.to_string(), via }
}

fn read_route(route: &RouteV1) -> Result<Route, RecordError> {
    let via = match &route.via {
        ViaV1::Vtep(name) => Via::Vtep(parse(name)?),
        ViaV1::Port(name) => Via::Port(parse(name)?),
        ViaV1::Host => Via::Host,
        ViaV1::Blackhole => Via::Blackhole,
    };
    Ok(Route { prefix: parse(&route.prefix)?, via })
}

fn read_endpoint<A>(end: EndpointV1<A>) -> Result<Endpoint<A>, RecordError> {
    Ok(Endpoint { remote: end.remote, mac: parse(&end.mac)? })
}

fn vni(number: Option<u32>) -> Result<Option<Vni>, RecordError> {
    number.map(Vni::try_from).transpose().map_err(|error| error.to_string())
}

pub(super) fn networks(texts: &[String]) -> Result<Vec<IpNet>, RecordError> {
    texts.iter().map(|text| parse(text)).collect()
}

pub(super) fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, RecordError> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::ledger::any;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_object_is_read_as_it_was_written(object in any::object()) {
            prop_assert_eq!(decode(&encode(&object).unwrap()), Ok(object));
        }
    }

    #[test]
    fn a_record_of_version_one_stays_readable() {
        let record = br#"{"version":1,"object":{"route":{"prefix":"10.244.2.0/24","via":{"vtep":"node2"}}}}"#;
        let route = Route { prefix: "10.244.2.0/24".parse().unwrap(), via: Via::Vtep("node2".parse().unwrap()) };
        assert_eq!(decode(record), Ok(Object::Route(route)));
    }

    #[test]
    fn a_record_that_is_not_understood_is_refused_and_says_why() {
        let cases = [
            (r#"{"version":2,"object":"anything"}"#, "it is of version 2"),
            (r#"{"object":{}}"#, "missing field `version`"),
            ("", "it is no record"),
            (r#"{"version":1,"object":{"route":{"prefix":"10.0.0.0/33","via":"host"}}}"#, "10.0.0.0/33"),
            (r#"{"version":1,"object":{"route":{"prefix":"10.0.0.0/8","via":"host","metric":1}}}"#, "metric"),
        ];
        for (bytes, expected) in cases {
            let error = decode(bytes.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{bytes}: {error}");
        }
    }
}
