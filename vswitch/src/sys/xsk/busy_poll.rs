//! Busy polling: the worker has the driver's receive code run in its own thread, instead of an interrupt somewhere
//! (Documentation/networking/napi.rst and af_xdp.rst).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::{XskReceiver, XskWatch};

/// Packets that one look takes off the queue at most: as many as an interrupt would (`NAPI_POLL_WEIGHT`).
const BUDGET: libc::c_int = 64;
/// How long a call that blocks would look. None of ours does; 0 would be not at all.
const LOOK_US: libc::c_int = 20;

impl XskReceiver {
    /// Asks the kernel to leave the queue to [`XskReceiver::poll_driver`] as long as that comes often enough, which
    /// is what the NIC's `napi_defer_hard_irqs` and `gro_flush_timeout` say.
    ///
    /// # Errors
    /// The kernel's: before Linux 5.11, without `CAP_NET_ADMIN`, or built without busy polling.
    pub fn prefer_busy_poll(&self) -> Result<(), Errno> {
        for (option, value) in
            [(libc::SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, LOOK_US), (libc::SO_BUSY_POLL_BUDGET, BUDGET)]
        {
            set(self.fd(), option, value)?;
        }
        Ok(())
    }

    /// Has the driver hand over now what has come to the queue. For sockets that [`XskReceiver::prefer_busy_poll`].
    pub fn poll_driver(&mut self) {
        let fd = self.fd().as_raw_fd();
        // What it fails with, such as that the NIC is down, is no news: nothing has come.
        // SAFETY: no buffer is given, and the socket is open.
        let _ = unsafe {
            libc::recvfrom(fd, std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
        };
    }
}

impl XskWatch {
    /// Whether the kernel knows which NAPI instance serves the socket's queue, without which nothing is looked for: new
    /// kernels from the start, older ones from the first packet on, and with some drivers none ever.
    #[must_use]
    pub fn has_napi(&self) -> bool {
        let (mut id, mut len) = (0_u32, libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(0));
        let (to, fd) = ((&raw mut id).cast(), self.0.as_raw_fd());
        // SAFETY: the option is an unsigned int; it and its length outlive the call, which writes no more than that.
        let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID, to, &raw mut len) };
        result == 0 && id != 0
    }
}

fn set(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the option is an int, which outlives the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len) };
    Errno::result(result).map(drop)
}
