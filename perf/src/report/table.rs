//! The report for a terminal: a table a scenario, a line a side.

use std::fmt::Write as _;

use super::{Report, ScenarioReport, SideReport, short};

/// Blanks between columns.
const GAP: &str = "  ";

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("{}\n", report.subject());
    for (program, version) in &report.versions {
        let _ = writeln!(text, "{program}: {version}");
    }
    if !report.host.release_build {
        text.push_str("this is a debug build: its figures mean nothing\n");
    }
    for scenario in &report.scenarios {
        text.push('\n');
        one(scenario, &mut text);
    }
    if let Some(budget) = &report.budget {
        let _ = write!(text, "\n{}\n{}\n\n{}", budget.stages(), budget.verdict(), budget.cores());
        text.push_str("`podwire-perf budget` says what these count and what not.\n");
    }
    text.push_str("\nMedians of interleaved rounds; in parentheses the ratio to the first side of the table.");
    text
}

fn one(report: &ScenarioReport, text: &mut String) {
    let scenario = &report.scenario;
    let (name, place, what) = (&scenario.name, scenario.place(), scenario.measure.describe());
    let _ = writeln!(text, "{name}: {place}, {what}, {} x {} s", scenario.rounds, scenario.seconds);
    if !report.sides.is_empty() {
        columns(&rows(report), text);
    }
    for side in &report.sides {
        offloads(side, text);
    }
    made_by(&report.sides, text);
    if let Some(why) = report.disturbed() {
        let _ = writeln!(text, "  {why}");
    }
    for skipped in &report.skipped {
        let _ = writeln!(text, "  skipped: {}: {}", skipped.side, skipped.why);
    }
    for verdict in &report.verdicts {
        let _ = writeln!(text, "  {}", verdict.sentence(scenario));
    }
    if let Some(why) = &report.failed {
        let _ = writeln!(text, "  FAILED: {why}");
    }
}

/// Heading and one row a side.
fn rows(report: &ScenarioReport) -> Vec<Vec<String>> {
    let metrics = report.scenario.measure.metrics();
    let heading = std::iter::once("side").chain(metrics.iter().map(|metric| metric.title()));
    let mut rows = vec![heading.map(str::to_owned).collect()];
    for side in &report.sides {
        let figures = metrics.iter().map(|&metric| match side.figure(metric) {
            None => "-".to_owned(),
            Some(figure) => {
                let ratio = figure.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"));
                short(figure.median) + &ratio
            }
        });
        rows.push(std::iter::once(side.side.to_string()).chain(figures).collect());
    }
    rows
}

/// The first column to the left, the others to the right.
fn columns(rows: &[Vec<String>], text: &mut String) {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    for row in rows {
        let _ = write!(text, "  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "{GAP}{cell:>width$}");
        }
        text.push('\n');
    }
}

/// Only those that are off, since on is what everybody expects; interfaces that are alike share an entry.
fn offloads(side: &SideReport, text: &mut String) {
    let mut alike: Vec<(String, Vec<&str>)> = Vec::new();
    for interface in &side.offloads {
        let off: Vec<&str> = interface.offloads.iter().filter(|(_, on)| !**on).map(|(name, _)| name.as_str()).collect();
        let off = if off.is_empty() { "none".to_owned() } else { off.join(" ") };
        match alike.iter_mut().find(|(other, _)| *other == off) {
            Some((_, names)) if names.contains(&interface.interface.as_str()) => {}
            Some((_, names)) => names.push(&interface.interface),
            None => alike.push((off, vec![&interface.interface])),
        }
    }
    let entries: Vec<String> = alike.iter().map(|(off, names)| format!("{off} ({})", names.join(", "))).collect();
    let _ = writeln!(text, "  off in {}: {}", side.side, entries.join("; "));
}

/// Who sent and counted, in a line when it was the same for all.
fn made_by(sides: &[SideReport], text: &mut String) {
    let told = sides.iter().filter_map(|side| Some((&side.side, side.made_by.as_ref()?)));
    match sides.first().and_then(|first| first.made_by.as_ref()) {
        Some(first) if told.clone().all(|(_, made_by)| made_by == first) => {
            let _ = writeln!(text, "  packets: {first}");
        }
        _ => told.for_each(|(side, made_by)| {
            let _ = writeln!(text, "  packets of {side}: {made_by}");
        }),
    }
}
