//! UDP sockets for tunnels: options, probes, and sending and receiving with segmentation offload.
//!
//! `UDP_SEGMENT` lets one send carry many datagrams, `UDP_GRO` one receive (linux/udp.h). What is in the datagrams
//! is `port::udp`'s affair.

mod receive;
mod send;

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, socket};

pub use receive::{DATAGRAM_BUFFERS, Datagram, ReceiveBuffers};
pub use send::SendOptions;

/// `UDP_SEGMENT` pieces the kernel takes in one send, since Linux 6.9 and before (`UDP_MAX_SEGMENTS`).
const SEGMENT_LIMITS: [usize; 2] = [128, 64];
/// Most pieces any kernel takes in one send.
pub const SEGMENTS_MAX: usize = SEGMENT_LIMITS[0];

/// Options of linux/udp.h that libc does not have.
const UDP_NO_CHECK6_TX: c_int = 101;
const UDP_NO_CHECK6_RX: c_int = 102;

/// Queue space of the probing socket.
const PROBE_BUFFER_BYTES: usize = 65_536;

/// What can go wrong when a socket is set up.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// No socket.
    #[error("cannot make a UDP socket for {address}: {source}; check the file descriptor limit, and IPv6 if it is one")]
    Socket {
        /// The address it was for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// An option the tunnel can not do without.
    #[error("cannot set {option} on the UDP socket for {address}: {source}; the kernel is too old or built without it")]
    Option {
        /// The option.
        option: &'static str,
        /// The address it was for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address is not ours, or taken.
    #[error("cannot bind UDP {address}: {source}; the address must be one of this node's, and its port free of others")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Receives on a port that other sockets of ours share.
    Receive,
    /// Sends, from a port of its own.
    Send,
}

/// A bound, non-blocking UDP socket of one family.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    address: SocketAddr,
    buffer_bytes: usize,
}

impl UdpSocket {
    /// Makes and binds a socket. Port 0 is any free one. `buffer_bytes` is what the kernel is asked to queue, beyond
    /// its sysctl limit if the process may.
    ///
    /// # Errors
    /// [`UdpError`].
    pub fn open(address: SocketAddr, role: Role, buffer_bytes: usize) -> Result<Self, UdpError> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, None)
            .map_err(|errno| UdpError::Socket { address, source: errno.into() })?;
        let need = |option, level, name, value| {
            set_int(fd.as_fd(), level, name, value).map_err(|errno| UdpError::Option {
                option,
                address,
                source: errno.into(),
            })
        };
        if address.is_ipv4() {
            need("IP_MTU_DISCOVER", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
        } else {
            need("IPV6_V6ONLY", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            need("IPV6_MTU_DISCOVER", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
        }
        if role == Role::Receive {
            need("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            if address.is_ipv4() {
                need("IP_RECVTOS", libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            } else {
                need("IPV6_RECVTCLASS", libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
                // Tunnels may send none (RFC 6935); the inner packets bear their own.
                need("UDP_NO_CHECK6_RX", libc::SOL_UDP, UDP_NO_CHECK6_RX, 1)?;
            }
        }
        let granted = set_buffer(fd.as_fd(), role, buffer_bytes);
        bind_to(&fd, address).map_err(|errno| UdpError::Bind { address, source: errno.into() })?;
        let address = local_address(&fd).unwrap_or(address);
        Ok(Self { fd, address, buffer_bytes: granted })
    }

    /// Has the kernel merge datagrams it receives from now on (`UDP_GRO`).
    ///
    /// # Errors
    /// [`UdpError::Option`]; datagrams then come one by one.
    pub fn enable_merging(&self) -> Result<(), UdpError> {
        self.set("UDP_GRO", libc::SOL_UDP, libc::UDP_GRO)
    }

    /// Sends without a UDP checksum from now on. The kernel then refuses segmentation.
    ///
    /// # Errors
    /// [`UdpError::Option`].
    pub fn disable_checksum(&self) -> Result<(), UdpError> {
        let (option, level, name) = match self.address {
            SocketAddr::V4(_) => ("SO_NO_CHECK", libc::SOL_SOCKET, libc::SO_NO_CHECK),
            SocketAddr::V6(_) => ("UDP_NO_CHECK6_TX", libc::SOL_UDP, UDP_NO_CHECK6_TX),
        };
        self.set(option, level, name)
    }

    /// Sets a socket option to 1.
    fn set(&self, option: &'static str, level: c_int, name: c_int) -> Result<(), UdpError> {
        set_int(self.fd.as_fd(), level, name, 1).map_err(|errno| UdpError::Option {
            option,
            address: self.address,
            source: errno.into(),
        })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes the kernel queues for it (its own doubling for bookkeeping included); fewer than asked for when the
    /// process may not go beyond `net.core.rmem_max` and `wmem_max`.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The MTU in bytes of the path from one of our addresses to a remote, as the kernel knows it now, outer IP header
/// included. None when there is no route. Makes a socket and closes it: for the error path only.
#[must_use]
pub fn path_mtu(local: IpAddr, remote: SocketAddr) -> Option<u16> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    bind_to(&fd, SocketAddr::new(local, 0)).ok()?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)).ok()?;
    let mtu = if remote.is_ipv4() {
        get_int(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        get_int(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    mtu.ok().map(|mtu| u16::try_from(mtu.max(0)).unwrap_or(u16::MAX))
}

/// How many pieces one `UDP_SEGMENT` send may have on this kernel; 0 when it has no such thing. Tried on a socket of
/// loopback that talks to itself; where loopback is down, the older limit is assumed.
#[must_use]
pub fn segment_limit() -> usize {
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let Ok(socket) = UdpSocket::open(loopback, Role::Send, PROBE_BUFFER_BYTES) else { return 0 };
    if get_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_err() {
        return 0;
    }
    let bytes = [0; SEGMENTS_MAX];
    let options = SendOptions { remote: socket.address(), tos: 0, segment: Some(1) };
    let taken = |limit: &&usize| {
        let spans = [io::IoSlice::new(&bytes[..**limit])];
        !matches!(socket.send(&spans, &options), Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::ENETUNREACH))
    };
    SEGMENT_LIMITS.iter().find(taken).copied().unwrap_or(SEGMENT_LIMITS[1])
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
}

fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Asks for queue space by force first, then within the sysctl's limit; gives what the kernel granted.
fn set_buffer(fd: BorrowedFd<'_>, role: Role, bytes: usize) -> usize {
    let wanted = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    let (force, plain) = match role {
        Role::Receive => (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        Role::Send => (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    };
    if set_int(fd, libc::SOL_SOCKET, force, wanted).is_err() {
        let _smaller = set_int(fd, libc::SOL_SOCKET, plain, wanted);
    }
    get_int(fd, libc::SOL_SOCKET, plain).map_or(0, |granted| usize::try_from(granted).unwrap_or(0))
}

fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> Result<(), Errno> {
    let len = socklen_of::<c_int>();
    // SAFETY: the option is an int, which outlives the call.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

fn get_int(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> Result<c_int, Errno> {
    let (mut value, mut len) = (0, socklen_of::<c_int>());
    // SAFETY: the option is an int; `value` and `len` outlive the call.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    Errno::result(result).map(|_| value)
}

/// Size of a type as socket calls want it.
#[allow(clippy::cast_possible_truncation, reason = "socket structures have at most a few hundred bytes")]
const fn socklen_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
