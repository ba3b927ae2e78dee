//! An iterative method on the profile objective, as an answer to "which base".
//!
//! The loop of [`iterate::run`] from the start given, until one test of stationarity that all methods
//! share: `||grad F|| <= tolerance * Problem::gradient_scale()`. The base is the profile minimiser for
//! the adapters that the method ends with.

use crate::first_order::check_start;
use crate::iterate::{self, Any, Diverging, MaxIterations, ScaledGradient};
use crate::problem::{input_asymmetry, start_of};
use crate::{BaseSolver, Observer, Problem, Solution, SolveError, Solver, State};
use peftml_linalg::{Blocks, LowRank};
use peftml_theory::linear::{Kind, ProfileObjective};

/// When an iterative method ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most steps.
    pub max_iterations: usize,
    /// Relative tolerance of the scaled gradient test.
    pub tolerance: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_iterations: 10_000, tolerance: 1e-8 }
    }
}

/// A [`Solver`] on the profile objective; see the module's header.
pub struct Iterative<S> {
    /// The method's name, for messages.
    pub name: &'static str,
    /// The method.
    pub solver: S,
    /// When it ends.
    pub limits: Limits,
}

impl<S: Solver + Send + Sync> BaseSolver for Iterative<S> {
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        solve_with(self.name, &self.solver, problem, start, &self.limits, observer)
    }
}

/// Runs `solver` on the profile objective of `problem`.
///
/// # Errors
/// [`SolveError::StartMissing`], [`SolveError::Start`], and what the solver returns.
pub fn solve_with(
    name: &'static str,
    solver: &dyn Solver,
    problem: &Problem<'_>,
    start: Option<&Blocks>,
    limits: &Limits,
    observer: &mut dyn Observer,
) -> Result<Solution, SolveError> {
    let f = ProfileObjective::new(problem.tasks, problem.kind, problem.rank)?;
    let start = start_of(name, start)?;
    let (d, count) = (problem.tasks.dimension(), problem.tasks.count());
    check_start(start, problem.kind, count, d, problem.rank)?;
    let spread = problem.spread();
    let scale = problem.gradient_scale_for(spread);
    let rule = Any(vec![
        Box::new(Diverging { spread, value: problem.moment() * spread * spread, scale }),
        Box::new(ScaledGradient { tolerance: limits.tolerance, scale }),
        Box::new(MaxIterations(limits.max_iterations)),
    ]);
    let state = iterate::run(solver, &f, start.clone(), &rule, observer)?;
    solution(problem, &f, state)
}

fn solution(
    problem: &Problem<'_>,
    f: &ProfileObjective<'_>,
    state: State,
) -> Result<Solution, SolveError> {
    let Some(stop_reason) = state.stop else {
        return Err(SolveError::NotFinite { iteration: state.iteration });
    };
    if !state.x.is_finite() || !state.value.is_finite() {
        return Err(SolveError::NotFinite { iteration: state.iteration });
    }
    Ok(Solution {
        base: f.base(&state.x),
        adapters: adapters(problem, &state.x),
        loss: state.value,
        rho: None,
        gap: None,
        predicted_error: None,
        iterations: state.iteration,
        stop_reason,
        evaluations: state.evaluations,
        input_asymmetry: input_asymmetry(problem),
    })
}

/// The tasks' adapters from blocks `U0..`, then `V0..` where asymmetric.
pub(crate) fn adapters(problem: &Problem<'_>, x: &Blocks) -> Vec<LowRank> {
    let count = problem.tasks.count();
    let adapter = |t: usize| match problem.kind {
        Kind::Symmetric => Some(LowRank::symmetric(x.block(t).to_owned())),
        Kind::Asymmetric => LowRank::new(x.block(t).to_owned(), x.block(count + t).to_owned()),
    };
    (0..count).filter_map(adapter).collect()
}
