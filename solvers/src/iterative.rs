//! An iterative method on the profile objective, as an answer to "which base".
//!
//! The loop of [`iterate::run`] from the start given, until one test of stationarity that all methods
//! share: `||grad F|| <= tolerance * Problem::gradient_scale()`. The base is the profile minimiser for
//! the adapters that the method ends with. Where the method allows it and it pays, the loop runs in a basis
//! of the tasks' ranges (`solvers/src/reduction.rs`).

use crate::first_order::check_start;
use crate::iterate::{self, Any, Diverging, MaxIterations, ScaledGradient, Silent};
use crate::problem::{input_asymmetry, start_of};
use crate::reduction::{LEAST_TOLERANCE, Reduction};
use crate::{BaseSolver, Observer, Problem, Solution, SolveError, Solver, State, StopReason};
use faer::Mat;
use peftml_linalg::{Blocks, LowRank};
use peftml_theory::linear::{Kind, LinearError, ProfileObjective};

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
    check_rank(problem)?;
    let start = start_of(name, start)?;
    let (d, count) = (problem.tasks.dimension(), problem.tasks.count());
    check_start(start, problem.kind, count, d, problem.rank)?;
    if solver.commutes_with_rotations()
        && limits.tolerance >= LEAST_TOLERANCE
        && let Some(reduction) = Reduction::new(problem, start)
        && let Some(f) = reduction.objective()
    {
        return solve_reduced(solver, problem, (&reduction, &f), start, limits, observer);
    }
    let f = ProfileObjective::new(problem.tasks, problem.kind, problem.rank)?;
    let rule = rule(problem, problem.spread(), limits);
    let state = iterate::run(solver, &f, start.clone(), &rule, observer)?;
    checked(&state)?;
    let base = f.base(&state.x);
    Ok(solution(problem, base, state))
}

fn check_rank(problem: &Problem<'_>) -> Result<(), SolveError> {
    let (rank, dimension) = (problem.rank, problem.tasks.dimension());
    if rank == 0 || rank > dimension {
        return Err(LinearError::Rank { rank, dimension }.into());
    }
    Ok(())
}

/// The same iteration in the basis of the tasks' ranges.
fn solve_reduced(
    solver: &dyn Solver,
    problem: &Problem<'_>,
    (reduction, f): (&Reduction, &ProfileObjective<'_>),
    start: &Blocks,
    limits: &Limits,
    observer: &mut dyn Observer,
) -> Result<Solution, SolveError> {
    let rule = rule(problem, reduction.spread(), limits);
    let coordinates = reduction.coordinates(start);
    let mut state = if observer.wants_states() {
        let shown = State::blank(reduction.layout().clone());
        let mut lifting = Lifting { reduction, observer, shown };
        iterate::run(solver, f, coordinates, &rule, &mut lifting)?
    } else {
        iterate::run(solver, f, coordinates, &rule, &mut Silent)?
    };
    checked(&state)?;
    let mut x = Blocks::zeros(reduction.layout().clone());
    reduction.lift(&state.x, &mut x);
    state.x = x;
    let base = reduction.base(&state.x);
    Ok(solution(problem, base, state))
}

/// Shows states of a reduced problem as those of the whole one. The solver's own vectors stay as they are.
struct Lifting<'a> {
    reduction: &'a Reduction,
    observer: &'a mut dyn Observer,
    shown: State,
}

impl Observer for Lifting<'_> {
    fn on_state(&mut self, state: &State) {
        let shown = &mut self.shown;
        self.reduction.lift(&state.x, &mut shown.x);
        self.reduction.lift(&state.gradient, &mut shown.gradient);
        shown.value = state.value;
        shown.gradient_norm = state.gradient_norm;
        shown.iteration = state.iteration;
        shown.evaluations = state.evaluations;
        shown.stop = state.stop;
        shown.scalars.clone_from(&state.scalars);
        self.observer.on_state(shown);
    }
}

/// The test that all methods share, with the ways to end without it.
fn rule(problem: &Problem<'_>, spread: f64, limits: &Limits) -> Any {
    let scale = problem.gradient_scale_for(spread);
    Any(vec![
        Box::new(Diverging { spread, value: problem.moment() * spread * spread, scale }),
        Box::new(ScaledGradient { tolerance: limits.tolerance, scale }),
        Box::new(MaxIterations(limits.max_iterations)),
    ])
}

fn checked(state: &State) -> Result<(), SolveError> {
    if state.stop.is_none() || !state.x.is_finite() || !state.value.is_finite() {
        return Err(SolveError::NotFinite { iteration: state.iteration });
    }
    Ok(())
}

fn solution(problem: &Problem<'_>, base: Mat<f64>, state: State) -> Solution {
    Solution {
        base,
        adapters: adapters(problem, &state.x),
        loss: state.value,
        rho: None,
        gap: None,
        predicted_error: None,
        iterations: state.iteration,
        // `checked` has seen that there is one.
        stop_reason: state.stop.unwrap_or(StopReason::MaxIterations),
        evaluations: state.evaluations,
        input_asymmetry: input_asymmetry(problem),
    }
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
