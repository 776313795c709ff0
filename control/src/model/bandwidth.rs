//! How fast a port may be.

use std::fmt;
use std::str::FromStr;

/// Smallest rate in bits a second, as Kubernetes has it for its bandwidth annotations.
pub const RATE_BITS_PER_S_MIN: u64 = 1_000;
/// What a burst is when it is not given: what the rate brings in this many milliseconds. Long enough for TCP, whose sender
/// waits 200 ms when a whole flight was dropped: what the rate brings meanwhile is not lost.
pub const BURST_DEFAULT_MS: u64 = 250;

/// A number of bits. As text it may end in `k`, `M`, `G` or `T`, which are powers of 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bits(pub u64);

const SUFFIXES: [(char, u64); 4] = [('T', 1_000_000_000_000), ('G', 1_000_000_000), ('M', 1_000_000), ('k', 1_000)];

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SUFFIXES.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The text is no number of bits.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no number of bits: write it as in 500k, 100M or 2G")]
pub struct BitsError(pub String);

impl FromStr for Bits {
    type Err = BitsError;

    fn from_str(text: &str) -> Result<Self, BitsError> {
        let suffixed = SUFFIXES.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)));
        let (digits, unit) = suffixed.unwrap_or((text, 1));
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.parse::<u64>().ok().filter(|_| plain);
        count.and_then(|count| count.checked_mul(unit)).map(Self).ok_or_else(|| BitsError(text.to_owned()))
    }
}

/// A rate limit: a token bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RateLimit {
    /// Bits a second of IP packets, their Ethernet headers included; never 0.
    pub bits_per_s: u64,
    /// Bits that may pass at once; never 0.
    pub burst_bits: u64,
}

impl RateLimit {
    /// This rate, with this burst or the usual one: what the rate brings in [`BURST_DEFAULT_MS`], and a super-frame at least.
    #[must_use]
    pub fn new(rate: Bits, burst: Option<Bits>) -> Self {
        let usual = (rate.0 / 1_000).saturating_mul(BURST_DEFAULT_MS).max(BURST_DEFAULT_BITS_MIN);
        Self { bits_per_s: rate.0, burst_bits: burst.map_or(usual, |burst| burst.0) }
    }
}

/// A super-frame of 64 KiB.
const BURST_DEFAULT_BITS_MIN: u64 = 65_536 * 8;

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, burst {}", Bits(self.bits_per_s), Bits(self.burst_bits))
    }
}

/// How fast a port may be; a direction that is not given is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bandwidth {
    /// Towards the pod.
    pub ingress: Option<RateLimit>,
    /// From the pod.
    pub egress: Option<RateLimit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_and_shown_with_decimal_suffixes() {
        for (text, bits) in
            [("0", 0), ("1500", 1_500), ("500k", 500_000), ("100M", 100_000_000), ("2T", 2_000_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Bits(bits)));
            assert_eq!(Bits(bits).to_string(), text);
        }
        assert_eq!("1000M".parse::<Bits>().unwrap().to_string(), "1G");
        for bad in ["", "M", "1.5G", "-1", "+1", "100m", "1Mi", "10 M", "20000000T"] {
            assert_eq!(bad.parse::<Bits>(), Err(BitsError(bad.to_owned())));
        }
    }

    #[test]
    fn a_burst_that_is_not_given_follows_from_the_rate_and_holds_a_super_frame() {
        let usual = |rate| RateLimit::new(Bits(rate), None).burst_bits;
        assert_eq!([usual(100_000_000), usual(1_000)], [100_000_000 / 1_000 * BURST_DEFAULT_MS, 65_536 * 8]);
        assert_eq!(RateLimit::new(Bits(1_000), Some(Bits(20_000))).burst_bits, 20_000);
    }
}
