//! Ground truth: `A*_t = A* + R*_t`.

use super::Kind;
use faer::{Mat, MatRef};
use peftml_linalg::LowRank;

/// A common base and the tasks' offsets.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundTruth {
    /// `A*`, d x d.
    pub base: Mat<f64>,
    /// `R*_t = U*_t U*_t^T` or `U*_t V*_t^T`, each of rank k.
    pub offsets: Vec<LowRank>,
    /// Whether the offsets are symmetric.
    pub kind: Kind,
}

impl GroundTruth {
    /// Dimension d.
    pub fn dimension(&self) -> usize {
        self.base.nrows()
    }

    /// Number of tasks, test tasks included.
    pub fn count(&self) -> usize {
        self.offsets.len()
    }

    /// `A*_t`. Panics if there is no task `t`.
    pub fn task(&self, t: usize) -> Mat<f64> {
        let mut truth = self.base.clone();
        self.offsets[t].add_to(truth.as_mut(), 1.0);
        truth
    }

    /// `U*_t`, d x k.
    pub fn left(&self, t: usize) -> MatRef<'_, f64> {
        self.offsets[t].left()
    }

    /// Population excess risk of the weights `w` on task `t`: `1/2 ||A*_t - w||_F^2`.
    pub fn excess_risk(&self, t: usize, w: MatRef<'_, f64>) -> f64 {
        0.5 * peftml_linalg::compare::distance(self.task(t).as_ref(), w).powi(2)
    }
}
