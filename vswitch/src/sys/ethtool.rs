//! What is asked of and told to a device's driver by `SIOCETHTOOL` (linux/ethtool.h), in the calling thread's namespace.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// linux/sockios.h and linux/ethtool.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A structure of linux/ethtool.h, which begins with its command.
///
/// # Safety
/// The layout is that of the command it is given with.
unsafe trait Request {}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

// SAFETY: the fields of linux/ethtool.h, made below with commands that take them.
unsafe impl Request for Value {}
// SAFETY: as above.
unsafe impl Request for Channels {}

/// Switches the checksum offload of what a device sends on or off; without it the stack gives the
/// device no TCP or UDP super-frames either.
///
/// # Errors
/// The kernel's.
pub fn set_tx_checksum(device: &str, on: bool) -> io::Result<()> {
    call(device, &mut Value { cmd: ETHTOOL_STXCSUM, data: on.into() })
}

/// Queues of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    /// It receives on.
    pub receive: u32,
    /// It sends on. Numbered as those are, and there may be fewer.
    pub send: u32,
}

/// Queues of a device; 1 each where its driver does not say.
///
/// # Errors
/// The kernel's, such as that there is no such device.
pub fn queues(device: &str) -> io::Result<Queues> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    match call(device, &mut channels) {
        Ok(()) => Ok(Queues {
            receive: (channels.rx + channels.combined).max(1),
            send: (channels.tx + channels.combined).max(1),
        }),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Queues { receive: 1, send: 1 }),
        Err(error) => Err(error),
    }
}

fn call<T: Request>(device: &str, structure: &mut T) -> io::Result<()> {
    // SAFETY: a new descriptor that nothing else owns, or an error.
    let socket = unsafe {
        let fd = Errno::result(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(structure).cast();
    // SAFETY: the request points to a structure of its command; both outlive the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::{TestNetns, run};

    #[test]
    fn a_devices_checksums_are_left_to_the_stack_and_super_frames_with_them() {
        let netns = TestNetns::new();
        netns.ip("link add here type veth peer name there");
        netns.enter(|| set_tx_checksum("here", false).unwrap());
        let features = run("ip", &["netns", "exec", &netns.name, "ethtool", "-k", "here"]);
        for off in ["tx-checksumming: off", "tx-tcp-segmentation: off", "tx-udp-segmentation: off"] {
            assert!(features.contains(off), "{off} in {features}");
        }
        let error = netns.enter(|| set_tx_checksum("nowhere", false).unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
