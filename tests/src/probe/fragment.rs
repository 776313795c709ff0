//! One UDP datagram sent as IP fragments of our own cutting, in any order, to a real socket that must get it whole.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, UdpHeader};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, sendto, socket,
};

use super::Path;
use super::pattern::Pattern;
use super::udp::{DATAGRAM_MAX, with_receiver};

const SOURCE_PORT: u16 = 40_000;
const TTL: u8 = 64;

/// In which order fragments are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// As they were cut.
    First,
    /// The last one first.
    Last,
    /// Every second one, then the others.
    Interleaved,
}

impl Order {
    /// All orders.
    pub const ALL: [Self; 3] = [Self::First, Self::Last, Self::Interleaved];

    fn arrange<T>(self, mut items: Vec<T>) -> Vec<T> {
        match self {
            Self::First => items,
            Self::Last => {
                items.reverse();
                items
            }
            Self::Interleaved => {
                let (mut odd, mut even) = (Vec::new(), Vec::new());
                for (at, item) in items.into_iter().enumerate() {
                    if at % 2 == 0 { even.push(item) } else { odd.push(item) }
                }
                odd.append(&mut even);
                odd
            }
        }
    }
}

/// How a datagram is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Bytes of UDP payload.
    pub payload: usize,
    /// Bytes of IP payload a fragment carries, a multiple of eight.
    pub piece: usize,
    /// Identification of the datagram.
    pub id: u16,
}

/// Sends one datagram in fragments and says whether a UDP socket at the other end got it whole and right.
///
/// # Errors
/// When a socket cannot be made or refuses to send; needs root, for the raw socket.
///
/// # Panics
/// When `piece` is not a multiple of eight.
pub fn fragments(path: Path<'_>, cut: Cut, order: Order) -> io::Result<bool> {
    assert!(cut.piece > 0 && cut.piece.is_multiple_of(8), "fragments are cut at multiples of eight bytes");
    let body = Pattern::bytes(u64::from(cut.id), cut.payload);
    let receive = |socket: &UdpSocket| {
        let mut buffer = vec![0; DATAGRAM_MAX + 1];
        match socket.recv(&mut buffer) {
            Ok(length) => Ok(buffer[..length] == body),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    };
    let send = |address: SocketAddr| {
        let datagram = datagram(path, address.port(), &body)?;
        let packets = datagram.chunks(cut.piece).enumerate().map(|(number, piece)| {
            let offset = number * cut.piece;
            packet(path, cut.id, offset, offset + piece.len() < datagram.len(), piece)
        });
        let packets = packets.collect::<io::Result<Vec<_>>>()?;
        send_raw(address, &order.arrange(packets))
    };
    with_receiver(path, receive, send).map(|((), whole)| whole)
}

fn datagram(path: Path<'_>, port: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let header = match (path.source, path.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            UdpHeader::with_ipv4_checksum(SOURCE_PORT, port, &v4(source.octets(), target.octets(), 0)?, body)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            UdpHeader::with_ipv6_checksum(SOURCE_PORT, port, &v6(source.octets(), target.octets(), 0)?, body)
        }
        _ => return Err(io::Error::other("both ends of a path have one family")),
    };
    let header = header.map_err(io::Error::other)?;
    Ok([&header.to_bytes()[..], body].concat())
}

fn packet(path: Path<'_>, id: u16, offset: usize, more: bool, piece: &[u8]) -> io::Result<Vec<u8>> {
    let units = u16::try_from(offset / 8).map_err(io::Error::other)?;
    let units = IpFragOffset::try_new(units).map_err(io::Error::other)?;
    let headers = match (path.source, path.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut header = v4(source.octets(), target.octets(), piece.len())?;
            header.identification = id;
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = units;
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let mut header = v6(source.octets(), target.octets(), Ipv6FragmentHeader::LEN + piece.len())?;
            header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, units, more, u32::from(id));
            [&header.to_bytes()[..], &fragment.to_bytes()[..]].concat()
        }
        _ => return Err(io::Error::other("both ends of a path have one family")),
    };
    Ok([&headers[..], piece].concat())
}

fn v4(source: [u8; 4], target: [u8; 4], payload: usize) -> io::Result<Ipv4Header> {
    let length = u16::try_from(payload).map_err(io::Error::other)?;
    Ipv4Header::new(length, TTL, IpNumber::UDP, source, target).map_err(io::Error::other)
}

fn v6(source: [u8; 16], destination: [u8; 16], payload: usize) -> io::Result<Ipv6Header> {
    Ok(Ipv6Header {
        payload_length: u16::try_from(payload).map_err(io::Error::other)?,
        next_header: IpNumber::UDP,
        hop_limit: TTL,
        source,
        destination,
        ..Ipv6Header::default()
    })
}

/// Sends complete IP packets. Raw sockets of protocol "raw" take the IP header from us, in both families.
fn send_raw(address: SocketAddr, packets: &[Vec<u8>]) -> io::Result<()> {
    match address {
        SocketAddr::V4(to) => {
            send_raw_to(AddressFamily::Inet, &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)), packets)
        }
        SocketAddr::V6(to) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(*to.ip(), 0, 0, 0));
            send_raw_to(AddressFamily::Inet6, &to, packets)
        }
    }
}

fn send_raw_to(family: AddressFamily, to: &dyn SockaddrLike, packets: &[Vec<u8>]) -> io::Result<()> {
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    for packet in packets {
        sendto(raw.as_raw_fd(), packet, to, MsgFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_keeps_every_fragment() {
        for order in Order::ALL {
            let mut arranged = order.arrange((0..5).collect());
            assert_eq!(arranged == [0, 1, 2, 3, 4], order == Order::First, "{order:?}");
            arranged.sort_unstable();
            assert_eq!(arranged, [0, 1, 2, 3, 4]);
        }
    }
}
