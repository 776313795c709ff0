//! Bytes that are known to both ends and repeat so rarely that a lost, moved or doubled piece shows.

/// Bytes after which the pattern repeats: a prime, so that no segment size divides it.
const PERIOD: usize = 65_521;

/// A source of known bytes; two with the same seed give the same.
#[derive(Clone, Debug)]
pub struct Pattern {
    block: Vec<u8>,
    at: usize,
}

impl Pattern {
    /// The pattern of this seed, from its start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        // Twice the period less one, so that any piece up to a period long is contiguous.
        let mut block: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
        block.extend_from_within(..);
        Self { block, at: 0 }
    }

    /// The next bytes, at most `length` and at most 64 KB less a bit.
    pub fn next(&mut self, length: usize) -> &[u8] {
        let length = length.min(PERIOD);
        let start = self.at;
        self.at = (self.at + length) % PERIOD;
        &self.block[start..start + length]
    }

    /// Whether the next bytes of the pattern are these.
    #[must_use]
    pub fn matches(&mut self, bytes: &[u8]) -> bool {
        bytes.chunks(PERIOD).all(|chunk| self.next(chunk.len()) == chunk)
    }

    /// A packet's worth: `length` bytes of the pattern with this seed.
    #[must_use]
    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut pattern = Self::new(seed);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            bytes.extend_from_slice(pattern.next(length - bytes.len()));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_or_moved_piece_does_not_match() {
        let bytes = Pattern::bytes(7, 200_000);
        assert!(Pattern::new(7).matches(&bytes));
        assert!(!Pattern::new(8).matches(&bytes));
        let mut moved = bytes.clone();
        moved.copy_within(1_448..2_896, 2_896);
        assert!(!Pattern::new(7).matches(&moved));
    }
}
