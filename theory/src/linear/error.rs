//! What can be wrong with linear tasks.

use peftml_linalg::DecompositionError;

/// Why matrices are not a linear meta-learning problem.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinearError {
    /// No task at all.
    #[error("there are no tasks; at least {least} are needed")]
    NoTasks {
        /// Fewest tasks that make sense.
        least: usize,
    },
    /// A matrix has the wrong shape.
    #[error("{what} of task {task} is {rows} x {cols}, expected {expected_rows} x {expected_cols}")]
    Shape {
        /// Which matrix.
        what: &'static str,
        /// Task, from 0.
        task: usize,
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
        /// Rows expected.
        expected_rows: usize,
        /// Columns expected.
        expected_cols: usize,
    },
    /// Different numbers of matrices for the same tasks.
    #[error("{what} has {found} tasks, expected {expected}")]
    Count {
        /// Which array.
        what: &'static str,
        /// Tasks found.
        found: usize,
        /// Tasks expected.
        expected: usize,
    },
    /// An entry is NaN or infinite, or so large that its square overflows.
    #[error(
        "{what} of task {task} has the entry {value:e} in row {row}, column {col}; finite numbers up to 1e75 in modulus are needed"
    )]
    NotFinite {
        /// Which matrix.
        what: &'static str,
        /// Task, from 0.
        task: usize,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        col: usize,
        /// The entry.
        value: f64,
    },
    /// A task's matrix could not be had while a solver ran.
    #[error("the matrix of task {task} cannot be read any more: {kind}")]
    Unreadable {
        /// Task, from 0.
        task: usize,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// All entries are so small that their squares and fourth powers lose digits or vanish.
    #[error(
        "the largest entry of {what} of all tasks is {largest:e}: products would underflow; entries of 1e-75 and above in modulus are needed (other units)"
    )]
    Underflow {
        /// Which matrices.
        what: &'static str,
        /// Largest modulus of an entry.
        largest: f64,
    },
    /// A second moment is not symmetric.
    #[error(
        "S of task {task} is not symmetric: |S - S^T| = {asymmetry:e} against |S| = {size:e}; rounding would explain {allowed:e}"
    )]
    SecondMomentNotSymmetric {
        /// Task, from 0.
        task: usize,
        /// `||S - S^T||_F`.
        asymmetry: f64,
        /// `||S||_F`.
        size: f64,
        /// What rounding of the stored type explains.
        allowed: f64,
    },
    /// A second moment has a negative eigenvalue.
    #[error(
        "S of task {task} is not positive semidefinite: smallest eigenvalue {smallest:e}, largest {largest:e}; rounding would explain {allowed:e}"
    )]
    SecondMomentNotPositive {
        /// Task, from 0.
        task: usize,
        /// Smallest eigenvalue.
        smallest: f64,
        /// Largest eigenvalue.
        largest: f64,
        /// What rounding of the stored type explains.
        allowed: f64,
    },
    /// Samples that determine nothing.
    #[error("task {task} has no samples")]
    NoSamples {
        /// Task, from 0.
        task: usize,
    },
    /// The sum of the second moments is singular: the base is not determined.
    #[error(
        "the inputs of all tasks together do not span the {dimension} dimensions (condition of sum_t S_t about {condition:e}): the base is not determined; more samples or more varied inputs are needed"
    )]
    PooledInputsSingular {
        /// Dimension d.
        dimension: usize,
        /// Condition number of `sum_t S_t`.
        condition: f64,
    },
    /// An adapter rank that the dimension does not admit.
    #[error("rank {rank} is out of range: 1 to d = {dimension} are possible")]
    Rank {
        /// Rank asked for.
        rank: usize,
        /// Dimension d.
        dimension: usize,
    },
    /// A decomposition failed.
    #[error("{what}: {source}")]
    Decomposition {
        /// What was to be decomposed.
        what: &'static str,
        /// Why it has no answer.
        source: DecompositionError,
    },
}
