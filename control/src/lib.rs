//! The language at podwire's boundary: the validated model, the gRPC protocol, its client and its service.
//!
//! A leaf crate: it knows nothing of the engine. Without features it is the model only.
#![forbid(unsafe_code)]

pub mod model;
