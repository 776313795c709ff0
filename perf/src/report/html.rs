//! The report as one page that needs nothing else: no script, no picture, no font from anywhere.

use std::fmt::Write as _;

use super::svg::{bars, escape, loss, percentiles, values};
use super::{Report, ScenarioReport, short};
use crate::budget::{self, MTUS, Stage};
use crate::metric::Metric;
use crate::scenario::Measure;

const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\n\
         <meta name='color-scheme' content='light dark'>\n<title>podwire: measured</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>podwire, measured</h1>\n<p>{}</p>\n",
        escape(&report.subject())
    );
    if !report.host.release_build {
        page.push_str("<p class='missed'>This is a debug build: its figures mean nothing.</p>\n");
    }
    for (program, version) in &report.versions {
        let _ = writeln!(page, "<p class='small'>{}: {}</p>", escape(program), escape(version));
    }
    page.push_str(
        "<p class='small'>Medians of interleaved rounds; thin marks are single rounds; in parentheses the ratio to the \
         first side.</p>\n",
    );
    for scenario in &report.scenarios {
        section(scenario, &mut page);
    }
    if let Some(report) = &report.budget {
        budget(report, &mut page);
    }
    page + "</body>\n</html>\n"
}

fn section(report: &ScenarioReport, page: &mut String) {
    let scenario = &report.scenario;
    let _ = writeln!(page, "<section>\n<h2>{}</h2>", escape(&scenario.name));
    let about = format!("{}, {}", scenario.place(), scenario.measure.describe());
    let _ = writeln!(page, "<p>{}; {} x {} s</p>", escape(&about), scenario.rounds, scenario.seconds);
    if let Some(why) = &report.failed {
        let _ = writeln!(page, "<p class='missed'>Failed: {}</p>", escape(why));
    }
    if let Some(why) = report.disturbed() {
        let _ = writeln!(page, "<p class='missed'>{}</p>", escape(&why));
    }
    for verdict in &report.verdicts {
        let class = if verdict.met { "met" } else { "missed" };
        let _ = writeln!(page, "<p class='{class}'>{}</p>", escape(&verdict.sentence(scenario)));
    }
    if !report.sides.is_empty() {
        charts(report, page);
        table(report, page);
    }
    for skipped in &report.skipped {
        let _ =
            writeln!(page, "<p class='small'>Skipped: {}</p>", escape(&format!("{}: {}", skipped.side, skipped.why)));
    }
    offloads(report, page);
    page.push_str("</section>\n");
}

/// What each stage costs: a chart an MTU, the cores that come of it, and what is assumed.
fn budget(report: &budget::Report, page: &mut String) {
    page.push_str("<section>\n<h2>budget</h2>\n<p>What each stage costs in memory, without the kernel's part.</p>\n");
    let class = if report.vxlan_ns <= report.vxlan_goal_ns { "met" } else { "missed" };
    let _ = writeln!(page, "<p class='{class}'>{}</p>", escape(&report.verdict()));
    for mtu in MTUS {
        let title = format!("cost a stage, ns a packet at an MTU of {mtu}");
        let cost = |stage: Stage| Some((stage.title(), report.cost(stage, mtu)?.ns_packet));
        let rows: Vec<_> = Stage::ALL.into_iter().filter_map(cost).collect();
        let _ = writeln!(page, "<h3>{title}</h3>\n{}", values(&title, &rows));
    }
    page.push_str("<table>\n<tr><th>stage</th>");
    for mtu in MTUS {
        let _ = write!(page, "<th>ns at {mtu}</th><th>ns a byte</th>");
    }
    page.push_str("</tr>\n");
    for stage in Stage::ALL {
        let _ = write!(page, "<tr><td>{}</td>", escape(stage.title()));
        for cost in MTUS.iter().filter_map(|&mtu| report.cost(stage, mtu)) {
            let _ = write!(page, "<td>{}</td><td>{:.4}</td>", short(cost.ns_packet), cost.ns_byte);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n<table>\n<tr><th>cores of the user part</th><th>MTU</th><th>Mpps</th>");
    page.push_str("<th>with super-frames</th><th>packet by packet</th></tr>\n");
    for need in &report.needs {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(need.way.title()),
            need.mtu,
            short(need.packets_per_second / 1e6),
            short(need.cores_super_frames),
            short(need.cores_single)
        );
    }
    page.push_str("</table>\n");
    for sentence in &report.assumptions {
        let _ = writeln!(page, "<p class='small'>{}</p>", escape(sentence));
    }
    page.push_str("</section>\n");
}

fn charts(report: &ScenarioReport, page: &mut String) {
    let metrics = report.scenario.measure.metrics();
    let shown = match report.scenario.measure {
        Measure::Request { .. } => &[Metric::P50Us, Metric::P99Us],
        Measure::Packets { search: true, .. } => &metrics[..2],
        _ => &metrics[..1],
    };
    for &metric in shown {
        let _ = writeln!(page, "<h3>{}</h3>\n{}", escape(metric.title()), bars(&report.sides, metric));
    }
    if metrics.contains(&Metric::P999Us) {
        let _ = writeln!(page, "<h3>latency percentiles</h3>\n{}", percentiles(&report.sides));
    }
    if report.sides.iter().any(|side| !side.loss_curve.is_empty()) {
        let _ = writeln!(page, "<h3>loss over rate</h3>\n{}", loss(&report.sides));
    }
}

fn table(report: &ScenarioReport, page: &mut String) {
    let metrics = report.scenario.measure.metrics();
    page.push_str("<table>\n<tr><th>side</th>");
    for metric in metrics {
        let _ = write!(page, "<th>{}</th>", escape(metric.title()));
    }
    page.push_str("</tr>\n");
    for side in &report.sides {
        let _ = write!(page, "<tr><td>{}</td>", escape(&side.side.to_string()));
        for &metric in metrics {
            let cell = side.figure(metric).map_or_else(
                || "-".to_owned(),
                |figure| {
                    let ratio = figure.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"));
                    short(figure.median) + &ratio
                },
            );
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn offloads(report: &ScenarioReport, page: &mut String) {
    page.push_str("<details><summary>Offloads of the interfaces</summary>\n<table>\n");
    for side in &report.sides {
        for interface in &side.offloads {
            let on: Vec<&str> =
                interface.offloads.iter().filter(|(_, on)| **on).map(|(name, _)| name.as_str()).collect();
            let on = if on.is_empty() { "none".to_owned() } else { on.join(", ") };
            let place = format!("{} {}", interface.place, interface.interface);
            let side = escape(&side.side.to_string());
            let _ = writeln!(page, "<tr><td>{side}</td><td>{}</td><td>{}</td></tr>", escape(&place), escape(&on));
        }
        if let Some(made_by) = &side.made_by {
            let side = escape(&side.side.to_string());
            let _ = writeln!(page, "<tr><td>{side}</td><td>packets</td><td>{}</td></tr>", escape(made_by));
        }
    }
    page.push_str("</table></details>\n");
}
