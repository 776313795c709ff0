//! UDP headers (RFC 768). The checksum is carried, not judged.

use super::UdpHeader;
use super::layout::{be16, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// IP protocol number.
pub const PROTOCOL: u8 = 17;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

mod field {
    pub(super) const SRC_PORT: usize = 0;
    pub(super) const DST_PORT: usize = 2;
    pub(super) const LEN: usize = 4;
    pub(super) const CHECKSUM: usize = 6;
}

/// A header that is there in full. Its length field is not judged: fragments and super-frames have their own rules.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// Looks at the start of a datagram; none when it is shorter than a header.
    #[inline]
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Option<Self> {
        datagram.first_chunk().map(Self)
    }

    /// Ports and length.
    #[inline]
    #[must_use]
    pub fn header(self) -> UdpHeader {
        UdpHeader {
            src_port: be16::<{ field::SRC_PORT }, _>(self.0),
            dst_port: be16::<{ field::DST_PORT }, _>(self.0),
            len: be16::<{ field::LEN }, _>(self.0),
        }
    }

    /// Checksum field; 0 over IPv4 means that the sender computed none.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        be16::<{ field::CHECKSUM }, _>(self.0)
    }
}

/// Writes a header, `checksum` as given, and returns its length; none, writing nothing, when `buf` is shorter.
#[inline]
pub fn write_header(buf: &mut [u8], header: &UdpHeader, checksum: u16) -> Option<usize> {
    let bytes = buf.first_chunk_mut::<HEADER_LEN>()?;
    put::<{ field::SRC_PORT }, _, _>(bytes, header.src_port.to_be_bytes());
    put::<{ field::DST_PORT }, _, _>(bytes, header.dst_port.to_be_bytes());
    put::<{ field::LEN }, _, _>(bytes, header.len.to_be_bytes());
    put::<{ field::CHECKSUM }, _, _>(bytes, checksum.to_be_bytes());
    Some(HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_reads_back() {
        let header = UdpHeader { src_port: 0x1234, dst_port: 4789, len: 58 };
        let mut buf = [0xee; 9];
        assert_eq!(write_header(&mut buf, &header, 0xbeef), Some(HEADER_LEN));
        assert_eq!(buf, [0x12, 0x34, 0x12, 0xb5, 0, 58, 0xbe, 0xef, 0xee]);
        let view = View::new(&buf).unwrap();
        assert_eq!((view.header(), view.checksum()), (header, 0xbeef));
        assert_eq!(write_header(&mut buf[..7], &header, 0), None);
        assert!(View::new(&buf[..7]).is_none());
    }
}
