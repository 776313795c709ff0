//! What an owner's statement did, and what of it was refused.

use super::Key;

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// It is new.
    Added,
    /// It stood already, with other fields.
    Changed,
    /// It is gone.
    Removed,
}

impl Action {
    /// The word the CLI shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// One object that an `Apply` or `Change` altered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Which.
    pub key: Key,
    /// How.
    pub action: Action,
}

/// What an `Apply` or `Change` did. When it is returned, every worker uses `generation` or a later one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// The snapshot's number.
    pub generation: u64,
    /// Objects altered.
    pub changed: Vec<Changed>,
    /// Objects stated that already stood as stated.
    pub unchanged: u64,
}

/// One object that was refused, and why; the reason names the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct Refusal {
    /// The object, as in `route 10.244.2.0/24`.
    pub object: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

impl Refusal {
    /// A refusal of whatever `object` prints as.
    pub fn new(object: impl ToString, reason: impl Into<String>) -> Self {
        Self { object: object.to_string(), reason: reason.into() }
    }
}
