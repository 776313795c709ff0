//! Whether an nftables table is there, and whether somebody has changed it (linux/netfilter/nf_tables.h). Rules are written
//! by `sys::nft`.

use netlink_packet_core::{DefaultNla, NetlinkMessage, NetlinkPayload};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::monitor::drain;
use super::netfilter::Netfilter;
use super::{MESSAGE_ALIGNMENT, Netlink, NetlinkError};

const SUBSYSTEM: u16 = 10;
const GET_TABLE: u16 = 1;
/// In each message about a table, or a thing in one, the attribute that names the table.
const TABLE: u16 = 1;
/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;

/// Whether the calling thread's namespace has this table of the family `inet`. A kernel without nftables has none.
///
/// # Errors
/// [`NetlinkError`].
pub fn has_table(name: &str) -> Result<bool, NetlinkError> {
    let action = format!("look up nftables table {name}");
    let without = |error: &NetlinkError| match error {
        NetlinkError::Open(source) => source.raw_os_error() == Some(libc::EPROTONOSUPPORT),
        _ => error.is_not_found() || matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)),
    };
    let name = DefaultNla::new(TABLE, terminated(name));
    let request = Netfilter::new(SUBSYSTEM, GET_TABLE, INET, &[name]);
    match Netlink::netfilter().and_then(|mut netlink| netlink.request(request, 0, action)) {
        Err(error) if without(&error) => Ok(false),
        found => found.map(|_| true),
    }
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Watches one table of the calling thread's network namespace.
#[derive(Debug)]
pub struct TableMonitor {
    socket: Socket,
    name: Vec<u8>,
}

impl TableMonitor {
    /// Watches from now on.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open(name: &str) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NetlinkError::Open)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        socket.set_non_blocking(true).map_err(NetlinkError::Open)?;
        socket.add_membership(GROUP).map_err(NetlinkError::Open)?;
        Ok(Self { socket, name: terminated(name) })
    }

    /// Whether somebody, ourselves included, may have changed the table since the last look. Never blocks.
    pub fn changed(&mut self) -> bool {
        drain(&self.socket, |datagram| names(datagram, &self.name))
    }
}

/// Whether a datagram holds a message about this table.
fn names(datagram: &[u8], table: &[u8]) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<Netfilter>::deserialize(rest) else { return true };
        let len = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(MESSAGE_ALIGNMENT);
        if matches!(message.payload, NetlinkPayload::InnerMessage(about) if about.attribute(TABLE) == Some(table)) {
            return true;
        }
        rest = rest.get(len.max(1)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::{TestNetns, run};

    #[test]
    fn a_table_is_seen_and_so_is_every_change_of_it_but_not_of_others() {
        let netns = TestNetns::new();
        let nft = |line: &str| {
            let net = format!("--net={}", netns.path().display());
            run("nsenter", &[&[&net, "nft"][..], &line.split_whitespace().collect::<Vec<_>>()].concat())
        };
        netns.enter(|| {
            let mut monitor = TableMonitor::open("own").unwrap();
            assert!(!has_table("own").unwrap());
            nft("add table inet other");
            nft("add table inet owner");
            assert!(!monitor.changed() && !has_table("own").unwrap());
            for change in [
                "add table inet own",
                "add chain inet own a",
                "add rule inet own a accept",
                "add map inet own m { type ipv4_addr : ipv4_addr ; }",
                "add element inet own m { 10.0.0.1 : 10.0.0.2 }",
                "flush chain inet own a",
                "flush ruleset",
            ] {
                nft(change);
                assert!(monitor.changed(), "{change}");
                assert_eq!(has_table("own").unwrap(), change != "flush ruleset");
                assert!(!monitor.changed(), "told once: {change}");
            }
        });
    }
}
