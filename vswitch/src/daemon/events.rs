//! What happened, for those who watch: a bounded broadcast, on the control side only.
//!
//! Nobody who watches can hold the switch up: the oldest events are overwritten, and a reader that was too slow is
//! told how many it missed. Workers never publish; what they notice reaches the control side first.

use std::fmt;

use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

/// Events kept for slow readers.
pub const EVENTS_KEPT: usize = 1_024;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// What kind of thing happened.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum EventKind { $($(#[doc = $doc])+ $variant,)+ }

        impl EventKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name the CLI and the protocol show.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

kinds! {
    /// A port was attached.
    PortAdded = "port_added",
    /// A port was taken away on request.
    PortRemoved = "port_removed",
    /// A port's device or namespace is gone.
    PortClosed = "port_closed",
    /// A bridge was added, changed or removed.
    BridgeChanged = "bridge_changed",
    /// A static MAC was added, changed or removed.
    MacChanged = "mac_changed",
    /// A route was added, changed or removed.
    RouteChanged = "route_changed",
    /// A VTEP was added, changed or removed.
    VtepChanged = "vtep_changed",
    /// A learned MAC moved to another port.
    MacMoved = "mac_moved",
    /// The underlay takes less than was thought.
    PathMtuLowered = "path_mtu_lowered",
    /// A device's offload was switched off.
    OffloadDisabled = "offload_disabled",
    /// All workers use a new snapshot.
    GenerationPublished = "generation_published",
    /// The reader was too slow and missed events.
    EventsMissed = "events_missed",
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The object, as its key is shown: `port pod-a`. Empty when it concerns the whole switch.
    pub object: String,
    /// One sentence for people.
    pub text: String,
}

/// Where events are published and from where they are watched.
#[derive(Clone)]
pub struct EventBus {
    sender: broadcast::Sender<Event>,
    clock_ms: fn() -> u64,
}

impl EventBus {
    /// A bus that keeps [`EVENTS_KEPT`] events; `clock_ms` gives milliseconds since 1970.
    #[must_use]
    pub fn new(clock_ms: fn() -> u64) -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_KEPT), clock_ms }
    }

    /// Tells everybody who watches now. Never blocks; costs next to nothing when nobody does.
    pub fn publish(&self, kind: EventKind, object: impl fmt::Display, text: impl fmt::Display) {
        if self.sender.receiver_count() > 0 {
            let (time_ms, object, text) = ((self.clock_ms)(), object.to_string(), text.to_string());
            // Fails only when the last watcher left just now.
            let _ = self.sender.send(Event { time_ms, kind, object, text });
        }
    }

    /// Watches from now on. A reader that falls behind gets a [`EventKind::EventsMissed`] event and goes on with the
    /// oldest one kept. The stream ends when the bus and all its clones are gone.
    pub fn watch(&self) -> impl Stream<Item = Event> + Send + use<> {
        let clock_ms = self.clock_ms;
        BroadcastStream::new(self.sender.subscribe()).map(move |received| match received {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(missed)) => Event {
                time_ms: clock_ms(),
                kind: EventKind::EventsMissed,
                object: String::new(),
                text: format!("this reader was too slow and missed {missed} events"),
            },
        })
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.sender.receiver_count()
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("watchers", &self.watchers()).finish_non_exhaustive()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publishes before and after watching starts, and gives what the watcher then sees.
    async fn seen(before: usize, after: usize) -> Vec<Event> {
        let bus = EventBus::new(|| 7);
        let publish = |n: usize| bus.publish(EventKind::PortAdded, "port a", n);
        (0..before).for_each(publish);
        let watch = bus.watch();
        assert_eq!(bus.watchers(), 1);
        (0..after).for_each(publish);
        drop(bus);
        watch.collect().await
    }

    #[tokio::test]
    async fn a_watcher_sees_what_happens_from_then_on_in_order() {
        let events = seen(3, 2).await;
        let event =
            |text: &str| Event { time_ms: 7, kind: EventKind::PortAdded, object: "port a".into(), text: text.into() };
        assert_eq!(events, [event("0"), event("1")]);
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_missed_and_goes_on() {
        let events = seen(0, EVENTS_KEPT + 3).await;
        assert_eq!(events.len(), EVENTS_KEPT + 1);
        assert_eq!(events[0].kind, EventKind::EventsMissed);
        assert!(events[0].text.contains("missed 3 events"), "{}", events[0].text);
        assert_eq!((events[1].text.as_str(), events[EVENTS_KEPT].text.as_str()), ("3", "1026"));
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        let mut names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EventKind::ALL.len());
    }
}
