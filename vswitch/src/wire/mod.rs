//! Bytes on the wire: checked views and writers for each protocol, and one parse of a frame's headers.
//!
//! No I/O, no unsafe, no panic on any input. A view checks its lengths once, then its getters can not fail.

pub mod checksum;
mod headers;

pub use headers::{Arp, Fragment, Headers, IcmpHeader, Ipv4, Ipv6, L3, L4, TcpHeader, UdpHeader, VlanTag};
