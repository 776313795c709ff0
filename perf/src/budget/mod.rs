//! `podwire-perf budget`: what each stage of the engine costs a packet, in memory, and how many cores that makes at the
//! rates the switch is meant for.
//!
//! The stages are the engine's own (`pipeline`, `segment`, `wire`, `port::Coalescer`). The kernel's part is left out
//! and said to be: `run` measures the whole.

mod cost;
mod need;
mod report;
mod stages;
mod tunnel;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use podwire_vswitch::sys::affinity;

use crate::format::Format;
use crate::host::Host;
use crate::pipeline::{clock_ns, seconds};

pub(crate) use cost::Stage;
pub(crate) use report::Report;
#[cfg(test)]
pub(crate) use report::sample;

/// MTUs of the underlay that are looked at, in bytes.
pub(crate) const MTUS: [u16; 2] = [1_500, 9_000];
/// What encap, segment and checksum together may cost a packet at an MTU of 1500, in nanoseconds.
const VXLAN_GOAL_NS: f64 = 150.0;

/// How to measure it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Seconds for each figure, in five rounds
    #[arg(long, default_value = "0.4", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Flows that frames of the lookup stages belong to
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) flows: u32,
    /// CPU to run on
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: Duration::from_millis(400), flows: 1_000, cpu: None, output: Format::Table }
    }
}

/// Measures every stage.
pub(crate) fn run(options: &Options) -> Result<Report> {
    if let Some(cpu) = options.cpu {
        affinity::pin_current_thread(cpu).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    let mut costs = stages::lookups(options)?;
    let mut packets = Vec::new();
    for mtu in MTUS {
        let mut tunnel = tunnel::Tunnel::new(mtu)?;
        costs.extend(tunnel.costs(options.seconds)?);
        packets.push(tunnel.super_frame());
    }
    Ok(Report::new(Host::this(), options.flows, clock_ns(), costs, packets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_cost_at_both_mtus_and_every_rate_its_cores() {
        let options = Options { seconds: Duration::from_millis(10), flows: 100, ..Options::default() };
        let report = run(&options).unwrap();
        for stage in Stage::ALL {
            for mtu in MTUS {
                let cost = report.cost(stage, mtu).unwrap_or_else(|| panic!("{stage:?} at {mtu}"));
                assert!(cost.ns_packet.is_finite() && cost.ns_packet >= 0.0, "{cost:?}");
            }
        }
        assert!(report.vxlan_ns > 0.0);
        assert_eq!(report.needs.len(), 6);
        assert!(report.needs.iter().all(|need| need.cores_single > 0.0 && need.cores_super_frames > 0.0));
    }
}
