//! TCP headers (RFC 9293, 3.1), read as far as a switch and its segmentation need. Options are carried, not read.

use super::TcpHeader;
use super::layout::{be16, be32, get};

/// Bytes of a header without options.
pub const HEADER_LEN_MIN: usize = 20;
/// IP protocol number.
pub const PROTOCOL: u8 = 6;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = field::CHECKSUM;

/// No more data from the sender.
pub const FLAG_FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const FLAG_SYN: u8 = 0x02;
/// Reset the connection.
pub const FLAG_RST: u8 = 0x04;
/// Push to the application.
pub const FLAG_PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const FLAG_ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const FLAG_URG: u8 = 0x20;
/// ECN echo (RFC 3168).
pub const FLAG_ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const FLAG_CWR: u8 = 0x80;

mod field {
    pub(super) const SRC_PORT: usize = 0;
    pub(super) const DST_PORT: usize = 2;
    pub(super) const SEQUENCE: usize = 4;
    pub(super) const ACKNOWLEDGEMENT: usize = 8;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: usize = 14;
    pub(super) const CHECKSUM: usize = 16;
}

/// A header that is there in full, options included.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; HEADER_LEN_MIN]);

impl<'a> View<'a> {
    /// Looks at the start of a segment; none when the data offset is below 5 or beyond the segment.
    #[inline]
    #[must_use]
    pub fn new(segment: &'a [u8]) -> Option<Self> {
        let view = Self(segment.first_chunk()?);
        let header_len = usize::from(view.header_len());
        (HEADER_LEN_MIN <= header_len && header_len <= segment.len()).then_some(view)
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn src_port(self) -> u16 {
        be16::<{ field::SRC_PORT }, _>(self.0)
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn dst_port(self) -> u16 {
        be16::<{ field::DST_PORT }, _>(self.0)
    }

    /// Sequence number.
    #[inline]
    #[must_use]
    pub fn sequence(self) -> u32 {
        be32::<{ field::SEQUENCE }, _>(self.0)
    }

    /// Acknowledgement number.
    #[inline]
    #[must_use]
    pub fn acknowledgement(self) -> u32 {
        be32::<{ field::ACKNOWLEDGEMENT }, _>(self.0)
    }

    /// Header length in bytes, options included: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> u8 {
        let [data_offset] = get::<{ field::DATA_OFFSET }, 1, _>(self.0);
        (data_offset >> 4) * 4
    }

    /// The `FLAG_*` bits.
    #[inline]
    #[must_use]
    pub fn flags(self) -> u8 {
        let [flags] = get::<{ field::FLAGS }, 1, _>(self.0);
        flags
    }

    /// Window, not scaled.
    #[inline]
    #[must_use]
    pub fn window(self) -> u16 {
        be16::<{ field::WINDOW }, _>(self.0)
    }

    /// Checksum field.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        be16::<{ field::CHECKSUM }, _>(self.0)
    }

    /// What [`super::Headers`] keeps of it.
    #[inline]
    #[must_use]
    pub fn header(self) -> TcpHeader {
        TcpHeader {
            src_port: self.src_port(),
            dst_port: self.dst_port(),
            header_len: self.header_len(),
            flags: self.flags(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_what_another_encoder_wrote() {
        let mut other = etherparse::TcpHeader::new(1_234, 443, 0x0102_0304, 0x1122);
        other.acknowledgment_number = 0x0506_0708;
        (other.ack, other.psh, other.cwr, other.checksum) = (true, true, true, 0xbeef);
        other.set_options_raw(&[1, 1, 1, 0]).unwrap();
        let bytes = other.to_bytes();
        let view = View::new(&bytes).unwrap();
        let header =
            TcpHeader { src_port: 1_234, dst_port: 443, header_len: 24, flags: FLAG_ACK | FLAG_PSH | FLAG_CWR };
        assert_eq!(view.header(), header);
        assert_eq!((view.sequence(), view.acknowledgement()), (0x0102_0304, 0x0506_0708));
        assert_eq!((view.window(), view.checksum()), (0x1122, 0xbeef));
    }

    #[test]
    fn a_data_offset_outside_the_segment_is_no_header() {
        let mut bytes = [0; 24];
        for (data_offset, len, fits) in [(5, 20, true), (6, 24, true), (4, 24, false), (6, 23, false), (5, 19, false)] {
            bytes[12] = data_offset << 4;
            assert_eq!(View::new(&bytes[..len]).is_some(), fits, "offset {data_offset} in {len} bytes");
        }
    }
}
