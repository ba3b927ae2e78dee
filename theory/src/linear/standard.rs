//! Standard retraining (SR): one set of weights for all tasks, and what it leaves to adapt.
//!
//! `A_SR = argmin_W (1/T) sum_t L_t(W)`: from samples `[sum_t C_t][sum_t S_t]^{-1}`, for exact tasks
//! the mean. The best rank-r adapter for a test task leaves `tail_r = 1/2 sum_{i>r} s_i(D)^2`,
//! `D = A*_{T+1} - A_SR` (Eckart-Young). Source: theory.md C1.

use super::{LinearError, Tasks};
use faer::{Mat, MatRef};
use peftml_linalg::{decompose, kernel};

/// The base of standard retraining, d x d.
///
/// # Errors
/// [`LinearError::PooledInputsSingular`] where all inputs together do not span the space.
pub fn standard_base(tasks: &Tasks) -> Result<Mat<f64>, LinearError> {
    let d = tasks.dimension();
    let mut cross = Mat::zeros(d, d);
    for task in tasks.iter() {
        kernel::add_scaled(cross.as_mut(), 1.0, task.cross_moment());
    }
    if tasks.is_exact() {
        kernel::scale(cross.as_mut(), 1.0 / tasks.count() as f64);
        return Ok(cross);
    }
    pooled_factor(tasks)?.solve_right_in_place(cross.as_mut());
    Ok(cross)
}

/// Cholesky factor of `sum_t S_t`.
///
/// # Errors
/// [`LinearError::PooledInputsSingular`].
pub fn pooled_factor(tasks: &Tasks) -> Result<decompose::CholeskyFactor, LinearError> {
    let d = tasks.dimension();
    let mut pooled = Mat::zeros(d, d);
    for task in tasks.iter() {
        match task.second_moment() {
            Some(s) => kernel::add_scaled(pooled.as_mut(), 1.0, s),
            None => (0..d).for_each(|i| pooled[(i, i)] += 1.0),
        }
    }
    let failed = |source| LinearError::Decomposition { what: "sum_t S_t", source };
    let values = decompose::symmetric_eigenvalues(pooled.as_ref()).map_err(failed)?;
    let condition = values[d - 1] / values[0];
    if values[0] <= d as f64 * f64::EPSILON * values[d - 1] {
        // Inputs that are all 0 give 0/0.
        let condition = if condition.is_nan() { f64::INFINITY } else { condition.abs() };
        return Err(LinearError::PooledInputsSingular { dimension: d, condition });
    }
    decompose::CholeskyFactor::new(pooled.as_ref()).map_err(failed)
}

/// `tail_r = 1/2 sum_{i>r} s_i^2` for r = 0..=d from descending singular values.
pub fn tails(singular_values: &[f64]) -> Vec<f64> {
    let mut tails = vec![0.0; singular_values.len() + 1];
    for r in (0..singular_values.len()).rev() {
        tails[r] = tails[r + 1] + 0.5 * singular_values[r] * singular_values[r];
    }
    tails
}

/// Singular values, numerical rank and tails of `D = test - base`.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// Singular values of `D`, descending.
    pub singular_values: Vec<f64>,
    /// Singular values above `d u (||test||_2 + ||base||_2)`: what rounding of the two cannot be.
    pub rank: usize,
    /// `tail_r` for r = 0..=d: the excess risk of the best rank-r adapter.
    pub tails: Vec<f64>,
}

/// What a base leaves to adapt on a test task of truth (or least squares) `test`; both d x d.
/// `storage_roundoff` is that of the less precise of the two.
///
/// # Errors
/// [`LinearError::Decomposition`] for entries that are not finite.
pub fn residual(
    test: MatRef<'_, f64>,
    base: MatRef<'_, f64>,
    storage_roundoff: f64,
) -> Result<Residual, LinearError> {
    let difference = Mat::from_fn(test.nrows(), test.ncols(), |i, j| test[(i, j)] - base[(i, j)]);
    let singular_values = decompose::singular_values(difference.as_ref())
        .map_err(|source| LinearError::Decomposition { what: "test task minus base", source })?;
    let cut =
        test.nrows() as f64 * 2.0 * storage_roundoff * (kernel::norm(test) + kernel::norm(base));
    let rank = singular_values.iter().filter(|s| **s > cut).count();
    let tails = tails(&singular_values);
    Ok(Residual { singular_values, rank, tails })
}
