//! The Internet checksum (RFC 1071): sums, pseudo-headers and incremental update (RFC 1624).
//!
//! A *sum* here is a 32-bit accumulator of big-endian 16-bit words; [`fold`] makes it 16 bits,
//! and the field on the wire is the fold's complement.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Sum of the bytes as big-endian words, an odd last byte padded with zero.
/// The result is folded far enough that thousands of them can be added without overflow.
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    // Summed as native 32-bit words into 64 bits (RFC 1071, 2B and 2C: order and grouping do not matter); the
    // byte order is put right at the end. Eight sums side by side, so that compilers use vectors for them.
    let word = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
    let mut lanes = [0u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, &bytes) in lanes.iter_mut().zip(words) {
            *lane += word(bytes);
        }
    }
    let mut wide: u64 = lanes.iter().sum();
    let (words, rest) = rest.as_chunks::<4>();
    for &bytes in words {
        wide += word(bytes);
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    wide += word(last);
    let mut folded = (wide & 0xffff_ffff) + (wide >> 32);
    folded = (folded & 0xffff_ffff) + (folded >> 32);
    let [a, b, c, d] = u32::try_from(folded).unwrap_or(u32::MAX).to_ne_bytes();
    u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]))
}

/// Folds a sum to 16 bits.
#[must_use]
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    u16::try_from(twice).unwrap_or(u16::MAX)
}

/// The field's value for a sum: its folded complement.
#[must_use]
pub fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// Pseudo-header sum of IPv4 (RFC 793, 3.1).
#[must_use]
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, l4_len: u32) -> u32 {
    sum(&src.octets()) + sum(&dst.octets()) + u32::from(protocol) + (l4_len & 0xffff) + (l4_len >> 16)
}

/// Pseudo-header sum of IPv6 (RFC 8200, 8.1).
#[must_use]
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, l4_len: u32) -> u32 {
    sum(&src.octets()) + sum(&dst.octets()) + u32::from(protocol) + (l4_len & 0xffff) + (l4_len >> 16)
}

/// A checksum field after one 16-bit word it covers changed (RFC 1624, equation 3).
#[must_use]
pub fn update(field: u16, old: u16, new: u16) -> u16 {
    finish(u32::from(!field) + u32::from(!old) + u32::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_sum_is_that_of_the_words_one_by_one() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2_000).map(|byte: u8| byte.wrapping_mul(31)).collect();
        for len in (0..80).chain([1_447, 1_448, 1_999]) {
            assert_eq!(fold(sum(&bytes[..len])), slow_sum(&bytes[..len]), "{len} bytes");
        }
        assert_eq!(fold(sum(&[0xff; 65_536])), 0xffff);
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn an_update_gives_what_a_new_sum_gives() {
        let mut bytes = [0x45, 0x00, 0x12, 0x34, 0x40, 0x06, 0xab, 0xcd];
        let before = finish(sum(&bytes));
        bytes[4] = 0x3f;
        assert_eq!(update(before, 0x4006, 0x3f06), finish(sum(&bytes)));
    }
}
