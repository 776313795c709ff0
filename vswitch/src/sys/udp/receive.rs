//! Receiving: a burst of datagrams in one call, each possibly many that the kernel merged (`UDP_GRO`).

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use arrayvec::ArrayVec;
use nix::errno::Errno;

use super::{UdpSocket, socklen_of};

/// Buffers of one receiving socket: datagrams (merged ones count once) one call takes at most.
pub const DATAGRAM_BUFFERS: usize = 64;
/// Bytes of each buffer: the longest UDP payload, merged or not, fits.
const BUFFER_BYTES: usize = 65_536;
/// From one buffer to the next. Not a power of two, so that short datagrams in many buffers do not share cache sets.
const STRIDE_BYTES: usize = BUFFER_BYTES + 27 * 64;
/// Bytes for the control messages of one receive: segment size and TOS, each with its header, and room to spare.
const CONTROL_BYTES: usize = 128;

/// One received buffer: one datagram, or several of one size (the last may be shorter) from one sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Bytes in the buffer; 0 for an empty datagram.
    pub len: usize,
    /// Bytes of each datagram in it; `len` when it is one.
    pub segment: usize,
    /// Who sent it.
    pub remote: IpAddr,
    /// Outer TOS or traffic class.
    pub tos: u8,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Where a receiving socket's bursts go; made once, since it is a megabyte.
pub struct ReceiveBuffers {
    bytes: Box<[u8]>,
    control: Box<[Control; DATAGRAM_BUFFERS]>,
    /// What the last burst filled, each with its buffer.
    datagrams: ArrayVec<(usize, Datagram), DATAGRAM_BUFFERS>,
    truncated: u64,
}

impl std::fmt::Debug for ReceiveBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBuffers").field("len", &self.len()).field("truncated", &self.truncated).finish()
    }
}

impl ReceiveBuffers {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; DATAGRAM_BUFFERS * STRIDE_BYTES].into_boxed_slice(),
            control: Box::new([Control([0; CONTROL_BYTES]); DATAGRAM_BUFFERS]),
            datagrams: ArrayVec::new(),
            truncated: 0,
        }
    }

    /// Buffers the last burst filled, those thrown away left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// True when the last burst was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// One filled buffer.
    #[must_use]
    pub fn datagram(&self, at: usize) -> (Datagram, &[u8]) {
        let (buffer, datagram) = self.datagrams[at];
        (datagram, &self.bytes[buffer * STRIDE_BYTES..][..datagram.len])
    }

    /// Bytes of the last burst.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.datagrams.iter().map(|(_, datagram)| datagram.len).sum()
    }

    /// Datagrams thrown away since the start, because they were cut or came without a sender.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated
    }
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self::new()
    }
}

impl UdpSocket {
    /// Receives a burst into the buffers, in order, at most `wanted` of them; gives how many came, those thrown away
    /// included. Allocates nothing, never blocks.
    ///
    /// # Errors
    /// The kernel's; `EAGAIN` when there is nothing.
    pub fn recv_many(&self, buffers: &mut ReceiveBuffers, wanted: usize) -> Result<usize, Errno> {
        buffers.datagrams.clear();
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::zeroed() }; DATAGRAM_BUFFERS];
        let mut spans = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: BUFFER_BYTES }; DATAGRAM_BUFFERS];
        // SAFETY: all-zero is a valid mmsghdr.
        let mut messages: [libc::mmsghdr; DATAGRAM_BUFFERS] = unsafe { std::mem::zeroed() };
        let mut slots = buffers.bytes.chunks_exact_mut(STRIDE_BYTES).zip(buffers.control.iter_mut());
        for ((message, name), span) in messages.iter_mut().zip(&mut names).zip(&mut spans).take(wanted) {
            let Some((bytes, control)) = slots.next() else { break };
            span.iov_base = bytes.as_mut_ptr().cast();
            let header = &mut message.msg_hdr;
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = socklen_of::<libc::sockaddr_storage>();
            header.msg_iov = &raw mut *span;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        let count = libc::c_uint::try_from(wanted.min(DATAGRAM_BUFFERS)).unwrap_or(1);
        let no_timeout = std::ptr::null_mut();
        // SAFETY: every message points to a name, a span and a control buffer of its own, all alive until the call
        // returns, with their true lengths.
        let received = unsafe {
            libc::recvmmsg(self.fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _, no_timeout)
        };
        let received = usize::try_from(Errno::result(received)?).unwrap_or(0);
        for (at, (message, name)) in messages.iter().zip(&names).take(received).enumerate() {
            // SAFETY: the kernel filled this message; its control buffer and name are alive.
            let datagram = unsafe { read_message(message, name) };
            match datagram {
                Some(datagram) => buffers.datagrams.push((at, datagram)),
                None => buffers.truncated += 1,
            }
        }
        Ok(received)
    }
}

/// What the kernel said of one message; none when it was cut or its sender is of no known family.
///
/// # Safety
/// The kernel must have filled `message`, whose control buffer must still be alive, and `name`.
unsafe fn read_message(message: &libc::mmsghdr, name: &MaybeUninit<libc::sockaddr_storage>) -> Option<Datagram> {
    let header = &message.msg_hdr;
    let len = usize::try_from(message.msg_len).ok()?;
    if header.msg_flags & libc::MSG_TRUNC != 0 {
        return None;
    }
    // SAFETY: `name` was zeroed at first, and the kernel wrote an address of the family it says.
    let remote = unsafe { read_name(name) }?;
    let mut datagram = Datagram { len, segment: len, remote, tos: 0 };
    // SAFETY: the control buffer is as the kernel left it.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: `at` is a complete message within the control buffer; its data has the kernel's type for its kind
        // (UDP_GRO: int, IP_TOS: one byte, IPV6_TCLASS: int) and may lie unaligned.
        unsafe {
            let data = libc::CMSG_DATA(at);
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = usize::try_from(data.cast::<c_int>().read_unaligned()).unwrap_or(0);
                    datagram.segment = if segment == 0 { len } else { segment };
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => datagram.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    datagram.tos = u8::try_from(data.cast::<c_int>().read_unaligned() & 0xff).unwrap_or(0);
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    Some(datagram)
}

/// # Safety
/// `name` must be zeroed, or hold an address of the family it says.
unsafe fn read_name(name: &MaybeUninit<libc::sockaddr_storage>) -> Option<IpAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage, and so is any address the kernel writes.
    let storage = unsafe { name.assume_init_ref() };
    let storage = std::ptr::from_ref(storage);
    // SAFETY: sockaddr_storage is as large and as aligned as every address; the family says which one it is.
    unsafe {
        match c_int::from((*storage).ss_family) {
            libc::AF_INET => {
                let v4 = &*storage.cast::<libc::sockaddr_in>();
                Some(IpAddr::V4(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes())))
            }
            libc::AF_INET6 => {
                let v6 = &*storage.cast::<libc::sockaddr_in6>();
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}
