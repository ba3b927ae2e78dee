//! C6: the landscape of two tasks.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::faults::Fault;
use super::problems::{
    Seen, UNIT, draw, gram, minus, orthogonal, random_point, spec, times, whole_matrix,
};
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::{Mat, MatMut, MatRef};
use num_rational::BigRational;
use peftml_data::synthetic::linear::{Family, exact_tasks};
use peftml_linalg::{BlockSpec, Blocks, DecompositionError, Layout, Seed, decompose, kernel};
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, MaxIterations, Silent};
use peftml_solvers::low_rank::TwoTask;
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::exact::zero_loss::boost;
use peftml_theory::exact::{RationalMatrix, rank};
use peftml_theory::linear::{Kind, Tasks};
use peftml_theory::optimality::{self, Known, Point, PointVerdict};
use peftml_theory::{Gauge, Objective, derivative_check};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[
    &Landscape,
    &Value,
    &SolutionSet,
    &Conservation,
    &Bounded,
    &Samples,
    &SampledMinimum,
    &AsymmetricSplit,
    &Infinity,
];

/// `f(U_1, U_2) = 1/4 ||M - U_1 U_1^T + U_2 U_2^T||_F^2` with any symmetric M and widths k1, k2.
///
/// Gradient `-G U_1`, `G U_2`, `G = M - U_1 U_1^T + U_2 U_2^T`; Hessian product `-dG U_1 - G Z_1`,
/// `dG U_2 + G Z_2`.
pub struct TwoWidths {
    m: Mat<f64>,
    layout: Layout,
    /// -1 where a test plants the second gradient's wrong sign.
    sign: f64,
}

impl TwoWidths {
    fn new(context: &Context, m: Mat<f64>, widths: [usize; 2]) -> Self {
        let rows = m.nrows();
        let layout = Layout::new(widths.iter().enumerate().map(|(i, k)| BlockSpec {
            name: format!("U{i}"),
            rows,
            cols: *k,
        }));
        Self { m, layout, sign: context.faults.choose(Fault::FlowSign, 1.0, -1.0) }
    }

    fn square<'w>(&self, work: &'w mut [f64]) -> MatMut<'w, f64> {
        let d = self.m.nrows();
        MatMut::from_column_major_slice_mut(&mut work[..d * d], d, d)
    }

    /// `G` into the scratch.
    fn mismatch(&self, x: &Blocks, work: &mut [f64]) {
        let mut g = self.square(work);
        g.copy_from(&self.m);
        kernel::mul_add(g.as_mut(), x.block(0), x.block(0).transpose(), -1.0);
        kernel::mul_add(g, x.block(1), x.block(1).transpose(), 1.0);
    }

    fn second(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64], full: bool) {
        out.fill(0.0);
        if full {
            self.mismatch(x, work);
            let g = self.square(work);
            kernel::mul(out.block_mut(0), g.as_ref(), v.block(0), -1.0);
            kernel::mul(out.block_mut(1), g.as_ref(), v.block(1), 1.0);
        }
        let mut dg = self.square(work);
        dg.fill(0.0);
        for (t, sign) in [(0, -1.0), (1, 1.0)] {
            kernel::mul_add(dg.as_mut(), v.block(t), x.block(t).transpose(), sign);
            kernel::mul_add(dg.as_mut(), x.block(t), v.block(t).transpose(), sign);
        }
        kernel::mul_add(out.block_mut(0), dg.as_ref(), x.block(0), -1.0);
        kernel::mul_add(out.block_mut(1), dg.as_ref(), x.block(1), 1.0);
        kernel::scale(out.block_mut(1), self.sign);
    }
}

impl Objective for TwoWidths {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn work_len(&self) -> usize {
        self.m.nrows() * self.m.nrows()
    }
    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.mismatch(x, work);
        0.25 * kernel::norm_squared(self.square(work).as_ref())
    }
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        self.mismatch(x, work);
        let g = self.square(work);
        kernel::mul(out.block_mut(0), g.as_ref(), x.block(0), -1.0);
        kernel::mul(out.block_mut(1), g.as_ref(), x.block(1), self.sign);
        0.25 * kernel::norm_squared(g.as_ref())
    }
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.second(x, v, out, work, true);
    }
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.second(x, v, out, work, false);
    }
    fn gauge(&self) -> Gauge {
        Gauge::Orthogonal
    }
}

/// Smallest eigenvalue of an objective's Hessian.
fn smallest_curvature(f: &dyn Objective, x: &Blocks) -> Result<f64, DecompositionError> {
    let n = x.as_slice().len();
    let (mut unit, mut column) = (x.zeros_like(), x.zeros_like());
    let mut work = vec![0.0; f.work_len()];
    let mut hessian = Mat::zeros(n, n);
    for j in 0..n {
        unit.as_mut_slice()[j] = 1.0;
        f.hessian_product(x, &unit, &mut column, &mut work);
        unit.as_mut_slice()[j] = 0.0;
        for i in 0..n {
            hessian[(i, j)] = column.as_slice()[i];
        }
    }
    kernel::symmetrise(hessian.as_mut());
    Ok(decompose::symmetric_eigenvalues(hessian.as_ref())?[0])
}

/// `1/4 (sum_{i>k1} l_i^+(M)^2 + sum_{i>k2} l_i^-(M)^2)`.
fn least_value(context: &Context, eigenvalues: &[f64], widths: [usize; 2]) -> f64 {
    let beyond = |values: Vec<f64>, k: usize| -> f64 {
        let mut values = values;
        values.sort_by(|a, b| b.total_cmp(a));
        values.iter().skip(k).map(|l| l * l).sum()
    };
    let positive = eigenvalues.iter().filter(|l| **l > 0.0).copied().collect();
    let negative = eigenvalues.iter().filter(|l| **l < 0.0).map(|l| -l).collect();
    let constant = context.faults.choose(Fault::TwoTaskConstant, 0.25, 0.5);
    constant * (beyond(positive, widths[0]) + beyond(negative, widths[1]))
}

/// A symmetric matrix with its eigenvalues (ascending) and eigenvectors.
type Spectral = (Mat<f64>, Vec<f64>, Mat<f64>);

fn random_symmetric(d: usize, seed: &Seed) -> Result<Spectral, DecompositionError> {
    let mut m = seed.stream().normal_matrix(d, d, 1.0);
    kernel::symmetrise(m.as_mut());
    let (values, vectors) = decompose::symmetric_eigen(m.as_ref())?;
    Ok((m, values, vectors))
}

struct Landscape;

impl Claim for Landscape {
    fn id(&self) -> &'static str {
        "C6.landscape"
    }
    fn statement(&self) -> &'static str {
        "f = 1/4 ||M - U_1 U_1^T + U_2 U_2^T||^2: every second-order stationary point is a global minimum, for any symmetric M and widths k1, k2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["M symmetric"]
    }
    fn method(&self) -> &'static str {
        "all stationary points built of eigenvectors of M: each that is not global has negative curvature; gradient and Hessian checked"
    }
    fn refutation(&self) -> &'static str {
        "a stationary point above the minimum without negative curvature"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut saddle, mut gradient, mut points, mut slope) =
            (f64::NEG_INFINITY, 0.0_f64, 0, f64::INFINITY);
        let mut worst = json!(null);
        for (d, widths) in [(3, [1, 1]), (4, [1, 2]), (5, [2, 2])] {
            for index in 0..context.count(3, 20) {
                let seed = context.seed.child(d).child(index);
                let (m, values, vectors) = random_symmetric(d, &seed)?;
                let f = TwoWidths::new(context, m, widths);
                let scale = values[d - 1].abs().max(values[0].abs());
                let least = least_value(context, &values, widths);
                for subset in 0..1_usize << d {
                    let chosen = |sign: f64| -> Vec<usize> {
                        (0..d).filter(|i| subset >> i & 1 == 1 && sign * values[*i] > 0.0).collect()
                    };
                    let sides = [chosen(1.0), chosen(-1.0)];
                    if sides[0].len() > widths[0] || sides[1].len() > widths[1] {
                        continue;
                    }
                    let mut x = Blocks::zeros(f.layout().clone());
                    for (block, side) in sides.iter().enumerate() {
                        for (column, i) in side.iter().enumerate() {
                            for row in 0..d {
                                x.block_mut(block)[(row, column)] =
                                    vectors[(row, *i)] * values[*i].abs().sqrt();
                            }
                        }
                    }
                    let mut work = vec![0.0; f.work_len()];
                    let mut g = x.zeros_like();
                    let value = f.gradient(&x, &mut g, &mut work);
                    gradient = gradient.max(g.norm() / scale.powf(1.5));
                    points += 1;
                    if value > least + 1e-9 * scale * scale {
                        let curvature = smallest_curvature(&f, &x)? / scale;
                        if curvature > saddle {
                            saddle = curvature;
                            worst = json!({"seed": context.root, "d": d, "widths": widths, "index": index, "subset": subset});
                        }
                    }
                }
                let x = random_point(f.layout(), 1.0, &seed.child("x"));
                let v = random_point(f.layout(), 1.0, &seed.child("v"));
                for check in [
                    derivative_check::gradient(&f, &x, &v)?,
                    derivative_check::hessian_product(&f, &x, &v)?,
                ] {
                    slope = slope.min(f64::from(u8::from(check.passes())));
                }
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(Check::at_most(
                "largest smallest-curvature of a non-global stationary point / ||M||",
                saddle,
                -1e-9,
            ))
            .check(
                Check::at_most("gradient at the stationary points / ||M||^(3/2)", gradient, 0.0)
                    .within(1e-13, "64 d u"),
            )
            .check(Check::at_least("Taylor remainders of gradient and Hessian pass", slope, 1.0))
            .check(Check::at_least("stationary points", points as f64, 30.0))
            .control(Check::at_most(
                "the same at a non-global minimum for T = 3 (C7)",
                three_tasks(context)?,
                -1e-9,
            ))
            .instance(worst))
    }
}

/// Smallest curvature at the spurious minimum of the integer instance, relative to ||R*||.
fn three_tasks(context: &Context) -> Result<f64, ClaimError> {
    let instance = peftml_theory::certificate::Instance::integer();
    let tasks = Tasks::exact(instance.offsets.iter().map(|u| gram(u.as_ref())))?;
    let near = Blocks::from_matrices("U", instance.near.iter().map(|u| u.as_ref()));
    let seen = Seen::new(context, &tasks, Kind::Symmetric, 1)?;
    Ok(smallest_curvature(&seen, &near)? / tasks.norm())
}

struct Value;

impl Claim for Value {
    fn id(&self) -> &'static str {
        "C6.value"
    }
    fn statement(&self) -> &'static str {
        "min f = 1/4 (sum_{i>k1} l_i^+(M)^2 + sum_{i>k2} l_i^-(M)^2), F = f/2; attained by the balanced solution"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["M symmetric"]
    }
    fn method(&self) -> &'static str {
        "the closed-form solver on random exact tasks; L-BFGS from random starts for k1 != k2 never below, and at it"
    }
    fn refutation(&self) -> &'static str {
        "a point with a smaller value"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut error, mut below, mut best_off, mut doubled) =
            (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
        let mut worst = json!(null);
        for (d, widths) in [(5, [1, 1]), (6, [1, 2]), (7, [2, 2])] {
            for index in 0..context.count(3, 40) {
                let seed = context.seed.child(d).child(index);
                let (m, values, _) = random_symmetric(d, &seed)?;
                let least = least_value(context, &values, widths);
                if widths[0] == widths[1] {
                    let tasks = Tasks::exact([m.clone(), Mat::zeros(d, d)])?;
                    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: widths[0] };
                    let found = TwoTask::default().solve(&problem, None, &mut Silent)?.loss;
                    let off = (2.0 * found / least - 1.0).abs();
                    if off > error {
                        error = off;
                        worst =
                            json!({"seed": context.root, "d": d, "widths": widths, "index": index});
                    }
                    doubled = doubled.max((2.0 * found / (2.0 * least) - 1.0).abs());
                }
                let f = TwoWidths::new(context, m, widths);
                let mut best = f64::INFINITY;
                for start in 0..3_usize {
                    let x = random_point(f.layout(), 1.0, &seed.child("start").child(start));
                    let end = iterate::run(
                        &Lbfgs { memory: 10 },
                        &f,
                        x,
                        &MaxIterations(2000),
                        &mut Silent,
                    )?;
                    best = best.min(end.value);
                    below = below.max(1.0 - end.value / least);
                }
                best_off = best_off.max(best / least - 1.0);
            }
        }
        let (tolerance, from) =
            (1e-11, "64 d u ||M||^2 over the value, with room for a value of ||M||^2 / 200");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("|2 F / min f - 1| of the closed form", error, 0.0)
                    .within(tolerance, from),
            )
            .check(
                Check::at_most("1 - f / min f of L-BFGS ends", below, 0.0).within(tolerance, from),
            )
            .check(
                Check::at_most("f / min f - 1 of the best of three ends", best_off, 0.0)
                    .within(1e-4, "gradient at which the runs stop, squared, over a curvature that fades towards infinity"),
            )
            .control(Check::at_most("|2 F / (2 min f) - 1|", doubled, 0.0).within(tolerance, from))
            .instance(worst))
    }
}

struct SolutionSet;

impl Claim for SolutionSet {
    fn id(&self) -> &'static str {
        "C6.solutions"
    }
    fn statement(&self) -> &'static str {
        "T = 2: the solutions are [U*_1 U*_2] O(k,k), of dimension k^2 modulo gauge, and A is unbounded on them"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["[U*_1 U*_2] of full column rank (2k <= d)"]
    }
    fn method(&self) -> &'static str {
        "exact: nullity of (Z_1, Z_2) -> Z_1 U_1^T + U_1 Z_1^T - Z_2 U_2^T - U_2 Z_2^T is k^2 + k(k-1); boosts of zero loss with ||A - A*|| above any bound"
    }
    fn refutation(&self) -> &'static str {
        "another nullity, or a boost with a loss"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut stream = context.seed.stream();
        let (mut wrong, mut three, mut least_growth) = (0.0_f64, 0.0_f64, f64::INFINITY);
        for (d, k) in [(4, 1), (6, 2), (7, 3)] {
            for _ in 0..context.count(1, 5) {
                let u: Vec<_> =
                    (0..3).map(|_| whole_matrix(d, k, 1_000_000, &mut stream)).collect();
                let gauge = k * (k - 1);
                let expected = k * k + gauge - context.faults.choose(Fault::GaugeDimension, 0, 1);
                wrong = wrong.max(nullity(&u[..2]).abs_diff(expected) as f64);
                // T = 3 has the gauge alone, 3 k (k-1) / 2.
                three = three.max(nullity(&u).abs_diff(k * k + 3 * k * (k - 1) / 2) as f64);
                for exponent in [3_u32, 6] {
                    let boost = boost(&u, &BigRational::from_integer(10_i64.pow(exponent).into()))?;
                    let growth = boost.map_or(0.0, |b| {
                        let bound = BigRational::from_integer(10_i64.pow(exponent).into());
                        let large = b.base_error.iter().any(|e| e > &bound || -e > bound);
                        f64::from(u8::from(large))
                    });
                    least_growth = least_growth.min(growth);
                }
            }
        }
        Ok(Evidence::new(EvidenceKind::Exact)
            .check(Check::equal("largest difference of the nullity from k^2 + k(k-1)", wrong, 0.0))
            .check(Check::at_least(
                "boosts 10^3, 10^6 exceed 10^3, 10^6 in A - A*",
                least_growth,
                1.0,
            ))
            .control(Check::equal("the same k^2 beyond the gauge for T = 3", three, 0.0))
            .instance(json!({"seed": context.root})))
    }
}

/// Nullity of the derivative of the tasks' pairwise differences `R_t - R_0` at the solution `u`.
fn nullity(u: &[RationalMatrix]) -> usize {
    let (d, k) = u[0].shape();
    let unknowns = u.len() * d * k;
    let pairs: Vec<(usize, usize)> = (0..d).flat_map(|a| (0..=a).map(move |b| (a, b))).collect();
    let zero = || BigRational::from_integer(0.into());
    // Row (t, a, b): entry of Z_0 U_0^T + U_0 Z_0^T - Z_t U_t^T - U_t Z_t^T.
    let map = RationalMatrix::from_fn((u.len() - 1) * pairs.len(), unknowns, |row, unknown| {
        let (t, (a, b)) = (1 + row / pairs.len(), pairs[row % pairs.len()]);
        let (task, i, c) = (unknown / (d * k), unknown / k % d, unknown % k);
        if task != 0 && task != t {
            return zero();
        }
        let mut entry = zero();
        if i == a {
            entry += &u[task][(b, c)];
        }
        if i == b {
            entry += &u[task][(a, c)];
        }
        if task == 0 { entry } else { -entry }
    });
    unknowns - rank(&map)
}

struct Conservation;

impl Claim for Conservation {
    fn id(&self) -> &'static str {
        "C6.conservation"
    }
    fn statement(&self) -> &'static str {
        "gradient flow of two tasks conserves U_1^T U_2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2, exact tasks"]
    }
    fn method(&self) -> &'static str {
        "g_1^T U_2 + U_1^T g_2 = 0 at random points, for f with k1 != k2 and for F; drift along Runge-Kutta flows"
    }
    fn refutation(&self) -> &'static str {
        "a point with another derivative"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut rate, mut drift, mut three) = (0.0_f64, 0.0_f64, 0.0_f64);
        for index in 0..context.count(10, 200) {
            let seed = context.seed.child(index);
            let (m, ..) = random_symmetric(6, &seed)?;
            let f = TwoWidths::new(context, m, [1, 3]);
            rate = rate.max(overlap_rate(&f, &random_point(f.layout(), 1.0, &seed.child("x"))));
            for tasks in [2, 3] {
                let s = sizes(6, 2, tasks);
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let exact = p.tasks()?;
                let seen = Seen::new(context, &exact, Kind::Symmetric, s.k)?;
                let found =
                    overlap_rate(&seen, &random_point(seen.layout(), 1.0, &seed.child("y")));
                if tasks == 2 {
                    rate = rate.max(found);
                } else {
                    three = three.max(found);
                }
            }
            if index < context.count(3, 20) {
                let x = random_point(f.layout(), 1.0, &seed.child("flow"));
                let before = times(x.block(0).transpose(), x.block(1));
                let (end, ..) = flow(&f, x, 400);
                let after = times(end.block(0).transpose(), end.block(1));
                drift = drift
                    .max(peftml_linalg::compare::relative_error(after.as_ref(), before.as_ref()));
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("||g_1^T U_2 + U_1^T g_2|| relative", rate, 0.0)
                    .within(64.0 * 6.0 * UNIT, "64 d u"),
            )
            .check(Check::at_most("relative drift of U_1^T U_2 along flows", drift, 0.0).within(
                1e-6,
                "400 Runge-Kutta steps of 1/20 of the time scale, local error (1/20)^5 / 120",
            ))
            .control(
                Check::at_most("the same rate for T = 3", three, 0.0)
                    .within(64.0 * 6.0 * UNIT, "64 d u"),
            )
            .instance(json!({"seed": context.root})))
    }
}

/// `||g_1^T U_2 + U_1^T g_2|| / (||g_1|| ||U_2|| + ||U_1|| ||g_2||)`.
fn overlap_rate(f: &dyn Objective, x: &Blocks) -> f64 {
    let mut g = x.zeros_like();
    f.gradient(x, &mut g, &mut vec![0.0; f.work_len()]);
    let mut rate = times(g.block(0).transpose(), x.block(1));
    kernel::mul_add(rate.as_mut(), x.block(0).transpose(), g.block(1), 1.0);
    let norm = |m: MatRef<'_, f64>| kernel::norm(m);
    norm(rate.as_ref())
        / (norm(g.block(0)) * norm(x.block(1)) + norm(x.block(0)) * norm(g.block(1)))
}

/// Gradient flow by the classical Runge-Kutta method with steps of 1/20 of the time scale `1 / (||G|| +
/// ||U||^2)`: the end, the largest norm met, and whether the value always fell.
fn flow(f: &dyn Objective, mut x: Blocks, steps: usize) -> (Blocks, f64, bool) {
    let mut work = vec![0.0; f.work_len()];
    let mut slopes: Vec<Blocks> = (0..4).map(|_| x.zeros_like()).collect();
    let mut largest = x.norm();
    let (mut value, mut falls) = (f.value(&x, &mut work), true);
    for _ in 0..steps {
        let scale = 2.0 * value.max(0.0).sqrt() + 3.0 * x.norm().powi(2);
        let h = 0.05 / scale;
        for stage in 0..4 {
            let mut at = x.clone();
            if stage > 0 {
                at.add_scaled(-h * [0.0, 0.5, 0.5, 1.0][stage], &slopes[stage - 1]);
            }
            f.gradient(&at, &mut slopes[stage], &mut work);
        }
        for (slope, weight) in slopes.iter().zip([1.0, 2.0, 2.0, 1.0]) {
            x.add_scaled(-h * weight / 6.0, slope);
        }
        largest = largest.max(x.norm());
        let next = f.value(&x, &mut work);
        falls &= next <= value * (1.0 + 1e-12) + 1e-300;
        value = next;
    }
    (x, largest, falls)
}

struct Bounded;

impl Claim for Bounded {
    fn id(&self) -> &'static str {
        "C6.bounded"
    }
    fn statement(&self) -> &'static str {
        "gradient flow of two tasks is bounded: ||R_1||^2 + ||R_2||^2 <= (||M|| + 2 sqrt(f(0)))^2 + 2 ||U_1^T U_2||^2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2, exact tasks; follows from conservation and descent"]
    }
    fn method(&self) -> &'static str {
        "flows from starts of scales 0.1 to 10, and from near infinity, against the bound"
    }
    fn refutation(&self) -> &'static str {
        "a flow that leaves the bound"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut ratio, mut falls, mut without) = (0.0_f64, true, 0.0_f64);
        for index in 0..context.count(8, 100) {
            let seed = context.seed.child(index);
            let (m, ..) = random_symmetric(5, &seed)?;
            let size = kernel::norm(m.as_ref());
            let f = TwoWidths::new(context, m, [2, 2]);
            let far = index % 4 == 3;
            let scale = if far { 10.0 } else { [0.1, 1.0, 10.0][index % 3] };
            let mut x = random_point(f.layout(), scale, &seed.child("x"));
            if far {
                // Both adapters far out and nearly equal: the way to infinity.
                let first = x.block(0).to_owned();
                x.block_mut(1).copy_from(&first);
                let off = seed.child("off").stream().normal_matrix(5, 2, 0.1);
                kernel::add_scaled(x.block_mut(1), 1.0, off.as_ref());
            }
            let overlap = times(x.block(0).transpose(), x.block(1));
            let first = f.value(&x, &mut vec![0.0; f.work_len()]);
            let differences = (size + 2.0 * first.sqrt()).powi(2);
            let bound = (differences + 2.0 * kernel::norm_squared(overlap.as_ref())).sqrt();
            let (end, _, fell) = flow(&f, x, 400);
            let found = kernel::norm(gram(end.block(0)).as_ref())
                .hypot(kernel::norm(gram(end.block(1)).as_ref()));
            ratio = ratio.max(found / bound);
            falls &= fell;
            if far {
                without = without.max(found / size);
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("sqrt(||R_1||^2 + ||R_2||^2) over its bound", ratio, 1.0)
                    .within(1e-6, "drift of the conserved quantity"),
            )
            .check(Check::at_least(
                "the value falls along every flow",
                f64::from(u8::from(falls)),
                1.0,
            ))
            .control(Check::at_most(
                "the same over ||M||, without start and conserved quantity",
                without,
                1.0,
            ))
            .instance(json!({"seed": context.root})))
    }
}

/// Two sampled tasks.
fn sampled(
    context: &Context,
    s: Sizes,
    kind: Kind,
    index: usize,
) -> Result<(Tasks, Seed), ClaimError> {
    let p = draw(context, s, kind, Family::Iid, index);
    let mut spec = spec(s, kind, Family::Iid);
    spec.samples_per_task = 4 * s.d;
    Ok((spec.retraining_tasks(&p.truth, &p.seed)?, p.seed))
}

struct Samples;

impl Claim for Samples {
    fn id(&self) -> &'static str {
        "C6.samples"
    }
    fn statement(&self) -> &'static str {
        "on samples F = 1/4 tr((Ahat_1 - Ahat_2 - dR) Sigma (Ahat_1 - Ahat_2 - dR)^T), dR = R_1 - R_2, Sigma = (S_1^-1 + S_2^-1)^-1"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2", "S_1, S_2 invertible"]
    }
    fn method(&self) -> &'static str {
        "both sides at random points, symmetric and asymmetric"
    }
    fn refutation(&self) -> &'static str {
        "a point with different values"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut error, mut other) = (0.0_f64, f64::INFINITY);
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for index in 0..context.count(5, 100) {
                let s = sizes(6, 2, 2);
                let (tasks, seed) = sampled(context, s, kind, index)?;
                let seen = Seen::new(context, &tasks, kind, s.k)?;
                let x = random_point(seen.layout(), 1.0, &seed.child("x"));
                let right = |t: usize| if kind == Kind::Symmetric { t } else { 2 + t };
                let mut rest = minus(tasks.task(0).least_squares(), tasks.task(1).least_squares());
                for (t, sign) in [(0, -1.0), (1, 1.0)] {
                    kernel::mul_add(rest.as_mut(), x.block(t), x.block(right(t)).transpose(), sign);
                }
                let sum = |inverse: bool| -> Result<Mat<f64>, ClaimError> {
                    let mut sum = Mat::zeros(s.d, s.d);
                    for task in tasks.iter() {
                        let moment = task
                            .second_moment()
                            .map_or_else(|| Mat::identity(s.d, s.d), |m| m.to_owned());
                        let part = if inverse {
                            decompose::CholeskyFactor::new(moment.as_ref())?.inverse()
                        } else {
                            moment
                        };
                        kernel::add_scaled(sum.as_mut(), 1.0, part.as_ref());
                    }
                    Ok(sum)
                };
                let weight = decompose::CholeskyFactor::new(sum(true)?.as_ref())?.inverse();
                let wrong = {
                    let mut wrong = sum(false)?;
                    kernel::scale(wrong.as_mut(), 0.25);
                    wrong
                };
                let form = |sigma: &Mat<f64>| {
                    0.25 * kernel::inner(
                        times(rest.as_ref(), sigma.as_ref()).as_ref(),
                        rest.as_ref(),
                    )
                };
                let value = seen.value_at(&x);
                let chosen =
                    context.faults.choose(Fault::TwoTaskWeight, form(&weight), form(&wrong));
                error = error.max((value / chosen - 1.0).abs());
                other = other.min((value / form(&wrong) - 1.0).abs());
            }
        }
        let (tolerance, from) = (1e4 * UNIT, "64 d u, condition of S_t");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(Check::at_most("|F / form - 1|", error, 0.0).within(tolerance, from))
            .control(
                Check::at_most("|F / form - 1| with Sigma = (S_1 + S_2)/4", other, 0.0)
                    .within(tolerance, from),
            )
            .instance(json!({"seed": context.root})))
    }
}

struct SampledMinimum;

impl Claim for SampledMinimum {
    fn id(&self) -> &'static str {
        "C6.sampled-minimum"
    }
    fn statement(&self) -> &'static str {
        "the sampled T = 2 minimum is over symmetric dR of inertia at most (k, k); the solver's balanced point attains the least value that random starts reach"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2", "S_1, S_2 invertible"]
    }
    fn method(&self) -> &'static str {
        "closed form with Gauss-Newton against L-BFGS from random starts"
    }
    fn refutation(&self) -> &'static str {
        "a start that ends lower"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut above, mut unpolished) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let mut worst = json!(null);
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for index in 0..context.count(3, 40) {
                let s = sizes(6, 1, 2);
                let (tasks, seed) = sampled(context, s, kind, index)?;
                let problem = Problem { tasks: &tasks, kind, rank: s.k };
                let found = TwoTask::default().solve(&problem, None, &mut Silent)?.loss;
                let seen = Seen::new(context, &tasks, kind, s.k)?;
                let mut best = f64::INFINITY;
                for start in 0..4_usize {
                    let x = random_point(seen.layout(), 1.0, &seed.child("start").child(start));
                    let end = iterate::run(
                        &Lbfgs { memory: 10 },
                        &seen,
                        x,
                        &MaxIterations(2000),
                        &mut Silent,
                    )?;
                    best = best.min(end.value);
                }
                if found / best - 1.0 > above {
                    above = found / best - 1.0;
                    worst = json!({"seed": context.root, "kind": kind.name(), "index": index});
                }
                // Control: the solution of the unweighted problem.
                let plain = Tasks::exact(tasks.iter().map(|t| t.least_squares().to_owned()))?;
                let start = TwoTask::default().solve(
                    &Problem { tasks: &plain, kind, rank: s.k },
                    None,
                    &mut Silent,
                )?;
                let lefts = start.adapters.iter().map(|a| a.left());
                let mut x = Blocks::zeros(seen.layout().clone());
                for (t, left) in lefts.enumerate() {
                    x.block_mut(t).copy_from(left);
                }
                if kind == Kind::Asymmetric {
                    for (t, a) in start.adapters.iter().enumerate() {
                        x.block_mut(2 + t).copy_from(a.right());
                    }
                }
                unpolished = unpolished.max(seen.value_at(&x) / best - 1.0);
            }
        }
        let (tolerance, from) = (1e-9, "gradient at rounding level, squared, over the curvature");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("loss over the best of random starts, minus 1", above, 0.0)
                    .within(tolerance, from),
            )
            .control(
                Check::at_most("the same without the weight Sigma", unpolished, 0.0)
                    .within(tolerance, from),
            )
            .instance(worst))
    }
}

struct AsymmetricSplit;

impl Claim for AsymmetricSplit {
    fn id(&self) -> &'static str {
        "C6.asymmetric"
    }
    fn statement(&self) -> &'static str {
        "asymmetric T = 2: min f = 1/4 sum_{i>2k} s_i(M)^2, and any split of the 2k leading singular triples is optimal"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2, exact tasks"]
    }
    fn method(&self) -> &'static str {
        "the closed-form solver's loss against the tail; values at random splits, which move the base"
    }
    fn refutation(&self) -> &'static str {
        "a split with another value, or a point below"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut error, mut split, mut moved) = (0.0_f64, 0.0_f64, f64::INFINITY);
        let mut shifted = f64::INFINITY;
        for (d, k) in [(5, 1), (8, 2)] {
            for index in 0..context.count(5, 100) {
                let seed = context.seed.child(d).child(index);
                let m = seed.stream().normal_matrix(d, d, 1.0);
                let tasks = Tasks::exact([m.clone(), Mat::zeros(d, d)])?;
                let values = decompose::singular_values(m.as_ref())?;
                let tail = |from: usize| values[from..].iter().map(|s| s * s).sum::<f64>();
                let constant = context.faults.choose(Fault::TwoTaskConstant, 0.25, 0.5);
                let least = 0.5 * constant * tail(2 * k);
                let problem = Problem { tasks: &tasks, kind: Kind::Asymmetric, rank: k };
                let found = TwoTask::default().solve(&problem, None, &mut Silent)?;
                error = error.max((found.loss / least - 1.0).abs());
                shifted = shifted.min((found.loss / (0.125 * tail(2 * k - 1)) - 1.0).abs());
                // A random split: the 2k triples mixed by an orthogonal matrix.
                let svd = decompose::thin_svd(m.as_ref())?;
                let q = orthogonal(2 * k, &seed.child("split"));
                let scaled = |side: &Mat<f64>| {
                    let root = Mat::from_fn(d, 2 * k, |i, j| side[(i, j)] * svd.values[j].sqrt());
                    times(root.as_ref(), q.as_ref())
                };
                let (left, right) = (scaled(&svd.left), scaled(&svd.right));
                let seen = Seen::new(context, &tasks, Kind::Asymmetric, k)?;
                let mut x = Blocks::zeros(seen.layout().clone());
                for t in 0..2 {
                    let sign = if t == 0 { 1.0 } else { -1.0 };
                    for i in 0..d {
                        for c in 0..k {
                            x.block_mut(t)[(i, c)] = sign * left[(i, t * k + c)];
                            x.block_mut(2 + t)[(i, c)] = right[(i, t * k + c)];
                        }
                    }
                }
                split = split.max((seen.value_at(&x) / least - 1.0).abs());
                moved = moved.min(peftml_linalg::compare::relative_error(
                    seen.base(&x).as_ref(),
                    found.base.as_ref(),
                ));
            }
        }
        let (tolerance, from) =
            (1e-10, "64 d u ||M||^2 over the tail, with room for a tail of ||M||^2 / 2000");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("|F / min F - 1| of the closed form", error, 0.0)
                    .within(tolerance, from),
            )
            .check(
                Check::at_most("|F / min F - 1| at random splits", split, 0.0)
                    .within(tolerance, from),
            )
            .check(Check::at_least("relative distance of the splits' bases", moved, 1e-6))
            .control(
                Check::at_most("the same against the tail from 2k - 1", shifted, 0.0)
                    .within(tolerance, from),
            )
            .instance(json!({"seed": context.root})))
    }
}

struct Infinity;

impl Claim for Infinity {
    fn id(&self) -> &'static str {
        "C6.infinity"
    }
    fn statement(&self) -> &'static str {
        "F is not coercive, T = 2 or more: along U_t = sqrt(tau) U + X_t / sqrt(tau) gradient and curvature fade while F tends to a finite critical value; a checker must say diverging"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[
            "X_t optimal for the limit: X_t = M_t Q - Q (Q^T M_t Q)/2, M_t = A*_t - mean A*, U = Q orthonormal",
        ]
    }
    fn method(&self) -> &'static str {
        "value and gradient at tau = 1e4 .. 1e8, slope of the gradient, and the verdict of the point checker"
    }
    fn refutation(&self) -> &'static str {
        "a gradient that does not fade, another limit, or a verdict of a minimum"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut slope, mut limit, mut wrong, mut plain) =
            (f64::NEG_INFINITY, 0.0_f64, 0, f64::NEG_INFINITY);
        for s in [sizes(5, 1, 2), sizes(6, 2, 3), sizes(7, 1, 4)] {
            for index in 0..context.count(3, 30) {
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let tasks = exact_tasks(&p.truth)?;
                let seen = Seen::new(context, &tasks, Kind::Symmetric, s.k)?;
                let q = orthogonal(s.d, &p.seed.child("q")).as_ref().subcols(0, s.k).to_owned();
                let mut mean = Mat::zeros(s.d, s.d);
                for task in tasks.iter() {
                    kernel::add_scaled(mean.as_mut(), 1.0 / s.tasks as f64, task.least_squares());
                }
                let mut critical = 0.0;
                let mut shifts = Vec::new();
                for task in tasks.iter() {
                    let m = minus(task.least_squares(), mean.as_ref());
                    let mut x = times(m.as_ref(), q.as_ref());
                    let inner = times(q.transpose(), x.as_ref());
                    // N M N = M - Q X^T - X Q^T with X = M Q - Q (Q^T M Q)/2.
                    kernel::mul_add(x.as_mut(), q.as_ref(), inner.as_ref(), -0.5);
                    let mut rest = m;
                    kernel::mul_add(rest.as_mut(), q.as_ref(), x.transpose(), -1.0);
                    kernel::mul_add(rest.as_mut(), x.as_ref(), q.transpose(), -1.0);
                    critical += 0.5 * kernel::norm_squared(rest.as_ref()) / s.tasks as f64;
                    shifts.push(x);
                }
                let point = |tau: f64, weight: f64| {
                    let mut x = Blocks::zeros(seen.layout().clone());
                    for (t, shift) in shifts.iter().enumerate() {
                        kernel::add_scaled(x.block_mut(t), tau.sqrt(), q.as_ref());
                        kernel::add_scaled(x.block_mut(t), weight / tau.sqrt(), shift.as_ref());
                    }
                    x
                };
                let rate = |weight: f64| {
                    let norm = |tau: f64| seen.gradient_at(&point(tau, weight)).norm();
                    (norm(1e6) / norm(1e4)).log10() / 2.0
                };
                slope = slope.max(rate(1.0));
                plain = plain.max(rate(0.0));
                let far = point(1e6, 1.0);
                limit = limit.max((seen.value_at(&far) / critical - 1.0).abs());
                let at = Point::from_blocks(&tasks, seen.base(&far), &far, Kind::Symmetric)?;
                let known = Known { zero_is_attained: true, solver_value: None };
                let verdict = optimality::assess(&tasks, &at, known, &p.seed)?.verdict;
                wrong += usize::from(verdict != PointVerdict::Diverging);
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("slope of ||grad F|| in tau", slope, -0.5)
                    .within(0.05, "next power of 1/tau at 1e4"),
            )
            .check(
                Check::at_most("|F / critical value - 1| at tau = 1e6", limit, 0.0)
                    .within(1e-3, "terms of order 1/tau, and u tau"),
            )
            .check(Check::equal("points with another verdict than diverging", wrong as f64, 0.0))
            .control(
                Check::at_most("slope of ||grad F|| with X_t = 0", plain, -0.5)
                    .within(0.05, "as above"),
            )
            .instance(json!({"seed": context.root})))
    }
}
