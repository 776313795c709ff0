//! AF_PACKET sockets (packet(7)): all frames that come in on one interface, seen beside the kernel. The switch uses none;
//! measuring does, where a frame's head, its length and the time the kernel had it are enough.

use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

/// Frames one call takes at most.
pub const BURST: usize = 64;
/// Bytes of a frame that are copied.
pub const HEAD_BYTES: usize = 64;
/// Bytes for the control message of one receive, the time stamp.
const CONTROL_BYTES: usize = 64;
/// All protocols, in network order (linux/if_ether.h).
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// What can go wrong when a socket is set up.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {what} an AF_PACKET socket on {device}: {source}; it takes CAP_NET_RAW, and the interface has to be there"
)]
pub struct PacketError {
    /// What was tried.
    pub what: &'static str,
    /// The interface.
    pub device: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// What shall be received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketSpec {
    /// The interface, for messages.
    pub device: String,
    /// Its index in the calling thread's namespace.
    pub index: u32,
    /// Bytes the kernel is asked to queue, its bookkeeping included.
    pub buffer_bytes: usize,
    /// How long a receive waits.
    pub patience: Duration,
    /// Sockets of one group share the frames out by flow (`PACKET_FANOUT_HASH`); the group's number.
    pub fanout: Option<u16>,
}

/// What was received of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen<'a> {
    /// Its first bytes, at most [`HEAD_BYTES`].
    pub head: &'a [u8],
    /// Its length in bytes, without FCS.
    pub len: usize,
    /// When the kernel had it, in nanoseconds of the wall clock; 0 when it does not say.
    pub unix_ns: u64,
}

/// A socket that sees what comes in on one interface, whatever its destination, and nothing that goes out.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket, in the calling thread's namespace. The interface is promiscuous as long as it is open.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn open(spec: &PacketSpec) -> Result<Self, PacketError> {
        let failed = |what| move |errno: Errno| PacketError { what, device: spec.device.clone(), source: errno.into() };
        // Without a protocol it receives nothing until it is bound to the one interface.
        // SAFETY: a call without pointers.
        let made = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let made = Errno::result(made).map_err(failed("make"))?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(made) } };
        let bytes = c_int::try_from(spec.buffer_bytes).unwrap_or(c_int::MAX);
        // A smaller queue shows as drops.
        let _smaller = socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes);
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32).map_err(failed("have time stamps of"))?;
        let patience = libc::timeval {
            tv_sec: libc::time_t::try_from(spec.patience.as_secs()).unwrap_or(1),
            tv_usec: spec.patience.subsec_micros().into(),
        };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience).map_err(failed("time"))?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32).map_err(failed("filter"))?;
        let index = c_int::try_from(spec.index).unwrap_or(0);
        socket.bind(index).map_err(failed("bind"))?;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or(0),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous).map_err(failed("be promiscuous by"))?;
        if let Some(group) = spec.fanout {
            let hash = c_int::from(group) | libc::PACKET_FANOUT_HASH.cast_signed() << 16;
            socket.set(libc::SOL_PACKET, libc::PACKET_FANOUT, &hash).map_err(failed("share"))?;
        }
        Ok(socket)
    }

    fn bind(&self, index: c_int) -> Result<(), Errno> {
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_protocol = ALL_PROTOCOLS;
        address.sll_ifindex = index;
        // SAFETY: the address outlives the call, with its true length.
        let bound = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len_of(&address)) };
        Errno::result(bound).map(drop)
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> Result<(), Errno> {
        let from = std::ptr::from_ref(value).cast();
        // SAFETY: the value outlives the call, with its true length.
        Errno::result(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, from, len_of(value)) }).map(drop)
    }

    /// Sends one whole frame.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        // SAFETY: the frame outlives the call, with its true length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        Errno::result(sent).map(drop)
    }

    /// Frames the kernel dropped since this was last asked, because the queue was full.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drops(&self) -> Result<u64, Errno> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = len_of(&counts);
        let to = (&raw mut counts).cast();
        // SAFETY: the structure and its length outlive the call, which writes no more than that.
        let result = unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &raw mut len)
        };
        Errno::result(result)?;
        Ok(counts.tp_drops.into())
    }

    /// Waits for a frame, and shows it and those behind it, in order, at most [`BURST`]; gives how many.
    ///
    /// # Errors
    /// The kernel's; `EAGAIN` when none came in time.
    pub fn receive(&self, buffers: &mut PacketBuffers, mut see: impl FnMut(Seen<'_>)) -> Result<usize, Errno> {
        let mut spans = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: HEAD_BYTES }; BURST];
        // SAFETY: all-zero is a valid mmsghdr.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
        let slots = buffers.heads.iter_mut().zip(buffers.control.iter_mut());
        for ((message, span), (head, control)) in messages.iter_mut().zip(&mut spans).zip(slots) {
            span.iov_base = head.as_mut_ptr().cast();
            let header = &mut message.msg_hdr;
            header.msg_iov = &raw mut *span;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // With MSG_TRUNC a message's length is the frame's, however much of it was copied.
        let flags = libc::MSG_WAITFORONE | libc::MSG_TRUNC;
        let count = libc::c_uint::try_from(BURST).unwrap_or(1);
        // SAFETY: every message points to a span and a control buffer of its own, all alive until the call returns, with
        // their true lengths.
        let received = unsafe {
            libc::recvmmsg(self.fd.as_raw_fd(), messages.as_mut_ptr(), count, flags as _, std::ptr::null_mut())
        };
        let received = usize::try_from(Errno::result(received)?).unwrap_or(0);
        for (at, message) in messages.iter().take(received).enumerate() {
            // SAFETY: the kernel filled this message, whose control buffer is alive.
            let unix_ns = unsafe { stamp(&message.msg_hdr) };
            let len = usize::try_from(message.msg_len).unwrap_or(0);
            see(Seen { head: &buffers.heads[at][..len.min(HEAD_BYTES)], len, unix_ns });
        }
        Ok(received)
    }
}

#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct Control([u8; CONTROL_BYTES]);

/// Where a socket's bursts go.
#[derive(Debug)]
pub struct PacketBuffers {
    heads: Box<[[u8; HEAD_BYTES]; BURST]>,
    control: Box<[Control; BURST]>,
}

impl PacketBuffers {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self { heads: Box::new([[0; HEAD_BYTES]; BURST]), control: Box::new([Control([0; CONTROL_BYTES]); BURST]) }
    }
}

impl Default for PacketBuffers {
    fn default() -> Self {
        Self::new()
    }
}

/// The time stamp of a message in nanoseconds, 0 when there is none.
///
/// # Safety
/// The kernel must have filled the message, and its control buffer must be alive.
unsafe fn stamp(header: &libc::msghdr) -> u64 {
    // SAFETY: the control buffer is as the kernel left it.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: `at` is a complete message within the control buffer; the data of this kind is a timespec and may lie
        // unaligned.
        unsafe {
            if ((*at).cmsg_level, (*at).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                let time = libc::CMSG_DATA(at).cast::<libc::timespec>().read_unaligned();
                let part = |number: i64| u64::try_from(number).unwrap_or(0);
                return part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec);
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    0
}

/// Size of a value as socket calls want it.
fn len_of<T>(_: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::clock::unix_now;
    use crate::sys::netlink::Netlink;
    use crate::sys::netns::testing::wire;

    #[test]
    fn what_comes_in_is_seen_with_its_length_and_time_and_what_goes_out_is_not() {
        let (near, far) = wire();
        let sender = far.enter(|| UdpSocket::bind("10.9.0.2:0").unwrap());
        near.enter(|| {
            let index = Netlink::open().unwrap().link("nic").unwrap().index;
            let patience = Duration::from_millis(300);
            let spec = PacketSpec { device: "nic".into(), index, buffer_bytes: 1 << 20, patience, fanout: None };
            let socket = PacketSocket::open(&spec).unwrap();
            let before = u64::try_from(unix_now().as_nanos()).unwrap();
            let back = UdpSocket::bind("10.9.0.1:6001").unwrap();
            for len in [100_usize, 1_000] {
                sender.send_to(&vec![7; len], "10.9.0.1:6001").unwrap();
                back.send_to(&vec![7; len], sender.local_addr().unwrap()).unwrap();
            }
            let (mut seen, mut buffers) = (Vec::new(), PacketBuffers::new());
            while socket
                .receive(&mut buffers, |frame| {
                    let is_udp = frame.head[12..14] == [8, 0] && frame.head[23] == 17;
                    if is_udp {
                        assert!(frame.unix_ns >= before && frame.head.len() == HEAD_BYTES);
                        seen.push((frame.len, frame.head[29]));
                    }
                })
                .is_ok()
            {}
            assert_eq!(seen, [(142, 2), (1_042, 2)], "from 10.9.0.2 only");
            assert_eq!(socket.drops().unwrap(), 0);

            let farther = far.enter(|| {
                let index = Netlink::open().unwrap().link("far").unwrap().index;
                PacketSocket::open(&PacketSpec { device: "far".into(), index, ..spec.clone() }).unwrap()
            });
            socket.send(&[9; 60]).unwrap();
            let mut came = false;
            while !came && farther.receive(&mut buffers, |frame| came |= frame.head == [9; 60]).is_ok() {}
            assert!(came, "what is sent comes out at the other end");
        });
    }

    #[test]
    fn a_refusal_says_on_which_interface() {
        let patience = Duration::from_millis(1);
        let spec = PacketSpec { device: "gone".into(), index: 999_999, buffer_bytes: 0, patience, fanout: None };
        let error = PacketSocket::open(&spec).unwrap_err().to_string();
        assert!(error.starts_with("cannot bind an AF_PACKET socket on gone: No such device"), "{error}");
    }
}
