//! Accuracy of the global solver on exact tasks over the grid of dimensions, ranks and tasks.
//!
//! `cargo run --release -p peftml-benches --bin global_accuracy -- [DRAWS [SEED [DIMENSION..]]]`: for every cell and
//! kind the median and largest relative error of A, the largest ratio of error to the bound
//! `20 (u + (u s / gap)^2) / rho`, refusals, and answers that break the bound. Cells outside the
//! solver's conditions must refuse every draw. Exit status 1 where anything breaks.

use faer::Mat;
use peftml_linalg::{LowRank, Seed, compare, decompose, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::global::{Global, within_conditions};
use peftml_solvers::low_rank::intersection;
use peftml_solvers::{BaseSolver, Problem, SolveError};
use peftml_theory::linear::{GroundTruth, Kind, Tasks};
use std::time::Instant;

fn draw(kind: Kind, d: usize, k: usize, count: usize, seed: &Seed) -> GroundTruth {
    let mut stream = seed.stream();
    let mut base = stream.normal_matrix(d, d, 1.0);
    if kind == Kind::Symmetric {
        kernel::symmetrise(base.as_mut());
    }
    let offsets = (0..count).map(|_| {
        let u = stream.normal_matrix(d, k, 1.0);
        match kind {
            Kind::Symmetric => LowRank::symmetric(u),
            Kind::Asymmetric => LowRank::new(u, stream.normal_matrix(d, k, 1.0)).unwrap(),
        }
    });
    GroundTruth { offsets: offsets.collect(), base, kind }
}

/// `20 (u + (u s / gap)^2) / rho` with s = max ||A_t||_F / min sigma_2k(M_st).
fn bound(truths: &[Mat<f64>], kind: Kind, k: usize, gap: f64, rho: f64) -> f64 {
    let views: Vec<_> = truths.iter().map(|a| a.as_ref()).collect();
    let found = intersection::intersect(&views, kind, k, views.len()).unwrap();
    let most = truths.iter().map(|a| kernel::norm(a.as_ref())).fold(0.0, f64::max);
    let u = f64::EPSILON / 2.0;
    let s = most / found.smallest_difference;
    20.0 * (u + (u * s / gap).powi(2)) / rho
}

fn true_rho(truth: &GroundTruth) -> f64 {
    let basis = |m| decompose::orthonormal_basis(m);
    let left: Vec<_> = truth.offsets.iter().map(|o| basis(o.left())).collect();
    let right: Vec<_> = truth.offsets.iter().map(|o| basis(o.right())).collect();
    peftml_theory::linear::Identification::new(truth.kind, &left, &right).unwrap().rho().unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let draws = arguments.next().unwrap_or(100) as usize;
    let root = Seed::root(arguments.next().unwrap_or(0)).child("global-accuracy");
    let only: Vec<usize> = arguments.map(|a| a as usize).collect();
    let dimensions = if only.is_empty() { vec![5, 8, 9, 10, 12, 20] } else { only };
    let (mut broken, mut outside) = (0, 0);
    for kind in [Kind::Symmetric, Kind::Asymmetric] {
        for d in dimensions.iter().copied() {
            for k in [1, 2, 3, 4] {
                for count in [3, 4, 5, 10] {
                    let cell = root.child(kind.name()).child(d).child(k).child(count);
                    let (mut errors, mut ratios, mut refused, mut bad) = (vec![], vec![], 0, 0);
                    let mut seconds = 0.0;
                    for i in 0..draws {
                        let truth = draw(kind, d, k, count, &cell.child(i));
                        let truths: Vec<_> = (0..count).map(|t| truth.task(t)).collect();
                        let tasks = Tasks::exact(truths.iter().cloned()).unwrap();
                        let problem = Problem { tasks: &tasks, kind, rank: k };
                        let start = Instant::now();
                        let answer = Global::default().solve(&problem, None, &mut Silent);
                        seconds += start.elapsed().as_secs_f64();
                        if !within_conditions(d, k, count) {
                            let right = matches!(answer, Err(SolveError::OutsideConditions { .. }));
                            bad += usize::from(!right);
                            continue;
                        }
                        match answer {
                            Ok(solution) => {
                                let error = compare::relative_error(
                                    solution.base.as_ref(),
                                    truth.base.as_ref(),
                                );
                                let limit = bound(
                                    &truths,
                                    kind,
                                    k,
                                    solution.gap.unwrap(),
                                    true_rho(&truth),
                                );
                                errors.push(error);
                                ratios.push(error / limit);
                                bad += usize::from(error > limit || error.is_nan());
                            }
                            Err(error) => {
                                refused += 1;
                                let found = intersection::intersect(
                                    &truths.iter().map(|a| a.as_ref()).collect::<Vec<_>>(),
                                    kind,
                                    k,
                                    count,
                                )
                                .unwrap();
                                let limit = bound(&truths, kind, k, found.gap, true_rho(&truth));
                                if limit <= 1e-6 {
                                    bad += 1;
                                    eprintln!("refused at bound {limit:e}: {error}");
                                }
                            }
                        }
                    }
                    if !within_conditions(d, k, count) {
                        outside += 1;
                        broken += bad;
                        continue;
                    }
                    errors.sort_by(f64::total_cmp);
                    ratios.sort_by(f64::total_cmp);
                    let median = errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN);
                    let flag =
                        if bad > 0 || median.is_nan() || median > 3e-14 { "  BROKEN" } else { "" };
                    broken += bad + usize::from(median.is_nan() || median > 3e-14);
                    println!(
                        "{:<10} d={d:<2} k={k} T={count:<2} median {median:.1e} largest {:.1e} error/bound {:.1e} refused {refused} broken {bad} {:.0} us{flag}",
                        kind.name(),
                        errors.last().copied().unwrap_or(f64::NAN),
                        ratios.last().copied().unwrap_or(f64::NAN),
                        seconds / draws as f64 * 1e6,
                    );
                }
            }
        }
    }
    println!("{outside} cells outside the conditions, {broken} broken answers");
    if broken > 0 {
        std::process::exit(1);
    }
}
