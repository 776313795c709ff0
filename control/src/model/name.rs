//! Names of ports, bridges and VTEPs.

use std::fmt;
use std::str::FromStr;

/// The text can not be a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit")]
pub struct NameError(pub String);

/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 63;

fn check(text: &str) -> Result<String, NameError> {
    let starts_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if starts_well && plain && text.len() <= NAME_BYTES_MAX {
        Ok(text.to_owned())
    } else {
        Err(NameError(text.to_owned()))
    }
}

macro_rules! name {
    ($(#[$meta:meta])* $type:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// Name of a port, unique on the node.
    PortName
);
name!(
    /// Name of a bridge, unique on the node.
    BridgeName
);
name!(
    /// Name of a remote VTEP, usually the node's name.
    VtepName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "pod-a", "9.x_y", &"n".repeat(63)] {
            assert_eq!(good.parse::<PortName>().unwrap().as_str(), good);
        }
        for wrong in ["", "-a", "a b", "a/b", "ä", &"n".repeat(64)] {
            assert!(wrong.parse::<PortName>().is_err(), "{wrong}");
        }
    }
}
