//! Work snapshots: what each method evaluates on fixed problems. A change that doubles the work fails.
//!
//! Counts vary by a few with the last bits (other machines, other compilers), so each may leave its
//! snapshot by a tenth plus 3. To renew the snapshot, run with `--nocapture` and copy what is printed.

mod common;

use peftml_solvers::iterate::Silent;
use peftml_solvers::{Problem, Settings, entry};
use peftml_theory::linear::Kind;

/// Name, kind, from samples, then iterations, gradients and values, products, factorisations.
const SNAPSHOT: &[(&str, Kind, bool, [usize; 4])] = &[
    ("authors", Kind::Symmetric, false, [200, 2200, 0, 0]),
    ("authors", Kind::Symmetric, true, [200, 2200, 0, 0]),
    ("authors", Kind::Asymmetric, false, [200, 2200, 0, 0]),
    ("authors", Kind::Asymmetric, true, [200, 2200, 0, 0]),
    ("gradient-descent", Kind::Symmetric, false, [168, 336, 0, 0]),
    ("gradient-descent", Kind::Symmetric, true, [73, 146, 0, 0]),
    ("gradient-descent", Kind::Asymmetric, false, [101, 201, 0, 0]),
    ("gradient-descent", Kind::Asymmetric, true, [200, 398, 0, 0]),
    ("alternating", Kind::Symmetric, false, [34, 35, 0, 136]),
    ("alternating", Kind::Symmetric, true, [72, 73, 0, 288]),
    ("alternating", Kind::Asymmetric, false, [62, 63, 0, 248]),
    ("alternating", Kind::Asymmetric, true, [109, 110, 0, 436]),
    ("adamw", Kind::Symmetric, false, [200, 201, 0, 0]),
    ("adamw", Kind::Symmetric, true, [200, 201, 0, 0]),
    ("adamw", Kind::Asymmetric, false, [200, 201, 0, 0]),
    ("adamw", Kind::Asymmetric, true, [200, 201, 0, 0]),
    ("lbfgs", Kind::Symmetric, false, [37, 41, 0, 0]),
    ("lbfgs", Kind::Symmetric, true, [32, 38, 0, 0]),
    ("lbfgs", Kind::Asymmetric, false, [43, 46, 0, 0]),
    ("lbfgs", Kind::Asymmetric, true, [56, 61, 0, 0]),
    ("scaled-gradient", Kind::Symmetric, false, [53, 56, 0, 212]),
    ("scaled-gradient", Kind::Symmetric, true, [130, 135, 0, 520]),
    ("scaled-gradient", Kind::Asymmetric, false, [65, 69, 0, 520]),
    ("scaled-gradient", Kind::Asymmetric, true, [195, 207, 0, 1560]),
    ("trust-region", Kind::Symmetric, false, [19, 20, 57, 0]),
    ("trust-region", Kind::Symmetric, true, [16, 17, 41, 0]),
    ("trust-region", Kind::Asymmetric, false, [15, 16, 46, 0]),
    ("trust-region", Kind::Asymmetric, true, [19, 20, 63, 0]),
    ("gauss-newton", Kind::Symmetric, false, [10, 12, 23, 40]),
    ("gauss-newton", Kind::Symmetric, true, [9, 10, 26, 36]),
    ("gauss-newton", Kind::Asymmetric, false, [11, 12, 36, 88]),
    ("gauss-newton", Kind::Asymmetric, true, [21, 24, 57, 168]),
];

/// Whether a figure leaves its snapshot by more than a tenth plus 3.
fn leaves(found: &[usize], expected: &[usize]) -> bool {
    found.iter().zip(expected).any(|(a, b)| a.abs_diff(*b) > b / 10 + 3)
}

#[test]
fn doubled_work_leaves_every_snapshot() {
    for (name, _, _, expected) in SNAPSHOT {
        let doubled = expected.map(|count| 2 * count);
        assert!(leaves(&doubled, expected), "{name}");
    }
}

#[test]
fn work_is_that_of_the_snapshot() {
    let mut wrong = Vec::new();
    for &(name, kind, sampled, expected) in SNAPSHOT {
        let (tasks, start) = common::problem((10, 2, 4), kind, sampled.then_some(300), 5);
        let problem = Problem { tasks: &tasks, kind, rank: 2 };
        let settings =
            Settings { max_iterations: Some(200), tolerance: Some(1e-6), ..Default::default() };
        let method = entry(name).unwrap().build(&settings).unwrap();
        let solution = method.solve(&problem, Some(&start), &mut Silent).unwrap();
        let work = solution.evaluations;
        let found = [
            solution.iterations,
            work.gradients + work.values,
            work.hessian_products,
            work.factorisations,
        ];
        println!(
            "    ({name:?}, Kind::{kind:?}, {sampled}, {found:?}), // {:?}",
            solution.stop_reason
        );
        if leaves(&found, &expected) {
            wrong.push((name, kind, sampled, expected, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
