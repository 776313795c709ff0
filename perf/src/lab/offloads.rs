//! Which offloads the interfaces of a side have: a figure without them says little.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Netns;

/// The ones that decide a figure, as `ethtool -k` names them.
const TOLD: [&str; 7] = [
    "rx-checksumming",
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "tx-udp-segmentation",
    "generic-segmentation-offload",
    "generic-receive-offload",
];

/// One interface and what it does for the stack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct InterfaceOffloads {
    /// The namespace's part in the side, such as `pod-1`.
    pub(crate) place: String,
    pub(crate) interface: String,
    /// Offload, and whether it is on.
    pub(crate) offloads: BTreeMap<String, bool>,
}

/// Asks `ethtool -k`.
pub(crate) fn offloads_of(netns: &Netns, interface: &str) -> Result<InterfaceOffloads> {
    let offloads = parse(&netns.exec("ethtool", &["-k", interface])?);
    Ok(InterfaceOffloads { place: netns.label().to_owned(), interface: interface.to_owned(), offloads })
}

fn parse(text: &str) -> BTreeMap<String, bool> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(": "));
    let told = pairs.filter(|(name, _)| TOLD.contains(name));
    told.map(|(name, state)| (name.to_owned(), state.starts_with("on"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ones_that_count_are_told() {
        let text = "Features for v1:\nrx-checksumming: on\ntx-checksumming: off\n\ttx-checksum-ipv4: off [fixed]\n\
                    tx-udp-segmentation: off [requested on]\nloopback: off [fixed]\n";
        let told: Vec<_> = parse(text).into_iter().collect();
        let want = [("rx-checksumming", true), ("tx-checksumming", false), ("tx-udp-segmentation", false)];
        assert_eq!(told, want.map(|(name, on)| (name.to_owned(), on)));
    }
}
