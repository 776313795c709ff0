//! podwire's engine: a userspace virtual switch for a Kubernetes node.
//!
//! ARCHITECTURE.md has the map. Modules depend on each other in one direction only:
//! wire, frame, table, snapshot, pipeline, worker, switch, daemon.
#![deny(unsafe_code)]

pub mod compile;
pub mod daemon;
pub mod frame;
pub mod id;
pub mod limits;
pub mod outcome;
pub mod pipeline;
pub mod port;
pub mod segment;
pub mod snapshot;
pub mod stats;
pub mod switch;
pub mod sys;
pub mod table;
pub mod wire;
pub mod worker;
