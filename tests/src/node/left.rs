//! What pods may leave behind on a node.

use std::fs::{self, DirEntry};

use serde_json::Value;

use super::Node;

/// How much there is of what pods are given; without pods as much as before there were any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    attachments: usize,
    ports: usize,
    /// Open descriptors but for sockets, since a connection may not be closed yet when its client is gone.
    descriptors: usize,
    interfaces: usize,
    /// Addresses that are leased, a range each.
    held: Vec<u64>,
}

impl Left {
    /// Counts it on a node whose daemon runs.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    #[track_caller]
    pub fn of(node: &Node) -> Self {
        let count = |words: &[&str]| node.podwire_json(words).as_array().expect("a list").len();
        let ipam = node.podwire_json(&["ipam", "show"]);
        let held = |range: &Value| range["held"].as_u64().expect("a number");
        let pid = node.pid().expect("podwired runs");
        Self {
            attachments: count(&["attachment", "list"]),
            ports: count(&["port", "list"]),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("podwired runs")
                .flatten()
                .filter(stays)
                .count(),
            interfaces: node.netns.ip("-oneline link show").lines().count(),
            held: ipam["ranges"].as_array().expect("a list").iter().map(held).collect(),
        }
    }
}

fn stays(descriptor: &DirEntry) -> bool {
    fs::read_link(descriptor.path()).is_ok_and(|file| !file.to_string_lossy().starts_with("socket:"))
}
