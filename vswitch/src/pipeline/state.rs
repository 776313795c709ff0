//! What one worker remembers between batches: rate limits and flows. Everything shared is in the snapshot.

use std::sync::Arc;

use crate::id::{MonoNs, PortId};
use crate::limits::{BATCH_FRAMES, FLOODS_PER_PORT_PER_SECOND, ICMP_ERRORS_PER_SECOND, PORTS_MAX};
use crate::stats::{Event, WorkerStats};
use crate::table::flow::FlowTable;
use crate::table::rate::TokenBucket;

use super::Arrival;
use super::flow::CachedAction;

/// One worker's private state.
#[derive(Debug)]
pub struct WorkerState {
    icmp_errors: TokenBucket,
    floods: Box<[TokenBucket]>,
    /// What was concluded for flows; empty where the flow cache is off.
    pub(super) flows: FlowTable<CachedAction>,
    /// What ingress found of the batch at hand.
    pub(super) arrivals: Vec<Arrival>,
    stats: Arc<WorkerStats>,
}

impl WorkerState {
    /// Fresh state that counts into `stats`, and keeps up to `flows` flows; with 0 the flow cache is off.
    #[must_use]
    pub fn new(stats: Arc<WorkerStats>, flows: usize) -> Self {
        let flood = TokenBucket::new(FLOODS_PER_PORT_PER_SECOND, FLOODS_PER_PORT_PER_SECOND);
        Self {
            icmp_errors: TokenBucket::new(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_PER_SECOND),
            floods: vec![flood; PORTS_MAX].into_boxed_slice(),
            flows: FlowTable::new(flows),
            arrivals: vec![Arrival::NONE; BATCH_FRAMES],
            stats,
        }
    }

    /// Where this worker counts.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// Whether one more ICMP error may be originated now.
    pub(crate) fn may_send_icmp_error(&mut self, now: MonoNs) -> bool {
        let may = self.icmp_errors.take(now, 1);
        if !may {
            self.stats.count(Event::IcmpSuppressed, 1);
        }
        may
    }

    /// Whether the port may flood one more frame now.
    pub(crate) fn may_flood(&mut self, port: PortId, now: MonoNs) -> bool {
        self.floods.get_mut(port.index()).is_none_or(|bucket| bucket.take(now, 1))
    }
}
