//! IPv6 headers and their extension headers (RFC 8200, RFC 4302). Options are carried, not read.

use std::net::Ipv6Addr;

use super::ipv4::ECN_MASK;
use super::layout::{be16, be32, get, put};
use super::{Fragment, Ipv6};
use crate::limits::IPV6_EXTENSIONS_MAX;

/// Bytes of the header, without extension headers.
pub const HEADER_LEN: usize = 40;
/// Hop limit of packets the switch originates.
pub const HOP_LIMIT_DEFAULT: u8 = 64;
/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Next header: encapsulating security payload, behind which nothing can be read.
pub const ESP: u8 = 50;
/// Next header: authentication.
pub const AUTHENTICATION: u8 = 51;
/// Next header: nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

mod field {
    pub(super) const VERSION_CLASS_LABEL: usize = 0;
    pub(super) const PAYLOAD_LEN: usize = 4;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SRC: usize = 8;
    pub(super) const DST: usize = 24;

    /// Every extension header is a multiple of eight bytes (AH: of four) and at least eight long.
    pub(super) const EXTENSION_NEXT: usize = 0;
    pub(super) const EXTENSION_LEN: usize = 1;
    pub(super) const FRAGMENT_OFFSET: usize = 2;
    pub(super) const FRAGMENT_ID: usize = 4;
}

/// A header of version 6 that is there in full. Its payload length is not judged.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// Looks at the start of a packet; none when the version is not 6 or the header is cut off.
    #[inline]
    #[must_use]
    pub fn new(packet: &'a [u8]) -> Option<Self> {
        let view = Self(packet.first_chunk()?);
        (be32::<{ field::VERSION_CLASS_LABEL }, _>(view.0) >> 28 == 6).then_some(view)
    }

    /// Payload length as the header says, extension headers included.
    #[inline]
    #[must_use]
    pub fn payload_len(self) -> u16 {
        be16::<{ field::PAYLOAD_LEN }, _>(self.0)
    }

    /// What follows: an extension header or the payload's protocol.
    #[inline]
    #[must_use]
    pub fn next_header(self) -> u8 {
        let [next] = get::<{ field::NEXT_HEADER }, 1, _>(self.0);
        next
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn traffic_class(self) -> u8 {
        traffic_class(self.0)
    }

    /// Hop limit.
    #[inline]
    #[must_use]
    pub fn hop_limit(self) -> u8 {
        let [hop_limit] = get::<{ field::HOP_LIMIT }, 1, _>(self.0);
        hop_limit
    }

    /// What [`super::Headers`] keeps of it and of its extension headers.
    #[inline]
    #[must_use]
    pub fn header(self, extensions: Extensions) -> Ipv6 {
        let [_, class_high, class_low, ..] = *self.0;
        Ipv6 {
            src: Ipv6Addr::from(get::<{ field::SRC }, 16, _>(self.0)),
            dst: Ipv6Addr::from(get::<{ field::DST }, 16, _>(self.0)),
            traffic_class: self.traffic_class(),
            hop_limit: self.hop_limit(),
            flow_label: u32::from_be_bytes([0, class_high & 0x0f, class_low, self.0[3]]),
            protocol: extensions.protocol,
            extensions_len: extensions.len,
            payload_len: self.payload_len(),
            fragment: extensions.fragment,
        }
    }
}

#[inline]
fn traffic_class(header: &[u8; HEADER_LEN]) -> u8 {
    let [high, low] = get::<{ field::VERSION_CLASS_LABEL }, 2, _>(header);
    high << 4 | low >> 4
}

/// A walk over extension headers, at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extensions {
    /// Bytes walked.
    pub len: u16,
    /// What is behind them. In a fragment that is not the first: what the fragment header says.
    pub protocol: u8,
    /// Present when there was a fragment header.
    pub fragment: Option<Fragment>,
}

impl Extensions {
    /// Walks from the header that `next` names at the start of `payload`, to the first protocol that is no extension
    /// header, or to the fragment header of a fragment that is not the first. None when a header is cut off or there
    /// are more than [`IPV6_EXTENSIONS_MAX`]. Their order is the receiver's business.
    #[inline]
    #[must_use]
    pub fn walk(next: u8, payload: &[u8]) -> Option<Self> {
        if is_extension(next) { Self::none(next).walk_on(payload) } else { Some(Self::none(next)) }
    }

    /// The walk that is over before it starts.
    #[inline]
    #[must_use]
    pub fn none(protocol: u8) -> Self {
        Self { len: 0, protocol, fragment: None }
    }

    fn walk_on(mut self, mut rest: &[u8]) -> Option<Self> {
        for _ in 0..IPV6_EXTENSIONS_MAX {
            let header: &[u8; 8] = rest.first_chunk()?;
            let [units] = get::<{ field::EXTENSION_LEN }, 1, _>(header);
            let len = match self.protocol {
                FRAGMENT => 8,
                AUTHENTICATION => (u16::from(units) + 2) * 4,
                _ => (u16::from(units) + 1) * 8,
            };
            rest = rest.get(usize::from(len)..)?;
            self.len += len;
            if self.protocol == FRAGMENT {
                let word = be16::<{ field::FRAGMENT_OFFSET }, _>(header);
                let id = be32::<{ field::FRAGMENT_ID }, _>(header);
                self.fragment = Some(Fragment { offset: word & !0x7, more: word & 1 != 0, id });
            }
            [self.protocol] = get::<{ field::EXTENSION_NEXT }, 1, _>(header);
            let not_the_first = self.fragment.is_some_and(|fragment| fragment.offset != 0);
            if not_the_first || !is_extension(self.protocol) {
                return Some(self);
            }
        }
        None
    }
}

/// Whether a header follows that [`Extensions::walk`] walks over.
#[inline]
#[must_use]
pub fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Takes one off the hop limit. False, changing nothing, when it is 0 or the header is short.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    let [hop_limit] = get::<{ field::HOP_LIMIT }, 1, _>(header);
    let Some(less) = hop_limit.checked_sub(1) else { return false };
    put::<{ field::HOP_LIMIT }, _, _>(header, [less]);
    true
}

/// Replaces the ECN field (the low two bits of `ecn`). False when the header is short.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    let class = traffic_class(header) & !ECN_MASK | ecn & ECN_MASK;
    let [first, second] = get::<{ field::VERSION_CLASS_LABEL }, 2, _>(header);
    put::<{ field::VERSION_CLASS_LABEL }, _, _>(header, [first & 0xf0 | class >> 4, class << 4 | second & 0x0f]);
    true
}

/// Replaces the payload length, in bytes, extension headers included. False when the header is short.
#[inline]
pub fn set_payload_len(packet: &mut [u8], bytes: u16) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    put::<{ field::PAYLOAD_LEN }, _, _>(header, bytes.to_be_bytes());
    true
}

/// What [`write_header`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Fields {
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes behind the header.
    pub payload_len: u16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
}

/// Writes a header and returns its length; none, writing nothing, when `buf` is shorter.
#[inline]
pub fn write_header(buf: &mut [u8], fields: &Ipv6Fields) -> Option<usize> {
    let header = buf.first_chunk_mut::<HEADER_LEN>()?;
    let first = 6 << 28 | u32::from(fields.traffic_class) << 20 | fields.flow_label & 0x000f_ffff;
    put::<{ field::VERSION_CLASS_LABEL }, _, _>(header, first.to_be_bytes());
    put::<{ field::PAYLOAD_LEN }, _, _>(header, fields.payload_len.to_be_bytes());
    put::<{ field::NEXT_HEADER }, _, _>(header, [fields.next_header, fields.hop_limit]);
    put::<{ field::SRC }, _, _>(header, fields.src.octets());
    put::<{ field::DST }, _, _>(header, fields.dst.octets());
    Some(HEADER_LEN)
}

/// Makes the packet's header that of its answer: the addresses change places, the hop limit is fresh. False,
/// changing nothing, when the header is short.
pub fn turn_around(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    let (src, dst) = (get::<{ field::SRC }, 16, _>(header), get::<{ field::DST }, 16, _>(header));
    put::<{ field::SRC }, _, _>(header, dst);
    put::<{ field::DST }, _, _>(header, src);
    put::<{ field::HOP_LIMIT }, _, _>(header, [HOP_LIMIT_DEFAULT]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 1);
    const DST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, 9);
    const FIELDS: Ipv6Fields = Ipv6Fields {
        traffic_class: 0xba,
        flow_label: 0xa_bcde,
        payload_len: 8,
        next_header: 17,
        hop_limit: 64,
        src: SRC,
        dst: DST,
    };

    fn bytes() -> [u8; HEADER_LEN] {
        let mut buf = [0; HEADER_LEN];
        write_header(&mut buf, &FIELDS).unwrap();
        buf
    }

    #[test]
    fn a_written_header_is_what_another_encoder_writes_and_reads_back() {
        let other = etherparse::Ipv6Header {
            traffic_class: 0xba,
            flow_label: etherparse::Ipv6FlowLabel::try_new(0xa_bcde).unwrap(),
            payload_length: 8,
            next_header: etherparse::IpNumber(17),
            hop_limit: 64,
            source: SRC.octets(),
            destination: DST.octets(),
        };
        assert_eq!(bytes(), other.to_bytes());
        let buf = bytes();
        let header = View::new(&buf).unwrap().header(Extensions::walk(17, &[]).unwrap());
        assert_eq!((header.traffic_class, header.flow_label, header.hop_limit), (0xba, 0xa_bcde, 64));
        assert_eq!((header.src, header.dst, header.payload_len), (SRC, DST, 8));
        assert_eq!(write_header(&mut [0; 39], &FIELDS), None);
    }

    #[test]
    fn rewrites_change_their_field_and_nothing_else() {
        for ecn in 0..4 {
            let mut buf = bytes();
            assert!(set_ecn(&mut buf, ecn));
            let mut expected = [0; HEADER_LEN];
            write_header(&mut expected, &Ipv6Fields { traffic_class: 0xb8 | ecn, ..FIELDS }).unwrap();
            assert_eq!(buf, expected);
        }
        let mut buf = bytes();
        assert!(decrement_hop_limit(&mut buf) && set_payload_len(&mut buf, 0x1234));
        let mut expected = [0; HEADER_LEN];
        write_header(&mut expected, &Ipv6Fields { hop_limit: 63, payload_len: 0x1234, ..FIELDS }).unwrap();
        assert_eq!(buf, expected);
        buf[7] = 0;
        assert!(!decrement_hop_limit(&mut buf));
        assert!(!decrement_hop_limit(&mut buf[..39]) && !set_ecn(&mut buf[..39], 0) && !set_payload_len(&mut [], 0));
    }

    #[test]
    fn another_version_or_a_cut_header_is_none() {
        let mut buf = bytes();
        assert!(View::new(&buf[..39]).is_none());
        buf[0] = 0x4b;
        assert!(View::new(&buf).is_none());
    }

    #[test]
    fn a_walk_ends_behind_the_last_extension_header() {
        let fragment = |offset, more, id| Some(Fragment { offset, more, id });
        let hop_then_udp = [&[17, 1][..], &[0; 14]].concat();
        let authentication_then_tcp = [&[6, 4][..], &[0; 22]].concat();
        let fragment_then_options = [&[60, 0, 0, 1, 0, 0, 0, 9][..], &[17, 0, 0, 0, 0, 0, 0, 0]].concat();
        for (next, bytes, len, protocol, expected) in [
            (17, &[][..], 0, 17, None),
            (ESP, &[1, 2, 3], 0, ESP, None),
            (NO_NEXT_HEADER, &[], 0, NO_NEXT_HEADER, None),
            (HOP_BY_HOP, &hop_then_udp, 16, 17, None),
            (AUTHENTICATION, &authentication_then_tcp, 24, 6, None),
            (FRAGMENT, &fragment_then_options, 16, 17, fragment(0, true, 9)),
            // Not the first: what follows is payload, whatever its number.
            (FRAGMENT, &[60, 0, 0x01, 0x00, 0, 0, 0, 9], 8, 60, fragment(256, false, 9)),
        ] {
            let expected = Extensions { len, protocol, fragment: expected };
            assert_eq!(Extensions::walk(next, bytes), Some(expected), "{next} then {bytes:?}");
        }
    }

    #[test]
    fn a_walk_gives_up_on_cut_headers_and_on_too_many() {
        assert_eq!(Extensions::walk(HOP_BY_HOP, &[17, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Extensions::walk(HOP_BY_HOP, &[17, 1, 0, 0, 0, 0, 0, 0]), None);
        let headers = |count: usize| {
            let mut bytes = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(count);
            bytes[(count - 1) * 8] = 17;
            bytes
        };
        assert!(Extensions::walk(ROUTING, &headers(IPV6_EXTENSIONS_MAX)).is_some());
        assert_eq!(Extensions::walk(ROUTING, &headers(IPV6_EXTENSIONS_MAX + 1)), None);
    }
}
