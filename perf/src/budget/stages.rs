//! The stages that read headers only: parse, the lookups, and the rest of a pass. Frames come from the same traffic as
//! those of `podwire-perf pipeline`.

use std::time::Duration;

use anyhow::{Result, ensure};
use podwire_vswitch::limits::FLOWS_PER_WORKER;
use podwire_vswitch::sys::clock::mono_now;

use super::cost::{Cost, Stage, float};
use super::{MTUS, Options};
use crate::metric::median;
use crate::pipeline::{Bench, Scenario, Traffic};

/// Rounds of which the median counts.
const ROUNDS: u32 = 5;
/// Part of the time that is spent on warming up.
const WARM_UP: u32 = 5;

/// Nanoseconds a packet of each of `N` parts: the medians of rounds that together take `length`. `unit` does some packets
/// and says how many, and what each part took.
pub(super) fn rounds<const N: usize>(length: Duration, mut unit: impl FnMut() -> (u64, [u64; N])) -> [f64; N] {
    let mut round = |length: Duration| {
        let end = mono_now().0 + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        let (mut packets, mut took) = (0, [0; N]);
        while packets == 0 || mono_now().0 < end {
            let (done, parts) = unit();
            packets += done;
            took.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        took.map(|ns| float(ns) / float(packets.max(1)))
    };
    round(length / WARM_UP);
    let rounds: Vec<[f64; N]> = (0..ROUNDS).map(|_| round(length / ROUNDS)).collect();
    std::array::from_fn(|part| {
        let values: Vec<f64> = rounds.iter().map(|round| round[part]).collect();
        median(&values).unwrap_or_default()
    })
}

/// What a frame costs whatever its length. A lookup is `forward` less `parse`, which is a part of it.
pub(super) fn lookups(options: &Options) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for (stage, scenario, cache) in [
        (Stage::L2, Scenario::L2, FLOWS_PER_WORKER),
        (Stage::L3, Scenario::L3, FLOWS_PER_WORKER),
        (Stage::L3Uncached, Scenario::L3, 0),
        (Stage::Tunnel, Scenario::Encap, FLOWS_PER_WORKER),
        (Stage::Detunnel, Scenario::Decap, FLOWS_PER_WORKER),
    ] {
        let traffic = Traffic::new(scenario, usize::try_from(options.flows)?, 0);
        let mut bench = Bench::new(&traffic, cache);
        let mut frames = 0;
        let [parse, forward, send] = rounds(options.seconds, || {
            let parts = bench.parts();
            frames += parts.frames;
            (parts.frames, [parts.parse_ns, parts.forward_ns, parts.send_ns])
        });
        let forwarded = bench.forwarded();
        ensure!(forwarded == frames, "{}: {forwarded} of {frames} frames were forwarded", stage.title());
        let mut add = |stage, ns| costs.extend(MTUS.map(|mtu| Cost::new(stage, mtu, ns, u32::from(mtu))));
        if stage == Stage::L3 {
            add(Stage::Parse, parse);
            add(Stage::Send, send);
        }
        add(stage, (forward - parse).max(0.0));
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_gives_the_time_of_each_part_a_packet() {
        let [one, two] = rounds(Duration::from_micros(50), || (4, [40, 100]));
        assert!((one - 10.0).abs() < 1e-9 && (two - 25.0).abs() < 1e-9, "{one} {two}");
    }
}
