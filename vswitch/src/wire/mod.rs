//! Bytes on the wire: checked views and writers for each protocol, and one parse of a frame's headers.
//!
//! No I/O, no unsafe, no panic on any input. A view checks its lengths once, then its getters can not fail.

pub mod arp;
pub mod checksum;
pub mod ethernet;
mod headers;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod layout;
pub mod nd;
mod parse;
mod plain;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use headers::{Arp, Fragment, Headers, IcmpHeader, Ipv4, Ipv6, L3, L4, TcpHeader, UdpHeader, VlanTag};
pub use parse::{parse, parse_into};
pub use plain::Plain;
