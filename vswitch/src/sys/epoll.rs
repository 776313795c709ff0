//! Waiting for ports: epoll with 64-bit tokens and a timeout finer than a millisecond, and an eventfd to wake a
//! worker from another thread. Level-triggered, so a port that was not drained is simply reported again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events one wait reports; more stay ready for the next.
pub const EVENTS_MAX: usize = 256;

/// Room for the events of one wait; made once a worker.
pub struct Events {
    raw: [libc::epoll_event; EVENTS_MAX],
    len: usize,
}

impl Events {
    /// No events.
    #[must_use]
    pub fn new() -> Self {
        Self { raw: [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX], len: 0 }
    }

    /// Tokens of what is ready (readable, or in error: reading tells).
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.raw[..self.len].iter().map(|event| event.u64)
    }

    /// True when the wait ended without an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tokens()).finish()
    }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    /// Whether the kernel has epoll_pwait2 (Linux 5.11); found out by the first wait.
    fine: AtomicBool,
}

impl Epoll {
    /// A new instance, watching nothing.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes flags only.
        let fd = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, fine: AtomicBool::new(true) })
    }

    /// Watches a descriptor for input; `token` comes back with its events.
    ///
    /// # Errors
    /// When it is watched already, or is nothing that can be watched.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token)
    }

    /// Stops watching a descriptor. Needed before it is closed when other owners keep it open.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0)
    }

    #[allow(clippy::cast_sign_loss, reason = "EPOLLIN is a small positive flag that libc types as c_int")]
    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: both descriptors are open while borrowed, and `event` outlives the call.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) };
        Errno::result(result)?;
        Ok(())
    }

    /// Waits until something is ready, at most `timeout` (none: for ever; zero: not at all), and puts it into
    /// `events`. A signal ends the wait early, without events.
    ///
    /// # Errors
    /// Only on misuse of the instance.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.len = 0;
        match self.wait_fine_or_coarse(events, timeout) {
            Ok(count) => events.len = usize::try_from(count).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation, reason = "both counts are at most EVENTS_MAX, a small constant")]
    #[allow(clippy::cast_possible_wrap, reason = "both counts are at most EVENTS_MAX, a small constant")]
    fn wait_fine_or_coarse(&self, events: &mut Events, timeout: Option<Duration>) -> Result<libc::c_long, Errno> {
        let (epoll, room) = (self.fd.as_raw_fd(), EVENTS_MAX as libc::c_int);
        if self.fine.load(Ordering::Relaxed) {
            let time = timeout.map(|timeout| libc::timespec {
                tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
            });
            let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let no_mask = std::ptr::null::<libc::sigset_t>();
            // SAFETY: `events.raw` has room for EVENTS_MAX events; the timespec is null or outlives the call; with
            // a null mask its size is not read.
            let result = unsafe {
                libc::syscall(libc::SYS_epoll_pwait2, epoll, events.raw.as_mut_ptr(), room, time, no_mask, 0usize)
            };
            match Errno::result(result) {
                Err(Errno::ENOSYS | Errno::EPERM) => self.fine.store(false, Ordering::Relaxed),
                done => return done,
            }
        }
        // Rounded up: a wait that is too short would spin.
        let milliseconds =
            timeout.map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: `events.raw` has room for EVENTS_MAX events.
        let result = unsafe { libc::epoll_wait(epoll, events.raw.as_mut_ptr(), room, milliseconds) };
        Errno::result(result).map(libc::c_long::from)
    }
}

/// Wakes a worker out of [`Epoll::wait`]. Clones share one eventfd.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker to add to an [`Epoll`].
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?)))
    }

    /// Makes the waker ready until it is drained; waking twice is the same as once.
    pub fn wake(&self) {
        // The one possible failure is a counter that is full, and then it is ready anyway.
        let _full = self.0.write(1);
    }

    /// Takes back every wake so far; says whether there was one.
    pub fn drain(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::mono_now;

    fn tokens(epoll: &Epoll, timeout: Option<Duration>) -> Vec<u64> {
        let mut events = Events::new();
        epoll.wait(&mut events, timeout).unwrap();
        events.tokens().collect()
    }

    #[test]
    fn a_wake_is_reported_with_its_token_until_it_is_drained() {
        let (epoll, waker) = (Epoll::new().unwrap(), Waker::new().unwrap());
        epoll.add(&waker, u64::MAX - 7).unwrap();
        assert!(tokens(&epoll, Some(Duration::ZERO)).is_empty());
        waker.clone().wake();
        waker.wake();
        assert_eq!(tokens(&epoll, None), [u64::MAX - 7]);
        assert_eq!(tokens(&epoll, None), [u64::MAX - 7], "level-triggered");
        assert!(waker.drain());
        assert!(!waker.drain());
        assert!(tokens(&epoll, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn a_removed_descriptor_is_not_reported() {
        let (epoll, waker) = (Epoll::new().unwrap(), Waker::new().unwrap());
        epoll.add(&waker, 1).unwrap();
        waker.wake();
        epoll.remove(&waker).unwrap();
        assert!(tokens(&epoll, Some(Duration::ZERO)).is_empty());
        assert!(epoll.remove(&waker).is_err());
    }

    #[test]
    fn a_wait_lasts_at_least_its_timeout_on_old_kernels_too() {
        for fine in [true, false] {
            let epoll = Epoll::new().unwrap();
            epoll.fine.store(fine, Ordering::Relaxed);
            let start = mono_now();
            assert!(tokens(&epoll, Some(Duration::from_micros(300))).is_empty());
            assert!(mono_now().since(start) >= 300_000);
        }
    }

    #[test]
    fn another_thread_wakes_a_wait_without_end() {
        let (epoll, waker) = (Epoll::new().unwrap(), Waker::new().unwrap());
        epoll.add(&waker, 9).unwrap();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        assert_eq!(tokens(&epoll, None), [9]);
        thread.join().unwrap();
    }
}
