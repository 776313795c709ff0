//! The plugin as a runtime runs it: environment and standard input in, one JSON object and an exit code out; podwired is
//! the fake of control's tests.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../../../control/tests/fake/mod.rs"]
mod fake;

mod away;
mod codes;
mod ipam;
mod run;
mod verbs;
