//! UDP packets of one size or a mix of sizes: a flood, or paced at a rate, and a sink that counts them.

mod frames;
mod sockets;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Span;
use crate::metric::{LossPoint, Metric, Sample};
use crate::scenario::{Generator, PacketSize};
use crate::search::{Search, Trial, ndr_and_pdr};
use crate::side::Path;

const SEARCH_WIDTH: f64 = 0.05;

/// Which packets, made by what, and what is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) size: PacketSize,
    pub(super) by: Generator,
    /// The highest rates with none and with little loss, and not only what is received of a flood.
    pub(super) search: bool,
}

/// Floods, and searches if that is wanted.
pub(super) fn measure(path: &Path<'_>, load: Load, span: Span) -> Result<Sample> {
    let (mut sockets, mut frames);
    let (offer, made_by): (&mut dyn Offer, Option<String>) = match load.by {
        Generator::UdpSockets => {
            sockets = sockets::Pair::open(path, load.size)?;
            (&mut sockets, None)
        }
        Generator::AfXdp | Generator::AfXdpToAfPacket => {
            frames = frames::open(path, load.size, load.by)?;
            let described = frames::describe(&frames);
            (&mut frames, described)
        }
    };
    offer.offer(None, span.warm_up)?;
    let flood = offer.offer(None, span.time)?;
    ensure!(flood.received_pps > 0.0, "no packet arrived from {} at {}", path.from.name(), path.to.name());
    let mut sample = Sample { made_by, ..Sample::of(&[(Metric::FloodKpps, flood.received_pps / 1e3)]) };
    if let Some(lost) = flood.lost {
        sample.figures.extend(lost.figures());
    }
    if load.search {
        find_rates(offer, &flood, span.time, &mut sample)?;
    }
    Ok(sample)
}

fn find_rates(offer: &mut dyn Offer, flood: &Offered, time: Duration, sample: &mut Sample) -> Result<()> {
    let rate_max = flood.sent_pps;
    let how = Search { rate_max, rate_min: rate_max / 1e3, width: SEARCH_WIDTH, trials_max: 30, verifications: 3 };
    let mut curve = vec![LossPoint { kpps: rate_max / 1e3, loss: flood.loss }];
    let mut trial = |trial: Trial| {
        let loss = offer.offer(Some(trial.rate), time.mul_f64(trial.length))?.loss;
        curve.push(LossPoint { kpps: trial.rate / 1e3, loss });
        Ok(loss)
    };
    let (ndr, pdr) = ndr_and_pdr(&how, flood.received_pps, &mut trial)?;
    curve.sort_by(|a, b| a.kpps.total_cmp(&b.kpps));
    sample.figures.splice(0..0, [(Metric::NdrKpps, ndr.rate / 1e3), (Metric::PdrKpps, pdr.rate / 1e3)]);
    sample.loss_curve = curve;
    Ok(())
}

/// Who sends in one pod and counts in the other.
trait Offer {
    /// Offers packets for a while, at a rate or as many as go.
    fn offer(&mut self, rate: Option<f64>, time: Duration) -> Result<Offered>;
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Offered {
    sent_pps: f64,
    received_pps: f64,
    /// Of what should have been sent, 0 to 1: a sender that the switch holds up is not the better for it.
    loss: f64,
    /// Where, if that can be told.
    lost: Option<Lost>,
}

/// Where packets were lost, each as a part of those sent, 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Lost {
    /// Refused by the sender's interface.
    refused: f64,
    switch: f64,
    /// The sink was too slow.
    sink: f64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Offered {
    /// Of packets wanted, if some number was, sent and received.
    fn of_counts(wanted: Option<f64>, sent: u64, received: u64, took_ns: u64) -> Self {
        let pps = |packets: u64| packets as f64 * 1e9 / took_ns as f64;
        let wanted = wanted.unwrap_or(sent as f64);
        let loss = (1.0 - received as f64 / wanted.max(1.0)).max(0.0);
        Self { sent_pps: pps(sent), received_pps: pps(received), loss, lost: None }
    }
}

impl Lost {
    fn figures(self) -> [(Metric, f64); 3] {
        [
            (Metric::RefusedPercent, 100.0 * self.refused),
            (Metric::SwitchLossPercent, 100.0 * self.switch),
            (Metric::SinkLossPercent, 100.0 * self.sink),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_of_what_should_have_been_sent() {
        let offered = Offered::of_counts(Some(100.0), 90, 80, 1_000_000_000);
        assert!((offered.loss - 0.2).abs() < 1e-9);
        assert!((offered.received_pps - 80.0).abs() < 1e-9 && (offered.sent_pps - 90.0).abs() < 1e-9);
        assert!((Offered::of_counts(None, 90, 81, 1).loss - 0.1).abs() < 1e-9, "of a flood, what was sent");
    }
}
