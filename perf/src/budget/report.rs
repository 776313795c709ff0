//! The budget as a table to read or as JSON to compare, with everything it assumes.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cost::{Cost, Stage, SuperFrame, cost};
use super::need::{LINE_BYTES, NODE_BITS, Need, WIRE_BITS, needs};
use super::{MTUS, VXLAN_GOAL_NS};
use crate::format::Format;
use crate::host::Host;

/// All costs, and what they come to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) flows: u32,
    /// Nanoseconds that reading the clock takes; a time of a batch or of a super-frame holds one.
    pub(crate) clock_ns: f64,
    pub(crate) costs: Vec<Cost>,
    pub(crate) super_frames: Vec<SuperFrame>,
    /// Encap, segment and checksum at 1500, nanoseconds a packet, and what they may be.
    pub(crate) vxlan_ns: f64,
    pub(crate) vxlan_goal_ns: f64,
    pub(crate) needs: Vec<Need>,
    /// What the figures count and what not, in sentences.
    pub(crate) assumptions: Vec<String>,
}

impl Report {
    pub(super) fn new(host: Host, flows: u32, clock_ns: f64, costs: Vec<Cost>, super_frames: Vec<SuperFrame>) -> Self {
        let part = |stage| cost(&costs, stage, MTUS[0]).map_or(0.0, |cost| cost.ns_packet);
        let vxlan_ns = part(Stage::Encap) + part(Stage::Segment) + part(Stage::Checksum);
        let needs = needs(&costs, &super_frames);
        let assumptions = assumptions(flows, &super_frames);
        Self { host, flows, clock_ns, costs, super_frames, vxlan_ns, vxlan_goal_ns: VXLAN_GOAL_NS, needs, assumptions }
    }

    /// One stage's cost.
    pub(crate) fn cost(&self, stage: Stage, mtu: u16) -> Option<&Cost> {
        cost(&self.costs, stage, mtu)
    }

    /// The report as text.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{}} // {error}")),
        }
    }

    /// The goal in a sentence.
    pub(crate) fn verdict(&self) -> String {
        let met = if self.vxlan_ns <= self.vxlan_goal_ns { "met" } else { "missed" };
        format!(
            "user part of VXLAN at 1500 B (encap + segment + checksum): {:.1} ns a packet, wanted at most {} ({met})",
            self.vxlan_ns, self.vxlan_goal_ns
        )
    }

    fn table(&self) -> String {
        let Host { cpu, cores, kernel, release_build, .. } = &self.host;
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}; one core used\n");
        if !release_build {
            text.push_str("this is a debug build: its figures mean nothing\n");
        }
        text.push('\n');
        text.push_str(&self.stages());
        let _ = writeln!(text, "\n{}\n", self.verdict());
        text.push_str(&self.cores());
        for sentence in &self.assumptions {
            let _ = write!(text, "\n* {sentence}");
        }
        let _ = write!(text, "\n* Medians of five rounds. Reading the clock takes {:.0} ns.", self.clock_ns);
        text
    }

    /// A line a stage.
    pub(crate) fn stages(&self) -> String {
        let mut text = format!(
            "{:<34}{:>7}{:>14}{:>10}{:>14}{:>10}\n",
            "stage", "per", "ns at 1500", "ns/byte", "ns at 9000", "ns/byte"
        );
        for stage in Stage::ALL {
            let per = if stage.is_once_a_frame() { "frame" } else { "packet" };
            let _ = write!(text, "{:<34}{per:>7}", stage.title());
            for mtu in MTUS {
                match self.cost(stage, mtu) {
                    Some(cost) => {
                        let _ = write!(text, "{:>14.1}{:>10.4}", cost.ns_packet, cost.ns_byte);
                    }
                    None => {
                        let _ = write!(text, "{:>14}{:>10}", "-", "-");
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    /// A line a rate.
    pub(crate) fn cores(&self) -> String {
        let mut text = format!(
            "{:<38}{:>6}{:>8}{:>21}{:>22}\n",
            "cores of the user part", "MTU", "Mpps", "with super-frames", "packet by packet"
        );
        for need in &self.needs {
            let _ = writeln!(
                text,
                "{:<38}{:>6}{:>8.2}{:>21.2}{:>22.2}",
                need.way.title(),
                need.mtu,
                need.packets_per_second / 1e6,
                need.cores_super_frames,
                need.cores_single
            );
        }
        text
    }
}

fn assumptions(flows: u32, super_frames: &[SuperFrame]) -> Vec<String> {
    let frames = super_frames
        .iter()
        .map(|frame| format!("{} bytes at an MTU of {}, which is {} packets", frame.bytes, frame.mtu, frame.packets));
    vec![
        "Not counted: the kernel's copies, system calls and stacks, the NIC, waking up, and the TCP of the pods, which \
         together cost more than all of this; `podwire-perf run` measures the whole."
            .to_owned(),
        "Everything is in cache, as it is right after a device handed it over, and one core does nothing else; cores are \
         packets a second times nanoseconds, so they assume that workers share the load evenly."
            .to_owned(),
        format!(
            "One direction. Who sends and receives 40 Gb/s at once needs both lines; the TCP acknowledgements of the other \
             direction are not counted. {} Gb/s between nodes are the line's, {LINE_BYTES} bytes of Ethernet framing a packet \
             included; {} Gb/s inside a node are of the pods' IP packets, each counted once, bridged.",
            WIRE_BITS / 1e9,
            NODE_BITS / 1e9
        ),
        format!(
            "MTU is the underlay's; pods have 50 bytes less (VXLAN over IPv4). Super-frames are TCP over IPv4 with \
             timestamps, as long as pods make them: {}. Inside a node they pass whole, with the checksum left to the \
             receiver's device; packet by packet there is one decision for each.",
            frames.collect::<Vec<_>>().join("; ")
        ),
        format!(
            "parse, lookups and send are measured with 64-byte UDP frames of {flows} flows (they read headers only), in batches \
             of 64. Parse is the look at a plain frame, which is all that a known flow needs. A lookup is `pipeline::forward` \
             less that: ingress, guard, MAC table or FIB, rewrites, and all headers where the cache is off. Send is what the \
             transmitter does, into a device that throws away."
        ),
        "segment is `segment::prepare` less the sums: headers a packet. checksum is the sum of a packet's TCP payload. encap \
         is the VXLAN header and the list of spans for one gathering send; the outer IP and UDP headers are the kernel's. \
         coalesce is what `port::Coalescer` does: verify the checksum, copy into the frame, join."
            .to_owned(),
    ]
}

/// A report with ten nanoseconds for everything.
#[cfg(test)]
pub(crate) fn sample() -> Report {
    let host = Host { cpu: "CPU".into(), cores: 2, kernel: "6.1".into(), governor: None, release_build: true };
    let costs = Stage::ALL.iter().flat_map(|&stage| MTUS.map(|mtu| Cost::new(stage, mtu, 10.0, 1_000))).collect();
    let super_frames = MTUS.map(|mtu| SuperFrame { mtu, bytes: 61_578, packets: 10 }).to_vec();
    Report::new(host, 1_000, 20.0, costs, super_frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_a_stage_and_a_line_a_rate_and_says_what_it_assumes() {
        let text = sample().render(Format::Table);
        for stage in Stage::ALL {
            assert!(text.lines().any(|line| line.starts_with(stage.title())), "{stage:?} in {text}");
        }
        assert!(text.contains("30.0 ns a packet, wanted at most 150 (met)"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("40 Gb/s between nodes")).count(), 4);
        assert!(text.contains("Not counted: the kernel's copies") && text.contains("One direction."));
        let widths: Vec<usize> = sample().stages().lines().map(str::len).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{widths:?}");
    }

    #[test]
    fn json_has_every_cost_and_comes_back_as_it_was() {
        let report = sample();
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json)).unwrap();
        assert_eq!(json["costs"][2]["stage"], "l2");
        assert_eq!(json["costs"][2]["mtu"], 1_500);
        assert_eq!(json["needs"][0]["way"], "nodes_send");
        let back: Report = serde_json::from_value(json).unwrap();
        assert_eq!((back.costs, back.assumptions), (report.costs, report.assumptions));
    }
}
