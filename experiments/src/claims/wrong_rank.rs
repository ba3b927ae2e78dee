//! C11: adapters of the wrong rank, and tasks that are only nearly low-rank.

use super::claim::{Claim, ClaimError, Context, sizes};
use super::faults::Fault;
use super::problems::{Seen, UNIT, beside, draw, gram, minus, random_point, standard_base};
use super::statistics::Mean;
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::Mat;
use peftml_data::synthetic::linear::Family;
use peftml_linalg::{Blocks, compare, decompose, kernel};
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, MaxIterations, Silent};
use peftml_solvers::low_rank::reduced_rank;
use peftml_solvers::second_order::GaussNewton;
use peftml_theory::linear::{Kind, Task, Tasks, standard};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[&Wide, &Narrow, &Approximate];

struct Wide;

impl Claim for Wide {
    fn id(&self) -> &'static str {
        "C11.wide"
    }
    fn statement(&self) -> &'static str {
        "k' > k: A = A* - C C^T with R_t = R*_t + C C^T is zero-loss for every T: A is not identifiable, but rank-k' fine-tuning stays exact"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["C has k' - k columns"]
    }
    fn method(&self) -> &'static str {
        "loss of the base and adapters, the profile's base at these adapters, and rank-k' fine-tuning of the exact test task"
    }
    fn refutation(&self) -> &'static str {
        "a loss above rounding, or a residual after rank-k' fine-tuning"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut loss, mut off, mut residual, mut narrow) =
            (0.0_f64, f64::INFINITY, 0.0_f64, 0.0_f64);
        let sign = context.faults.choose(Fault::WideSign, -1.0, 1.0);
        for (s, extra) in [(sizes(6, 1, 3), 1), (sizes(8, 2, 5), 2), (sizes(7, 1, 2), 3)] {
            for index in 0..context.count(4, 60) {
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let c = p.seed.child("extra").stream().normal_matrix(s.d, extra, 1.0);
                let factors: Vec<Mat<f64>> =
                    (0..s.tasks).map(|t| beside(&[p.truth.left(t), c.as_ref()])).collect();
                let x = Blocks::from_matrices("U", factors.iter().map(|u| u.as_ref()));
                let tasks = p.tasks()?;
                let size = tasks.norm();
                let mut base = p.truth.base.clone();
                kernel::add_scaled(base.as_mut(), sign, gram(c.as_ref()).as_ref());
                for t in 0..s.tasks {
                    let mut fitted = base.clone();
                    kernel::mul_add(fitted.as_mut(), x.block(t), x.block(t).transpose(), 1.0);
                    loss = loss.max(
                        compare::distance(fitted.as_ref(), tasks.task(t).least_squares()) / size,
                    );
                }
                let seen = Seen::new(context, &tasks, Kind::Symmetric, s.k + extra)?;
                loss = loss.max(compare::distance(seen.base(&x).as_ref(), base.as_ref()) / size);
                off = off.min(compare::distance(base.as_ref(), p.truth.base.as_ref()) / size);
                let test = Task::exact(p.truth.task(s.tasks));
                let left_over = |r: usize| -> Result<f64, ClaimError> {
                    let mut weights = base.clone();
                    reduced_rank::fine_tune(base.as_ref(), &test, r)?.add_to(weights.as_mut(), 1.0);
                    Ok(compare::distance(weights.as_ref(), test.least_squares()) / size)
                };
                residual = residual.max(left_over(s.k + extra)?);
                narrow = narrow.max(left_over(s.k + extra - 1)?);
            }
        }
        let (tolerance, from) = (64.0 * 8.0 * UNIT, "64 d u");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most(
                    "||A + R_t - A*_t|| relative, and A off the profile's base",
                    loss,
                    0.0,
                )
                .within(tolerance, from),
            )
            .check(
                Check::at_most("what rank-k' fine-tuning leaves, relative", residual, 0.0)
                    .within(tolerance, from),
            )
            .check(Check::at_least("||A - A*|| relative", off, 1e-3))
            .control(
                Check::at_most("what rank-(k'-1) fine-tuning leaves, relative", narrow, 0.0)
                    .within(tolerance, from),
            )
            .instance(json!({"seed": context.root})))
    }
}

struct Narrow;

impl Claim for Narrow {
    fn id(&self) -> &'static str {
        "C11.narrow"
    }
    fn statement(&self) -> &'static str {
        "k' < k: LoRA-ML's base is biased, but its test risk after rank-k fine-tuning is far below SR's (made precise: the mean ratio is at most 1/2)"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["d=10, k=2, k'=1, T=5, U* with N(0,1) entries, exact tasks"]
    }
    fn method(&self) -> &'static str {
        "best of L-BFGS (300 steps) from the true leading factors and two random starts; ratio of tails at r = k, mean studentised"
    }
    fn refutation(&self) -> &'static str {
        "a mean ratio above 1/2, or no bias"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let s = sizes(10, 2, 5);
        let (mut ratios, mut bias, mut right) = (Vec::new(), f64::INFINITY, 0.0_f64);
        for index in 0..context.count(30, 1000) {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            let tasks = p.tasks()?;
            let test = p.truth.task(s.tasks);
            let tail = |base: &Mat<f64>| -> Result<f64, ClaimError> {
                let difference = minus(test.as_ref(), base.as_ref());
                Ok(standard::tails(&decompose::singular_values(difference.as_ref())?)[s.k])
            };
            let seen = Seen::new(context, &tasks, Kind::Symmetric, 1)?;
            let mut best = (f64::INFINITY, Mat::zeros(s.d, s.d));
            for start in 0..3_usize {
                let mut x = random_point(
                    peftml_theory::Objective::layout(&seen),
                    1.0,
                    &p.seed.child("start").child(start),
                );
                if start == 0 {
                    for t in 0..s.tasks {
                        let svd = decompose::thin_svd(p.truth.left(t))?;
                        let lead = Mat::from_fn(s.d, 1, |i, _| svd.left[(i, 0)] * svd.values[0]);
                        x.block_mut(t).copy_from(&lead);
                    }
                }
                let end = iterate::run(
                    &Lbfgs { memory: 10 },
                    &seen,
                    x,
                    &MaxIterations(300),
                    &mut Silent,
                )?;
                if end.value < best.0 {
                    best = (end.value, seen.base(&end.x));
                }
            }
            let plain = tail(&standard_base(context, &tasks)?)?;
            ratios.push(tail(&best.1)? / plain);
            right = right.max(tail(&p.truth.base)? / plain);
            bias = bias.min(compare::relative_error(best.1.as_ref(), p.truth.base.as_ref()));
        }
        let mean = Mean::of(&ratios);
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(
                Check::at_most("mean of LoRA-ML's tail_k over SR's", mean.mean, 0.5)
                    .within(mean.radius(), mean.source()),
            )
            .check(Check::at_least("smallest ||A - A*|| / ||A*||", bias, 1e-3))
            .control(Check::at_least("tail_k of A* over SR's (no bias)", right, 1e-3))
            .instance(json!({"seed": context.root, "problems": ratios.len()})))
    }
}

struct Approximate;

impl Claim for Approximate {
    fn id(&self) -> &'static str {
        "C11.approximate"
    }
    fn statement(&self) -> &'static str {
        "approximately low-rank tasks with tail tau: ||A - A*|| is linear in tau, no blow-up"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[
            "T >= 3, identified tasks, tau small against the offsets' eigenvalues",
            "the minimum near the truth",
        ]
    }
    fn method(&self) -> &'static str {
        "tasks A* + R*_t + tau E_t, ||E_t|| = 1 symmetric, Gauss-Newton from the true adapters: slope over tau = 1e-3 .. 1e-5, and ||A - A*|| / tau against 1/rho"
    }
    fn refutation(&self) -> &'static str {
        "another slope, or a ratio above 1/rho"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut slope, mut blow_up) = (0.0_f64, 0.0_f64);
        let mut worst = json!(null);
        for s in [sizes(6, 1, 3), sizes(8, 2, 4)] {
            for index in 0..context.count(5, 60) {
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let error = |tau: f64| -> Result<f64, ClaimError> {
                    let tasks = Tasks::exact((0..s.tasks).map(|t| {
                        let mut e =
                            p.seed.child("tail").child(t).stream().normal_matrix(s.d, s.d, 1.0);
                        kernel::symmetrise(e.as_mut());
                        let mut a = p.truth.task(t);
                        kernel::add_scaled(a.as_mut(), tau / kernel::norm(e.as_ref()), e.as_ref());
                        a
                    }))?;
                    let seen = Seen::new(context, &tasks, Kind::Symmetric, s.k)?;
                    let end = iterate::run(
                        &GaussNewton::default(),
                        &seen,
                        p.solution(),
                        &MaxIterations(60),
                        &mut Silent,
                    )?;
                    Ok(compare::distance(seen.base(&end.x).as_ref(), p.truth.base.as_ref()))
                };
                let (large, small) = (error(1e-3)?, error(1e-5)?);
                let found = ((large / small).log10() / 2.0 - 1.0).abs();
                if found > slope {
                    (slope, worst) = (found, p.instance(context, index));
                }
                let bases: Vec<_> =
                    (0..s.tasks).map(|t| decompose::orthonormal_basis(p.truth.left(t))).collect();
                let rho = peftml_theory::linear::Identification::new(Kind::Symmetric, &bases, &[])?
                    .rho()?;
                // H(D) = (1/T) sum N_t E_t N_t to first order: ||D|| <= tau / rho.
                blow_up = blow_up.max(small / 1e-5 * rho);
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("|slope of ||A - A*|| in tau - 1|", slope, 0.0)
                    .within(0.05, "next order in tau = 1e-3 over the offsets' eigenvalues and rho"),
            )
            .check(
                Check::at_most("||A - A*|| rho / tau", blow_up, 1.0)
                    .within(0.01, "next order in tau = 1e-5"),
            )
            .control(
                Check::at_least("|slope - 1| of a quadratic law", slope, 1.0)
                    .within(0.05, "as above"),
            )
            .instance(worst))
    }
}
