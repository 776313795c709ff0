//! First stage: who sent it, is it well formed, and may it say what it says.

use super::{Arrival, Door, Pass, Probe, Stage};
use crate::frame::Item;
use crate::outcome::DropReason;
use crate::snapshot::{Inlet, PortEntry};
use crate::wire::Plain;

impl<P: Probe> Pass<'_, P> {
    /// Reads one received frame, and finds the stage it enters by. Nothing here depends on the frames around it.
    #[inline]
    pub(crate) fn ingress(&mut self, item: &mut Item, arrival: &mut Arrival) -> Result<(), DropReason> {
        arrival.is_flow = false;
        let (snapshot, port) = (self.snapshot, item.frame.ingress);
        let brief = snapshot.ports.brief(port);
        match brief.inlet {
            Inlet::Bridge(bridge) => {
                self.probe.note(Stage::Ingress, || {
                    let name = snapshot.port(port).map_or("", |entry| entry.name.as_str());
                    format!("port {name} ({} bytes)", item.frame.len())
                });
                (arrival.bridge, arrival.door) = (bridge, Door::Bridge);
            }
            Inlet::Tunnel => (arrival.bridge, arrival.door) = self.decap(item)?,
            Inlet::Nowhere => return Err(DropReason::UnknownPort),
        }
        if self.state.flows.is_on()
            && let Some(plain) = Plain::read(item.frame.bytes(), &item.frame.offload)
        {
            arrival.is_flow = true;
            arrival.plain = plain;
            if let Some(gso) = &mut item.frame.offload.gso {
                gso.header_len = plain.header_len;
            }
        } else {
            item.read_headers()?;
        }
        if brief.limits_egress && !self.is_within_rate(item) {
            arrival.is_flow = false;
            return Err(DropReason::RateEgress);
        }
        Ok(())
    }

    /// The checks of a frame that is well formed: link-layer rules, and the spoof guard.
    pub(super) fn admit(&mut self, item: &Item, entry: &PortEntry) -> Option<DropReason> {
        if let Some(guard) = &entry.guard {
            let refused = super::guard::refuse(item, entry.mac, guard);
            self.probe.note(Stage::Guard, || match refused {
                None => "source MAC and IP are the port's own".into(),
                Some(reason) => format!("{}: {}", reason.name(), reason.meaning()),
            });
            return refused;
        }
        if item.headers.src.is_station() { None } else { Some(DropReason::SourceMacInvalid) }
    }
}
