//! Rate limits of ports. What a pod sends is measured here, as it comes in; what it is sent is measured where it leaves
//! (`worker::transmit`), since a flood's copies, answers and errors are sent there too.

use super::{Pass, Probe, Stage, deliveries};
use crate::frame::Item;
use crate::snapshot::PortEntry;

impl<P: Probe> Pass<'_, P> {
    /// Whether a frame is within the rate of the port it came from. One that is not real takes no token.
    #[inline(never)]
    pub(super) fn is_within_rate(&mut self, item: &Item) -> bool {
        let entry = self.snapshot.port(item.frame.ingress);
        let Some((entry, policer)) = entry.and_then(|entry| Some((entry, entry.limits.egress.as_ref()?))) else {
            return true;
        };
        self.probe.note(Stage::Limit, || format!("from port {}: {}", entry.name, policer.limit()));
        !P::LIVE || policer.admits(self.now, item.frame.wire_len())
    }

    /// Notes the limits of the ports a frame goes to.
    pub(super) fn note_limits(&mut self, item: &Item) {
        if P::LIVE {
            return;
        }
        for entry in deliveries(self.snapshot, item).filter_map(|way| self.snapshot.port(way.port)) {
            let PortEntry { name, limits, .. } = entry;
            if let Some(policer) = &limits.ingress {
                self.probe.note(Stage::Limit, || format!("to port {name}: {}", policer.limit()));
            }
        }
    }
}
