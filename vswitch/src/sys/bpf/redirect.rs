//! The program of a veth-xdp port, `bpf/redirect.bpf.c`: all that comes goes to one AF_XDP socket, or is dropped.
//!
//! It is attached without a bpf link, so that it stays when the process goes: what nobody receives any more must not
//! reach the node's own stack. Attaching it anew replaces it in one step.

use std::os::fd::{AsFd, BorrowedFd};

use aya::EbpfLoader;

use super::program::Program;
use super::{AttachMode, BpfError};
use crate::sys::netlink::Netlink;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/redirect.bpf.o");
/// Name of the program in the object, and in the kernel.
const PROGRAM: &str = "podwire_redir";

/// The loaded program. Dropping it leaves it where it is attached.
#[derive(Debug)]
pub struct Redirect(Program);

impl Redirect {
    /// Has the kernel verify the program; attaches nothing.
    ///
    /// # Errors
    /// [`BpfError::Load`].
    pub fn load() -> Result<Self, BpfError> {
        Program::load(&mut EbpfLoader::new(), OBJECT, PROGRAM).map(Self)
    }

    /// Redirects what comes in to this socket.
    ///
    /// # Errors
    /// [`BpfError::Socket`].
    pub fn set_socket(&mut self, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.0.set_socket(0, socket)
    }

    /// Runs the program on a device of the calling thread's namespace, in place of the one of before.
    ///
    /// # Errors
    /// [`BpfError::Attach`].
    pub fn attach(&mut self, device: &str, index: u32, mode: AttachMode) -> Result<(), BpfError> {
        let refused = |reason: String| BpfError::Attach { device: device.to_owned(), mode, reason };
        let fd = self.0.xdp()?.fd().map_err(|error| refused(error.to_string()))?;
        let attached =
            Netlink::open().and_then(|mut netlink| netlink.set_xdp(index, fd.as_fd(), mode == AttachMode::Native));
        attached.map_err(|error| refused(error.to_string()))
    }
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
        let verdict = redirect.0.xdp().unwrap().test_run(options).unwrap().return_value;
        assert_eq!(verdict, 1, "XDP_DROP");
    }
}
