//! The control API's calls, answered by the controller under one lock.
//!
//! The lock is the control side's only one; no worker ever takes it, so a flooded API disturbs no frame.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use podwire_control::model::{
    Applied, AttachRequest, Attachment, AttachmentKey, BridgeName, BridgeReport, CounterReport, DropReport, Event,
    ExplainQuery, Explanation, IpRange, IpamReport, Key, Limit, MacReport, NetworkName, Object, Owner, PortReport,
    RangesChanged, Readiness, Refusal, RouteMatch, RouteReport, Status, VtepReport,
};
use podwire_control::service::{Backend, BackendError, LIMITS};
use tokio::sync::broadcast;

use super::controller::Controller;
use super::events::EventBus;
use super::ledger::Change;

/// The daemon, as the control service sees it.
#[derive(Clone, Debug)]
pub struct Daemon {
    controller: Arc<Mutex<Controller>>,
    events: EventBus,
}

impl Daemon {
    /// Serves this controller.
    #[must_use]
    pub fn new(controller: Controller, events: EventBus) -> Self {
        Self { controller: Arc::new(Mutex::new(controller)), events }
    }

    /// The controller, for this thread alone. A thread that panicked with it left it usable: every change is
    /// published whole or not at all.
    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(mut refusals: Vec<Refusal>, deletes_one: bool) -> BackendError {
    match refusals.len() {
        1 if deletes_one => BackendError::NotFound(refusals.remove(0)),
        _ => BackendError::Refused(refusals),
    }
}

impl Backend for Daemon {
    fn status(&self) -> Result<Status, BackendError> {
        Ok(self.controller().status())
    }

    fn apply(&self, owner: Owner, objects: Vec<Object>) -> Result<Applied, BackendError> {
        self.controller().apply(owner, objects).map_err(|refusals| refused(refusals, false))
    }

    fn change(&self, owner: Owner, upserts: Vec<Object>, deletes: Vec<Key>) -> Result<Applied, BackendError> {
        let mut controller = self.controller();
        let missing = upserts.is_empty() && deletes.len() == 1 && !controller.has(owner, &deletes[0]);
        let change = Change { upserts, deletes, ignore_missing: false };
        controller.change(owner, change).map_err(|refusals| refused(refusals, missing))
    }

    fn ports(&self) -> Result<Vec<PortReport>, BackendError> {
        Ok(self.controller().ports())
    }

    fn bridges(&self) -> Result<Vec<BridgeReport>, BackendError> {
        Ok(self.controller().bridges())
    }

    fn macs(&self, bridge: Option<&BridgeName>) -> Result<Vec<MacReport>, BackendError> {
        self.controller().macs(bridge).map_err(BackendError::NotFound)
    }

    fn routes(&self) -> Result<Vec<RouteReport>, BackendError> {
        Ok(self.controller().routes())
    }

    fn vteps(&self) -> Result<Vec<VtepReport>, BackendError> {
        Ok(self.controller().vteps())
    }

    fn route(&self, address: IpAddr) -> Result<RouteMatch, BackendError> {
        self.controller().route(address).map_err(BackendError::NotFound)
    }

    fn counters(&self) -> Result<CounterReport, BackendError> {
        Ok(self.controller().counters())
    }

    fn drops(&self) -> Result<Vec<DropReport>, BackendError> {
        Ok(self.controller().drops())
    }

    fn explain(&self, query: ExplainQuery) -> Result<Explanation, BackendError> {
        self.controller().explain(&query).map_err(|refusal| BackendError::Refused(vec![refusal]))
    }

    fn ipam(&self) -> Result<IpamReport, BackendError> {
        Ok(self.controller().ipam())
    }

    fn change_ranges(&self, add: Vec<IpRange>, remove: Vec<IpRange>) -> Result<RangesChanged, BackendError> {
        let mut controller = self.controller();
        let missing = add.is_empty() && remove.len() == 1 && !controller.has_range(remove[0]);
        controller.change_ranges(&add, &remove).map_err(|refusals| refused(refusals, missing))
    }

    fn limits(&self) -> Result<Vec<Limit>, BackendError> {
        let api = LIMITS.iter().map(|&(name, value, unit)| Limit { name: name.into(), value, unit: unit.into() });
        Ok(self.controller().limits().into_iter().chain(api).collect())
    }

    fn attach(&self, request: AttachRequest) -> Result<Attachment, BackendError> {
        self.controller().attach(request)
    }

    fn detach(&self, key: &AttachmentKey) -> Result<bool, BackendError> {
        self.controller().detach(key)
    }

    fn check_attachment(
        &self,
        key: &AttachmentKey,
        netns: &Path,
        addresses: &[IpNet],
    ) -> Result<Vec<String>, BackendError> {
        self.controller().check_attachment(key, netns, addresses)
    }

    fn collect_attachments(
        &self,
        network: &NetworkName,
        valid: &[AttachmentKey],
    ) -> Result<Vec<AttachmentKey>, BackendError> {
        self.controller().collect_attachments(network, valid)
    }

    fn attachments(&self) -> Result<Vec<Attachment>, BackendError> {
        Ok(self.controller().attachments())
    }

    fn release_address(&self, address: IpAddr, force: bool) -> Result<AttachmentKey, BackendError> {
        self.controller().release_address(address, force)
    }

    fn readiness(&self) -> Result<Readiness, BackendError> {
        Ok(self.controller().readiness())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
