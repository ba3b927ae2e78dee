//! L-BFGS with the line search of Moré and Thuente.
//!
//! The direction is `-H grad f`, `H` the inverse Hessian's BFGS approximation from the last `memory`
//! pairs `s = x' - x`, `y = g' - g` in the two-loop form, started at `(s.y / y.y) I`; pairs without
//! positive `s.y` are left out. A failed search forgets the pairs and tries the gradient once. Source: Liu
//! and Nocedal 1989; the search's numbers and the first step `1 / ||g||` are those of L-BFGS-B
//! (Zhu et al. 1997), so that iterations can be compared.
//!
//! Limits: its steps are long, and the objective has critical values at infinity (theory.md C6): about
//! one run in 200 at T = 2 goes there and stops as `diverging`. Memory 2 m n.

use super::line_search::{Line, Wolfe, wolfe};
use super::stagnate;
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "lbfgs",
    summary: "L-BFGS with a strong Wolfe line search.",
    order: Order::First,
    memory: "(2 memory + 5) n",
    guarantees: "decreases the objective; limit points are stationary in practice; may run to infinity (reported as diverging)",
    needs_start: true,
    settings: &[SettingInfo { name: "memory", default: "10", meaning: "pairs kept, at least 1" }],
    build: |settings| {
        let solver = Lbfgs { memory: settings.count("memory", 10, 1, "a whole number from 1")? };
        let limits = settings.limits(Limits::default());
        Ok(Box::new(Iterative { name: "lbfgs", solver, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lbfgs {
    /// Pairs kept.
    pub memory: usize,
}

/// Numbers of L-BFGS-B's search.
const SEARCH: Wolfe = Wolfe { decrease: 1e-3, curvature: 0.9, interval: 0.1, trials: 20 };

const ORIGIN: usize = 0;
const GRADIENT: usize = 1;
const DIRECTION: usize = 2;
const PAIRS: usize = 3;
/// Scalars: pairs kept, slot of the next one, then `s.y`, the loop's coefficient and `y.y` a pair.
const KEPT: usize = 0;
const NEXT: usize = 1;
const PRODUCTS: usize = 2;

impl Solver for Lbfgs {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        if self.memory == 0 {
            let expected = "at least 1";
            return Err(SolveError::Setting { name: "memory", value: 0.0, expected });
        }
        State::at(f, x, PAIRS + 2 * self.memory, PRODUCTS + 3 * self.memory)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let mut vectors = std::mem::take(&mut state.vectors);
        // The search writes the new point and its gradient before it reads them.
        std::mem::swap(&mut vectors[ORIGIN], &mut state.x);
        std::mem::swap(&mut vectors[GRADIENT], &mut state.gradient);
        let value = state.value;
        let mut done = self.search(f, state, &mut vectors, value);
        if done.is_none() && state.scalars[KEPT] > 0.0 {
            // A poor model of the curvature: forget it and search along the gradient.
            state.scalars[KEPT] = 0.0;
            done = self.search(f, state, &mut vectors, value);
        }
        match done {
            Some(()) => {
                state.gradient_norm = state.gradient.norm();
                state.iteration += 1;
                self.remember(state, &mut vectors);
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

impl Lbfgs {
    /// Slot of the `age`-th newest pair.
    fn slot(&self, state: &State, age: usize) -> usize {
        (state.scalars[NEXT] as usize + 2 * self.memory - 1 - age) % self.memory
    }

    fn search(
        &self,
        f: &dyn Objective,
        state: &mut State,
        vectors: &mut [Blocks],
        value: f64,
    ) -> Option<()> {
        let (first, slope) = self.direction(state, vectors);
        if slope.is_nan() || slope >= 0.0 {
            return None;
        }
        let line = Line { origin: &vectors[ORIGIN], direction: &vectors[DIRECTION], value, slope };
        let step = wolfe(f, state, &line, first, &SEARCH)?;
        // A step that rounding swallows is none.
        (step > 0.0 && state.value.is_finite()).then_some(())
    }

    /// Writes the direction; returns the first step to try along it and the slope.
    ///
    /// Each update of the direction is one pass with the inner product that comes next.
    fn direction(&self, state: &mut State, vectors: &mut [Blocks]) -> (f64, f64) {
        let (head, pairs) = vectors.split_at_mut(PAIRS);
        let (before, direction) = head.split_at_mut(DIRECTION);
        let (gradient, direction) = (&before[GRADIENT], &mut direction[0]);
        direction.copy_from(gradient);
        direction.scale(-1.0);
        let kept = state.scalars[KEPT] as usize;
        if kept == 0 {
            let norm = direction.norm();
            return ((1.0 / norm).min(1e10), -norm * norm);
        }
        let newest = self.slot(state, 0);
        let mut product = pairs[2 * newest].dot(direction);
        for age in 0..kept {
            let slot = self.slot(state, age);
            let coefficient = product / state.scalars[PRODUCTS + 3 * slot];
            state.scalars[PRODUCTS + 3 * slot + 1] = coefficient;
            let y = &pairs[2 * slot + 1];
            // After the oldest pair its `y` comes next, once more.
            let next = if age + 1 < kept { 2 * self.slot(state, age + 1) } else { 2 * slot + 1 };
            product = direction.add_scaled_dot(-coefficient, y, &pairs[next]);
        }
        let of_newest = &state.scalars[PRODUCTS + 3 * newest..];
        let scale = of_newest[0] / of_newest[2];
        direction.scale(scale);
        product *= scale;
        for age in (0..kept).rev() {
            let slot = self.slot(state, age);
            let own = &state.scalars[PRODUCTS + 3 * slot..];
            let factor = own[1] - product / own[0];
            let next = if age > 0 { &pairs[2 * self.slot(state, age - 1) + 1] } else { gradient };
            product = direction.add_scaled_dot(factor, &pairs[2 * slot], next);
        }
        (1.0, product)
    }

    /// Keeps the pair of the step just made where its curvature is positive.
    fn remember(&self, state: &mut State, vectors: &mut [Blocks]) {
        let (head, pairs) = vectors.split_at_mut(PAIRS);
        let slot = state.scalars[NEXT] as usize;
        let (s, y) = pairs[2 * slot..2 * slot + 2].split_at_mut(1);
        s[0].set_sum(&state.x, -1.0, &head[ORIGIN]);
        y[0].set_sum(&state.gradient, -1.0, &head[GRADIENT]);
        let (product, size) = (s[0].dot(&y[0]), y[0].dot(&y[0]));
        if product > f64::EPSILON * size {
            state.scalars[PRODUCTS + 3 * slot] = product;
            state.scalars[PRODUCTS + 3 * slot + 2] = size;
            state.scalars[NEXT] = ((slot + 1) % self.memory) as f64;
            state.scalars[KEPT] = (state.scalars[KEPT] + 1.0).min(self.memory as f64);
        } else {
            // The slot held the oldest pair where all were in use.
            state.scalars[KEPT] = state.scalars[KEPT].min(self.memory as f64 - 1.0);
        }
    }
}
