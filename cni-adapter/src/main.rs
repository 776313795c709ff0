//! podwire-cni, the CNI plugin: what a container runtime runs to wire a pod (CNI 1.1.0, section 2).
//!
//! A thin client of podwired: it reads the runtime's request, asks podwired, and writes one JSON object. It keeps nothing;
//! only a DEL that finds podwired away leaves a note for it.
#![forbid(unsafe_code)]

mod away;
mod command;
mod config;
mod daemon;
mod environment;
mod failure;
mod field;
mod ipam;
mod link;
mod result;
mod version;
mod wanted;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::Value;

use command::Request;
use config::Config;
use environment::Environment;
use failure::{Code, Failure};
use version::{Version, supported};

/// Bytes of a request that are read; a network configuration has a few hundred.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut out = io::stdout();
    // What errors are told in; the request's own version once it is known.
    let mut version = Version::NEWEST;
    let Err(failure) = answer(&mut version, &mut out) else { return ExitCode::SUCCESS };
    if writeln!(out, "{}", failure.json(version.name())).is_err() {
        eprintln!("podwire-cni: {failure}");
    }
    ExitCode::FAILURE
}

/// Answers the command that the environment names.
fn answer(version: &mut Version, out: &mut dyn Write) -> Result<(), Failure> {
    let environment = Environment::of_process()?;
    let command = environment.command()?;
    let mut text = Vec::new();
    io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_end(&mut text).map_err(|error| {
        let remedy = "the runtime has to write the network configuration to standard input";
        Failure::new(Code::IO, format!("cannot read the request: {error}"), remedy)
    })?;
    let Some(command) = command else { return tell_versions(&text, out) };
    let value = decode(&text)?;
    *version = Version::read(version_of(&value)?)?;
    let config = Config::read(*version, &value)?;
    command.run(&Request { environment: &environment, config: &config, text: &text }, out)
}

fn undecodable(why: &str) -> Failure {
    let remedy = "the runtime has to write a JSON object with cniVersion to standard input";
    Failure::new(Code::UNDECODABLE, format!("cannot decode the request: {why}"), remedy)
}

fn decode(text: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(text).map_err(|error| undecodable(&error.to_string()))
}

fn version_of(value: &Value) -> Result<&str, Failure> {
    value["cniVersion"].as_str().ok_or_else(|| undecodable("cniVersion is missing"))
}

/// A `VERSION` typed by hand may come with nothing on standard input.
fn tell_versions(text: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
    let versions = if text.trim_ascii().is_empty() {
        supported(Version::NEWEST.name())
    } else {
        supported(version_of(&decode(text)?)?)
    };
    writeln!(out, "{versions}").map_err(|error| Failure::new(Code::IO, format!("cannot write: {error}"), "read it"))
}
