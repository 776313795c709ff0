//! A MAC address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A 48-bit IEEE 802 address; printed and parsed as `02:00:5e:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

/// The text is not a MAC address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a MAC address: write six bytes in hex, as in 02:00:5e:00:00:01")]
pub struct MacError(pub String);

impl Mac {
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros; no station has it.
    pub const ZERO: Self = Self([0; 6]);

    /// Broadcast or multicast: the group bit is set.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Could be a station's address: neither a group address nor zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }

    /// One of 01:80:C2:00:00:00 to 0F, which no bridge forwards (IEEE 802.1D, 7.12.6).
    #[must_use]
    pub fn is_link_local_control(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && self.0[5] < 0x10
    }

    /// A locally administered address that follows from an IP address, so that a pod keeps its MAC when it comes
    /// back: `0a:58` and the four bytes for IPv4 (as the CNI bridge plugin does), `0a:59` and a hash for IPv6.
    #[must_use]
    pub fn of_ip(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x0a, 0x58, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d] = fnv1a(&v6.octets()).to_be_bytes();
                Self([0x0a, 0x59, a, b, c, d])
            }
        }
    }

    /// A locally administered address that follows from a name and a purpose, such as a node's VTEP.
    #[must_use]
    pub fn of_name(purpose: &str, name: &str) -> Self {
        let [a, b, c, d] = fnv1a(format!("{purpose}/{name}").as_bytes()).to_be_bytes();
        Self([0x0a, 0x5a, a, b, c, d])
    }

    /// The address in the low 48 bits, first byte highest.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// FNV-1a, 32 bits: stable over versions and machines, which `std`'s hashers are not.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_printed_as_it_is_parsed() {
        for text in ["02:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "02:00:5e:00:00", "02:00:5e:00:00:01:02", "2:0:5e:0:0:1", "02-00-5e-00-00-01", "+2:00:5e:00:00:01"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pods_mac_follows_from_its_address() {
        assert_eq!(Mac::of_ip("10.244.1.10".parse().unwrap()).to_string(), "0a:58:0a:f4:01:0a");
        assert!(Mac::of_ip("fd00::1".parse().unwrap()).is_station());
    }
}
