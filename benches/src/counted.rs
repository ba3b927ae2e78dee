//! A Criterion bench with the number of its allocations beside: times vary, counts do not.
//!
//! A bench program that uses [`bench()`] declares [`Counting`] as its global allocator. For every id it prints
//! one line, `allocations ID COUNT`: those of one call after the first, which may set up what later
//! calls share. `cargo xtask bench --compare` reads these lines.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
pub struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments unchanged to the system's allocator, whose contract is
// the same; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as for `dealloc`, and the caller promises that `size` is not 0.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations of `work`, where [`Counting`] is the program's allocator.
pub fn allocations<R>(work: impl FnOnce() -> R) -> usize {
    let before = COUNT.load(Ordering::Relaxed);
    std::hint::black_box(work());
    COUNT.load(Ordering::Relaxed) - before
}

/// Counts the allocations of a call of `work` and has Criterion time it under `id`.
pub fn bench<R>(criterion: &mut Criterion, id: &str, mut work: impl FnMut() -> R) {
    std::hint::black_box(work());
    println!("allocations {id} {}", allocations(&mut work));
    criterion.bench_function(id, |bencher| bencher.iter(&mut work));
}

/// The same in a group called `name`.
pub fn bench_in<R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    id: &str,
    mut work: impl FnMut() -> R,
) {
    std::hint::black_box(work());
    println!("allocations {name}/{id} {}", allocations(&mut work));
    group.bench_function(id, |bencher| bencher.iter(&mut work));
}
