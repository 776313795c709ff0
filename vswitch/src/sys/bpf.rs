//! The XDP programs: the uplink's, that steers, is loaded, attached to a NIC, recognised and taken away here; that of pods' ports
//! is [`Redirect`], that of a measuring sink [`Take`].
//!
//! The program is `bpf/steer.bpf.c`, compiled by `make bpf`; its object is committed. It is attached by a bpf link, which
//! the kernel takes away with the process, however that ends. What the program lets through is its own affair; who
//! opens the sockets is `sys::xsk`'s.

mod attached;
mod program;
mod redirect;
mod take;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use aya::programs::links::FdLink;
use aya::{EbpfLoader, Pod};

pub use attached::{Attached, NicLock, attached, detach_ours};
use program::Program;
pub use redirect::Redirect;
pub use take::Take;

/// The compiled program.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/steer.bpf.o");
/// Name of the program in the object, and in the kernel, by which one of ours is recognised.
pub const PROGRAM: &str = "podwire_steer";
const SOCKETS: &str = "podwire_socks";
const CONFIG: &str = "podwire_config";
/// Queues the program can steer to: `QUEUES_MAX` of the source.
pub const QUEUES_MAX: u32 = 64;

/// What can go wrong with the program.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The kernel does not take the program.
    #[error("cannot load the XDP program: {reason}; it takes Linux 5.18, CAP_BPF and CAP_NET_ADMIN")]
    Load {
        /// What the kernel said.
        reason: String,
    },
    /// The kernel does not run it on this NIC in this mode.
    #[error("cannot attach the XDP program to {device} in {mode} mode: {reason}")]
    Attach {
        /// The NIC.
        device: String,
        /// The mode.
        mode: AttachMode,
        /// What the kernel said.
        reason: String,
    },
    /// Somebody else's program is there.
    #[error(
        "{device} runs another XDP program already ({program}, id {id}), which podwire leaves alone; unload it, or set uplink.kind = \"udp\""
    )]
    Occupied {
        /// The NIC.
        device: String,
        /// The program's name.
        program: String,
        /// The program's id.
        id: u32,
    },
    /// Another podwired steers from this NIC.
    #[error("another podwired uses {device} for its uplink; stop it, or name another uplink.device")]
    InUse {
        /// The NIC.
        device: String,
    },
    /// A leftover of ours that does not go away.
    #[error("cannot take a leftover steering program off {device}: {reason}; `ip link set dev {device} xdp off` may")]
    Leftover {
        /// The NIC.
        device: String,
        /// What the kernel said.
        reason: String,
    },
    /// The map of sockets.
    #[error("cannot give the socket of queue {queue} to the XDP program: {reason}")]
    Socket {
        /// The queue.
        queue: u32,
        /// What the kernel said.
        reason: String,
    },
}

/// Where the kernel runs the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachMode {
    /// In the driver, before there is an skb.
    Native,
    /// In the stack, on the skb, with any driver.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What the program takes for ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SteerSpec {
    /// Our VTEP addresses, at most one a family; later ones of a family are not looked at.
    pub addresses: Vec<IpAddr>,
    /// UDP port of the tunnel.
    pub port: u16,
    /// Longest frame in bytes, Ethernet header included, that the sockets take; longer ones pass to the kernel.
    pub frame_bytes_max: u32,
    /// Whether the stack may hand over super-frames, as it may in generic mode; what could be one then passes.
    pub merged: bool,
}

/// `struct config` of the source.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    v6: [u8; 16],
    v4: [u8; 4],
    frame_max: u32,
    port: [u8; 2],
    merged: u16,
}

// SAFETY: plain integers in C layout without padding, 28 bytes.
unsafe impl Pod for Config {}
const _: () = assert!(size_of::<Config>() == 28);

impl Config {
    fn of(spec: &SteerSpec) -> Self {
        let v4 = spec.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = spec.addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        Self {
            v6: v6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            v4: v4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
            frame_max: spec.frame_bytes_max,
            port: spec.port.to_be_bytes(),
            merged: spec.merged.into(),
        }
    }
}

/// The loaded program; attached to at most one NIC. Dropping it detaches it.
#[derive(Debug)]
pub struct Steering {
    // The link goes first, so that nothing is redirected any more when the map goes.
    link: Option<FdLink>,
    program: Program,
}

impl Steering {
    /// Has the kernel verify the program; attaches nothing.
    ///
    /// # Errors
    /// [`BpfError::Load`].
    pub fn load(spec: &SteerSpec) -> Result<Self, BpfError> {
        let config = Config::of(spec);
        let program = Program::load(EbpfLoader::new().override_global(CONFIG, &config, true), OBJECT, PROGRAM)?;
        Ok(Self { link: None, program })
    }

    /// Runs the program on a NIC from now on, by a bpf link. A program that is there already makes it fail.
    ///
    /// # Errors
    /// [`BpfError::Attach`].
    pub fn attach(&mut self, device: &str, index: u32, mode: AttachMode) -> Result<(), BpfError> {
        self.link = Some(self.program.attach(device, index, mode)?);
        Ok(())
    }

    /// Takes the program off the NIC.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Redirects what is ours and comes in on a queue to an AF_XDP socket.
    ///
    /// # Errors
    /// [`BpfError::Socket`].
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.program.set_socket(queue, socket)
    }

    /// Takes all sockets away again: then everything passes.
    pub fn clear_sockets(&mut self) {
        self.program.clear_sockets();
    }
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    use crate::sys::netns::testing::run;

    /// Compares the hash in an object with that of the sources beside it, as `make bpf` takes it.
    #[track_caller]
    pub(super) fn assert_made_of_its_source(object: &[u8], program: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
        let sum = run("sh", &["-c", &format!("cd {} && cat xdp.h {program}.bpf.c | sha256sum", folder.display())]);
        let sum = sum.split_whitespace().next().unwrap();
        let holds = object.windows(sum.len()).any(|window| window == sum.as_bytes());
        assert!(holds, "{program}.bpf.o is older than its sources: run `make bpf` and commit what it makes");
    }
}

#[cfg(test)]
mod tests;
