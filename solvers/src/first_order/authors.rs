//! The authors' retraining scheme for LoRA-ML, on sufficient statistics.
//!
//! A round is `inner_steps` gradient steps on all adapters with the base fixed, then one gradient step
//! on the base:
//! ```text
//! U_t -= inner_step_size (G_t + G_t^T) U_t             (all t; asymmetric: G_t V_t and G_t^T U_t at once)
//! A   -= outer_step_size (1/T) sum_t G_t               G_t = (A + R_t - Ahat_t) S_t
//! ```
//! which are the steps of the reference on samples (its gradient in `U_t` is divided by N, in `A` by N
//! and T), because these depend on the data through `S_t` and `C_t` alone. The asymmetric version is
//! ours. Source: Block et al. 2025 (arXiv:2410.22264), reference code; experiments.md section 1.
//!
//! Cost a round: O(T d^2 k) an inner step and O(T d^3) for `A S_t` (exact tasks O(T d^2)); no
//! allocation. Limits: constant steps, so it diverges where `inner_step_size ||S_t|| ||U_t||^2` is
//! large; at T = 2 and from some starts it ends at a wrong base.

use super::descent::AdapterDescent;
use super::{check_start, check_step};
use crate::problem::{input_asymmetry, start_of};
use crate::registry::{Entry, Order, SettingInfo};
use crate::{BaseSolver, Evaluations, Observer, Problem, Solution, SolveError, State, StopReason};
use faer::{Mat, MatRef};
use peftml_linalg::{BlockSpec, Blocks, Layout, panel};
use peftml_theory::linear::{Kind, ProfileObjective};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "authors",
    summary: "The paper's scheme: gradient steps on the adapters, then one on the base, constant steps.",
    order: Order::First,
    memory: "(3 T + 4) d^2 + 5 n",
    guarantees: "none; may diverge, may end at a wrong base (always possible at T = 2)",
    needs_start: true,
    settings: &[
        SettingInfo { name: "inner_steps", default: "10", meaning: "adapter steps a round" },
        SettingInfo { name: "inner_step_size", default: "0.003", meaning: "adapter step, above 0" },
        SettingInfo { name: "outer_step_size", default: "0.03", meaning: "base step, above 0" },
    ],
    build: |settings| {
        let default = AuthorsScheme::default();
        let step = |name, default| {
            settings.number(name, default, f64::MIN_POSITIVE..=1e300, "a positive number")
        };
        Ok(Box::new(AuthorsScheme {
            rounds: settings.max_iterations.unwrap_or(default.rounds),
            inner_steps: settings.count("inner_steps", default.inner_steps, 0, "a whole number")?,
            inner_step_size: step("inner_step_size", default.inner_step_size)?,
            outer_step_size: step("outer_step_size", default.outer_step_size)?,
        }))
    },
};

/// The scheme's numbers; the default is the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuthorsScheme {
    /// Rounds of inner steps and one outer step.
    pub rounds: usize,
    /// Gradient steps on the adapters in a round.
    pub inner_steps: usize,
    /// Step on the adapters.
    pub inner_step_size: f64,
    /// Step on the base, for the gradient averaged over samples and tasks.
    pub outer_step_size: f64,
}

impl Default for AuthorsScheme {
    fn default() -> Self {
        Self { rounds: 3000, inner_steps: 10, inner_step_size: 0.003, outer_step_size: 0.03 }
    }
}

/// The scheme's state after a round; round 0 is the start.
pub struct Round<'a> {
    number: usize,
    engine: &'a mut Engine,
}

impl Round<'_> {
    /// Rounds made.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The base `A`, d x d.
    pub fn base(&self) -> MatRef<'_, f64> {
        self.engine.base()
    }

    /// Factors of task `t`'s adapter, d x k each; equal for symmetric adapters. Panics if there is no
    /// such task.
    pub fn adapter(&self, t: usize) -> (MatRef<'_, f64>, MatRef<'_, f64>) {
        (self.engine.tasks[t].left(), self.engine.tasks[t].right())
    }

    /// `(1/T) sum_t 1/2 tr(E_t S_t E_t^T)` at this base and these adapters. O(T d^3).
    pub fn loss(&mut self) -> f64 {
        self.engine.loss()
    }
}

/// What the scheme ends with.
#[derive(Clone, Debug)]
pub struct Retrained {
    /// The base, d x d: the scheme's own iterate, not the best base for its adapters.
    pub base: Mat<f64>,
    /// The adapters: blocks `U0..`, then `V0..` where asymmetric.
    pub adapters: Blocks,
    /// Loss at base and adapters, without the least-squares residual.
    pub loss: f64,
}

impl AuthorsScheme {
    fn check(&self) -> Result<(), SolveError> {
        check_step("inner_step_size", self.inner_step_size)?;
        check_step("outer_step_size", self.outer_step_size)
    }

    /// Runs the scheme from the base `base` (d x d; the reference starts at 0) and the adapters
    /// `start` (blocks as in the profile objective); `observer` sees round 0 and every later one.
    ///
    /// # Errors
    /// [`SolveError::Start`] for shapes that do not fit, [`SolveError::Setting`] for a step size that
    /// is not positive, [`SolveError::NotFinite`] where the scheme diverges.
    pub fn retrain(
        &self,
        problem: &Problem<'_>,
        base: MatRef<'_, f64>,
        start: &Blocks,
        observer: &mut dyn FnMut(&mut Round<'_>),
    ) -> Result<Retrained, SolveError> {
        self.check()?;
        let mut engine = Engine::new(problem, base, start)?;
        observer(&mut Round { number: 0, engine: &mut engine });
        for number in 1..=self.rounds {
            engine.round(self);
            if !engine.base.iter().all(|x| x.is_finite()) {
                return Err(SolveError::NotFinite { iteration: number });
            }
            observer(&mut Round { number, engine: &mut engine });
        }
        let loss = engine.loss();
        if !loss.is_finite() {
            return Err(SolveError::NotFinite { iteration: self.rounds });
        }
        let mut adapters = start.zeros_like();
        engine.write_adapters(&mut adapters, 0);
        Ok(Retrained { base: engine.base().to_owned(), adapters, loss })
    }
}

/// From base 0. The solution's base is the scheme's own iterate and its loss is taken there; the
/// observed states hold the base (block `A`) and the adapters, with value and gradient of the loss in
/// both.
impl BaseSolver for AuthorsScheme {
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        // Refuses ranks and pooled inputs as every other method does.
        ProfileObjective::new(problem.tasks, problem.kind, problem.rank)?;
        let start = start_of("the authors' scheme", start)?;
        let d = problem.tasks.dimension();
        let layout = Layout::new([BlockSpec { name: "A".into(), rows: d, cols: d }])
            .followed_by(start.layout());
        let mut state = State::blank(layout);
        let base = Mat::zeros(d, d);
        let done = self.retrain(problem, base.as_ref(), start, &mut |round| {
            if !observer.wants_states() {
                return;
            }
            round.engine.write_state(&mut state);
            state.iteration = round.number;
            state.evaluations.gradients = round.number * (self.inner_steps + 1);
            observer.on_state(&state);
        })?;
        Ok(Solution {
            base: done.base,
            adapters: crate::iterative::adapters(problem, &done.adapters),
            loss: done.loss,
            rho: None,
            gap: None,
            predicted_error: None,
            iterations: self.rounds,
            stop_reason: StopReason::MaxIterations,
            evaluations: Evaluations {
                gradients: self.rounds * (self.inner_steps + 1),
                ..Default::default()
            },
            input_asymmetry: input_asymmetry(problem),
        })
    }
}

/// All that changes in the scheme, and its workspace.
struct Engine {
    d: usize,
    ld: usize,
    base: Vec<f64>,
    gradient: Vec<f64>,
    scratch: Vec<f64>,
    tasks: Vec<AdapterDescent>,
}

/// A round as one piece of code, so that it is compiled for the machine's vectors as a whole.
struct RoundWork<'a>(&'a mut Engine, &'a AuthorsScheme);

impl pulp::NullaryFnOnce for RoundWork<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let RoundWork(engine, scheme) = self;
        for task in &mut engine.tasks {
            task.set_base(&engine.base);
            for _ in 0..scheme.inner_steps {
                task.step(scheme.inner_step_size);
            }
        }
        engine.gradient.fill(0.0);
        let weight = 1.0 / engine.tasks.len() as f64;
        for task in &mut engine.tasks {
            task.add_base_gradient(weight, &mut engine.gradient);
        }
        panel::add_scaled(&mut engine.base, -scheme.outer_step_size, &engine.gradient);
    }
}

/// The gradients in base and adapters at the present point.
struct Gradients<'a>(&'a mut Engine);

impl pulp::NullaryFnOnce for Gradients<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Gradients(engine) = self;
        let weight = 1.0 / engine.tasks.len() as f64;
        engine.gradient.fill(0.0);
        for task in &mut engine.tasks {
            task.set_base(&engine.base);
            task.gradients();
            task.add_base_gradient(weight, &mut engine.gradient);
        }
    }
}

/// The mean loss of the tasks.
struct Loss<'a>(&'a mut Engine);

impl pulp::NullaryFnOnce for Loss<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Engine { base, scratch, tasks, .. } = self.0;
        let sum: f64 = tasks.iter().map(|task| task.loss(base, scratch)).sum();
        sum / tasks.len() as f64
    }
}

impl Engine {
    fn new(
        problem: &Problem<'_>,
        base: MatRef<'_, f64>,
        start: &Blocks,
    ) -> Result<Self, SolveError> {
        let (d, count) = (problem.tasks.dimension(), problem.tasks.count());
        check_start(start, problem.kind, count, d, problem.rank)?;
        if (base.nrows(), base.ncols()) != (d, d) {
            let spec = BlockSpec { name: "A".into(), rows: base.nrows(), cols: base.ncols() };
            return Err(super::misfit(&spec, d, d));
        }
        let ld = panel::padded(d);
        let mut panel_of_base = vec![0.0; ld * d];
        panel::load(&mut panel_of_base, ld, base);
        let right = |t| match problem.kind {
            Kind::Symmetric => start.block(t),
            Kind::Asymmetric => start.block(count + t),
        };
        let tasks = problem.tasks.iter().enumerate();
        Ok(Self {
            d,
            ld,
            base: panel_of_base,
            gradient: vec![0.0; ld * d],
            scratch: vec![0.0; 2 * ld * d],
            tasks: tasks
                .map(|(t, task)| AdapterDescent::new(task, problem.kind, start.block(t), right(t)))
                .collect(),
        })
    }

    fn round(&mut self, scheme: &AuthorsScheme) {
        panel::vectorised(RoundWork(self, scheme));
    }

    fn base(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice_with_stride(&self.base, self.d, self.d, self.ld)
    }

    fn loss(&mut self) -> f64 {
        panel::vectorised(Loss(self))
    }

    /// Copies the factors into the blocks from `first` on.
    fn write_adapters(&self, out: &mut Blocks, first: usize) {
        let count = self.tasks.len();
        for (t, task) in self.tasks.iter().enumerate() {
            out.block_mut(first + t).copy_from(task.left());
            if out.count() == first + 2 * count {
                out.block_mut(first + count + t).copy_from(task.right());
            }
        }
    }

    /// Base, adapters, value and gradient into `state`.
    fn write_state(&mut self, state: &mut State) {
        state.x.block_mut(0).copy_from(self.base());
        self.write_adapters(&mut state.x, 1);
        state.value = self.loss();
        panel::vectorised(Gradients(self));
        let count = self.tasks.len();
        let weight = 1.0 / count as f64;
        for (t, task) in self.tasks.iter().enumerate() {
            let (left, right) = task.factor_gradients();
            write_scaled(state.gradient.block_mut(1 + t), weight, left);
            if let Some(right) = right {
                write_scaled(state.gradient.block_mut(1 + count + t), weight, right);
            }
        }
        let gradient =
            MatRef::from_column_major_slice_with_stride(&self.gradient, self.d, self.d, self.ld);
        state.gradient.block_mut(0).copy_from(gradient);
        state.gradient_norm = state.gradient.norm();
    }
}

fn write_scaled(mut out: faer::MatMut<'_, f64>, factor: f64, a: MatRef<'_, f64>) {
    out.copy_from(a);
    peftml_linalg::kernel::scale(out, factor);
}
