//! Ethernet II headers (IEEE 802.3, 3.2). Tags are in `vlan`; 802.3 length frames are recognised, not read.

use podwire_control::model::Mac;

use super::layout::{be16, get, put};

/// Bytes of the header, without tags.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_VLAN_SERVICE: u16 = 0x88a8;
/// The smallest EtherType; a smaller number is the length of an 802.3 frame.
pub const ETHERTYPE_MIN: u16 = 1_536;

mod field {
    pub(super) const DST: usize = 0;
    pub(super) const SRC: usize = 6;
    pub(super) const ETHERTYPE: usize = 12;
}

/// A header that is there in full.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// Looks at the start of a frame; none when it is shorter than a header.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(self) -> Mac {
        Mac(get::<{ field::DST }, _, _>(self.0))
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(self) -> Mac {
        Mac(get::<{ field::SRC }, _, _>(self.0))
    }

    /// EtherType, a tag's included; below [`ETHERTYPE_MIN`] a length.
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        be16::<{ field::ETHERTYPE }, _>(self.0)
    }
}

/// Rewrites both addresses of a frame. False, changing nothing, when it is shorter than a header.
#[inline]
pub fn set_addresses(bytes: &mut [u8], dst: Mac, src: Mac) -> bool {
    let Some(header) = bytes.first_chunk_mut::<HEADER_LEN>() else { return false };
    put::<{ field::DST }, _, _>(header, dst.0);
    put::<{ field::SRC }, _, _>(header, src.0);
    true
}

/// Writes a header and returns its length; none, writing nothing, when `buf` is shorter.
#[inline]
pub fn write_header(buf: &mut [u8], dst: Mac, src: Mac, ethertype: u16) -> Option<usize> {
    let header = buf.first_chunk_mut::<HEADER_LEN>()?;
    put::<{ field::DST }, _, _>(header, dst.0);
    put::<{ field::SRC }, _, _>(header, src.0);
    put::<{ field::ETHERTYPE }, _, _>(header, ethertype.to_be_bytes());
    Some(HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn a_written_header_reads_back() {
        let mut buf = [0xee; 16];
        assert_eq!(write_header(&mut buf, A, B, ETHERTYPE_IPV6), Some(HEADER_LEN));
        let view = View::new(&buf).unwrap();
        assert_eq!((view.dst(), view.src(), view.ethertype()), (A, B, 0x86dd));
        assert_eq!(buf[14..], [0xee; 2]);
    }

    #[test]
    fn new_addresses_leave_the_rest_alone() {
        let mut buf = [0xee; 20];
        assert!(set_addresses(&mut buf, B, A));
        assert_eq!(View::new(&buf).map(|view| (view.dst(), view.src())), Some((B, A)));
        assert_eq!(buf[12..], [0xee; 8]);
    }

    #[test]
    fn a_short_buffer_stays_as_it_is() {
        let mut buf = [0xee; HEADER_LEN - 1];
        assert!(View::new(&buf).is_none());
        assert!(!set_addresses(&mut buf, A, B));
        assert_eq!(write_header(&mut buf, A, B, ETHERTYPE_ARP), None);
        assert_eq!(buf, [0xee; HEADER_LEN - 1]);
    }
}
