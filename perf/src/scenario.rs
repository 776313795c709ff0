//! What to measure, as a scenario file says it: `docs/perf/README.md` has the keys. Unknown ones are refused by name.
//!
//! Whether a scenario makes sense is decided here, before anything is built.

mod peer;
mod size;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use peer::{Peer, PeerKind, PodwireOptions};
pub(crate) use size::PacketSize;

use crate::lab::Wire;
use crate::metric::Metric;

/// The set that is measured when no file is named.
const STANDARD: &str = include_str!("scenarios/standard.toml");
/// Rounds and seconds of one scenario at most, so that a slip of the pen is no lost night.
const ROUNDS_MAX: usize = 1_000;
const SECONDS_MAX: f64 = 3_600.0;

/// Longest frame of a pod: an MTU of 1450 with Ethernet's header and FCS.
pub(crate) const POD_FRAME_BYTES_MAX: usize = 1_468;

/// How the pods lie to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Topology {
    /// Two pods on one node.
    Node,
    /// Two nodes with one pod each.
    Nodes,
}

/// What flows, and what is looked at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Measure {
    /// TCP connections that send as fast as they can.
    Stream {
        streams: usize,
        /// The sender's congestion control; the machine's default when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        congestion: Option<String>,
    },
    /// 64 bytes there and back over one TCP connection, in a closed loop or at a fixed rate.
    Request {
        /// Requests a second; latency then counts from when a request should have left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<f64>,
    },
    /// UDP packets.
    Packets {
        /// Of the Ethernet frames, such as `64` or `"imix"`.
        size: PacketSize,
        /// Look for the highest rates without and with little loss, and do not only flood.
        #[serde(default)]
        search: bool,
        /// What sends and counts them.
        #[serde(default, skip_serializing_if = "Generator::is_default")]
        by: Generator,
    },
    /// One ping after silence.
    FirstPing {
        #[serde(default = "silence_s")]
        silence: f64,
    },
    /// What the switch uses when nothing flows.
    Idle {},
    /// TCP connections made and closed.
    Connections {},
}

/// What sends packets and counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Generator {
    /// UDP sockets of the pods' kernels.
    #[default]
    UdpSockets,
    /// AF_XDP at both ends.
    AfXdp,
    /// AF_XDP, and AF_PACKET at the receiving end.
    AfXdpToAfPacket,
}

impl Generator {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it tells where packets are lost.
    fn tells_losses(self) -> bool {
        self != Self::UdpSockets
    }

    fn title(self) -> &'static str {
        match self {
            Self::UdpSockets => "UDP sockets",
            Self::AfXdp => "AF_XDP",
            Self::AfXdpToAfPacket => "AF_XDP to AF_PACKET",
        }
    }
}

fn silence_s() -> f64 {
    10.0
}

impl Measure {
    /// The figures it gives, the one it is about first.
    pub(crate) fn metrics(&self) -> &'static [Metric] {
        match self {
            Self::Stream { .. } => &[Metric::Gbps, Metric::SystemCpuSPerGb, Metric::SwitchCpuSPerGb],
            Self::Request { .. } => {
                &[Metric::P50Us, Metric::P90Us, Metric::P99Us, Metric::P999Us, Metric::MaxUs, Metric::PerSecond]
            }
            Self::Packets { search, by, .. } => {
                let most: &[Metric] = &[
                    Metric::NdrKpps,
                    Metric::PdrKpps,
                    Metric::FloodKpps,
                    Metric::RefusedPercent,
                    Metric::SwitchLossPercent,
                    Metric::SinkLossPercent,
                ];
                let (from, to) = (if *search { 0 } else { 2 }, if by.tells_losses() { 6 } else { 3 });
                &most[from..to]
            }
            Self::FirstPing { .. } => &[Metric::FirstMs],
            Self::Idle {} => &[Metric::CorePercent],
            Self::Connections {} => &[Metric::PerSecond],
        }
    }

    /// In words, for a report.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Stream { streams, congestion } => {
                let streams =
                    if *streams == 1 { "one TCP stream".to_owned() } else { format!("{streams} TCP streams") };
                congestion.as_ref().map_or(streams.clone(), |name| format!("{streams} by {name}"))
            }
            Self::Request { rate: None } => "TCP request/response of 64 bytes, round trip, closed loop".to_owned(),
            Self::Request { rate: Some(rate) } => {
                format!("TCP request/response of 64 bytes, {rate} a second, from when each should have left")
            }
            Self::Packets { size, search: false, by } => format!("a flood of UDP in {size} by {}", by.title()),
            Self::Packets { size, search: true, by } => format!("UDP in {size} by {}, highest rates", by.title()),
            Self::FirstPing { silence } => format!("the first ping after {silence} s of silence"),
            Self::Idle {} => "idle".to_owned(),
            Self::Connections {} => "TCP connections, one after the other".to_owned(),
        }
    }
}

/// What a figure should be; the ratio to another side's, or the figure itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Whose figure; all podwire sides when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) side: Option<Peer>,
    /// What it is divided by; the scenario's first side when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<Peer>,
    /// Which figure; the measure's first when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<Metric>,
    /// Whether the figure itself is meant and no ratio.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) absolute: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
}

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Unique in its file; compared by this name later.
    pub(crate) name: String,
    pub(crate) topology: Topology,
    /// The cable between the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wire: Option<Wire>,
    pub(crate) measure: Measure,
    /// Who is measured; the others are compared with the first.
    pub(crate) sides: Vec<Peer>,
    /// Seconds of each measurement.
    #[serde(default = "default_seconds")]
    pub(crate) seconds: f64,
    /// Seconds before each that do not count.
    #[serde(default = "default_warm_up")]
    pub(crate) warm_up: f64,
    /// Measurements of each side, interleaved.
    #[serde(default = "default_rounds")]
    pub(crate) rounds: usize,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
}

fn default_seconds() -> f64 {
    2.0
}

fn default_warm_up() -> f64 {
    0.5
}

fn default_rounds() -> usize {
    5
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    scenario: Vec<Scenario>,
}

impl Scenario {
    /// Length of a measurement.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What comes before it.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    /// Where it takes place, in words.
    pub(crate) fn place(&self) -> &'static str {
        match (self.topology, self.wire) {
            (Topology::Node, _) => "one node",
            (Topology::Nodes, Some(Wire::Plain)) => "across nodes, wire without offloads",
            (Topology::Nodes, _) => "across nodes, offloading wire",
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.sides.is_empty(), "`sides` is empty: name at least one, such as \"podwire\"");
        let names: BTreeSet<String> = self.sides.iter().map(Peer::to_string).collect();
        ensure!(names.len() == self.sides.len(), "a side is named twice in `sides`");
        let timed = |seconds: f64| (0.0..=SECONDS_MAX).contains(&seconds);
        ensure!(timed(self.seconds) && self.seconds > 0.0, "`seconds` has to be more than 0 and at most {SECONDS_MAX}");
        ensure!(timed(self.warm_up), "`warm_up` has to be at least 0 and at most {SECONDS_MAX}");
        ensure!((1..=ROUNDS_MAX).contains(&self.rounds), "`rounds` has to be from 1 to {ROUNDS_MAX}");
        ensure!(
            self.wire.is_none() || self.topology == Topology::Nodes,
            "`wire` is the cable between two nodes: leave it out, or use topology = \"nodes\""
        );
        self.check_measure()?;
        self.sides.iter().try_for_each(|side| self.check_side(side))?;
        self.targets.iter().try_for_each(|target| self.check_target(target))
    }

    fn check_measure(&self) -> Result<()> {
        match &self.measure {
            Measure::Stream { streams, congestion } => {
                ensure!((1..=256).contains(streams), "`streams` has to be from 1 to 256");
                let fits = |name: &String| (1..=15).contains(&name.len()) && name.is_ascii();
                ensure!(
                    congestion.as_ref().is_none_or(fits),
                    "`congestion` has to be the name of a congestion control, such as \"cubic\""
                );
            }
            Measure::Packets { size, .. } => {
                ensure!(
                    size.fits(POD_FRAME_BYTES_MAX),
                    "`size` has to be from 64 to {POD_FRAME_BYTES_MAX}, or \"imix\""
                );
            }
            Measure::Request { rate: Some(rate) } => {
                ensure!((1.0..=1e6).contains(rate), "`rate` has to be from 1 to 1000000");
            }
            Measure::FirstPing { silence } => {
                ensure!((0.0..=SECONDS_MAX).contains(silence), "`silence` has to be from 0 to {SECONDS_MAX}");
            }
            _ => {}
        }
        Ok(())
    }

    fn check_side(&self, side: &Peer) -> Result<()> {
        let kind = side.kind();
        let fits = match self.topology {
            Topology::Node => !matches!(kind, PeerKind::KernelVxlan),
            Topology::Nodes => matches!(kind, PeerKind::Cable | PeerKind::KernelVxlan | PeerKind::Podwire(_)),
        };
        ensure!(fits, "{side} is not for {}", self.place());
        let idles = matches!(kind, PeerKind::Podwire(_) | PeerKind::Ovs);
        ensure!(
            idles || self.measure != Measure::Idle {},
            "{side} has no process whose idle CPU time could be measured"
        );
        Ok(())
    }

    fn check_target(&self, target: &Target) -> Result<()> {
        ensure!(target.at_least.is_some() != target.at_most.is_some(), "a target has either `at_least` or `at_most`");
        for named in [&target.side, &target.of].into_iter().flatten() {
            ensure!(self.sides.contains(named), "a target names {named}, which is not in `sides`");
        }
        if let Some(metric) = target.metric {
            ensure!(self.measure.metrics().contains(&metric), "this measure has no {}", metric.name());
        }
        ensure!(target.of.is_none() || !target.absolute, "a target that is `absolute` has no `of`");
        Ok(())
    }
}

/// The scenarios of a file, or the standard ones.
pub(crate) fn read(path: Option<&Path>) -> Result<Vec<Scenario>> {
    match path {
        None => parse(STANDARD).context("the standard scenarios"),
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            parse(&text).with_context(|| path.display().to_string())
        }
    }
}

/// Keeps the scenarios with these names, in the file's order; all when none is named.
pub(crate) fn only(scenarios: Vec<Scenario>, names: &[String]) -> Result<Vec<Scenario>> {
    if let Some(name) = names.iter().find(|name| !scenarios.iter().any(|scenario| scenario.name == **name)) {
        let there: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        bail!("there is no scenario {name}: there are {}", there.join(", "));
    }
    let wanted = |scenario: &Scenario| names.is_empty() || names.contains(&scenario.name);
    Ok(scenarios.into_iter().filter(wanted).collect())
}

fn parse(text: &str) -> Result<Vec<Scenario>> {
    let scenarios = toml::from_str::<Document>(text)?.scenario;
    ensure!(!scenarios.is_empty(), "there is no [[scenario]]");
    let mut names = BTreeSet::new();
    for scenario in &scenarios {
        let name = &scenario.name;
        ensure!(!name.is_empty(), "a scenario's `name` is empty");
        ensure!(names.insert(name), "there are two scenarios {name}: give each its own name");
        scenario.check().with_context(|| format!("scenario {name}"))?;
    }
    Ok(scenarios)
}

#[cfg(test)]
mod tests;
