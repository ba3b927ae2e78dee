//! A hundred task adapters on one base: memory grows by the adapters, never by the base.

mod common;

use peftml_linalg::Seed;
use peftml_peft::models::{Mlp, MlpConfig};
use peftml_peft::optimiser::{AdamConfig, OptimiserConfig, ScheduleConfig};
use peftml_peft::train::{Algorithm, Rounds, Training, TrainingConfig};
use peftml_peft::{Network, Place, Precision, Task, VectorExamples};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// Counts the bytes that are alive.
struct Counting;

static ALIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hundred_adapters_share_one_base() {
    const TASKS: usize = 100;
    const SIDE: usize = 512;
    let place = Place::cpu(Precision::F32);
    let config = MlpConfig { inputs: SIDE, hidden: vec![SIDE; 2], classes: 2, dropout: 0.0 };
    let network = Mlp::new(config).unwrap();
    let base = network.sites().initial(&Seed::root(1), &place).unwrap();
    let tasks: Vec<Task> = (0..TASKS)
        .map(|t| {
            let examples = || VectorExamples::classes(SIDE, vec![0.1; SIDE], vec![t % 2]).unwrap();
            let training = Box::new(examples());
            Task { name: t.to_string(), training, validation: Box::new(examples()) }
        })
        .collect();
    let config = TrainingConfig {
        algorithm: Algorithm::PeftMl {
            adapter: common::small_weight_method(),
            rounds: Rounds::Alternating { inner: 1, outer: 1 },
            adapter_optimiser: None,
        },
        steps: 2,
        batch: TASKS,
        optimiser: OptimiserConfig::Adam(AdamConfig::new(1e-3, 0.0)),
        schedule: ScheduleConfig::Constant,
        validate_every: 0,
    };
    let training = Training::new(&network, &tasks, config, &base, &Seed::root(2), &place).unwrap();
    let adapter = 4 * training.adapter().unwrap().count() as isize;
    let whole_base = 4 * network.sites().count() as isize;
    // Products keep scratch in their threads, once for all tasks.
    let mut first = training.start(&base).unwrap();
    training.run(&mut first, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    drop(first);
    let before = ALIVE.load(Ordering::Relaxed);
    let mut state = training.start(&base).unwrap();
    let started = ALIVE.load(Ordering::Relaxed) - before;
    // Adapters, and a few thousand bytes of names and shapes for each.
    let names = 8192 * TASKS as isize;
    assert!(started < TASKS as isize * adapter + names, "{started}");
    // Control: it could not have held the adapters in less.
    assert!(started > TASKS as isize * adapter, "{started}");
    training.run(&mut state, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let trained = ALIVE.load(Ordering::Relaxed) - before;
    // Two moments an adapter; one new base, kept by the state and by its best (the same tensors), and
    // the base's two moments.
    let most = 3 * (TASKS as isize * adapter + whole_base + names);
    assert!(trained < most, "{trained} {most}");
    // Control: one base more for each task would not have fitted.
    assert!(TASKS as isize * whole_base > most);
}
