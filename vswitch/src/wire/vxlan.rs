//! VXLAN headers (RFC 7348, section 5). Whether a network identifier is ours is the pipeline's question.

use podwire_control::model::Vni;

use super::layout::{be32, get, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// UDP port that IANA assigned; flannel uses 8472.
pub const PORT: u16 = 4_789;
/// The only flag: the network identifier is valid. The other bits are reserved.
pub const FLAG_VNI: u8 = 0x08;
/// Bytes an IPv4 tunnel adds to an inner L3 packet: IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14.
/// (The outer Ethernet header counts against the outer link's own MTU as little as any other.)
pub const OVERHEAD_V4: usize = 50;
/// Bytes an IPv6 tunnel adds to an inner L3 packet: IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14.
pub const OVERHEAD_V6: usize = 70;

mod field {
    pub(super) const FLAGS: usize = 0;
    pub(super) const VNI: usize = 4;
}

/// A header that is there in full.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// Looks at a datagram's payload; none when it is shorter than a header.
    #[inline]
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        payload.first_chunk().map(Self)
    }

    /// Flags; exactly [`FLAG_VNI`] in a header of RFC 7348.
    #[inline]
    #[must_use]
    pub fn flags(self) -> u8 {
        let [flags] = get::<{ field::FLAGS }, 1, _>(self.0);
        flags
    }

    /// Network identifier; none when [`FLAG_VNI`] is not set.
    #[inline]
    #[must_use]
    pub fn vni(self) -> Option<Vni> {
        let number = be32::<{ field::VNI }, _>(self.0) >> 8;
        if self.flags() & FLAG_VNI == 0 { None } else { Vni::try_from(number).ok() }
    }
}

/// Writes a header.
#[inline]
pub fn write_header(buf: &mut [u8; HEADER_LEN], vni: Vni) {
    put::<{ field::FLAGS }, _, _>(buf, [FLAG_VNI, 0, 0, 0]);
    put::<{ field::VNI }, _, _>(buf, (vni.get() << 8).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_is_that_of_the_rfc_and_reads_back() {
        let vni = Vni::try_from(0x0a_bb_cc).unwrap();
        let mut buf = [0xee; HEADER_LEN];
        write_header(&mut buf, vni);
        assert_eq!(buf, [0x08, 0, 0, 0, 0x0a, 0xbb, 0xcc, 0]);
        let view = View::new(&buf).unwrap();
        assert_eq!((view.flags(), view.vni()), (FLAG_VNI, Some(vni)));
        assert!(View::new(&buf[..7]).is_none());
    }

    #[test]
    fn reserved_bits_are_no_part_of_the_identifier_and_the_flag_is() {
        let vni = |flags| View::new(&[flags, 1, 2, 3, 0xff, 0xff, 0xff, 0xff]).and_then(View::vni).map(Vni::get);
        assert_eq!(vni(FLAG_VNI), Some(Vni::MAX));
        assert_eq!(vni(0xff), Some(Vni::MAX));
        assert_eq!(vni(0xff ^ FLAG_VNI), None);
    }
}
