//! A frame and the containers it travels in.
//!
//! A [`Frame`] is owned and moves: from the pool into a batch, and back. Its bytes lie in one buffer with
//! headroom in front. This module knows nothing of protocols (that is `wire`) nor of devices (`port`).

mod batch;
mod offload;
mod pool;

use std::fmt;
use std::net::IpAddr;

pub use batch::{Batch, Delivery, Egress, Encap, Item};
pub use offload::{Checksum, Gso, GsoKind, Offload};
pub use pool::FramePool;

use crate::id::PortId;
#[cfg(test)]
use crate::limits::FRAME_ALIGNING_BYTES;
use crate::limits::{FRAME_BUFFER_BYTES, FRAME_HEADROOM_BYTES};

const CACHE_LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = 4096;
/// Ethernet, IPv4, TCP with timestamps.
const USUAL_HEADERS_BYTES: usize = 14 + 20 + 32;

/// What an uplink knows of the datagram a tunnelled frame came in. The frame's bytes then start at the VXLAN header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// Who sent it: the remote VTEP's address.
    pub remote: IpAddr,
    /// TOS or traffic class of the outer header; the low two bits are the ECN field (RFC 3168).
    pub tos: u8,
}

/// One Ethernet frame (or, from an uplink, one VXLAN datagram's payload) with room in front of it.
pub struct Frame {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Checksum state and segmentation.
    pub offload: Offload,
    /// Port that received it; [`PortId::NONE`] for frames the switch originates.
    pub ingress: PortId,
    /// Set by uplink ports only.
    pub outer: Option<Outer>,
}

/// One cache line: frames are moved into batches and back.
const _: () = assert!(size_of::<Frame>() <= CACHE_LINE_BYTES);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.len())
            .field("offload", &self.offload)
            .field("ingress", &self.ingress)
            .field("outer", &self.outer)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// An empty frame with a buffer of its own. Allocates: the hot path takes frames from a [`FramePool`].
    #[must_use]
    pub fn new() -> Self {
        let buf = vec![0; FRAME_BUFFER_BYTES].into_boxed_slice();
        let origin = origin_of(buf.as_ptr().addr());
        Self { buf, start: origin, end: origin, offload: Offload::default(), ingress: PortId::NONE, outer: None }
    }

    /// Empties the frame, with full headroom and nothing known of it.
    #[inline]
    pub fn reset(&mut self) {
        self.start = origin_of(self.buf.as_ptr().addr());
        self.end = self.start;
        self.offload = Offload::default();
        self.ingress = PortId::NONE;
        self.outer = None;
    }

    /// The frame's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The frame's bytes, to rewrite.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True when there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes free in front.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// The buffer behind the frame's start, for a device to read into; follow with [`Frame::set_len`].
    pub fn space_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..]
    }

    /// Says how many bytes the frame has, after a write into [`Frame::space_mut`] or to cut its tail off.
    /// Longer than the buffer is cut to the buffer.
    pub fn set_len(&mut self, len: usize) {
        self.end = (self.start + len).min(self.buf.len());
    }

    /// Replaces the content; longer than the buffer is cut.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.set_len(bytes.len());
        let len = self.len();
        self.bytes_mut().copy_from_slice(&bytes[..len]);
    }

    /// Puts bytes behind the last. False, changing nothing, when there is no room for them.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.end;
        let Some(space) = self.buf.get_mut(end..end + bytes.len()) else { return false };
        space.copy_from_slice(bytes);
        self.end = end + bytes.len();
        true
    }

    /// Takes `len` bytes off the front. A `Partial` checksum's start moves along.
    /// Returns false, changing nothing, when the frame is shorter.
    pub fn pull(&mut self, len: usize) -> bool {
        if len > self.len() {
            return false;
        }
        self.start += len;
        self.shift_offload(|at| at.saturating_sub(len));
        true
    }

    /// Puts `len` bytes (of undefined content) in front. A `Partial` checksum's start moves along.
    /// Returns false, changing nothing, when there is no headroom for them.
    pub fn push(&mut self, len: usize) -> bool {
        if len > self.start {
            return false;
        }
        self.start -= len;
        self.shift_offload(|at| at + len);
        true
    }

    /// Packets this frame stands for on a wire.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> usize {
        self.offload.segments(self.len())
    }

    /// Bytes of the packets it stands for on a wire, each with headers of its own; a super-frame's are parsed by then.
    #[inline]
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let header_len = self.offload.gso.map_or(0, |gso| usize::from(gso.header_len));
        self.len() + (self.segments() - 1) * header_len
    }

    fn shift_offload(&mut self, shift: impl Fn(usize) -> usize) {
        let moved = |at: u16| u16::try_from(shift(usize::from(at))).unwrap_or(u16::MAX);
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = moved(*start);
        }
        if let Some(gso) = &mut self.offload.gso {
            gso.header_len = moved(gso.header_len);
        }
    }
}

/// Offset in a buffer at `address` where frames start: behind the headroom, and so that the payload behind the most usual
/// headers (Ethernet, IPv4, TCP with timestamps) starts on a cache line, from where kernels copy fastest.
///
/// Not on a page: the payload behind 54 bytes of headers would then start 12 bytes before one, and some AMD CPUs copy five
/// times slower to a page when the target's offset is 1 to 15 bytes past the source's (modulo a page).
#[inline]
fn origin_of(address: usize) -> usize {
    let payload = (address + FRAME_HEADROOM_BYTES + USUAL_HEADERS_BYTES).next_multiple_of(CACHE_LINE_BYTES);
    let payload = if payload.is_multiple_of(PAGE_BYTES) { payload + CACHE_LINE_BYTES } else { payload };
    payload - USUAL_HEADERS_BYTES - address
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_and_push_move_the_partial_checksum_along() {
        let mut frame = Frame::new();
        frame.fill(&[7; 100]);
        frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        assert!(frame.push(8));
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 42, offset: 16 });
        assert!(frame.pull(8));
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(frame.bytes(), [7; 100]);
    }

    #[test]
    fn pulling_or_pushing_too_much_changes_nothing() {
        let mut frame = Frame::new();
        frame.fill(&[1, 2, 3]);
        assert!(!frame.pull(4));
        assert!(!frame.push(frame.headroom() + 1));
        assert_eq!(frame.bytes(), [1, 2, 3]);
    }

    #[test]
    fn a_frame_starts_behind_the_headroom_where_its_payload_is_copied_fastest() {
        for address in (0..2 * PAGE_BYTES).step_by(8) {
            let origin = origin_of(address);
            assert!((FRAME_HEADROOM_BYTES..FRAME_HEADROOM_BYTES + FRAME_ALIGNING_BYTES).contains(&origin), "{address}");
            assert_eq!((address + origin + USUAL_HEADERS_BYTES) % CACHE_LINE_BYTES, 0, "{address}");
            for headers in [42, 54, 62, 66, 74, 86] {
                let before_page = PAGE_BYTES - (address + origin + headers) % PAGE_BYTES;
                assert!(before_page > 15, "{headers} bytes of headers at {address}");
            }
        }
    }

    #[test]
    fn the_largest_frame_fits_behind_the_headroom() {
        let mut frame = Frame::new();
        frame.set_len(crate::limits::FRAME_BYTES_MAX);
        assert_eq!(frame.len(), crate::limits::FRAME_BYTES_MAX);
    }
}
