//! Pods made by a real runtime: containerd and runc, told over the container runtime interface what a kubelet tells them,
//! with the configuration that `podwired install-cni` writes.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "the ring waits for a real runtime in real time")]

mod churn;
mod node;
mod reach;
