//! The system's allocator, counting what each thread asks of it: proof that the hot path asks for nothing.
//!
//! The one file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Passes everything on to [`System`].
pub(crate) struct Counting;

/// Allocations and reallocations of the calling thread so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn count() {
    // A thread that is ending may have no counter any more; what it then allocates is not of interest.
    let _ = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + 1));
}

// SAFETY: every method hands its arguments to `System` unchanged and returns what that returns. Counting neither
// allocates (the cell is const-initialized and needs no destructor) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; the pointer came from `System`, since all of ours do.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_for_the_thread_that_makes_them() {
        let before = allocations();
        std::thread::spawn(|| std::hint::black_box(vec![1_u8; 100])).join().unwrap();
        let spawning = allocations() - before;
        let before = allocations();
        let mut grown = std::hint::black_box(Vec::<u64>::with_capacity(1));
        grown.extend([1, 2, 3]);
        assert_eq!(allocations() - before, 2, "one allocation, one reallocation; a thread cost {spawning}");
        let before = allocations();
        assert_eq!(std::hint::black_box([7_u8; 64]).len(), 64);
        assert_eq!(allocations(), before);
    }
}
