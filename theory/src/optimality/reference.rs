//! Values that prove or refute that a point is a global minimum.

use super::OptimalityError;
use crate::linear::{Kind, Tasks};
use faer::Mat;
use peftml_linalg::{decompose, kernel};

/// Least value of the population objective with T = 2 tasks and adapters of width `rank`.
///
/// `F = 1/8 ||M - R_1 + R_2||_F^2`, `M = A*_1 - A*_2`. Symmetric: with the eigenvalues of sym M,
/// `1/8 (sum_{i>k} l_i^+^2 + sum_{i>k} l_i^-^2 + ||skew M||_F^2)`; asymmetric: `1/8 sum_{i>2k} s_i(M)^2`.
/// Source: theory.md C6. `None` for other numbers of tasks and for tasks with second moments.
///
/// # Errors
/// [`OptimalityError::Decomposition`].
pub fn two_task_value(
    tasks: &Tasks,
    kind: Kind,
    rank: usize,
) -> Result<Option<f64>, OptimalityError> {
    if tasks.count() != 2 || !tasks.is_exact() {
        return Ok(None);
    }
    let d = tasks.dimension();
    let (a, b) = (tasks.task(0).least_squares(), tasks.task(1).least_squares());
    let mut m = Mat::from_fn(d, d, |i, j| a[(i, j)] - b[(i, j)]);
    let failed = |source| OptimalityError::Decomposition { what: "A_1 - A_2", source };
    let squares = match kind {
        Kind::Asymmetric => {
            let values = decompose::singular_values(m.as_ref()).map_err(failed)?;
            values.iter().skip(2 * rank).map(|s| s * s).sum::<f64>()
        }
        Kind::Symmetric => {
            let all = kernel::norm_squared(m.as_ref());
            kernel::symmetrise(m.as_mut());
            let skew = (all - kernel::norm_squared(m.as_ref())).max(0.0);
            let (values, _) = decompose::symmetric_eigen(m.as_ref()).map_err(failed)?;
            let positive = values.iter().rev().take_while(|l| **l > 0.0).skip(rank);
            let negative = values.iter().take_while(|l| **l < 0.0).skip(rank);
            skew + positive.chain(negative).map(|l| l * l).sum::<f64>()
        }
    };
    Ok(Some(squares / 8.0))
}

/// `1/(2T) sum_t ||skew(A_t - mean A)||_F^2`: what symmetric adapters cannot remove from exact tasks.
pub(super) fn skew_value(tasks: &Tasks) -> f64 {
    let d = tasks.dimension();
    let weight = 1.0 / tasks.count() as f64;
    let mut mean = Mat::<f64>::zeros(d, d);
    for task in tasks.iter() {
        kernel::add_scaled(mean.as_mut(), weight, task.least_squares());
    }
    let mut sum = 0.0;
    for task in tasks.iter() {
        let a = task.least_squares();
        for j in 0..d {
            for i in 0..j {
                let skew = 0.5 * (a[(i, j)] - a[(j, i)] - mean[(i, j)] + mean[(j, i)]);
                sum += 2.0 * skew * skew;
            }
        }
    }
    0.5 * weight * sum
}
