//! The plugin over the fake podwired of control's tests: what a real one can not be brought to, and what it is asked. All else
//! is the ring `cni`'s.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../../../control/tests/fake/mod.rs"]
mod fake;

mod away;
mod ipam;
mod run;
mod verbs;
