//! TAP queues that the service manager keeps open while podwired is away, so that packets wait in them
//! (docs/decisions/0023).
//!
//! It gives them back with the next start. What no port asks for is let go of, since a queue keeps its pod's namespace
//! alive.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::port::interface::InterfaceSpec;
use crate::port::tap::TapPort;
use crate::sys::netns::identity_of;
use crate::sys::notify;
use crate::sys::tap::{TapIdentity, identify};

/// What was given back and nobody has claimed yet: port and queue.
#[derive(Debug)]
pub(super) struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    /// Takes back what was kept of the process before this one.
    pub(super) fn take_back() -> Self {
        Self(notify::kept().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the service manager kept can not be taken back; packets that waited are lost");
            Vec::new()
        }))
    }

    /// The queues of a port, if they are of the very interface that it names. Others are let go of.
    pub(super) fn claim(&mut self, port: &str, spec: &InterfaceSpec) -> Option<Vec<OwnedFd>> {
        let of_port = self.0.extract_if(.., |(name, _)| name == port);
        let queues: Vec<OwnedFd> = of_port.map(|(_, queue)| queue).collect();
        if queues.is_empty() {
            return None;
        }
        let own = spec.netns.as_deref().unwrap_or(Path::new("/proc/thread-self/ns/net"));
        let wanted = identity_of(own).map(|netns| TapIdentity { ifname: spec.ifname.clone(), netns });
        if wanted.is_some() && queues.iter().all(|queue| identify(queue.as_fd()) == wanted) {
            return Some(queues);
        }
        tracing::info!(port, "what was kept of the port is of another interface, and not used");
        drop_kept(port);
        None
    }

    /// Lets go of the rest.
    pub(super) fn release(&mut self) {
        for (port, _queue) in self.0.drain(..) {
            drop_kept(&port);
        }
    }
}

/// Leaves a port's queues with the service manager.
pub(super) fn keep(port: &str, tap: &TapPort) {
    let queues: Vec<BorrowedFd<'_>> = tap.descriptors().collect();
    if let Err(error) = notify::keep(port, &queues) {
        tracing::warn!(port, %error, "the service manager does not keep the port; a restart may lose packets of it");
    }
}

/// Has the service manager close what it keeps of a port.
pub(super) fn drop_kept(port: &str) {
    if let Err(error) = notify::drop_kept(port) {
        tracing::warn!(port, %error, "the service manager still keeps the port; its namespace stays until podwired stops");
    }
}
