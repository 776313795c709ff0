//! The test kit: real network namespaces, nodes, pods, a kernel VXLAN peer, and probes that send real traffic.
//!
//! A step of a fixture that fails ends the test with a sentence; what a test may want to see fail is returned
//! by the probe instead. Nothing here touches the root network namespace: links are made inside namespaces.
//! What the switch itself decides is tested over memory ports and in virtual time: `sim`, held to
//! `reference`.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "the kit waits for, and times, real kernels in real time")]

pub mod binary;
pub mod command;
pub mod containerd;
pub mod held;
pub mod kernel_peer;
pub mod netns;
pub mod node;
pub mod packet;
pub mod plan;
pub mod pod;
pub mod probe;
pub mod reference;
pub mod sim;
pub mod supervisor;
pub mod tmpfs;
pub mod underlay;
pub mod wait;

pub use kernel_peer::{KernelPeer, PeerSpec};
pub use netns::{Netns, Wire};
pub use node::{Node, NodeSpec};
pub use packet::Packet;
pub use plan::NodePlan;
pub use pod::Pod;
pub use sim::{Faults, SimNet, SimPort, SimSwitch};
pub use supervisor::Supervisor;
pub use tmpfs::Tmpfs;
pub use underlay::RemoteNode;
