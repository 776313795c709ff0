//! The gRPC service on a Unix socket, over a [`Backend`] that the daemon implements with plain model types.
//!
//! Nothing said here can hurt forwarding: connections, calls, their length and their time are bounded, and a change
//! that was begun is finished whether or not its caller is still there.

mod calls;
mod connections;
mod events;
mod socket;

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tonic::transport::Server;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::model::{
    Applied, AttachRequest, Attachment, AttachmentKey, BridgeName, BridgeReport, CounterReport, DropReport, Event,
    ExplainQuery, Explanation, IpRange, IpamReport, Key, Limit, MacReport, NetworkName, Object, Owner, PortReport,
    RangesChanged, Readiness, Refusal, RouteMatch, RouteReport, Status, VtepReport,
};
use crate::proto::podwire_server::PodwireServer;

pub use socket::{BindError, bind};

/// Open connections; more wait until one is closed, so that the API can not use up the daemon's descriptors. Clients that
/// wait give up at their own deadline.
pub const CONNECTIONS_MAX: usize = 64;
/// Calls one connection may have under way.
pub const CALLS_PER_CONNECTION_MAX: u32 = 16;
/// Calls under way over all connections, event streams not counted; more wait.
pub const CALLS_MAX: usize = 16;
/// Bytes of one request: 200,000 routes fit.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Bytes of one answer.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Seconds a call may take, waiting included.
pub const CALL_SECONDS_MAX: u64 = 30;
/// Event streams open at once.
pub const EVENT_STREAMS_MAX: usize = 32;
/// Seconds that calls under way get to finish when the daemon stops.
pub const STOP_SECONDS_MAX: u64 = 2;

/// The API's limits, for `podwire show limits`.
pub const LIMITS: &[(&str, u64, &str)] = &[
    ("api_connections", CONNECTIONS_MAX as u64, "connections"),
    ("api_calls_per_connection", CALLS_PER_CONNECTION_MAX as u64, "calls"),
    ("api_calls", CALLS_MAX as u64, "calls"),
    ("api_request", REQUEST_BYTES_MAX as u64, "bytes"),
    ("api_response", RESPONSE_BYTES_MAX as u64, "bytes"),
    ("api_call", CALL_SECONDS_MAX, "seconds"),
    ("api_event_streams", EVENT_STREAMS_MAX as u64, "streams"),
];

/// What the service asks of the daemon.
///
/// Calls come from threads that may block. Those that change something never run at the same time as one another, are
/// never given up halfway, and return only when every worker uses the new generation. Their objects are valid by
/// themselves and no key is stated twice; their owner is one that may use the API.
pub trait Backend: Send + Sync + 'static {
    /// What the switch is and how it is doing.
    ///
    /// # Errors
    /// Every method answers with a [`BackendError`] when it can not do what it is asked.
    fn status(&self) -> Result<Status, BackendError>;
    /// Replaces all that `owner` stated by `objects`, or nothing.
    fn apply(&self, owner: Owner, objects: Vec<Object>) -> Result<Applied, BackendError>;
    /// Adds or changes `upserts` and removes `deletes` of what `owner` stated, all or nothing.
    fn change(&self, owner: Owner, upserts: Vec<Object>, deletes: Vec<Key>) -> Result<Applied, BackendError>;
    /// Ports of every role.
    fn ports(&self) -> Result<Vec<PortReport>, BackendError>;
    /// Bridges, the node's pod segment among them.
    fn bridges(&self) -> Result<Vec<BridgeReport>, BackendError>;
    /// MACs of one bridge, or of all.
    fn macs(&self, bridge: Option<&BridgeName>) -> Result<Vec<MacReport>, BackendError>;
    /// Routes of every owner.
    fn routes(&self) -> Result<Vec<RouteReport>, BackendError>;
    /// Remote VTEPs.
    fn vteps(&self) -> Result<Vec<VtepReport>, BackendError>;
    /// The route that `address` takes; `NotFound` when there is none.
    fn route(&self, address: IpAddr) -> Result<RouteMatch, BackendError>;
    /// All counters.
    fn counters(&self) -> Result<CounterReport, BackendError>;
    /// Every drop reason.
    fn drops(&self) -> Result<Vec<DropReport>, BackendError>;
    /// The walk of a made-up frame.
    fn explain(&self, query: ExplainQuery) -> Result<Explanation, BackendError>;
    /// The ranges that pods' addresses are leased from.
    fn ipam(&self) -> Result<IpamReport, BackendError>;
    /// Adds and removes ranges of the CLI, all or nothing; `NotFound` for a single one that is to go and is not there.
    fn change_ranges(&self, add: Vec<IpRange>, remove: Vec<IpRange>) -> Result<RangesChanged, BackendError>;
    /// Every fixed limit, [`LIMITS`] among them.
    fn limits(&self) -> Result<Vec<Limit>, BackendError>;
    /// Wires a container's interface, whole or not at all; the same request again is answered the same. `Exhausted` when
    /// no address is free.
    fn attach(&self, request: AttachRequest) -> Result<Attachment, BackendError>;
    /// Takes a container's interface away with all it holds; false when there is none.
    fn detach(&self, key: &AttachmentKey) -> Result<bool, BackendError>;
    /// What of an attachment is not as it was made, a sentence each. `netns` and `addresses` are what the runtime knows.
    fn check_attachment(
        &self,
        key: &AttachmentKey,
        netns: &Path,
        addresses: &[IpNet],
    ) -> Result<Vec<String>, BackendError>;
    /// Takes away the attachments of a network that are not among `valid`; gives their keys.
    fn collect_attachments(
        &self,
        network: &NetworkName,
        valid: &[AttachmentKey],
    ) -> Result<Vec<AttachmentKey>, BackendError>;
    /// All attachments.
    fn attachments(&self) -> Result<Vec<Attachment>, BackendError>;
    /// Frees a leased address whose container is gone (or, with `force`, is not), by detaching it.
    fn release_address(&self, address: IpAddr, force: bool) -> Result<AttachmentKey, BackendError>;
    /// Whether containers can be attached, and how those that are fare.
    fn readiness(&self) -> Result<Readiness, BackendError>;
    /// Events from now on. Must not block. A reader that is too slow is told how many it missed.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// Why the daemon does not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackendError {
    /// The statement was refused, and nothing of it done.
    #[error("{}", listed(.0))]
    Refused(Vec<Refusal>),
    /// The object does not exist.
    #[error("{0}")]
    NotFound(Refusal),
    /// The object exists already, stated by another.
    #[error("{0}")]
    AlreadyExists(Refusal),
    /// There is no more of what was asked for.
    #[error("{0}")]
    Exhausted(Refusal),
    /// Not now; the text says why and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The daemon's own fault.
    #[error("{0}; see podwired's log")]
    Internal(String),
}

fn listed(refusals: &[Refusal]) -> String {
    match refusals {
        [] => "refused without a reason; see podwired's log".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// The service could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors that reflection shows do not parse: a build fault.
    #[error("cannot set up gRPC reflection: {0}; rebuild podwired")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the gRPC service stopped: {0}; restart podwired")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `backend` with health and reflection until `shutdown` is done; then calls under way get
/// [`STOP_SECONDS_MAX`], and event streams end.
///
/// # Errors
/// When the listener fails.
pub async fn serve<B: Backend>(
    listener: UnixListener,
    backend: Arc<B>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopping) = watch::channel(false);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PodwireServer<calls::Calls<B>>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let podwire = PodwireServer::new(calls::Calls::new(backend, stopping.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let server = Server::builder()
        .timeout(Duration::from_secs(CALL_SECONDS_MAX))
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .layer(GlobalConcurrencyLimitLayer::new(CALLS_MAX))
        .add_service(podwire)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(connections::accept(listener), stopped(stopping));
    tokio::pin!(server, shutdown);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = &mut shutdown => {}
    }
    health.set_not_serving::<PodwireServer<calls::Calls<B>>>().await;
    let _ = stop.send(true); // nobody left to tell is fine
    match tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), server).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Ok(()), // whoever still holds a connection is cut off
    }
}

/// Resolves when the service is to stop.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await; // a lost sender means the same
}
