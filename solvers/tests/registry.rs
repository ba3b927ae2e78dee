//! What every method of the registry must keep: being listed is being tested.

mod common;

use common::problem;
use peftml_linalg::{Blocks, compare};
use peftml_solvers::iterate::Silent;
use peftml_solvers::{Entry, Order, Problem, Settings, Solution, SolveError, StopReason, registry};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};

const TOLERANCE: f64 = 1e-7;

fn cells() -> Vec<(Tasks, Blocks, Kind, usize)> {
    let mut cells = Vec::new();
    for kind in [Kind::Symmetric, Kind::Asymmetric] {
        for samples in [None, Some(200)] {
            for (d, k, count) in [(8, 1, 3), (9, 2, 4), (6, 2, 2)] {
                let (tasks, start) = problem((d, k, count), kind, samples, 3);
                cells.push((tasks, start, kind, k));
            }
        }
    }
    cells
}

fn solve(
    entry: &Entry,
    problem: &Problem<'_>,
    start: &Blocks,
    iterations: usize,
) -> Result<Solution, SolveError> {
    let settings = Settings {
        max_iterations: Some(iterations),
        tolerance: Some(TOLERANCE),
        ..Default::default()
    };
    entry.build(&settings)?.solve(problem, Some(start), &mut Silent)
}

/// The factors as a point of the profile objective.
fn point(solution: &Solution, start: &Blocks) -> Blocks {
    let mut x = start.zeros_like();
    let count = solution.adapters.len();
    for (t, adapter) in solution.adapters.iter().enumerate() {
        x.block_mut(t).copy_from(adapter.left());
        if start.count() == 2 * count {
            x.block_mut(count + t).copy_from(adapter.right());
        }
    }
    x
}

#[test]
fn names_are_unique_and_every_entry_describes_itself() {
    let names: Vec<_> = registry().iter().map(|entry| entry.name).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "{name} twice");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.chars().all(plain), "{name}");
    }
    for entry in registry() {
        let texts = [entry.summary, entry.memory, entry.guarantees];
        assert!(texts.iter().all(|text| !text.is_empty()), "{}", entry.name);
        for setting in entry.settings {
            // The default that is stated is a value that is taken.
            let table = vec![(setting.name.to_owned(), setting.default.to_owned())];
            let settings = Settings { table, ..Default::default() };
            assert!(entry.build(&settings).is_ok(), "{} {}", entry.name, setting.name);
        }
    }
}

#[test]
fn settings_that_are_unknown_or_unreadable_are_refused_with_what_would_be_right() {
    for entry in registry() {
        let with = |name: &str, value: &str| {
            let table = vec![(name.to_owned(), value.to_owned())];
            entry.build(&Settings { table, ..Default::default() }).err()
        };
        let unknown = with("no_such_setting", "1");
        assert!(matches!(unknown, Some(SolveError::UnknownSetting { .. })), "{}", entry.name);
        for setting in entry.settings {
            for value in ["x", "", "nan", "-1"] {
                let refusal = with(setting.name, value);
                let typed = matches!(
                    refusal,
                    Some(SolveError::SettingText { .. } | SolveError::Setting { .. })
                );
                assert!(typed, "{} {} = {value:?}: {refusal:?}", entry.name, setting.name);
            }
        }
        let tolerance = Some(f64::NAN);
        assert!(entry.build(&Settings { tolerance, ..Default::default() }).is_err());
    }
}

#[test]
fn stationary_means_the_same_scaled_gradient_test_for_every_method() {
    let mut stationary = 0;
    for (tasks, start, kind, rank) in &cells() {
        let problem = Problem { tasks, kind: *kind, rank: *rank };
        let f = ProfileObjective::new(tasks, *kind, *rank).unwrap();
        let mut work = vec![0.0; f.work_len()];
        for entry in registry().iter().filter(|entry| entry.order != Order::Direct) {
            let Ok(solution) = solve(entry, &problem, start, 3000) else { continue };
            let x = point(&solution, start);
            let mut gradient = x.zeros_like();
            let value = f.gradient(&x, &mut gradient, &mut work);
            if solution.stop_reason != StopReason::Stationary {
                continue;
            }
            stationary += 1;
            let scaled = gradient.norm() / problem.gradient_scale();
            assert!(scaled <= TOLERANCE, "{} {kind:?} d = {}", entry.name, tasks.dimension());
            // Loss and base are those of the point.
            assert!((value - solution.loss).abs() <= 1e-12 * value + 1e-25, "{}", entry.name);
            let base = f.base(&x);
            assert!(compare::relative_error(solution.base.as_ref(), base.as_ref()) < 1e-13);
        }
        // The test is one that can fail: the start does not pass it.
        let mut gradient = start.zeros_like();
        f.gradient(start, &mut gradient, &mut work);
        assert!(gradient.norm() > 1e-2 * problem.gradient_scale());
    }
    // 12 cells, at least 4 methods that converge well within the limit in each.
    assert!(stationary >= 48, "{stationary}");
}

#[test]
fn every_iterative_method_decreases_the_loss() {
    for (tasks, start, kind, rank) in &cells() {
        let problem = Problem { tasks, kind: *kind, rank: *rank };
        let f = ProfileObjective::new(tasks, *kind, *rank).unwrap();
        let first = f.value(start, &mut vec![0.0; f.work_len()]);
        for entry in registry().iter().filter(|entry| entry.needs_start) {
            match solve(entry, &problem, start, 400) {
                Ok(solution) => {
                    assert!(
                        solution.loss < first,
                        "{}: {} from {first}",
                        entry.name,
                        solution.loss
                    );
                }
                // Constant steps may diverge, and say so.
                Err(error) => {
                    assert!(matches!(error, SolveError::NotFinite { .. }), "{}", entry.name);
                    assert_eq!(entry.name, "authors");
                }
            }
        }
    }
}

#[test]
fn methods_that_need_a_start_say_so_and_a_wrong_one_is_refused() {
    let (tasks, _) = problem((8, 1, 3), Kind::Symmetric, None, 3);
    let (_, wrong) = problem((7, 1, 3), Kind::Symmetric, None, 3);
    let (_, kind) = problem((8, 1, 3), Kind::Asymmetric, None, 3);
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
    for entry in registry().iter().filter(|entry| entry.needs_start) {
        let method = entry.build(&Settings::default()).unwrap();
        let without = method.solve(&problem, None, &mut Silent).unwrap_err();
        assert!(matches!(without, SolveError::StartMissing { .. }), "{}", entry.name);
        for start in [&wrong, &kind] {
            let refusal = method.solve(&problem, Some(start), &mut Silent).unwrap_err();
            assert!(matches!(refusal, SolveError::Start { .. }), "{}: {refusal}", entry.name);
        }
    }
}

#[test]
fn observers_see_the_start_and_the_last_state() {
    let (tasks, start) = problem((8, 1, 3), Kind::Symmetric, None, 3);
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
    for entry in registry().iter().filter(|entry| entry.needs_start) {
        let settings = Settings { max_iterations: Some(5), ..Default::default() };
        let method = entry.build(&settings).unwrap();
        let mut seen = Vec::new();
        let solution = method
            .solve(&problem, Some(&start), &mut |state: &peftml_solvers::State| {
                seen.push((state.iteration, state.value));
            })
            .unwrap();
        assert_eq!(seen.first().map(|s| s.0), Some(0), "{}", entry.name);
        assert_eq!(seen.last(), Some(&(solution.iterations, solution.loss)), "{}", entry.name);
    }
}
