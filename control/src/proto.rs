//! The generated protocol. Only `convert`, `service` and `client` look in here.

#![allow(unreachable_pub, missing_debug_implementations, clippy::all)] // generated

tonic::include_proto!("podwire.v1");

/// The encoded `FileDescriptorSet`, for reflection and for the test that v1 only grows.
#[cfg(any(feature = "server", test))]
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/podwire.v1.descriptors"));

#[cfg(test)]
#[path = "proto_tests.rs"]
mod tests;
