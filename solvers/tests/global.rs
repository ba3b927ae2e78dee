//! The global solver and the two-task closed form on problems with a known answer.

use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, LowRank, Seed, Stream, compare, decompose, kernel};
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::global::{Global, within_conditions};
use peftml_solvers::low_rank::parts::to_blocks;
use peftml_solvers::low_rank::{TwoTask, intersection};
use peftml_solvers::{BaseSolver, Problem, Solution, SolveError, StopReason};
use peftml_theory::Objective;
use peftml_theory::linear::{GroundTruth, Identification, Kind, ProfileObjective, Task, Tasks};

const KINDS: [Kind; 2] = [Kind::Symmetric, Kind::Asymmetric];

fn draw(kind: Kind, d: usize, k: usize, count: usize, seed: &Seed) -> GroundTruth {
    let mut stream = seed.stream();
    let mut base = stream.normal_matrix(d, d, 1.0);
    if kind == Kind::Symmetric {
        kernel::symmetrise(base.as_mut());
    }
    let offset = |stream: &mut Stream| {
        let u = stream.normal_matrix(d, k, 1.0);
        match kind {
            Kind::Symmetric => LowRank::symmetric(u),
            Kind::Asymmetric => LowRank::new(u, stream.normal_matrix(d, k, 1.0)).unwrap(),
        }
    };
    GroundTruth { offsets: (0..count).map(|_| offset(&mut stream)).collect(), base, kind }
}

fn exact(truth: &GroundTruth) -> Tasks {
    Tasks::exact((0..truth.count()).map(|t| truth.task(t))).unwrap()
}

fn sampled(truth: &GroundTruth, samples: usize, noise_std: f64, seed: &Seed) -> Tasks {
    let mut stream = seed.child("samples").stream();
    let d = truth.dimension();
    let task = |t: usize, stream: &mut Stream| {
        let x = stream.normal_matrix(d, samples, 1.0);
        let mut y = stream.normal_matrix(d, samples, noise_std);
        kernel::mul_add(y.as_mut(), truth.task(t).as_ref(), x.as_ref(), 1.0);
        Task::from_samples(t, x.as_ref(), y.as_ref()).unwrap()
    };
    let tasks = (0..truth.count()).map(|t| task(t, &mut stream)).collect();
    Tasks::new(tasks, f64::EPSILON / 2.0).unwrap()
}

fn solve(tasks: &Tasks, kind: Kind, rank: usize) -> Result<Solution, SolveError> {
    Global::default().solve(&Problem { tasks, kind, rank }, None, &mut Silent)
}

/// `20 (u + (u s / gap)^2) / rho`, s = max ||A_t||_F / min sigma_2k(M_st).
fn bound(truth: &GroundTruth, tasks: &Tasks, rank: usize, roundoff: f64) -> f64 {
    let basis = |m: MatRef<'_, f64>| decompose::orthonormal_basis(m);
    let left: Vec<_> = truth.offsets.iter().map(|o| basis(o.left())).collect();
    let right: Vec<_> = truth.offsets.iter().map(|o| basis(o.right())).collect();
    let rho = Identification::new(truth.kind, &left, &right).unwrap().rho().unwrap();
    let views: Vec<_> = tasks.iter().map(|t| t.least_squares()).collect();
    let found = intersection::intersect(&views, truth.kind, rank, views.len()).unwrap();
    let most = views.iter().map(|a| kernel::norm(*a)).fold(0.0, f64::max);
    let s = most / found.smallest_difference;
    20.0 * (roundoff + (roundoff * s / found.gap).powi(2)) / rho
}

#[test]
fn exact_tasks_give_the_base_to_rounding_and_sizes_outside_the_theory_are_refused() {
    let (mut cells, mut outside) = (0, 0);
    for kind in KINDS {
        for d in [5, 8, 9, 10, 12] {
            for k in [1, 2, 3, 4] {
                for count in [2, 3, 4, 5, 10] {
                    let seed = Seed::root(11).child(kind.name()).child(d).child(k).child(count);
                    for draw_index in 0..3u64 {
                        let truth = draw(kind, d, k, count, &seed.child(draw_index));
                        let tasks = exact(&truth);
                        let answer = solve(&tasks, kind, k);
                        if !within_conditions(d, k, count) {
                            outside += 1;
                            let expected = SolveError::OutsideConditions {
                                dimension: d,
                                rank: k,
                                tasks: count,
                            };
                            assert_eq!(answer.err(), Some(expected));
                            continue;
                        }
                        cells += 1;
                        let limit = bound(&truth, &tasks, k, f64::EPSILON / 2.0);
                        match answer {
                            Ok(found) => {
                                let error = compare::relative_error(
                                    found.base.as_ref(),
                                    truth.base.as_ref(),
                                );
                                assert!(error <= limit, "{kind:?} {d} {k} {count}: {error:e}");
                                assert_eq!(found.stop_reason, StopReason::Direct);
                            }
                            Err(error) => assert!(limit > 1e-6, "{error}"),
                        }
                    }
                }
            }
        }
    }
    assert!(cells > 300 && outside > 150, "{cells} cells inside, {outside} outside");
}

#[test]
fn a_rank_that_the_tasks_do_not_have_is_refused() {
    for kind in KINDS {
        let truth = draw(kind, 12, 2, 5, &Seed::root(1).child(kind.name()));
        let tasks = exact(&truth);
        assert!(solve(&tasks, kind, 2).is_ok(), "control: the true rank");
        assert!(matches!(solve(&tasks, kind, 1), Err(SolveError::RankMismatch { rank: 1, .. })));
        assert!(matches!(solve(&tasks, kind, 3), Err(SolveError::RankTooLarge { rank: 3 })));
    }
}

#[test]
fn tasks_that_do_not_identify_the_base_are_refused() {
    // Two different tasks, one of them twice: T = 3 in name only, rho = 0.
    for kind in KINDS {
        let truth = draw(kind, 9, 1, 2, &Seed::root(2).child(kind.name()));
        let matrices = [truth.task(0), truth.task(1), truth.task(0)];
        let answer = solve(&Tasks::exact(matrices).unwrap(), kind, 1);
        assert!(
            matches!(
                answer,
                Err(SolveError::NotIdentifiable { .. } | SolveError::RankMismatch { .. })
            ),
            "{answer:?}"
        );
    }
}

#[test]
fn a_repeated_task_among_enough_others_does_no_harm() {
    for kind in KINDS {
        let truth = draw(kind, 10, 1, 4, &Seed::root(3).child(kind.name()));
        let tasks = (0..4).chain([1]).map(|t| truth.task(t));
        match solve(&Tasks::exact(tasks).unwrap(), kind, 1) {
            Ok(found) => {
                let error = compare::relative_error(found.base.as_ref(), truth.base.as_ref());
                assert!(error < 1e-12, "{error:e}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn tasks_stored_in_single_precision_give_five_digits() {
    let roundoff = 2f64.powi(-24);
    for kind in KINDS {
        for (d, k, count) in [(8, 1, 3), (10, 2, 4), (12, 2, 10), (20, 4, 5)] {
            let truth = draw(kind, d, k, count, &Seed::root(4).child(kind.name()).child(d));
            let single = |t: usize| {
                let a = truth.task(t);
                Task::exact(Mat::from_fn(d, d, |i, j| f64::from(a[(i, j)] as f32)))
            };
            let tasks = Tasks::new((0..count).map(single).collect(), roundoff).unwrap();
            let found = solve(&tasks, kind, k).unwrap();
            let error = compare::relative_error(found.base.as_ref(), truth.base.as_ref());
            assert!(error <= 1e-5, "{kind:?} {d} {k} {count}: {error:e}");
            // Control: the same matrices claimed to be double are not of rank k.
            let claimed = Tasks::new((0..count).map(single).collect(), f64::EPSILON / 2.0).unwrap();
            assert!(matches!(solve(&claimed, kind, k), Err(SolveError::RankMismatch { .. })));
        }
    }
}

#[test]
fn input_that_is_not_symmetric_keeps_its_mean_antisymmetric_part() {
    let truth = draw(Kind::Symmetric, 9, 2, 4, &Seed::root(5));
    let mut stream = Seed::root(5).child("skew").stream();
    let mut mean = Mat::<f64>::zeros(9, 9);
    let matrices: Vec<_> = (0..4)
        .map(|t| {
            let g = stream.normal_matrix(9, 9, 0.5);
            let skew = Mat::from_fn(9, 9, |i, j| g[(i, j)] - g[(j, i)]);
            kernel::add_scaled(mean.as_mut(), 0.25, skew.as_ref());
            let mut a = truth.task(t);
            kernel::add_scaled(a.as_mut(), 1.0, skew.as_ref());
            a
        })
        .collect();
    // The antisymmetric parts differ between tasks: no symmetric adapter explains them, which exact
    // tasks may not have; as least squares they are noise that the symmetric part does not feel.
    let tasks = Tasks::exact(matrices.iter().cloned()).unwrap();
    assert!(matches!(solve(&tasks, Kind::Symmetric, 2), Err(SolveError::RankMismatch { .. })));
    let same: Vec<_> = (0..4)
        .map(|t| {
            let mut a = truth.task(t);
            kernel::add_scaled(a.as_mut(), 1.0, mean.as_ref());
            a
        })
        .collect();
    let found = solve(&Tasks::exact(same).unwrap(), Kind::Symmetric, 2).unwrap();
    let mut expected = truth.base.clone();
    kernel::add_scaled(expected.as_mut(), 1.0, mean.as_ref());
    assert!(compare::relative_error(found.base.as_ref(), expected.as_ref()) < 1e-13);
    assert!(found.input_asymmetry > 1e-2);
}

#[test]
fn sampled_tasks_end_at_the_gradients_rounding_below_the_truths_loss() {
    for kind in KINDS {
        for (d, k, count, n) in [(10, 1, 3, 5000), (10, 1, 3, 100), (8, 2, 4, 500), (12, 3, 5, 800)]
        {
            let seed = Seed::root(6).child(kind.name()).child(d).child(n);
            let truth = draw(kind, d, k, count, &seed);
            let tasks = sampled(&truth, n, 0.1, &seed);
            let found = solve(&tasks, kind, k).unwrap();
            assert_eq!(found.stop_reason, StopReason::Stationary);
            let f = ProfileObjective::new(&tasks, kind, k).unwrap();
            let mut work = vec![0.0; f.work_len()];
            let x = to_blocks(kind, &found.adapters, f.layout());
            let mut gradient = x.zeros_like();
            let value = f.gradient(&x, &mut gradient, &mut work);
            assert_eq!(value, found.loss);
            // Rounding: u times the sizes of Ahat, S and U that are cancelled, d terms a sum.
            let size = tasks.norm() * x.norm() / count as f64;
            let allowed = 2.0 * d as f64 * f64::EPSILON * size;
            assert!(gradient.norm() <= allowed, "{:e} > {allowed:e}", gradient.norm());
            let at_truth = f.value(&to_blocks(kind, &truth.offsets, f.layout()), &mut work);
            assert!(found.loss < at_truth);
            // Control: without the polish the gradient is far from rounding.
            let plain = Global { polish: false, ..Default::default() };
            let start = plain.solve(&Problem { tasks: &tasks, kind, rank: k }, None, &mut Silent);
            let x = to_blocks(kind, &start.unwrap().adapters, f.layout());
            f.gradient(&x, &mut gradient, &mut work);
            assert!(gradient.norm() > 1e3 * allowed);
        }
    }
}

#[test]
fn predicted_errors_are_the_mean_squared_errors() {
    for (kind, n) in [(Kind::Symmetric, 500), (Kind::Symmetric, 5000), (Kind::Asymmetric, 500)] {
        let draws = 120;
        let mut ratios = Vec::new();
        for i in 0..draws as u64 {
            let seed = Seed::root(7).child(kind.name()).child(n).child(i);
            let truth = draw(kind, 8, 1, 4, &seed);
            let tasks = sampled(&truth, n, 0.1, &seed);
            let found = solve(&tasks, kind, 1).unwrap();
            let error = compare::distance(found.base.as_ref(), truth.base.as_ref());
            ratios.push((error / found.predicted_error.unwrap()).powi(2));
        }
        let mean = ratios.iter().sum::<f64>() / draws as f64;
        let variance = ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (draws - 1) as f64;
        let standard_error = (variance / draws as f64).sqrt();
        // First order in 1/N: the next term is of relative size 1/N times a few of d/gap.
        let allowed = 4.0 * standard_error + 20.0 / n as f64;
        assert!((mean - 1.0).abs() < allowed, "{kind:?} N={n}: {mean} +- {standard_error}");
    }
}

#[test]
fn too_few_or_too_noisy_samples_are_refused() {
    let truth = draw(Kind::Symmetric, 8, 1, 3, &Seed::root(8));
    let few = sampled(&truth, 6, 0.1, &Seed::root(8));
    assert!(matches!(
        solve(&few, Kind::Symmetric, 1),
        Err(SolveError::InputsSingular { task: 0, .. })
    ));
    let noisy = sampled(&truth, 40, 20.0, &Seed::root(8));
    assert!(matches!(solve(&noisy, Kind::Symmetric, 1), Err(SolveError::NotIdentifiable { .. })));
    // Control: samples without noise pass.
    let clean = sampled(&truth, 40, 0.0, &Seed::root(8));
    let found = solve(&clean, Kind::Symmetric, 1).unwrap();
    assert!(compare::relative_error(found.base.as_ref(), truth.base.as_ref()) < 1e-12);
}

#[test]
fn two_tasks_reach_the_closed_forms_value_and_not_the_truth() {
    for kind in KINDS {
        for (d, k) in [(6, 1), (9, 2), (5, 3)] {
            let truth = draw(kind, d, k, 2, &Seed::root(9).child(kind.name()).child(d));
            let tasks = exact(&truth);
            let problem = Problem { tasks: &tasks, kind, rank: k };
            let found = TwoTask::default().solve(&problem, None, &mut Silent).unwrap();
            // Exact offsets differ by rank 2k: the value is 0.
            assert!(found.loss < 1e-26 * tasks.norm().powi(2), "{:e}", found.loss);
            let mut error = found.base.clone();
            kernel::add_scaled(error.as_mut(), -1.0, truth.base.as_ref());
            assert!(kernel::norm(error.as_ref()) > 1e-3, "two tasks do not identify the base");
            let values = decompose::singular_values(error.as_ref()).unwrap();
            assert!(values.iter().skip(2 * k).all(|s| *s < 1e-12), "rank at most 2k (C3)");
            if kind == Kind::Symmetric {
                let mut overlap = Mat::zeros(k, k);
                let (u, v) = (found.adapters[0].left(), found.adapters[1].left());
                kernel::mul(overlap.as_mut(), u.transpose(), v, 1.0);
                assert!(kernel::norm(overlap.as_ref()) < 1e-12, "balanced: U_1^T U_2 = 0 (C6)");
            }
        }
    }
}

#[test]
fn two_sampled_tasks_end_stationary_and_balanced() {
    for kind in KINDS {
        let seed = Seed::root(10).child(kind.name());
        let truth = draw(kind, 8, 2, 2, &seed);
        let tasks = sampled(&truth, 300, 0.3, &seed);
        let problem = Problem { tasks: &tasks, kind, rank: 2 };
        let found = TwoTask::default().solve(&problem, None, &mut Silent).unwrap();
        let f = ProfileObjective::new(&tasks, kind, 2).unwrap();
        let mut work = vec![0.0; f.work_len()];
        let x = to_blocks(kind, &found.adapters, f.layout());
        let mut gradient = x.zeros_like();
        f.gradient(&x, &mut gradient, &mut work);
        let allowed = 2.0 * 8.0 * f64::EPSILON * tasks.norm() * x.norm();
        assert!(gradient.norm() <= allowed, "{kind:?}: {:e} > {allowed:e}", gradient.norm());
        let at_truth = f.value(&to_blocks(kind, &truth.offsets, f.layout()), &mut work);
        assert!(found.loss < at_truth);
        // Control: the unweighted solution of the same tasks is worse.
        let unweighted: Vec<_> = tasks.iter().map(|t| t.least_squares().to_owned()).collect();
        let plain = Tasks::exact(unweighted).unwrap();
        let problem = Problem { tasks: &plain, kind, rank: 2 };
        let other = TwoTask::default().solve(&problem, None, &mut Silent).unwrap();
        let worse = f.value(&to_blocks(kind, &other.adapters, f.layout()), &mut work);
        assert!(found.loss < worse * (1.0 - 1e-6));
    }
    let truth = draw(Kind::Symmetric, 6, 1, 3, &Seed::root(10));
    let tasks = exact(&truth);
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
    assert!(matches!(
        TwoTask::default().solve(&problem, None, &mut Silent),
        Err(SolveError::TaskCount { found: 3, .. })
    ));
}

#[test]
fn no_start_of_the_authors_scheme_ends_below_the_global_solver() {
    for (kind, d, k, n) in [(Kind::Symmetric, 6, 1, 60), (Kind::Asymmetric, 5, 1, 100)] {
        let seed = Seed::root(12).child(kind.name());
        let truth = draw(kind, d, k, 3, &seed);
        let tasks = sampled(&truth, n, 0.3, &seed);
        let problem = Problem { tasks: &tasks, kind, rank: k };
        let found = Global::default().solve(&problem, None, &mut Silent).unwrap();
        let f = ProfileObjective::new(&tasks, kind, k).unwrap();
        let mut reached = Vec::new();
        for i in 0..20u64 {
            let mut start = Blocks::zeros(f.layout().clone());
            seed.child("start").child(i).stream().fill_normal(0.1, start.as_mut_slice());
            // Ten times the reference's rounds.
            let scheme = AuthorsScheme { rounds: 30_000, ..Default::default() };
            let ended = scheme.solve(&problem, Some(&start), &mut Silent).unwrap();
            let x = to_blocks(kind, &ended.adapters, f.layout());
            reached.push(f.value(&x, &mut vec![0.0; f.work_len()]));
        }
        let best = reached.iter().copied().fold(f64::INFINITY, f64::min);
        // Rounding of the value: u times the tasks' size against the residual's.
        let slack = 8.0 * f64::EPSILON * tasks.norm() * found.loss.sqrt();
        assert!(found.loss <= best + slack, "{kind:?}: {:e} above {best:e}", found.loss);
        // Control: the scheme does come near, so the comparison says something.
        assert!(
            best < found.loss * 1.01,
            "{kind:?}: best of 20 starts {best:e}, global {:e}",
            found.loss
        );
    }
}
