//! What one worker remembers between batches: rate limits. Everything shared is in the snapshot.

use std::sync::Arc;

use crate::id::{MonoNs, PortId};
use crate::limits::{FLOODS_PER_PORT_PER_SECOND, ICMP_ERRORS_PER_SECOND, PORTS_MAX};
use crate::stats::{Event, WorkerStats};
use crate::table::rate::TokenBucket;

/// One worker's private state.
#[derive(Debug)]
pub struct WorkerState {
    icmp_errors: TokenBucket,
    floods: Box<[TokenBucket]>,
    stats: Arc<WorkerStats>,
}

impl WorkerState {
    /// Fresh state that counts into `stats`.
    #[must_use]
    pub fn new(stats: Arc<WorkerStats>) -> Self {
        let flood = TokenBucket::new(FLOODS_PER_PORT_PER_SECOND, FLOODS_PER_PORT_PER_SECOND);
        Self {
            icmp_errors: TokenBucket::new(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_PER_SECOND),
            floods: vec![flood; PORTS_MAX].into_boxed_slice(),
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
