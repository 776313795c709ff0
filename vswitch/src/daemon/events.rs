//! What happened, for those who watch: a bounded broadcast, on the control side only.
//!
//! Nobody who watches can hold the switch up: the oldest events are overwritten, and a reader that was too slow is
//! told how many it missed. Workers never publish; what they notice reaches the control side first.

use std::fmt;

use podwire_control::model::{Event, EventKind};
use tokio::sync::broadcast;

/// Events kept for slow readers.
pub const EVENTS_KEPT: usize = 1_024;

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

    /// Watches from now on. A reader that falls behind is told how many it missed, and goes on with the oldest kept.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_sees_what_happens_from_then_on_in_order() {
        let bus = EventBus::new(|| 7);
        bus.publish(EventKind::PortAdded, "port a", "before");
        let mut watch = bus.subscribe();
        assert_eq!(bus.watchers(), 1);
        bus.publish(EventKind::PortAdded, "port a", "0");
        bus.publish(EventKind::PortRemoved, "port a", "1");
        let event = |kind, text: &str| Event { time_ms: 7, kind, object: "port a".into(), text: text.into() };
        assert_eq!(watch.recv().await.unwrap(), event(EventKind::PortAdded, "0"));
        assert_eq!(watch.recv().await.unwrap(), event(EventKind::PortRemoved, "1"));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_missed_and_goes_on() {
        let bus = EventBus::new(|| 7);
        let mut watch = bus.subscribe();
        (0..EVENTS_KEPT + 3).for_each(|n| bus.publish(EventKind::PortAdded, "port a", n));
        assert_eq!(watch.recv().await, Err(broadcast::error::RecvError::Lagged(3)));
        assert_eq!(watch.recv().await.unwrap().text, "3");
    }
}
