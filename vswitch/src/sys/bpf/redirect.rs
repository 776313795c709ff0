//! The program of a veth-xdp port, `bpf/redirect.bpf.c`: all that comes goes to one AF_XDP socket, or is dropped.
//!
//! It is attached without a bpf link, so that it stays when the process goes: what nobody receives any more must not
//! reach the node's own stack. Attaching it anew replaces it in one step.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::XskMap;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

use super::{AttachMode, BpfError, SOCKETS, with_causes};
use crate::sys::netlink::Netlink;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/redirect.bpf.o");
/// Name of the program in the object, and in the kernel.
const PROGRAM: &str = "podwire_redir";

/// The loaded program. Dropping it leaves it where it is attached.
pub struct Redirect {
    bpf: Ebpf,
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirect").finish_non_exhaustive()
    }
}

impl Redirect {
    /// Has the kernel verify the program; attaches nothing.
    ///
    /// # Errors
    /// [`BpfError::Load`].
    pub fn load() -> Result<Self, BpfError> {
        let failed = |reason: &dyn fmt::Display| BpfError::Load { reason: reason.to_string() };
        let mut bpf = EbpfLoader::new().btf(None).load(OBJECT).map_err(|error| failed(&with_causes(&error)))?;
        program(&mut bpf)?.load().map_err(|error| failed(&with_causes(&error)))?;
        Ok(Self { bpf })
    }

    /// Redirects what comes in to this socket.
    ///
    /// # Errors
    /// [`BpfError::Socket`].
    pub fn set_socket(&mut self, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let failed = |reason: String| BpfError::Socket { queue: 0, reason };
        let map = self.bpf.map_mut(SOCKETS).ok_or_else(|| failed("the object has no such map".to_owned()))?;
        let mut sockets: XskMap<_> = XskMap::try_from(map).map_err(|error| failed(with_causes(&error)))?;
        sockets.set(0, socket.as_raw_fd(), 0).map_err(|error| failed(with_causes(&error)))
    }

    /// Runs the program on a device of the calling thread's namespace, in place of the one of before.
    ///
    /// # Errors
    /// [`BpfError::Attach`].
    pub fn attach(&mut self, device: &str, index: u32, mode: AttachMode) -> Result<(), BpfError> {
        let refused = |reason: String| BpfError::Attach { device: device.to_owned(), mode, reason };
        let program = program(&mut self.bpf)?;
        let fd = program.fd().map_err(|error| refused(error.to_string()))?;
        let attached =
            Netlink::open().and_then(|mut netlink| netlink.set_xdp(index, fd.as_fd(), mode == AttachMode::Native));
        attached.map_err(|error| refused(error.to_string()))
    }
}

fn program(bpf: &mut Ebpf) -> Result<&mut Xdp, BpfError> {
    let found = bpf.program_mut(PROGRAM).and_then(|program| <&mut Xdp>::try_from(program).ok());
    found.ok_or_else(|| BpfError::Load { reason: format!("the object has no XDP program {PROGRAM}") })
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_object_is_of_the_source_beside_it() {
        super::super::testing::assert_made_of_its_source(OBJECT, "redirect");
    }

    #[test]
    fn a_frame_without_a_socket_is_dropped_not_passed() {
        use aya::{TestRun, TestRunOptions};
        let mut redirect = Redirect::load().unwrap();
        let options = TestRunOptions { data_in: Some(&[2; 64]), ..TestRunOptions::new() };
        let verdict = program(&mut redirect.bpf).unwrap().test_run(options).unwrap().return_value;
        assert_eq!(verdict, 1, "XDP_DROP");
    }
}
