//! A client of the daemon's Unix socket: a method per call, model types in and out.

mod calls;
mod error;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status as GrpcStatus, Streaming};

use crate::convert::ConvertError;
use crate::model::Event;
use crate::proto as pb;
use crate::proto::podwire_client::PodwireClient;

pub use error::ClientError;

/// Where the daemon listens unless it is configured otherwise.
pub const SOCKET: &str = "/run/podwire/podwired.sock";
/// Bytes of one answer.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

type Result<T> = std::result::Result<T, ClientError>;

/// A connection to the daemon; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: PodwireClient<Channel>,
    socket: PathBuf,
    deadline: Duration,
}

/// What happens, as it happens.
#[derive(Debug)]
pub struct Events {
    stream: Streaming<pb::Event>,
    socket: PathBuf,
}

impl Client {
    /// Connects; `deadline` is for connecting and for each later call.
    ///
    /// # Errors
    /// Every method answers with a [`ClientError`] that names the socket or the object, and the remedy.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never looked up; the connector knows where to go.
        let endpoint = Endpoint::from_static("http://podwired");
        let unreachable = |why: String| ClientError::Unreachable { socket: socket.to_owned(), why };
        let channel = match tokio::time::timeout(deadline, endpoint.connect_with_connector(connector)).await {
            Ok(connected) => connected.map_err(|error| unreachable(innermost(&error)))?,
            Err(_) => return Err(unreachable(format!("no connection within {} s", deadline.as_secs()))),
        };
        let grpc = PodwireClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        Ok(Self { grpc, socket: socket.to_owned(), deadline })
    }

    /// Makes one call within the deadline and reads its answer.
    async fn call<Q, A, F, T>(
        &self,
        name: &'static str,
        request: Q,
        call: impl FnOnce(PodwireClient<Channel>, Request<Q>) -> F,
        read: impl FnOnce(A) -> std::result::Result<T, ConvertError>,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<Response<A>, GrpcStatus>>,
    {
        let mut request = Request::new(request);
        request.set_timeout(self.deadline);
        let seconds = self.deadline.as_secs();
        let answer = match tokio::time::timeout(self.deadline, call(self.grpc.clone(), request)).await {
            Ok(answer) => answer.map_err(|status| ClientError::of_status(&status, &self.socket, name, seconds))?,
            Err(_) => return Err(ClientError::Deadline { socket: self.socket.clone(), call: name, seconds }),
        };
        read(answer.into_inner()).map_err(|error| ClientError::Answer { call: name, error })
    }
}

/// What the system said, below the layers that only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Events {
    /// The next event; none when the daemon stops.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        let next = self.stream.message().await;
        let next = next.map_err(|status| ClientError::of_status(&status, &self.socket, "watch_events", 0))?;
        Ok(next.map(Into::into))
    }
}
