//! The service manager: tell it how we are (sd_notify(3)), leave descriptors with it and take them back
//! (sd_listen_fds(3)). Without `NOTIFY_SOCKET` all of it does nothing.
//!
//! What is told, and which descriptors are worth keeping, is the daemon's affair.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// What the manager can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State<'a> {
    /// Started, or done with reloading; and one line for `systemctl status`.
    Ready(&'a str),
    /// Reads its configuration again, until the next [`State::Ready`].
    Reloading,
    /// On its way out.
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
    /// All goes well.
    Alive,
}

/// Whether there is one.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells the manager.
///
/// # Errors
/// When its socket does not take the message.
pub fn tell(state: State<'_>) -> io::Result<()> {
    match state {
        State::Ready(line) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(line)]),
        State::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        State::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    }
}

/// How often [`State::Alive`] is to be told: twice in the time after which the manager takes us for dead. None when it
/// does not watch.
#[must_use]
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|half| !half.is_zero())
}

/// Leaves copies of descriptors with the manager, under a name. It does not poll them: that would have it woken by each
/// frame.
///
/// # Errors
/// When its socket does not take the message.
pub fn keep(name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let said = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&said, descriptors)
}

/// Has the manager close what it keeps under a name, if anything.
///
/// # Errors
/// When its socket does not take the message.
pub fn drop_kept(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// The descriptors that the manager handed to this process, with their names; the manager still keeps its copies. Only the
/// first call gives them.
///
/// # Errors
/// When the environment names descriptors that are not there.
pub fn kept() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    // SAFETY: these are open since the manager started this process (LISTEN_PID is ours), so they are no other's here,
    // and TAKEN has them owned once.
    let owned = |(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(sd_notify::listen_fds_with_names()?.map(owned).collect())
}
