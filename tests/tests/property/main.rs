//! The engine against a slow, obvious switch: random topologies, random frames, and the laws of compiling.
//!
//! A failure prints the seed and the smallest case found. `PROPTEST_RNG_SEED=n` repeats a run, `PROPTEST_CASES=n`
//! lengthens it.

mod build;
mod flow_cache;
mod frames;
mod laws;
mod topology;

use std::collections::BTreeMap;
use std::time::Duration;

use podwire_tests::reference::{Arrival, Expected, Reference, Sent};
use podwire_tests::sim::SimSwitch;
use podwire_vswitch::frame::Checksum;
use podwire_vswitch::port::memory::MemoryFrame;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use build::Built;
use frames::shapes;
use topology::{Topology, topologies};

/// Topologies of a run, unless the environment asks for more.
const CASES: u32 = 400;
/// Frames a case has fewer of.
const FRAMES: usize = 80;

/// A runner that says with what seed it failed, and writes no file.
pub(crate) fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "seed"),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    if let Err(error) = TestRunner::new(config).run(strategy, test) {
        panic!("{error}\nrepeat with PROPTEST_RNG_SEED={seed}");
    }
}

/// Both switches and what they have been shown.
struct Duel {
    switch: SimSwitch,
    reference: Reference,
}

impl Duel {
    fn new(topology: &Topology) -> Self {
        Self { switch: topology.switch(), reference: topology.reference() }
    }

    /// Shows both one frame. None when the reference does not judge it.
    fn show(&mut self, built: &Built) -> Option<(Expected, Expected)> {
        let Built { port, frame } = built;
        let arrival = Arrival {
            now_s: self.switch.now().seconds(),
            port,
            bytes: &frame.bytes,
            partial: matches!(frame.offload.checksum, Checksum::Partial { .. }),
            outer: frame.outer,
        };
        let mut expected = self.reference.decide(&arrival)?;
        let before = outcomes(&self.switch);
        self.switch.inject(port, frame.clone()).run();
        let after = outcomes(&self.switch);
        let mut counted: Vec<_> = after.iter().filter(|(name, count)| before[*name] < **count).collect();
        assert_eq!(counted.len(), 1, "one frame, one outcome: {counted:?}");
        let outcome = counted.remove(0).0.clone();
        let sent = self
            .switch
            .take_all()
            .into_iter()
            .flat_map(|(port, frames)| frames.into_iter().map(move |frame| as_sent(&port, frame)));
        let mut sent: Vec<Sent> = sent.collect();
        if expected.outcome == "flood" {
            for sent in [&mut sent, &mut expected.sent] {
                *sent = std::mem::take(sent).into_iter().map(Sent::completed).collect();
            }
            expected.sent.sort();
        }
        sent.sort();
        Some((expected, Expected { outcome, sent }))
    }
}

fn outcomes(switch: &SimSwitch) -> BTreeMap<String, u64> {
    switch.totals().0.ports.outcomes().map(|(outcome, count)| (outcome.to_string(), count)).collect()
}

fn as_sent(port: &str, frame: MemoryFrame) -> Sent {
    Sent {
        port: port.to_owned(),
        tunnel: frame.encap.map(|encap| (encap.remote, encap.vni.get(), encap.tos)),
        partial: matches!(frame.offload.checksum, Checksum::Partial { .. }),
        bytes: frame.bytes,
    }
}

#[test]
fn the_engine_does_what_the_reference_switch_does() {
    let tally = std::cell::RefCell::new(BTreeMap::<String, u64>::new());
    check(CASES, &(topologies(), prop::collection::vec(shapes(), 1..FRAMES)), |(topology, shapes)| {
        let mut duel = Duel::new(&topology);
        for shape in &shapes {
            duel.switch.advance(Duration::from_secs(shape.wait_s));
            if shape.wait_s > 0 {
                // What was learned outlives the publishing of what did not change.
                duel.switch.state([]);
            }
            let Some(built) = shape.build(&topology) else { continue };
            let Some((expected, found)) = duel.show(&built) else { continue };
            *tally.borrow_mut().entry(expected.outcome.clone()).or_default() += 1;
            prop_assert_eq!(found, expected, "the engine (left) and the reference (right) part at {:?}", shape);
        }
        Ok(())
    });
    let tally = tally.into_inner();
    println!("{} frames: {tally:?}", tally.values().sum::<u64>());
    let seen = |outcome: &str| tally.contains_key(outcome);
    let common = ["forward", "flood", "reply", "punt:gateway", "punt:outside", "drop:too_big", "drop:ttl_exceeded"];
    let unseen: Vec<_> = common.into_iter().filter(|outcome| !seen(outcome)).collect();
    assert!(unseen.is_empty(), "the frames are too tame: never {unseen:?} in {tally:?}");
}
