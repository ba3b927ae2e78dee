//! The sharp local constant of identification.
//!
//! `rho = lambda_min(D -> (1/T) sum_t N_t D N'_t)`, `N_t` and `N'_t` the projectors off range `U_t` and
//! range `V_t`; on symmetric `D` where adapters are symmetric. Source: theory.md C5. By Lanczos: a
//! Ritz value bounds rho from above, its residual says how closely.

use super::OptimalityError;
use super::curvature::{LowEnd, lanczos};
use super::point::Point;
use crate::linear::Kind;
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::{Seed, decompose, kernel};

/// Residual up to which a Ritz value counts as rho: eigenvalues of the operator lie in [0, 1].
const RESOLVED: f64 = 1e-6;

/// rho at the ranges of the point's adapters; `None` where Lanczos does not resolve it.
pub(super) fn rho(point: &Point, seed: &Seed) -> Result<Option<f64>, OptimalityError> {
    let count = point.count();
    let d = point.base().nrows();
    let left = (0..count).map(|t| range(point.left(t))).collect::<Result<Vec<_>, _>>()?;
    let right = match point.kind() {
        Kind::Symmetric => left.clone(),
        Kind::Asymmetric => {
            (0..count).map(|t| range(point.right(t))).collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut start = vec![0.0; d * d];
    seed.child("rho").stream().fill_normal(1.0, &mut start);
    if point.kind() == Kind::Symmetric {
        kernel::symmetrise(MatMut::from_column_major_slice_mut(&mut start, d, d));
    }
    let mut work = Mat::<f64>::zeros(d, d);
    let mut apply = |input: &[f64], output: &mut [f64]| {
        output.fill(0.0);
        for (q, p) in left.iter().zip(&right) {
            work.copy_from(MatRef::from_column_major_slice(input, d, d));
            project_rows(work.as_mut(), q.as_ref());
            project_rows(work.as_mut().transpose_mut(), p.as_ref());
            let out = MatMut::from_column_major_slice_mut(output, d, d);
            kernel::add_scaled(out, 1.0 / count as f64, work.as_ref());
        }
        if point.kind() == Kind::Symmetric {
            // Rounding would feed an antisymmetric part, whose eigenvalues are not asked for.
            kernel::symmetrise(MatMut::from_column_major_slice_mut(output, d, d));
        }
    };
    let LowEnd { value, residual, .. } = lanczos(start, &mut apply)?;
    Ok((residual <= RESOLVED).then_some(value.max(0.0)))
}

/// `m <- (I - q q^T) m`.
fn project_rows(m: MatMut<'_, f64>, q: MatRef<'_, f64>) {
    let mut overlap = Mat::zeros(q.ncols(), m.ncols());
    kernel::mul(overlap.as_mut(), q.transpose(), m.as_ref(), 1.0);
    kernel::mul_add(m, q, overlap.as_ref(), -1.0);
}

/// Orthonormal basis of the numerical range: singular values above `sqrt(u)` of the largest.
fn range(factor: MatRef<'_, f64>) -> Result<Mat<f64>, OptimalityError> {
    let svd = decompose::thin_svd(factor)
        .map_err(|source| OptimalityError::Decomposition { what: "an adapter", source })?;
    let cut = (f64::EPSILON / 2.0).sqrt() * svd.values.first().copied().unwrap_or(0.0);
    let rank = svd.values.iter().filter(|s| **s > cut).count();
    Ok(svd.left.as_ref().subcols(0, rank).to_owned())
}
