//! The result of an ADD in the form of each version: what the plugins before this one made, and what this one adds.
//!
//! What others wrote is kept as it is, also keys that are not known here; only the family of addresses, which versions
//! before 1.0.0 name, is put in or taken out.

use ipnet::IpNet;
use podwire_control::model::{Attachment, AttachmentKey};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::field::Field;
use crate::version::Version;

pub(crate) type Object = Map<String, Value>;

/// Interfaces, addresses, routes and name servers.
#[derive(Clone, Default, Debug)]
pub(crate) struct CniResult {
    interfaces: Vec<Object>,
    ips: Vec<Object>,
    routes: Vec<Object>,
    dns: Object,
}

impl CniResult {
    /// Reads one of whatever version.
    pub(crate) fn read(field: &Field<'_>) -> Result<Self, Failure> {
        let objects = |key: &str| -> Result<Vec<Object>, Failure> {
            let object = |item: &Field<'_>| {
                item.value.and_then(Value::as_object).cloned().ok_or_else(|| item.wrong("write an object"))
            };
            field.get(key)?.items()?.iter().map(object).collect()
        };
        let result = Self {
            interfaces: objects("interfaces")?,
            ips: objects("ips")?,
            routes: objects("routes")?,
            dns: field.get("dns")?.read("write an object", Value::as_object)?.cloned().unwrap_or_default(),
        };
        for item in field.get("ips")?.items()? {
            let address = item.get("address")?;
            let remedy = "write an address with its prefix length, as in 10.244.1.7/24";
            let parsed = address.read(remedy, |value| value.as_str()?.parse::<IpNet>().ok())?;
            parsed.ok_or_else(|| address.wrong(remedy))?;
        }
        Ok(result)
    }

    /// All addresses, whosever they are.
    pub(crate) fn addresses(&self) -> Vec<IpNet> {
        self.ips.iter().filter_map(address_of).collect()
    }

    /// The addresses of a container's interface; none when there is no such interface.
    pub(crate) fn addresses_of(&self, key: &AttachmentKey) -> Option<Vec<IpNet>> {
        let is_ours = |interface: &Object| {
            let text = |key: &str| interface.get(key).and_then(Value::as_str).unwrap_or_default();
            text("name") == key.ifname && !text("sandbox").is_empty()
        };
        let at = self.interfaces.iter().position(is_ours)?;
        let on_it = |ip: &&Object| match ip.get("interface").filter(|index| !index.is_null()) {
            None => self.interfaces.len() == 1,
            Some(index) => index.as_u64() == u64::try_from(at).ok(),
        };
        Some(self.ips.iter().filter(on_it).filter_map(address_of).collect())
    }

    /// Adds what podwired made.
    pub(crate) fn add(&mut self, made: &Attachment, version: Version) {
        let index = self.interfaces.len();
        let mut interface = object(json!({
            "name": made.key.ifname, "mac": made.mac.to_string(), "sandbox": made.netns,
        }));
        if version.names_mtus() {
            interface.insert("mtu".into(), made.mtu.into());
        }
        self.interfaces.push(interface);
        for address in &made.addresses {
            let gateway = made.gateways.iter().find(|gateway| gateway.is_ipv4() == address.addr().is_ipv4());
            let mut ip = object(json!({"address": address.to_string(), "interface": index}));
            if let Some(gateway) = gateway {
                ip.insert("gateway".into(), gateway.to_string().into());
                let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                let route = object(json!({"dst": all, "gw": gateway.to_string()}));
                if !self.routes.contains(&route) {
                    self.routes.push(route);
                }
            }
            self.ips.push(ip);
        }
    }

    /// What is said of name servers, in place of what was said before. Nothing said changes nothing.
    pub(crate) fn name_servers(&mut self, dns: Object) {
        if !dns.is_empty() {
            self.dns = dns;
        }
    }

    /// What it says of name servers.
    pub(crate) fn dns(self) -> Object {
        self.dns
    }

    /// The object as a version has it.
    pub(crate) fn json(mut self, version: Version) -> Value {
        for ip in &mut self.ips {
            ip.remove("version");
            if version.names_families()
                && let Some(address) = address_of(ip)
            {
                ip.insert("version".into(), if address.addr().is_ipv4() { "4" } else { "6" }.into());
            }
        }
        json!({
            "cniVersion": version.name(), "interfaces": self.interfaces, "ips": self.ips, "routes": self.routes,
            "dns": self.dns,
        })
    }
}

fn address_of(ip: &Object) -> Option<IpNet> {
    ip.get("address")?.as_str()?.parse().ok()
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use podwire_control::model::{Bandwidth, PortKind};

    use super::*;

    fn made(addresses: &[&str], gateways: &[&str]) -> Attachment {
        Attachment {
            key: AttachmentKey { container: "8e3f".parse().unwrap(), ifname: "eth0".into() },
            network: "pods".parse().unwrap(),
            netns: "/run/netns/a".into(),
            pod: None,
            port: "8e3f.eth0".parse().unwrap(),
            kind: PortKind::Tap,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            leased: true,
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            mac: "0a:58:0a:f4:01:07".parse().unwrap(),
            mtu: 1450,
            host_ports: Vec::new(),
            bandwidth: Bandwidth::default(),
        }
    }

    fn dual() -> Attachment {
        made(&["10.244.1.7/24", "fd00:244:1::7/64"], &["10.244.1.1", "fd00:244:1::1"])
    }

    #[test]
    fn each_version_has_its_form() {
        for version in Version::ALL {
            let mut result = CniResult::default();
            result.add(&dual(), version);
            let mut expected = json!({
                "cniVersion": version.name(),
                "interfaces": [{"name": "eth0", "mac": "0a:58:0a:f4:01:07", "sandbox": "/run/netns/a"}],
                "ips": [
                    {"address": "10.244.1.7/24", "gateway": "10.244.1.1", "interface": 0},
                    {"address": "fd00:244:1::7/64", "gateway": "fd00:244:1::1", "interface": 0},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd00:244:1::1"}],
                "dns": {},
            });
            match version {
                Version::V0_3_1 | Version::V0_4_0 => {
                    expected["ips"][0]["version"] = "4".into();
                    expected["ips"][1]["version"] = "6".into();
                }
                Version::V1_0_0 => {}
                Version::V1_1_0 => expected["interfaces"][0]["mtu"] = 1450.into(),
            }
            assert_eq!(result.json(version), expected);
        }
    }

    #[test]
    fn what_others_made_stays_and_ours_counts_on_from_there() {
        let previous = json!({
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "br0", "other": 1}, {"name": "net1", "sandbox": "/run/netns/a"}],
            "ips": [{"version": "4", "address": "192.0.2.7/24", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        });
        let mut result = CniResult::read(&Field::root(&previous)).unwrap();
        result.add(&made(&["10.244.1.7/24"], &["10.244.1.1"]), Version::V1_0_0);
        let json = result.clone().json(Version::V1_0_0);
        assert_eq!(json["interfaces"][0], json!({"name": "br0", "other": 1}));
        assert_eq!(json["interfaces"][2]["name"], "eth0");
        assert_eq!(json["ips"][0], json!({"address": "192.0.2.7/24", "interface": 1}));
        assert_eq!(json["ips"][1]["interface"], 2);
        assert_eq!(json["routes"].as_array().unwrap().len(), 1, "the same route is told once");
        assert_eq!(json["dns"]["nameservers"][0], "192.0.2.53");
        assert_eq!(result.addresses_of(&dual().key), Some(vec!["10.244.1.7/24".parse().unwrap()]));
    }

    #[test]
    fn without_a_gateway_there_is_no_route() {
        let mut result = CniResult::default();
        result.add(&made(&["10.244.1.7/32"], &[]), Version::NEWEST);
        let json = result.json(Version::NEWEST);
        assert_eq!(
            (&json["routes"], &json["ips"][0]),
            (&json!([]), &json!({"address": "10.244.1.7/32", "interface": 0}))
        );
    }

    #[test]
    fn addresses_belong_to_the_interface_they_name() {
        let of = |value: &Value| CniResult::read(&Field::root(value)).unwrap().addresses_of(&dual().key);
        let eth0 = json!({"name": "eth0", "sandbox": "/run/netns/a"});
        let ips = json!([{"address": "10.244.1.7/24"}]);
        assert_eq!(of(&json!({"interfaces": [eth0], "ips": ips})).unwrap().len(), 1);
        assert_eq!(of(&json!({"interfaces": [{"name": "veth1"}, eth0], "ips": ips})).unwrap().len(), 0);
        assert_eq!(of(&json!({"interfaces": [{"name": "eth0"}], "ips": ips})), None, "the host's own eth0");
        assert_eq!(of(&json!({})), None);
    }

    #[test]
    fn a_result_of_another_shape_is_refused_by_its_key() {
        for (value, key) in [
            (json!([]), "the network configuration"),
            (json!({"ips": {}}), "ips"),
            (json!({"ips": [{"address": "10.244.1.7"}]}), "ips[0].address"),
            (json!({"ips": [{}]}), "ips[0].address"),
            (json!({"interfaces": [7]}), "interfaces[0]"),
            (json!({"dns": []}), "dns"),
        ] {
            let failure = CniResult::read(&Field::root(&value)).unwrap_err();
            assert!(failure.msg.contains(key), "{value}: {failure}");
        }
    }
}
