//! A VXLAN network identifier.

use std::fmt;
use std::str::FromStr;

/// 24 bits (RFC 7348, section 5); 0 is allowed, as Linux allows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Vni(u32);

/// The number does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is not a VXLAN network identifier: use a number from 0 to 16777215")]
pub struct VniError(pub String);

impl Vni {
    /// Largest identifier.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(number: u32) -> Result<Self, VniError> {
        if number <= Self::MAX { Ok(Self(number)) } else { Err(VniError(number.to_string())) }
    }
}

impl FromStr for Vni {
    type Err = VniError;

    fn from_str(text: &str) -> Result<Self, VniError> {
        text.parse::<u32>().map_err(|_| VniError(text.to_owned())).and_then(Self::try_from)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
