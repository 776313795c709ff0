//! Watching a frame's walk through the stages: nothing on a core, every step in `podwire trace`.

use std::fmt;

/// A stage of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Stage {
    Ingress,
    Limit,
    Guard,
    Decap,
    Bridge,
    Resolve,
    Route,
    Encap,
    Icmp,
    Flow,
    Verdict,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Limit => "limit",
            Self::Guard => "guard",
            Self::Decap => "decap",
            Self::Bridge => "bridge",
            Self::Resolve => "resolve",
            Self::Route => "route",
            Self::Encap => "encap",
            Self::Icmp => "icmp",
            Self::Flow => "flow",
            Self::Verdict => "verdict",
        })
    }
}

/// Told of each step; the text is only made when somebody listens.
pub trait Probe {
    /// Whether frames are real. A walk that is not real learns nothing.
    const LIVE: bool;

    /// One step.
    fn note(&mut self, stage: Stage, text: impl FnOnce() -> String);
}

/// Nobody listens: what workers use. Compiles to nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoProbe;

impl Probe for NoProbe {
    const LIVE: bool = true;

    #[inline(always)]
    fn note(&mut self, _: Stage, _: impl FnOnce() -> String) {}
}

/// One recorded step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where.
    pub stage: Stage,
    /// What was found or done.
    pub text: String,
}

/// Records every step of a frame that is not real.
#[derive(Clone, Default, Debug)]
pub struct Recorder {
    /// The walk, in order.
    pub steps: Vec<Step>,
}

impl Probe for Recorder {
    const LIVE: bool = false;

    fn note(&mut self, stage: Stage, text: impl FnOnce() -> String) {
        self.steps.push(Step { stage, text: text() });
    }
}
