//! IPv4 headers (RFC 791). Options are carried, not read. Reassembly and fragmentation are elsewhere.

use std::net::Ipv4Addr;

use super::layout::{be16, get, put};
use super::{Fragment, Ipv4, checksum};

/// Bytes of a header without options.
pub const HEADER_LEN_MIN: usize = 20;
/// TTL of packets the switch originates (RFC 1700).
pub const TTL_DEFAULT: u8 = 64;

/// In the word of flags and offset.
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// The ECN field in TOS and traffic class (RFC 3168).
pub(super) const ECN_MASK: u8 = 0b11;

mod field {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: usize = 2;
    pub(super) const ID: usize = 4;
    pub(super) const FLAGS_FRAGMENT: usize = 6;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SRC: usize = 12;
    pub(super) const DST: usize = 16;
}

/// A header of version 4 that is there in full, options included. Its total length is not judged.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    fixed: &'a [u8; HEADER_LEN_MIN],
    /// Empty in nearly every packet.
    options: &'a [u8],
}

impl<'a> View<'a> {
    /// Looks at the start of a packet; none when the version is not 4, or the header is below 20 bytes or cut off.
    #[inline]
    #[must_use]
    pub fn new(packet: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk()?;
        let [version_ihl] = get::<{ field::VERSION_IHL }, 1, _>(fixed);
        if version_ihl == 0x45 {
            return Some(Self { fixed, options: &[] });
        }
        let options_len = usize::from(version_ihl & 0x0f).checked_sub(5)? * 4;
        if version_ihl >> 4 != 4 {
            return None;
        }
        Some(Self { fixed, options: rest.get(..options_len)? })
    }

    /// Header length in bytes, options included: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        HEADER_LEN_MIN + self.options.len()
    }

    /// Whether the header's checksum is right.
    #[inline]
    #[must_use]
    pub fn checksum_is_right(self) -> bool {
        // The order of bytes and of words does not matter for a sum that shall be all ones (RFC 1071, 2).
        let mut sum = 0u64;
        for word in self.fixed.as_chunks::<4>().0 {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        for word in self.options.as_chunks::<4>().0 {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        // Folding leaves what a division by 0xffff leaves; it is not all zeroes, since the version is not.
        sum.is_multiple_of(0xffff)
    }

    /// Total length in bytes, as the header says.
    #[inline]
    #[must_use]
    pub fn total_len(self) -> u16 {
        be16::<{ field::TOTAL_LEN }, _>(self.fixed)
    }

    /// Identification.
    #[inline]
    #[must_use]
    pub fn id(self) -> u16 {
        be16::<{ field::ID }, _>(self.fixed)
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn tos(self) -> u8 {
        let [tos] = get::<{ field::TOS }, 1, _>(self.fixed);
        tos
    }

    /// Time to live.
    #[inline]
    #[must_use]
    pub fn ttl(self) -> u8 {
        let [ttl] = get::<{ field::TTL }, 1, _>(self.fixed);
        ttl
    }

    /// Whether it is a fragment, the first or a later one.
    #[inline]
    #[must_use]
    pub fn is_fragment(self) -> bool {
        be16::<{ field::FLAGS_FRAGMENT }, _>(self.fixed) & (OFFSET_MASK | MORE_FRAGMENTS) != 0
    }

    /// Where the packet's payload lies in the original's, when it is a fragment.
    #[inline]
    #[must_use]
    pub fn fragment(self) -> Option<Fragment> {
        if !self.is_fragment() {
            return None;
        }
        let word = be16::<{ field::FLAGS_FRAGMENT }, _>(self.fixed);
        Some(Fragment { offset: (word & OFFSET_MASK) << 3, more: word & MORE_FRAGMENTS != 0, id: u32::from(self.id()) })
    }

    /// Protocol of the payload.
    #[inline]
    #[must_use]
    pub fn protocol(self) -> u8 {
        let [protocol] = get::<{ field::PROTOCOL }, 1, _>(self.fixed);
        protocol
    }

    /// What [`super::Headers`] keeps of it; `fragment` is [`View::fragment`], which the caller has looked at.
    #[inline]
    #[must_use]
    pub fn header(self, fragment: Option<Fragment>) -> Ipv4 {
        let [version_ihl] = get::<{ field::VERSION_IHL }, 1, _>(self.fixed);
        Ipv4 {
            src: Ipv4Addr::from(get::<{ field::SRC }, 4, _>(self.fixed)),
            dst: Ipv4Addr::from(get::<{ field::DST }, 4, _>(self.fixed)),
            tos: self.tos(),
            ttl: self.ttl(),
            protocol: self.protocol(),
            header_len: (version_ihl & 0x0f) * 4,
            total_len: self.total_len(),
            dont_fragment: be16::<{ field::FLAGS_FRAGMENT }, _>(self.fixed) & DONT_FRAGMENT != 0,
            fragment,
        }
    }
}

/// A header to rewrite. Its setters leave the checksum wrong until [`ViewMut::fill_checksum`].
#[derive(Debug)]
pub struct ViewMut<'a> {
    fixed: &'a mut [u8; HEADER_LEN_MIN],
    options: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// As [`View::new`].
    #[inline]
    #[must_use]
    pub fn new(packet: &'a mut [u8]) -> Option<Self> {
        let options_len = View::new(packet)?.options.len();
        let (fixed, rest) = packet.split_first_chunk_mut()?;
        Some(Self { fixed, options: rest.get_mut(..options_len)? })
    }

    /// Total length in bytes.
    #[inline]
    pub fn set_total_len(&mut self, bytes: u16) {
        put::<{ field::TOTAL_LEN }, _, _>(self.fixed, bytes.to_be_bytes());
    }

    /// Identification.
    #[inline]
    pub fn set_id(&mut self, id: u16) {
        put::<{ field::ID }, _, _>(self.fixed, id.to_be_bytes());
    }

    /// Fragment offset in bytes (the low three bits can not be said and are dropped), "more fragments" and
    /// "don't fragment".
    #[inline]
    pub fn set_flags_fragment(&mut self, offset_bytes: u16, more: bool, dont_fragment: bool) {
        let flags = if more { MORE_FRAGMENTS } else { 0 } | if dont_fragment { DONT_FRAGMENT } else { 0 };
        put::<{ field::FLAGS_FRAGMENT }, _, _>(self.fixed, (flags | offset_bytes >> 3).to_be_bytes());
    }

    /// Computes the checksum anew.
    #[inline]
    pub fn fill_checksum(&mut self) {
        put::<{ field::CHECKSUM }, _, _>(self.fixed, [0; 2]);
        let value = checksum::finish(checksum::sum(self.fixed) + checksum::sum(self.options));
        put::<{ field::CHECKSUM }, _, _>(self.fixed, value.to_be_bytes());
    }
}

/// Takes one off the TTL and updates the checksum. False, changing nothing, when the TTL is 0 or the header is short.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN_MIN>() else { return false };
    let [ttl, protocol] = get::<{ field::TTL }, 2, _>(header);
    let Some(less) = ttl.checked_sub(1) else { return false };
    put_word::<{ field::TTL }>(header, [less, protocol]);
    true
}

/// Replaces the ECN field (the low two bits of `ecn`) and updates the checksum. False when the header is short.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN_MIN>() else { return false };
    let [version_ihl, tos] = get::<{ field::VERSION_IHL }, 2, _>(header);
    put_word::<{ field::VERSION_IHL }>(header, [version_ihl, tos & !ECN_MASK | ecn & ECN_MASK]);
    true
}

/// Replaces a word that the checksum covers, and updates the checksum.
#[inline]
fn put_word<const AT: usize>(header: &mut [u8; HEADER_LEN_MIN], new: [u8; 2]) {
    let old = be16::<AT, _>(header);
    let sum = be16::<{ field::CHECKSUM }, _>(header);
    put::<AT, _, _>(header, new);
    let sum = checksum::update(sum, old, u16::from_be_bytes(new));
    put::<{ field::CHECKSUM }, _, _>(header, sum.to_be_bytes());
}

/// What [`write_header`] writes; everything else is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Fields {
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// "Don't fragment".
    pub df: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
}

/// Writes a header without options, checksum included, and returns its length; none, writing nothing, when `buf` is
/// shorter.
#[inline]
pub fn write_header(buf: &mut [u8], fields: &Ipv4Fields) -> Option<usize> {
    let header = buf.first_chunk_mut::<HEADER_LEN_MIN>()?;
    put::<{ field::VERSION_IHL }, _, _>(header, [0x45, fields.tos]);
    put::<{ field::SRC }, _, _>(header, fields.src.octets());
    put::<{ field::DST }, _, _>(header, fields.dst.octets());
    put::<{ field::TTL }, _, _>(header, [fields.ttl, fields.protocol]);
    let mut view = ViewMut { fixed: header, options: &mut [] };
    view.set_total_len(fields.total_len);
    view.set_id(fields.id);
    view.set_flags_fragment(0, false, fields.df);
    view.fill_checksum();
    Some(HEADER_LEN_MIN)
}

/// Makes the packet's header that of its answer: source and destination change places, the TTL is fresh, and the
/// checksum follows. False, changing nothing, when the header is short.
pub fn turn_around(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN_MIN>() else { return false };
    let (src, dst) = (get::<{ field::SRC }, 4, _>(header), get::<{ field::DST }, 4, _>(header));
    // The sum does not depend on the order of the words, so swapping them leaves the checksum as it is.
    put::<{ field::SRC }, _, _>(header, dst);
    put::<{ field::DST }, _, _>(header, src);
    let [_, protocol] = get::<{ field::TTL }, 2, _>(header);
    put_word::<{ field::TTL }>(header, [TTL_DEFAULT, protocol]);
    true
}

#[cfg(test)]
mod tests {
    use etherparse::Ipv4HeaderSlice;
    use proptest::prelude::*;

    use super::*;

    /// A header with `words` of options, of random fields and with a right checksum.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        (any::<[u8; 20]>(), prop::collection::vec(any::<[u8; 4]>(), 0..=10)).prop_map(|(fixed, options)| {
            let mut bytes = [fixed.as_slice(), options.as_flattened()].concat();
            bytes[0] = 0x45 + u8::try_from(options.len()).unwrap();
            ViewMut::new(&mut bytes).unwrap().fill_checksum();
            bytes
        })
    }

    /// The checksum as etherparse computes it from all of the header.
    fn recomputed(bytes: &[u8]) -> (u16, u16) {
        let header = Ipv4HeaderSlice::from_slice(bytes).unwrap().to_header();
        // etherparse has no place for the reserved flag; count it back in.
        let reserved = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x8000;
        (header.header_checksum, checksum::update(header.calc_header_checksum(), 0, reserved))
    }

    proptest! {
        #[test]
        fn a_filled_checksum_is_right_and_any_flipped_bit_makes_it_wrong(bytes in header(), bit in 0usize..160) {
            let (found, expected) = recomputed(&bytes);
            prop_assert_eq!(found, expected);
            prop_assert!(View::new(&bytes).unwrap().checksum_is_right());
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(View::new(&wrong).is_none_or(|view| bit < 8 || !view.checksum_is_right()));
        }

        #[test]
        fn a_smaller_ttl_keeps_the_checksum_right(before in header()) {
            let mut after = before.clone();
            prop_assert_eq!(decrement_ttl(&mut after), before[8] > 0);
            prop_assert_eq!(after[8], before[8].saturating_sub(1));
            let (found, expected) = recomputed(&after);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(&after[12..], &before[12..]);
        }

        #[test]
        fn another_ecn_field_keeps_the_checksum_and_the_dscp(before in header(), ecn in 0u8..4) {
            let mut after = before.clone();
            prop_assert!(set_ecn(&mut after, ecn));
            prop_assert_eq!(after[1], before[1] & 0xfc | ecn);
            let (found, expected) = recomputed(&after);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn fragment_fields_are_what_another_decoder_reads(
            bytes in header(), len: u16, id: u16, offset in 0u16..0x2000, more: bool, df: bool,
        ) {
            let mut bytes = bytes;
            let mut view = ViewMut::new(&mut bytes).unwrap();
            view.set_total_len(len);
            view.set_id(id);
            view.set_flags_fragment(offset * 8, more, df);
            view.fill_checksum();
            let other = Ipv4HeaderSlice::from_slice(&bytes).unwrap();
            prop_assert_eq!((other.total_len(), other.identification()), (len, id));
            prop_assert_eq!((other.more_fragments(), other.dont_fragment()), (more, df));
            prop_assert_eq!(other.fragments_offset().value(), offset);
            prop_assert!(View::new(&bytes).unwrap().checksum_is_right());
            let fragment = View::new(&bytes).unwrap().fragment();
            let expected = Fragment { offset: offset * 8, more, id: u32::from(id) };
            prop_assert_eq!(fragment, (offset != 0 || more).then_some(expected));
        }
    }

    #[test]
    fn a_written_header_is_what_another_encoder_writes() {
        let (src, dst) = (Ipv4Addr::new(10, 244, 1, 1), Ipv4Addr::new(10, 244, 2, 9));
        let fields = Ipv4Fields { tos: 0xba, total_len: 84, id: 0xbeef, df: true, ttl: 64, protocol: 1, src, dst };
        let mut other =
            etherparse::Ipv4Header::new(64, 64, etherparse::IpNumber(1), src.octets(), dst.octets()).unwrap();
        other.dscp = etherparse::IpDscp::try_new(0xba >> 2).unwrap();
        other.ecn = etherparse::IpEcn::try_new(0xba & 3).unwrap();
        other.identification = 0xbeef;
        other.header_checksum = other.calc_header_checksum();
        let mut buf = [0xee; 22];
        assert_eq!(write_header(&mut buf, &fields), Some(20));
        assert_eq!(buf[..20], other.to_bytes()[..]);
        assert_eq!(buf[20..], [0xee; 2]);
        assert_eq!(write_header(&mut buf[..19], &fields), None);
    }

    #[test]
    fn short_headers_of_another_version_or_cut_off_are_none() {
        let mut bytes = [0; 24];
        for (first, len, fits) in [
            (0x45, 20, true),
            (0x46, 24, true),
            (0x46, 23, false),
            (0x44, 24, false),
            (0x65, 24, false),
            (0x45, 19, false),
        ] {
            bytes[0] = first;
            assert_eq!(View::new(&bytes[..len]).is_some(), fits, "{first:#x} in {len} bytes");
        }
        assert!(!decrement_ttl(&mut bytes[..19]) && !set_ecn(&mut bytes[..19], 1));
    }
}
