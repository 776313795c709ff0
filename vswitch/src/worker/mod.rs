//! A worker: one pinned thread that polls its ready ports, decides and sends, and between passes takes commands.
//!
//! How it waits is its poll mode. It never waits for anything but its ports and its waker.

mod engine;
mod rest;
mod spin;
mod thread;
mod transmit;

pub use engine::{Engine, Turn};
pub use thread::{Command, PollMode, Report, Shared, WorkerSetup, run, waker};
pub use transmit::Transmitter;
