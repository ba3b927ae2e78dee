//! Making a certificate of a strict local minimum.
//!
//! Newton's method in floating point finds the centre `c`. With interval matrices then: the gradient
//! `g` and the Hessian `H` at `c` (column by column from the Hessian product, nothing of the proof's
//! formulas), `B = H + W S W^T` with the slice's normals `W` lifted, a floating-point Cholesky factor
//! `L` of `B - m I`, and the bound `lambda_min(B) >= m - ||B - m I - L L^T||_F`. On a ball of radius r the
//! curvature falls by at most `L_3 r`, `L_3 = (12/T)(max ||C_t|| + r)` bounding the third derivative.
//! The radius: 16 times what the gradient needs, at least 1e-10 of the point's size, so that other
//! norms and other arithmetic prove it, too; the claimed bounds leave room for boxes. What is made has
//! been proved by [`super::verify`] as well.

use super::error::MakeError;
use super::file::{Certificate, FORMULA, LARGEST_UNKNOWNS, Norm, SLICE, TextArray};
use super::interval::{Interval, IntervalMatrix};
use super::number::{decimal_above, decimal_below, enclose, parse, shortest_decimal};
use super::verify::verify;
use crate::linear::{Kind, ProfileObjective, Tasks};
use crate::optimality;
use faer::Mat;
use peftml_linalg::{Blocks, decompose, kernel};

/// Radius in units of the point's size, at least.
const RADIUS: f64 = 1e-10;
/// Radius in units of `||g|| / lambda`, at least.
const SLACK: f64 = 16.0;
/// Share of the curvature that the claimed bound gives away, at least.
const MARGIN: f64 = 1e-6;
/// The box around the ball spreads Hessian entries by up to this many `L_3 r`.
const BOX: f64 = 50.0;
/// Newton steps.
const STEPS: usize = 30;
/// Farther than this from the point (relative) is another critical point.
const CLOSE: f64 = 1e-2;

/// Certifies the critical point of the symmetric population objective near `near` (blocks `U0..`, each
/// d x k) for the tasks with offsets `U*_t U*_t^T`.
///
/// # Errors
/// [`MakeError`] where there is no such point or nothing is proved.
pub fn certify(claim: &str, offsets: &[Mat<f64>], near: &Blocks) -> Result<Certificate, MakeError> {
    let (tasks, dimension) = (offsets.len(), offsets.first().map_or(0, |u| u.nrows()));
    let rank = offsets.first().map_or(0, |u| u.ncols());
    let fits = |m: (usize, usize)| m == (dimension, rank);
    let same = offsets.iter().all(|u| fits((u.nrows(), u.ncols())))
        && near.count() == tasks
        && (0..near.count()).all(|t| fits((near.block(t).nrows(), near.block(t).ncols())));
    if tasks == 0 || !same {
        return Err(MakeError::Shape { tasks, dimension, rank });
    }
    let unknowns = tasks * dimension * rank;
    if unknowns > LARGEST_UNKNOWNS {
        return Err(MakeError::TooLarge { unknowns, allowed: LARGEST_UNKNOWNS });
    }
    let centre = newton(offsets, near)?;
    let text = |matrices: &[Mat<f64>]| TextArray {
        shape: [tasks, dimension, rank],
        flat: rank == 1,
        values: matrices
            .iter()
            .flat_map(|m| (0..dimension).flat_map(move |a| (0..rank).map(move |i| m[(a, i)])))
            .map(shortest_decimal)
            .collect(),
    };
    let (instance, centre) = (text(offsets), text(&centre));
    let bounds = Bounds::new(&Local::new(&instance), &Local::new(&centre))?;
    let certificate = Certificate {
        claim: claim.to_owned(),
        formula: FORMULA.to_owned(),
        slice: (rank > 1).then(|| SLICE.to_owned()),
        instance,
        centre,
        radius: decimal_above(bounds.radius, 6),
        norm: Norm::Two,
        lambda_min_lower: decimal_below(bounds.curvature, 9),
        objective_lower: decimal_below(bounds.objective, 9),
        gradient_upper: decimal_above(bounds.gradient, 6),
    };
    verify(&certificate)?;
    Ok(certificate)
}

/// The critical point near `near`, in floating point.
fn newton(offsets: &[Mat<f64>], near: &Blocks) -> Result<Vec<Mat<f64>>, MakeError> {
    let rank = near.block(0).ncols();
    let truths = offsets.iter().map(|u| {
        let mut truth = Mat::zeros(u.nrows(), u.nrows());
        kernel::mul(truth.as_mut(), u.as_ref(), u.transpose(), 1.0);
        truth
    });
    let tasks = Tasks::exact(truths)?;
    let objective = ProfileObjective::new(&tasks, Kind::Symmetric, rank)?;
    // The size check stands before: there are few enough unknowns.
    let found = optimality::polish(&objective, near, STEPS)?.unwrap_or_else(|| near.clone());
    let mut step = found.clone();
    step.add_scaled(-1.0, near);
    let moved = step.norm() / near.norm();
    if moved.is_nan() || moved > CLOSE {
        return Err(MakeError::NotCritical { moved });
    }
    Ok(found.to_matrices(0..offsets.len()))
}

/// Interval matrices of an array of text.
struct Local {
    factors: Vec<IntervalMatrix>,
}

impl Local {
    fn new(array: &TextArray) -> Self {
        let [_, d, k] = array.shape;
        let number = |text: &String| parse(text).map_or(Interval::ENTIRE, |x| enclose(&x));
        let numbers: Vec<Interval> = array.values.iter().map(number).collect();
        let factors = numbers.chunks(d * k).map(|task| IntervalMatrix::from_row_slice(d, k, task));
        Self { factors: factors.collect() }
    }
}

/// What is claimed of the ball.
struct Bounds {
    radius: f64,
    curvature: f64,
    objective: f64,
    gradient: f64,
}

impl Bounds {
    fn new(truth: &Local, centre: &Local) -> Result<Self, MakeError> {
        let c = &centre.factors;
        let count = c.len();
        let residuals = residuals(truth, centre);
        let inverse = Interval::point(count as f64).reciprocal();
        let gradient = c.iter().zip(&residuals).fold(Interval::point(0.0), |sum, (u, g)| {
            sum + norm_squared(&(g * u)) * (Interval::point(2.0) * inverse).square()
        });
        let gradient = gradient.sqrt().hi();
        let value = residuals.iter().fold(Interval::point(0.0), |sum, g| sum + norm_squared(g))
            * (Interval::point(2.0 * count as f64)).reciprocal();
        if value.lo() <= 0.0 {
            return Err(MakeError::NotAboveZero { value: value.hi() });
        }
        let curvature = lower_curvature(&lifted_hessian(centre, &residuals))?;
        let largest = c.iter().map(|u| norm_squared(u).sqrt().hi()).fold(0.0, f64::max);
        let size = c.iter().map(|u| norm_squared(u).hi()).sum::<f64>().sqrt();
        let needed = SLACK * gradient / curvature;
        let radius = needed.max(RADIUS * size);
        let third = 12.0 / count as f64 * (largest + radius);
        let allowed = 0.5 * curvature / (BOX * third);
        if radius.is_nan() || radius > allowed {
            return Err(MakeError::Radius { gradient, needed, allowed });
        }
        let curvature = curvature - (BOX * third * radius).max(MARGIN * curvature);
        let objective = value.lo() - 2.0 * gradient * radius;
        if objective <= 0.0 {
            return Err(MakeError::NotAboveZero { value: value.hi() });
        }
        // The exact gradient at a centre that is exact may be zero; the claim must not be.
        Ok(Self { radius, curvature, objective, gradient: gradient.max(f64::MIN_POSITIVE) })
    }
}

fn norm_squared(m: &IntervalMatrix) -> Interval {
    m.iter().fold(Interval::point(0.0), |sum, x| sum + x.square())
}

/// `G_t`.
fn residuals(truth: &Local, centre: &Local) -> Vec<IntervalMatrix> {
    let pairs = truth.factors.iter().zip(&centre.factors);
    let errors: Vec<IntervalMatrix> =
        pairs.map(|(u, c)| u * u.transpose() - c * c.transpose()).collect();
    let d = errors[0].nrows();
    let zero = IntervalMatrix::from_element(d, d, Interval::point(0.0));
    let mean = errors.iter().fold(zero, |sum, e| sum + e)
        * Interval::point(errors.len() as f64).reciprocal();
    errors.iter().map(|e| e - &mean).collect()
}

/// `H + sum_w s w w^T` from Hessian products along the unit directions.
fn lifted_hessian(centre: &Local, residuals: &[IntervalMatrix]) -> IntervalMatrix {
    let c = &centre.factors;
    let (count, d, k) = (c.len(), c[0].nrows(), c[0].ncols());
    let size = d * k;
    let n = count * size;
    let share = Interval::point(count as f64).reciprocal();
    let factor = Interval::point(-2.0) * share;
    let mut h = IntervalMatrix::from_element(n, n, Interval::point(0.0));
    for column in 0..n {
        let (t, a, i) = (column / size, column % size % d, column % size / d);
        // dR_t = e_a u_i^T + u_i e_a^T; dG_s = -(d_st - 1/T) dR_t.
        let mut offset = IntervalMatrix::from_element(d, d, Interval::point(0.0));
        for b in 0..d {
            offset[(a, b)] += c[t][(b, i)];
            offset[(b, a)] += c[t][(b, i)];
        }
        for s in 0..count {
            let weight = if s == t { Interval::point(1.0) - share } else { -share };
            let mut product = &offset * &c[s] * -weight;
            if s == t {
                for b in 0..d {
                    product[(b, i)] += residuals[t][(b, a)];
                }
            }
            // Column-major within a task, as Blocks are.
            for (row, entry) in product.iter().enumerate() {
                h[(s * size + row, column)] = factor * *entry;
            }
        }
    }
    let scale = (0..n).map(|p| h[(p, p)].magnitude()).fold(0.0, f64::max);
    for (t, u) in c.iter().enumerate() {
        for (i, j) in (0..k).flat_map(|j| (0..j).map(move |i| (i, j))) {
            let mut normal = Vec::with_capacity(2 * d);
            for a in 0..d {
                normal.push((t * size + j * d + a, u[(a, i)]));
                normal.push((t * size + i * d + a, -u[(a, j)]));
            }
            let length: f64 = normal.iter().map(|(_, w)| w.middle() * w.middle()).sum();
            let lift = Interval::point(scale / length.max(f64::MIN_POSITIVE));
            for (p, v) in &normal {
                for (q, w) in &normal {
                    h[(*p, *q)] += lift * *v * *w;
                }
            }
        }
    }
    h
}

/// A lower bound of the smallest eigenvalue of every symmetric matrix in `b`, positive.
fn lower_curvature(b: &IntervalMatrix) -> Result<f64, MakeError> {
    let n = b.nrows();
    let mut middle = Mat::from_fn(n, n, |i, j| 0.5 * (b[(i, j)].middle() + b[(j, i)].middle()));
    let failed = |source| optimality::OptimalityError::Decomposition { what: "Hessian", source };
    let (values, _) = decompose::symmetric_eigen(middle.as_ref()).map_err(failed)?;
    let curvature = values[0];
    // Cholesky stays clear of rounding by n u ||B||, and so must the shift.
    let room = (4.0 * n as f64 * f64::EPSILON * values[n - 1]).max(0.1 * MARGIN * curvature);
    let shift = curvature - room;
    if shift.is_nan() || shift <= 0.0 {
        return Err(MakeError::NotStrict { curvature });
    }
    for i in 0..n {
        middle[(i, i)] -= shift;
    }
    let factor = decompose::CholeskyFactor::new(middle.as_ref())
        .map_err(|_| MakeError::NotStrict { curvature })?;
    let mut rest = Interval::point(0.0);
    for i in 0..n {
        for j in 0..=i {
            // The symmetric matrix meant lies in both triangles.
            let entry = Interval::new(
                b[(i, j)].lo().max(b[(j, i)].lo()),
                b[(i, j)].hi().min(b[(j, i)].hi()),
            );
            let mut entry = if i == j { entry - Interval::point(shift) } else { entry };
            for m in 0..=j {
                let (x, y) = (factor.lower()[(i, m)], factor.lower()[(j, m)]);
                entry -= Interval::point(x) * Interval::point(y);
            }
            rest += entry.square() * Interval::point(if i == j { 1.0 } else { 2.0 });
        }
    }
    let bound = (Interval::point(shift) - rest.sqrt()).lo();
    if bound.is_nan() || bound <= 0.0 {
        return Err(MakeError::NotStrict { curvature });
    }
    Ok(bound)
}
