//! The connection to podwired: one, and one call at a time.

use std::io;
use std::path::Path;
use std::time::Duration;

use podwire_control::client::{Client, ClientError};
use tokio::runtime::{Builder, Runtime};

/// A connection.
#[derive(Debug)]
pub(crate) struct Daemon {
    runtime: Runtime,
    client: Client,
}

impl Daemon {
    /// Connects; `deadline` is for that and for each call.
    pub(crate) fn connect(socket: &Path, deadline: Duration) -> Result<Self, ClientError> {
        let unreachable =
            |error: io::Error| ClientError::Unreachable { socket: socket.to_owned(), why: error.to_string() };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
        let client = runtime.block_on(Client::connect(socket, deadline))?;
        Ok(Self { runtime, client })
    }

    /// Makes one call.
    pub(crate) fn call<T>(&self, call: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        self.runtime.block_on(call(&self.client))
    }
}
