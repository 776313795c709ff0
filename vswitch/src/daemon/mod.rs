//! What surrounds the engine on a node: configuration, the owners' intent, the store, devices, and the control API.
//!
//! Nothing here touches a frame. The engine is driven through its snapshots and commands only.

pub mod backend;
mod cleanup;
pub mod config;
pub mod controller;
pub mod devices;
pub mod events;
pub mod explain;
pub mod ledger;
pub mod netns_dirs;
mod run;
pub mod store;
mod supervised;
pub mod underlay;

pub use run::main;
