//! The addresses a node has for its pods: ranges of them, and how far those are used.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses of one family from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

/// The text is no range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no range of addresses: write FIRST-LAST, as in 10.244.1.16-10.244.1.200, or one address")]
pub struct IpRangeError(pub String);

impl IpRange {
    /// The first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl From<IpNet> for IpRange {
    /// All of a subnet, from its network address on.
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let wrong = || IpRangeError(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: IpAddr = first.trim().parse().map_err(|_| wrong())?;
        let last: IpAddr = last.trim().parse().map_err(|_| wrong())?;
        if first.is_ipv4() == last.is_ipv4() && first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

/// Who stated a range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RangeSource {
    /// Nobody: it is the whole of a pod CIDR without ranges.
    PodCidr,
    /// The daemon's configuration file.
    File,
    /// The CLI.
    Cli,
}

impl RangeSource {
    /// The word the CLI shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PodCidr => "pod-cidr",
            Self::File => "file",
            Self::Cli => "cli",
        }
    }
}

/// A range and its use. Numbers end at `u64::MAX`, which IPv6 ranges may exceed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeReport {
    /// The range.
    pub range: IpRange,
    /// Who stated it.
    pub source: RangeSource,
    /// Addresses in it.
    pub size: u64,
    /// Of these, leased ones.
    pub held: u64,
    /// Of these, those that are not leased and not given unasked: reserved ones, the gateway's, those no pod can have.
    pub reserved: u64,
    /// Of these, all others.
    pub free: u64,
}

/// What addresses there are for pods.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IpamReport {
    /// Ranges of both families, IPv4 first, in the order they are tried.
    pub ranges: Vec<RangeReport>,
    /// Addresses that a pod only gets by asking for them.
    pub reserved: Vec<IpRange>,
}

/// What a change of the CLI's ranges did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangesChanged {
    /// Ranges that are new.
    pub added: Vec<IpRange>,
    /// Ranges that are gone.
    pub removed: Vec<IpRange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_printed_as_it_is_written() {
        for text in ["10.244.1.16-10.244.1.200", "fd00:244:1::10-fd00:244:1::ffff", "10.244.1.5", "fd00::"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range(" 10.0.0.1 - 10.0.0.1 ").to_string(), "10.0.0.1");
        let whole: IpNet = "10.244.1.0/24".parse().unwrap();
        assert_eq!(IpRange::from(whole), range("10.244.1.0-10.244.1.255"));
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_form() {
        for text in ["", "-", "10.0.0.2-10.0.0.1", "10.0.0.1-", "10.0.0.1-fd00::", "10.0.0.0/24", "a-b"] {
            let said = text.parse::<IpRange>().unwrap_err().to_string();
            assert!(said.starts_with(&format!("{text:?} is no range")) && said.contains("FIRST-LAST"), "{said}");
        }
    }

    #[test]
    fn ranges_overlap_when_they_share_an_address() {
        let own = range("10.0.0.10-10.0.0.20");
        for (other, overlaps) in [
            ("10.0.0.1-10.0.0.9", false),
            ("10.0.0.1-10.0.0.10", true),
            ("10.0.0.12", true),
            ("10.0.0.1-10.0.0.99", true),
            ("10.0.0.21-10.0.0.22", false),
            ("::-ffff::", false),
        ] {
            assert_eq!((own.overlaps(range(other)), range(other).overlaps(own)), (overlaps, overlaps), "{other}");
        }
    }
}
