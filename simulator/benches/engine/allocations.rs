//! Counts what is allocated: the system's allocator with two counters before it.
#![expect(unsafe_code, reason = "an allocator cannot be written without; every call goes on to the system's, unchanged")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::{AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations (growing counted in) and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    pub count: u64,
    pub bytes: u64,
}

/// Since the program's start.
pub fn made() -> Made {
    Made { count: COUNT.load(Ordering::Relaxed), bytes: BYTES.load(Ordering::Relaxed) }
}

impl Sub for Made {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { count: self.count - before.count, bytes: self.bytes - before.bytes }
    }
}

impl AddAssign for Made {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

fn note(bytes: usize) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every method keeps the contract of `GlobalAlloc` because it only counts and hands its arguments on to `System`, which does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout, as all memory of this allocator does.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above, and the caller promises that `size` is legal.
        unsafe { System.realloc(memory, layout, size) }
    }
}
