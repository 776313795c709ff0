//! `podwire-perf compare A B`: how the ratios of a run differ from those of an earlier one, and a gate for the worse.
//!
//! Ratios are compared and no absolute figures, since those change with the machine and the day. A comparison whose first
//! side (the one that all ratios are to) is itself far from its figure in A is refused: then something else was measured.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::metric::{Better, Metric};
use crate::report::{Report, ScenarioReport, SideReport};
use crate::scenario::Peer;

/// A first side that is worse than this part of its figure in A makes a comparison meaningless.
const USUAL_MIN: f64 = 0.7;

/// What to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Report to compare with, as `run --json` writes it
    pub(crate) a: PathBuf,
    /// Report to judge
    pub(crate) b: PathBuf,
    /// Fail when a ratio of podwire got worse by more than so many percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) gate: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a percentage from 0 to 100".to_owned()),
    }
}

/// One ratio in both reports.
#[derive(Clone, PartialEq, Debug)]
struct Row {
    scenario: String,
    side: Peer,
    metric: Metric,
    before: f64,
    after: f64,
}

impl Row {
    /// Percent by which it got better; negative for worse.
    fn gain_percent(&self) -> f64 {
        match self.metric.better() {
            Better::Higher => 100.0 * (self.after / self.before - 1.0),
            Better::Lower => 100.0 * (self.before / self.after - 1.0),
        }
    }
}

/// What a comparison says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Comparison {
    rows: Vec<Row>,
    /// Scenarios or sides that could not be compared, and why.
    refused: Vec<String>,
    /// What a reader should know.
    notes: Vec<String>,
}

/// Reads both reports and compares them.
pub(crate) fn compare(options: &Options) -> Result<Comparison> {
    Ok(Comparison::of(&Report::read(&options.a)?, &Report::read(&options.b)?))
}

impl Comparison {
    /// Compares what is in both.
    pub(crate) fn of(a: &Report, b: &Report) -> Self {
        let mut comparison = Self { rows: Vec::new(), refused: Vec::new(), notes: Vec::new() };
        if a.host != b.host {
            comparison.notes.push(format!("another machine: A on {}; B on {}", a.subject(), b.subject()));
        }
        for before in &a.scenarios {
            let name = &before.scenario.name;
            match b.scenarios.iter().find(|after| after.scenario.name == *name) {
                None => comparison.notes.push(format!("{name}: only in A")),
                Some(after) => comparison.add(before, after),
            }
        }
        comparison
    }

    fn add(&mut self, before: &ScenarioReport, after: &ScenarioReport) {
        let name = &before.scenario.name;
        if let Some(why) = incomparable(before, after) {
            self.refused.push(format!("{name}: {why}"));
            return;
        }
        for (which, report) in [("A", before), ("B", after)] {
            self.notes.extend(report.disturbed().map(|why| format!("{name} in {which}: {why}")));
        }
        for old in before.sides.iter().skip(1) {
            let Some(new) = after.sides.iter().find(|side| side.side == old.side) else {
                self.missing(name, &old.side, after);
                continue;
            };
            let ratio = |side: &SideReport, metric| side.figure(metric).and_then(|figure| figure.ratio);
            let rows = before.scenario.measure.metrics().iter().filter_map(|&metric| {
                let (before, after) = (ratio(old, metric)?, ratio(new, metric)?);
                Some(Row { scenario: name.clone(), side: old.side.clone(), metric, before, after })
            });
            self.rows.extend(rows);
        }
    }

    /// A side of A that B lacks: podwire's own has to be there.
    fn missing(&mut self, name: &str, side: &Peer, after: &ScenarioReport) {
        let why = after.skipped.iter().find(|skipped| skipped.side == *side);
        let why = why.map_or_else(|| "only in A".to_owned(), |skipped| skipped.why.clone());
        let list = if side.is_podwire() { &mut self.refused } else { &mut self.notes };
        list.push(format!("{name}: {side}: {why}"));
    }

    /// What the gate does not let pass: ratios of podwire that got worse by more than so many percent, and what could
    /// not be compared. Figures that say more about the moment than about the switch are left out.
    pub(crate) fn faults(&self, gate_percent: f64) -> Vec<String> {
        let worse = |row: &&Row| row.side.is_podwire() && !row.metric.erratic() && row.gain_percent() < -gate_percent;
        let rows = self.rows.iter().filter(worse).map(|row| {
            let Row { scenario, side, metric, before, after } = row;
            format!(
                "{scenario}: {side}, {}: the ratio was {before:.2} and is {after:.2}: worse by {:.1} %",
                metric.title(),
                -row.gain_percent()
            )
        });
        rows.chain(self.refused.iter().map(|why| format!("not compared: {why}"))).collect()
    }

    /// As a table.
    pub(crate) fn render(&self) -> String {
        let label = |row: &Row| (row.scenario.clone(), row.side.to_string(), row.metric.title());
        let rows: Vec<_> = self.rows.iter().map(|row| (label(row), row)).collect();
        let width = |of: &dyn Fn(&(String, String, &'static str)) -> usize, least: usize| {
            rows.iter().map(|(label, _)| of(label)).fold(least, usize::max)
        };
        let widths =
            (width(&|label| label.0.len(), 8), width(&|label| label.1.len(), 4), width(&|label| label.2.len(), 6));
        let (a, b, c) = widths;
        let mut text =
            format!("{:<a$}  {:<b$}  {:<c$}  {:>8}  {:>8}  {:>8}\n", "scenario", "side", "figure", "A", "B", "better");
        for ((scenario, side, metric), row) in &rows {
            let _ = writeln!(
                text,
                "{scenario:<a$}  {side:<b$}  {metric:<c$}  {:>8.3}  {:>8.3}  {:>+6.1} %",
                row.before,
                row.after,
                row.gain_percent()
            );
        }
        text.push_str("\nRatios to the first side of each scenario; better: by how much B is better than A.");
        for refused in &self.refused {
            let _ = write!(text, "\nnot compared: {refused}");
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}");
        }
        text
    }
}

/// Why the ratios of two runs of a scenario say nothing about each other.
fn incomparable(before: &ScenarioReport, after: &ScenarioReport) -> Option<String> {
    if let Some(why) = before.failed.as_ref().or(after.failed.as_ref()) {
        return Some(format!("it failed: {why}"));
    }
    let (old, new) = (&before.scenario, &after.scenario);
    if (&old.measure, old.topology, old.wire, old.sides.first())
        != (&new.measure, new.topology, new.wire, new.sides.first())
    {
        return Some("it measures something else now".to_owned());
    }
    let metric = old.measure.metrics()[0];
    let (old, new) = (before.sides.first()?.figure(metric)?.median, after.sides.first()?.figure(metric)?.median);
    let part = match metric.better() {
        Better::Higher => new / old,
        Better::Lower => old / new,
    };
    let first = &after.sides.first()?.side;
    (!first.is_podwire() && part < USUAL_MIN)
        .then(|| format!("{first} is at {part:.2} of its figure in A: something else had the machine; measure again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_ratio_that_got_worse_is_stopped_by_the_gate() {
        let comparison = Comparison::of(&report(&[20.0], &[20.0]), &report(&[20.0], &[17.0]));
        assert_eq!(comparison.faults(20.0), Vec::<String>::new());
        let [fault] = &comparison.faults(10.0)[..] else { panic!("{comparison:?}") };
        assert!(fault.contains("stream-1: podwire, Gb/s: the ratio was 1.00 and is 0.85: worse by 15.0 %"), "{fault}");
        let text = comparison.render();
        let row = text.lines().find(|line| line.starts_with("stream-1")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["stream-1", "podwire", "Gb/s", "1.000", "0.850", "-15.0", "%"]);
    }

    #[test]
    fn a_slower_day_is_no_worse_ratio() {
        let comparison = Comparison::of(&report(&[20.0], &[18.0]), &report(&[15.0], &[13.5]));
        assert_eq!(comparison.faults(1.0), Vec::<String>::new());
    }

    #[test]
    fn less_is_better_for_latency() {
        let row = |before, after| Row {
            scenario: "request".into(),
            side: "podwire".parse().unwrap(),
            metric: Metric::P50Us,
            before,
            after,
        };
        assert!(row(0.5, 0.6).gain_percent() < -10.0 && row(0.6, 0.5).gain_percent() > 10.0);
    }

    #[test]
    fn a_peer_below_its_usual_figure_is_refused() {
        let comparison = Comparison::of(&report(&[20.0], &[18.0]), &report(&[13.0], &[12.0]));
        let [fault] = &comparison.faults(10.0)[..] else { panic!("{comparison:?}") };
        assert!(fault.contains("not compared: stream-1: kernel-bridge is at 0.65 of its figure in A"), "{fault}");
        assert!(comparison.render().contains("not compared: stream-1"));
    }

    #[test]
    fn what_failed_changed_or_is_gone_is_said() {
        let (a, mut b) = (report(&[20.0], &[18.0]), report(&[20.0], &[18.0]));
        b.scenarios[0].failed = Some("no way".into());
        assert!(Comparison::of(&a, &b).faults(10.0)[0].contains("it failed: no way"));
        b.scenarios[0].failed = None;
        b.scenarios[0].scenario.measure = crate::scenario::Measure::Stream { streams: 9, congestion: None };
        assert!(Comparison::of(&a, &b).faults(10.0)[0].contains("it measures something else now"));
        b.scenarios.clear();
        let gone = Comparison::of(&a, &b);
        assert!(gone.faults(10.0).is_empty() && gone.render().contains("stream-1: only in A"));
        let mut b = report(&[20.0], &[18.0]);
        b.scenarios[0].sides.pop();
        assert!(Comparison::of(&a, &b).faults(10.0)[0].contains("podwire: only in A"));
    }
}
