//! Scaled gradient descent in the factors: gradient descent in a metric that does not see how a
//! product's size is split between its factors.
//!
//! `U_t <- U_t - a (dF/dU_t) M_t^{-1}`, `M_t = (2/T) U_t^T U_t`; asymmetric: `M_t = (1/T) V_t^T V_t` for
//! `U_t` and `(1/T) U_t^T U_t` for `V_t`. The rate near a solution does not depend on the condition number of
//! the offsets. Source: Mishra et al. 2012 (right-invariant metrics on fixed-rank matrices), Tong, Ma
//! and Chi 2021 (ScaledGD). Backtracking from twice the last step, at most `1`. One gradient a trial,
//! O(T d k^2) for the scaling.

use super::line_search::{Line, backtrack};
use super::stagnate;
use crate::registry::{Entry, Order};
use crate::{Iterative, Limits, SolveError, Solver, State, preconditioner};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "scaled-gradient",
    summary: "Gradient descent preconditioned by the other factor's Gram matrix, with a backtracking line search.",
    order: Order::First,
    memory: "4 n + 2 T k^2",
    guarantees: "decreases the objective; limit points with factors of full rank are stationary",
    needs_start: true,
    settings: &[],
    build: |settings| {
        let limits = settings.limits(Limits::default());
        Ok(Box::new(Iterative { name: "scaled-gradient", solver: ScaledGradientDescent, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaledGradientDescent;

const ORIGIN: usize = 0;
const DIRECTION: usize = 1;
const GRADIENT: usize = 2;
const STEP: usize = 0;
const FACTORS: usize = 1;

impl Solver for ScaledGradientDescent {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        let scalars = FACTORS + preconditioner::len(&x);
        let mut state = State::at(f, x, 3, scalars)?;
        state.scalars[STEP] = 0.5;
        Ok(state)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let mut vectors = std::mem::take(&mut state.vectors);
        vectors[ORIGIN].copy_from(&state.x);
        vectors[GRADIENT].copy_from(&state.gradient);
        let factors = &mut state.scalars[FACTORS..];
        preconditioner::factorise(&state.x, f.gauge(), factors);
        state.evaluations.factorisations += state.x.count();
        preconditioner::solve(factors, &state.gradient, &mut vectors[DIRECTION]);
        vectors[DIRECTION].scale(-1.0);
        let (value, slope) = (state.value, state.gradient.dot(&vectors[DIRECTION]));
        let line = Line { origin: &vectors[ORIGIN], direction: &vectors[DIRECTION], value, slope };
        match backtrack(f, state, &line, (2.0 * state.scalars[STEP]).min(1.0)) {
            Some(step) => {
                state.scalars[STEP] = step;
                state.gradient_norm = state.gradient.norm();
                state.iteration += 1;
            }
            None => stagnate(state, &vectors[ORIGIN], &vectors[GRADIENT], value),
        }
        state.vectors = vectors;
        Ok(())
    }

    fn commutes_with_rotations(&self) -> bool {
        true
    }
}
