//! What the service manager is told: that podwired is ready, how it is doing, and that it is alive.
//!
//! Alive means that the control side has the time to say so and that every worker makes a pass when it is woken.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::backend::Daemon;
use crate::sys::notify::{self, State};

/// Tells the service manager, if there is one.
pub(super) fn tell(state: State<'_>) {
    if let Err(error) = notify::tell(state) {
        tracing::warn!(%error, ?state, "the service manager could not be told");
    }
}

/// Says that all goes well, if it does.
pub(super) fn tell_alive(daemon: &Daemon) {
    let turning = daemon.controller().turning();
    match turning {
        Ok(()) => tell(State::Alive),
        Err(error) => {
            tracing::error!(%error, "the service manager is not told that podwired is alive");
            tell(State::Status(&error.to_string()));
        }
    }
}

/// The line for `systemctl status`, told when it changed.
#[derive(Debug, Default)]
pub(super) struct StatusLine(String);

impl StatusLine {
    pub(super) fn ready(&mut self, line: String) {
        tell(State::Ready(&line));
        self.0 = line;
    }

    pub(super) fn update(&mut self, line: String) {
        if self.0 != line {
            tell(State::Status(&line));
            self.0 = line;
        }
    }
}

/// When to say that all goes well: never where nobody watches.
#[derive(Debug)]
pub(super) struct Pulse(Option<Interval>);

impl Pulse {
    /// Has to be called inside a tokio runtime.
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self(every.map(|every| {
            let mut timer = interval(every);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        }))
    }

    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(timer) => drop(timer.tick().await),
            None => std::future::pending().await,
        }
    }
}
