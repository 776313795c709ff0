//! The calls: out of the protocol, to the backend on a thread that may block, and back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Request, Response, Status};

use super::{Backend, BackendError, EVENT_STREAMS_MAX, events};
use crate::convert::{ConvertError, attachment_key, each, enumeration, ipam, optional, refusals, rows, text, texts};
use crate::model::{AttachmentKey, Key, Object, Owner, Refusal};
use crate::proto as pb;
use crate::proto::podwire_server::Podwire;

/// Calls that only read, at a time.
const READS_MAX: usize = 4;

/// The service's state.
#[derive(Debug)]
pub(super) struct Calls<B> {
    backend: Arc<B>,
    /// One change at a time, first come, first served.
    changes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

type Answer<T> = Result<Response<T>, Status>;

impl<B: Backend> Calls<B> {
    pub(super) fn new(backend: Arc<B>, stopping: watch::Receiver<bool>) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { backend, changes: places(1), reads: places(READS_MAX), streams: places(EVENT_STREAMS_MAX), stopping }
    }

    /// Runs `work` on a thread that may block. A caller that goes away while waiting is forgotten; once begun, the
    /// work is finished.
    async fn run<T, W>(&self, places: &Arc<Semaphore>, work: W) -> Answer<T>
    where
        T: Send + 'static,
        W: FnOnce(&B) -> Result<T, BackendError> + Send + 'static,
    {
        let gone = |_| Status::unavailable("podwired is stopping; try again when it runs");
        let place = Arc::clone(places).acquire_owned().await.map_err(gone)?;
        let backend = Arc::clone(&self.backend);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&backend)
        });
        let result = done.await.unwrap_or_else(|_| Err(BackendError::Internal("podwired failed in this call".into())));
        result.map(Response::new).map_err(|error| status(&error))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&B) -> Result<T, BackendError> + Send + 'static,
    ) -> Answer<T> {
        self.run(&self.reads, work).await
    }
}

/// The status that says `error`, with refusals in its details.
fn status(error: &BackendError) -> Status {
    let message = refusals::bounded(error.to_string());
    let (code, refused) = match error {
        BackendError::Refused(refused) => (Code::InvalidArgument, refused.as_slice()),
        BackendError::NotFound(refusal) => (Code::NotFound, std::slice::from_ref(refusal)),
        BackendError::AlreadyExists(refusal) => (Code::AlreadyExists, std::slice::from_ref(refusal)),
        BackendError::Exhausted(refusal) => (Code::ResourceExhausted, std::slice::from_ref(refusal)),
        BackendError::Unavailable(_) => return Status::unavailable(message),
        BackendError::Internal(_) => return Status::internal(message),
    };
    Status::with_details(code, message, refusals::encode(refused).into())
}

impl From<ConvertError> for BackendError {
    fn from(error: ConvertError) -> Self {
        Self::Refused(vec![error.refusal()])
    }
}

/// The owner of a statement: only some may be used from outside.
fn stating_owner(number: i32) -> Result<Owner, BackendError> {
    let owner: Owner = enumeration("statement", "owner", number)?;
    if owner.may_use_api() {
        return Ok(owner);
    }
    let reason = "can not be used through the API; use cli, cni, kubernetes or etcd";
    Err(BackendError::Refused(vec![Refusal::new(format!("owner {owner}"), reason)]))
}

/// All of a statement's parts, or all that is wrong with them.
fn statement(objects: Vec<pb::Object>, keys: Vec<pb::Key>) -> Result<(Vec<Object>, Vec<Key>), BackendError> {
    let mut refused = Vec::new();
    let objects: Vec<Object> = parts(objects, &mut refused);
    let keys: Vec<Key> = parts(keys, &mut refused);
    let mut seen = HashSet::with_capacity(objects.len() + keys.len());
    for key in objects.iter().map(Object::key).chain(keys.iter().cloned()) {
        if let Some(twice) = seen.replace(key) {
            refused.push(Refusal::new(twice, "it is stated twice; state it once"));
        }
    }
    if refused.is_empty() { Ok((objects, keys)) } else { Err(BackendError::Refused(refused)) }
}

fn parts<A, T: TryFrom<A, Error = ConvertError>>(given: Vec<A>, refused: &mut Vec<Refusal>) -> Vec<T> {
    given.into_iter().filter_map(|part| T::try_from(part).map_err(|error| refused.push(error.refusal())).ok()).collect()
}

#[tonic::async_trait]
impl<B: Backend> Podwire for Calls<B> {
    type WatchEventsStream = events::Stream;

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        self.read(|backend| Ok(backend.status()?.into())).await
    }

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Answer<pb::ApplyResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let owner = stating_owner(given.owner)?;
            let (objects, _) = statement(given.objects, Vec::new())?;
            Ok(pb::ApplyResponse { applied: Some(backend.apply(owner, objects)?.into()) })
        };
        self.run(&self.changes, work).await
    }

    async fn change(&self, request: Request<pb::ChangeRequest>) -> Answer<pb::ChangeResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let owner = stating_owner(given.owner)?;
            let (upserts, deletes) = statement(given.upserts, given.deletes)?;
            Ok(pb::ChangeResponse { applied: Some(backend.change(owner, upserts, deletes)?.into()) })
        };
        self.run(&self.changes, work).await
    }

    async fn list_ports(&self, _: Request<pb::ListPortsRequest>) -> Answer<pb::ListPortsResponse> {
        self.read(|backend| Ok(pb::ListPortsResponse { ports: each(backend.ports()?) })).await
    }

    async fn list_bridges(&self, _: Request<pb::ListBridgesRequest>) -> Answer<pb::ListBridgesResponse> {
        self.read(|backend| Ok(pb::ListBridgesResponse { bridges: each(backend.bridges()?) })).await
    }

    async fn list_macs(&self, request: Request<pb::ListMacsRequest>) -> Answer<pb::ListMacsResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let bridge = optional("mac list", "bridge", given.bridge.as_ref())?;
            Ok(pb::ListMacsResponse { macs: each(backend.macs(bridge.as_ref())?) })
        };
        self.read(work).await
    }

    async fn list_routes(&self, _: Request<pb::ListRoutesRequest>) -> Answer<pb::ListRoutesResponse> {
        self.read(|backend| Ok(pb::ListRoutesResponse { routes: each(backend.routes()?) })).await
    }

    async fn list_vteps(&self, _: Request<pb::ListVtepsRequest>) -> Answer<pb::ListVtepsResponse> {
        self.read(|backend| Ok(pb::ListVtepsResponse { vteps: each(backend.vteps()?) })).await
    }

    async fn get_route(&self, request: Request<pb::GetRouteRequest>) -> Answer<pb::GetRouteResponse> {
        let given = request.into_inner();
        self.read(move |backend| Ok(backend.route(text("route get", "address", &given.address)?)?.into())).await
    }

    async fn get_counters(&self, _: Request<pb::GetCountersRequest>) -> Answer<pb::GetCountersResponse> {
        self.read(|backend| Ok(backend.counters()?.into())).await
    }

    async fn list_drops(&self, _: Request<pb::ListDropsRequest>) -> Answer<pb::ListDropsResponse> {
        self.read(|backend| Ok(pb::ListDropsResponse { drops: each(backend.drops()?) })).await
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        let given = request.into_inner();
        self.read(move |backend| Ok(backend.explain(given.try_into()?)?.into())).await
    }

    async fn watch_events(&self, _: Request<pb::WatchEventsRequest>) -> Answer<events::Stream> {
        let full = |_| Status::resource_exhausted(format!("{EVENT_STREAMS_MAX} event streams are open; close one"));
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(full)?;
        Ok(Response::new(events::stream(self.backend.events(), self.stopping.clone(), place)))
    }

    async fn get_ipam(&self, _: Request<pb::GetIpamRequest>) -> Answer<pb::GetIpamResponse> {
        self.read(|backend| Ok(backend.ipam()?.into())).await
    }

    async fn change_ranges(&self, request: Request<pb::ChangeRangesRequest>) -> Answer<pb::ChangeRangesResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let (add, remove) = ipam::ranges(&given.add, &given.remove)?;
            Ok(backend.change_ranges(add, remove)?.into())
        };
        self.run(&self.changes, work).await
    }

    async fn list_limits(&self, _: Request<pb::ListLimitsRequest>) -> Answer<pb::ListLimitsResponse> {
        self.read(|backend| Ok(pb::ListLimitsResponse { limits: each(backend.limits()?) })).await
    }

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Answer<pb::AttachResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let attachment = backend.attach(given.try_into()?)?;
            Ok(pb::AttachResponse { attachment: Some((&attachment).into()) })
        };
        self.run(&self.changes, work).await
    }

    async fn detach(&self, request: Request<pb::DetachRequest>) -> Answer<pb::DetachResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| Ok(pb::DetachResponse { found: backend.detach(&attachment_key(given.key)?)? });
        self.run(&self.changes, work).await
    }

    async fn check_attachment(
        &self,
        request: Request<pb::CheckAttachmentRequest>,
    ) -> Answer<pb::CheckAttachmentResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let key = attachment_key(given.key)?;
            let addresses: Vec<IpNet> = texts(&key.to_string(), "address", &given.addresses)?;
            let drifts = backend.check_attachment(&key, Path::new(&given.netns), &addresses)?;
            Ok(pb::CheckAttachmentResponse { drifts })
        };
        self.read(work).await
    }

    async fn collect_attachments(
        &self,
        request: Request<pb::CollectAttachmentsRequest>,
    ) -> Answer<pb::CollectAttachmentsResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let valid: Vec<AttachmentKey> = rows(given.valid)?;
            let network = text("collection", "network", &given.network)?;
            let removed = backend.collect_attachments(&network, &valid)?;
            Ok(pb::CollectAttachmentsResponse { removed: removed.iter().map(Into::into).collect() })
        };
        self.run(&self.changes, work).await
    }

    async fn list_attachments(&self, _: Request<pb::ListAttachmentsRequest>) -> Answer<pb::ListAttachmentsResponse> {
        let work = |backend: &B| {
            let attachments = backend.attachments()?.iter().map(Into::into).collect();
            Ok(pb::ListAttachmentsResponse { attachments })
        };
        self.read(work).await
    }

    async fn release_address(&self, request: Request<pb::ReleaseAddressRequest>) -> Answer<pb::ReleaseAddressResponse> {
        let given = request.into_inner();
        let work = move |backend: &B| {
            let address = text("ipam release", "address", &given.address)?;
            let key = backend.release_address(address, given.force)?;
            Ok(pb::ReleaseAddressResponse { key: Some((&key).into()) })
        };
        self.run(&self.changes, work).await
    }

    async fn get_readiness(&self, _: Request<pb::GetReadinessRequest>) -> Answer<pb::GetReadinessResponse> {
        self.read(|backend| Ok(backend.readiness()?.into())).await
    }
}
