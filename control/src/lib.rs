//! The language at podwire's boundary: the validated model, the gRPC protocol, its client and its service.
//!
//! A leaf crate: it knows nothing of the engine. Without features it is the model only.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
pub mod convert;
#[cfg(feature = "file")]
pub mod intent;
pub mod model;
#[cfg(any(feature = "client", feature = "server"))]
mod proto;
#[cfg(feature = "server")]
pub mod service;
pub mod spool;
