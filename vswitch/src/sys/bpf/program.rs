//! What the XDP programs have in common once they are loaded: the kernel's verdict on them, their map of sockets, and how
//! they are attached to end with the process.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::{AttachMode, BpfError, QUEUES_MAX, SOCKETS};

/// A loaded program with its map.
pub(super) struct Program {
    pub(super) bpf: Ebpf,
    name: &'static str,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Program {
    /// Has the kernel verify the program of this name in an object; attaches nothing.
    pub(super) fn load(loader: &mut EbpfLoader<'_>, object: &[u8], name: &'static str) -> Result<Self, BpfError> {
        let failed = |reason: String| BpfError::Load { reason };
        // The programs use no kernel types, so that the kernel's BTF, which takes long to read, is not needed.
        let bpf = loader.btf(None).load(object).map_err(|error| failed(with_causes(&error)))?;
        let mut program = Self { bpf, name };
        program.xdp()?.load().map_err(|error| failed(with_causes(&error)))?;
        Ok(program)
    }

    pub(super) fn xdp(&mut self) -> Result<&mut Xdp, BpfError> {
        let found = self.bpf.program_mut(self.name).and_then(|program| <&mut Xdp>::try_from(program).ok());
        found.ok_or_else(|| BpfError::Load { reason: format!("the object has no XDP program {}", self.name) })
    }

    /// Runs the program on a NIC until the link is dropped. A program that is there already makes it fail.
    pub(super) fn attach(&mut self, device: &str, index: u32, mode: AttachMode) -> Result<FdLink, BpfError> {
        let refused = |reason: String| BpfError::Attach { device: device.to_owned(), mode, reason };
        let program = self.xdp()?;
        let kernel_mode = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        let id = program.attach_to_if_index(index, kernel_mode).map_err(|error| refused(attach_reason(&error)))?;
        let link = program.take_link(id).map_err(|error| refused(error.to_string()))?;
        // aya falls back to an attachment that would outlive the process; dropping that one detaches it.
        let no_link = |_| refused("the kernel has no bpf links for XDP (Linux 5.9)".to_owned());
        FdLink::try_from(link).map_err(no_link)
    }

    /// Redirects what the program takes and comes in on a queue to an AF_XDP socket.
    pub(super) fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let failed = |reason: String| BpfError::Socket { queue, reason };
        let sockets = self.sockets().ok_or_else(|| failed("the object has no such map".to_owned()))?;
        let mut sockets = sockets.map_err(|error| failed(with_causes(&error)))?;
        sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| failed(with_causes(&error)))
    }

    /// Takes all sockets away again.
    pub(super) fn clear_sockets(&mut self) {
        if let Some(Ok(mut sockets)) = self.sockets() {
            for queue in 0..QUEUES_MAX {
                // A queue without one is fine.
                let _ = sockets.unset(queue);
            }
        }
    }

    fn sockets(&mut self) -> Option<Result<XskMap<&mut MapData>, aya::maps::MapError>> {
        self.bpf.map_mut(SOCKETS).map(XskMap::try_from)
    }
}

/// What the kernel meant, where its number says it to no one.
fn attach_reason(error: &ProgramError) -> String {
    let errno = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match errno {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP".to_owned(),
        Some(libc::ERANGE) => "the MTU is too large for the driver's XDP".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another program is attached".to_owned(),
        Some(libc::EPERM) => "not permitted; podwired needs CAP_NET_ADMIN and CAP_BPF".to_owned(),
        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
        None => with_causes(error),
    }
}

/// An error with those below it: aya's sentences leave them out.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
