//! The text form of an owner's whole intent, in TOML or JSON: `podwire apply -f` reads it, and the daemon's own file
//! may use the same tables. Unknown fields are refused by name; every object passes the model's rules.
//!
//! ```toml
//! [[port]]
//! name = "pod-a"                  # kind = "tap" and ifname = "eth0" unless given
//! netns = "a"                     # a name below /run/netns, or an absolute path
//! addresses = ["10.244.1.10/24", "fd00:244:1::a/64"]
//! # mac, mtu, bridge; guard = false; allowed = ["10.9.0.0/16"]
//! # ingress_rate = "100M", ingress_burst = "25M"; egress_rate, egress_burst
//! [[bridge]]
//! name = "blue"                   # vni = 7, flood = ["node2"] when stretched; vlan_transparent = true
//! [[mac]]
//! mac = "02:00:00:00:00:0b"
//! port = "pod-a"                  # bridge
//! [[route]]
//! prefix = "10.244.2.0/24"
//! via = "node2"                   # or "host", "blackhole", "port pod-a"
//! [[vtep]]
//! name = "node2"                  # vni
//! endpoints = [{ remote = "172.31.0.2", mac = "02:00:00:00:00:02" }]
//! ```

use std::path::PathBuf;

use serde::Deserialize;

use crate::model::{
    Bandwidth, Bits, Bridge, Guard, Invalid, Object, Port, PortKind, RateLimit, Refusal, Route, StaticMac, Text, Via,
    ViaError, Vtep, check_objects, read,
};

/// Where names of network namespaces live.
pub const NETNS_DIR: &str = "/run/netns";

/// The text does not state an intent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IntentError {
    /// It is not TOML, or has a field that is unknown, missing or of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// Objects that can not be.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    port: Vec<PortTable>,
    #[serde(default)]
    bridge: Vec<BridgeTable>,
    #[serde(default)]
    mac: Vec<MacTable>,
    #[serde(default)]
    route: Vec<RouteTable>,
    #[serde(default)]
    vtep: Vec<VtepTable>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct PortTable {
    name: String,
    kind: Option<String>,
    netns: String,
    ifname: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    mac: Option<String>,
    mtu: Option<u16>,
    bridge: Option<String>,
    guard: Option<bool>,
    #[serde(default)]
    allowed: Vec<String>,
    ingress_rate: Option<String>,
    ingress_burst: Option<String>,
    egress_rate: Option<String>,
    egress_burst: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct BridgeTable {
    name: String,
    vni: Option<u32>,
    #[serde(default)]
    flood: Vec<String>,
    #[serde(default)]
    vlan_transparent: bool,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct MacTable {
    mac: String,
    port: String,
    bridge: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    prefix: String,
    via: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct VtepTable {
    name: String,
    endpoints: Vec<EndpointTable>,
    vni: Option<u32>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    remote: String,
    mac: String,
}

/// Reads an intent. A text that begins with `{` is JSON, any other is TOML.
///
/// # Errors
/// Names the unknown field, or each object that can not be, with the field and the remedy.
pub fn parse(text: &str) -> Result<Vec<Object>, IntentError> {
    let tables: Tables = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| IntentError::Syntax(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| IntentError::Syntax(error.to_string()))?
    };
    tables.objects().map_err(IntentError::Refused)
}

/// The path of a namespace given by name or by path.
#[must_use]
pub fn netns_path(given: &str) -> PathBuf {
    if given.contains('/') { PathBuf::from(given) } else { PathBuf::from(NETNS_DIR).join(given) }
}

type Read<T> = Result<T, Invalid>;

impl Tables {
    fn objects(&self) -> Result<Vec<Object>, Vec<Refusal>> {
        let ports = self.port.iter().map(|table| table.port().map(Object::Port));
        let bridges = self.bridge.iter().map(|table| table.bridge().map(Object::Bridge));
        let macs = self.mac.iter().map(|table| table.mac().map(Object::Mac));
        let routes = self.route.iter().map(|table| table.route().map(Object::Route));
        let vteps = self.vtep.iter().map(|table| table.vtep().map(Object::Vtep));
        let mut objects = Vec::new();
        let mut refused = Vec::new();
        for read in ports.chain(bridges).chain(macs).chain(routes).chain(vteps) {
            match read {
                Ok(object) => objects.push(object),
                Err(invalid) => refused.push(invalid.refusal()),
            }
        }
        refused.extend(check_objects(&objects));
        if refused.is_empty() { Ok(objects) } else { Err(refused) }
    }
}

impl PortTable {
    fn port(&self) -> Read<Port> {
        let object = &format!("port {}", self.name);
        let invalid = |field, problem: String, remedy: &str| Invalid {
            object: object.clone(),
            field,
            problem,
            remedy: remedy.to_owned(),
        };
        let kind = match self.kind.as_deref() {
            None => PortKind::Tap,
            Some(name) => PortKind::ALL
                .into_iter()
                .find(|kind| kind.name() == name)
                .ok_or_else(|| invalid("kind", format!("{name:?} is not a kind of port"), "use tap or veth-xdp"))?,
        };
        let guard = match (self.guard, self.allowed.is_empty()) {
            (Some(false), true) => Guard::Off,
            (Some(false), false) => {
                let problem = "is off, but prefixes are allowed beside".to_owned();
                return Err(invalid("guard", problem, "switch it on, or leave the prefixes out"));
            }
            _ => Guard::On { allowed: fields(object, "allowed", &self.allowed)? },
        };
        let limit = |[rate, burst]: [(&'static str, &Option<String>); 2]| -> Read<Option<RateLimit>> {
            let read = |(name, text): (&'static str, &Option<String>)| optional::<Bits>(object, name, text.as_ref());
            match (read(rate)?, read(burst)?) {
                (Some(rate), burst) => Ok(Some(RateLimit::new(rate, burst))),
                (None, None) => Ok(None),
                (None, Some(_)) => {
                    let remedy = format!("give {}, or leave it out", rate.0);
                    Err(invalid(burst.0, "is given without a rate".to_owned(), &remedy))
                }
            }
        };
        let ingress = limit([("ingress_rate", &self.ingress_rate), ("ingress_burst", &self.ingress_burst)])?;
        let egress = limit([("egress_rate", &self.egress_rate), ("egress_burst", &self.egress_burst)])?;
        Ok(Port {
            name: field(object, "name", &self.name)?,
            kind,
            netns: netns_path(&self.netns),
            ifname: self.ifname.clone().unwrap_or_else(|| "eth0".into()),
            addresses: fields(object, "address", &self.addresses)?,
            mac: optional(object, "mac", self.mac.as_ref())?,
            mtu: self.mtu,
            bridge: optional(object, "bridge", self.bridge.as_ref())?,
            guard,
            bandwidth: Bandwidth { ingress, egress },
        })
    }
}

impl BridgeTable {
    fn bridge(&self) -> Read<Bridge> {
        let object = &format!("bridge {}", self.name);
        Ok(Bridge {
            name: field(object, "name", &self.name)?,
            vni: optional(object, "vni", self.vni.map(|vni| vni.to_string()).as_ref())?,
            flood: fields(object, "flood", &self.flood)?,
            vlan_transparent: self.vlan_transparent,
        })
    }
}

impl MacTable {
    fn mac(&self) -> Read<StaticMac> {
        let object = &format!("mac {}", self.mac);
        Ok(StaticMac {
            bridge: optional(object, "bridge", self.bridge.as_ref())?,
            mac: field(object, "mac", &self.mac)?,
            port: field(object, "port", &self.port)?,
        })
    }
}

impl RouteTable {
    fn route(&self) -> Read<Route> {
        let object = &format!("route {}", self.prefix);
        let via = self.via.parse::<Via>().map_err(|ViaError(text)| Invalid {
            object: object.clone(),
            field: "via",
            problem: format!("{text:?} is not a next hop"),
            remedy: "write the name of a VTEP, 'host', 'blackhole' or 'port NAME'".into(),
        })?;
        Ok(Route { prefix: field(object, "prefix", &self.prefix)?, via })
    }
}

impl VtepTable {
    fn vtep(&self) -> Read<Vtep> {
        let object = &format!("vtep {}", self.name);
        let mut ends = Vec::with_capacity(self.endpoints.len());
        for end in &self.endpoints {
            ends.push((field(object, "remote", &end.remote)?, field(object, "mac", &end.mac)?));
        }
        let vni = optional(object, "vni", self.vni.map(|vni| vni.to_string()).as_ref())?;
        Vtep::of_endpoints(field(object, "name", &self.name)?, ends, vni)
    }
}

fn field<T: Text>(object: &str, field: &'static str, text: &str) -> Read<T> {
    read(text).map_err(|error| error.of(object, field))
}

fn optional<T: Text>(object: &str, name: &'static str, text: Option<&String>) -> Read<Option<T>> {
    text.map(|text| field(object, name, text)).transpose()
}

fn fields<T: Text>(object: &str, name: &'static str, texts: &[String]) -> Read<Vec<T>> {
    texts.iter().map(|text| field(object, name, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        [[port]]
        name = "pod-a"
        netns = "a"
        addresses = ["10.244.1.10/24"]
        [[bridge]]
        name = "blue"
        vni = 7
        flood = ["node2"]
        [[mac]]
        mac = "02:00:00:00:00:0b"
        port = "pod-a"
        [[route]]
        prefix = "10.244.2.0/24"
        via = "node2"
        [[vtep]]
        name = "node2"
        endpoints = [{ remote = "172.31.0.2", mac = "02:00:00:00:00:02" }]
    "#;

    #[test]
    fn toml_and_json_state_the_same() {
        let objects = parse(WHOLE).unwrap();
        let keys: Vec<String> = objects.iter().map(|object| object.key().to_string()).collect();
        assert_eq!(keys, ["port pod-a", "bridge blue", "mac 02:00:00:00:00:0b", "route 10.244.2.0/24", "vtep node2"]);
        let Object::Port(port) = &objects[0] else { panic!("{objects:?}") };
        assert_eq!((port.netns.to_str(), port.ifname.as_str()), (Some("/run/netns/a"), "eth0"));
        let json = serde_json::to_string(&toml::from_str::<serde_json::Value>(WHOLE).unwrap()).unwrap();
        assert_eq!(parse(&json).unwrap(), objects);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_port_is_a_tap_unless_it_names_another_kind() {
        for (line, kind) in
            [("", PortKind::Tap), ("kind = 'tap'", PortKind::Tap), ("kind = 'veth-xdp'", PortKind::VethXdp)]
        {
            let objects = parse(&format!("[[port]]\nname = 'a'\nnetns = 'a'\n{line}\n")).unwrap();
            assert!(matches!(&objects[..], [Object::Port(port)] if port.kind == kind), "{objects:?}");
        }
        let error = parse("[[port]]\nname = 'a'\nnetns = 'a'\nkind = 'veth'\n").unwrap_err().to_string();
        assert!(error.contains("port a: kind \"veth\" is not a kind of port; use tap or veth-xdp"), "{error}");
    }

    #[test]
    fn a_ports_limits_are_rates_with_a_burst_or_the_usual_one() {
        let read = |lines: &str| parse(&format!("[[port]]\nname = 'a'\nnetns = 'a'\n{lines}\n"));
        let objects = read("ingress_rate = '100M'\negress_rate = '2G'\negress_burst = '1M'").unwrap();
        let Object::Port(port) = &objects[0] else { panic!("{objects:?}") };
        let ingress = Some(RateLimit::new(Bits(100_000_000), None));
        let egress = Some(RateLimit { bits_per_s: 2_000_000_000, burst_bits: 1_000_000 });
        assert_eq!(port.bandwidth, Bandwidth { ingress, egress });
        for (lines, said) in [
            (
                "ingress_burst = '1M'",
                "port a: ingress_burst is given without a rate; give ingress_rate, or leave it out",
            ),
            (
                "egress_rate = 'fast'",
                "port a: egress_rate \"fast\" is not a number of bits; write it as in 500k, 100M or 2G",
            ),
            (
                "egress_rate = '0'",
                "port a: egress_rate 0 is less than 1000 bits a second; use at least 1k, or leave the limit out",
            ),
        ] {
            assert_eq!(read(lines).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        for text in ["[[port]]\nname = 'a'\nnetns = 'a'\nips = []\n", r#"{"port": [{"name": "a", "ips": []}]}"#] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains("unknown field `ips`") && said.contains("`addresses`"), "{said}");
        }
        assert!(parse("ports = []").unwrap_err().to_string().contains("unknown field `ports`"));
    }

    #[test]
    fn every_object_that_can_not_be_is_named_with_its_remedy() {
        let text = "[[route]]\nprefix = '10.0.0.1/8'\nvia = 'host'\n[[route]]\nprefix = '10.0.0.0'\nvia = 'host'\n\
                    [[route]]\nprefix = '10.1.0.0/16'\nvia = 'port'\n[[bridge]]\nname = 'b'\nvni = 16777216\n";
        let IntentError::Refused(refused) = parse(text).unwrap_err() else { panic!("it has to be refused") };
        let said: Vec<String> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "bridge b: vni \"16777216\" is not a VXLAN network identifier; use a number from 0 to 16777215",
                "route 10.0.0.0: prefix \"10.0.0.0\" is not a prefix; write an address and a length, as in \
                 10.244.2.0/24 or fd00:244:2::/64",
                "route 10.1.0.0/16: via \"port\" is not a next hop; write the name of a VTEP, 'host', 'blackhole' or \
                 'port NAME'",
                "route 10.0.0.1/8: prefix 10.0.0.1/8 has bits set beyond its length; write 10.0.0.0/8",
            ]
        );
    }
}
