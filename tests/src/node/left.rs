//! What pods may leave behind on a node.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::Node;

/// How much there is of what pods are given; without pods as much as before there were any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    attachments: usize,
    ports: usize,
    /// Open descriptors but for Unix sockets, since a connection may not be closed yet when its client is gone.
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
            descriptors: descriptors(pid),
            interfaces: node.netns.ip("-oneline link show").lines().count(),
            held: ipam["ranges"].as_array().expect("a list").iter().map(held).collect(),
        }
    }
}

fn descriptors(pid: u32) -> usize {
    let of_process = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
    // Num, RefCount, Protocol, Flags, Type, St, Inode, Path (proc(5)).
    let unix = fs::read_to_string(of_process("net/unix")).expect("podwired runs");
    let unix: Vec<PathBuf> =
        unix.lines().filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?).into())).collect();
    let open = fs::read_dir(of_process("fd")).expect("podwired runs").flatten();
    open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).filter(|file| !unix.contains(file)).count()
}
