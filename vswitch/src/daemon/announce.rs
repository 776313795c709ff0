//! Unasked announcements of a pod's MAC: gratuitous ARP (RFC 5227, 2.3) and unsolicited advertisements (RFC 4861, 7.2.6).

use std::net::{IpAddr, Ipv6Addr};

use podwire_control::model::Mac;

use crate::wire::icmp::NeighborAdvertisement;
use crate::wire::{Arp, arp, ethernet, icmp, ipv6};

/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Its Ethernet group (RFC 2464, section 7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// The frame that says `address` is at `mac`.
#[must_use]
pub(super) fn frame(mac: Mac, address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(own) => {
            let mut bytes = vec![0; ethernet::HEADER_LEN + arp::PACKET_LEN];
            ethernet::write_header(&mut bytes, Mac::BROADCAST, mac, ethernet::ETHERTYPE_ARP)?;
            let announcement = Arp {
                operation: arp::OPERATION_REQUEST,
                sender_mac: mac,
                sender_ip: own,
                target_mac: Mac::ZERO,
                target_ip: own,
            };
            arp::write(bytes.get_mut(ethernet::HEADER_LEN..)?, &announcement)?;
            Some(bytes)
        }
        IpAddr::V6(own) => {
            let mut bytes = vec![0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + icmp::ND_ADVERTISEMENT_LEN];
            ethernet::write_header(&mut bytes, ALL_NODES_MAC, mac, ethernet::ETHERTYPE_IPV6)?;
            let packet = bytes.get_mut(ethernet::HEADER_LEN..)?;
            let fields = ipv6::Ipv6Fields {
                traffic_class: 0,
                flow_label: 0,
                payload_len: u16::try_from(icmp::ND_ADVERTISEMENT_LEN).ok()?,
                next_header: icmp::PROTOCOL_V6,
                hop_limit: icmp::ND_HOP_LIMIT,
                src: own,
                dst: ALL_NODES,
            };
            ipv6::write_header(packet, &fields)?;
            let message = packet.get_mut(ipv6::HEADER_LEN..)?;
            let announcement = NeighborAdvertisement {
                router: false,
                solicited: false,
                replaces: true,
                target: own,
                target_link_layer: Some(mac),
            };
            announcement.write(message)?;
            icmp::fill_checksum_v6(own, ALL_NODES, message);
            Some(bytes)
        }
    }
}
