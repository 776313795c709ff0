//! The daemon as a process: what it leaves behind, what it survives, what it refuses, and what it says of itself.
//!
//! How frames are forwarded is the pipeline's and the netns rings' matter; here a ping or a stream only shows that they
//! still are. Needs root.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "the ring waits for, and times, a real daemon in real time")]

mod api;
mod apply;
mod attach;
mod churn;
mod crash;
mod disturb;
mod in_place;
mod ipam;
mod limits;
mod mend;
mod nat;
mod questions;
mod refusals;
mod reload;
mod restart;
mod stream;
mod stuck;
mod supervised;
mod trace;
mod vanish;
mod veth;
