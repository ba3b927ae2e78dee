//! Levenberg-Marquardt with the dense Gauss-Newton matrix.
//!
//! ```text
//! (G + mu I) p = -grad f          G the Gauss-Newton matrix, by Cholesky
//! gain = (f(x) - f(x + p)) / (1/2 p^T (mu p - grad f))
//! accepted (gain > 0):  mu <- mu max(1/3, 1 - (2 gain - 1)^3), nu <- 2
//! refused:              mu <- nu mu, nu <- 2 nu, and again with the same G
//! ```
//! The first `mu` is `first_damping` times the largest diagonal entry of G. For sums of squares with few
//! parameters: a step costs n^3/3 fused multiply-adds beside G. Source: Madsen, Nielsen and Tingleff,
//! "Methods for non-linear least squares problems", 2004, algorithm 3.16, with Nielsen's damping.
//!
//! Limits: blind to negative curvature like every Gauss-Newton method; linear convergence where
//! residuals stay. The gauge's flat directions are no harm: `mu` keeps the system definite.

use crate::{SolveError, Solver, State, StopReason};
use faer::{Mat, MatMut};
use peftml_linalg::Blocks;
use peftml_linalg::decompose::CholeskyFactor;
use peftml_theory::Objective;

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevenbergMarquardt {
    /// First damping, relative to the largest diagonal entry. Default 1e-3; positive.
    pub first_damping: f64,
}

impl Default for LevenbergMarquardt {
    fn default() -> Self {
        Self { first_damping: 1e-3 }
    }
}

// Vectors: the trial point, the step.
const TRIAL: usize = 0;
const STEP: usize = 1;
// Scalars; a damping of 0 is none yet.
const DAMPING: usize = 0;
const GROWTH: usize = 1;

/// Refusals in a row after which no step is left that rounding does not swallow: the damping has then
/// grown by 2^(1 + .. + 40).
const REFUSALS: usize = 40;

impl Solver for LevenbergMarquardt {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        if !(self.first_damping > 0.0 && self.first_damping.is_finite()) {
            let (name, value) = ("first_damping", self.first_damping);
            return Err(SolveError::Setting { name, value, expected: "a positive finite number" });
        }
        State::at(f, x, 2, 2)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let n = state.x.as_slice().len();
        let mut matrix = Mat::zeros(n, n);
        f.gauss_newton_matrix(&state.x, matrix.as_mut(), &mut state.work);
        state.evaluations.hessian_products += 1;
        if state.scalars[DAMPING] == 0.0 {
            let largest = (0..n).fold(0.0_f64, |most, i| most.max(matrix[(i, i)]));
            // Where G vanishes any positive damping makes the step a gradient's.
            state.scalars[DAMPING] = self.first_damping * if largest > 0.0 { largest } else { 1.0 };
            state.scalars[GROWTH] = 2.0;
        }
        for _ in 0..REFUSALS {
            if let Some(gain) = try_step(f, state, &matrix) {
                let bend = 2.0 * gain - 1.0;
                state.scalars[DAMPING] *= (1.0 - bend * bend * bend).max(1.0 / 3.0);
                state.scalars[GROWTH] = 2.0;
                let State { x, gradient, work, vectors, .. } = state;
                x.copy_from(&vectors[TRIAL]);
                state.value = f.gradient(x, gradient, work);
                state.evaluations.gradients += 1;
                state.gradient_norm = state.gradient.norm();
                state.iteration += 1;
                return if state.gradient_norm.is_finite() {
                    Ok(())
                } else {
                    Err(SolveError::NotFinite { iteration: state.iteration })
                };
            }
            state.scalars[DAMPING] *= state.scalars[GROWTH];
            state.scalars[GROWTH] *= 2.0;
        }
        state.stop = Some(StopReason::Stagnated);
        Ok(())
    }
}

/// Writes the trial point; the gain where it is accepted.
fn try_step(f: &dyn Objective, state: &mut State, matrix: &Mat<f64>) -> Option<f64> {
    let damping = state.scalars[DAMPING];
    let mut damped = matrix.clone();
    (0..damped.nrows()).for_each(|i| damped[(i, i)] += damping);
    state.evaluations.factorisations += 1;
    let factor = CholeskyFactor::new(damped.as_ref()).ok()?;
    let (head, tail) = state.vectors.split_at_mut(STEP);
    let (trial, step) = (&mut head[TRIAL], &mut tail[0]);
    step.copy_from(&state.gradient);
    step.scale(-1.0);
    let n = step.as_slice().len();
    factor.solve_in_place(MatMut::from_column_major_slice_mut(step.as_mut_slice(), n, 1));
    trial.copy_from(&state.x);
    trial.add_scaled(1.0, step);
    let predicted = 0.5 * (damping * step.dot(step) - step.dot(&state.gradient));
    let value = f.value(trial, &mut state.work);
    state.evaluations.values += 1;
    let gain = (state.value - value) / predicted;
    (gain > 0.0 && gain.is_finite()).then_some(gain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iterate::{Any, MaxIterations, ScaledGradient, Silent, run};
    use peftml_linalg::Seed;
    use peftml_theory::linear::Kind;
    use peftml_theory::shallow::{
        Adapters, FineTuningObjective, Network, RetrainingObjective, Samples, Sizes,
    };

    /// Noiseless tasks of a network with rank-one offsets, and the start near the truth.
    fn noiseless(d: usize, count: usize) -> (Vec<Samples>, Network, Blocks) {
        let mut stream = Seed::root(8).child("levenberg-marquardt").stream();
        let sizes = Sizes::square(d);
        let mut truth = Network::zeros(sizes).unwrap();
        stream.fill_normal(1.0, truth.weights_mut().as_mut_slice());
        let adapters = Adapters { kind: Kind::Asymmetric, rank: 1 };
        let layout = sizes.layout().followed_by(&adapters.layout(sizes, 3).unwrap());
        let mut point = Blocks::zeros(layout);
        for i in 0..2 {
            point.block_mut(i).copy_from(truth.weights().block(i));
        }
        let tasks = (0..3)
            .map(|t| {
                let (u, v) = (stream.normal_matrix(d, 1, 1.0), stream.normal_matrix(d, 1, 1.0));
                point.block_mut(2 + t).copy_from(&u);
                point.block_mut(5 + t).copy_from(&v);
                let x = stream.normal_matrix(d, count, 1.0);
                let task = truth.adapted(u.as_ref(), v.as_ref()).unwrap();
                let y = task.outputs(x.as_ref()).unwrap();
                Samples::new(sizes, x.as_ref(), y.as_ref()).unwrap()
            })
            .collect();
        let mut offset = point.zeros_like();
        stream.fill_normal(0.02, offset.as_mut_slice());
        point.add_scaled(1.0, &offset);
        (tasks, truth, point)
    }

    /// At zero residual the model is exact in the limit: gradients fall faster and faster, although the
    /// adapters' gauge makes the matrix singular.
    #[test]
    fn it_converges_fast_to_a_zero_residual() {
        let (tasks, _, start) = noiseless(4, 200);
        let adapters = Some(Adapters { kind: Kind::Asymmetric, rank: 1 });
        let f = RetrainingObjective::new(Sizes::square(4), adapters, &tasks).unwrap();
        let rule = Any(vec![
            Box::new(MaxIterations(100)),
            Box::new(ScaledGradient { tolerance: 1e-10, scale: 1.0 }),
        ]);
        let mut norms = Vec::new();
        let mut observer = |state: &State| norms.push(state.gradient_norm);
        let state = run(&LevenbergMarquardt::default(), &f, start, &rule, &mut observer).unwrap();
        assert_eq!(state.stop, Some(StopReason::Stationary), "{norms:?}");
        assert!(state.value < 1e-18, "{}", state.value);
        // The damping alone falls by a factor of three a step: the rate follows it.
        let last = norms.len() - 1;
        assert!(norms[last] < 0.1 * norms[last - 1], "{norms:?}");
    }

    /// With noise no step may raise the value, and the end is stationary; a step is one matrix.
    #[test]
    fn values_fall_to_a_stationary_point_from_anywhere() {
        let (tasks, network, _) = noiseless(5, 60);
        let mut stream = Seed::root(9).child("levenberg-marquardt").stream();
        let x = stream.normal_matrix(5, 60, 1.0);
        let (u, v) = (stream.normal_matrix(5, 1, 1.0), stream.normal_matrix(5, 1, 1.0));
        let clean = network.adapted(u.as_ref(), v.as_ref()).unwrap().outputs(x.as_ref()).unwrap();
        let y = faer::Col::from_fn(60, |s| clean[s] + 0.1 * stream.normal());
        let samples = tasks[0].sizes();
        let samples = Samples::new(samples, x.as_ref(), y.as_ref()).unwrap();
        let adapters = Adapters { kind: Kind::Asymmetric, rank: 1 };
        let f = FineTuningObjective::new(&network, adapters, &samples).unwrap();
        let mut start = Blocks::zeros(f.layout().clone());
        stream.fill_normal(0.5, start.as_mut_slice());
        let rule = Any(vec![
            Box::new(MaxIterations(2000)),
            Box::new(ScaledGradient { tolerance: 1e-8, scale: 1.0 }),
        ]);
        let mut values = Vec::new();
        let mut observer = |state: &State| values.push(state.value);
        let state = run(&LevenbergMarquardt::default(), &f, start, &rule, &mut observer).unwrap();
        assert_eq!(state.stop, Some(StopReason::Stationary), "{}", state.gradient_norm);
        assert!(values.windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(state.evaluations.hessian_products, state.iteration);
    }

    /// At the minimum itself there is nothing to gain: it says so and stays.
    #[test]
    fn where_nothing_decreases_it_stagnates() {
        let (tasks, _, start) = noiseless(3, 100);
        let adapters = Some(Adapters { kind: Kind::Asymmetric, rank: 1 });
        let f = RetrainingObjective::new(Sizes::square(3), adapters, &tasks).unwrap();
        let solver = LevenbergMarquardt::default();
        let state = run(&solver, &f, start, &MaxIterations(400), &mut Silent).unwrap();
        assert_eq!(state.stop, Some(StopReason::Stagnated));
        assert!(state.value < 1e-26);
    }

    #[test]
    fn a_damping_that_is_none_is_refused() {
        let (tasks, _, start) = noiseless(3, 5);
        let adapters = Some(Adapters { kind: Kind::Asymmetric, rank: 1 });
        let f = RetrainingObjective::new(Sizes::square(3), adapters, &tasks).unwrap();
        for first_damping in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = LevenbergMarquardt { first_damping }.init(&f, start.clone());
            let name = "first_damping";
            assert!(matches!(refused, Err(SolveError::Setting { name: n, .. }) if n == name));
        }
    }
}
