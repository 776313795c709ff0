//! Where the packets of one cut frame are kept until they are sent: header bytes and payload spans.
//!
//! One a worker, allocated once and reused for every frame. It never grows: a frame that needs more is dropped.

use std::ops::Range;

use crate::limits::PIECES_MAX;
use crate::outcome::DropReason;
use crate::port::{Piece, Pieces};

/// Header bytes a piece may have on average: Ethernet with two tags (22), and the longest IPv4 and TCP headers
/// (60 each) or IPv6 with extension headers.
const HEADER_BYTES_A_PIECE: usize = 160;
const HEADERS_BYTES_MAX: usize = PIECES_MAX * HEADER_BYTES_A_PIECE;

/// Storage for the packets a frame is cut into, filled by [`prepare`](super::prepare).
#[derive(Debug)]
pub struct Arena {
    headers: Vec<u8>,
    list: Vec<Piece>,
}

impl Arena {
    /// An empty arena, with all the memory it will ever have.
    #[must_use]
    pub fn new() -> Self {
        Self { headers: Vec::with_capacity(HEADERS_BYTES_MAX), list: Vec::with_capacity(PIECES_MAX) }
    }

    /// The packets of the frame that was cut last. Their payload spans are of that frame's bytes.
    #[must_use]
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { headers: &self.headers, list: &self.list }
    }

    pub(super) fn clear(&mut self) {
        self.headers.clear();
        self.list.clear();
    }

    /// Adds a packet whose headers are `first` followed by `second`, and returns them for finishing.
    pub(super) fn add(&mut self, first: &[u8], second: &[u8], payload: Range<usize>) -> Result<&mut [u8], DropReason> {
        let at = self.headers.len();
        let len = first.len() + second.len();
        if self.list.len() == PIECES_MAX || len > HEADERS_BYTES_MAX - at {
            return Err(DropReason::Uncuttable);
        }
        self.list.push(Piece { header: span(at, len)?, payload: span(payload.start, payload.len())? });
        self.headers.extend_from_slice(first);
        self.headers.extend_from_slice(second);
        Ok(&mut self.headers[at..])
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

fn span(at: usize, len: usize) -> Result<(u32, u32), DropReason> {
    let narrow = |value| u32::try_from(value).map_err(|_| DropReason::Uncuttable);
    Ok((narrow(at)?, narrow(len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_arena_refuses_and_never_moves() {
        let mut arena = Arena::new();
        let before = (arena.headers.as_ptr(), arena.list.as_ptr());
        for _ in 0..PIECES_MAX {
            assert!(arena.add(&[1; 100], &[2; 60], 0..1).is_ok());
        }
        assert_eq!(arena.add(&[], &[], 0..1), Err(DropReason::Uncuttable), "too many pieces");
        arena.clear();
        assert!(arena.add(&[3; HEADERS_BYTES_MAX], &[], 0..1).is_ok());
        assert_eq!(arena.add(&[3], &[], 0..1), Err(DropReason::Uncuttable), "too many header bytes");
        assert_eq!((arena.headers.as_ptr(), arena.list.as_ptr()), before);
    }
}
