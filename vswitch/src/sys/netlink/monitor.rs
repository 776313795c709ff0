//! Notifications of rtnetlink: that something about routes, neighbours, links or addresses changed, not what. Who wants to
//! know reads the state anew, so that nothing rests on every notification being read.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::{MESSAGE_ALIGNMENT, NetlinkError};

/// Groups of linux/rtnetlink.h: links, neighbours, addresses, routes and rules of both families, next hops.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// Datagrams read in one look: what is beyond counts as a change.
const DATAGRAMS_MAX: usize = 256;
/// Bytes of one datagram that are looked at; one that is longer counts as a change.
const DATAGRAM_BYTES: usize = 16 * 1024;

/// Watches the calling thread's network namespace.
#[derive(Debug)]
pub struct RouteMonitor {
    socket: Socket,
}

impl RouteMonitor {
    /// Watches from now on.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        socket.set_non_blocking(true).map_err(NetlinkError::Open)?;
        for group in GROUPS {
            // Kernels before 5.3 have no next hop objects, nor their group.
            let joined = socket.add_membership(group);
            if group <= GROUPS[6] {
                joined.map_err(NetlinkError::Open)?;
            }
        }
        Ok(Self { socket })
    }

    /// Whether something may have changed since the last look, neighbours of other interfaces than `device` left out.
    /// Never blocks.
    pub fn changed(&mut self, device: u32) -> bool {
        drain(&self.socket, |datagram| concerns(datagram, device))
    }
}

/// Reads the notifications a socket has; true when one matters, or when some can not be looked at. Never blocks.
pub(super) fn drain(socket: &Socket, matters: impl Fn(&[u8]) -> bool) -> bool {
    let mut changed = false;
    for _ in 0..DATAGRAMS_MAX {
        let mut bytes = Vec::with_capacity(DATAGRAM_BYTES);
        match socket.recv(&mut bytes, libc::MSG_TRUNC) {
            Ok(len) => changed |= len > DATAGRAM_BYTES || matters(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return changed,
            // Among them ENOBUFS: notifications were lost.
            Err(_) => changed = true,
        }
    }
    true
}

/// Whether a datagram holds a message other than of a neighbour elsewhere.
fn concerns(datagram: &[u8], device: u32) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else { return true };
        let len = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(MESSAGE_ALIGNMENT);
        let elsewhere = match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => neighbour.header.ifindex != device,
            _ => false,
        };
        if !elsewhere {
            return true;
        }
        rest = rest.get(len.max(1)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Netlink;
    use crate::sys::netns::testing::wire;

    #[test]
    fn each_change_of_the_underlay_is_noticed_and_neighbours_elsewhere_are_not() {
        let (near, _far) = wire();
        near.ip("link add other type veth peer name another");
        near.ip("link set other up");
        near.enter(|| {
            let device = Netlink::open().unwrap().link("nic").unwrap().index;
            let mut monitor = RouteMonitor::open().unwrap();
            // The wire may still be settling.
            std::thread::sleep(std::time::Duration::from_millis(300));
            monitor.changed(device);
            for change in [
                "neigh replace 10.9.0.2 lladdr 02:00:00:00:00:09 dev nic",
                "-6 neigh replace fd00:9::2 lladdr 02:00:00:00:00:09 dev nic",
                "route add 10.20.0.0/16 via 10.9.0.2",
                "-6 route add fd00:20::/64 via fd00:9::2",
                "addr add 10.10.0.1/24 dev nic",
                "rule add from 10.9.0.1 lookup 100",
                "link set nic mtu 1400",
            ] {
                near.ip(change);
                assert!(monitor.changed(device), "{change}");
                monitor.changed(device);
            }
            near.ip("neigh replace 10.11.0.2 lladdr 02:00:00:00:00:09 dev other");
            assert!(!monitor.changed(device), "a neighbour of another interface");
        });
    }
}
