//! The question "which base does meta-learning find for these tasks", and its answers.

use crate::{Evaluations, Observer, StopReason};
use faer::Mat;
use peftml_linalg::{Blocks, DecompositionError, LowRank, Workers, compare, kernel};
use peftml_theory::linear::{Kind, LinearError, Task, TaskMatrices, Tasks};

/// Tasks, with the adapters to be retrained.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// The tasks.
    pub tasks: &'a Tasks,
    /// Symmetric (`U U^T`) or asymmetric (`U V^T`) adapters.
    pub kind: Kind,
    /// Width of the adapters.
    pub rank: usize,
}

/// A base with one adapter per task.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The base `A`, d x d: the profile minimiser for the adapters.
    pub base: Mat<f64>,
    /// The tasks' adapters.
    pub adapters: Vec<LowRank>,
    /// The objective without the least-squares residual.
    pub loss: f64,
    /// Smallest eigenvalue of `D -> (1/T) sum_t N_t D N'_t` (theory.md C5); `None` where not computed.
    pub rho: Option<f64>,
    /// Smallest eigenvalue gap of the subspace intersection, divided by the number of neighbours;
    /// `None` for other methods.
    pub gap: Option<f64>,
    /// Predicted `||A - A*||_F` (theory.md C9; for exact tasks the rounding bound); `None` where the
    /// method predicts nothing.
    pub predicted_error: Option<f64>,
    /// Iterations; their meaning is the method's.
    pub iterations: usize,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Work done.
    pub evaluations: Evaluations,
    /// `||A_1 - A_1^T|| / ||A_1||`, largest over tasks: how far input to a symmetric problem is from
    /// symmetric. 0 for asymmetric problems.
    pub input_asymmetry: f64,
}

/// A way to find the base.
pub trait BaseSolver: Send + Sync {
    /// Solves `problem`, from `start` (blocks as in the profile objective) where the method has use
    /// for one. The observer sees the states of iterative methods.
    ///
    /// # Errors
    /// [`SolveError`]: refusals are typed, with the figures that explain them.
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError>;

    /// The same on the caller's workers, where the method has use for them; the answer does not depend on
    /// them.
    ///
    /// # Errors
    /// As [`BaseSolver::solve`].
    fn solve_with(
        &self,
        problem: &Problem<'_>,
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
        _workers: &dyn Workers,
    ) -> Result<Solution, SolveError> {
        self.solve(problem, start, observer)
    }

    /// Solves for matrices that do not lie in memory as [`Tasks`].
    ///
    /// # Errors
    /// [`SolveError::NeedsMemory`] for methods that do more than pass over them (default); else as
    /// [`BaseSolver::solve`].
    fn solve_source(
        &self,
        source: &dyn TaskMatrices,
        _kind: Kind,
        _rank: usize,
        _workers: &dyn Workers,
    ) -> Result<Solution, SolveError> {
        Err(SolveError::NeedsMemory { dimension: source.dimension(), tasks: source.count() })
    }

    /// Whether [`BaseSolver::solve_with`] gives its workers anything to do.
    fn uses_workers(&self) -> bool {
        false
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SolveError {
    /// The theory gives no answer for these sizes, whatever the data.
    #[error(
        "outside the conditions of the global solver: d = {dimension}, k = {rank}, T = {tasks}; it needs T >= 3, d > 2k and (T-1)(d-2k) >= d-k"
    )]
    OutsideConditions {
        /// Dimension d.
        dimension: usize,
        /// Rank k.
        rank: usize,
        /// Number of tasks T.
        tasks: usize,
    },
    /// The data do not determine the base.
    #[error(
        "the base is not identifiable from these tasks: rho = {rho:.3e}, eigenvalue gap = {gap:.3e}, relative residual = {residual:.3e}, predicted relative error = {predicted:.3e}"
    )]
    NotIdentifiable {
        /// Smallest eigenvalue of the identification operator.
        rho: f64,
        /// Smallest eigenvalue gap.
        gap: f64,
        /// Relative residual.
        residual: f64,
        /// Predicted error relative to the offsets.
        predicted: f64,
    },
    /// The tasks do not differ by matrices of rank 2k: another rank, or not exact.
    #[error(
        "adapters of rank {rank} leave a relative residual of {residual:.3e} where rounding explains {allowed:.3e}: the tasks differ by another rank, repeat each other, or are estimates from samples (then give S or the samples)"
    )]
    RankMismatch {
        /// Rank asked for.
        rank: usize,
        /// Relative residual.
        residual: f64,
        /// What rounding explains.
        allowed: f64,
    },
    /// Adapters of lower rank already explain the tasks: the base is not unique.
    #[error(
        "rank {rank} is too large: adapters of lower rank explain the tasks, so that the base is not determined; try a smaller rank"
    )]
    RankTooLarge {
        /// Rank asked for.
        rank: usize,
    },
    /// A task's inputs do not span the space: its least squares solution is not determined.
    #[error(
        "the inputs of task {task} do not span the space (eigenvalues of S from {smallest:.3e} to {largest:.3e}): more samples of that task, or an iterative solver, are needed"
    )]
    InputsSingular {
        /// Task, from 0.
        task: usize,
        /// Smallest eigenvalue of S.
        smallest: f64,
        /// Largest eigenvalue of S.
        largest: f64,
    },
    /// A method for another number of tasks.
    #[error("{method} is for T = {expected} tasks, these are {found}")]
    TaskCount {
        /// The method.
        method: &'static str,
        /// What it needs.
        expected: &'static str,
        /// Tasks given.
        found: usize,
    },
    /// A method that is not defined for this kind of problem.
    #[error("{method} is not defined for {what}")]
    NotDefined {
        /// The method.
        method: &'static str,
        /// The kind of problem.
        what: &'static str,
    },
    /// Tasks too large for memory, and a method that needs them there.
    #[error(
        "{tasks} tasks of dimension {dimension} stay in their files, and this method needs them in memory; the method global passes over files"
    )]
    NeedsMemory {
        /// Dimension d.
        dimension: usize,
        /// Number of tasks T.
        tasks: usize,
    },
    /// A start that does not fit the problem.
    #[error(
        "the start does not fit: {what} is {rows} x {cols}, expected {expected_rows} x {expected_cols}"
    )]
    Start {
        /// Which block.
        what: String,
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
        /// Rows expected.
        expected_rows: usize,
        /// Columns expected.
        expected_cols: usize,
    },
    /// A method that starts at adapters, and none were given.
    #[error("{method} needs a start: adapters U_t (and V_t where asymmetric), random and not zero")]
    StartMissing {
        /// The method.
        method: &'static str,
    },
    /// A method's setting that cannot be.
    #[error("{name} = {value} is out of range: {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would be right.
        expected: &'static str,
    },
    /// A setting that the method does not have.
    #[error("{method} has no setting {name}; it has {known}")]
    UnknownSetting {
        /// The method.
        method: &'static str,
        /// The name given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A setting's value that cannot be read.
    #[error("{name} = {value} cannot be read: {expected}")]
    SettingText {
        /// The setting.
        name: String,
        /// The text given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The iteration left the finite numbers.
    #[error("iteration {iteration} gave a value that is not finite")]
    NotFinite {
        /// The iteration.
        iteration: usize,
    },
    /// The tasks themselves are malformed.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// A decomposition failed.
    #[error(transparent)]
    Decomposition(#[from] DecompositionError),
}

impl Problem<'_> {
    /// `max_t ||Ahat_t - mean Ahat||_F`: the size of an offset.
    pub fn spread(&self) -> f64 {
        let d = self.tasks.dimension();
        let mut mean = Mat::zeros(d, d);
        let weight = 1.0 / self.tasks.count() as f64;
        for task in self.tasks.iter() {
            kernel::add_scaled(mean.as_mut(), weight, task.least_squares());
        }
        let distance = |task: &Task| compare::distance(task.least_squares(), mean.as_ref());
        self.tasks.iter().map(distance).fold(0.0, f64::max)
    }

    /// `max_t ||S_t||_F`; 1 for exact tasks.
    pub fn moment(&self) -> f64 {
        let norm = |task: &Task| task.second_moment().map_or(1.0, kernel::norm);
        self.tasks.iter().map(norm).fold(0.0, f64::max)
    }

    /// Size of a gradient in the adapters that is not small: `2/sqrt(T) moment spread^(3/2)`, the
    /// gradient being cubic in factors of size `spread^(1/2)`. It does not depend on the point, so that
    /// a test against it cannot be fooled by large factors.
    ///
    /// Where the tasks are equal the spread counts as `1e-8` of their size.
    pub fn gradient_scale(&self) -> f64 {
        self.gradient_scale_for(self.spread())
    }

    /// The same where the spread is known.
    pub(crate) fn gradient_scale_for(&self, spread: f64) -> f64 {
        let count = self.tasks.count() as f64;
        let least = 1e-8 * self.tasks.norm() / count.sqrt();
        2.0 / count.sqrt() * self.moment() * spread.max(least).powf(1.5)
    }
}

/// The start that `method` cannot do without.
pub(crate) fn start_of<'b>(
    method: &'static str,
    start: Option<&'b Blocks>,
) -> Result<&'b Blocks, SolveError> {
    start.ok_or(SolveError::StartMissing { method })
}

/// `max_t ||A_t - A_t^T||_F / ||A_t||_F` for symmetric problems, else 0.
pub(crate) fn input_asymmetry(problem: &Problem<'_>) -> f64 {
    if problem.kind == Kind::Asymmetric {
        return 0.0;
    }
    let relative = |task: &Task| compare::asymmetry(task.least_squares());
    problem.tasks.iter().map(relative).fold(0.0, f64::max)
}
