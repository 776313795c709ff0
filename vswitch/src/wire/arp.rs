//! ARP for IPv4 over Ethernet (RFC 826). Other hardware and protocol types are malformed here.

use std::net::Ipv4Addr;

use podwire_control::model::Mac;

use super::Arp;
use super::layout::{be16, get, put};

/// Bytes of a packet.
pub const PACKET_LEN: usize = 28;
/// Who has this address?
pub const OPERATION_REQUEST: u16 = 1;
/// I have.
pub const OPERATION_REPLY: u16 = 2;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

mod field {
    pub(super) const KIND: usize = 0;
    pub(super) const OPERATION: usize = 6;
    pub(super) const SENDER_MAC: usize = 8;
    pub(super) const SENDER_IP: usize = 14;
    pub(super) const TARGET_MAC: usize = 18;
    pub(super) const TARGET_IP: usize = 24;
}

/// Reads a packet; none when it is short or not for IPv4 over Ethernet.
#[inline]
#[must_use]
pub fn read(packet: &[u8]) -> Option<Arp> {
    let packet: &[u8; PACKET_LEN] = packet.first_chunk()?;
    if get::<{ field::KIND }, _, _>(packet) != KIND {
        return None;
    }
    Some(Arp {
        operation: be16::<{ field::OPERATION }, _>(packet),
        sender_mac: Mac(get::<{ field::SENDER_MAC }, _, _>(packet)),
        sender_ip: Ipv4Addr::from(get::<{ field::SENDER_IP }, 4, _>(packet)),
        target_mac: Mac(get::<{ field::TARGET_MAC }, _, _>(packet)),
        target_ip: Ipv4Addr::from(get::<{ field::TARGET_IP }, 4, _>(packet)),
    })
}

/// Writes a packet and returns its length; none, writing nothing, when `buf` is shorter.
#[inline]
pub fn write(buf: &mut [u8], arp: &Arp) -> Option<usize> {
    let packet = buf.first_chunk_mut::<PACKET_LEN>()?;
    put::<{ field::KIND }, _, _>(packet, KIND);
    put::<{ field::OPERATION }, _, _>(packet, arp.operation.to_be_bytes());
    put::<{ field::SENDER_MAC }, _, _>(packet, arp.sender_mac.0);
    put::<{ field::SENDER_IP }, _, _>(packet, arp.sender_ip.octets());
    put::<{ field::TARGET_MAC }, _, _>(packet, arp.target_mac.0);
    put::<{ field::TARGET_IP }, _, _>(packet, arp.target_ip.octets());
    Some(PACKET_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: Arp = Arp {
        operation: OPERATION_REPLY,
        sender_mac: Mac([2, 0, 0, 0, 0, 1]),
        sender_ip: Ipv4Addr::new(10, 244, 1, 1),
        target_mac: Mac([2, 0, 0, 0, 0, 2]),
        target_ip: Ipv4Addr::new(10, 244, 1, 2),
    };

    #[test]
    fn a_written_packet_reads_back_and_is_what_another_decoder_reads() {
        let mut buf = [0xee; 30];
        assert_eq!(write(&mut buf, &REPLY), Some(PACKET_LEN));
        assert_eq!(read(&buf), Some(REPLY));
        let other = etherparse::ArpPacketSlice::from_slice(&buf).unwrap();
        assert_eq!(other.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!(other.sender_protocol_addr(), [10, 244, 1, 1]);
        assert_eq!(other.target_hw_addr(), [2, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn only_ipv4_over_ethernet_is_read() {
        let mut buf = [0; PACKET_LEN];
        write(&mut buf, &REPLY).unwrap();
        assert_eq!(read(&buf[..27]), None);
        for at in 0..KIND.len() {
            let mut other = buf;
            other[at] ^= 0x10;
            assert_eq!(read(&other), None, "byte {at} changed");
        }
        assert_eq!(write(&mut buf[..27], &REPLY), None);
    }
}
