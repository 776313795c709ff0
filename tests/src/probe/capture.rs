//! What is on the wire: the UDP checksum fields of datagrams as they reach a namespace.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::netns::Netns;

/// Longest frame that is looked at; of longer ones the beginning.
const FRAME_BYTES: usize = 2_048;

/// The checksum fields of the datagrams from a source to a port that came while `body` ran, in order. For a few dozen
/// datagrams: what the socket does not hold is lost.
///
/// # Panics
/// When the namespace may not be listened to.
#[track_caller]
pub fn checksums(netns: &Netns, source: IpAddr, port: u16, body: impl FnOnce()) -> Vec<u16> {
    let listen = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
    let listener: OwnedFd = netns.enter(listen).expect("root may listen to an interface");
    body();
    let mut found = Vec::new();
    let mut bytes = [0; FRAME_BYTES];
    while let Ok(len) = recv(listener.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        found.extend(checksum(&bytes[..len], source, port));
    }
    found
}

fn checksum(frame: &[u8], source: IpAddr, port: u16) -> Option<u16> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let from: IpAddr = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    match packet.transport? {
        TransportSlice::Udp(udp) if from == source && udp.destination_port() == port => Some(udp.checksum()),
        _ => None,
    }
}
