//! Settings of the node's kernel without which packets do not pass from pods to elsewhere, and back.

use std::path::Path;

use crate::sys::netns::{ipv4_conf, ipv6_conf, ipv6_conf_interfaces, set_ipv4_conf, set_ipv6_conf};

/// Switches forwarding on where it is off, and says what of it could not be done.
pub(super) fn switch_on(v4: bool, v6: bool) -> Vec<String> {
    let faults = [(v4, forward_v4 as fn() -> Result<(), String>), (v6, forward_v6)];
    faults.into_iter().filter(|(wanted, _)| *wanted).filter_map(|(_, switch_on)| switch_on().err()).collect()
}

fn forward_v4() -> Result<(), String> {
    if ipv4_conf("all", "forwarding").as_deref() == Some("1") || set_ipv4_conf("all", "forwarding", "1") {
        return Ok(());
    }
    Err(not_forwarding("net.ipv4.ip_forward"))
}

/// A kernel that forwards IPv6 heeds router advertisements only where `accept_ra` is 2, and forgets the default routes it
/// has from others: those interfaces come first, so that the node stays reachable.
fn forward_v6() -> Result<(), String> {
    if ipv6_conf("all", "forwarding").as_deref() == Some("1") {
        return Ok(());
    }
    for interface in ipv6_conf_interfaces() {
        if ipv6_conf(&interface, "accept_ra").as_deref() == Some("1") && !set_ipv6_conf(&interface, "accept_ra", "2") {
            return Err(not_forwarding("net.ipv6.conf.all.forwarding"));
        }
    }
    if set_ipv6_conf("all", "forwarding", "1") { Ok(()) } else { Err(not_forwarding("net.ipv6.conf.all.forwarding")) }
}

fn not_forwarding(sysctl: &str) -> String {
    format!(
        "{sysctl} is off and can not be switched on, so pods reach nothing outside of the cluster; \
         let podwired write to /proc/sys/net, or set it by sysctl"
    )
}

/// Lets the node reach host ports by 127.0.0.1, or no longer. An interface that is not there gets it when it is made.
pub(super) fn route_loopback(interface: &str, on: bool) {
    let wanted = if on { "1" } else { "0" };
    if ipv4_conf(interface, "route_localnet").is_some_and(|now| now != wanted) {
        // It is podwired's own interface: where its settings can not be written, status warns of forwarding already.
        set_ipv4_conf(interface, "route_localnet", wanted);
    }
}

/// Whether the kernel can translate SCTP; known once it translates anything.
pub(super) fn knows_sctp() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established").exists()
}
