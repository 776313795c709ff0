//! By frames of `wire`: out of one pod's interface through AF_XDP, counted as they come in at the other's. No socket of the
//! pods' kernels is on the way, so that what is measured is the switch.
//!
//! Copy mode at both ends, and the sink's program in generic mode, are what every kind of interface has: so each side has the
//! same generator and the same sink.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use podwire_control::model::Mac;
use serde_json::Value;

use super::{Lost, Offer, Offered};
use crate::generate::ping;
use crate::scenario::{Generator, PacketSize};
use crate::side::{POD_INTERFACE, Path};
use crate::wire::{Kind, Mode, Outcome, Rx, Session, Traffic, Tx};

/// UDP port that frames go to: discard (RFC 863).
const DST_PORT: u16 = 9;
/// How long the sink sleeps when nothing is there. Its ring holds what comes meanwhile, and the switch's core is not taken.
const NAP: Duration = Duration::from_micros(200);

/// Opens both interfaces, once the pods know each other.
pub(super) fn open(path: &Path<'_>, size: PacketSize, generator: Generator) -> Result<Session> {
    ping::reach(path)?;
    let (src_ip, dst_mac) = first_hop(path).with_context(|| format!("the way from {}", path.from.name()))?;
    let sink = if generator == Generator::AfXdp { Kind::XdpGeneric } else { Kind::Packet };
    let (from, to) = (path.from.path(), path.to.path());
    let tx = Tx { device: POD_INTERFACE, netns: Some(&from), queues: 1, mode: Mode::Copy, cpus: &[] };
    let rx = Rx { device: POD_INTERFACE, netns: Some(&to), sink, threads: 1, nap: Some(NAP), cpus: &[] };
    let (dst_ip, dst_port) = (path.target, DST_PORT);
    let traffic = Traffic { size, flows: 1, src_mac: None, dst_mac: Some(dst_mac), src_ip, dst_ip, dst_port };
    Session::open(Some(&tx), Some(&rx), &traffic)
}

/// How frames are sent and counted.
pub(super) fn describe(session: &Session) -> Option<String> {
    Some(format!("sent {}; counted {}", session.sending()?.describe(), session.receiving()?.describe()))
}

/// Source address of packets to the receiving pod, and the MAC they are sent to: its own, or a gateway's.
fn first_hop(path: &Path<'_>) -> Result<(Ipv4Addr, Mac)> {
    let route = first(&path.from.ip(&format!("-j route get {}", path.target))?, "a route")?;
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let source = text(&route, "prefsrc").context("its route has no source address")?.parse()?;
    let hop = text(&route, "gateway").unwrap_or_else(|| path.target.to_string());
    let neighbour = first(&path.from.ip(&format!("-j neighbour show {hop}"))?, &hop)?;
    let mac = text(&neighbour, "lladdr").with_context(|| format!("{hop} has no MAC"))?;
    Ok((source, mac.parse().with_context(|| format!("the MAC of {hop}"))?))
}

/// The one object of what `ip -j` says.
fn first(json: &str, what: &str) -> Result<Value> {
    let list: Vec<Value> = serde_json::from_str(json).with_context(|| format!("{json:?} is no answer of ip -j"))?;
    list.into_iter().next().with_context(|| format!("{what} is not there"))
}

impl Offer for Session {
    fn offer(&mut self, rate: Option<f64>, time: Duration) -> Result<Offered> {
        Ok(Offered::from(&self.trial(rate, time)?))
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl From<&Outcome> for Offered {
    fn from(outcome: &Outcome) -> Self {
        let part = |frames: u64| frames as f64 / outcome.sent.unwrap_or(0).max(1) as f64;
        let Outcome { refused, sink_drops, .. } = *outcome;
        let lost = Lost { refused: part(refused), switch: part(outcome.lost_between()), sink: part(sink_drops) };
        Self {
            sent_pps: outcome.sent_pps(),
            received_pps: outcome.received_pps(),
            loss: outcome.loss_of_wanted(),
            lost: Some(lost),
        }
    }
}
