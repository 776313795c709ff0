//! What surrounds the engine on a node: configuration, the owners' intent, the store, devices, and the control API.
//!
//! Nothing here touches a frame. The engine is driven through its snapshots and commands only.

pub mod attachments;
pub mod backend;
mod cleanup;
pub mod config;
pub mod controller;
pub mod devices;
pub mod events;
pub mod explain;
mod install;
pub mod ipam;
pub mod ledger;
pub mod nat;
pub mod netns_dirs;
mod run;
pub mod store;
mod supervised;
pub mod underlay;
mod verbs;

pub use run::main;
