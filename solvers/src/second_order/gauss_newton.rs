//! Gauss-Newton with conjugate gradients inside.
//!
//! Step: `z` with `J^T J z = -g`, by preconditioned conjugate gradients on
//! [`Objective::gauss_newton_product`], then `x + z`, halved until the value decreases. The
//! preconditioner acts on block t from the right, `(2 U_t^T U_t)^{-1}` (asymmetric `(V_t^T V_t)^{-1}` on
//! `U_t` and `(U_t^T U_t)^{-1}` on `V_t`). Where the promised decrease
//! is below what the value resolves, the gradient has to shrink instead. A step that fails ends the run:
//! past that point iterates drift along the gauge.
//! Source: theory.md, Solvers, step 5.
//! Limits: converges linearly at the relative size of the residual; no use far from a solution.

use crate::iterate::{Solver, State, StopReason};
use crate::problem::SolveError;
use faer::{MatMut, MatRef};
use peftml_linalg::{Blocks, kernel};
use peftml_theory::{Gauge, Objective};

/// Configuration; see the module's header.
#[derive(Clone, Copy, Debug)]
pub struct GaussNewton {
    /// Inner iterations end at this fraction of the gradient's norm. Range (0, 1); default 1e-8.
    pub inner_tolerance: f64,
    /// Most inner iterations a step; 0 means twice the number of unknowns plus 20 (default).
    pub inner_iterations: usize,
    /// Most halvings of a step; default 12.
    pub halvings: usize,
    /// What rounding leaves of the gradient's norm, where the caller knows: the run ends there as
    /// stationary, and inner iterations do not go on below it. Default 0: unknown.
    pub gradient_rounding: f64,
}

impl Default for GaussNewton {
    fn default() -> Self {
        Self { inner_tolerance: 1e-8, inner_iterations: 0, halvings: 12, gradient_rounding: 0.0 }
    }
}

/// Relative changes of the value below this are judged by the gradient.
const RESOLUTION: f64 = 1e-10;

// State vectors.
const STEP: usize = 0;
const CURRENT: usize = 1;
const RESIDUAL: usize = 2;
const SCALED: usize = 3;
const DIRECTION: usize = 4;
const IMAGE: usize = 5;
// The trial point, and its gradient behind it.
const TRIAL: usize = 6;

impl Solver for GaussNewton {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        let width = x.layout().specs().iter().map(|s| s.cols).max().unwrap_or(0);
        // Scalars: an inverse Gram matrix a block, and one spare.
        State::at(f, x.clone(), 8, (x.count() + 1) * width * width)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        if state.gradient_norm <= self.gradient_rounding {
            state.stop = Some(StopReason::Stationary);
            return Ok(());
        }
        self.preconditioner(f.gauge(), state);
        self.inner(f, state);
        let mut factor = 1.0;
        for _ in 0..=self.halvings {
            if self.accept(f, state, factor) {
                state.iteration += 1;
                return Ok(());
            }
            factor *= 0.5;
        }
        state.stop = Some(StopReason::Stagnated);
        Ok(())
    }
}

impl GaussNewton {
    /// Tries `x + factor * step`; on success the state is at the new point.
    fn accept(&self, f: &dyn Objective, state: &mut State, factor: f64) -> bool {
        let (step, rest) = state.vectors.split_at_mut(TRIAL);
        let (trial, gradient) = rest.split_at_mut(1);
        trial[0].copy_from(&state.x);
        trial[0].add_scaled(factor, &step[STEP]);
        let value = f.gradient(&trial[0], &mut gradient[0], &mut state.work);
        state.evaluations.gradients += 1;
        let norm = gradient[0].norm();
        if !value.is_finite() || !norm.is_finite() {
            return false;
        }
        // The residual is a difference of larger matrices: the value resolves relative changes down to
        // about 1e-11 (u times their ratio), no further. Below that a smaller gradient is progress.
        let promised = -0.5 * factor * step[STEP].dot(&state.gradient);
        let better = if promised > RESOLUTION * state.value {
            value < state.value
        } else {
            norm < 0.7 * state.gradient_norm
        };
        if better {
            std::mem::swap(&mut state.x, &mut trial[0]);
            std::mem::swap(&mut state.gradient, &mut gradient[0]);
            state.value = value;
            state.gradient_norm = norm;
            return true;
        }
        false
    }

    /// Inverse Gram matrices of the blocks into the state's scalars.
    fn preconditioner(&self, gauge: Gauge, state: &mut State) {
        let count = state.x.count();
        let width = state.x.layout().specs().iter().map(|s| s.cols).max().unwrap_or(0);
        for t in 0..count {
            let (partner, weight) = match gauge {
                Gauge::GeneralLinear => ((t + count / 2) % count, 1.0),
                _ => (t, 2.0),
            };
            let factor = state.x.block(partner);
            let k = factor.ncols();
            let slot = &mut state.scalars[t * width * width..t * width * width + k * k];
            let mut gram = MatMut::from_column_major_slice_mut(slot, k, k);
            kernel::mul(gram.as_mut(), factor.transpose(), factor, weight);
            kernel::invert_positive(gram);
        }
        state.evaluations.factorisations += 1;
    }

    /// Conjugate gradients for the step.
    fn inner(&self, f: &dyn Objective, state: &mut State) {
        let unknowns = state.x.layout().len();
        let limit =
            if self.inner_iterations == 0 { 2 * unknowns + 20 } else { self.inner_iterations };
        let State { x, gradient, vectors, scalars, work, evaluations, .. } = state;
        vectors[STEP].fill(0.0);
        vectors[CURRENT].fill(0.0);
        vectors[RESIDUAL].copy_from(gradient);
        vectors[RESIDUAL].scale(-1.0);
        precondition(scalars, vectors);
        let (head, tail) = vectors.split_at_mut(DIRECTION);
        tail[0].copy_from(&head[SCALED]);
        let mut product = head[RESIDUAL].dot(&head[SCALED]);
        let start = product;
        let (mut best, mut since_best) = (f64::INFINITY, 0);
        let patience = 12 + unknowns / 2;
        f.prepare(x, work);
        for _ in 0..limit {
            let (head, tail) = vectors.split_at_mut(IMAGE);
            f.prepared_gauss_newton_product(x, &head[DIRECTION], &mut tail[0], work);
            evaluations.hessian_products += 1;
            let curvature = head[DIRECTION].dot(&tail[0]);
            if curvature.is_nan() || curvature <= 0.0 {
                break;
            }
            let length = product / curvature;
            let (first, direction) = head.split_at_mut(DIRECTION);
            first[CURRENT].add_scaled(length, &direction[0]);
            first[RESIDUAL].add_scaled(-length, &tail[0]);
            precondition(scalars, vectors);
            let next = vectors[RESIDUAL].dot(&vectors[SCALED]);
            // The best iterate counts: the gradient's rounding has a part along the gauge, which no step
            // removes and along which later iterates drift.
            if next < best {
                (best, since_best) = (next, 0);
                let (step, current) = vectors.split_at_mut(CURRENT);
                step[STEP].copy_from(&current[0]);
            } else {
                since_best += 1;
            }
            let converged = next <= self.inner_tolerance * self.inner_tolerance * start
                || vectors[RESIDUAL].norm() <= 0.5 * self.gradient_rounding;
            if converged || since_best > patience {
                break;
            }
            let ratio = next / product;
            product = next;
            let (head, tail) = vectors.split_at_mut(DIRECTION);
            tail[0].scale(ratio);
            tail[0].add_scaled(1.0, &head[SCALED]);
        }
    }
}

/// `SCALED = RESIDUAL * (inverse Gram matrix)`, block by block.
fn precondition(inverses: &[f64], vectors: &mut [Blocks]) {
    let (head, tail) = vectors.split_at_mut(SCALED);
    let (residual, scaled) = (&head[RESIDUAL], &mut tail[0]);
    let width = residual.layout().specs().iter().map(|s| s.cols).max().unwrap_or(0);
    for t in 0..residual.count() {
        let block = residual.block(t);
        let k = block.ncols();
        let slot = &inverses[t * width * width..t * width * width + k * k];
        let inverse = MatRef::from_column_major_slice(slot, k, k);
        kernel::mul(scaled.block_mut(t), block, inverse, 1.0);
    }
}
