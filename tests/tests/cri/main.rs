//! Pods made by a real runtime: containerd and runc, told over the container runtime interface what a kubelet tells them,
//! with the configuration that `podwired install-cni` writes.

#![allow(clippy::unwrap_used)] // a test, its helpers included

mod churn;
mod node;
mod reach;
