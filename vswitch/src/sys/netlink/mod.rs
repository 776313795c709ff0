//! Synchronous netlink: links, addresses, routes and neighbours of the calling thread's network namespace, and what of
//! netfilter `nft` is too slow for, or does not do.
//!
//! One request at a time, its answer read to the end; notifications have a socket of their own (`monitor`). Everything
//! states what shall be ("replace"), so that setting up a port again after a restart changes nothing.

mod address;
mod conntrack;
mod ipsec;
mod link;
mod monitor;
mod netfilter;
mod nftables;
mod outgoing;
mod route;
mod veth;

use std::fmt::Display;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub use address::LinkAddress;
pub use conntrack::{UdpFlow, forget_udp_flows};
pub use ipsec::IpsecPolicies;
pub use link::Link;
pub use monitor::RouteMonitor;
pub use nftables::{TableMonitor, has_table};
pub use outgoing::{Neighbour, RouteTo, default_hop_limits};
pub use route::{ROUTE_PROTOCOL, RouteSpec};
pub use veth::{VETH_KIND, VethSpec};

/// Messages in a netlink datagram begin at multiples of this many bytes.
const MESSAGE_ALIGNMENT: usize = 4;

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}; check the process' file descriptor limit")]
    Open(io::Error),
    /// The kernel refused.
    #[error("cannot {action}: {source}{}", remedy(source))]
    Refused {
        /// What was tried, on which object.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's answer made no sense.
    #[error("cannot {action}: the kernel's answer can not be read ({reason}); please report this with `uname -r`")]
    Answer {
        /// What was tried, on which object.
        action: String,
        /// What was wrong.
        reason: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open(_) | Self::Answer { .. } => None,
        }
    }

    /// Whether the object of the request does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL))
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run podwired with CAP_NET_ADMIN in that namespace",
        Some(libc::ENODEV) => "; check the interface's name and namespace",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "; the interface must be up and the gateway on its link",
        Some(libc::EEXIST) => "; remove what stands in its place",
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => "; the kernel was built without it, or IPv6 is disabled",
        _ => "",
    }
}

/// Messages of one netlink protocol.
trait Message: NetlinkSerializable + NetlinkDeserializable {}
impl Message for RouteNetlinkMessage {}

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Self::of_protocol(NETLINK_ROUTE)
    }

    fn of_protocol(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for something to be done or for one object; the kernel answers with it and an acknowledgement.
    fn request<M: Message>(&mut self, message: M, flags: u16, action: impl Display) -> Result<Vec<M>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, &action)
    }

    /// Asks for all objects of a kind.
    fn dump<M: Message>(&mut self, message: M, action: impl Display) -> Result<Vec<M>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP, &action)
    }

    fn exchange<M: Message>(&mut self, message: M, flags: u16, action: &dyn Display) -> Result<Vec<M>, NetlinkError> {
        let refused = |source| NetlinkError::Refused { action: action.to_string(), source };
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(refused)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _from) = self.socket.recv_from_full().map_err(refused)?;
            if self.read_datagram(&datagram, &mut answers, action)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; true when the answer is complete.
    fn read_datagram<M: Message>(
        &self,
        datagram: &[u8],
        answers: &mut Vec<M>,
        action: &dyn Display,
    ) -> Result<bool, NetlinkError> {
        let unreadable = |reason: String| NetlinkError::Answer { action: action.to_string(), reason };
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(|error| unreadable(error.to_string()))?;
            let (header, payload) = message.into_parts();
            let len = usize::try_from(header.length).unwrap_or(usize::MAX).next_multiple_of(MESSAGE_ALIGNMENT);
            rest = rest.get(len.max(1)..).unwrap_or_default();
            if header.sequence_number != self.sequence {
                continue;
            }
            match payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return Err(NetlinkError::Refused { action: action.to_string(), source: error.to_io() });
                }
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Overrun(_) => return Err(unreadable("it was overrun".into())),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn family_of(address: std::net::IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
