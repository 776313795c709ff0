//! The pipeline in memory: the code a worker runs for each batch, between a device that always has frames and
//! devices that throw everything away.

mod measure;
mod report;
mod traffic;
mod world;

use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use podwire_vswitch::limits::{FLOWS_PER_WORKER, FLOWS_PER_WORKER_MAX};
use podwire_vswitch::sys::affinity;
use serde::Serialize;

use crate::format::Format;
use crate::host::Host;
pub(crate) use measure::{Bench, clock_ns};
use report::{Report, ratios};
pub(crate) use traffic::Traffic;

/// Entries `--tables` may ask for: the routes a switch may have, half of each family.
const TABLES_MAX: u64 = podwire_vswitch::limits::ROUTES_MAX as u64 / 2;
/// Flows kept in memory at most: some gigabytes of frames.
const FLOWS_MAX: u64 = 10_000_000;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// Bridged between two pods of the node
    L2,
    /// Routed between two pods of the node
    L3,
    /// Routed to a pod of another node, into VXLAN
    Encap,
    /// The same over IPv6, to prefixes far apart
    Encap6,
    /// Out of VXLAN, routed to a pod of the node
    Decap,
}

/// How to measure it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Seconds for each line of the table, in five rounds
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) scenario: Vec<Scenario>,
    /// Numbers of flows
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000",
          value_parser = clap::value_parser!(u64).range(1..=FLOWS_MAX))]
    pub(crate) flows: Vec<u64>,
    /// Entries to add to the route (each family's) and MAC tables; bridged and encapsulated flows then go to those. Of
    /// several sizes the ratio is shown
    #[arg(long, value_delimiter = ',', default_value = "0",
          value_parser = clap::value_parser!(u64).range(0..=TABLES_MAX))]
    pub(crate) tables: Vec<u64>,
    /// Flows the worker's cache keeps; 0 switches it off
    #[arg(long, default_value_t = FLOWS_PER_WORKER, value_parser = flow_cache)]
    pub(crate) flow_cache: usize,
    /// CPU to run on
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

impl Options {
    /// The scenarios asked for, or all.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.scenario.is_empty() { Scenario::value_variants().to_vec() } else { self.scenario.clone() }
    }
}

fn flow_cache(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(flows) if flows <= FLOWS_PER_WORKER_MAX => Ok(flows),
        _ => Err(format!("give a number of flows up to {FLOWS_PER_WORKER_MAX}")),
    }
}

/// A length of time as a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds, such as 2 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give more than 0 seconds".to_owned()),
    }
}

/// Measures every scenario with every number of flows.
pub(crate) fn run(options: &Options) -> anyhow::Result<Report> {
    if let Some(cpu) = options.cpu {
        affinity::pin_current_thread(cpu).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    let mut lines = Vec::new();
    for scenario in options.scenarios() {
        for &tables in &options.tables {
            for &flows in &options.flows {
                let traffic = traffic::Traffic::new(scenario, usize::try_from(flows)?, usize::try_from(tables)?);
                let mut line = measure::measure(&traffic, options.flow_cache, options.seconds);
                line.tables = tables;
                lines.push(line);
            }
        }
    }
    let ratios = ratios(&lines);
    let flow_cache = options.flow_cache;
    Ok(Report { host: Host::this(), flow_cache, clock_ns: clock_ns(), lines, ratios })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short, and in a debug build: the figures only have to be figures.
    fn short(flows: u64, tables: u64, flow_cache: usize) -> Report {
        let options = Options {
            seconds: Duration::from_millis(10),
            scenario: Vec::new(),
            flows: vec![flows],
            tables: vec![tables],
            flow_cache,
            cpu: None,
            output: Format::Table,
        };
        run(&options).unwrap()
    }

    #[test]
    fn every_scenario_forwards_every_frame_without_allocating() {
        for (flows, tables, cache) in
            [(1, 0, 16), (1_000, 0, 4_096), (1_000, 0, 100), (1_000, 0, 0), (300, 2_000, 1_000)]
        {
            let report = short(flows, tables, cache);
            assert_eq!(report.lines.len(), 5);
            assert_eq!(report.faults(), Vec::<String>::new(), "{flows} flows, {tables} entries more");
            for line in &report.lines {
                assert!(line.frames > 0 && line.forwarded == line.frames, "{line:?}");
                assert!(line.mpps > 0.0 && line.mpps_min <= line.mpps && line.mpps <= line.mpps_max, "{line:?}");
                assert!(line.ns_median > 0.0 && line.ns_median <= line.ns_p99, "{line:?}");
                assert!(line.mpps_with_refill < line.mpps && line.refill_ns > 0.0, "{line:?}");
            }
        }
    }
}
