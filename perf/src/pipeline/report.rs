//! What was measured, as a table to read or as JSON to compare.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::format::Format;
use crate::host::Host;
use crate::pipeline::Scenario;

/// One scenario with one number of flows.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) scenario: Scenario,
    pub(crate) flows: usize,
    /// Entries added to the tables.
    pub(crate) tables: u64,
    /// Frames in all rounds.
    pub(crate) frames: u64,
    /// Those of them that were forwarded, as all should.
    pub(crate) forwarded: u64,
    /// Million frames a second: the median round, the slowest and the fastest.
    pub(crate) mpps: f64,
    pub(crate) mpps_min: f64,
    pub(crate) mpps_max: f64,
    /// Nanoseconds a frame, of batches: half of them took less, and all but one in a hundred.
    pub(crate) ns_median: f64,
    pub(crate) ns_p99: f64,
    /// Nanoseconds a frame that filling the batch took, which the figures above leave out.
    pub(crate) refill_ns: f64,
    pub(crate) mpps_with_refill: f64,
    /// Allocations in all rounds.
    pub(crate) allocations: u64,
}

impl Line {
    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    fn allocations_a_frame(&self) -> f64 {
        self.allocations as f64 / self.frames.max(1) as f64
    }

    /// The scenario's name on the command line.
    fn name(&self) -> String {
        self.scenario.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// All lines, and on what they were measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    /// Flows the worker's cache keeps.
    pub(crate) flow_cache: usize,
    /// Nanoseconds that reading the clock takes.
    pub(crate) clock_ns: f64,
    pub(crate) lines: Vec<Line>,
    pub(crate) ratios: Vec<Ratio>,
}

/// How much dearer the median frame is with more of something.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Ratio {
    /// What was compared, in words.
    pub(crate) what: String,
    pub(crate) ratio: f64,
}

/// The cost of the most flows, and of the largest tables, to that of the fewest and smallest that were measured.
pub(crate) fn ratios(lines: &[Line]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for line in lines {
        let of_scenario = || lines.iter().filter(|other| other.scenario == line.scenario);
        let fewest = of_scenario().filter(|other| other.tables == line.tables).min_by_key(|other| other.flows);
        let most = of_scenario().filter(|other| other.tables == line.tables).max_by_key(|other| other.flows);
        if let (Some(few), true) = (fewest, most == Some(line))
            && few.flows < line.flows
        {
            let what = format!("{}: {} flows to {}, {} table entries", line.name(), line.flows, few.flows, line.tables);
            ratios.push(Ratio { what, ratio: line.ns_median / few.ns_median });
        }
        let smallest = of_scenario().filter(|other| other.flows == line.flows).min_by_key(|other| other.tables);
        let largest = of_scenario().filter(|other| other.flows == line.flows).max_by_key(|other| other.tables);
        if let (Some(small), true) = (smallest, largest == Some(line))
            && small.tables < line.tables
        {
            let what =
                format!("{}: {} table entries to {}, {} flows", line.name(), line.tables, small.tables, line.flows);
            ratios.push(Ratio { what, ratio: line.ns_median / small.ns_median });
        }
    }
    ratios
}

impl Report {
    /// The report as text.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{}} // {error}")),
        }
    }

    /// What must not be: frames that were not forwarded, and allocations.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for line in &self.lines {
            let what = format!("{} with {} flows", line.name(), line.flows);
            if line.allocations > 0 {
                faults.push(format!("{what}: {} allocations in {} frames", line.allocations, line.frames));
            }
            if line.forwarded < line.frames {
                faults.push(format!("{what}: {} of {} frames were forwarded", line.forwarded, line.frames));
            }
        }
        faults
    }

    fn table(&self) -> String {
        let Host { cpu, cores, kernel, release_build, .. } = &self.host;
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}; one core used\n");
        if !release_build {
            text.push_str("this is a debug build: its figures mean nothing\n");
        }
        let _ = writeln!(
            text,
            "64-byte frames (FCS not counted), UDP, shuffled; 250 pods, 100 remote nodes; flow cache {}\n",
            if self.flow_cache == 0 { "off".to_owned() } else { format!("of {} flows", self.flow_cache) }
        );
        let _ = writeln!(
            text,
            "{:<9}{:>8}{:>8}{:>8}{:>16}{:>11}{:>8}{:>14}{:>11}{:>13}",
            "scenario",
            "tables",
            "flows",
            "Mpps",
            "(min to max)",
            "ns/frame",
            "p99",
            "allocs/frame",
            "refill ns",
            "Mpps with it"
        );
        for line in &self.lines {
            let range = format!("{:.2} to {:.2}", line.mpps_min, line.mpps_max);
            let _ = writeln!(
                text,
                "{:<9}{:>8}{:>8}{:>8.2}{:>16}{:>11.1}{:>8.1}{:>14.3}{:>11.1}{:>13.2}",
                line.name(),
                line.tables,
                line.flows,
                line.mpps,
                range,
                line.ns_median,
                line.ns_p99,
                line.allocations_a_frame(),
                line.refill_ns,
                line.mpps_with_refill
            );
        }
        for Ratio { what, ratio } in &self.ratios {
            let _ = writeln!(text, "{}{what}: {ratio:.2}", if what == &self.ratios[0].what { "\n" } else { "" });
        }
        let _ = write!(
            text,
            "\nMpps: the median of five rounds. Timed: parse, decide, fit to the egress, send into nothing, count, give\n\
             back. Not timed but shown: refill, which copies each frame in from memory and stands for a device. Times\n\
             are of batches of 64 and hold a reading of the clock of {:.0} ns.",
            self.clock_ns
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(allocations: u64, forwarded: u64) -> Report {
        let host = Host { cpu: "CPU".into(), cores: 2, kernel: "6.1".into(), governor: None, release_build: true };
        let line = Line {
            scenario: Scenario::Encap,
            flows: 1_000,
            tables: 0,
            frames: 640,
            forwarded,
            mpps: 12.345,
            mpps_min: 11.0,
            mpps_max: 13.0,
            ns_median: 81.0,
            ns_p99: 99.5,
            refill_ns: 20.0,
            mpps_with_refill: 9.9,
            allocations,
        };
        Report { host, flow_cache: 0, clock_ns: 20.0, lines: vec![line], ratios: Vec::new() }
    }

    #[test]
    fn the_table_has_a_line_a_measurement_in_aligned_columns() {
        let text = report(0, 640).render(Format::Table);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("scenario")).unwrap();
        let words: Vec<&str> = lines[at + 1].split_whitespace().collect();
        assert_eq!(
            words,
            ["encap", "0", "1000", "12.35", "11.00", "to", "13.00", "81.0", "99.5", "0.000", "20.0", "9.90"]
        );
        assert_eq!(lines[at].len(), lines[at + 1].len());
    }

    #[test]
    fn json_has_the_same_figures_under_their_names() {
        let json: serde_json::Value = serde_json::from_str(&report(0, 640).render(Format::Json)).unwrap();
        assert_eq!(json["lines"][0]["scenario"], "encap");
        assert_eq!(json["lines"][0]["mpps"], 12.345);
        assert_eq!(json["lines"][0]["allocations"], 0);
        assert_eq!(json["host"]["cores"], 2);
    }

    #[test]
    fn an_allocation_and_a_frame_that_was_not_forwarded_are_faults() {
        assert!(report(0, 640).faults().is_empty());
        assert_eq!(report(3, 640).faults(), ["encap with 1000 flows: 3 allocations in 640 frames"]);
        assert_eq!(report(0, 639).faults(), ["encap with 1000 flows: 639 of 640 frames were forwarded"]);
    }

    #[test]
    fn the_most_and_the_largest_are_compared_with_the_fewest_and_the_smallest() {
        let base = report(0, 640).lines.remove(0);
        let line = |flows, tables, ns_median| Line { flows, tables, ns_median, ..base.clone() };
        let found = ratios(&[line(1, 0, 10.0), line(9, 0, 12.0), line(100, 0, 20.0), line(1, 50, 13.0)]);
        let found: Vec<(&str, f64)> = found.iter().map(|ratio| (ratio.what.as_str(), ratio.ratio)).collect();
        assert_eq!(
            found,
            [("encap: 100 flows to 1, 0 table entries", 2.0), ("encap: 50 table entries to 0, 1 flows", 1.3)]
        );
    }
}
