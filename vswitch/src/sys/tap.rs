//! TAP devices (linux/if_tun.h): open or re-attach one in the calling thread's namespace, with `virtio_net_hdr` in
//! front of every frame and as many offloads as the kernel grants.
//!
//! The `tun` crate opens and persists devices of one queue; it knows no multi-queue, header size or offloads, so
//! these ioctls are here. `IFF_NAPI` stays off: it does not pay. What the header means is `port::tap`'s affair.

use std::ffi::{CString, c_int, c_uint};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::uio::{readv, writev};

use super::netns::NetnsId;

/// Driver kind of TAP devices in `ip -d link`.
pub const LINK_KIND: &str = "tun";
/// Bytes of `struct virtio_net_hdr`, which precedes each frame.
pub const VNET_HEADER_BYTES: usize = 10;
/// Queues one device may have (`MAX_TAP_QUEUES` in the kernel).
pub const QUEUES_MAX: usize = 256;

/// A device is busy for a moment after its process was killed, or while a process that had it open forks.
const BUSY_RETRIES: usize = 20;
const BUSY_RETRY_AFTER: Duration = Duration::from_millis(10);

/// What every queue is opened with.
const QUEUE_FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

const TUN_PATH: &str = "/dev/net/tun";

nix::ioctl_write_int!(tun_set_offload, b'T', 208);
nix::ioctl_write_ptr!(tun_set_vnet_header_size, b'T', 216, c_int);
nix::ioctl_read!(tun_get_vnet_header_size, b'T', 215, c_int);
nix::ioctl_write_int!(tun_set_persist, b'T', 203);
nix::ioctl_write_ptr!(tun_set_interface, b'T', 202, c_int);
nix::ioctl_read!(tun_get_interface, b'T', 210, c_uint);
nix::ioctl_none!(tun_get_netns, b'T', 227);

/// What can go wrong with a TAP device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The driver is not there.
    #[error("cannot open {TUN_PATH}: {0}; load the tun module and give the process access to the device node")]
    Driver(io::Error),
    /// The name can not be an interface's.
    #[error("{name:?} can not name an interface: use 1 to 15 bytes without / and white space")]
    Name {
        /// The name.
        name: String,
    },
    /// The name is taken by something else.
    #[error(
        "{name} exists and is no TAP device that can be opened; remove it (`ip link del {name}`) or use another name"
    )]
    NotATap {
        /// The name.
        name: String,
    },
    /// Somebody has it open.
    #[error("TAP device {name} is in use by another process; stop that one first")]
    Busy {
        /// The name.
        name: String,
    },
    /// Not allowed.
    #[error("cannot open TAP device {name}: {source}; run with CAP_NET_ADMIN in its namespace")]
    Permission {
        /// The name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another refusal.
    #[error("cannot {action} TAP device {name}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the kernel was asked to take and to hand over unfinished. All off means complete packets only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TapOffloads {
    /// Partial checksums (`TUN_F_CSUM`).
    pub checksum: bool,
    /// TCP super-frames over IPv4 and IPv6 (`TUN_F_TSO4`, `TUN_F_TSO6`).
    pub tso: bool,
    /// TCP super-frames that bear ECN (`TUN_F_TSO_ECN`).
    pub tso_ecn: bool,
    /// UDP super-frames (`TUN_F_USO4` and `TUN_F_USO6`, which are granted together; Linux 6.2).
    pub uso: bool,
}

impl TapOffloads {
    /// What is tried, the most first.
    const LADDER: [Self; 5] = [
        Self { checksum: true, tso: true, tso_ecn: true, uso: true },
        Self { checksum: true, tso: true, tso_ecn: true, uso: false },
        Self { checksum: true, tso: true, tso_ecn: false, uso: false },
        Self { checksum: true, tso: false, tso_ecn: false, uso: false },
        Self { checksum: false, tso: false, tso_ecn: false, uso: false },
    ];

    fn flags(self) -> c_uint {
        let bit = |on: bool, bits: c_uint| if on { bits } else { 0 };
        bit(self.checksum, libc::TUN_F_CSUM)
            | bit(self.tso, libc::TUN_F_TSO4 | libc::TUN_F_TSO6)
            | bit(self.tso_ecn, libc::TUN_F_TSO_ECN)
            | bit(self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6)
    }

    fn within(self, allowed: Self) -> bool {
        self.flags() & !allowed.flags() == 0
    }

    /// Everything.
    pub const ALL: Self = Self::LADDER[0];
    /// Nothing.
    pub const NONE: Self = Self::LADDER[4];
}

/// An open TAP device: one descriptor a queue, non-blocking, closed on exec, persistent.
#[derive(Debug)]
pub struct OpenTap {
    /// The queues; fewer than asked for when a device of one queue was found.
    pub queues: Vec<OwnedFd>,
    /// What is on.
    pub offloads: TapOffloads,
}

/// Opens the TAP device of a name in the calling thread's namespace, or makes it. It survives the process.
/// A device that is left from before keeps its kind: one made with one queue gives one queue.
///
/// # Errors
/// [`TapError`].
pub fn open(name: &str, queues: usize, wanted: TapOffloads) -> Result<OpenTap, TapError> {
    let name_fits = (1..libc::IFNAMSIZ).contains(&name.len());
    if !name_fits || name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(TapError::Name { name: name.to_owned() });
    }
    let queues = queues.clamp(1, QUEUES_MAX);
    let mut opened = open_either(name, queues);
    for _ in 0..BUSY_RETRIES {
        if !matches!(opened, Err(Errno::EBUSY)) {
            break;
        }
        std::thread::sleep(BUSY_RETRY_AFTER);
        opened = open_either(name, queues);
    }
    let queues = opened.map_err(|errno| match errno {
        Errno::EINVAL => TapError::NotATap { name: name.to_owned() },
        Errno::EBUSY => TapError::Busy { name: name.to_owned() },
        Errno::EPERM => TapError::Permission { name: name.to_owned(), source: errno.into() },
        Errno::ENOENT | Errno::ENXIO | Errno::EACCES => TapError::Driver(errno.into()),
        _ => TapError::Refused { action: "open", name: name.to_owned(), source: errno.into() },
    })?;
    let refused =
        |action| move |errno: Errno| TapError::Refused { action, name: name.to_owned(), source: errno.into() };
    set_header_size(&queues[0]).map_err(refused("set the header size of"))?;
    let offloads = set_offloads(&queues[0], wanted).map_err(refused("set the offloads of"))?;
    Ok(OpenTap { queues, offloads })
}

/// Goes on with queues of a device that were open all the time; [`identify`] has told which it is.
///
/// # Errors
/// [`TapError::Refused`].
pub fn resume(name: &str, queues: Vec<OwnedFd>, wanted: TapOffloads) -> Result<OpenTap, TapError> {
    let refused =
        |action| move |errno: Errno| TapError::Refused { action, name: name.to_owned(), source: errno.into() };
    let first = queues.first().ok_or(Errno::EBADF).map_err(refused("resume"))?;
    let offloads = set_offloads(first, wanted).map_err(refused("set the offloads of"))?;
    Ok(OpenTap { queues, offloads })
}

/// Which device a queue is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapIdentity {
    /// Its name.
    pub ifname: String,
    /// The namespace it is in.
    pub netns: NetnsId,
}

/// The device behind a descriptor of unknown origin; none when it is no attached queue of a TAP device as [`open`] makes
/// them, or its device is gone. Needs Linux 5.0.
#[must_use]
pub fn identify(queue: BorrowedFd<'_>) -> Option<TapIdentity> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes an ifreq, though its number says unsigned int; `request` is one and outlives the call.
    // Descriptors of other kinds do not know the number.
    unsafe { tun_get_interface(queue.as_raw_fd(), (&raw mut request).cast()) }.ok()?;
    // SAFETY: TUNGETIFF sets the flags.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    let told = libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_DETACH_QUEUE;
    let mut size: c_int = 0;
    // SAFETY: the ioctl writes one int, which outlives the call.
    unsafe { tun_get_vnet_header_size(queue.as_raw_fd(), &raw mut size) }.ok()?;
    if flags & told != QUEUE_FLAGS || usize::try_from(size) != Ok(VNET_HEADER_BYTES) {
        return None;
    }
    // SAFETY: an ioctl without a pointer on a TUN descriptor; it opens the device's namespace.
    let netns = unsafe { tun_get_netns(queue.as_raw_fd()) }.ok()?;
    // SAFETY: the descriptor is new and nobody else's.
    let netns = unsafe { OwnedFd::from_raw_fd(netns) };
    let letters = request.ifr_name.iter().map(|letter| letter.to_ne_bytes()[0]).take_while(|&letter| letter != 0);
    let ifname = String::from_utf8(letters.collect()).ok()?;
    Some(TapIdentity { ifname, netns: File::from(netns).metadata().ok()?.into() })
}

/// Opens in the mode the number of queues asks for, else in the other: EINVAL says that the name is there as something
/// else, be it only with queues in the other mode.
fn open_either(name: &str, queues: usize) -> Result<Vec<OwnedFd>, Errno> {
    let preferred = if queues == 1 { open_single(name) } else { open_multi(name, queues) };
    match preferred {
        Err(Errno::EINVAL) if queues == 1 => open_multi(name, 1),
        Err(Errno::EINVAL) => open_single(name),
        done => done,
    }
}

/// One queue, by the `tun` crate.
fn open_single(name: &str) -> Result<Vec<OwnedFd>, Errno> {
    let mut config = tun::Configuration::default();
    config.tun_name(name).layer(tun::Layer::L2).platform_config(|platform| {
        // Addresses, MTU and state are set by netlink, which knows prefixes, IPv6 and replacing.
        platform.vnet_hdr(true).ensure_root_privileges(false);
    });
    let errno = |error: tun::Error| io::Error::from(error).raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let mut device = tun::create(&config).map_err(errno)?;
    device.persist().map_err(errno)?;
    device.set_nonblock().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    // SAFETY: `into_raw_fd` gives the descriptor up; it is ours alone from here on.
    Ok(vec![unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }])
}

/// Several queues of one device.
fn open_multi(name: &str, queues: usize) -> Result<Vec<OwnedFd>, Errno> {
    let flags = QUEUE_FLAGS | libc::IFF_MULTI_QUEUE;
    let opened = (0..queues).map(|_| attach(name, flags)).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: an ioctl without a pointer on an open TUN descriptor.
    unsafe { tun_set_persist(opened[0].as_raw_fd(), 1) }?;
    Ok(opened)
}

fn attach(name: &str, flags: c_int) -> Result<OwnedFd, Errno> {
    let path = CString::new(TUN_PATH).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `path` is a C string that outlives the call.
    let fd = Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
    // SAFETY: TUNSETIFF reads and writes an ifreq, though its number says int; `request` is one and outlives the call.
    unsafe { tun_set_interface(fd.as_raw_fd(), (&raw mut request).cast()) }?;
    Ok(fd)
}

fn set_header_size(queue: &OwnedFd) -> Result<(), Errno> {
    let size = c_int::try_from(VNET_HEADER_BYTES).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the ioctl reads one int, which outlives the call.
    unsafe { tun_set_vnet_header_size(queue.as_raw_fd(), &raw const size) }.map(drop)
}

/// Switches on as much of `wanted` as the kernel grants. Offloads belong to the device, not to the queue.
fn set_offloads(queue: &OwnedFd, wanted: TapOffloads) -> Result<TapOffloads, Errno> {
    let mut last = Errno::EINVAL;
    for offloads in TapOffloads::LADDER.into_iter().filter(|offloads| offloads.within(wanted)) {
        // SAFETY: an ioctl without a pointer on an open TUN descriptor.
        match unsafe { tun_set_offload(queue.as_raw_fd(), offloads.flags().into()) } {
            Ok(_) => return Ok(offloads),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

/// Reads one frame: its `virtio_net_hdr` and its bytes. Gives the frame's length.
///
/// # Errors
/// The kernel's; `EAGAIN` when there is none.
pub fn read_frame(
    queue: BorrowedFd<'_>,
    header: &mut [u8; VNET_HEADER_BYTES],
    space: &mut [u8],
) -> Result<usize, Errno> {
    let len = readv(queue, &mut [IoSliceMut::new(header), IoSliceMut::new(space)])?;
    Ok(len.saturating_sub(VNET_HEADER_BYTES))
}

/// Writes one frame: its `virtio_net_hdr` and its bytes, in one or more spans.
///
/// # Errors
/// The kernel's; `EAGAIN` when there is no room.
pub fn write_frame(queue: BorrowedFd<'_>, spans: &[IoSlice<'_>]) -> Result<(), Errno> {
    writev(queue, spans).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::netns::testing::TestNetns;

    fn open_all(name: &str, queues: usize) -> Result<OpenTap, TapError> {
        open(name, queues, TapOffloads::ALL)
    }

    #[test]
    fn a_device_persists_and_is_attached_again_with_all_offloads() {
        let netns = TestNetns::new();
        netns.enter(|| {
            let first = open_all("eth0", 1).unwrap();
            assert_eq!((first.queues.len(), first.offloads), (1, TapOffloads::ALL));
            assert!(matches!(open_all("eth0", 1), Err(TapError::Busy { .. })));
            drop(first);
            open_all("eth0", 1).unwrap();
        });
        let shown = netns.ip("-d -j link show dev eth0");
        for part in ["\"type\":\"tap\"", "\"pi\":false", "\"vnet_hdr\":true", "\"persist\":true"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_queue_tells_its_device_and_goes_on_with_what_is_wanted_now() {
        let netns = TestNetns::new();
        let (one, many) = netns.enter(|| (open_all("eth0", 1).unwrap(), open_all("eth1", 2).unwrap()));
        let told = |ifname: &str| Some(TapIdentity { ifname: ifname.to_owned(), netns: netns.handle().id() });
        assert_eq!(identify(one.queues[0].as_fd()), told("eth0"));
        assert_eq!(identify(many.queues[1].as_fd()), told("eth1"));
        netns.ip("link set eth0 name net0");
        assert_eq!(identify(one.queues[0].as_fd()), told("net0"));
        assert_eq!(resume("net0", one.queues, TapOffloads::NONE).unwrap().offloads, TapOffloads::NONE);
        netns.ip("link del eth1");
        assert_eq!(identify(many.queues[1].as_fd()), None, "its device is gone");
    }

    #[test]
    fn what_is_no_queue_of_ours_has_no_device() {
        let netns = TestNetns::new();
        assert_eq!(identify(std::fs::File::open("/dev/null").unwrap().as_fd()), None);
        assert_eq!(identify(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()), None);
        let plain = netns.enter(|| attach("eth0", libc::IFF_TAP | libc::IFF_NO_PI).unwrap());
        assert_eq!(identify(plain.as_fd()), None, "without virtio_net_hdr");
        assert_eq!(identify(std::fs::File::open(TUN_PATH).unwrap().as_fd()), None, "no device yet");
    }

    #[test]
    fn offloads_that_are_not_wanted_stay_off() {
        let netns = TestNetns::new();
        let checksum_only = TapOffloads { checksum: true, ..TapOffloads::NONE };
        netns.enter(|| {
            assert_eq!(open("eth0", 1, checksum_only).unwrap().offloads, checksum_only);
            assert_eq!(open("eth0", 1, TapOffloads::NONE).unwrap().offloads, TapOffloads::NONE);
        });
    }

    #[test]
    fn a_device_left_from_before_keeps_its_queue_mode() {
        let netns = TestNetns::new();
        netns.enter(|| {
            assert_eq!(open_all("many0", 2).unwrap().queues.len(), 2);
            assert_eq!(open_all("many0", 1).unwrap().queues.len(), 1);
            assert_eq!(open_all("many0", 3).unwrap().queues.len(), 3);
            assert_eq!(open_all("one0", 1).unwrap().queues.len(), 1);
            assert_eq!(open_all("one0", 2).unwrap().queues.len(), 1);
        });
    }

    #[test]
    fn a_name_that_is_something_else_or_nothing_is_refused() {
        let netns = TestNetns::new();
        netns.ip("link add eth0 type veth peer name eth1");
        netns.enter(|| {
            assert!(matches!(open_all("eth0", 1), Err(TapError::NotATap { .. })));
            assert!(matches!(open_all("eth0", 2), Err(TapError::NotATap { .. })));
            for name in ["", "a/b", "..", "sixteen-bytes-16", "a b"] {
                assert!(matches!(open_all(name, 1), Err(TapError::Name { .. })), "{name}");
            }
        });
    }
}
