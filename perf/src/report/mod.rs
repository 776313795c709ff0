//! What was measured, in one shape for the terminal, for files and for comparing: `table`, `json`, `html`.

mod html;
mod json;
mod svg;
mod table;

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::budget;
use crate::format::Format;
use crate::host::Host;
use crate::lab::InterfaceOffloads;
use crate::metric::{LossPoint, Metric, Sample, median};
use crate::scenario::{Peer, Scenario, Target};

/// Version of the JSON's shape; another one is refused.
pub(crate) const SCHEMA: u32 = 1;

/// Cores that others may use before it is said.
const OTHERS_CORES_MAX: f64 = 0.15;

/// Everything that one run measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) started_unix_ms: u64,
    pub(crate) host: Host,
    /// TCP congestion control of the pods' namespaces.
    pub(crate) congestion_control: Option<String>,
    /// Program and what it says of itself.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) scenarios: Vec<ScenarioReport>,
    /// What each stage costs in memory, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<budget::Report>,
}

/// One scenario: what was asked, and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ScenarioReport {
    pub(crate) scenario: Scenario,
    pub(crate) sides: Vec<SideReport>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Cores that others used just before, while every side was stopped.
    pub(crate) others_cores: Option<f64>,
    /// Why there are no (or not all) figures.
    pub(crate) failed: Option<String>,
}

/// A side that this machine can not have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) side: Peer,
    pub(crate) why: String,
}

/// One side's figures.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SideReport {
    pub(crate) side: Peer,
    pub(crate) offloads: Vec<InterfaceOffloads>,
    /// What sent and counted packets, where that is worth saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made_by: Option<String>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) loss_curve: Vec<LossPoint>,
}

/// One figure of a side.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) metric: Metric,
    /// Of each round.
    pub(crate) rounds: Vec<f64>,
    pub(crate) median: f64,
    /// To the median of the scenario's first side.
    pub(crate) ratio: Option<f64>,
}

/// Whether a target was met.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) side: Peer,
    pub(crate) metric: Metric,
    pub(crate) target: Target,
    /// The ratio or the figure that the target is about.
    pub(crate) value: f64,
    pub(crate) met: bool,
}

impl Report {
    /// The report as text.
    pub(crate) fn render(&self, format: Format) -> Result<String> {
        match format {
            Format::Table => Ok(table::render(self)),
            Format::Json => json::render(self),
        }
    }

    /// Writes it for `compare`.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        write(path, &(json::render(self)? + "\n"))
    }

    /// Writes it with charts.
    pub(crate) fn write_html(&self, path: &Path) -> Result<()> {
        write(path, &html::render(self))
    }

    /// Reads what [`Report::write_json`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        json::read(path)
    }

    /// Scenarios that failed, by name.
    pub(crate) fn failed(&self) -> Vec<&str> {
        let failed = self.scenarios.iter().filter(|scenario| scenario.failed.is_some());
        failed.map(|scenario| scenario.scenario.name.as_str()).collect()
    }

    /// Machine and programs, in a line.
    pub(crate) fn subject(&self) -> String {
        let Host { cpu, cores, kernel, governor, release_build: _ } = &self.host;
        let governor = governor.as_ref().map_or_else(String::new, |governor| format!(", governor {governor}"));
        let tcp = self.congestion_control.as_ref().map_or_else(String::new, |name| format!(", TCP {name}"));
        format!("{cpu}, {cores} cores{governor}, Linux {kernel}{tcp}")
    }
}

impl ScenarioReport {
    /// Of a scenario that is not measured yet.
    pub(crate) fn empty(scenario: Scenario) -> Self {
        let (sides, skipped, verdicts) = (Vec::new(), Vec::new(), Vec::new());
        Self { scenario, sides, skipped, verdicts, others_cores: None, failed: None }
    }

    /// A sentence when others used so much of the machine that the figures say little.
    pub(crate) fn disturbed(&self) -> Option<String> {
        let cores = self.others_cores.filter(|&cores| cores > OTHERS_CORES_MAX)?;
        Some(format!("others used {cores:.2} cores just before: measure again on a quiet machine"))
    }

    /// Works out medians, ratios and verdicts.
    pub(crate) fn judge(&mut self) {
        for side in &mut self.sides {
            for figure in &mut side.figures {
                figure.median = median(&figure.rounds).unwrap_or_default();
            }
        }
        let first = self.scenario.sides.first().and_then(|first| self.side(first)).cloned();
        for figure in self.sides.iter_mut().flat_map(|side| &mut side.figures) {
            let base = first.as_ref().and_then(|first| first.median(figure.metric));
            figure.ratio = base.and_then(|base| ratio(figure.median, base));
        }
        self.verdicts = self.scenario.targets.iter().flat_map(|target| self.verdicts_of(target)).collect();
    }

    fn side(&self, peer: &Peer) -> Option<&SideReport> {
        self.sides.iter().find(|side| side.side == *peer)
    }

    /// None for a side that was skipped: it neither meets nor misses anything.
    fn verdicts_of(&self, target: &Target) -> Vec<Verdict> {
        let metric = target.metric.unwrap_or(self.scenario.measure.metrics()[0]);
        let base = target.of.as_ref().or(self.scenario.sides.first());
        let meant = |side: &&SideReport| target.side.as_ref().map_or(side.side.is_podwire(), |peer| side.side == *peer);
        let verdict = |side: &SideReport| {
            let own = side.median(metric)?;
            let value = match target.absolute {
                true => own,
                false => ratio(own, self.side(base?)?.median(metric)?)?,
            };
            let met =
                target.at_least.is_none_or(|least| value >= least) && target.at_most.is_none_or(|most| value <= most);
            Some(Verdict { side: side.side.clone(), metric, target: target.clone(), value, met })
        };
        self.sides.iter().filter(meant).filter_map(verdict).collect()
    }
}

impl SideReport {
    pub(crate) fn new(side: Peer, offloads: Vec<InterfaceOffloads>) -> Self {
        Self { side, offloads, made_by: None, figures: Vec::new(), loss_curve: Vec::new() }
    }

    /// Takes in one round.
    pub(crate) fn add(&mut self, sample: &Sample) {
        self.made_by.clone_from(&sample.made_by);
        for &(metric, value) in &sample.figures {
            match self.figures.iter_mut().find(|figure| figure.metric == metric) {
                Some(figure) => figure.rounds.push(value),
                None => self.figures.push(Figure { metric, rounds: vec![value], median: value, ratio: None }),
            }
        }
        self.loss_curve.extend(&sample.loss_curve);
        self.loss_curve.sort_by(|a, b| a.kpps.total_cmp(&b.kpps));
    }

    /// One figure.
    pub(crate) fn figure(&self, metric: Metric) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.metric == metric)
    }

    fn median(&self, metric: Metric) -> Option<f64> {
        self.figure(metric).map(|figure| figure.median)
    }
}

impl Verdict {
    /// In a sentence: `podwire / kernel-bridge, Gb/s: 0.93, wanted at least 1 (missed)`.
    pub(crate) fn sentence(&self, scenario: &Scenario) -> String {
        let base = self.target.of.as_ref().or(scenario.sides.first());
        let base = base.filter(|_| !self.target.absolute).map_or_else(String::new, |base| format!(" / {base}"));
        let (word, bound) = match (self.target.at_least, self.target.at_most) {
            (Some(least), _) => ("at least", least),
            (None, most) => ("at most", most.unwrap_or_default()),
        };
        let met = if self.met { "met" } else { "missed" };
        format!("{}{base}, {}: {}, wanted {word} {bound} ({met})", self.side, self.metric.title(), short(self.value))
    }
}

/// None where there is nothing to divide by.
fn ratio(value: f64, base: f64) -> Option<f64> {
    let ratio = value / base;
    (base != 0.0 && ratio.is_finite()).then_some(ratio)
}

/// Three digits that count, and no more than two behind the point where there are more before it.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests;
