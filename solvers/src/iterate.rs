//! Steps, states, stopping and the loop.
//!
//! ```text
//! state = solver.init(f, x0)
//! observe(state)
//! until rule.check(state) gives a reason:  solver.step(f, state); observe(state)
//! ```
//! A checkpoint is a [`State`] and nothing else. Nothing allocates after `init`.

use crate::SolveError;
use peftml_linalg::{Blocks, Layout};
use peftml_theory::Objective;
use std::fmt;

/// Why an iteration ended. Running out of iterations is a result, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The scaled gradient test holds: a stationary point, of whatever kind.
    Stationary,
    /// Stationary, and at least one direction of negative curvature was followed and exhausted.
    SecondOrderStationary,
    /// The value reached the target.
    TargetReached,
    /// No further decrease is possible in floating point, before the gradient test holds.
    Stagnated,
    /// The iterate's norm grows without bound while the gradient fades.
    Diverging,
    /// The iteration limit.
    MaxIterations,
    /// A direct method: there was nothing to iterate.
    Direct,
}

impl StopReason {
    /// The name used in files: `"stationary"`, `"max_iterations"`, ..
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Stationary => "stationary",
            StopReason::SecondOrderStationary => "second_order_stationary",
            StopReason::TargetReached => "target_reached",
            StopReason::Stagnated => "stagnated",
            StopReason::Diverging => "diverging",
            StopReason::MaxIterations => "max_iterations",
            StopReason::Direct => "direct",
        }
    }
}

/// How often a problem was evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluations {
    /// Values.
    pub values: usize,
    /// Gradients (each with its value).
    pub gradients: usize,
    /// Hessian or Gauss-Newton products.
    pub hessian_products: usize,
    /// Factorisations: eigenvalues, singular values, Cholesky, QR.
    pub factorisations: usize,
}

/// All that changes in an iteration.
#[derive(Clone, Debug)]
pub struct State {
    /// The iterate.
    pub x: Blocks,
    /// `f(x)`.
    pub value: f64,
    /// Gradient at `x`.
    pub gradient: Blocks,
    /// Euclidean norm of the gradient.
    pub gradient_norm: f64,
    /// Steps made.
    pub iteration: usize,
    /// Evaluations so far.
    pub evaluations: Evaluations,
    /// Set by a solver that cannot go on.
    pub stop: Option<StopReason>,
    /// The solver's vectors (directions, moments, memory), meaning defined by the solver.
    pub vectors: Vec<Blocks>,
    /// The solver's scalars (step sizes, radii, counters), meaning defined by the solver.
    pub scalars: Vec<f64>,
    /// Scratch for the objective; no part of the state's meaning.
    pub work: Vec<f64>,
    /// Scratch for the solver; no part of the state's meaning.
    pub scratch: Scratch,
}

/// A solver's workspace of whatever type (decompositions, packed matrices). A copy of a state has
/// none: the solver makes a new one.
#[derive(Default)]
pub struct Scratch(Option<Box<dyn std::any::Any + Send>>);

impl Scratch {
    /// The workspace, made by `new` where there is none of this type.
    pub fn get_or_insert_with<W: std::any::Any + Send>(
        &mut self,
        new: impl FnOnce() -> W,
    ) -> &mut W {
        if !self.0.as_ref().is_some_and(|workspace| workspace.is::<W>()) {
            self.0 = None;
        }
        let workspace = self.0.get_or_insert_with(|| Box::new(new()));
        workspace.downcast_mut().expect("the type has just been checked")
    }
}

impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl State {
    /// The origin of `layout` with value and gradient zero: for methods that keep their own state and
    /// show it in this form.
    pub(crate) fn blank(layout: Layout) -> Self {
        let x = Blocks::zeros(layout);
        Self {
            gradient: x.zeros_like(),
            x,
            value: 0.0,
            gradient_norm: 0.0,
            iteration: 0,
            evaluations: Evaluations::default(),
            stop: None,
            vectors: Vec::new(),
            scalars: Vec::new(),
            work: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The state at `x` with value and gradient evaluated, `vectors` zero vectors of `x`'s space and
    /// `scalars` zeros.
    ///
    /// # Errors
    /// [`SolveError::NotFinite`] where value or gradient is not.
    pub fn at(
        f: &dyn Objective,
        x: Blocks,
        vectors: usize,
        scalars: usize,
    ) -> Result<Self, SolveError> {
        let mut work = vec![0.0; f.work_len()];
        let mut gradient = x.zeros_like();
        let value = f.gradient(&x, &mut gradient, &mut work);
        let gradient_norm = gradient.norm();
        if !value.is_finite() || !gradient_norm.is_finite() {
            return Err(SolveError::NotFinite { iteration: 0 });
        }
        Ok(Self {
            vectors: (0..vectors).map(|_| x.zeros_like()).collect(),
            scalars: vec![0.0; scalars],
            x,
            value,
            gradient,
            gradient_norm,
            iteration: 0,
            evaluations: Evaluations { gradients: 1, ..Default::default() },
            stop: None,
            work,
            scratch: Scratch::default(),
        })
    }
}

/// An iterative method: configuration, no state.
pub trait Solver {
    /// The first state. Everything the iteration needs is allocated here.
    ///
    /// # Errors
    /// [`SolveError`] where the start is of no use.
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError>;

    /// One step: a new `x` with its value and gradient, or [`State::stop`].
    ///
    /// # Errors
    /// [`SolveError`] where no step can be made and no stop reason fits.
    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError>;

    /// Whether steps are made of points, gradients, products and their inner products alone (or of what an
    /// orthogonal change of the blocks' rows leaves alone otherwise, such as Gram matrices): then the
    /// iteration may run in other coordinates. A method that looks at single entries must say no.
    fn commutes_with_rotations(&self) -> bool {
        false
    }
}

/// When to stop.
pub trait StopRule {
    /// A reason to stop at `state`, if there is one.
    fn check(&self, state: &State) -> Option<StopReason>;
}

/// Sees every state, iteration 0 and the last included; cannot stop anything.
pub trait Observer {
    /// Called at every state.
    fn on_state(&mut self, state: &State);

    /// Whether it has any use for states: methods that would have to assemble one only to show it need
    /// not do so.
    fn wants_states(&self) -> bool {
        true
    }
}

/// Observes nothing.
pub struct Silent;

impl Observer for Silent {
    fn on_state(&mut self, _: &State) {}

    fn wants_states(&self) -> bool {
        false
    }
}

impl<F: FnMut(&State)> Observer for F {
    fn on_state(&mut self, state: &State) {
        self(state)
    }
}

/// At most this many steps.
pub struct MaxIterations(
    /// The limit.
    pub usize,
);

impl StopRule for MaxIterations {
    fn check(&self, state: &State) -> Option<StopReason> {
        (state.iteration >= self.0).then_some(StopReason::MaxIterations)
    }
}

/// `||grad f|| <= tolerance * scale`: the one test of stationarity that all solvers share.
///
/// The objective is quartic in the factors and the gradient cubic, so `scale` is a cube of a length,
/// for instance `rms(U)^3`, or `||residual|| ||U||` for rounding level.
pub struct ScaledGradient {
    /// Relative tolerance.
    pub tolerance: f64,
    /// Size of a gradient that is not small.
    pub scale: f64,
}

impl StopRule for ScaledGradient {
    fn check(&self, state: &State) -> Option<StopReason> {
        (state.gradient_norm <= self.tolerance * self.scale).then_some(StopReason::Stationary)
    }
}

/// The value is at most the target.
pub struct Target(
    /// The target.
    pub f64,
);

impl StopRule for Target {
    fn check(&self, state: &State) -> Option<StopReason> {
        (state.value <= self.0).then_some(StopReason::TargetReached)
    }
}

/// Factors far larger than the tasks' differences while the value stays of their size and the
/// gradient fades: a run to infinity, where the objective has critical values too (theory.md C6).
pub struct Diverging {
    /// `max_t ||Ahat_t - mean Ahat||_F`, the size of an offset.
    pub spread: f64,
    /// A value of the size of one that the start has.
    pub value: f64,
    /// Size of a gradient that is not small.
    pub scale: f64,
}

impl Diverging {
    /// `||U_t||_F^2` beyond this many spreads is far.
    const FAR: f64 = 100.0;
}

impl StopRule for Diverging {
    fn check(&self, state: &State) -> Option<StopReason> {
        // Adapters that large are needed for nothing: offsets are of the size of the spread. Values at
        // rounding level are solutions all the same (T = 2 has arbitrarily large ones).
        let fading = state.gradient_norm < 1e-3 * self.scale;
        let between = state.value > 1e-12 * self.value && state.value < 50.0 * self.value;
        if !fading || !between {
            return None;
        }
        let far = (0..state.x.count()).any(|i| {
            peftml_linalg::kernel::norm_squared(state.x.block(i)) > Self::FAR * self.spread
        });
        far.then_some(StopReason::Diverging)
    }
}

/// Stops at the first rule that fires, asked in order.
pub struct Any(
    /// The rules.
    pub Vec<Box<dyn StopRule>>,
);

impl StopRule for Any {
    fn check(&self, state: &State) -> Option<StopReason> {
        self.0.iter().find_map(|rule| rule.check(state))
    }
}

/// Stops where every rule fires; the last one's reason counts.
pub struct All(
    /// The rules.
    pub Vec<Box<dyn StopRule>>,
);

impl StopRule for All {
    fn check(&self, state: &State) -> Option<StopReason> {
        self.0.iter().map(|rule| rule.check(state)).collect::<Option<Vec<_>>>()?.pop()
    }
}

/// The loop: steps until the solver or `rule` gives a reason, which the state then holds.
///
/// # Errors
/// What `init` or `step` return.
pub fn run(
    solver: &dyn Solver,
    f: &dyn Objective,
    x: Blocks,
    rule: &dyn StopRule,
    observer: &mut dyn Observer,
) -> Result<State, SolveError> {
    let mut state = solver.init(f, x)?;
    observer.on_state(&state);
    while state.stop.is_none() {
        state.stop = rule.check(&state);
        if state.stop.is_none() {
            solver.step(f, &mut state)?;
            observer.on_state(&state);
        }
    }
    Ok(state)
}
