//! The verbs that state something: what they state, and what is said of what it did.

use std::io::Read;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::json;

use super::Failure;
use super::args::{Args, BridgeVerb, Kind, MacVerb, PortAdd, PortVerb, RouteVerb, Verb, VtepAdd, VtepVerb};
use super::output::Output;
use crate::client::Client;
use crate::intent;
use crate::model::{
    Applied, Bandwidth, Bridge, Guard, Key, Object, Owner, Port, PortKind, RateLimit, Route, StaticMac, Via, ViaError,
    Vtep,
};

/// What the CLI's user wants to be so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Statement {
    /// This object.
    Upsert(Object),
    /// No such object.
    Delete(Key),
    /// These and no others.
    Whole(Vec<Object>),
}

impl Verb {
    /// What the verb states; none for verbs that only ask.
    pub(super) fn statement(&self) -> Result<Option<Statement>, Failure> {
        use Statement::{Delete, Upsert, Whole};
        Ok(Some(match self {
            Self::Port(PortVerb::Add(add)) => Upsert(Object::Port(port(add))),
            Self::Port(PortVerb::Del { name }) => Delete(Key::Port(name.clone())),
            Self::Bridge(BridgeVerb::Add { name, vni, flood, vlan_transparent }) => Upsert(Object::Bridge(Bridge {
                name: name.clone(),
                vni: *vni,
                flood: flood.clone(),
                vlan_transparent: *vlan_transparent,
            })),
            Self::Bridge(BridgeVerb::Del { name }) => Delete(Key::Bridge(name.clone())),
            Self::Mac(MacVerb::Add { mac, port, bridge }) => {
                Upsert(Object::Mac(StaticMac { bridge: bridge.clone(), mac: *mac, port: port.clone() }))
            }
            Self::Mac(MacVerb::Del { mac, bridge }) => Delete(Key::Mac { bridge: bridge.clone(), mac: *mac }),
            Self::Route(RouteVerb::Add { prefix, via }) => {
                Upsert(Object::Route(Route { prefix: *prefix, via: next_hop(via)? }))
            }
            Self::Route(RouteVerb::Del { prefix }) => Delete(Key::Route(*prefix)),
            Self::Vtep(VtepVerb::Add(add)) => Upsert(Object::Vtep(vtep(add)?)),
            Self::Vtep(VtepVerb::Del { name }) => Delete(Key::Vtep(name.clone())),
            Self::Apply { file } => Whole(whole(file)?),
            _ => return Ok(None),
        }))
    }
}

fn usage(message: String) -> Failure {
    Failure::Usage(Args::command().error(ErrorKind::ValueValidation, message))
}

fn port(add: &PortAdd) -> Port {
    let kind = match add.kind {
        Kind::Tap => PortKind::Tap,
        Kind::VethXdp => PortKind::VethXdp,
    };
    Port {
        name: add.name.clone(),
        kind,
        netns: add.netns.clone(),
        ifname: add.ifname.clone(),
        addresses: add.ips.clone(),
        mac: add.mac,
        mtu: add.mtu,
        bridge: add.bridge.clone(),
        guard: if add.no_guard { Guard::Off } else { Guard::On { allowed: add.allow.clone() } },
        bandwidth: Bandwidth {
            ingress: add.ingress_rate.map(|rate| RateLimit::new(rate, add.ingress_burst)),
            egress: add.egress_rate.map(|rate| RateLimit::new(rate, add.egress_burst)),
        },
    }
}

fn next_hop(words: &[String]) -> Result<Via, Failure> {
    match words {
        [via, rest @ ..] if via == "via" => {
            rest.join(" ").parse().map_err(|error: ViaError| usage(format!("route add: {error}")))
        }
        _ => Err(usage(format!("route add: {:?} is not understood; write PREFIX via NEXT_HOP", words.join(" ")))),
    }
}

fn vtep(add: &VtepAdd) -> Result<Vtep, Failure> {
    let (name, remotes) = (&add.name, add.remotes.len());
    let macs = match add.macs.as_slice() {
        [one] => vec![*one; remotes],
        several if several.len() == remotes => several.to_vec(),
        several => {
            let macs = several.len();
            let remedy = "give one --mac for each --remote, in the same order, or one for all";
            return Err(usage(format!("vtep {name}: {remotes} --remote but {macs} --mac; {remedy}")));
        }
    };
    let ends = add.remotes.iter().copied().zip(macs).collect();
    Vtep::of_endpoints(name.clone(), ends, add.vni).map_err(|invalid| usage(invalid.to_string()))
}

fn whole(file: &str) -> Result<Vec<Object>, Failure> {
    let read = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|error| {
        Failure::Said(format!(
            "file {file}: cannot read it: {error}; give a TOML or JSON file, or - for standard input"
        ))
    })?;
    intent::parse(&text).map_err(|error| Failure::Intent { file: file.to_owned(), error })
}

impl Statement {
    /// States it and prints what it did.
    pub(super) async fn make(self, client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
        let (applied, key) = match self {
            Self::Upsert(object) => {
                let key = object.key();
                (client.change(Owner::Cli, &[object], &[]).await?, Some(key))
            }
            Self::Delete(key) => (client.change(Owner::Cli, &[], std::slice::from_ref(&key)).await?, Some(key)),
            Self::Whole(objects) => (client.apply(Owner::Cli, &objects).await?, None),
        };
        output.answer(&applied_json(&applied), || applied_text(&applied, key.as_ref()))
    }
}

fn applied_json(applied: &Applied) -> serde_json::Value {
    let changed = applied.changed.iter();
    let changed: Vec<_> =
        changed.map(|changed| json!({"object": changed.key.to_string(), "action": changed.action.name()})).collect();
    json!({"generation": applied.generation, "changed": changed, "unchanged": applied.unchanged})
}

fn applied_text(applied: &Applied, asked: Option<&Key>) -> String {
    let mut text = String::new();
    for changed in &applied.changed {
        text.push_str(&format!("{}: {}\n", changed.key, changed.action.name()));
    }
    match asked {
        Some(key) if applied.changed.is_empty() => text.push_str(&format!("{key}: unchanged\n")),
        Some(_) => {}
        None => {
            let (changed, unchanged, generation) = (applied.changed.len(), applied.unchanged, applied.generation);
            text.push_str(&format!("{changed} changed, {unchanged} unchanged, generation {generation}\n"));
        }
    }
    text
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
