//! What a runtime is told when something did not work: a code, a sentence, and what to do.

use podwire_control::client::ClientError;
use serde_json::{Value, json};

/// Error codes of the specification (CNI 1.1.0, "Error"); from 100 on they are the plugin's own (docs/cni.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Code(pub(crate) u64);

impl Code {
    /// The request's version is not supported, or has no such command.
    pub(crate) const INCOMPATIBLE_VERSION: Self = Self(1);
    /// An environment variable is missing or wrong; the message names it.
    pub(crate) const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub(crate) const IO: Self = Self(5);
    /// The request is no JSON, or of another shape.
    pub(crate) const UNDECODABLE: Self = Self(6);
    /// A key of the network configuration is missing or wrong; the message names it.
    pub(crate) const INVALID_CONFIG: Self = Self(7);
    /// It may work in a moment.
    pub(crate) const TRY_AGAIN: Self = Self(11);
    /// STATUS: an ADD could not be served.
    pub(crate) const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: that, or pods that are attached suffer as well.
    pub(crate) const PODS_SUFFER: Self = Self(51);
    /// podwired refused.
    pub(crate) const REFUSED: Self = Self(100);
    /// No address is free.
    pub(crate) const EXHAUSTED: Self = Self(101);
    /// The IPAM plugin can not be run, or its answer makes no sense.
    pub(crate) const IPAM: Self = Self(102);
    /// CHECK: the interface is not as it was made.
    pub(crate) const DRIFTED: Self = Self(103);
    /// podwired failed; its log says more.
    pub(crate) const FAILED: Self = Self(104);
}

/// An error for standard output.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{msg}; {details}")]
pub(crate) struct Failure {
    /// What kind of failure.
    pub(crate) code: Code,
    /// One short sentence.
    pub(crate) msg: String,
    /// Why, and what to do.
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// What podwired answered to an attempt.
    pub(crate) fn of(error: &ClientError, attempt: &str) -> Self {
        let code = match error {
            ClientError::Unreachable { .. } | ClientError::Deadline { .. } | ClientError::Unavailable(_) => {
                Code::TRY_AGAIN
            }
            ClientError::Exhausted(_) => Code::EXHAUSTED,
            ClientError::Refused { .. } | ClientError::NotFound(_) | ClientError::AlreadyExists(_) => Code::REFUSED,
            ClientError::Failed { .. } | ClientError::Answer { .. } => Code::FAILED,
        };
        Self::new(code, format!("cannot {attempt}"), error.sentences().join("; "))
    }

    /// The same, with one more thing to know.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.details = format!("{}; {more}", self.details);
        self
    }

    /// The object as the specification has it, in the form of a version.
    pub(crate) fn json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code.0, "msg": self.msg, "details": self.details})
    }
}
