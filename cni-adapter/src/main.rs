//! podwire-cni, the CNI plugin: what a container runtime runs to wire a pod.
//!
//! So far it answers `VERSION` (CNI 1.1.0, section 2) and refuses everything else in the form the specification gives
//! errors. It reads the runtime's request and writes one JSON object; how pods are wired will be `podwired`'s matter.
#![forbid(unsafe_code)]

mod answer;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use answer::{Answer, Failure, answer};

/// Bytes of a request that are read; a network configuration has a few hundred.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let command = std::env::var("CNI_COMMAND").ok();
    let mut request = Vec::new();
    let read = io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_end(&mut request);
    let answered = match read {
        Ok(_) => answer(command.as_deref(), &request),
        Err(error) => Err(Failure::unreadable(&error)),
    };
    let (text, code) = match &answered {
        Ok(Answer(value)) => (value.to_string(), ExitCode::SUCCESS),
        Err(failure) => (failure.json().to_string(), ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
