//! What can go wrong between a client and the daemon, in sentences that name the socket or the object and the remedy.

use std::path::PathBuf;

use tonic::{Code, Status};

use crate::convert::{ConvertError, refusals};
use crate::model::Refusal;

/// A call did not do what it was to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot reach podwired at {socket}: {why}; is podwired running, and may this user open its socket?", socket = .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It took too long.
    #[error("podwired at {socket} did not answer {call} within {seconds} s; look at its load and log", socket = .socket.display())]
    Deadline {
        /// The socket.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// The time given, in seconds.
        seconds: u64,
    },
    /// The statement was refused, and nothing of it done.
    #[error("{}", listed(.refusals, *.more))]
    Refused {
        /// What was refused and why; at least one.
        refusals: Vec<Refusal>,
        /// Refusals beyond those.
        more: u64,
    },
    /// The object does not exist.
    #[error("{0}")]
    NotFound(Refusal),
    /// The object exists already, stated by another.
    #[error("{0}")]
    AlreadyExists(Refusal),
    /// There is no more of what was asked for.
    #[error("{0}")]
    Exhausted(Refusal),
    /// Not now; the daemon says why and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The daemon failed.
    #[error("podwired at {socket} failed in {call}: {why}", socket = .socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        why: String,
    },
    /// The answer can not be understood.
    #[error("podwired's answer to {call} can not be understood: {error}")]
    Answer {
        /// The call.
        call: &'static str,
        /// Why not.
        error: ConvertError,
    },
}

impl ClientError {
    /// One sentence per refused object; one in all for any other error.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        match self {
            Self::Refused { refusals, more } => {
                let rest = (*more > 0).then(|| format!("{more} more objects were refused; mend these first"));
                refusals.iter().map(ToString::to_string).chain(rest).collect()
            }
            other => vec![other.to_string()],
        }
    }

    pub(super) fn of_status(status: &Status, socket: &std::path::Path, call: &'static str, seconds: u64) -> Self {
        let socket = socket.to_owned();
        let why = status.message().to_owned();
        if let Some((mut refusals, more)) = refusals::decode(status.details()) {
            return match status.code() {
                Code::NotFound => Self::NotFound(refusals.swap_remove(0)),
                Code::AlreadyExists => Self::AlreadyExists(refusals.swap_remove(0)),
                Code::ResourceExhausted => Self::Exhausted(refusals.swap_remove(0)),
                _ => Self::Refused { refusals, more },
            };
        }
        match status.code() {
            Code::DeadlineExceeded => Self::Deadline { socket, call, seconds },
            // tonic's own client says that a timeout cancelled the call.
            Code::Cancelled if why.contains("imeout") => Self::Deadline { socket, call, seconds },
            Code::Unimplemented => {
                Self::Failed { socket, call, why: "it does not know this call; update podwired".into() }
            }
            // Its source is there only when the connection, not the daemon, said so.
            Code::Unavailable | Code::Unknown | Code::Cancelled if std::error::Error::source(status).is_some() => {
                Self::Unreachable { socket, why: "the connection broke".into() }
            }
            Code::Unavailable => Self::Unavailable(why),
            _ => Self::Failed { socket, call, why },
        }
    }
}

fn listed(refusals: &[Refusal], more: u64) -> String {
    let mut text: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join("\n")
}
