//! L-BFGS with the line search of Moré and Thuente.
//!
//! The direction is `-H grad f`, `H` the inverse Hessian's BFGS approximation from the last `memory`
//! pairs `s = x' - x`, `y = g' - g` in the two-loop form, started at `(s.y / y.y) I`; pairs without
//! positive `s.y` are left out. A failed search forgets the pairs and tries the gradient once. Source: Liu
//! and Nocedal 1989; the search's numbers and the first step `1 / ||g||` are those of L-BFGS-B
//! (Zhu et al. 1997), so that iterations can be compared.
//!
//! The two loops run on coefficients (Chen, Wang, Zhou, NIPS 2014): the direction is
//! `-c g - sum c a_i y_i + sum (a_i - b_i) s_i`, and its coefficients need the inner products of the pairs alone.
//! So a step passes twice over the pairs, in pieces that stay in the first cache: once for `s_i.g` and `y_i.g`, once
//! for the sum. `s_i.y` and `y_i.y` of a new `y = g' - g` are differences of those; they lose `||g|| / ||y||`
//! roundings, which is no more than `y` itself has lost.
//!
//! Limits: its steps are long, and the objective has critical values at infinity (theory.md C6): about
//! one run in 200 at T = 2 goes there and stops as `diverging`. Memory 2 m n.

use super::line_search::{Line, Wolfe, wolfe};
use super::stagnate;
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::{Blocks, kernel};
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "lbfgs",
    summary: "L-BFGS with a strong Wolfe line search.",
    order: Order::First,
    memory: "(2 memory + 5) n",
    guarantees: "decreases the objective; limit points are stationary in practice; may run to infinity (reported as diverging)",
    needs_start: true,
    settings: &[SettingInfo { name: "memory", default: "10", meaning: "pairs kept, 1 to 1000" }],
    build: |settings| {
        let solver = Lbfgs { memory: settings.count("memory", 10, 1, EXPECTED)? };
        solver.check()?;
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

/// Most pairs: the table of their inner products has twice the square of this.
const MOST: usize = 1000;
const EXPECTED: &str = "a whole number from 1 to 1000";

/// Numbers of L-BFGS-B's search.
const SEARCH: Wolfe = Wolfe { decrease: 1e-3, curvature: 0.9, interval: 0.1, trials: 20 };

const ORIGIN: usize = 0;
const GRADIENT: usize = 1;
const DIRECTION: usize = 2;
const PAIRS: usize = 3;
/// Scalars: pairs kept, slot of the next one, then what [`Tables`] cuts up.
const KEPT: usize = 0;
const NEXT: usize = 1;
const TABLES: usize = 2;

/// Inner products by slot; `s_y` holds `s_i.y_j` in column j where pair i is no newer than j.
struct Tables<'a> {
    s_g: &'a mut [f64],
    y_g: &'a mut [f64],
    /// `a_i`, then the coefficient of `s_i`.
    first: &'a mut [f64],
    second: &'a mut [f64],
    s_y: &'a mut [f64],
    y_y: &'a mut [f64],
}

impl<'a> Tables<'a> {
    /// Length for `memory` pairs.
    fn len(memory: usize) -> usize {
        4 * memory + 2 * memory * memory
    }

    fn new(scalars: &'a mut [f64], memory: usize) -> Self {
        let (s_g, rest) = scalars[TABLES..].split_at_mut(memory);
        let (y_g, rest) = rest.split_at_mut(memory);
        let (first, rest) = rest.split_at_mut(memory);
        let (second, rest) = rest.split_at_mut(memory);
        let (s_y, y_y) = rest.split_at_mut(memory * memory);
        Self { s_g, y_g, first, second, s_y, y_y }
    }
}

impl Solver for Lbfgs {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        self.check()?;
        State::at(f, x, PAIRS + 2 * self.memory, TABLES + Tables::len(self.memory))
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
    fn check(&self) -> Result<(), SolveError> {
        if (1..=MOST).contains(&self.memory) {
            return Ok(());
        }
        let value = self.memory as f64;
        Err(SolveError::Setting { name: "memory", value, expected: EXPECTED })
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
    fn direction(&self, state: &mut State, vectors: &mut [Blocks]) -> (f64, f64) {
        let (head, pairs) = vectors.split_at_mut(PAIRS);
        let (before, direction) = head.split_at_mut(DIRECTION);
        let (gradient, direction) = (before[GRADIENT].as_slice(), direction[0].as_mut_slice());
        let kept = state.scalars[KEPT] as usize;
        if kept == 0 {
            kernel::combine_many(direction, (-1.0, gradient), 0, |_| (0.0, &[]));
            let norm = kernel::dot(direction, direction).sqrt();
            return ((1.0 / norm).min(1e10), -norm * norm);
        }
        let scale = self.coefficients(state, kept);
        let newest = state.scalars[NEXT] as usize + 2 * self.memory - 1;
        let tables = Tables::new(&mut state.scalars, self.memory);
        let term = |index: usize| {
            let slot = (newest - index / 2) % self.memory;
            let which = if index.is_multiple_of(2) { &*tables.second } else { &*tables.first };
            (which[slot], pairs[2 * slot + index % 2].as_slice())
        };
        (1.0, kernel::combine_many(direction, (-scale, gradient), 2 * kept, term))
    }

    /// The two loops on coefficients: those of `s_i` into `second`, of `y_i` into `first`; returns that of `-g`.
    fn coefficients(&self, state: &mut State, kept: usize) -> f64 {
        let m = self.memory;
        let newest = state.scalars[NEXT] as usize + 2 * m - 1;
        let slot = |age: usize| (newest - age) % m;
        let tables = Tables::new(&mut state.scalars, m);
        for age in 0..kept {
            let i = slot(age);
            let newer = (0..age).map(|j| tables.first[slot(j)] * tables.s_y[slot(j) * m + i]);
            let product = -tables.s_g[i] - newer.sum::<f64>();
            tables.first[i] = product / tables.s_y[i * m + i];
        }
        let last = slot(0) * m + slot(0);
        let scale = tables.s_y[last] / tables.y_y[last];
        for age in (0..kept).rev() {
            let i = slot(age);
            let all = (0..kept).map(|j| tables.first[slot(j)] * tables.y_y[slot(j) * m + i]);
            let of_start = scale * (-tables.y_g[i] - all.sum::<f64>());
            let older =
                (age + 1..kept).map(|j| tables.second[slot(j)] * tables.s_y[i * m + slot(j)]);
            let product = of_start + older.sum::<f64>();
            tables.second[i] = tables.first[i] - product / tables.s_y[i * m + i];
        }
        (0..kept).for_each(|age| tables.first[slot(age)] *= -scale);
        scale
    }

    /// Keeps the pair of the step just made where its curvature is positive, and brings the tables to the new
    /// gradient.
    fn remember(&self, state: &mut State, vectors: &mut [Blocks]) {
        let (head, pairs) = vectors.split_at_mut(PAIRS);
        let m = self.memory;
        let new = state.scalars[NEXT] as usize;
        let (s, y) = pairs[2 * new..2 * new + 2].split_at_mut(1);
        s[0].set_sum(&state.x, -1.0, &head[ORIGIN]);
        y[0].set_sum(&state.gradient, -1.0, &head[GRADIENT]);
        let (product, size) = (s[0].dot(&y[0]), y[0].dot(&y[0]));
        let keeps = product > f64::EPSILON * size;
        // The slot held the oldest pair where all were in use.
        let others = (state.scalars[KEPT] as usize).min(m - 1);
        let tables = Tables::new(&mut state.scalars, m);
        let slot = |age: usize| (new + 2 * m - 1 - age) % m;
        let count = 2 * others + if keeps { 2 } else { 0 };
        let vector = |index: usize| {
            let slot = if index < 2 * others { slot(index / 2) } else { new };
            pairs[2 * slot + index % 2].as_slice()
        };
        // `first` and `second` are free until the next direction.
        tables.first.fill(0.0);
        tables.second.fill(0.0);
        kernel::dots(count, vector, state.gradient.as_slice(), |index, part| {
            let slot = if index < 2 * others { slot(index / 2) } else { new };
            let table =
                if index.is_multiple_of(2) { &mut *tables.first } else { &mut *tables.second };
            table[slot] += part;
        });
        for i in (0..others).map(slot) {
            let (s_y, y_y) = (tables.first[i] - tables.s_g[i], tables.second[i] - tables.y_g[i]);
            if keeps {
                tables.s_y[new * m + i] = s_y;
                tables.y_y[new * m + i] = y_y;
                tables.y_y[i * m + new] = y_y;
            }
        }
        tables.s_g.copy_from_slice(tables.first);
        tables.y_g.copy_from_slice(tables.second);
        let mut kept = others;
        if keeps {
            tables.s_y[new * m + new] = product;
            tables.y_y[new * m + new] = size;
            kept += 1;
            state.scalars[NEXT] = ((new + 1) % m) as f64;
        }
        state.scalars[KEPT] = kept as f64;
    }
}
