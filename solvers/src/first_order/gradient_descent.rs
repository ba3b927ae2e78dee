//! Gradient descent with a backtracking line search.
//!
//! `x <- x - a grad f(x)`, `a` halved from twice the last accepted step until
//! `f` falls by `1e-4 a ||grad f||^2` (Armijo). Linear convergence near a minimum with positive
//! curvature off the gauge; ends at stationary points (Nocedal and Wright, Numerical Optimization, 3.1).
//! One gradient a trial; about two trials a step.

use super::line_search::{Line, backtrack};
use super::stagnate;
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "gradient-descent",
    summary: "Gradient descent with a backtracking line search.",
    order: Order::First,
    memory: "3 n",
    guarantees: "decreases the objective; limit points are stationary",
    needs_start: true,
    settings: &[SettingInfo {
        name: "first_step_size",
        default: "0.1",
        meaning: "first trial step, above 0; later ones adapt",
    }],
    build: |settings| {
        let solver = GradientDescent {
            first_step_size: settings.number(
                "first_step_size",
                0.1,
                f64::MIN_POSITIVE..=1e300,
                "a positive number",
            )?,
        };
        let limits = settings.limits(Limits::default());
        Ok(Box::new(Iterative { name: "gradient-descent", solver, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientDescent {
    /// First trial step.
    pub first_step_size: f64,
}

const ORIGIN: usize = 0;
const DIRECTION: usize = 1;
const STEP: usize = 0;

impl Solver for GradientDescent {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        let mut state = State::at(f, x, 2, 1)?;
        state.scalars[STEP] = 0.5 * self.first_step_size;
        Ok(state)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let mut vectors = std::mem::take(&mut state.vectors);
        vectors[ORIGIN].copy_from(&state.x);
        vectors[DIRECTION].copy_from(&state.gradient);
        vectors[DIRECTION].scale(-1.0);
        let (value, slope) = (state.value, -state.gradient_norm * state.gradient_norm);
        let line = Line { origin: &vectors[ORIGIN], direction: &vectors[DIRECTION], value, slope };
        match backtrack(f, state, &line, 2.0 * state.scalars[STEP]) {
            Some(step) => {
                state.scalars[STEP] = step;
                state.gradient_norm = state.gradient.norm();
                state.iteration += 1;
            }
            None => {
                vectors[DIRECTION].scale(-1.0);
                stagnate(state, &vectors[ORIGIN], &vectors[DIRECTION], value);
            }
        }
        state.vectors = vectors;
        Ok(())
    }

    fn commutes_with_rotations(&self) -> bool {
        true
    }
}
