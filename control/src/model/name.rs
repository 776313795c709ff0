//! Names: of ports, bridges and VTEPs, and those that container runtimes give.

use std::fmt;
use std::str::FromStr;

/// Longest name of an object in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest container id in bytes; runtimes use 64.
pub const CONTAINER_BYTES_MAX: usize = 128;
/// Bytes of a container id that people are shown.
const CONTAINER_BYTES_SHOWN: usize = 13;
/// Longest name of a CNI network in bytes; libcni makes a file name of it.
pub const NETWORK_BYTES_MAX: usize = 255;

/// The text can not be a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit")]
pub struct NameError(pub String);

/// The text is no container id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no container id: use 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit")]
pub struct ContainerIdError(pub String);

/// The text can not be a network's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no network's name: use 1 to 255 of a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit"
)]
pub struct NetworkNameError(pub String);

/// Letters, digits, `_`, `.` and `-`, beginning with a letter or digit (CNI, "Parameters", has the same rule).
fn is_plain(text: &str) -> bool {
    let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

macro_rules! name {
    ($(#[$meta:meta])* $type:ident, $bytes_max:expr, $error:ident) => {
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
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let text = text.to_owned();
                if is_plain(&text) && text.len() <= $bytes_max { Ok(Self(text)) } else { Err($error(text)) }
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
    PortName, NAME_BYTES_MAX, NameError
);
name!(
    /// Name of a bridge, unique on the node.
    BridgeName, NAME_BYTES_MAX, NameError
);
name!(
    /// Name of a remote VTEP, usually the node's name.
    VtepName, NAME_BYTES_MAX, NameError
);
name!(
    /// A container's id.
    ContainerId, CONTAINER_BYTES_MAX, ContainerIdError
);
impl ContainerId {
    /// Its beginning, as container runtimes show it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(CONTAINER_BYTES_SHOWN)]
    }
}

name!(
    /// Name of a CNI network, by libcni's rule.
    NetworkName, NETWORK_BYTES_MAX, NetworkNameError
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A type takes names up to a length, and says of others what it wanted.
    fn check<T: FromStr<Err: fmt::Display>>(bytes_max: usize, noun: &str) {
        let long = "n".repeat(bytes_max);
        for good in ["0", "pod-a", "9.x_y", "cnitool-77383ca0a0715733ca6f", long.as_str()] {
            assert!(good.parse::<T>().is_ok(), "{good}");
        }
        let longer = "n".repeat(bytes_max + 1);
        for wrong in ["", "-a", ".a", "_a", "a b", "a/b", "\u{e4}", longer.as_str()] {
            let Err(error) = wrong.parse::<T>() else { panic!("{wrong} is taken") };
            let said = error.to_string();
            assert!(said.contains(noun) && said.contains(&format!("1 to {bytes_max} of")), "{said}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        check::<PortName>(NAME_BYTES_MAX, "a name");
        check::<ContainerId>(CONTAINER_BYTES_MAX, "container id");
        check::<NetworkName>(NETWORK_BYTES_MAX, "network's name");
        assert_eq!("pod-a".parse::<PortName>().unwrap().as_str(), "pod-a");
    }
}
