//! A batch of images allocates nothing per image.

use peftml_data::Images;
use peftml_experiments::vision::images::{Changes, ImageExamples};
use peftml_linalg::Seed;
use peftml_peft::{Examples, Place, Precision};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts allocations.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_batch_allocates_nothing_per_image() {
    let mut images = Images::empty(3, 32);
    for label in 0..10u8 {
        images.push(label, &vec![label; 3 * 32 * 32]);
    }
    let numbers: Vec<usize> = (0..256).map(|i| i % 10).collect();
    let examples = ImageExamples::new(&Arc::new(images), numbers, Changes::EveryEpoch);
    let (place, epoch) = (Place::cpu(Precision::F32), Seed::root(1));
    let allocations = |count: usize| {
        let chosen: Vec<usize> = (0..count).collect();
        let before = COUNT.load(Ordering::Relaxed);
        let batch = examples.batch(&chosen, Some(&epoch), &place).unwrap();
        let after = COUNT.load(Ordering::Relaxed);
        assert_eq!(batch.len(), count);
        after - before
    };
    // What is made once, at the first use of a device.
    allocations(8);
    let (few, many) = (allocations(8), allocations(256));
    // One allocation an image would be 248 more; large tensors take a handful more than small ones.
    assert!(many < few + 248 / 10, "{few} allocations for 8 images, {many} for 256");
    // Control: the counter counts.
    assert!(few > 0);
}
