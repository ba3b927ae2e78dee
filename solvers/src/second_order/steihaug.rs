//! Trust-region steps by truncated conjugate gradients (Steihaug 1983; Toint 1981).
//!
//! Minimises `m(p) = <g, p> + 1/2 <p, B p>` over `||p||_M <= radius` for a symmetric `B` given by products,
//! with the preconditioner `M` of [`crate::preconditioner`] or `M = I`: conjugate gradients from 0, ended
//! by a small residual, at the boundary, or along a direction of negative curvature, which is
//! followed to the boundary. Then the usual ratio test: accept where `f` falls by at least 0.15 of the model's
//! prediction, quarter the radius below 0.25, double it above 0.75 at the boundary
//! (Nocedal and Wright, Numerical Optimization, algorithms 4.1 and 7.2).

use crate::{SolveError, State, StopReason, preconditioner};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The matrix `B` of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// The Hessian.
    Hessian,
    /// Its Gauss-Newton approximation, positive semidefinite.
    GaussNewton,
}

/// Configuration of the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps {
    /// The model's matrix.
    pub model: Model,
    /// Whether `M` is the preconditioner.
    pub preconditioned: bool,
    /// First radius, relative to `||x||_M` of the start.
    pub first_radius: f64,
    /// Most products a step.
    pub products: usize,
}

// Vectors: the step, then four of conjugate gradients, then the trial point and its gradient.
const STEP: usize = 0;
const TRIAL: usize = 5;
const VECTORS: usize = 7;

const RADIUS: usize = 0;
const FIRST_GRADIENT: usize = 1;
const NEGATIVE: usize = 2;
const FACTORS: usize = 3;

/// Least ratio of decrease and prediction that is accepted.
const ACCEPT: f64 = 0.15;
/// Predictions below this many times the value are below its rounding.
const ROUNDING: f64 = 32.0 * f64::EPSILON;

/// How conjugate gradients ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exit {
    Inside,
    Boundary,
    NegativeCurvature,
}

impl Steps {
    pub fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        let factors = if self.preconditioned { preconditioner::len(&x) } else { 0 };
        let mut state = State::at(f, x, VECTORS, FACTORS + factors)?;
        let size = if self.preconditioned {
            preconditioner::factorise(&state.x, f.gauge(), &mut state.scalars[FACTORS..]);
            preconditioner::norm_squared(&state.scalars[FACTORS..], &state.x).sqrt()
        } else {
            state.x.norm()
        };
        state.scalars[RADIUS] = self.first_radius * if size > 0.0 { size } else { 1.0 };
        state.scalars[FIRST_GRADIENT] = state.gradient_norm;
        Ok(state)
    }

    pub fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let mut vectors = std::mem::take(&mut state.vectors);
        if self.preconditioned {
            preconditioner::factorise(&state.x, f.gauge(), &mut state.scalars[FACTORS..]);
            state.evaluations.factorisations += state.x.count();
        }
        let (exit, predicted) = self.truncated_cg(f, state, &mut vectors);
        state.iteration += 1;
        if exit == Exit::NegativeCurvature {
            state.scalars[NEGATIVE] += 1.0;
        }
        let (head, tail) = vectors.split_at_mut(TRIAL);
        let (trial, trial_gradient) = tail.split_at_mut(1);
        let (trial, trial_gradient) = (&mut trial[0], &mut trial_gradient[0]);
        trial.copy_from(&state.x);
        trial.add_scaled(1.0, &head[STEP]);
        let value = f.gradient(trial, trial_gradient, &mut state.work);
        state.evaluations.gradients += 1;
        let gradient_norm = trial_gradient.norm();
        let ratio = (state.value - value) / predicted;
        let hidden = predicted <= ROUNDING * state.value.abs();
        // Where rounding hides the decrease, the gradient decides.
        let accept = if hidden { gradient_norm < state.gradient_norm } else { ratio > ACCEPT };
        if !hidden {
            if ratio.is_nan() || ratio < 0.25 {
                state.scalars[RADIUS] *= 0.25;
            } else if ratio > 0.75 && exit != Exit::Inside {
                state.scalars[RADIUS] *= 2.0;
            }
        }
        if accept && value.is_finite() && gradient_norm.is_finite() {
            std::mem::swap(&mut state.x, trial);
            std::mem::swap(&mut state.gradient, trial_gradient);
            state.value = value;
            state.gradient_norm = gradient_norm;
        } else {
            let lost = state.scalars[RADIUS] <= f64::EPSILON * state.x.norm();
            if hidden || lost {
                state.stop = Some(StopReason::Stagnated);
            }
        }
        state.vectors = vectors;
        Ok(())
    }

    /// Leaves the step in `vectors[STEP]`; returns how it ended and the decrease that the model predicts.
    fn truncated_cg(
        &self,
        f: &dyn Objective,
        state: &mut State,
        vectors: &mut [Blocks],
    ) -> (Exit, f64) {
        let [p, residual, scaled, direction, product, ..] = vectors else {
            return (Exit::Inside, 0.0);
        };
        let radius_squared = state.scalars[RADIUS] * state.scalars[RADIUS];
        p.fill(0.0);
        residual.copy_from(&state.gradient);
        self.scale(state, residual, scaled);
        direction.copy_from(scaled);
        direction.scale(-1.0);
        let mut fall = residual.dot(scaled);
        // Superlinear convergence: the residual shrinks with the gradient.
        let shrink = (state.gradient_norm / state.scalars[FIRST_GRADIENT]).sqrt().min(0.5);
        let enough = fall * shrink * shrink;
        // ||p||_M^2, <p, M d>, ||d||_M^2 by recurrence; M enters nowhere else.
        let (mut p_p, mut p_d, mut d_d) = (0.0, 0.0, fall);
        let mut predicted = 0.0;
        f.prepare(&state.x, &mut state.work);
        for _ in 0..self.products {
            if fall <= 0.0 {
                break;
            }
            match self.model {
                Model::Hessian => {
                    f.prepared_hessian_product(&state.x, direction, product, &mut state.work)
                }
                Model::GaussNewton => {
                    f.prepared_gauss_newton_product(&state.x, direction, product, &mut state.work)
                }
            }
            state.evaluations.hessian_products += 1;
            let curvature = direction.dot(product);
            let step = fall / curvature;
            let next_p_p = p_p + step * (2.0 * p_d + step * d_d);
            if curvature <= 0.0 || next_p_p >= radius_squared {
                // To the boundary: ||p + a d||_M = radius.
                let root = (p_d * p_d + d_d * (radius_squared - p_p)).max(0.0).sqrt();
                let to_boundary = (radius_squared - p_p) / (p_d + root);
                p.add_scaled(to_boundary, direction);
                predicted += to_boundary * (fall - 0.5 * to_boundary * curvature);
                let exit = if curvature <= 0.0 { Exit::NegativeCurvature } else { Exit::Boundary };
                return (exit, predicted);
            }
            p.add_scaled(step, direction);
            predicted += 0.5 * step * fall;
            p_p = next_p_p;
            residual.add_scaled(step, product);
            self.scale(state, residual, scaled);
            let next_fall = residual.dot(scaled);
            if next_fall <= enough {
                break;
            }
            let beta = next_fall / fall;
            fall = next_fall;
            direction.scale(beta);
            direction.add_scaled(-1.0, scaled);
            p_d = beta * (p_d + step * d_d);
            d_d = fall + beta * beta * d_d;
        }
        (Exit::Inside, predicted)
    }

    /// `out = M^{-1} v`.
    fn scale(&self, state: &State, v: &Blocks, out: &mut Blocks) {
        if self.preconditioned {
            preconditioner::solve(&state.scalars[FACTORS..], v, out);
        } else {
            out.copy_from(v);
        }
    }
}

/// Steps along directions of negative curvature so far.
pub(super) fn negative_curvature_exits(state: &State) -> usize {
    state.scalars[NEGATIVE] as usize
}
