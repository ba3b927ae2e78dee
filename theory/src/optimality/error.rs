//! Why a point cannot be judged.

use crate::linear::LinearError;
use peftml_linalg::DecompositionError;

/// Why a point cannot be judged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimalityError {
    /// A matrix of the wrong shape.
    #[error(
        "{what} of task {task} is {rows} x {cols}, expected {expected_rows} x {expected_cols} for these tasks"
    )]
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
    /// Another number of adapters than tasks.
    #[error("{what} has {found} tasks, the tasks are {expected}")]
    Count {
        /// Which array.
        what: &'static str,
        /// Found.
        found: usize,
        /// Expected.
        expected: usize,
    },
    /// An entry that is not finite, or so large that the loss overflows.
    #[error(
        "{what} of task {task} has the entry {value} in row {row}, column {col}; finite numbers up to {largest:e} in modulus are needed"
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
        /// Largest modulus.
        largest: f64,
    },
    /// Adapters without columns, or wider than the dimension.
    #[error("adapters of width {rank} are out of range: 1 to d = {dimension} are possible")]
    Rank {
        /// Width found.
        rank: usize,
        /// Dimension d.
        dimension: usize,
    },
    /// A reference value that is not a number.
    #[error("the value {value} to compare with is not a finite number")]
    Reference {
        /// The value.
        value: f64,
    },
    /// The tasks determine no base.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// A decomposition failed.
    #[error("{what}: {source}")]
    Decomposition {
        /// What was to be decomposed.
        what: &'static str,
        /// Why it has no answer.
        source: DecompositionError,
    },
}
