//! Best low-rank parts of a matrix: `U U^T` from the leading eigenvalues, `U V^T` from the leading
//! singular triples (Eckart-Young).

use faer::{Mat, MatRef};
use peftml_linalg::decompose::{EigenWorkspace, SvdWorkspace};
use peftml_linalg::{Blocks, DecompositionError, LowRank, kernel};
use peftml_theory::linear::Kind;

/// Computes rank-k parts of d x d matrices of one kind without allocation.
pub struct PartWorkspace {
    rank: usize,
    method: Method,
}

enum Method {
    Symmetric { eigen: EigenWorkspace, symmetric: Mat<f64> },
    Asymmetric { svd: SvdWorkspace },
}

impl PartWorkspace {
    /// Workspace for dimension `d` and rank `rank <= d`.
    pub fn new(kind: Kind, d: usize, rank: usize) -> Self {
        let method = match kind {
            Kind::Symmetric => {
                Method::Symmetric { eigen: EigenWorkspace::new(d), symmetric: Mat::zeros(d, d) }
            }
            Kind::Asymmetric => Method::Asymmetric { svd: SvdWorkspace::new(d, d) },
        };
        Self { rank, method }
    }

    /// Finds the part of `m` nearest in Frobenius norm: of the form `U U^T` (from `sym m`), or of
    /// rank `rank`.
    pub fn compute(&mut self, m: MatRef<'_, f64>) -> Result<(), DecompositionError> {
        match &mut self.method {
            Method::Symmetric { eigen, symmetric } => {
                symmetric.copy_from(m);
                kernel::symmetrise(symmetric.as_mut());
                eigen.compute(symmetric.as_ref())
            }
            Method::Asymmetric { svd } => svd.compute(m),
        }
    }

    /// Eigenvalue (never negative in the part: clipped at 0) or singular value `i`, descending.
    pub fn value(&self, i: usize) -> f64 {
        match &self.method {
            Method::Symmetric { eigen, symmetric } => {
                eigen.value(symmetric.nrows() - 1 - i).max(0.0)
            }
            Method::Asymmetric { svd } => svd.value(i),
        }
    }

    /// Unit left vector `i`.
    fn left(&self, i: usize) -> faer::ColRef<'_, f64> {
        match &self.method {
            Method::Symmetric { eigen, symmetric } => {
                eigen.vectors().col(symmetric.nrows() - 1 - i)
            }
            Method::Asymmetric { svd } => svd.left().col(i),
        }
    }

    /// Unit right vector `i`.
    fn right(&self, i: usize) -> faer::ColRef<'_, f64> {
        match &self.method {
            Method::Symmetric { .. } => self.left(i),
            Method::Asymmetric { svd } => svd.right().col(i),
        }
    }

    /// Copies the unit vectors into `left` and `right` (d x k).
    pub fn bases_into(&self, left: &mut Mat<f64>, right: &mut Mat<f64>) {
        for i in 0..self.rank {
            left.col_mut(i).copy_from(self.left(i));
            right.col_mut(i).copy_from(self.right(i));
        }
    }

    /// `out += factor * part`.
    pub fn add_to(&self, mut out: faer::MatMut<'_, f64>, factor: f64) {
        let d = out.nrows();
        for i in 0..self.rank {
            let (u, v, s) = (self.left(i), self.right(i), factor * self.value(i));
            for c in 0..d {
                let scaled = s * v[c];
                for r in 0..d {
                    out[(r, c)] += u[r] * scaled;
                }
            }
        }
    }

    /// Writes balanced factors `U sqrt(s)`, `V sqrt(s)` (d x k) into `left` and `right`.
    pub fn factors_into(&self, left: &mut Mat<f64>, right: &mut Mat<f64>) {
        for i in 0..self.rank {
            let root = self.value(i).sqrt();
            let (u, v) = (self.left(i), self.right(i));
            for r in 0..u.nrows() {
                left[(r, i)] = u[r] * root;
                right[(r, i)] = v[r] * root;
            }
        }
    }
}

/// The adapters as a point of the profile objective: blocks `U0..` (and `V0..`).
pub fn to_blocks(kind: Kind, adapters: &[LowRank], layout: &peftml_linalg::Layout) -> Blocks {
    let mut x = Blocks::zeros(layout.clone());
    for (t, adapter) in adapters.iter().enumerate() {
        x.block_mut(t).copy_from(adapter.left());
        if kind == Kind::Asymmetric {
            x.block_mut(adapters.len() + t).copy_from(adapter.right());
        }
    }
    x
}

/// The point's blocks as adapters.
pub fn from_blocks(kind: Kind, x: &Blocks) -> Vec<LowRank> {
    match kind {
        Kind::Symmetric => {
            (0..x.count()).map(|t| LowRank::symmetric(x.block(t).to_owned())).collect()
        }
        Kind::Asymmetric => {
            let count = x.count() / 2;
            let pair = |t: usize| (x.block(t).to_owned(), x.block(count + t).to_owned());
            (0..count).map(pair).filter_map(|(u, v)| LowRank::new(u, v)).collect()
        }
    }
}
