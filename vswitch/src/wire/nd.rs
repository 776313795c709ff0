//! Whole packets of address resolution, for the switch that answers, announces and, when it explains itself, asks:
//! ARP frames (RFC 826) and neighbour discovery packets (RFC 4861) with their IPv6 header and checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use podwire_control::model::Mac;

use super::icmp::{self, NeighborAdvertisement};
use super::{Arp, arp, ethernet, ipv6};

/// All nodes of the link (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The Ethernet group of an IPv6 group (RFC 2464, section 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// A broadcast ARP request frame: `mac`, at `own`, asks who has `target`. Asking for one's own address announces it
/// (RFC 5227, 3).
#[must_use]
pub fn arp_request(mac: Mac, own: Ipv4Addr, target: Ipv4Addr) -> [u8; ethernet::HEADER_LEN + arp::PACKET_LEN] {
    let mut frame = [0; ethernet::HEADER_LEN + arp::PACKET_LEN];
    let request = Arp {
        operation: arp::OPERATION_REQUEST,
        sender_mac: mac,
        sender_ip: own,
        target_mac: Mac::ZERO,
        target_ip: target,
    };
    let (header, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    ethernet::write_header(header, Mac::BROADCAST, mac, ethernet::ETHERTYPE_ARP);
    arp::write(packet, &request);
    frame
}

/// Bytes of the packet [`write_advertisement`] writes.
pub const ADVERTISEMENT_PACKET_LEN: usize = ipv6::HEADER_LEN + icmp::ND_ADVERTISEMENT_LEN;

/// Writes a whole advertisement packet, IPv6 header and checksum included, and returns its length. None, with `packet`
/// in an undefined state, when there is no room for it.
pub fn write_advertisement(packet: &mut [u8], dst: Ipv6Addr, answer: &NeighborAdvertisement) -> Option<usize> {
    let message = packet.get_mut(ipv6::HEADER_LEN..ADVERTISEMENT_PACKET_LEN)?;
    answer.write(message)?;
    finish(packet.get_mut(..ADVERTISEMENT_PACKET_LEN)?, answer.target, dst)
}

/// An unsolicited advertisement frame to all nodes: `own` is at `mac` (RFC 4861, 7.2.6).
#[must_use]
pub fn announcement(mac: Mac, own: Ipv6Addr) -> Option<Vec<u8>> {
    let mut frame = vec![0; ethernet::HEADER_LEN + ADVERTISEMENT_PACKET_LEN];
    ethernet::write_header(&mut frame, group_mac(ALL_NODES), mac, ethernet::ETHERTYPE_IPV6)?;
    let said = NeighborAdvertisement {
        router: false,
        solicited: false,
        replaces: true,
        target: own,
        target_link_layer: Some(mac),
    };
    write_advertisement(frame.get_mut(ethernet::HEADER_LEN..)?, ALL_NODES, &said)?;
    Some(frame)
}

/// A solicitation frame: `mac`, at `own`, asks who has `target`, with its own MAC as an option (RFC 4861, 7.2.2).
#[must_use]
pub fn solicitation(mac: Mac, own: Ipv6Addr, target: Ipv6Addr) -> Option<Vec<u8>> {
    let group = icmp::solicited_node(target);
    let mut frame = vec![0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + icmp::ND_LEN_MIN + 8];
    ethernet::write_header(&mut frame, group_mac(group), mac, ethernet::ETHERTYPE_IPV6)?;
    let packet = frame.get_mut(ethernet::HEADER_LEN..)?;
    let message = packet.get_mut(ipv6::HEADER_LEN..)?;
    icmp::set_kind(message, icmp::v6::NEIGHBOR_SOLICITATION);
    message.get_mut(8..24)?.copy_from_slice(&target.octets());
    message.get_mut(24..26)?.copy_from_slice(&[1, 1]); // source link-layer address, one unit of 8 bytes (4.6.1)
    message.get_mut(26..32)?.copy_from_slice(&mac.0);
    finish(packet, own, group)?;
    Some(frame)
}

/// Writes the IPv6 header in front of a message that fills the rest of `packet`, and its checksum.
fn finish(packet: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> Option<usize> {
    let message_len = packet.len().checked_sub(ipv6::HEADER_LEN)?;
    let fields = ipv6::Ipv6Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(message_len).ok()?,
        next_header: icmp::PROTOCOL_V6,
        hop_limit: icmp::ND_HOP_LIMIT,
        src,
        dst,
    };
    ipv6::write_header(packet, &fields)?;
    icmp::fill_checksum_v6(src, dst, packet.get_mut(ipv6::HEADER_LEN..)?);
    Some(packet.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Offload;
    use crate::wire::icmp::NeighborSolicitation;
    use crate::wire::{Headers, L3, L4, parse};

    const MAC: Mac = Mac([0x0a, 0x58, 10, 244, 1, 10]);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 0xa);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 0xb);

    fn parsed(frame: &[u8]) -> (Headers, &[u8]) {
        let headers = parse(frame, &Offload::default()).unwrap();
        (headers, &frame[usize::from(headers.l4_offset)..])
    }

    #[test]
    fn a_solicitation_asks_the_solicited_node_group_and_names_the_asker() {
        let frame = solicitation(MAC, OWN, OTHER).unwrap();
        let (headers, message) = parsed(&frame);
        assert_eq!(headers.dst, Mac([0x33, 0x33, 0xff, 0, 0, 0xb]));
        let ask = NeighborSolicitation::read(message).unwrap();
        assert_eq!((ask.target, ask.source_link_layer), (OTHER, Some(MAC)));
        assert!(icmp::checksum_is_right_v6(OWN, icmp::solicited_node(OTHER), message));
    }

    #[test]
    fn an_announcement_speaks_to_all_nodes_and_replaces_what_is_known() {
        let frame = announcement(MAC, OWN).unwrap();
        let (headers, message) = parsed(&frame);
        assert_eq!((headers.dst, headers.src), (Mac([0x33, 0x33, 0, 0, 0, 1]), MAC));
        assert!(matches!(headers.l4, L4::Icmp6(_)));
        let said = NeighborAdvertisement::read(message).unwrap();
        assert!(said.replaces && !said.solicited && said.target_link_layer == Some(MAC));
        assert!(icmp::checksum_is_right_v6(OWN, ALL_NODES, message));
    }

    #[test]
    fn an_arp_request_is_broadcast() {
        let (one, other) = (Ipv4Addr::new(10, 244, 1, 10), Ipv4Addr::new(10, 244, 1, 11));
        let frame = arp_request(MAC, one, other);
        let (headers, _) = parsed(&frame);
        let L3::Arp(ask) = headers.l3 else { panic!("no ARP: {headers:?}") };
        assert_eq!(headers.dst, Mac::BROADCAST);
        assert_eq!((ask.sender_ip, ask.sender_mac, ask.target_ip), (one, MAC, other));
    }
}
