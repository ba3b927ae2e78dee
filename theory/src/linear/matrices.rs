//! The tasks' matrices, a few columns at a time.
//!
//! A solver for large d needs `Ahat_t` only in passes: products with tall matrices, a mean, a residual. It
//! takes them from here, wherever they lie: [`Tasks`] in memory, or files that are larger than it.

use super::{LinearError, Tasks};
use faer::MatRef;
use std::ops::Range;

/// `Ahat_t`, t = 1..T, each d x d, by strips of columns.
pub trait TaskMatrices: Sync {
    /// Dimension d.
    fn dimension(&self) -> usize;

    /// Number of tasks T.
    fn count(&self) -> usize;

    /// Unit roundoff of the type that the matrices were stored in.
    fn storage_roundoff(&self) -> f64;

    /// Whether the matrices are the truth itself.
    fn is_exact(&self) -> bool;

    /// Whether the strips are those of `Ahat_t^T`: sources in C order have rows side by side.
    fn transposed(&self) -> bool {
        false
    }

    /// Variance of an entry of `Ahat_t`, mean over entries and tasks, as the samples' own residuals tell it:
    /// `noise_std^2 trace(S^-1) / (d N)` pooled; `None` where there are no samples, or too few.
    ///
    /// # Errors
    /// [`LinearError::Decomposition`].
    fn entry_variance(&self) -> Result<Option<f64>, LinearError> {
        Ok(None)
    }

    /// The columns `columns` of `Ahat_t` (of its transpose where [`TaskMatrices::transposed`]), in place or
    /// read into `buffer`. Threads may ask at the same time, each with its own buffer.
    ///
    /// # Errors
    /// [`LinearError::Unreadable`], [`LinearError::NotFinite`] where a file is not what it was.
    fn columns<'a>(
        &'a self,
        task: usize,
        columns: Range<usize>,
        buffer: &'a mut Vec<f64>,
    ) -> Result<MatRef<'a, f64>, LinearError>;
}

impl TaskMatrices for Tasks {
    fn dimension(&self) -> usize {
        self.dimension()
    }

    fn count(&self) -> usize {
        self.count()
    }

    fn storage_roundoff(&self) -> f64 {
        self.storage_roundoff()
    }

    fn is_exact(&self) -> bool {
        self.is_exact()
    }

    fn entry_variance(&self) -> Result<Option<f64>, LinearError> {
        let mut variance = 0.0;
        for task in self.iter() {
            let Some(one) = task.entry_variance()? else { return Ok(None) };
            variance += one / self.count() as f64;
        }
        Ok(Some(variance))
    }

    fn columns<'a>(
        &'a self,
        task: usize,
        columns: Range<usize>,
        _: &'a mut Vec<f64>,
    ) -> Result<MatRef<'a, f64>, LinearError> {
        Ok(self.task(task).least_squares().subcols(columns.start, columns.len()))
    }
}
