//! What surrounds the engine on a node: configuration, the owners' intent, the store and the events.
//!
//! Nothing here touches a frame. The engine is driven through its snapshots and commands only.

pub mod config;
pub mod events;
pub mod ledger;
pub mod store;
