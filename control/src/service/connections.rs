//! Accepting: no more than [`CONNECTIONS_MAX`] at a time, the rest waits in the socket's backlog, and a failure to accept
//! is waited out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::CONNECTIONS_MAX;

/// How long to wait when the process has no descriptor left to accept with.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A connection that gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

/// The connections of `listener`, as they come and there is place for them, until the stream is dropped.
pub(super) fn accept(listener: UnixListener) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = accept_one(&listener, &places) => accepted,
                () = sender.closed() => return,
            };
            let Some(connection) = accepted else {
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            };
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// The next connection, once there is place; none when it could not be accepted.
async fn accept_one(listener: &UnixListener, places: &Arc<Semaphore>) -> Option<Connection> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some(Connection { stream, _place: place })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn there_are_never_more_than_there_are_places_and_who_waits_comes_next() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let mut accepted = accept(UnixListener::bind(&socket).unwrap());
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 10 {
            clients.push(UnixStream::connect(&socket).await.unwrap());
        }
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            open.push(accepted.next().await.unwrap().unwrap());
        }
        for _ in 0..10 {
            let more = tokio::time::timeout(Duration::from_millis(20), accepted.next()).await;
            assert!(more.is_err(), "there is no place");
            drop(open.pop());
            open.push(accepted.next().await.unwrap().unwrap());
        }
    }
}
