//! Typed errors of the shallow network.

use super::sizes::Sizes;

/// What is wrong with a shallow problem.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShallowError {
    /// A size that must be at least 1.
    #[error("{name} is 0; it must be at least 1")]
    Zero {
        /// Which size.
        name: &'static str,
    },
    /// A matrix of another shape.
    #[error("{what} is {rows} x {cols}, expected {expected_rows} x {expected_cols}")]
    Shape {
        /// What it is.
        what: &'static str,
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
        /// Rows expected.
        expected_rows: usize,
        /// Columns expected.
        expected_cols: usize,
    },
    /// No tasks at all.
    #[error("there are no tasks; at least 1 is needed")]
    NoTasks,
    /// Samples made for a network of other sizes.
    #[error("task {task} has samples for {found:?}, the network is {expected:?}")]
    Sizes {
        /// Which task.
        task: usize,
        /// Its samples' sizes.
        found: Sizes,
        /// The network's.
        expected: Sizes,
    },
    /// A number that is not finite.
    #[error("{what} has {value} at row {row}, column {col}; only finite numbers are allowed")]
    NotFinite {
        /// What it is.
        what: &'static str,
        /// Row.
        row: usize,
        /// Column.
        col: usize,
        /// The number.
        value: f64,
    },
    /// Symmetric adapters on a first layer that is not square.
    #[error("adapters U U^T need a square first layer, it is {hidden} x {inputs}")]
    NotSquare {
        /// Hidden units.
        hidden: usize,
        /// Inputs.
        inputs: usize,
    },
}
