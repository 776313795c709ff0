//! A worker that hangs.

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::node::Node;

/// The daemon's first worker, held by ptrace(2) until the value is gone; the other threads go on.
#[derive(Debug)]
pub struct Held(Pid);

impl Held {
    /// Holds the worker of a node whose daemon runs.
    ///
    /// # Panics
    /// When there is none, or it can not be traced.
    #[must_use]
    #[track_caller]
    pub fn new(node: &Node) -> Self {
        let threads = format!("/proc/{}/task", node.pid().expect("the daemon runs"));
        let tasks = fs::read_dir(threads).expect("a process has threads").map(|entry| entry.expect("it can be read"));
        let is_worker = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "worker-0")
        };
        let worker = tasks.into_iter().find(is_worker).expect("there is a worker").file_name();
        let thread = Pid::from_raw(worker.to_str().and_then(|text| text.parse().ok()).expect("a thread's number"));
        ptrace::attach(thread).expect("this test needs to trace a process of its own");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("it is traced");
    }
}
