//! Probes: real traffic of real kernels between two namespaces, and what became of it.
//!
//! A probe returns what happened, since some tests want to see it fail. Bytes are compared, not only counted.

pub mod capture;
pub mod fragment;
pub mod gap;
pub mod iperf;
pub mod pattern;
pub mod ping;
pub mod stream;
pub mod tcp;
pub mod udp;

use std::net::IpAddr;
use std::time::Duration;

use crate::netns::Netns;
use crate::plan;
use crate::pod::Pod;

/// How long a probe waits for the next byte before it calls the path dead.
pub const STALL: Duration = Duration::from_secs(5);

/// Which way a probe sends: from one namespace to an address that another one has.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    /// Where the probe sends.
    pub from: &'a Netns,
    /// Where the probe receives.
    pub to: &'a Netns,
    /// The sender's own address.
    pub source: IpAddr,
    /// The receiver's address.
    pub target: IpAddr,
}

impl<'a> Path<'a> {
    /// From a pod to another, over IPv4.
    #[must_use]
    #[track_caller]
    pub fn v4(from: &'a Pod, to: &'a Pod) -> Self {
        Self { from: &from.netns, to: &to.netns, source: from.v4(), target: to.v4() }
    }

    /// From a pod to another, over IPv6.
    #[must_use]
    #[track_caller]
    pub fn v6(from: &'a Pod, to: &'a Pod) -> Self {
        Self { from: &from.netns, to: &to.netns, source: from.v6(), target: to.v6() }
    }

    /// From a node (which bears its gateway addresses) to a pod.
    #[must_use]
    #[track_caller]
    pub fn from_node(node: &'a Netns, gateways: &[ipnet::IpNet], to: &'a Pod, v6: bool) -> Self {
        let target = if v6 { to.v6() } else { to.v4() };
        Self { from: node, to: &to.netns, source: plan::of_family(gateways, v6), target }
    }

    /// The same path the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, source: self.target, target: self.source }
    }

    /// Whether the path is IPv6.
    #[must_use]
    pub fn is_v6(self) -> bool {
        self.target.is_ipv6()
    }
}
