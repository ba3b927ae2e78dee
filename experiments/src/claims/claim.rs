//! What a claim is, and what it is given.

use super::faults::Faults;
use super::verdict::Evidence;
use peftml_data::DataError;
use peftml_linalg::{DecompositionError, Seed};
use peftml_solvers::SolveError;
use peftml_theory::derivative_check::DerivativeCheckError;
use peftml_theory::exact::ExactError;
use peftml_theory::linear::LinearError;
use peftml_theory::optimality::OptimalityError;
use std::collections::BTreeMap;

/// How much is spent on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Seconds in all.
    Quick,
    /// Up to an hour in all.
    Full,
}

/// A statement of the theory that can be run.
pub trait Claim: Sync {
    /// Dotted: family, then statement (`"C1.rank"`).
    fn id(&self) -> &'static str;

    /// The statement, in words and formula.
    fn statement(&self) -> &'static str;

    /// What it assumes.
    fn assumptions(&self) -> &'static [&'static str];

    /// How it is checked.
    fn method(&self) -> &'static str;

    /// What would refute it.
    fn refutation(&self) -> &'static str;

    /// Numbers that a user may set.
    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    /// Whether the statement is known to be false: then the check replays its counterexample.
    fn is_refuted(&self) -> bool {
        false
    }

    /// Gathers the evidence.
    ///
    /// # Errors
    /// [`ClaimError`] where there is none: settings that cannot be, a solver's refusal.
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError>;
}

/// A number that a user may set with `--set key=value`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Least value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
    /// Whether it is a whole number.
    pub whole: bool,
}

/// Dimension d.
pub const DIMENSION: Setting =
    Setting { key: "d", meaning: "dimension", least: 1.0, most: 40.0, whole: true };
/// Rank k.
pub const RANK: Setting =
    Setting { key: "k", meaning: "rank of the offsets", least: 1.0, most: 20.0, whole: true };
/// Number of retraining tasks T.
pub const TASKS: Setting =
    Setting { key: "tasks", meaning: "retraining tasks", least: 1.0, most: 40.0, whole: true };
/// The three sizes.
pub const SIZES: &[Setting] = &[DIMENSION, RANK, TASKS];

/// d, k and T of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Dimension d.
    pub d: usize,
    /// Rank k.
    pub k: usize,
    /// Retraining tasks T.
    pub tasks: usize,
}

/// Short for a list of sizes.
pub const fn sizes(d: usize, k: usize, tasks: usize) -> Sizes {
    Sizes { d, k, tasks }
}

impl Sizes {
    /// For messages and instances: `"d=4 k=1 T=3"`.
    pub fn label(self) -> String {
        format!("d={} k={} T={}", self.d, self.k, self.tasks)
    }
}

/// What a verification is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// How much to spend.
    pub scale: Scale,
    /// The claim's own node of the random streams.
    pub seed: Seed,
    /// The root's number, to name instances by.
    pub root: u64,
    /// Values set by the user.
    pub settings: BTreeMap<String, f64>,
    /// Errors planted by tests.
    pub faults: Faults,
}

impl Context {
    /// `quick` or `full`, by the scale.
    pub fn count(&self, quick: usize, full: usize) -> usize {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }

    /// A value that the user set.
    pub fn set(&self, key: &str) -> Option<f64> {
        self.settings.get(key).copied()
    }

    /// The sizes to check: the user's one problem where d, k or tasks are set (what is not set as in
    /// the first of `grid`), else `grid`.
    ///
    /// # Errors
    /// [`ClaimError::Rank`] for k above d.
    pub fn sizes(&self, grid: &[Sizes]) -> Result<Vec<Sizes>, ClaimError> {
        let chosen = ["d", "k", "tasks"].map(|key| self.set(key).map(|v| v as usize));
        if chosen.iter().all(Option::is_none) {
            return Ok(grid.to_vec());
        }
        let base = grid.first().copied().unwrap_or(sizes(4, 1, 3));
        let [d, k, tasks] = chosen;
        let one = sizes(d.unwrap_or(base.d), k.unwrap_or(base.k), tasks.unwrap_or(base.tasks));
        if one.k > one.d {
            return Err(ClaimError::Rank { rank: one.k, dimension: one.d });
        }
        Ok(vec![one])
    }
}

/// Why a claim has no evidence.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClaimError {
    /// A rank above the dimension.
    #[error("k = {rank} is more than d = {dimension}")]
    Rank {
        /// Rank k.
        rank: usize,
        /// Dimension d.
        dimension: usize,
    },
    /// Sizes for which the statement is empty.
    #[error("{what}: d = {dimension}, k = {rank}, tasks = {tasks} is outside; {needed}")]
    Sizes {
        /// The claim.
        what: &'static str,
        /// Dimension d.
        dimension: usize,
        /// Rank k.
        rank: usize,
        /// Tasks T.
        tasks: usize,
        /// What would do.
        needed: &'static str,
    },
    /// A random draw that is not generic, which has probability 0.
    #[error("the draw {label} is not generic")]
    Draw {
        /// Its name.
        label: String,
    },
    /// A certificate was not proved.
    #[error("certificate {name}: {reason}")]
    Certificate {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A solver's refusal.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A decomposition failed.
    #[error(transparent)]
    Decomposition(#[from] DecompositionError),
    /// Tasks that do not fit.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// A point that does not fit.
    #[error(transparent)]
    Optimality(#[from] OptimalityError),
    /// An exact statement that cannot be made.
    #[error(transparent)]
    Exact(#[from] ExactError),
    /// A derivative check that cannot be made.
    #[error(transparent)]
    Derivative(#[from] DerivativeCheckError),
    /// Settings of a synthetic problem that cannot be.
    #[error("{0}")]
    Data(String),
}

impl From<DataError> for ClaimError {
    fn from(error: DataError) -> Self {
        ClaimError::Data(error.to_string())
    }
}

impl ClaimError {
    /// Whether the user's settings are to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, ClaimError::Rank { .. } | ClaimError::Sizes { .. })
    }
}
