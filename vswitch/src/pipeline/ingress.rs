//! First stage: who sent it, is it well formed, and may it say what it says.

use super::{Decision, Origin, Pass, Probe, Stage};
use crate::frame::Item;
use crate::outcome::DropReason;
use crate::snapshot::{PortEntry, Role};

impl<P: Probe> Pass<'_, P> {
    /// Decides one received frame.
    #[inline]
    pub(crate) fn ingress(&mut self, item: &mut Item) -> Decision {
        let port = item.frame.ingress;
        let snapshot = self.snapshot;
        let Some(entry) = snapshot.port(port) else {
            return Decision::drop(DropReason::UnknownPort);
        };
        if entry.role == Role::Uplink {
            return self.decap(item);
        }
        self.probe.note(Stage::Ingress, || format!("port {} ({} bytes)", entry.name, item.frame.len()));
        let Some(bridge) = entry.bridge else {
            return Decision::drop(DropReason::UnknownPort);
        };
        if let Some(reason) = parse(item).or_else(|| self.admit(item, entry)) {
            return Decision::drop(reason);
        }
        self.bridge(item, Origin { port, role: entry.role, bridge })
    }

    /// The checks of a frame that is well formed: link-layer rules, and the spoof guard.
    fn admit(&mut self, item: &Item, entry: &PortEntry) -> Option<DropReason> {
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

/// Parses the frame's headers into the item, and puts its offload right by them.
#[inline]
pub(super) fn parse(item: &mut Item) -> Option<DropReason> {
    if let Err(reason) = crate::wire::parse_into(item.frame.bytes(), &item.frame.offload, &mut item.headers) {
        return Some(reason);
    }
    if let Some(gso) = &mut item.frame.offload.gso {
        gso.header_len = u16::try_from(item.headers.header_len()).unwrap_or(u16::MAX);
    }
    None
}
