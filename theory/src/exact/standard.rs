//! Standard retraining on rational instances. Source: theory.md C1.
//!
//! With offsets `U*_t U*_t^T`, t = 1..T+1, of full genericity (`[U*_1 .. U*_{T+1}]` of full column
//! rank): `A_SR - A* = mean_t R*_t` has rank kT, and `D = A*_{T+1} - A_SR` rank k(T+1) and inertia
//! (k, kT): no adapter of smaller rank fits the test task.

use super::{ExactError, Inertia, RationalMatrix, beside, check_factors, inertia, rank};
use num_rational::BigRational;

/// Exact ranks of standard retraining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandardRanks {
    /// Whether all factors together have full column rank.
    pub fully_generic: bool,
    /// rank(A_SR - A*).
    pub base_error: usize,
    /// rank(A*_{T+1} - A_SR).
    pub residual: usize,
    /// Its signs.
    pub inertia: Inertia,
}

/// The ranks for the factors `U*_t`, each d x k; the last is the test task.
///
/// # Errors
/// [`ExactError::Tasks`] for fewer than two factors, [`ExactError::Shape`].
pub fn standard_ranks(factors: &[RationalMatrix]) -> Result<StandardRanks, ExactError> {
    let (d, k) = check_factors(factors, 2)?;
    let all = beside(&factors.iter().collect::<Vec<_>>());
    let tasks = factors.len() - 1;
    let mut mean = RationalMatrix::zeros(d, d);
    for u in &factors[..tasks] {
        mean += u * u.transpose();
    }
    mean /= BigRational::from_integer(tasks.into());
    let test = &factors[tasks];
    let residual = test * test.transpose() - &mean;
    Ok(StandardRanks {
        fully_generic: rank(&all) == k * factors.len(),
        base_error: rank(&mean),
        residual: rank(&residual),
        inertia: inertia(&residual)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::draw;
    use super::*;
    use peftml_linalg::Seed;

    #[test]
    fn generic_tasks_leave_the_ranks_of_the_claim() {
        let mut stream = Seed::root(3).child("exact").stream();
        for (d, k, tasks) in [(2, 1, 1), (6, 1, 3), (9, 2, 3), (10, 3, 2)] {
            let mut factors: Vec<_> = (0..=tasks).map(|_| draw(&mut stream, d, k)).collect();
            let ranks = standard_ranks(&factors).unwrap();
            let expected = StandardRanks {
                fully_generic: true,
                base_error: k * tasks,
                residual: k * (tasks + 1),
                inertia: Inertia { positive: k, negative: k * tasks, zero: d - k * (tasks + 1) },
            };
            assert_eq!(ranks, expected);
            // Control: a test task inside the span of the others.
            factors[tasks] = factors[0].clone();
            let ranks = standard_ranks(&factors).unwrap();
            assert!(!ranks.fully_generic && ranks.residual < k * (tasks + 1));
        }
    }
}
