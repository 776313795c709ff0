//! What the pipeline looks things up in: plain data structures of fixed limits, without I/O and without a clock.
//!
//! `fast_map` and `fib` are immutable once built and live in a snapshot; `mac` is shared by all workers and survives snapshots;
//! `policer` is too; `flow` and `rate` belong to one worker. What the values mean is the snapshot's business.

pub mod fast_map;
pub mod fib;
pub mod flow;
pub mod mac;
pub mod policer;
pub mod rate;

pub use fast_map::FastMap;
pub use fib::{Fib, FibAddress};
pub use flow::{FlowKey, FlowTable};
pub use mac::{Learned, MacEntry, MacTable};
pub use policer::Policer;
pub use rate::TokenBucket;
