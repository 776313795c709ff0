//! What the runtime and the pod's author wish of an interface: capability arguments (`runtimeConfig`), `args.cni`, and
//! behind both `CNI_ARGS` (CNI conventions).

use std::collections::HashSet;
use std::net::IpAddr;

use podwire_control::model::{Bandwidth, Bits, HostPort, Mac, RateLimit, Transport};
use serde_json::Value;

use crate::environment::{Args, address};
use crate::failure::Failure;
use crate::field::Field;

const RATE_REMEDY: &str = "write rate and burst together, in bits a second and bits, both above 0";
const PORT_REMEDY: &str = "write a port from 1 to 65535";

/// The wishes of the network configuration.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wanted {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) bandwidth: Bandwidth,
}

impl Wanted {
    pub(crate) fn read(root: &Field<'_>) -> Result<Self, Failure> {
        let runtime = root.get("runtimeConfig")?;
        let args = root.get("args")?.get("cni")?;
        let bandwidth = runtime.get("bandwidth")?;
        let places = [&runtime, &args];
        Ok(Self {
            addresses: first(places, |place| addresses(&place.get("ips")?))?.unwrap_or_default(),
            mac: first(places, |place| mac(&place.get("mac")?))?,
            host_ports: host_ports(&runtime.get("portMappings")?)?,
            bandwidth: Bandwidth {
                ingress: rate(&bandwidth, "ingressRate", "ingressBurst")?,
                egress: rate(&bandwidth, "egressRate", "egressBurst")?,
            },
        })
    }

    /// The same, with what `CNI_ARGS` wishes where these have no word of it.
    pub(crate) fn or(mut self, args: &Args) -> Self {
        if self.addresses.is_empty() {
            self.addresses.clone_from(&args.addresses);
        }
        self.mac = self.mac.or(args.mac);
        self
    }
}

/// What is said first; both places are read, since a mistake is one wherever it stands.
fn first<T>(
    places: [&Field<'_>; 2],
    read: impl Fn(&Field<'_>) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let [runtime, args] = places;
    let (runtime, args) = (read(runtime)?, read(args)?);
    Ok(runtime.or(args))
}

/// At most one a family.
fn addresses(field: &Field<'_>) -> Result<Option<Vec<IpAddr>>, Failure> {
    let remedy = "write an address, as in 10.244.1.7/24";
    let one = |item: &Field<'_>| item.read(remedy, |value| address(value.as_str()?).ok());
    let found: Vec<IpAddr> =
        field.items()?.iter().filter_map(|item| one(item).transpose()).collect::<Result<_, _>>()?;
    let families: HashSet<bool> = found.iter().map(IpAddr::is_ipv6).collect();
    if families.len() < found.len() {
        return Err(field.wrong("ask for one address a family at most"));
    }
    Ok(Some(found).filter(|found| !found.is_empty()))
}

fn mac(field: &Field<'_>) -> Result<Option<Mac>, Failure> {
    if field.value.and_then(Value::as_str) == Some("") {
        return Ok(None);
    }
    field.read("write a MAC address, as in 02:00:5e:00:00:01", |value| value.as_str()?.parse().ok())
}

/// A mapping whose host port is 0 maps nothing; runtimes give one for each port a container names.
fn host_ports(field: &Field<'_>) -> Result<Vec<HostPort>, Failure> {
    let opened = |item: &Field<'_>| {
        let host_port = item.get("hostPort")?;
        match host_port.read(PORT_REMEDY, |value| u16::try_from(value.as_u64()?).ok())? {
            None | Some(0) => Ok(None),
            Some(port) => mapping(item, port).map(Some),
        }
    };
    field.items()?.iter().filter_map(|item| opened(item).transpose()).collect()
}

fn mapping(item: &Field<'_>, host_port: u16) -> Result<HostPort, Failure> {
    let (container_port, protocol, host_ip) = (item.get("containerPort")?, item.get("protocol")?, item.get("hostIP")?);
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0);
    let transport = |value: &Value| {
        let name = value.as_str()?.to_ascii_lowercase();
        Transport::ALL.into_iter().find(|transport| transport.name() == name || name.is_empty())
    };
    let address = |value: &Value| match value.as_str()? {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    Ok(HostPort {
        host_ip: host_ip.read("write an address of the node", address)?.flatten(),
        host_port,
        container_port: container_port.read(PORT_REMEDY, port)?.ok_or_else(|| container_port.wrong(PORT_REMEDY))?,
        transport: protocol.read("write tcp, udp or sctp", transport)?.unwrap_or(Transport::Tcp),
    })
}

/// What runtimes write for a burst when the pod's annotations name only a rate: the most their type holds (Docker's shim,
/// containerd). By that much the limit would hardly ever be felt.
const BURSTS_NOT_NAMED: [u64; 2] = [i32::MAX as u64, u32::MAX as u64];

/// Rate and burst of one direction; neither, or 0, is no limit.
fn rate(field: &Field<'_>, rate: &str, burst: &str) -> Result<Option<RateLimit>, Failure> {
    let (rate, burst) = (field.get(rate)?, field.get(burst)?);
    let bits = |field: &Field<'_>| field.read(RATE_REMEDY, Value::as_u64).map(Option::unwrap_or_default);
    match (bits(&rate)?, bits(&burst)?) {
        (0, 0) => Ok(None),
        (0, _) => Err(rate.wrong(RATE_REMEDY)),
        (_, 0) => Err(burst.wrong(RATE_REMEDY)),
        (rate, burst) => {
            let named = Some(Bits(burst)).filter(|_| !BURSTS_NOT_NAMED.contains(&burst));
            Ok(Some(RateLimit::new(Bits(rate), named)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(value: &Value) -> Result<Wanted, Failure> {
        Wanted::read(&Field::root(value))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_runtime_says_goes_before_what_the_author_says_and_both_before_the_environment() {
        let runtime = json!({"ips": ["10.244.1.7/24", "fd00::7"], "mac": "02:00:00:00:00:07"});
        let args = json!({"cni": {"ips": ["10.244.1.8"], "mac": "02:00:00:00:00:08"}});
        let environment = Args { addresses: vec![ip("10.244.1.9")], mac: "02:00:00:00:00:09".parse().ok(), pod: None };
        for (value, address, last) in [
            (json!({"runtimeConfig": runtime, "args": args}), "10.244.1.7", 7),
            (json!({"runtimeConfig": {"ips": [], "mac": ""}, "args": args}), "10.244.1.8", 8),
            (json!({"args": {"other": {"ips": 7}}}), "10.244.1.9", 9),
        ] {
            let wanted = wanted(&value).unwrap().or(&environment);
            assert_eq!(wanted.addresses[0], ip(address), "{value}");
            assert_eq!(wanted.mac.unwrap().0[5], last, "{value}");
        }
    }

    #[test]
    fn port_mappings_are_those_with_a_host_port() {
        let value = json!({"runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
            {"hostPort": 0, "containerPort": 81, "protocol": "tcp"},
            {"containerPort": 82},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
            {"hostPort": 54, "containerPort": 54},
        ]}});
        let port =
            |host_ip, host_port, container_port, transport| HostPort { host_ip, host_port, container_port, transport };
        let expected = [
            port(None, 8080, 80, Transport::Tcp),
            port(Some(ip("127.0.0.1")), 53, 5353, Transport::Udp),
            port(None, 54, 54, Transport::Tcp),
        ];
        assert_eq!(wanted(&value).unwrap().host_ports, expected);
    }

    #[test]
    fn a_direction_is_limited_when_rate_and_burst_are_given() {
        let bandwidth = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 1_000_000, "egressBurst": 2_000_000});
        let egress = Some(RateLimit { bits_per_s: 1_000_000, burst_bits: 2_000_000 });
        let found = wanted(&json!({"runtimeConfig": {"bandwidth": bandwidth}})).unwrap().bandwidth;
        assert_eq!(found, Bandwidth { ingress: None, egress });
    }

    #[test]
    fn what_containerd_writes_is_understood() {
        let value = json!({"runtimeConfig": {
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {
                "IngressRate": 10_000_000, "IngressBurst": 4_294_967_295_u64, "EgressRate": 0, "EgressBurst": 0,
            },
        }});
        let found = wanted(&value).unwrap();
        let web = HostPort { host_ip: None, host_port: 8080, container_port: 80, transport: Transport::Tcp };
        let ingress = Some(RateLimit::new(Bits(10_000_000), None));
        assert_eq!((found.host_ports, found.bandwidth), (vec![web], Bandwidth { ingress, egress: None }));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (value, key) in [
            (json!({"runtimeConfig": 7}), "runtimeConfig"),
            (json!({"runtimeConfig": {"ips": "10.244.1.7"}}), "runtimeConfig.ips"),
            (json!({"runtimeConfig": {"ips": ["10.244.1.7", "x"]}}), "runtimeConfig.ips[1]"),
            (json!({"runtimeConfig": {"ips": ["10.244.1.7", "10.244.1.8"]}}), "runtimeConfig.ips"),
            (json!({"args": {"cni": {"mac": "02"}}}), "args.cni.mac"),
            (json!({"runtimeConfig": {"portMappings": {}}}), "runtimeConfig.portMappings"),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}), "portMappings[0].containerPort"),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 0}]}}), "containerPort"),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 1}]}}), "hostPort"),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": -1, "containerPort": 1}]}}), "hostPort"),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}}),
                "protocol",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}}),
                "hostIP",
            ),
            (json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}), "bandwidth.ingressBurst"),
            (json!({"runtimeConfig": {"bandwidth": {"egressBurst": 1}}}), "bandwidth.egressRate"),
            (json!({"runtimeConfig": {"bandwidth": {"egressBurst": "1k"}}}), "bandwidth.egressBurst"),
        ] {
            let failure = wanted(&value).unwrap_err();
            assert!(failure.msg.contains(key), "{value}: {failure}");
            assert!(!failure.details.is_empty());
        }
    }
}
