//! Sending: one datagram, or many of one size, gathered from spans.

use std::ffi::{c_int, c_void};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::{UdpSocket, socklen_of};

/// Bytes for the control messages of one send: segment size and TOS, each with its header, and room to spare.
const CONTROL_BYTES: usize = 64;

/// Where and how one send goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendOptions {
    /// Destination.
    pub remote: SocketAddr,
    /// Outer TOS or traffic class.
    pub tos: u8,
    /// Cut into datagrams of this many payload bytes (`UDP_SEGMENT`); the last may be shorter.
    pub segment: Option<u16>,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl UdpSocket {
    /// Sends the spans as one datagram, or as many. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's. `EMSGSIZE`: longer than the path takes; `EINVAL` or `EIO` with a segment size: not possible here.
    pub fn send(&self, spans: &[IoSlice<'_>], options: &SendOptions) -> Result<(), Errno> {
        let mut name = RawAddress::of(options.remote);
        let mut control = Control([0; CONTROL_BYTES]);
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        let (name, name_len) = name.raw();
        message.msg_name = name;
        message.msg_namelen = name_len;
        // IoSlice is guaranteed to be an iovec; the kernel only reads what it points to.
        message.msg_iov = spans.as_ptr().cast::<libc::iovec>().cast_mut();
        message.msg_iovlen = spans.len() as _;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES as _;
        message.msg_controllen = write_control(&mut message, options) as _;
        if message.msg_controllen == 0 {
            message.msg_control = std::ptr::null_mut();
        }
        // SAFETY: everything `message` points to is alive until the call returns.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        Errno::result(sent).map(drop)
    }
}

/// Writes the control messages into the message's control buffer; gives their length.
fn write_control(message: &mut libc::msghdr, options: &SendOptions) -> usize {
    let mut used = 0;
    // SAFETY: `message` has a zeroed control buffer of CONTROL_BYTES, aligned for cmsghdr.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    if let Some(segment) = options.segment {
        // SAFETY: the buffer has room for both messages, so `at` is not null.
        used += unsafe { put_control(at, libc::SOL_UDP, libc::UDP_SEGMENT, segment) };
        // SAFETY: `at` is a complete message in the same buffer.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    if options.tos != 0 {
        let (level, kind) = match options.remote {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        // SAFETY: the buffer has room for both messages, so `at` is not null.
        used += unsafe { put_control(at, level, kind, c_int::from(options.tos)) };
    }
    used
}

/// Writes one control message; gives the space it takes.
///
/// # Safety
/// `at` must point into a control buffer with room for a message of a `T`.
unsafe fn put_control<T>(at: *mut libc::cmsghdr, level: c_int, kind: c_int, value: T) -> usize {
    // SAFETY: the caller guarantees the room; the data may lie unaligned.
    unsafe {
        (*at).cmsg_level = level;
        (*at).cmsg_type = kind;
        (*at).cmsg_len = libc::CMSG_LEN(socklen_of::<T>()) as _;
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(socklen_of::<T>()) as usize
    }
}

/// A socket address as the kernel reads it.
enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    #[allow(clippy::cast_possible_truncation, reason = "address families are small constants")]
    fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    fn raw(&mut self) -> (*mut c_void, libc::socklen_t) {
        match self {
            Self::V4(v4) => ((&raw mut *v4).cast(), socklen_of::<libc::sockaddr_in>()),
            Self::V6(v6) => ((&raw mut *v6).cast(), socklen_of::<libc::sockaddr_in6>()),
        }
    }
}
