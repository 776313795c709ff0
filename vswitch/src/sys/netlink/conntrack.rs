//! Flows that the kernel tracks (linux/netfilter/nfnetlink_conntrack.h), and forgetting some of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::DefaultNla;

use super::netfilter::{Netfilter, attribute};
use super::{Netlink, NetlinkError};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `CTA_…`: the tuple of the first packet and of its answer, the flow's number, its zone.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_…`
const IP: u16 = 1;
const PROTO: u16 = 2;
/// `CTA_IP_V4_…` of the source; the destination's is the next. IPv6 has the two after.
const SOURCE: u16 = 1;
/// `CTA_PROTO_…`
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;

/// A tracked flow of UDP datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpFlow {
    /// Who sent the first.
    pub from: SocketAddr,
    /// Where to, as it was sent.
    pub to: SocketAddr,
    /// Who answers.
    pub answered_by: SocketAddr,
    /// Where to, as it is answered.
    pub answered_to: SocketAddr,
}

/// Has the kernel forget flows of one family in the calling thread's namespace, and says how many.
///
/// # Errors
/// [`NetlinkError`].
pub fn forget_udp_flows(v6: bool, stale: impl Fn(&UdpFlow) -> bool) -> Result<usize, NetlinkError> {
    let family = u8::try_from(if v6 { libc::AF_INET6 } else { libc::AF_INET }).unwrap_or(0);
    let mut netlink = Netlink::netfilter()?;
    let tracked = netlink.dump(Netfilter::new(SUBSYSTEM, GET, family, &[]), "list tracked flows")?;
    let mut forgotten = 0;
    for flow in tracked.iter().filter(|flow| udp_flow(flow).is_some_and(|flow| stale(&flow))) {
        // Without a tuple the kernel would forget all flows; this one has its own, or it would be no `UdpFlow`.
        let own = [ORIGINAL, ID, ZONE].map(|kind| Some(DefaultNla::new(kind, flow.attribute(kind)?.to_vec())));
        let own: Vec<DefaultNla> = own.into_iter().flatten().collect();
        let request = Netfilter::new(SUBSYSTEM, DELETE, family, &own);
        match netlink.request(request, 0, "forget a tracked flow") {
            Err(error) if error.is_not_found() => {}
            done => {
                done?;
                forgotten += 1;
            }
        }
    }
    Ok(forgotten)
}

fn udp_flow(message: &Netfilter) -> Option<UdpFlow> {
    let (from, to) = tuple(message.attribute(ORIGINAL)?)?;
    let (answered_by, answered_to) = tuple(message.attribute(REPLY)?)?;
    Some(UdpFlow { from, to, answered_by, answered_to })
}

/// Source and destination of a tuple of UDP.
fn tuple(attributes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, proto) = (attribute(attributes, IP)?, attribute(attributes, PROTO)?);
    if attribute(proto, NUMBER)? != [17] {
        return None;
    }
    let port = |kind| Some(u16::from_be_bytes(attribute(proto, kind)?.try_into().ok()?));
    let end = |nth| Some(SocketAddr::new(address(ip, SOURCE + nth)?, port(SOURCE_PORT + nth)?));
    Some((end(0)?, end(1)?))
}

fn address(ip: &[u8], kind: u16) -> Option<IpAddr> {
    let v4 = attribute(ip, kind).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = || attribute(ip, kind + 2).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(|bytes| Ipv4Addr::from(bytes).into()).or_else(|| v6().map(|bytes| Ipv6Addr::from(bytes).into()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::netns::testing::wire;

    #[test]
    fn only_the_flows_meant_are_forgotten_in_both_families() {
        let (near, _far) = wire();
        near.enter(|| {
            // The kernel tracks flows where some rule asks about them.
            let rules =
                "table inet t {\n chain c {\n type filter hook output priority 0\n ct state new accept\n }\n}\n";
            crate::sys::nft::apply(rules).unwrap();
            for (v6, own, remote) in [(false, "10.9.0.1", "10.9.0.2"), (true, "fd00:9::1", "fd00:9::2")] {
                let socket = UdpSocket::bind(SocketAddr::new(own.parse().unwrap(), 0)).unwrap();
                let to = |port| SocketAddr::new(remote.parse().unwrap(), port);
                for port in [1001, 1002] {
                    socket.send_to(b"x", to(port)).unwrap();
                }
                let tracked = |port| {
                    let mut seen = Vec::new();
                    let counted = std::cell::RefCell::new(&mut seen);
                    forget_udp_flows(v6, |flow| {
                        counted.borrow_mut().push(*flow);
                        false
                    })
                    .unwrap();
                    seen.into_iter().find(|flow| flow.to == to(port))
                };
                let from = socket.local_addr().unwrap();
                let flow = UdpFlow { from, to: to(1001), answered_by: to(1001), answered_to: from };
                assert_eq!(tracked(1001), Some(flow));
                assert_eq!(forget_udp_flows(v6, |flow| flow.to.port() == 1001).unwrap(), 1);
                assert_eq!(tracked(1001), None);
                assert!(tracked(1002).is_some());
            }
        });
    }
}
