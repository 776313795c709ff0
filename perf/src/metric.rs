//! What a measurement gives: named figures, and for packets a curve of loss.

use serde::{Deserialize, Serialize};

/// Which way a figure is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A kind of figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Payload that arrived, in 10^9 bits a second.
    Gbps,
    /// CPU seconds of the whole machine for 10^9 bytes.
    SystemCpuSPerGb,
    /// CPU seconds of the switch for 10^9 bytes.
    SwitchCpuSPerGb,
    /// Round trips: percentiles in microseconds.
    P50Us,
    P90Us,
    P99Us,
    P999Us,
    MaxUs,
    /// Round trips, or connections, a second.
    PerSecond,
    /// Packets a second that arrived of a flood, in thousands.
    FloodKpps,
    /// Highest rate without loss, in thousands a second.
    NdrKpps,
    /// Highest rate with at most half a percent of loss.
    PdrKpps,
    /// Percent of a flood that the sender's interface refused, that was lost between the interfaces, and that the sink was
    /// too slow for.
    RefusedPercent,
    SwitchLossPercent,
    SinkLossPercent,
    /// Percent of one core that the switch uses.
    CorePercent,
    /// Milliseconds of the first round trip after silence.
    FirstMs,
}

impl Metric {
    /// The name in scenario files and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gbps => "gbps",
            Self::SystemCpuSPerGb => "system_cpu_s_per_gb",
            Self::SwitchCpuSPerGb => "switch_cpu_s_per_gb",
            Self::P50Us => "p50_us",
            Self::P90Us => "p90_us",
            Self::P99Us => "p99_us",
            Self::P999Us => "p999_us",
            Self::MaxUs => "max_us",
            Self::PerSecond => "per_second",
            Self::FloodKpps => "flood_kpps",
            Self::NdrKpps => "ndr_kpps",
            Self::PdrKpps => "pdr_kpps",
            Self::RefusedPercent => "refused_percent",
            Self::SwitchLossPercent => "switch_loss_percent",
            Self::SinkLossPercent => "sink_loss_percent",
            Self::CorePercent => "core_percent",
            Self::FirstMs => "first_ms",
        }
    }

    /// The name for readers, with the unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gbps => "Gb/s",
            Self::SystemCpuSPerGb => "CPU s/GB, system",
            Self::SwitchCpuSPerGb => "CPU s/GB, switch",
            Self::P50Us => "p50 us",
            Self::P90Us => "p90 us",
            Self::P99Us => "p99 us",
            Self::P999Us => "p99.9 us",
            Self::MaxUs => "max us",
            Self::PerSecond => "1/s",
            Self::FloodKpps => "flood kpps",
            Self::NdrKpps => "NDR kpps",
            Self::PdrKpps => "PDR kpps",
            Self::RefusedPercent => "% refused",
            Self::SwitchLossPercent => "% lost in switch",
            Self::SinkLossPercent => "% lost at sink",
            Self::CorePercent => "% of a core",
            Self::FirstMs => "first ms",
        }
    }

    /// Which way it is better.
    pub(crate) fn better(self) -> Better {
        match self {
            Self::Gbps | Self::PerSecond | Self::FloodKpps | Self::NdrKpps | Self::PdrKpps => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// Whether it says more about the moment than about the switch; the gate does not look at such figures.
    pub(crate) fn erratic(self) -> bool {
        matches!(self, Self::P999Us | Self::MaxUs | Self::CorePercent | Self::FirstMs)
            || matches!(self, Self::SystemCpuSPerGb | Self::SwitchCpuSPerGb)
            || matches!(self, Self::RefusedPercent | Self::SwitchLossPercent | Self::SinkLossPercent)
    }
}

/// A rate of packets and what was lost of them.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct LossPoint {
    pub(crate) kpps: f64,
    /// 0 to 1.
    pub(crate) loss: f64,
}

/// What one measurement of one side gave. The first figure is the one the scenario is about.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) figures: Vec<(Metric, f64)>,
    pub(crate) loss_curve: Vec<LossPoint>,
    /// What sent and counted packets, where that is worth saying.
    pub(crate) made_by: Option<String>,
}

impl Sample {
    /// Figures without a curve.
    pub(crate) fn of(figures: &[(Metric, f64)]) -> Self {
        Self { figures: figures.to_vec(), ..Self::default() }
    }
}

/// The middle of the values, or of the two in the middle; none of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn names_are_those_of_the_files() {
        for metric in [Metric::Gbps, Metric::SystemCpuSPerGb, Metric::P999Us, Metric::NdrKpps, Metric::SinkLossPercent]
        {
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{}\"", metric.name()));
        }
    }
}
