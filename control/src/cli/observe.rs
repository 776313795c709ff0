//! The verbs that watch frames and events: stats, drops, trace, events and limits.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Failure;
use super::args::Trace;
use super::output::{Output, list, pairs, rows, table};
use super::tables::counters_json;
use crate::client::Client;
use crate::model::{Counter, CounterReport, DropReport, Event, ExplainQuery, Explanation};

/// Prints all counters, once or every `seconds` with the rates between.
pub(super) async fn stats(client: &Client, output: &mut Output<'_>, seconds: Option<u64>) -> Result<(), Failure> {
    let first = client.counters().await?;
    let Some(seconds) = seconds else {
        return output.answer(&counters_report_json(&first), || counters_text(&first, None));
    };
    output.one_of_many(&counters_report_json(&first), || counters_text(&first, None))?;
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is at once
    let (mut before, mut read_at) = (first, Instant::now());
    loop {
        ticks.tick().await;
        let now = client.counters().await?;
        let elapsed_s = read_at.elapsed().as_secs_f64();
        read_at = Instant::now();
        output.one_of_many(&counters_report_json(&now), || {
            format!("\n{}", counters_text(&now, Some((&before, elapsed_s))))
        })?;
        before = now;
    }
}

fn counters_report_json(report: &CounterReport) -> Value {
    let map = |counters: &[Counter]| -> Map<String, Value> {
        counters.iter().map(|counter| (counter.name.clone(), counter.count.into())).collect()
    };
    let workers = report.workers.iter().map(|row| json!({"id": row.id, "counters": map(&row.counters)}));
    let ports = report.ports.iter().map(|row| json!({"port": row.port, "counters": counters_json(&row.counters)}));
    json!({
        "totals": map(&report.totals),
        "workers": workers.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

/// The counters that are not zero; with the counters before and the seconds since, the rates too.
fn counters_text(report: &CounterReport, since: Option<(&CounterReport, f64)>) -> String {
    let before: HashMap<&str, u64> = since
        .map(|(before, _)| before.totals.iter().map(|counter| (counter.name.as_str(), counter.count)).collect())
        .unwrap_or_default();
    let rate = |counter: &Counter, elapsed_s: f64| {
        let new = counter.count.saturating_sub(before.get(counter.name.as_str()).copied().unwrap_or(0));
        format!("{:.0}", new as f64 / elapsed_s)
    };
    let titles: Vec<String> = report.workers.iter().map(|row| format!("WORKER_{}", row.id)).collect();
    let mut header = vec!["OUTCOME", "FRAMES"];
    header.extend(titles.iter().map(String::as_str));
    if since.is_some() {
        header.push("A_SECOND");
    }
    let shown = report.totals.iter().filter(|counter| counter.count > 0);
    let outcomes: Vec<Vec<String>> = shown
        .map(|counter| {
            let mut row = vec![counter.name.clone(), counter.count.to_string()];
            row.extend(report.workers.iter().map(|worker| count_of(&worker.counters, &counter.name).to_string()));
            row.extend(since.map(|(_, elapsed_s)| rate(counter, elapsed_s)));
            row
        })
        .collect();
    let ports: Vec<Vec<String>> = report
        .ports
        .iter()
        .map(|row| {
            let count = &row.counters;
            let numbers = [
                count.rx_frames,
                count.rx_segments,
                count.rx_bytes,
                count.rx_drops,
                count.tx_frames,
                count.tx_segments,
                count.tx_bytes,
                count.tx_drops,
            ];
            std::iter::once(row.port.clone()).chain(numbers.iter().map(ToString::to_string)).collect()
        })
        .collect();
    let ports = table(&PORT_COUNTER_HEADER, &ports);
    format!("{}\n{ports}", table(&header, &outcomes))
}

const PORT_COUNTER_HEADER: [&str; 9] =
    ["PORT", "RX_FRAMES", "RX_SEGMENTS", "RX_BYTES", "RX_DROPS", "TX_FRAMES", "TX_SEGMENTS", "TX_BYTES", "TX_DROPS"];

fn count_of(counters: &[Counter], name: &str) -> u64 {
    counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.count)
}

/// Prints drop reasons; those that dropped nothing only when `all`.
pub(super) async fn drops(client: &Client, output: &mut Output<'_>, all: bool) -> Result<(), Failure> {
    let mut reports = client.drops().await?;
    reports.retain(|report| all || report.frames > 0);
    rows(output, &["REASON", "FRAMES", "PORTS", "MEANING"], &reports, drop_json, |report| {
        let ports = report.ports.iter().map(|port| format!("{}:{}", port.port, port.frames)).collect::<Vec<_>>();
        let ports = list(&ports);
        vec![report.reason.clone(), report.frames.to_string(), ports, report.meaning.clone()]
    })
}

fn drop_json(report: &DropReport) -> Value {
    let ports = report.ports.iter().map(|port| json!({"port": port.port, "frames": port.frames}));
    json!({
        "reason": report.reason,
        "meaning": report.meaning,
        "frames": report.frames,
        "ports": ports.collect::<Vec<_>>(),
    })
}

impl Trace {
    fn query(&self) -> ExplainQuery {
        ExplainQuery {
            in_port: self.in_port.clone(),
            src: self.src,
            dst: self.dst,
            proto: self.proto.into(),
            sport: self.sport,
            dport: self.dport,
            size: self.size,
            src_mac: self.src_mac,
            dst_mac: self.dst_mac,
        }
    }
}

/// Prints the walk of a made-up frame.
pub(super) async fn trace(client: &Client, output: &mut Output<'_>, trace: &Trace) -> Result<(), Failure> {
    let explanation = client.explain(&trace.query()).await?;
    let steps = explanation.steps.iter().map(|step| json!({"stage": step.stage, "text": step.text}));
    let json = json!({
        "steps": steps.collect::<Vec<_>>(),
        "verdict": explanation.verdict,
        "egress": explanation.egress,
    });
    output.answer(&json, || trace_text(&explanation))
}

fn trace_text(explanation: &Explanation) -> String {
    let mut lines: Vec<(&str, String)> =
        explanation.steps.iter().map(|step| (step.stage.as_str(), step.text.clone())).collect();
    lines.push(("verdict", explanation.verdict.clone()));
    if !explanation.egress.is_empty() {
        lines.push(("egress", explanation.egress.clone()));
    }
    pairs(&lines)
}

/// Prints events until the daemon stops.
pub(super) async fn events(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut events = client.events().await?;
    while let Some(event) = events.next().await? {
        let json = json!({
            "time_ms": event.time_ms,
            "kind": event.kind.name(),
            "object": event.object,
            "text": event.text,
        });
        output.one_of_many(&json, || event_text(&event))?;
    }
    Ok(())
}

fn event_text(event: &Event) -> String {
    let Event { time_ms, kind, object, text } = event;
    let (seconds, ms) = (time_ms / 1000, time_ms % 1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{ms:03}Z  {:<20}  {object}: {text}\n", kind.name())
}

/// Prints every fixed limit.
pub(super) async fn limits(client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    let json = |limit: &crate::model::Limit| json!({"name": limit.name, "value": limit.value, "unit": limit.unit});
    rows(output, &["LIMIT", "VALUE", "UNIT"], &client.limits().await?, json, |limit| {
        vec![limit.name.clone(), limit.value.to_string(), limit.unit.clone()]
    })
}
