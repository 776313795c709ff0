//! Ports that are not looked at for a moment, so that more of a stream gathers in the device and is received as one
//! super-frame. No frame is held: what was received has been sent.

use std::time::Duration;

use crate::id::{MonoNs, PortId};
use crate::limits::PORTS_MAX;

/// The ports that rest, and until when. Reads no clock; the loop tells it the time.
#[derive(Debug)]
pub(super) struct Rest {
    hold_ns: u64,
    ports: Vec<(PortId, MonoNs)>,
}

impl Rest {
    /// Nobody rests; each port that does will for that long.
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold_ns: u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX), ports: Vec::with_capacity(PORTS_MAX) }
    }

    /// Lets a port that does not rest begin to; false when ports are not to.
    pub(super) fn begin(&mut self, port: PortId, now: MonoNs) -> bool {
        if self.hold_ns > 0 {
            self.ports.push((port, MonoNs(now.0.saturating_add(self.hold_ns))));
        }
        self.hold_ns > 0
    }

    /// Ends what is over.
    pub(super) fn end(&mut self, now: MonoNs) {
        self.ports.retain(|&(_, until)| now < until);
    }

    /// Whether a port rests.
    pub(super) fn has(&self, port: PortId) -> bool {
        self.ports.iter().any(|&(other, _)| other == port)
    }

    /// Whether none does.
    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Ends a port's rest.
    pub(super) fn forget(&mut self, port: PortId) {
        self.ports.retain(|&(other, _)| other != port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_micros(20);

    #[test]
    fn each_port_rests_as_long_as_it_is_told_from_its_own_visit_on() {
        let mut rest = Rest::new(HOLD);
        assert!(rest.is_empty());
        assert!(rest.begin(PortId(1), MonoNs(1_000)));
        assert!(rest.begin(PortId(2), MonoNs(5_000)));
        for (now, resting) in [(20_999, [true, true]), (21_000, [false, true]), (25_000, [false, false])] {
            rest.end(MonoNs(now));
            assert_eq!([1, 2].map(|port| rest.has(PortId(port))), resting, "{now}");
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_port_that_goes_rests_no_more() {
        let mut rest = Rest::new(HOLD);
        rest.begin(PortId(1), MonoNs(0));
        rest.begin(PortId(2), MonoNs(0));
        rest.forget(PortId(1));
        assert_eq!([1, 2].map(|port| rest.has(PortId(port))), [false, true]);
    }

    #[test]
    fn with_no_time_to_rest_for_no_port_does() {
        let mut rest = Rest::new(Duration::ZERO);
        assert!(!rest.begin(PortId(1), MonoNs(0)));
        assert!(rest.is_empty());
    }
}
