//! What makes an object sayable: the rules of one object by itself, the same for the API and for files.
//!
//! Left out: whether what an object refers to exists, and the engine's limits. Those need the whole intent and are
//! the daemon's to check.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Component, Path};

use ipnet::IpNet;

use super::via::VIA_WORDS;
use super::{
    Bits, Bridge, Endpoint, Guard, Key, Mac, Object, Port, RATE_BITS_PER_S_MIN, RateLimit, Refusal, Route, StaticMac,
    Vni, Vtep, VtepName,
};

/// Smallest MTU of a port in bytes: what every IPv4 host accepts (RFC 791).
pub const PORT_MTU_MIN: u16 = 576;
/// Smallest MTU of a port with an IPv6 address, in bytes (RFC 8200, section 5).
pub const PORT_MTU_MIN_IPV6: u16 = 1280;
/// MTU in bytes that a port without one of its own is taken to have.
const MTU_USUAL: u16 = 1_500;
const ETHERNET_HEADER_BYTES: u64 = 14;
/// Longest interface name in bytes: `IFNAMSIZ` less the closing zero.
pub const IFNAME_BYTES_MAX: usize = 15;

/// A field of an object says something impossible.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object}: {field} {problem}; {remedy}")]
pub struct Invalid {
    /// The object, as in `port pod-a`.
    pub object: String,
    /// The field.
    pub field: &'static str,
    /// What is wrong; continues a sentence that begins with the field.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Invalid {
    /// The same as a refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(&self.object, format!("{} {}; {}", self.field, self.problem, self.remedy))
    }
}

/// What a rule found, before the object's name is put to it.
pub(super) struct Fault {
    pub(super) field: &'static str,
    pub(super) problem: String,
    pub(super) remedy: String,
}

impl Fault {
    fn new(field: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field, problem: problem.into(), remedy: remedy.into() }
    }
}

type Rule = Result<(), Fault>;

impl Object {
    /// Checks the object by itself.
    ///
    /// # Errors
    /// Names the object, the field and the remedy.
    pub fn validate(&self) -> Result<(), Invalid> {
        let found = match self {
            Self::Port(port) => port.rules(),
            Self::Bridge(bridge) => bridge.rules(),
            Self::Mac(mac) => mac.rules(),
            Self::Route(route) => route.rules(),
            Self::Vtep(vtep) => vtep.rules(),
        };
        found.map_err(|Fault { field, problem, remedy }| Invalid {
            object: self.key().to_string(),
            field,
            problem,
            remedy,
        })
    }
}

/// Checks each object by itself and that none is stated twice; the refusals of all, empty when there are none.
#[must_use]
pub fn check_objects(objects: &[Object]) -> Vec<Refusal> {
    let mut seen: HashSet<Key> = HashSet::with_capacity(objects.len());
    let mut refusals = Vec::new();
    for object in objects {
        if let Err(invalid) = object.validate() {
            refusals.push(invalid.refusal());
        }
        if !seen.insert(object.key()) {
            refusals.push(Refusal::new(object.key(), "it is stated twice; state it once"));
        }
    }
    refusals
}

impl Port {
    fn rules(&self) -> Rule {
        check_netns(&self.netns)?;
        check_ifname(&self.ifname)?;
        for (at, address) in self.addresses.iter().enumerate() {
            check_host("address", address.addr(), &format!("{address}"))?;
            if self.addresses[..at].iter().any(|earlier| earlier.addr() == address.addr()) {
                return Err(Fault::new("address", format!("{} is given twice", address.addr()), "give it once"));
            }
        }
        if let Some(mac) = self.mac {
            check_station("mac", mac)?;
        }
        if let Guard::On { allowed } = &self.guard {
            allowed.iter().try_for_each(|prefix| check_host_bits("allowed", *prefix))?;
        }
        self.check_limit(["ingress_rate", "ingress_burst"], self.bandwidth.ingress)?;
        self.check_limit(["egress_rate", "egress_burst"], self.bandwidth.egress)?;
        self.mtu.map_or(Ok(()), |mtu| self.check_mtu(mtu))
    }

    fn check_limit(&self, [rate, burst]: [&'static str; 2], limit: Option<RateLimit>) -> Rule {
        let Some(RateLimit { bits_per_s, burst_bits }) = limit else { return Ok(()) };
        if bits_per_s < RATE_BITS_PER_S_MIN {
            let problem = format!("{} is less than {RATE_BITS_PER_S_MIN} bits a second", Bits(bits_per_s));
            return Err(Fault::new(rate, problem, "use at least 1k, or leave the limit out"));
        }
        let frame_bits = 8 * (u64::from(self.mtu.unwrap_or(MTU_USUAL)) + ETHERNET_HEADER_BYTES);
        if burst_bits < frame_bits {
            let problem = format!("{} is less than one frame of the port's MTU", Bits(burst_bits));
            return Err(Fault::new(burst, problem, format!("use at least {frame_bits}, or leave it out")));
        }
        Ok(())
    }

    fn check_mtu(&self, mtu: u16) -> Rule {
        let has_v6 = self.addresses.iter().any(|address| matches!(address, IpNet::V6(_)));
        let (least, remedy) = if has_v6 {
            (PORT_MTU_MIN_IPV6, "use 1280 to 65535, which IPv6 needs, or leave the IPv6 address out")
        } else {
            (PORT_MTU_MIN, "use 576 to 65535, or leave it out to take the tunnel's")
        };
        if mtu < least { Err(Fault::new("mtu", format!("{mtu} is too small"), remedy)) } else { Ok(()) }
    }
}

impl Bridge {
    fn rules(&self) -> Rule {
        if !self.flood.is_empty() && self.vni.is_none() {
            return Err(Fault::new(
                "flood",
                "names VTEPs, but the bridge is not stretched",
                "give the bridge a VNI, or leave the flood list out",
            ));
        }
        for (at, vtep) in self.flood.iter().enumerate() {
            if self.flood[..at].contains(vtep) {
                return Err(Fault::new("flood", format!("names {vtep} twice"), "name it once"));
            }
        }
        Ok(())
    }
}

impl StaticMac {
    fn rules(&self) -> Rule {
        check_station("mac", self.mac)
    }
}

impl Route {
    fn rules(&self) -> Rule {
        check_host_bits("prefix", self.prefix)?;
        let address = self.prefix.addr();
        if address.is_multicast() || address.is_loopback() {
            return Err(Fault::new(
                "prefix",
                format!("{} is multicast or loopback, which is never routed", self.prefix),
                "use a unicast prefix",
            ));
        }
        Ok(())
    }
}

impl Vtep {
    /// A VTEP of endpoints in any order.
    ///
    /// # Errors
    /// Refuses a second endpoint of one family.
    pub fn of_endpoints(name: VtepName, ends: Vec<(IpAddr, Mac)>, vni: Option<Vni>) -> Result<Self, Invalid> {
        let mut vtep = Self { name, v4: None, v6: None, vni };
        for (remote, mac) in ends {
            let before = match remote {
                IpAddr::V4(remote) => vtep.v4.replace(Endpoint { remote, mac }).is_some(),
                IpAddr::V6(remote) => vtep.v6.replace(Endpoint { remote, mac }).is_some(),
            };
            if before {
                return Err(Invalid {
                    object: format!("vtep {}", vtep.name),
                    field: "remote",
                    problem: format!("{remote} is the second address of its family"),
                    remedy: "give at most one IPv4 and one IPv6 address".into(),
                });
            }
        }
        Ok(vtep)
    }

    fn rules(&self) -> Rule {
        if VIA_WORDS.contains(&self.name.as_str()) {
            return Err(Fault::new(
                "name",
                format!("{} means something else after 'via'", self.name),
                "use another name, such as the node's",
            ));
        }
        let ends = [
            self.v4.map(|end| (IpAddr::V4(end.remote), end.mac)),
            self.v6.map(|end| (IpAddr::V6(end.remote), end.mac)),
        ];
        if ends.iter().all(Option::is_none) {
            return Err(Fault::new("endpoint", "is missing", "give a remote address and its MAC, one or two families"));
        }
        for (remote, mac) in ends.into_iter().flatten() {
            check_host("remote", remote, &remote.to_string())?;
            if let IpAddr::V6(v6) = remote
                && v6.is_unicast_link_local()
            {
                let problem = format!("{remote} is link-local, which names no interface");
                return Err(Fault::new("remote", problem, "use the node's global or unique local address"));
            }
            check_station("mac", mac)?;
        }
        Ok(())
    }
}

fn check_netns(path: &Path) -> Rule {
    let remedy = "write an absolute path such as /run/netns/pod-a";
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.components().count() > 1 {
        Ok(())
    } else {
        Err(Fault::new("netns", format!("{path:?} is not an absolute path to a file"), remedy))
    }
}

/// The kernel's `dev_valid_name`, and neither `lo`, which every namespace has, nor `%`, which the kernel expands.
fn check_ifname(name: &str) -> Rule {
    let refused = |problem: &str| {
        Err(Fault::new("ifname", format!("{name:?} {problem}"), "use 1 to 15 plain characters, such as eth0"))
    };
    if name.is_empty() || name.len() > IFNAME_BYTES_MAX {
        refused("is not 1 to 15 bytes long")
    } else if [".", "..", "lo"].contains(&name) {
        refused("is reserved")
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control() || "/:%".contains(c)) {
        refused("holds whitespace or one of '/', ':' and '%'")
    } else {
        Ok(())
    }
}

fn check_host(field: &'static str, address: IpAddr, shown: &str) -> Rule {
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
        _ => return Ok(()),
    };
    Err(Fault::new(field, format!("{shown} is {kind}"), "use a unicast address"))
}

fn check_host_bits(field: &'static str, prefix: IpNet) -> Rule {
    if prefix.trunc() == prefix {
        Ok(())
    } else {
        let problem = format!("{prefix} has bits set beyond its length");
        Err(Fault::new(field, problem, format!("write {}", prefix.trunc())))
    }
}

fn check_station(field: &'static str, mac: Mac) -> Rule {
    if mac.is_station() {
        return Ok(());
    }
    let kind = if mac.is_group() { "a group address" } else { "no address at all" };
    Err(Fault::new(field, format!("{mac} is {kind}"), "use a station's address, with an even first byte and not zero"))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
