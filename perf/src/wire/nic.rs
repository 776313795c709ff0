//! An interface as it is found, and what the kernel counts of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use podwire_control::model::Mac;
use podwire_vswitch::sys::netlink::Netlink;
use podwire_vswitch::sys::netns::{NetnsHandle, in_netns};

use super::frame::FCS_BYTES;

/// Bytes of Ethernet's header, beside the MTU.
const HEADER_BYTES: usize = 14;
/// Of the calling thread's namespace, unlike /proc/net/dev.
const COUNTERS: &str = "/proc/thread-self/net/dev";
/// Where a line of it has the frames that were to be sent and were dropped, behind the interface's name.
const TX_DROPPED_AT: usize = 11;

/// An interface as it was found.
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    /// Longest frame with FCS.
    pub(super) frame_bytes_max: usize,
}

impl Nic {
    /// Looks for it in a namespace, or where we are; it has to be up.
    pub(super) fn find(netns: Option<&Path>, device: &str) -> Result<Self> {
        enter(netns, || {
            let link = Netlink::open()?.link(device)?;
            ensure!(link.up, "{device} is down: `ip link set {device} up`");
            let mtu = usize::try_from(link.mtu).context("an MTU fits")?;
            Ok(Self { index: link.index, mac: link.mac, frame_bytes_max: mtu + HEADER_BYTES + FCS_BYTES })
        })
    }
}

/// Frames that an interface has refused to send since it is there.
pub(super) fn tx_dropped(netns: Option<&Path>, device: &str) -> Result<u64> {
    let text = enter(netns, || fs::read_to_string(COUNTERS).with_context(|| format!("cannot read {COUNTERS}")))?;
    tx_dropped_in(&text, device).with_context(|| format!("{COUNTERS} says nothing of {device}"))
}

fn tx_dropped_in(text: &str, device: &str) -> Option<u64> {
    let lines = text.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, counts) = lines.into_iter().find(|(name, _)| *name == device)?;
    counts.split_whitespace().nth(TX_DROPPED_AT)?.parse().ok()
}

/// Does something in a namespace, or where we are.
pub(super) fn enter<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match netns {
        None => work(),
        Some(path) => in_netns(&NetnsHandle::open(path)?, work)?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_refused_is_read_of_its_own_line() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
                    lo:     0       0    0    0    0     0          0         0        0       0    0    9    0     0\n  \
                    eth0:12345      67    1    2    0     0          0         0     8900      12    3    4    0     0\n";
        assert_eq!((tx_dropped_in(text, "eth0"), tx_dropped_in(text, "lo")), (Some(4), Some(9)));
        assert_eq!(tx_dropped_in(text, "eth1"), None);
    }
}
