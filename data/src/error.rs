//! What can be wrong with a task source.

use peftml_theory::linear::LinearError;

/// Why a task source gives no tasks.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A setting of a synthetic problem that cannot be.
    #[error("{name} = {value} is out of range: {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would be right.
        expected: &'static str,
    },
    /// The matrices are no linear meta-learning problem.
    #[error(transparent)]
    Linear(#[from] LinearError),
}
