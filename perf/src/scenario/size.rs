//! How long frames are: one length, or a mix of lengths as networks have it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Shortest frame of Ethernet, FCS counted (RFC 2544, 9.1).
const FRAME_BYTES_MIN: usize = 64;
/// The simple IMIX in frames with FCS: seven of 64 bytes, four of 570, one of 1518, spread out. It is the mix that FD.io's
/// CSIT tests with as `IMIX_v4_1` (28 to 16 to 4); RFC 6985 has the naming of mixes.
const IMIX: [usize; 12] = [64, 570, 64, 570, 64, 64, 1_518, 64, 570, 64, 570, 64];

/// Lengths of frames in bytes, FCS counted as RFC 2544 does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PacketSize {
    /// All of one length.
    Bytes(usize),
    /// [`IMIX`].
    Imix,
}

impl PacketSize {
    /// The lengths of frames in turn, none longer than `bytes_max`.
    pub(crate) fn turns(self, bytes_max: usize) -> Vec<usize> {
        match self {
            Self::Bytes(bytes) => vec![bytes.min(bytes_max)],
            Self::Imix => IMIX.iter().map(|&bytes| bytes.min(bytes_max)).collect(),
        }
    }

    /// Whether frames of a wire that takes `bytes_max` can be so long; a mix always can, cut to that.
    pub(crate) fn fits(self, bytes_max: usize) -> bool {
        match self {
            Self::Bytes(bytes) => (FRAME_BYTES_MIN..=bytes_max).contains(&bytes),
            Self::Imix => true,
        }
    }
}

impl fmt::Display for PacketSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "frames of {bytes} bytes"),
            Self::Imix => f.write_str("frames of the simple IMIX (64, 570, 1518 bytes as 7:4:1, cut to the MTU)"),
        }
    }
}

impl FromStr for PacketSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => Ok(Self::Imix),
            _ => text.parse().map(Self::Bytes).map_err(|_| format!("{text:?} is no size: use bytes, or imix")),
        }
    }
}

impl Serialize for PacketSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => bytes.serialize(serializer),
            Self::Imix => "imix".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PacketSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`size` is a number of bytes, or \"imix\"")]
        enum Written {
            Bytes(usize),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self::Bytes(bytes)),
            Written::Name(name) => name.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_imix_is_seven_to_four_to_one_and_no_frame_is_longer_than_the_wire_takes() {
        let count = |turns: &[usize], bytes| turns.iter().filter(|&&turn| turn == bytes).count();
        let turns = PacketSize::Imix.turns(1_518);
        assert_eq!([64, 570, 1_518].map(|bytes| count(&turns, bytes)), [7, 4, 1]);
        let cut = PacketSize::Imix.turns(1_468);
        assert_eq!([64, 570, 1_468].map(|bytes| count(&cut, bytes)), [7, 4, 1]);
        assert_eq!(PacketSize::Bytes(512).turns(1_468), [512]);
    }

    #[test]
    fn a_size_is_written_as_a_number_or_as_imix() {
        for (text, size) in [("64", PacketSize::Bytes(64)), ("\"imix\"", PacketSize::Imix)] {
            assert_eq!(serde_json::from_str::<PacketSize>(text).unwrap(), size);
            assert_eq!(serde_json::to_string(&size).unwrap(), text);
        }
        let refusal = |text: &str| serde_json::from_str::<PacketSize>(text).unwrap_err().to_string();
        assert!(refusal("\"large\"").contains("use bytes, or imix"));
        assert!(refusal("true").contains("`size` is a number of bytes"));
    }
}
