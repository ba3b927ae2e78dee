//! The symmetric inner problem with weights: `min_U 1/2 tr((B - U U^T) S (B - U U^T)^T)`.
//!
//! `B` d x d, `S` d x d positive definite, `U` d x k. Closed form only where S is a multiple of the
//! identity (the k leading non-negative eigenparts of `sym B`). Otherwise the start is that part of the
//! Lyapunov solution `R S + S R = B S + S B^T` (the unconstrained symmetric minimiser; a start, not a
//! certificate), then Newton's method on U with the Hessian's eigenvalues taken in modulus and its gauge
//! directions left out: 2 to 5 steps. Source: theory.md, Solvers (symmetric inner problem).
//! Derivatives: `E = U U^T - B`, `G = E S`, gradient `(G + G^T) U`, Hessian product
//! `(dR S + S dR) U + (G + G^T) Z`, `dR = Z U^T + U Z^T`.
//! Cost: dense Hessian of order dk, O((dk)^3) a step.

use crate::SolveError;
use crate::iterate::StopReason;
use faer::{Mat, MatRef};
use peftml_linalg::{DecompositionError, compare, decompose, kernel};
use peftml_theory::linear::LinearError;

/// Most Newton steps.
const MOST_STEPS: usize = 60;

/// A stationary point of the inner problem.
#[derive(Clone, Debug)]
pub struct InnerSolution {
    /// `U`, d x k.
    pub factor: Mat<f64>,
    /// `1/2 tr((B - U U^T) S (B - U U^T)^T)`.
    pub value: f64,
    /// Norm of the gradient.
    pub gradient_norm: f64,
    /// Newton steps; 0 where the closed form holds.
    pub steps: usize,
    /// `Direct` in closed form, `Stationary` at rounding level, `Stagnated` or `MaxIterations` else.
    pub stop_reason: StopReason,
}

/// Solves the inner problem for width `rank`; `s = None` is the identity.
///
/// # Errors
/// [`SolveError::Linear`] for a rank outside 1..=d or shapes that do not agree,
/// [`SolveError::Decomposition`] where `S` is not positive definite or an entry is not finite.
pub fn solve(
    b: MatRef<'_, f64>,
    s: Option<MatRef<'_, f64>>,
    rank: usize,
) -> Result<InnerSolution, SolveError> {
    let d = b.nrows();
    if rank == 0 || rank > d {
        return Err(LinearError::Rank { rank, dimension: d }.into());
    }
    let shape = |what, m: MatRef<'_, f64>| {
        let (rows, cols) = (m.nrows(), m.ncols());
        if (rows, cols) == (d, d) {
            return Ok(());
        }
        Err(LinearError::Shape { what, task: 0, rows, cols, expected_rows: d, expected_cols: d })
    };
    shape("B", b)?;
    let identity = Mat::identity(d, d);
    let s = s.unwrap_or(identity.as_ref());
    shape("S", s)?;
    let inner = Inner { b, s };
    let mut factor = leading_part(lyapunov(b, s)?.as_ref(), rank)?;
    let multiple = Mat::from_fn(d, d, |i, j| if i == j { s[(0, 0)] } else { 0.0 });
    if compare::distance(s, multiple.as_ref()) <= 4.0 * f64::EPSILON * kernel::norm(s) {
        let (value, gradient, _) = inner.gradient(&factor);
        let gradient_norm = kernel::norm(gradient.as_ref());
        let stop_reason = StopReason::Direct;
        return Ok(InnerSolution { factor, value, gradient_norm, steps: 0, stop_reason });
    }
    let scale = 8.0 * d as f64 * f64::EPSILON * kernel::norm(s);
    let mut steps = 0;
    loop {
        let (value, gradient, moment) = inner.gradient(&factor);
        let gradient_norm = kernel::norm(gradient.as_ref());
        let size = kernel::norm(b) + kernel::norm_squared(factor.as_ref());
        let stop = if gradient_norm <= scale * size * kernel::norm(factor.as_ref()) {
            Some(StopReason::Stationary)
        } else if steps == MOST_STEPS {
            Some(StopReason::MaxIterations)
        } else {
            match inner.newton_step(&factor, value, &gradient, &moment)? {
                Some(next) => {
                    factor = next;
                    None
                }
                None => Some(StopReason::Stagnated),
            }
        };
        if let Some(stop_reason) = stop {
            return Ok(InnerSolution { factor, value, gradient_norm, steps, stop_reason });
        }
        steps += 1;
    }
}

struct Inner<'a> {
    b: MatRef<'a, f64>,
    s: MatRef<'a, f64>,
}

impl Inner<'_> {
    /// `E = U U^T - B` and `G = E S`.
    fn residual(&self, u: &Mat<f64>) -> (Mat<f64>, Mat<f64>) {
        let d = u.nrows();
        let mut error = Mat::zeros(d, d);
        kernel::mul(error.as_mut(), u.as_ref(), u.transpose(), 1.0);
        kernel::add_scaled(error.as_mut(), -1.0, self.b);
        let mut moment = Mat::zeros(d, d);
        kernel::mul(moment.as_mut(), error.as_ref(), self.s, 1.0);
        (error, moment)
    }

    fn value(&self, u: &Mat<f64>) -> f64 {
        let (error, moment) = self.residual(u);
        0.5 * kernel::inner(error.as_ref(), moment.as_ref())
    }

    /// Value, gradient and `G + G^T`.
    fn gradient(&self, u: &Mat<f64>) -> (f64, Mat<f64>, Mat<f64>) {
        let (error, mut moment) = self.residual(u);
        let value = 0.5 * kernel::inner(error.as_ref(), moment.as_ref());
        kernel::symmetrise(moment.as_mut());
        kernel::scale(moment.as_mut(), 2.0);
        let mut gradient = Mat::zeros(u.nrows(), u.ncols());
        kernel::mul(gradient.as_mut(), moment.as_ref(), u.as_ref(), 1.0);
        (value, gradient, moment)
    }

    fn hessian_product(&self, u: &Mat<f64>, moment: &Mat<f64>, z: MatRef<'_, f64>) -> Mat<f64> {
        let (d, k) = (u.nrows(), u.ncols());
        let mut change = Mat::zeros(d, d);
        kernel::mul(change.as_mut(), z, u.transpose(), 1.0);
        kernel::symmetrise(change.as_mut());
        kernel::scale(change.as_mut(), 2.0);
        let mut weighted = Mat::zeros(d, d);
        kernel::mul(weighted.as_mut(), change.as_ref(), self.s, 1.0);
        kernel::symmetrise(weighted.as_mut());
        kernel::scale(weighted.as_mut(), 2.0);
        let mut out = Mat::zeros(d, k);
        kernel::mul(out.as_mut(), weighted.as_ref(), u.as_ref(), 1.0);
        kernel::mul_add(out.as_mut(), moment.as_ref(), z, 1.0);
        out
    }

    /// A Newton step that decreases the value (or, at equal value, the gradient), if there is one.
    fn newton_step(
        &self,
        u: &Mat<f64>,
        value: f64,
        gradient: &Mat<f64>,
        moment: &Mat<f64>,
    ) -> Result<Option<Mat<f64>>, DecompositionError> {
        let (d, k) = (u.nrows(), u.ncols());
        let unknowns = d * k;
        let mut hessian = Mat::zeros(unknowns, unknowns);
        let mut unit = Mat::zeros(d, k);
        for column in 0..unknowns {
            unit[(column % d, column / d)] = 1.0;
            let product = self.hessian_product(u, moment, unit.as_ref());
            unit[(column % d, column / d)] = 0.0;
            for row in 0..unknowns {
                hessian[(row, column)] = product[(row % d, row / d)];
            }
        }
        let (values, vectors) = decompose::symmetric_eigen(hessian.as_ref())?;
        let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let mut step = Mat::zeros(d, k);
        for (i, curvature) in values.iter().enumerate() {
            // Gauge directions have curvature 0 to rounding and no gradient.
            if curvature.abs() <= 1e-12 * largest {
                continue;
            }
            let vector = vectors.col(i);
            let slope: f64 =
                (0..unknowns).map(|row| vector[row] * gradient[(row % d, row / d)]).sum();
            for row in 0..unknowns {
                step[(row % d, row / d)] -= slope / curvature.abs() * vector[row];
            }
        }
        let norm = kernel::norm(gradient.as_ref());
        let mut factor = 1.0;
        for _ in 0..30 {
            let mut next = u.clone();
            kernel::add_scaled(next.as_mut(), factor, step.as_ref());
            let reached = self.value(&next);
            let equal = reached <= value * (1.0 + 8.0 * f64::EPSILON);
            if reached < value * (1.0 - 8.0 * f64::EPSILON)
                || (equal && kernel::norm(self.gradient(&next).1.as_ref()) < 0.7 * norm)
            {
                return Ok(Some(next));
            }
            factor *= 0.5;
        }
        Ok(None)
    }
}

/// `R` with `R S + S R = B S + S B^T`, by the eigenvectors of `S`.
fn lyapunov(b: MatRef<'_, f64>, s: MatRef<'_, f64>) -> Result<Mat<f64>, DecompositionError> {
    let d = b.nrows();
    let (values, vectors) = decompose::symmetric_eigen(s)?;
    if values[0] <= d as f64 * f64::EPSILON * values[d - 1] {
        return Err(DecompositionError::NotPositiveDefinite { size: d, pivot: 0 });
    }
    let rotate = |m: MatRef<'_, f64>, back: bool| {
        let (left, right) = if back {
            (vectors.as_ref(), vectors.transpose())
        } else {
            (vectors.transpose(), vectors.as_ref())
        };
        let (mut half, mut out) = (Mat::zeros(d, d), Mat::zeros(d, d));
        kernel::mul(half.as_mut(), left, m, 1.0);
        kernel::mul(out.as_mut(), half.as_ref(), right, 1.0);
        out
    };
    let rotated = rotate(b, false);
    let solution = Mat::from_fn(d, d, |i, j| {
        (rotated[(i, j)] * values[j] + values[i] * rotated[(j, i)]) / (values[i] + values[j])
    });
    Ok(rotate(solution.as_ref(), true))
}

/// `U` with `U U^T` the `rank` leading non-negative eigenparts of `sym m`.
fn leading_part(m: MatRef<'_, f64>, rank: usize) -> Result<Mat<f64>, DecompositionError> {
    let d = m.nrows();
    let mut symmetric = m.to_owned();
    kernel::symmetrise(symmetric.as_mut());
    let (values, vectors) = decompose::symmetric_eigen(symmetric.as_ref())?;
    Ok(Mat::from_fn(d, rank, |i, c| {
        let index = d - 1 - c;
        vectors[(i, index)] * values[index].max(0.0).sqrt()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    fn weights(seed: u64, d: usize, spread: f64) -> Mat<f64> {
        let mut stream = Seed::root(seed).child("weights").stream();
        let q = decompose::orthonormal_basis(stream.normal_matrix(d, d, 1.0).as_ref());
        let scaled =
            Mat::from_fn(d, d, |i, j| q[(i, j)] * spread.powf(j as f64 / (d as f64 - 1.0)));
        let mut s = Mat::zeros(d, d);
        kernel::mul(s.as_mut(), scaled.as_ref(), q.transpose(), 1.0);
        kernel::symmetrise(s.as_mut());
        s
    }

    #[test]
    fn gradient_and_hessian_are_those_of_the_value() {
        let mut stream = Seed::root(1).child("inner").stream();
        let (b, u, z) = (
            stream.normal_matrix(5, 5, 1.0),
            stream.normal_matrix(5, 2, 1.0),
            stream.normal_matrix(5, 2, 1.0),
        );
        let s = weights(1, 5, 10.0);
        let inner = Inner { b: b.as_ref(), s: s.as_ref() };
        let (_, gradient, moment) = inner.gradient(&u);
        let product = inner.hessian_product(&u, &moment, z.as_ref());
        let at = |h: f64| {
            let mut moved = u.clone();
            kernel::add_scaled(moved.as_mut(), h, z.as_ref());
            inner.value(&moved)
        };
        // The value is quartic along a line: a five-point formula is exact but for rounding.
        let h = 0.25;
        let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let bend = (16.0 * (at(h) + at(-h)) - (at(2.0 * h) + at(-2.0 * h)) - 30.0 * at(0.0))
            / (12.0 * h * h);
        let scale = at(0.0).abs() * 1e-12;
        assert!((slope - kernel::inner(gradient.as_ref(), z.as_ref())).abs() < scale);
        assert!((bend - kernel::inner(product.as_ref(), z.as_ref())).abs() < 10.0 * scale);
    }

    #[test]
    fn ends_stationary_and_below_the_unweighted_start() {
        for (seed, d, k, spread) in [(1, 6, 1, 4.0), (2, 8, 2, 10.0), (3, 10, 3, 30.0)] {
            let mut stream = Seed::root(seed).child("problem").stream();
            let b = stream.normal_matrix(d, d, 1.0);
            let s = weights(seed, d, spread);
            let found = solve(b.as_ref(), Some(s.as_ref()), k).unwrap();
            assert_eq!(found.stop_reason, StopReason::Stationary, "{found:?}");
            let inner = Inner { b: b.as_ref(), s: s.as_ref() };
            let plain = leading_part(b.as_ref(), k).unwrap();
            assert!(found.value < inner.value(&plain));
            // Control: a point beside it is not stationary.
            let mut beside = found.factor.clone();
            beside[(0, 0)] += 1e-3;
            assert!(kernel::norm(inner.gradient(&beside).1.as_ref()) > 1e3 * found.gradient_norm);
        }
    }

    #[test]
    fn a_weight_that_is_a_multiple_of_the_identity_has_the_closed_form() {
        let b = Seed::root(4).stream().normal_matrix(6, 6, 1.0);
        let s = Mat::from_fn(6, 6, |i, j| if i == j { 3.0 } else { 0.0 });
        let found = solve(b.as_ref(), Some(s.as_ref()), 2).unwrap();
        assert_eq!((found.stop_reason, found.steps), (StopReason::Direct, 0));
        let expected = leading_part(b.as_ref(), 2).unwrap();
        let product = |u: &Mat<f64>| {
            let mut p = Mat::zeros(6, 6);
            kernel::mul(p.as_mut(), u.as_ref(), u.transpose(), 1.0);
            p
        };
        let error =
            compare::relative_error(product(&found.factor).as_ref(), product(&expected).as_ref());
        assert!(error < 1e-13);
        let singular = Mat::from_fn(6, 6, |i, j| if i == j && i > 0 { 1.0 } else { 0.0 });
        assert!(matches!(
            solve(b.as_ref(), Some(singular.as_ref()), 2),
            Err(SolveError::Decomposition(DecompositionError::NotPositiveDefinite { .. }))
        ));
    }
}
