//! The place where peers are measured: network namespaces, cables, processes, and the clock and CPU time of it all.
//!
//! Everything made here is gone when its value is dropped, also after an error or a signal. What is built of it is
//! `side`'s business, and what flows through it `generate`'s.

mod command;
mod cpu;
mod netns;
mod offloads;
mod process;
pub(crate) mod stop;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub(crate) use command::{Missing, must, program_version};
pub(crate) use cpu::{CpuTime, Spender};
pub(crate) use netns::{Netns, Wire, cable, clear_name};
pub(crate) use offloads::{InterfaceOffloads, offloads_of};
pub(crate) use process::Process;

/// A folder for sockets, configurations and logs of one side.
pub(crate) fn folder() -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("podwire-perf-").tempdir();
    made.context("cannot make a temporary folder; is TMPDIR writable?")
}

/// Refuses to begin what only root may do.
pub(crate) fn require_root() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    ensure!(root, "measuring makes network namespaces, which needs root: run podwire-perf as root or with sudo");
    Ok(())
}
