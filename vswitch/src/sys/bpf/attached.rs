//! Whose program a NIC runs, and taking leftovers of ours away.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use aya::programs::{loaded_links, loaded_programs};
use nix::errno::Errno;

use super::{BpfError, PROGRAM};
use crate::sys::netlink::{Netlink, NetlinkError};

/// Commands of bpf(2), linux/bpf.h.
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_DETACH: libc::c_int = 34;
/// How long the kernel is given to take away what an ended process held, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_STEP: Duration = Duration::from_millis(20);

/// A program on a NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The kernel's number for it.
    pub id: u32,
    /// Its name.
    pub name: String,
}

impl Attached {
    /// Whether it is a steering program of ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name == PROGRAM
    }
}

/// The XDP program a NIC runs, if any.
///
/// # Errors
/// [`NetlinkError`], also when there is no such interface.
pub fn attached(device: &str) -> Result<Option<Attached>, NetlinkError> {
    let Some(id) = Netlink::open()?.xdp_program(device)? else { return Ok(None) };
    let found = loaded_programs().flatten().find(|program| program.id() == id);
    let name = found.and_then(|program| program.name_as_str().map(str::to_owned)).unwrap_or_default();
    Ok(Some(Attached { id, name }))
}

/// Takes a steering program of ours off a NIC: one that a link holds which nobody should have any more, or one that was
/// attached without a link. Says whether there was one. The caller holds the NIC's [`NicLock`], so that nobody uses it.
///
/// # Errors
/// [`BpfError::Occupied`] when the program is another's, [`BpfError::Leftover`] when it does not go.
pub fn detach_ours(device: &str) -> Result<bool, BpfError> {
    let leftover = |reason: String| BpfError::Leftover { device: device.to_owned(), reason };
    let look = || attached(device).map_err(|error| leftover(error.to_string()));
    let Some(found) = look()? else { return Ok(false) };
    if !found.is_ours() {
        return Err(BpfError::Occupied { device: device.to_owned(), program: found.name, id: found.id });
    }
    let links: Vec<u32> =
        loaded_links().flatten().filter(|link| link.program_id() == found.id).map(|link| link.id()).collect();
    for &link in &links {
        force_detach(link).or_else(gone_is_fine).map_err(|errno| leftover(errno.desc().to_owned()))?;
    }
    if links.is_empty() {
        let off = Netlink::open().and_then(|mut netlink| netlink.clear_xdp(device));
        off.map_err(|error| leftover(error.to_string()))?;
    }
    match look()? {
        None => Ok(true),
        Some(still) => Err(leftover(format!("program {} is still attached", still.id))),
    }
}

fn gone_is_fine(errno: Errno) -> Result<(), Errno> {
    if errno == Errno::ENOENT { Ok(()) } else { Err(errno) }
}

/// Ends a bpf link whoever holds it.
fn force_detach(link: u32) -> Result<(), Errno> {
    // SAFETY: the command reads one u32 of the attribute and gives a new descriptor, which nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(bpf(BPF_LINK_GET_FD_BY_ID, link)?) };
    let raw = u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    bpf(BPF_LINK_DETACH, raw).map(drop)
}

/// A command of bpf(2) whose attribute begins with one number and is zero behind.
fn bpf(command: libc::c_int, value: u32) -> Result<libc::c_int, Errno> {
    let mut attribute = [0_u32; 16];
    attribute[0] = value;
    // SAFETY: the attribute outlives the call, and its true length is given; the kernel wants unused bytes zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(&attribute)) };
    Errno::result(result).and_then(|value| libc::c_int::try_from(value).map_err(|_| Errno::EOVERFLOW))
}

/// Says that this process steers from a NIC. Held by an abstract Unix socket in the NIC's network namespace, so that the
/// kernel drops it with the process.
#[derive(Debug)]
pub struct NicLock {
    _listener: UnixListener,
}

impl NicLock {
    /// Takes the lock, waiting a little for a process that is just ending.
    ///
    /// # Errors
    /// [`BpfError::InUse`] when another process keeps it.
    pub fn take(device: &str, index: u32) -> Result<Self, BpfError> {
        let in_use = || BpfError::InUse { device: device.to_owned() };
        let name = format!("podwire-uplink-{index}");
        let address = SocketAddr::from_abstract_name(name).map_err(|_| in_use())?;
        let mut waited = Duration::ZERO;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self { _listener: listener }),
                Err(_) if waited < PATIENCE => {
                    std::thread::sleep(PATIENCE_STEP);
                    waited += PATIENCE_STEP;
                }
                Err(_) => return Err(in_use()),
            }
        }
    }
}
