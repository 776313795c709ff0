//! The frame buffers of one worker, lent out and taken back; last in, first out, so that buffers stay in cache.
//!
//! The pool fills itself up to its capacity when it is made, so that the hot path never allocates.

use super::Frame;

/// A stack of empty frames.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
    capacity: usize,
}

impl FramePool {
    /// A pool of `capacity` frames, all free.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { free: (0..capacity).map(|_| Frame::new()).collect(), capacity }
    }

    /// An empty frame, or none when all are out.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, mut frame: Frame) {
        debug_assert!(self.free.len() < self.capacity, "a frame came back that was never lent");
        frame.reset();
        self.free.push(frame);
    }

    /// Frames not lent out.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Frames the pool owns.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}
