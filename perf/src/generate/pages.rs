//! A buffer of whole pages, reused for every send or receive.
//!
//! The kernel copies from it into page fragments. On some CPUs `rep movsb` is five times slower when destination minus
//! source, modulo the page size, is 1 to 15; so a buffer that begins anywhere, or one short write before the bulk of
//! them, can halve a figure. Every write is therefore of whole pages from a page's start, the first one included.

const PAGE_BYTES: usize = 4_096;

/// Bytes from the start of a page on.
#[derive(Debug)]
pub(super) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    /// `pages` pages of zeros.
    pub(super) fn new(pages: usize) -> Self {
        let len = pages * PAGE_BYTES;
        let bytes = vec![0; len + PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES);
        // The standard library may say that it does not know; then the buffer is only not aligned.
        let start = if start < PAGE_BYTES { start } else { 0 };
        Self { bytes, start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_and_ends_with_a_page() {
        let mut pages = Pages::new(3);
        assert_eq!((pages.bytes().as_ptr().addr() % PAGE_BYTES, pages.bytes().len()), (0, 3 * PAGE_BYTES));
        assert_eq!(pages.bytes_mut().len(), 3 * PAGE_BYTES);
    }
}
