//! Decompositions with typed errors and explicit, sequential arithmetic.
//!
//! The functions allocate their results; [`EigenWorkspace`] and [`SvdWorkspace`] are for loops that
//! must not. All of them are faer's; what is added is the check for non-finite input (on which an
//! iteration may not end), the descending order, and that no global setting has a say.

use crate::kernel;
use crate::low_rank::ThinSvd;
use dyn_stack::{MemBuffer, MemStack};
use faer::diag::Diag;
use faer::linalg::svd::ComputeSvdVectors;
use faer::linalg::{cholesky, evd, svd};
use faer::{Mat, MatMut, MatRef, Par};

/// Why a decomposition has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompositionError {
    /// The matrix is not square.
    #[error("a square matrix is needed, this one is {rows} x {cols}")]
    NotSquare {
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
    },
    /// An entry is NaN or infinite.
    #[error("the {rows} x {cols} matrix has an entry that is not finite")]
    NotFinite {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// The iteration for eigenvalues or singular values did not converge.
    #[error("the decomposition of the {rows} x {cols} matrix did not converge")]
    NoConvergence {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// Not positive definite: Cholesky met a pivot that is not positive.
    #[error("the {size} x {size} matrix is not positive definite (pivot {pivot})")]
    NotPositiveDefinite {
        /// Order of the matrix.
        size: usize,
        /// Index of the first pivot that is not positive.
        pivot: usize,
    },
}

fn check(a: MatRef<'_, f64>, square: bool) -> Result<(), DecompositionError> {
    let (rows, cols) = (a.nrows(), a.ncols());
    if square && rows != cols {
        return Err(DecompositionError::NotSquare { rows, cols });
    }
    if !kernel::is_finite(a) {
        return Err(DecompositionError::NotFinite { rows, cols });
    }
    Ok(())
}

/// Eigenvalues and eigenvectors of symmetric matrices of one order, without allocation.
pub struct EigenWorkspace {
    values: Diag<f64>,
    vectors: Mat<f64>,
    memory: MemBuffer,
}

impl EigenWorkspace {
    /// Workspace for order `n`.
    pub fn new(n: usize) -> Self {
        let request = evd::self_adjoint_evd_scratch::<f64>(
            n,
            evd::ComputeEigenvectors::Yes,
            Par::Seq,
            Default::default(),
        );
        Self { values: Diag::zeros(n), vectors: Mat::zeros(n, n), memory: MemBuffer::new(request) }
    }

    /// Decomposes the symmetric matrix whose lower triangle is that of `a`: eigenvalues ascending.
    pub fn compute(&mut self, a: MatRef<'_, f64>) -> Result<(), DecompositionError> {
        check(a, true)?;
        let n = a.nrows();
        evd::self_adjoint_evd(
            a,
            self.values.as_mut(),
            Some(self.vectors.as_mut()),
            Par::Seq,
            MemStack::new(&mut self.memory),
            Default::default(),
        )
        .map_err(|_| DecompositionError::NoConvergence { rows: n, cols: n })
    }

    /// Eigenvalue `i`, ascending.
    pub fn value(&self, i: usize) -> f64 {
        self.values.column_vector()[i]
    }

    /// Eigenvectors, column `i` to value `i`.
    pub fn vectors(&self) -> MatRef<'_, f64> {
        self.vectors.as_ref()
    }
}

/// Singular triples of matrices of one shape, without allocation.
pub struct SvdWorkspace {
    values: Diag<f64>,
    left: Mat<f64>,
    right: Mat<f64>,
    memory: MemBuffer,
}

impl SvdWorkspace {
    /// Workspace for shape `rows` x `cols`.
    pub fn new(rows: usize, cols: usize) -> Self {
        let request = svd::svd_scratch::<f64>(
            rows,
            cols,
            ComputeSvdVectors::Thin,
            ComputeSvdVectors::Thin,
            Par::Seq,
            Default::default(),
        );
        let thin = rows.min(cols);
        Self {
            values: Diag::zeros(thin),
            left: Mat::zeros(rows, thin),
            right: Mat::zeros(cols, thin),
            memory: MemBuffer::new(request),
        }
    }

    /// Decomposes `a`: singular values descending.
    pub fn compute(&mut self, a: MatRef<'_, f64>) -> Result<(), DecompositionError> {
        check(a, false)?;
        svd::svd(
            a,
            self.values.as_mut(),
            Some(self.left.as_mut()),
            Some(self.right.as_mut()),
            Par::Seq,
            MemStack::new(&mut self.memory),
            Default::default(),
        )
        .map_err(|_| DecompositionError::NoConvergence { rows: a.nrows(), cols: a.ncols() })
    }

    /// Singular value `i`, descending.
    pub fn value(&self, i: usize) -> f64 {
        self.values.column_vector()[i]
    }

    /// Left singular vectors.
    pub fn left(&self) -> MatRef<'_, f64> {
        self.left.as_ref()
    }

    /// Right singular vectors.
    pub fn right(&self) -> MatRef<'_, f64> {
        self.right.as_ref()
    }
}

/// Eigenvalues (ascending) and eigenvectors of the symmetric matrix with `a`'s lower triangle.
pub fn symmetric_eigen(a: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), DecompositionError> {
    check(a, true)?;
    let mut work = EigenWorkspace::new(a.nrows());
    work.compute(a)?;
    Ok(((0..a.nrows()).map(|i| work.value(i)).collect(), work.vectors))
}

/// Eigenvalues alone, ascending, of the symmetric matrix with `a`'s lower triangle.
pub fn symmetric_eigenvalues(a: MatRef<'_, f64>) -> Result<Vec<f64>, DecompositionError> {
    check(a, true)?;
    let n = a.nrows();
    let no_vectors = evd::ComputeEigenvectors::No;
    let request = evd::self_adjoint_evd_scratch::<f64>(n, no_vectors, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(request);
    let mut values = Diag::zeros(n);
    evd::self_adjoint_evd(
        a,
        values.as_mut(),
        None,
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|_| DecompositionError::NoConvergence { rows: n, cols: n })?;
    Ok((0..n).map(|i| values.column_vector()[i]).collect())
}

/// Thin singular value decomposition.
pub fn thin_svd(a: MatRef<'_, f64>) -> Result<ThinSvd, DecompositionError> {
    let mut work = SvdWorkspace::new(a.nrows(), a.ncols());
    work.compute(a)?;
    let thin = a.nrows().min(a.ncols());
    Ok(ThinSvd {
        values: (0..thin).map(|i| work.value(i)).collect(),
        left: work.left,
        right: work.right,
    })
}

/// Singular values, descending.
pub fn singular_values(a: MatRef<'_, f64>) -> Result<Vec<f64>, DecompositionError> {
    thin_svd(a).map(|s| s.values)
}

/// An orthonormal basis of the span of `a`'s columns (thin QR; the span of at least `a`).
pub fn orthonormal_basis(a: MatRef<'_, f64>) -> Mat<f64> {
    let mut basis = a.qr().compute_thin_Q();
    // Sign convention of the factorisation is of no matter; a copy drops its padding.
    basis.resize_with(a.nrows(), a.ncols().min(a.nrows()), |_, _| 0.0);
    basis
}

/// Lower Cholesky factor of a symmetric positive definite matrix, for repeated solves.
pub struct CholeskyFactor {
    lower: Mat<f64>,
}

impl CholeskyFactor {
    /// Factors the symmetric matrix with `a`'s lower triangle.
    pub fn new(a: MatRef<'_, f64>) -> Result<Self, DecompositionError> {
        check(a, true)?;
        let n = a.nrows();
        let mut lower = a.to_owned();
        let request = cholesky::llt::factor::cholesky_in_place_scratch::<f64>(
            n,
            Par::Seq,
            Default::default(),
        );
        let mut memory = MemBuffer::new(request);
        cholesky::llt::factor::cholesky_in_place(
            lower.as_mut(),
            Default::default(),
            Par::Seq,
            MemStack::new(&mut memory),
            Default::default(),
        )
        .map_err(|error| {
            let faer::linalg::cholesky::llt::factor::LltError::NonPositivePivot { index } = error;
            DecompositionError::NotPositiveDefinite { size: n, pivot: index }
        })?;
        for j in 0..n {
            for i in 0..j {
                lower[(i, j)] = 0.0;
            }
        }
        Ok(Self { lower })
    }

    /// The factor `L`, `a = L L^T`; zeros above the diagonal.
    pub fn lower(&self) -> MatRef<'_, f64> {
        self.lower.as_ref()
    }

    /// Replaces `b` (n x m) by `a^{-1} b`.
    pub fn solve_in_place(&self, mut b: MatMut<'_, f64>) {
        use faer::linalg::triangular_solve as ts;
        ts::solve_lower_triangular_in_place(self.lower.as_ref(), b.as_mut(), Par::Seq);
        ts::solve_upper_triangular_in_place(self.lower.transpose(), b.as_mut(), Par::Seq);
    }

    /// Replaces `b` (m x n) by `b a^{-1}`.
    pub fn solve_right_in_place(&self, b: MatMut<'_, f64>) {
        self.solve_in_place(b.transpose_mut());
    }

    /// The inverse, n x n.
    pub fn inverse(&self) -> Mat<f64> {
        let n = self.lower.nrows();
        let mut inverse = Mat::identity(n, n);
        self.solve_in_place(inverse.as_mut());
        kernel::symmetrise(inverse.as_mut());
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, compare};

    #[test]
    fn decompositions_give_their_matrix_back() {
        let mut stream = Seed::root(3).child("decompose").stream();
        for n in [1, 2, 7, 33] {
            let g = stream.normal_matrix(n, n, 1.0);
            let s = Mat::from_fn(n, n, |i, j| g[(i, j)] + g[(j, i)]);
            let (values, vectors) = symmetric_eigen(s.as_ref()).unwrap();
            let scaled = Mat::from_fn(n, n, |i, j| vectors[(i, j)] * values[j]);
            let mut back = Mat::zeros(n, n);
            kernel::mul(back.as_mut(), scaled.as_ref(), vectors.transpose(), 1.0);
            let bound = 20.0 * n as f64 * f64::EPSILON;
            assert!(compare::relative_error(back.as_ref(), s.as_ref()) < bound);
            assert!(values.windows(2).all(|w| w[0] <= w[1]));
            let alone = symmetric_eigenvalues(s.as_ref()).unwrap();
            let largest = kernel::norm(s.as_ref());
            assert!(alone.iter().zip(&values).all(|(a, b)| (a - b).abs() < bound * largest));

            let triples = thin_svd(g.as_ref()).unwrap();
            assert!(triples.values.windows(2).all(|w| w[0] >= w[1]));
            let full = triples.balanced_factors(n).to_dense();
            assert!(compare::relative_error(full.as_ref(), g.as_ref()) < bound);

            let mut gram = Mat::identity(n, n);
            kernel::mul_add(gram.as_mut(), g.as_ref(), g.transpose(), 1.0);
            let factor = CholeskyFactor::new(gram.as_ref()).unwrap();
            let mut x = g.clone();
            factor.solve_in_place(x.as_mut());
            let mut gx = Mat::zeros(n, n);
            kernel::mul(gx.as_mut(), gram.as_ref(), x.as_ref(), 1.0);
            // Backward stable: residual of order n u cond(gram), cond <= trace as gram >= I.
            let trace: f64 = (0..n).map(|i| gram[(i, i)]).sum();
            assert!(compare::relative_error(gx.as_ref(), g.as_ref()) < bound * trace);
        }
    }

    #[test]
    fn what_has_no_answer_is_a_typed_error() {
        let nan = Mat::from_fn(2, 2, |_, _| f64::NAN);
        assert_eq!(
            symmetric_eigen(nan.as_ref()).unwrap_err(),
            DecompositionError::NotFinite { rows: 2, cols: 2 }
        );
        let wide = Mat::<f64>::zeros(2, 3);
        assert_eq!(
            symmetric_eigen(wide.as_ref()).unwrap_err(),
            DecompositionError::NotSquare { rows: 2, cols: 3 }
        );
        let indefinite = Mat::from_fn(2, 2, |i, j| if i == j { 1.0 } else { 2.0 });
        assert!(matches!(
            CholeskyFactor::new(indefinite.as_ref()),
            Err(DecompositionError::NotPositiveDefinite { size: 2, .. })
        ));
    }
}
