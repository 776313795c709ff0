//! The XDP programs: the uplink's, that steers, is loaded, attached to a NIC, recognised and taken away here; that of pods' ports
//! is [`Redirect`], that of a measuring sink [`Take`].
//!
//! The program is `bpf/steer.bpf.c`, compiled by `make bpf`; its object is committed. It is attached by a bpf link, which
//! the kernel takes away with the process, however that ends. What the program lets through is its own affair; who
//! opens the sockets is `sys::xsk`'s.

mod attached;
mod redirect;
mod take;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::XskMap;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

pub use attached::{Attached, NicLock, attached, detach_ours};
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
pub struct Steering {
    // The link goes first, so that nothing is redirected any more when the map goes.
    link: Option<FdLink>,
    bpf: Ebpf,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("attached", &self.link.is_some()).finish_non_exhaustive()
    }
}

impl Steering {
    /// Has the kernel verify the program; attaches nothing.
    ///
    /// # Errors
    /// [`BpfError::Load`].
    pub fn load(spec: &SteerSpec) -> Result<Self, BpfError> {
        let config = Config::of(spec);
        let failed = |reason: &dyn fmt::Display| BpfError::Load { reason: reason.to_string() };
        // The program uses no kernel types, so that the kernel's BTF, which takes long to read, is not needed.
        let mut loader = EbpfLoader::new();
        let mut bpf = loader
            .btf(None)
            .override_global(CONFIG, &config, true)
            .load(OBJECT)
            .map_err(|error| failed(&with_causes(&error)))?;
        program(&mut bpf)?.load().map_err(|error| failed(&with_causes(&error)))?;
        Ok(Self { link: None, bpf })
    }

    /// Runs the program on a NIC from now on, by a bpf link. A program that is there already makes it fail.
    ///
    /// # Errors
    /// [`BpfError::Attach`].
    pub fn attach(&mut self, device: &str, index: u32, mode: AttachMode) -> Result<(), BpfError> {
        let refused = |reason: String| BpfError::Attach { device: device.to_owned(), mode, reason };
        let program = program(&mut self.bpf)?;
        let kernel_mode = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        let id = program.attach_to_if_index(index, kernel_mode).map_err(|error| refused(attach_reason(&error)))?;
        let link = program.take_link(id).map_err(|error| refused(error.to_string()))?;
        // aya falls back to an attachment that would outlive the process; dropping that one detaches it.
        let no_link = |_| refused("the kernel has no bpf links for XDP (Linux 5.9)".to_owned());
        self.link = Some(FdLink::try_from(link).map_err(no_link)?);
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
        let failed = |reason: String| BpfError::Socket { queue, reason };
        let map = self.bpf.map_mut(SOCKETS).ok_or_else(|| failed("the object has no such map".to_owned()))?;
        let mut sockets: XskMap<_> = XskMap::try_from(map).map_err(|error| failed(with_causes(&error)))?;
        sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| failed(with_causes(&error)))
    }

    /// Takes all sockets away again: then everything passes.
    pub fn clear_sockets(&mut self) {
        if let Some(Ok(mut sockets)) = self.bpf.map_mut(SOCKETS).map(XskMap::<&mut _>::try_from) {
            for queue in 0..QUEUES_MAX {
                // A queue without one is fine.
                let _ = sockets.unset(queue);
            }
        }
    }
}

fn program(bpf: &mut Ebpf) -> Result<&mut Xdp, BpfError> {
    let found = bpf.program_mut(PROGRAM).and_then(|program| <&mut Xdp>::try_from(program).ok());
    found.ok_or_else(|| BpfError::Load { reason: format!("the object has no XDP program {PROGRAM}") })
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
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
