//! Pairs of veth devices, one end of which is another namespace's.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use podwire_control::model::Mac;

use super::{Netlink, NetlinkError};

/// Driver kind of veth devices in `ip -d link`.
pub const VETH_KIND: &str = "veth";

/// A pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// Name of the end in this namespace.
    pub name: &'a str,
    /// Queues that end sends to; it receives on one.
    pub tx_queues: u32,
    /// Name of the other end, which has one queue each way.
    pub peer: &'a str,
    /// Its namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// Its hardware address.
    pub peer_mac: Mac,
}

impl Netlink {
    /// Makes a pair of veth devices, both down.
    ///
    /// # Errors
    /// [`NetlinkError`], also when a name is taken.
    pub fn add_veth(&mut self, spec: &VethSpec<'_>) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(spec.peer.to_owned()),
            LinkAttribute::NetNsFd(spec.peer_netns.as_raw_fd()),
            LinkAttribute::Address(spec.peer_mac.0.to_vec()),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(spec.name.to_owned()),
            LinkAttribute::NumTxQueues(spec.tx_queues),
            LinkAttribute::NumRxQueues(1),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let action = format!("make veth pair {} and {}", spec.name, spec.peer);
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::netns::testing::TestNetns;

    #[test]
    fn a_pair_has_an_end_in_each_namespace_with_the_queues_asked_for() {
        let (near, far) = (TestNetns::new(), TestNetns::new());
        let far_netns = far.handle();
        let peer_mac = Mac([2, 0, 0, 0, 0, 9]);
        let (name, peer) = ("here", "eth0");
        let spec = VethSpec { name, tx_queues: 4, peer, peer_netns: far_netns.as_fd(), peer_mac };
        let here = near.enter(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_veth(&spec).unwrap();
            assert!(netlink.add_veth(&spec).unwrap_err().to_string().contains("make veth pair here and eth0"));
            netlink.link("here").unwrap()
        });
        let there = far.enter(|| Netlink::open().unwrap().link("eth0").unwrap());
        assert_eq!(
            (here.kind.as_deref(), there.kind.as_deref(), there.mac),
            (Some("veth"), Some("veth"), Some(peer_mac))
        );
        assert_eq!((here.other, there.other), (Some(there.index), Some(here.index)));
        assert!(near.ip("-d link show here").contains("numtxqueues 4 numrxqueues 1"));
    }
}
