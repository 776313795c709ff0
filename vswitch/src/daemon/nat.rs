//! What the node's own stack does for pods: pods leave the cluster with the node's address, and ports of the node lead to
//! pods. Rules in a table of our own, written by `nft`; whoever else has rules keeps them.
//!
//! Which attachments there are, and what they ask for, is known elsewhere: here are only [`Mapping`]s. Nothing here is on the
//! way of a frame inside the switch.

mod forwarding;
mod mapping;
mod ruleset;
#[cfg(test)]
mod tests;

use std::mem::replace;

use podwire_control::model::Transport;

pub use mapping::{Conflict, Mapping, conflict};
pub use ruleset::NatSpec;

use crate::id::MonoNs;
use crate::sys::netlink::{NetlinkError, TableMonitor, UdpFlow, forget_udp_flows, has_table};
use crate::sys::nft::{self, NftError};

/// The nftables table, of the family `inet`.
pub const TABLE: &str = "podwire";

/// How often what somebody else has changed is put right, and what failed is tried again.
const RENEW_SECONDS: u64 = 10;

/// The rules wanted are not in force; what was before them is.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// They can not be written.
    #[error("the node's nftables rules can not be written: {0}")]
    Rules(#[from] NftError),
    /// They can not be looked for.
    #[error("the node's nftables rules: {0}")]
    Netlink(#[from] NetlinkError),
}

/// The rules, what is in force of them, and what is wrong with them.
#[derive(Debug)]
pub struct Nat {
    wanted: NatSpec,
    /// What was written last, while nobody has changed it.
    in_force: Option<NatSpec>,
    /// The mappings that were written last; what the kernel remembers of UDP flows follows them.
    written: Vec<Mapping>,
    monitor: Option<TableMonitor>,
    tried: MonoNs,
    warnings: Vec<String>,
}

impl Nat {
    /// Rules that are wanted; [`Self::sync_or_warn`] puts them in force.
    #[must_use]
    pub fn new(wanted: NatSpec) -> Self {
        let written = wanted.mappings.clone();
        Self { wanted, in_force: None, written, monitor: None, tried: MonoNs::default(), warnings: Vec::new() }
    }

    /// Makes these the ports of the node that lead to pods, instead of those there were. No two may be in [`conflict`].
    ///
    /// # Errors
    /// [`NatError`]: those of before are in force still. The new ones stay wanted, and are tried again, until this is called
    /// with others.
    pub fn set_mappings(&mut self, mappings: Vec<Mapping>) -> Result<(), NatError> {
        self.wanted.mappings = mappings;
        self.sync()
    }

    /// The ports of the node that are to lead to pods.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.wanted.mappings
    }

    /// Takes over what the configuration says, of all but the mappings.
    pub fn reload(&mut self, wanted: NatSpec) {
        let mappings = replace(&mut self.wanted, wanted).mappings;
        self.wanted.mappings = mappings;
        self.sync_or_warn();
    }

    /// Looks whether somebody has changed the rules, and from time to time puts right what is not as wanted.
    pub fn tick(&mut self, now: MonoNs) {
        if self.monitor.as_mut().is_some_and(TableMonitor::changed) {
            self.in_force = None;
        }
        if now.since(self.tried) >= RENEW_SECONDS * 1_000_000_000 {
            self.tried = now;
            self.sync_or_warn();
        }
    }

    /// What does not work, and what to do.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes everything as wanted, cheaply where it is already. What can not be done is among the warnings, and tried again.
    pub fn sync_or_warn(&mut self) {
        let _is_a_warning = self.sync();
    }

    fn sync(&mut self) -> Result<(), NatError> {
        let wanted = &self.wanted;
        let has = |v4: bool| wanted.pod_cidrs.iter().any(|net| net.addr().is_ipv4() == v4);
        let mut warnings = match wanted.is_idle() {
            true => Vec::new(),
            false => forwarding::switch_on(has(true), has(false)),
        };
        let loopback = wanted.mappings.iter().any(|mapping| mapping.pod.is_ipv4());
        // Never on without the rule that keeps pods from the node's loopback addresses.
        if !loopback {
            forwarding::route_loopback(&wanted.host_interface, false);
        }
        let written = self.write();
        if loopback && written.is_ok() {
            forwarding::route_loopback(&self.wanted.host_interface, true);
        }
        warnings.extend(written.as_ref().err().map(ToString::to_string));
        let sctp = self.wanted.mappings.iter().any(|mapping| mapping.host_port.transport == Transport::Sctp);
        if sctp && written.is_ok() && !forwarding::knows_sctp() {
            let text = "host ports over SCTP lead nowhere; use a kernel with CONFIG_NF_CT_PROTO_SCTP";
            warnings.push(text.to_owned());
        }
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warnings = warnings;
        written
    }

    fn write(&mut self) -> Result<(), NatError> {
        if self.in_force.as_ref() == Some(&self.wanted) {
            return Ok(());
        }
        if self.wanted.is_idle() {
            remove()?;
        } else {
            // Before, so that no change is missed.
            if self.monitor.is_none() {
                self.monitor = Some(TableMonitor::open(TABLE)?);
            }
            nft::apply(&self.wanted.rules())?;
            tracing::info!(table = TABLE, mappings = self.wanted.mappings.len(), "the node's rules are written");
        }
        if let Some(monitor) = &mut self.monitor {
            let _was_ourselves = monitor.changed();
        }
        self.in_force = Some(self.wanted.clone());
        let before = replace(&mut self.written, self.wanted.mappings.clone());
        forget_flows(&before, &self.written);
        Ok(())
    }
}

/// Ends what the kernel remembers of UDP flows to ports that lead elsewhere now. Their clients would be held where they were
/// led at first for as long as they send; TCP connections end by themselves.
fn forget_flows(before: &[Mapping], now: &[Mapping]) {
    let gone = before.iter().filter(|mapping| !now.contains(mapping));
    let new = now.iter().filter(|mapping| !before.contains(mapping));
    let udp = |mapping: &&Mapping| mapping.host_port.transport == Transport::Udp;
    let changed: Vec<&Mapping> = gone.chain(new).filter(udp).collect();
    for v6 in [false, true].into_iter().filter(|&v6| changed.iter().any(|mapping| mapping.pod.is_ipv6() == v6)) {
        let led_wrong = |flow: &UdpFlow| changed.iter().any(|mapping| concerns(mapping, flow));
        if let Err(error) = forget_udp_flows(v6, led_wrong) {
            tracing::warn!(%error, "UDP clients of changed host ports are led as before until they pause");
        }
    }
}

/// Whether a flow came to this port and went to its pod, or went to the node since the port led nowhere. Flows that pass
/// through the node to the same port of others are left alone, where they are translated; where not, they lose nothing.
fn concerns(mapping: &Mapping, flow: &UdpFlow) -> bool {
    let to_port = flow.to.port() == mapping.host_port.host_port;
    let to_address = mapping.host_ip().is_none_or(|ip| ip == flow.to.ip());
    let untranslated = flow.answered_by == flow.to && flow.answered_to == flow.from;
    let family = flow.to.is_ipv4() == mapping.pod.is_ipv4();
    family && to_port && to_address && (flow.answered_by == mapping.target() || untranslated)
}

/// Takes the rules away; true when there were any.
///
/// # Errors
/// [`NatError`].
pub fn remove() -> Result<bool, NatError> {
    let there = has_table(TABLE)?;
    if there {
        nft::apply(&ruleset::remove())?;
    }
    Ok(there)
}
