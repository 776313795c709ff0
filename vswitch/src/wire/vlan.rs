//! VLAN tags (IEEE 802.1Q, 9.6; 802.1ad). Read only: the switch carries tags and never adds or strips one.

use super::VlanTag;
use super::ethernet::{ETHERTYPE_VLAN, ETHERTYPE_VLAN_SERVICE};
use super::layout::be16;

/// Bytes of a tag behind its EtherType: control information and the next EtherType.
pub const TAG_LEN: usize = 4;

mod field {
    pub(super) const CONTROL: usize = 0;
    pub(super) const ETHERTYPE: usize = 2;
}

/// Whether a tag follows this EtherType.
#[inline]
#[must_use]
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_VLAN_SERVICE)
}

/// A tag that is there in full.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; TAG_LEN]);

impl<'a> View<'a> {
    /// Looks at the bytes behind a tag's EtherType; none when they are fewer than a tag has.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// VLAN identifier and priority.
    #[inline]
    #[must_use]
    pub fn tag(self) -> VlanTag {
        let [high, low] = be16::<{ field::CONTROL }, _>(self.0).to_be_bytes();
        VlanTag { vid: u16::from_be_bytes([high & 0x0f, low]), priority: high >> 5 }
    }

    /// EtherType behind the tag.
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        be16::<{ field::ETHERTYPE }, _>(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_an_identifier_a_priority_and_an_ethertype() {
        // Priority 5, drop eligible, VLAN 0xabc.
        let view = View::new(&[0xba, 0xbc, 0x08, 0x00, 0xff]).unwrap();
        assert_eq!(view.tag(), VlanTag { vid: 0xabc, priority: 5 });
        assert_eq!(view.ethertype(), 0x0800);
        assert!(View::new(&[0xba, 0xbc, 0x08]).is_none());
    }

    #[test]
    fn both_tag_ethertypes_and_no_others_announce_a_tag() {
        assert!(is_tag(0x8100) && is_tag(0x88a8));
        assert!(!is_tag(0x0800) && !is_tag(0x86dd) && !is_tag(0x9100));
    }
}
