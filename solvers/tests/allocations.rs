//! Iterations allocate nothing: a run of many steps allocates as often as a run of few.
//!
//! The file has one test, because its allocator counts for the whole process.

use faer::Mat;
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::fine_tuning::GradientFineTuning;
use peftml_solvers::first_order::standard::StandardScheme;
use peftml_solvers::iterate::{self, MaxIterations, Silent};
use peftml_solvers::low_rank::Global;
use peftml_solvers::second_order::GaussNewton;
use peftml_solvers::{AdamW, BaseSolver, Problem, Settings, registry};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use peftml_theory::shallow::{
    Adapters, FineTuningObjective, Network, RetrainingObjective, Samples, Sizes,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

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

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.load(Ordering::Relaxed);
    work();
    COUNT.load(Ordering::Relaxed) - before
}

fn problem_data(kind: Kind, d: usize, k: usize, count: usize) -> (Tasks, Tasks, Blocks) {
    let mut stream = Seed::root(11).child("allocations").stream();
    let mut exact = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let u = stream.normal_matrix(d, k, 1.0);
        let a = &u * u.transpose();
        let x = stream.normal_matrix(d, 4 * d, 1.0);
        pairs.push((x.clone(), &a * &x + stream.normal_matrix(d, 4 * d, 0.1)));
        exact.push(a);
    }
    let sampled = Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref())));
    let layout = peftml_linalg::Layout::repeated("U", count, d, k);
    let layout = match kind {
        Kind::Symmetric => layout,
        Kind::Asymmetric => layout.followed_by(&peftml_linalg::Layout::repeated("V", count, d, k)),
    };
    let mut start = Blocks::zeros(layout);
    stream.fill_normal(0.1, start.as_mut_slice());
    (Tasks::exact(exact).unwrap(), sampled.unwrap(), start)
}

fn same(name: &str, mut run: impl FnMut(usize)) {
    // Once for what is allocated on first use (detection of vector instructions).
    run(2);
    let (few, many) = (allocations(|| run(2)), allocations(|| run(60)));
    assert_eq!(few, many, "{name} allocates in its iterations");
}

/// AdamW on both objectives of the shallow network.
fn shallow_steps_do_not_allocate() {
    let mut stream = Seed::root(12).child("allocations").stream();
    let sizes = Sizes::square(7);
    let samples: Vec<Samples> = (0..3)
        .map(|_| {
            let x = stream.normal_matrix(7, 50, 1.0);
            let y = stream.normal_matrix(50, 1, 1.0);
            Samples::new(sizes, x.as_ref(), y.col(0)).unwrap()
        })
        .collect();
    let adapters = Adapters { kind: Kind::Asymmetric, rank: 2 };
    let network = Network::zeros(sizes).unwrap();
    let retraining = RetrainingObjective::new(sizes, Some(adapters), &samples).unwrap();
    let fine_tuning = FineTuningObjective::new(&network, adapters, &samples[0]).unwrap();
    for (name, f) in [("retraining", &retraining as &dyn Objective), ("tuning", &fine_tuning)] {
        let mut start = Blocks::zeros(f.layout().clone());
        stream.fill_normal(0.5, start.as_mut_slice());
        same(name, |steps| {
            let rule = iterate::MaxIterations(steps);
            iterate::run(&AdamW::default(), f, start.clone(), &rule, &mut iterate::Silent).unwrap();
        });
    }
}

#[test]
fn iterations_do_not_allocate() {
    // The control: a loop that does allocate is seen.
    let caught = std::panic::catch_unwind(|| {
        same("control", |steps| (0..steps).for_each(|i| drop(std::hint::black_box(vec![i; 3]))));
    });
    assert!(caught.is_err());
    shallow_steps_do_not_allocate();

    for kind in [Kind::Symmetric, Kind::Asymmetric] {
        let (d, k, count) = (9, 2, 3);
        let (exact, sampled, start) = problem_data(kind, d, k, count);
        let zero = Mat::zeros(d, d);
        for tasks in [&exact, &sampled] {
            let problem = Problem { tasks, kind, rank: k };
            same("authors", |rounds| {
                let scheme = AuthorsScheme { rounds, ..Default::default() };
                scheme.retrain(&problem, zero.as_ref(), &start, &mut |_| {}).unwrap();
            });
            same("standard", |steps| {
                let scheme = StandardScheme { steps, ..Default::default() };
                scheme.retrain(tasks, zero.as_ref(), None, &mut |_, _| {}).unwrap();
            });
            for entry in registry().iter().filter(|entry| entry.needs_start) {
                same(entry.name, |steps| {
                    let settings = Settings {
                        max_iterations: Some(steps),
                        tolerance: Some(0.0),
                        ..Default::default()
                    };
                    let method = entry.build(&settings).unwrap();
                    method.solve(&problem, Some(&start), &mut Silent).unwrap();
                });
            }
            let f = ProfileObjective::new(tasks, kind, k).unwrap();
            same("Gauss-Newton polish", |steps| {
                let rule = MaxIterations(steps);
                let solver = GaussNewton::default();
                iterate::run(&solver, &f, start.clone(), &rule, &mut Silent).unwrap();
            });
            same("global", |rounds| {
                let solver = Global { rounds, polish_steps: rounds, ..Default::default() };
                let found = solver.solve(&problem, None, &mut Silent).unwrap();
                assert!(found.iterations > 1, "control: it iterates");
            });
            if kind == Kind::Asymmetric {
                let pair = [start.block(0), start.block(count)];
                let pair = Blocks::from_matrices("F", pair);
                same("fine-tuning", |steps| {
                    let tuning = GradientFineTuning { steps, ..Default::default() };
                    let task = tasks.task(0);
                    tuning.fine_tune(zero.as_ref(), task, &pair, &[1], &mut |_, _, _| {}).unwrap();
                });
            }
        }
    }
}
