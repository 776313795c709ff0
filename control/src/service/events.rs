//! The event stream: a task a reader between the daemon's broadcast and the connection, so that a slow reader loses
//! events, is told how many, and holds nobody up.

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::stopped;
use crate::model::{Event, EventKind};
use crate::proto as pb;

/// Events on their way to one reader.
const IN_FLIGHT: usize = 64;

/// What the reader gets.
pub(super) type Stream = ReceiverStream<Result<pb::Event, Status>>;

/// Starts handing `events` on until the reader goes or the service stops; `place` is given back then.
pub(super) fn stream(
    events: broadcast::Receiver<Event>,
    stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Stream {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = hand_on(events, &sender) => {}
            () = sender.closed() => {}
            () = stopped(stopping) => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn hand_on(mut events: broadcast::Receiver<Event>, sender: &mpsc::Sender<Result<pb::Event, Status>>) {
    let mut last_time_ms = 0;
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => Event {
                time_ms: last_time_ms,
                kind: EventKind::EventsMissed,
                object: "events".into(),
                text: format!("{missed} events were missed, because this reader is too slow"),
            },
            Err(RecvError::Closed) => return,
        };
        last_time_ms = event.time_ms;
        if sender.send(Ok(event.into())).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_events_it_missed() {
        let (news, events) = broadcast::channel(4);
        let (_stop, stopping) = watch::channel(false);
        for time_ms in 0..10 {
            let event = Event { time_ms, kind: EventKind::MacMoved, object: "mac".into(), text: String::new() };
            news.send(event).unwrap();
        }
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let mut stream = stream(events, stopping, place);
        let first = stream.next().await.unwrap().unwrap();
        assert!(first.text.starts_with("6 events were missed"), "{first:?}");
        assert_eq!(stream.next().await.unwrap().unwrap().time_ms, 6);
        drop(stream);
        places.acquire().await.unwrap().forget(); // the place came back
    }
}
