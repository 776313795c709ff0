//! Reading a field's text: what it should have been is said once a type, and names the remedy.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Bits, BridgeName, ContainerId, Invalid, IpRange, Mac, NetworkName, Owner, PortName, Vni, VtepName};

/// A value that has a text form.
pub trait Text: FromStr {
    /// What the text should be, with its article.
    const NOUN: &'static str;
    /// How to write it.
    const REMEDY: &'static str;
}

/// The text does not say what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {noun}; {remedy}")]
pub struct TextError {
    /// The text.
    pub text: String,
    /// What it should be.
    pub noun: &'static str,
    /// How to write it.
    pub remedy: &'static str,
}

impl TextError {
    /// The same as a fault of an object's field.
    #[must_use]
    pub fn of(self, object: &str, field: &'static str) -> Invalid {
        let problem = format!("{:?} is not {}", self.text, self.noun);
        Invalid { object: object.to_owned(), field, problem, remedy: self.remedy.to_owned() }
    }
}

/// Reads a value.
///
/// # Errors
/// Names the text, what it should have been, and how that is written.
pub fn read<T: Text>(text: &str) -> Result<T, TextError> {
    text.parse().map_err(|_| TextError { text: text.to_owned(), noun: T::NOUN, remedy: T::REMEDY })
}

macro_rules! text {
    ($($type:ty: $noun:literal, $remedy:literal;)+) => {
        $(impl Text for $type {
            const NOUN: &'static str = $noun;
            const REMEDY: &'static str = $remedy;
        })+
    };
}

text! {
    Mac: "a MAC address", "write six bytes in hex, as in 02:00:5e:00:00:01";
    Vni: "a VXLAN network identifier", "use a number from 0 to 16777215";
    IpNet: "a prefix", "write an address and a length, as in 10.244.2.0/24 or fd00:244:2::/64";
    Bits: "a number of bits", "write it as in 500k, 100M or 2G";
    IpAddr: "an IP address", "write it as in 10.244.2.10 or fd00:244:2::a";
    IpRange: "a range of addresses", "write FIRST-LAST, as in 10.244.1.16-10.244.1.200, or one address";
    Owner: "an owner", "use file, cli, cni, kubernetes, etcd or kernel";
    PortName: "a port's name", "use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit";
    BridgeName: "a bridge's name", "use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit";
    ContainerId: "a container id", "use 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit";
    NetworkName: "a network's name", "use 1 to 255 of a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit";
    VtepName: "a VTEP's name", "use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_can_not_be_read_names_itself_and_the_remedy() {
        let said = read::<IpNet>("10.244.2.0").unwrap_err().to_string();
        assert_eq!(
            said,
            r#""10.244.2.0" is not a prefix; write an address and a length, as in 10.244.2.0/24 or fd00:244:2::/64"#
        );
        assert!(read::<Vni>("16777216").unwrap_err().to_string().contains("0 to 16777215"));
        assert!(read::<Owner>("me").unwrap_err().to_string().contains("kubernetes"));
    }
}
