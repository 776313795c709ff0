//! ICMP (RFC 792), ICMPv6 (RFC 4443) and the two neighbour discovery messages that answer for an address
//! (RFC 4861). Which messages may be answered, and with what quote, is the pipeline's question.

use std::net::Ipv6Addr;

use podwire_control::model::Mac;

use super::layout::{get, put};
use super::{IcmpHeader, checksum};

/// Bytes of every header the switch writes, and of every ICMPv4 header: type, code, checksum and four more.
pub const HEADER_LEN: usize = 8;
/// Bytes that every ICMPv6 message has: type, code and checksum (RFC 4443, 2.1; the shortest in use has 6).
pub const HEADER_LEN_MIN_V6: usize = 4;
/// IP protocol number of ICMP.
pub const PROTOCOL_V4: u8 = 1;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_V6: u8 = 58;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

/// Types of ICMP.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable; the code says why.
    pub const UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// TTL exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of [`UNREACHABLE`]: no route.
    pub const CODE_NET: u8 = 0;
    /// Code of [`UNREACHABLE`]: no such host.
    pub const CODE_HOST: u8 = 1;
    /// Code of [`UNREACHABLE`]: no such protocol.
    pub const CODE_PROTOCOL: u8 = 2;
    /// Code of [`UNREACHABLE`]: no such port.
    pub const CODE_PORT: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation needed; the MTU is in the header's last two bytes (RFC 1191).
    pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
    /// Code of [`UNREACHABLE`]: administratively prohibited (RFC 1812).
    pub const CODE_PROHIBITED: u8 = 13;
}

/// Types of ICMPv6.
pub mod v6 {
    /// Destination unreachable; the code says why.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big; the MTU is in the header's last four bytes.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Hop limit exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// MLD: a group has a listener (RFC 2710).
    pub const MLD_REPORT: u8 = 131;
    /// MLD: a listener left (RFC 2710).
    pub const MLD_DONE: u8 = 132;
    /// MLD version 2: what a listener listens to (RFC 3810).
    pub const MLD2_REPORT: u8 = 143;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Code of [`UNREACHABLE`]: no route.
    pub const CODE_NO_ROUTE: u8 = 0;
    /// Code of [`UNREACHABLE`]: administratively prohibited.
    pub const CODE_PROHIBITED: u8 = 1;
    /// Code of [`UNREACHABLE`]: no such host.
    pub const CODE_ADDRESS: u8 = 3;
    /// Code of [`UNREACHABLE`]: no such port.
    pub const CODE_PORT: u8 = 4;
}

/// Hop limit that every neighbour discovery message must have when it arrives (RFC 4861, 7.1).
pub const ND_HOP_LIMIT: u8 = 255;
/// Bytes of a neighbour solicitation or advertisement without options.
pub const ND_LEN_MIN: usize = 24;
/// Bytes of an advertisement as [`NeighborAdvertisement::write`] writes it, its one option included.
pub const ND_ADVERTISEMENT_LEN: usize = 32;

const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

mod field {
    pub(super) const KIND: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: usize = 2;
    pub(super) const REST: usize = 4;
    pub(super) const ND_FLAGS: usize = 4;
    pub(super) const ND_TARGET: usize = 8;
    pub(super) const ND_OPTION: usize = 24;
    pub(super) const ND_OPTION_ADDRESS: usize = 26;
}

/// Reads the header of an ICMP message; none below 8 bytes.
#[inline]
#[must_use]
pub fn read_v4(message: &[u8]) -> Option<IcmpHeader> {
    let [kind, code, ..] = *message.first_chunk::<HEADER_LEN>()?;
    Some(IcmpHeader { kind, code })
}

/// Reads the header of an ICMPv6 message; none below 4 bytes.
#[inline]
#[must_use]
pub fn read_v6(message: &[u8]) -> Option<IcmpHeader> {
    let [kind, code, ..] = *message.first_chunk::<HEADER_LEN_MIN_V6>()?;
    Some(IcmpHeader { kind, code })
}

/// Writes a header of either version, its checksum 0, and returns its length; none, writing nothing, when `buf` is
/// shorter. `rest` is what type and code make of it: identifier and sequence, or an MTU.
#[inline]
pub fn write_header(buf: &mut [u8], header: IcmpHeader, rest: [u8; 4]) -> Option<usize> {
    let bytes = buf.first_chunk_mut::<HEADER_LEN>()?;
    put::<{ field::KIND }, _, _>(bytes, [header.kind, header.code, 0, 0]);
    put::<{ field::REST }, _, _>(bytes, rest);
    Some(HEADER_LEN)
}

/// Replaces the type of a message of either version; the checksum is wrong until it is filled again. False when the
/// message is empty.
pub fn set_kind(message: &mut [u8], kind: u8) -> bool {
    let Some(first) = message.first_mut() else { return false };
    *first = kind;
    true
}

/// Computes the checksum of a whole ICMP message. False, changing nothing, when it is shorter than a header.
#[inline]
pub fn fill_checksum_v4(message: &mut [u8]) -> bool {
    fill_checksum(message, 0)
}

/// Computes the checksum of a whole ICMPv6 message. False, changing nothing, when it is shorter than a header.
#[inline]
pub fn fill_checksum_v6(src: Ipv6Addr, dst: Ipv6Addr, message: &mut [u8]) -> bool {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    fill_checksum(message, checksum::pseudo_v6(src, dst, PROTOCOL_V6, len))
}

fn fill_checksum(message: &mut [u8], pseudo: u32) -> bool {
    let Some(header) = message.first_chunk_mut::<HEADER_LEN_MIN_V6>() else { return false };
    put::<{ field::CHECKSUM }, _, _>(header, [0; 2]);
    let value = checksum::finish(pseudo + checksum::sum(message));
    let Some(header) = message.first_chunk_mut::<HEADER_LEN_MIN_V6>() else { return false };
    put::<{ field::CHECKSUM }, _, _>(header, value.to_be_bytes());
    true
}

/// Whether the checksum of a whole ICMP message is right.
#[inline]
#[must_use]
pub fn checksum_is_right_v4(message: &[u8]) -> bool {
    checksum::fold(checksum::sum(message)) == 0xffff
}

/// Whether the checksum of a whole ICMPv6 message is right.
#[inline]
#[must_use]
pub fn checksum_is_right_v6(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> bool {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    checksum::fold(checksum::pseudo_v6(src, dst, PROTOCOL_V6, len) + checksum::sum(message)) == 0xffff
}

/// "Who has this address?" (RFC 4861, 4.3). Hop limit and checksum are the caller's to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborSolicitation {
    /// The address asked for; never multicast.
    pub target: Ipv6Addr,
    /// The asker's MAC, if it says so.
    pub source_link_layer: Option<Mac>,
}

impl NeighborSolicitation {
    /// Reads a message; none when it is another one or malformed (RFC 4861, 7.1.1).
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let (fixed, options) = nd_message(message, v6::NEIGHBOR_SOLICITATION)?;
        let source_link_layer = link_layer_option(options, OPTION_SOURCE_LINK_LAYER)?;
        Some(Self { target: nd_target(fixed)?, source_link_layer })
    }
}

/// "This address is mine" (RFC 4861, 4.4). Hop limit and checksum are the caller's to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborAdvertisement {
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It shall replace what is known.
    pub replaces: bool,
    /// The address spoken for; never multicast.
    pub target: Ipv6Addr,
    /// Its MAC, if said.
    pub target_link_layer: Option<Mac>,
}

impl NeighborAdvertisement {
    /// Reads a message; none when it is another one or malformed (RFC 4861, 7.1.2).
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let (fixed, options) = nd_message(message, v6::NEIGHBOR_ADVERTISEMENT)?;
        let [flags] = get::<{ field::ND_FLAGS }, 1, _>(fixed);
        Some(Self {
            router: flags & FLAG_ROUTER != 0,
            solicited: flags & FLAG_SOLICITED != 0,
            replaces: flags & FLAG_OVERRIDE != 0,
            target: nd_target(fixed)?,
            target_link_layer: link_layer_option(options, OPTION_TARGET_LINK_LAYER)?,
        })
    }

    /// Writes the message, its checksum 0, and returns its length: [`ND_ADVERTISEMENT_LEN`], or [`ND_LEN_MIN`] without
    /// a MAC. None, writing nothing, when `buf` is shorter.
    pub fn write(&self, buf: &mut [u8]) -> Option<usize> {
        let mut bytes = [0; ND_ADVERTISEMENT_LEN];
        let flag = |set, flag| if set { flag } else { 0 };
        let flags =
            flag(self.router, FLAG_ROUTER) | flag(self.solicited, FLAG_SOLICITED) | flag(self.replaces, FLAG_OVERRIDE);
        put::<{ field::KIND }, _, _>(&mut bytes, [v6::NEIGHBOR_ADVERTISEMENT]);
        put::<{ field::ND_FLAGS }, _, _>(&mut bytes, [flags]);
        put::<{ field::ND_TARGET }, _, _>(&mut bytes, self.target.octets());
        let Some(mac) = self.target_link_layer else {
            let message = get::<0, ND_LEN_MIN, _>(&bytes);
            *buf.first_chunk_mut()? = message;
            return Some(ND_LEN_MIN);
        };
        put::<{ field::ND_OPTION }, _, _>(&mut bytes, [OPTION_TARGET_LINK_LAYER, 1]);
        put::<{ field::ND_OPTION_ADDRESS }, _, _>(&mut bytes, mac.0);
        *buf.first_chunk_mut()? = bytes;
        Some(ND_ADVERTISEMENT_LEN)
    }
}

/// The fixed part and the options of a neighbour discovery message of this type.
fn nd_message(message: &[u8], kind: u8) -> Option<(&[u8; ND_LEN_MIN], &[u8])> {
    let (fixed, options) = message.split_first_chunk::<ND_LEN_MIN>()?;
    (get::<{ field::KIND }, 1, _>(fixed) == [kind] && get::<{ field::CODE }, 1, _>(fixed) == [0])
        .then_some((fixed, options))
}

fn nd_target(fixed: &[u8; ND_LEN_MIN]) -> Option<Ipv6Addr> {
    let target = Ipv6Addr::from(get::<{ field::ND_TARGET }, 16, _>(fixed));
    (!target.is_multicast()).then_some(target)
}

/// The MAC in the first option of this type; the outer none when an option has no length or is cut off.
#[allow(clippy::option_option, reason = "malformed, absent and present are three things, and only this file sees them")]
fn link_layer_option(mut options: &[u8], kind: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let header: &[u8; 8] = options.first_chunk()?;
        let [option, units, mac @ ..] = *header;
        if units == 0 {
            return None;
        }
        if option == kind && units == 1 && found.is_none() {
            found = Some(Mac(mac));
        }
        options = options.get(usize::from(units) * 8..)?;
    }
    Some(found)
}

/// The group a solicitation for an address is sent to (RFC 4291, 2.7.1).
#[must_use]
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
    use proptest::prelude::*;

    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0xab, 0xcdef);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const ADVERTISEMENT: NeighborAdvertisement = NeighborAdvertisement {
        router: true,
        solicited: true,
        replaces: true,
        target: A,
        target_link_layer: Some(MAC),
    };

    /// A solicitation for `B` with these options.
    fn solicitation(options: &[u8]) -> Vec<u8> {
        [&[v6::NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &B.octets(), options].concat()
    }

    proptest! {
        #[test]
        fn a_filled_checksum_is_what_another_encoder_computes(
            kind: u8, code: u8, rest: [u8; 4], payload in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut message = [&[0xee; HEADER_LEN][..], &payload].concat();
            prop_assert_eq!(write_header(&mut message, IcmpHeader { kind, code }, rest), Some(HEADER_LEN));
            let mut for_v6 = message.clone();
            prop_assert!(fill_checksum_v4(&mut message) && checksum_is_right_v4(&message));
            prop_assert_eq!(read_v4(&message), Some(IcmpHeader { kind, code }));
            let other = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let other = Icmpv4Header::with_checksum(other, &payload);
            prop_assert_eq!(&message[..HEADER_LEN], &other.to_bytes()[..]);
            prop_assert!(fill_checksum_v6(A, B, &mut for_v6) && checksum_is_right_v6(A, B, &for_v6));
            let other = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let other = Icmpv6Header::with_checksum(other, A.octets(), B.octets(), &payload).unwrap();
            prop_assert_eq!(&for_v6[..HEADER_LEN], &other.to_bytes()[..]);
            for_v6[1] ^= 1;
            prop_assert!(!checksum_is_right_v6(A, B, &for_v6));
        }

        #[test]
        fn random_messages_never_panic(mut message in prop::collection::vec(any::<u8>(), 0..80), kind in 135u8..=136) {
            if let Some(first) = message.first_mut() {
                *first = kind;
            }
            let _ = (NeighborSolicitation::read(&message), NeighborAdvertisement::read(&message));
        }
    }

    #[test]
    fn short_messages_are_no_messages() {
        let mut message = [0; HEADER_LEN];
        assert!(read_v4(&message[..7]).is_none() && read_v6(&message[..3]).is_none());
        assert!(read_v4(&message).is_some() && read_v6(&message[..4]).is_some());
        assert!(write_header(&mut message[..7], IcmpHeader { kind: 0, code: 0 }, [0; 4]).is_none());
        assert!(!fill_checksum_v4(&mut message[..3]) && !fill_checksum_v6(A, B, &mut []));
    }

    #[test]
    fn an_advertisement_reads_back_and_is_what_another_decoder_reads() {
        let mut buf = [0xee; 33];
        assert_eq!(ADVERTISEMENT.write(&mut buf), Some(ND_ADVERTISEMENT_LEN));
        assert_eq!(NeighborAdvertisement::read(&buf[..32]), Some(ADVERTISEMENT));
        let (other, rest) = Icmpv6Header::from_slice(&buf[..32]).unwrap();
        let Icmpv6Type::NeighborAdvertisement(other) = other.icmp_type else { panic!("{other:?}") };
        assert!(other.router && other.solicited && other.r#override);
        assert_eq!(rest, [&A.octets()[..], &[2, 1], &MAC.0].concat());
        for (quiet, len) in [
            (NeighborAdvertisement { router: false, ..ADVERTISEMENT }, 32),
            (NeighborAdvertisement { solicited: false, ..ADVERTISEMENT }, 32),
            (NeighborAdvertisement { replaces: false, target_link_layer: None, ..ADVERTISEMENT }, 24),
        ] {
            assert_eq!(quiet.write(&mut buf), Some(len));
            assert_eq!(NeighborAdvertisement::read(&buf[..len]), Some(quiet));
            assert_eq!(quiet.write(&mut buf[..len - 1]), None);
        }
    }

    #[test]
    fn a_solicitation_may_name_its_sender_behind_other_options() {
        let nonce = [14, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
        let source = [1, 1, 2, 0, 0, 0, 0, 7];
        for (options, source_link_layer) in [
            (vec![], None),
            (source.to_vec(), Some(MAC)),
            ([&nonce[..], &source].concat(), Some(MAC)),
            (nonce.to_vec(), None),
        ] {
            let expected = NeighborSolicitation { target: B, source_link_layer };
            assert_eq!(NeighborSolicitation::read(&solicitation(&options)), Some(expected), "{options:?}");
        }
    }

    #[test]
    fn malformed_solicitations_are_none() {
        for options in [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[1, 1, 2, 0], &[1, 2, 2, 0, 0, 0, 0, 7]] {
            assert_eq!(NeighborSolicitation::read(&solicitation(options)), None, "{options:?}");
        }
        let whole = solicitation(&[]);
        assert_eq!(NeighborSolicitation::read(&whole[..23]), None);
        // Another type, another code, a multicast target.
        for (at, value) in [(0, 136), (1, 1), (8, 0xff)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!(NeighborSolicitation::read(&other), None, "byte {at}");
        }
    }

    #[test]
    fn a_solicitation_goes_to_the_group_of_the_last_three_bytes() {
        assert_eq!(solicited_node(B), "ff02::1:ffab:cdef".parse::<Ipv6Addr>().unwrap());
    }
}
