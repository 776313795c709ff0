//! The CNI plugin against a real podwired, as a container runtime runs it (root).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "tests measure time; the ban is for the data path")]

mod away;
mod churn;
mod codes;
mod del;
mod disk;
mod drift;
mod host_port;
mod install;
mod life;
mod plugin;
mod status;
mod two_nodes;
mod versions;
