//! What trials came to, as text or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::generator::Sent;
use super::tally::Tally;
use crate::format::Format;
use crate::host::Host;
use crate::metric::LossPoint;
use crate::report::short;
use crate::scenario::PacketSize;
use crate::search::Found;

/// Bytes of Ethernet's line beside a frame: preamble 8, gap 12 (IEEE 802.3).
const GAP_BYTES: f64 = 20.0;

/// How frames were sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Sending {
    /// Of AF_XDP.
    pub(crate) mode: String,
    pub(crate) queues: usize,
    /// Why it is not zero-copy, when that was tried.
    pub(crate) fallback: Option<String>,
}

/// How they were received.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Receiving {
    pub(crate) kind: String,
    pub(crate) threads: usize,
    /// Why it is not AF_XDP, when that was tried.
    pub(crate) fallback: Option<String>,
}

impl Sending {
    pub(crate) fn describe(&self) -> String {
        format!("by AF_XDP in {} mode, queues: {}", self.mode, self.queues)
    }
}

impl Receiving {
    pub(crate) fn describe(&self) -> String {
        format!("by {}, threads: {}", self.kind, self.threads)
    }
}

/// Percentiles of latency in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Frames that were lost, and not by what lies between the interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Apart {
    pub(super) refused: u64,
    pub(super) sink: u64,
}

/// One trial.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Frames a second that were asked for; none for a flood.
    pub(crate) rate: Option<f64>,
    /// It was sent for.
    pub(crate) seconds: f64,
    /// None when another machine sends.
    pub(crate) sent: Option<u64>,
    pub(crate) sent_mpps: f64,
    /// Of the line: preamble and gap counted.
    pub(crate) sent_gbps: f64,
    /// Each frame counted once.
    pub(crate) received: u64,
    pub(crate) received_mpps: f64,
    pub(crate) received_gbps: f64,
    /// Sent and not received; when another machine sends, of the numbers that must have been sent.
    pub(crate) lost: u64,
    pub(crate) loss_percent: f64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// Frames of others that came in.
    pub(crate) foreign: u64,
    /// Frames that the sending interface refused; they are among the lost.
    pub(crate) refused: u64,
    /// Frames that arrived and that the sink was too slow for; they are among the lost.
    pub(crate) sink_drops: u64,
    /// When both interfaces are of one machine, whose clock is one.
    pub(crate) latency: Option<Latency>,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Outcome {
    /// Of what was sent, when we did, and what was seen, when we looked.
    pub(super) fn new(
        rate: Option<f64>,
        time: Duration,
        sent: Option<Sent>,
        seen: Option<&Tally>,
        apart: Apart,
    ) -> Self {
        let span_ns = seen.and_then(|seen| seen.span_ns).map_or(0, |(first, last)| last - first);
        let sent_ns = sent.map_or(span_ns, |sent| sent.took_ns).max(1) as f64;
        // What long queues hand over after the end is no higher rate.
        let seen_ns = sent_ns.max(span_ns as f64);
        let line_bits = |frames: u64, bytes: u64| GAP_BYTES.mul_add(frames as f64, bytes as f64) * 8.0;
        let (received, bytes) = seen.map_or((0, 0), |seen| (seen.received, seen.bytes));
        let wanted = match (sent, seen) {
            // Nobody looked.
            (_, None) => 0,
            (Some(sent), Some(_)) => sent.frames,
            (None, Some(seen)) => seen.sent_at_least(),
        };
        let lost = wanted.saturating_sub(received);
        let latency = seen.filter(|seen| sent.is_some() && seen.received > 0).map(|seen| {
            let us = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1e3;
            let (min_us, max_us) = (seen.latency.min() as f64 / 1e3, seen.latency.max() as f64 / 1e3);
            Latency { min_us, p50_us: us(0.5), p90_us: us(0.9), p99_us: us(0.99), max_us }
        });
        Self {
            rate,
            seconds: time.as_secs_f64(),
            sent: sent.map(|sent| sent.frames),
            sent_mpps: sent.map_or(0.0, |sent| sent.frames as f64 * 1e3 / sent_ns),
            sent_gbps: sent.map_or(0.0, |sent| line_bits(sent.frames, sent.bytes) / sent_ns),
            received,
            received_mpps: received as f64 * 1e3 / seen_ns,
            received_gbps: line_bits(received, bytes) / seen_ns,
            lost,
            loss_percent: 100.0 * lost as f64 / wanted.max(1) as f64,
            duplicates: seen.map_or(0, |seen| seen.duplicates),
            reordered: seen.map_or(0, |seen| seen.reordered),
            foreign: seen.map_or(0, |seen| seen.foreign),
            // What else it refused, such as the kernel's own frames, is not told from ours.
            refused: apart.refused.min(sent.map_or(0, |sent| sent.frames)),
            sink_drops: apart.sink,
            latency,
        }
    }

    pub(crate) fn sent_pps(&self) -> f64 {
        1e6 * self.sent_mpps
    }

    pub(crate) fn received_pps(&self) -> f64 {
        1e6 * self.received_mpps
    }

    /// Frames a second that should have been sent.
    pub(super) fn wanted_pps(&self) -> f64 {
        self.rate.unwrap_or_else(|| self.sent_pps())
    }

    /// The part that is missing of what should have been sent, 0 to 1.
    pub(crate) fn loss_of_wanted(&self) -> f64 {
        let wanted = self.rate.map_or(self.sent.unwrap_or(0) as f64, |rate| (rate * self.seconds).round());
        (1.0 - self.received as f64 / wanted.max(1.0)).max(0.0)
    }

    /// Frames lost between the interfaces: neither refused by the one nor dropped for a sink that was too slow.
    pub(crate) fn lost_between(&self) -> u64 {
        self.lost.saturating_sub(self.refused + self.sink_drops)
    }

    fn table(&self, text: &mut String) {
        if let Some(sent) = self.sent {
            let asked = self.rate.map_or_else(|| "a flood".to_owned(), |rate| format!("{rate} a second"));
            let _ = writeln!(
                text,
                "sent      {sent} frames ({asked}), {:.3} Mpps, {:.3} Gb/s of the line",
                self.sent_mpps, self.sent_gbps
            );
        }
        let _ = writeln!(
            text,
            "received  {} frames, {:.3} Mpps, {:.3} Gb/s of the line; {} of others",
            self.received, self.received_mpps, self.received_gbps, self.foreign
        );
        let _ = writeln!(
            text,
            "lost      {} ({:.4} %), of which refused by the sending interface {}, the sink itself {}; doubled {}, out of \
             order {}",
            self.lost, self.loss_percent, self.refused, self.sink_drops, self.duplicates, self.reordered
        );
        if let Some(Latency { min_us, p50_us, p90_us, p99_us, max_us }) = self.latency {
            let [min, p50, p90, p99, max] = [min_us, p50_us, p90_us, p99_us, max_us].map(short);
            let _ = writeln!(text, "latency   min {min}, p50 {p50}, p90 {p90}, p99 {p99}, max {max} us");
        }
    }
}

/// What a search found, in frames a second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Rates {
    /// Highest without loss.
    pub(crate) ndr_pps: f64,
    /// Highest with at most half a percent.
    pub(crate) pdr_pps: f64,
    /// Whether they were verified; not when the trials ran out.
    pub(crate) verified: bool,
    pub(crate) loss_curve: Vec<LossPoint>,
}

impl Rates {
    pub(super) fn new(ndr: Found, pdr: Found, loss_curve: Vec<LossPoint>) -> Self {
        Self { ndr_pps: ndr.rate, pdr_pps: pdr.rate, verified: ndr.verified && pdr.verified, loss_curve }
    }
}

/// Everything that was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) tx_if: Option<String>,
    pub(crate) rx_if: Option<String>,
    pub(crate) sending: Option<Sending>,
    pub(crate) receiving: Option<Receiving>,
    pub(crate) size: PacketSize,
    pub(crate) flows: u16,
    pub(crate) trials: Vec<Outcome>,
    pub(crate) search: Option<Rates>,
}

impl Report {
    /// Of trials that are still to be made.
    pub(super) fn new(
        host: Host,
        options: &Options,
        (sending, receiving): (Option<Sending>, Option<Receiving>),
    ) -> Self {
        Self {
            host,
            tx_if: options.tx_if.clone(),
            rx_if: options.rx_if.clone(),
            sending,
            receiving,
            size: options.size,
            flows: options.flows,
            trials: Vec::new(),
            search: None,
        }
    }

    /// The report as text.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{}} // {error}")),
        }
    }

    fn table(&self) -> String {
        let Host { cpu, cores, kernel, release_build, .. } = &self.host;
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}\n");
        if !release_build {
            text.push_str("this is a debug build: its figures mean nothing\n");
        }
        let _ = write!(text, "{}; flows: {}", self.size, self.flows);
        if let (Some(device), Some(sending)) = (&self.tx_if, &self.sending) {
            let _ = write!(text, "; from {device} {}", sending.describe());
        }
        if let (Some(device), Some(receiving)) = (&self.rx_if, &self.receiving) {
            let _ = write!(text, "; to {device} {}", receiving.describe());
        }
        text.push('\n');
        let sending = self.sending.as_ref().and_then(|sending| sending.fallback.as_ref());
        let receiving = self.receiving.as_ref().and_then(|receiving| receiving.fallback.as_ref());
        for (what, why) in [("not sent in zero-copy mode", sending), ("not received by AF_XDP", receiving)] {
            if let Some(why) = why {
                let _ = writeln!(text, "{what}: {why}");
            }
        }
        text.push('\n');
        match &self.search {
            None => self.trials.iter().for_each(|trial| trial.table(&mut text)),
            Some(rates) => {
                self.trials.iter().take(1).for_each(|flood| flood.table(&mut text));
                let unverified = if rates.verified { "" } else { "; not verified: the trials ran out" };
                let _ = writeln!(
                    text,
                    "NDR       {:.3} Mpps\nPDR       {:.3} Mpps ({} trials{unverified})",
                    rates.ndr_pps / 1e6,
                    rates.pdr_pps / 1e6,
                    self.trials.len()
                );
            }
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Mark;
    use super::*;

    fn tally(numbers: std::ops::Range<u64>) -> Tally {
        let mut tally = Tally::new(Some(1));
        for number in numbers {
            tally.see(&Mark { trial: 1, flow: 0, number, unix_ns: 1_000 * number }, 60, 1_000 * number + 5_000);
        }
        tally
    }

    const SENT: Sent = Sent { frames: 100, bytes: 6_400, took_ns: 100_000 };

    #[test]
    fn what_is_lost_is_of_what_was_sent_and_rates_are_the_lines() {
        let outcome = Outcome::new(
            Some(1e6),
            Duration::from_micros(100),
            Some(SENT),
            Some(&tally(0..90)),
            Apart { refused: 2, sink: 3 },
        );
        assert_eq!((outcome.received, outcome.lost, outcome.refused, outcome.sink_drops), (90, 10, 2, 3));
        assert_eq!(outcome.lost_between(), 5);
        assert!((outcome.loss_percent - 10.0).abs() < 1e-9 && (outcome.sent_mpps - 1.0).abs() < 1e-9, "{outcome:?}");
        // 84 bytes a frame of 64.
        assert!((outcome.sent_gbps - 0.672).abs() < 1e-9, "{outcome:?}");
        assert!((outcome.loss_of_wanted() - 0.1).abs() < 1e-9);
        assert!((outcome.latency.unwrap().p50_us - 5.0).abs() < 0.01, "{outcome:?}");
    }

    #[test]
    fn what_queues_hand_over_after_the_end_makes_no_higher_rate() {
        // 90 frames at intervals of a microsecond, all sent in 10.
        let sent = Sent { took_ns: 10_000, ..SENT };
        let outcome = Outcome::new(None, Duration::from_micros(10), Some(sent), Some(&tally(0..90)), Apart::default());
        assert!((outcome.sent_mpps - 10.0).abs() < 1e-9, "{outcome:?}");
        assert!((outcome.received_mpps - 90.0 / 89.0).abs() < 1e-9, "{outcome:?}");
    }

    #[test]
    fn frames_of_another_machine_are_missed_by_their_numbers_and_have_no_latency() {
        let outcome = Outcome::new(None, Duration::from_secs(1), None, Some(&tally(10..100)), Apart::default());
        assert_eq!((outcome.sent, outcome.received, outcome.lost, outcome.latency), (None, 90, 10, None));
    }

    #[test]
    fn when_nobody_looks_nothing_is_lost() {
        let refused = Apart { refused: 101, sink: 0 };
        let outcome = Outcome::new(None, Duration::from_secs(1), Some(SENT), None, refused);
        assert_eq!((outcome.sent, outcome.received, outcome.lost), (Some(100), 0, 0));
        assert_eq!(outcome.refused, 100, "no more than were sent");
    }
}
