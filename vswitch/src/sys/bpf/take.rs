//! The program of podwire-perf's sink, `bpf/take.bpf.c`: its test frames go to AF_XDP sockets, everything else passes.
//!
//! Attached by a bpf link, which the kernel takes away with the process. The switch never loads it.

use std::os::fd::BorrowedFd;

use aya::programs::links::FdLink;
use aya::{EbpfLoader, Pod};

use super::program::Program;
use super::{AttachMode, BpfError, CONFIG};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/take.bpf.o");
/// Name of the program in the object, and in the kernel.
const PROGRAM: &str = "podwire_take";

/// `struct config` of the source.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    port: [u8; 2],
    magic: [u8; 2],
}

// SAFETY: plain bytes in C layout without padding.
unsafe impl Pod for Config {}

/// The program, attached to one NIC. Dropping it detaches it.
#[derive(Debug)]
pub struct Take {
    // The link goes first, so that nothing is redirected any more when the map goes.
    _link: FdLink,
    program: Program,
}

impl Take {
    /// Takes UDP datagrams to `port` that begin with `magic` off a NIC, once their queue has a socket.
    ///
    /// # Errors
    /// [`BpfError::Load`] and [`BpfError::Attach`], also when another program is there.
    pub fn attach(device: &str, index: u32, mode: AttachMode, port: u16, magic: [u8; 2]) -> Result<Self, BpfError> {
        let config = Config { port: port.to_be_bytes(), magic };
        let mut program = Program::load(EbpfLoader::new().override_global(CONFIG, &config, true), OBJECT, PROGRAM)?;
        Ok(Self { _link: program.attach(device, index, mode)?, program })
    }

    /// Redirects what is to be taken and comes in on a queue to an AF_XDP socket.
    ///
    /// # Errors
    /// [`BpfError::Socket`].
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.program.set_socket(queue, socket)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::sys::netlink::Netlink;
    use crate::sys::netns::testing::wire;
    use crate::sys::xsk::{BindMode, SlotPlan, XskSocket, XskSpec};

    #[test]
    fn the_object_is_of_the_source_beside_it() {
        super::super::testing::assert_made_of_its_source(OBJECT, "take");
    }

    #[test]
    fn test_frames_go_to_the_socket_and_everything_else_to_the_kernel() {
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let (near, far) = wire();
            let sender = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
            near.enter(|| {
                let index = Netlink::open().unwrap().link("nic").unwrap().index;
                let spec = XskSpec { device: "nic".into(), queue: 0, mode: BindMode::Copy, slots: SlotPlan::UPLINK };
                let mut socket = XskSocket::open(&spec).unwrap().receiver;
                let mut take = Take::attach("nic", index, mode, 9, *b"pW").unwrap();
                let kernel = ["10.9.0.1:9", "10.9.0.1:10"].map(|address| UdpSocket::bind(address).unwrap());
                kernel.iter().for_each(|one| one.set_read_timeout(Some(Duration::from_secs(2))).unwrap());
                let mut bytes = [0; 64];
                sender.send_to(b"pW0", "10.9.0.1:9").unwrap();
                assert_eq!(kernel[0].recv(&mut bytes).unwrap(), 3, "no queue has a socket: {mode}");

                take.set_socket(0, socket.fd()).unwrap();
                sender.send_to(b"pX1", "10.9.0.1:9").unwrap();
                sender.send_to(b"pW2", "10.9.0.1:10").unwrap();
                sender.send_to(b"pW3", "10.9.0.1:9").unwrap();
                assert_eq!((kernel[0].recv(&mut bytes).unwrap(), &bytes[..3]), (3, &b"pX1"[..]), "{mode}");
                assert_eq!((kernel[1].recv(&mut bytes).unwrap(), &bytes[..3]), (3, &b"pW2"[..]), "{mode}");
                let slot = (0..200).find_map(|_| {
                    std::thread::sleep(Duration::from_millis(5));
                    socket.receive()
                });
                let slot = slot.expect("the test frame comes to the socket");
                assert_eq!(socket.bytes(&slot)[42..45], *b"pW3", "{mode}");
                socket.release(slot);
                assert!(socket.receive().is_none(), "{mode}");
                drop(take);
                sender.send_to(b"pW4", "10.9.0.1:9").unwrap();
                assert_eq!((kernel[0].recv(&mut bytes).unwrap(), &bytes[..3]), (3, &b"pW4"[..]), "detached: {mode}");
            });
        }
    }
}
