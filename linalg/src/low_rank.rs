//! Low-rank matrices in factored form.

use crate::kernel;
use faer::{Mat, MatRef};

/// `left right^T`, with `left` m x r and `right` n x r.
///
/// ```
/// use faer::mat;
/// use peftml_linalg::LowRank;
///
/// let offset = LowRank::symmetric(mat![[1.0], [2.0]]); // u u^T, 2 x 2
/// assert_eq!(offset.width(), 1);
/// assert_eq!(offset.to_dense(), mat![[1.0, 2.0], [2.0, 4.0]]);
/// assert!(LowRank::new(mat![[1.0]], mat![[1.0, 2.0]]).is_none(), "the widths differ");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    left: Mat<f64>,
    right: Mat<f64>,
}

impl LowRank {
    /// `left right^T`; `None` where the factors' column counts differ.
    pub fn new(left: Mat<f64>, right: Mat<f64>) -> Option<Self> {
        (left.ncols() == right.ncols()).then_some(Self { left, right })
    }

    /// `factor factor^T`.
    pub fn symmetric(factor: Mat<f64>) -> Self {
        Self { right: factor.clone(), left: factor }
    }

    /// `right left^T`.
    pub fn transposed(self) -> Self {
        Self { left: self.right, right: self.left }
    }

    /// The left factor, m x r.
    pub fn left(&self) -> MatRef<'_, f64> {
        self.left.as_ref()
    }

    /// The right factor, n x r.
    pub fn right(&self) -> MatRef<'_, f64> {
        self.right.as_ref()
    }

    /// Number of columns of the factors: an upper bound of the rank.
    pub fn width(&self) -> usize {
        self.left.ncols()
    }

    /// The product, m x n.
    pub fn to_dense(&self) -> Mat<f64> {
        let mut dense = Mat::zeros(self.left.nrows(), self.right.nrows());
        kernel::mul(dense.as_mut(), self.left(), self.right().transpose(), 1.0);
        dense
    }

    /// `out += factor * left right^T`.
    pub fn add_to(&self, out: faer::MatMut<'_, f64>, factor: f64) {
        kernel::mul_add(out, self.left(), self.right().transpose(), factor);
    }
}

/// Singular triples `sum_i s_i u_i v_i^T`, values in descending order.
#[derive(Clone, Debug, PartialEq)]
pub struct ThinSvd {
    /// Left singular vectors, m x r.
    pub left: Mat<f64>,
    /// Singular values, descending, length r.
    pub values: Vec<f64>,
    /// Right singular vectors, n x r.
    pub right: Mat<f64>,
}

impl ThinSvd {
    /// The leading `rank` triples as balanced factors `U sqrt(s)`, `V sqrt(s)`.
    pub fn balanced_factors(&self, rank: usize) -> LowRank {
        let rank = rank.min(self.values.len());
        let root = |m: &Mat<f64>| {
            Mat::from_fn(m.nrows(), rank, |i, j| m[(i, j)] * self.values[j].max(0.0).sqrt())
        };
        LowRank { left: root(&self.left), right: root(&self.right) }
    }
}
