//! Reduced-rank regression: the best rank-r adapter for a frozen base.
//!
//! `argmin over rank D <= r of ||Y - (A + D) X||_F^2` is `D = P_r D_ols`, `P_r` the projector on the r
//! leading left singular vectors of `D_ols X`, `D_ols = (Y - A X) X^+` (least norm for n < d). In
//! sufficient statistics `D_ols = Ahat - A Pi`, `Pi` the projector on the inputs' span, and the vectors
//! are those of `D_ols S^{1/2}`. An exact task is `S = I`: truncated SVD.
//! Source: theory.md, Solvers (reduced-rank regression); optimal, whatever gradient descent does.
//! Limits: inputs whose singular values are below `sqrt(d u)` of the largest count as not seen.

use crate::SolveError;
use faer::{Mat, MatRef};
use peftml_linalg::{LowRank, decompose, kernel};
use peftml_theory::linear::{LinearError, Task};

/// The adapter `U V^T` of rank `rank` that is best on `task` with the base `base` (d x d) frozen;
/// columns of `U` and `V` have equal norms.
///
/// # Errors
/// [`SolveError::Linear`] with [`LinearError::Rank`] for a rank outside 1..=d, or
/// [`LinearError::Shape`]; [`SolveError::Decomposition`] for entries that are not finite.
pub fn fine_tune(base: MatRef<'_, f64>, task: &Task, rank: usize) -> Result<LowRank, SolveError> {
    let d = task.least_squares().nrows();
    if rank == 0 || rank > d {
        return Err(LinearError::Rank { rank, dimension: d }.into());
    }
    if (base.nrows(), base.ncols()) != (d, d) {
        return Err(LinearError::Shape {
            what: "the base",
            task: 0,
            rows: base.nrows(),
            cols: base.ncols(),
            expected_rows: d,
            expected_cols: d,
        }
        .into());
    }
    let update = full_update(base, task)?;
    // `update S^{1/2}` up to an orthogonal factor on the right.
    let weighted = match task.second_moment() {
        None => update.clone(),
        Some(s) => {
            let (values, vectors) = decompose::symmetric_eigen(s)?;
            let roots = Mat::from_fn(d, d, |i, j| vectors[(i, j)] * values[j].max(0.0).sqrt());
            let mut weighted = Mat::zeros(d, d);
            kernel::mul(weighted.as_mut(), update.as_ref(), roots.as_ref(), 1.0);
            weighted
        }
    };
    let svd = decompose::thin_svd(weighted.as_ref())?;
    let leading = svd.left.as_ref().subcols(0, rank);
    let mut right = Mat::zeros(d, rank);
    kernel::mul(right.as_mut(), update.transpose(), leading, 1.0);
    let mut left = leading.to_owned();
    for c in 0..rank {
        let size = (0..d).map(|i| right[(i, c)] * right[(i, c)]).sum::<f64>().sqrt();
        let root = size.sqrt();
        for i in 0..d {
            left[(i, c)] *= root;
            right[(i, c)] = if root > 0.0 { right[(i, c)] / root } else { 0.0 };
        }
    }
    LowRank::new(left, right).ok_or(LinearError::Rank { rank, dimension: d }.into())
}

/// `D_ols`: the update of full least squares, least norm where the inputs do not span the space.
///
/// # Errors
/// [`SolveError::Decomposition`] for entries that are not finite.
pub fn full_update(base: MatRef<'_, f64>, task: &Task) -> Result<Mat<f64>, SolveError> {
    let d = task.least_squares().nrows();
    let mut update = task.least_squares().to_owned();
    let Some(s) = task.second_moment() else {
        kernel::add_scaled(update.as_mut(), -1.0, base);
        return Ok(update);
    };
    let (values, vectors) = decompose::symmetric_eigen(s)?;
    let cut = values[d - 1].max(0.0) * d as f64 * f64::EPSILON;
    let unseen = values.iter().filter(|v| **v <= cut).count();
    // A Pi = A - (A N) N^T, N the directions without inputs.
    let blind = vectors.as_ref().subcols(0, unseen);
    let mut lost = Mat::zeros(d, unseen);
    kernel::mul(lost.as_mut(), base, blind, 1.0);
    kernel::add_scaled(update.as_mut(), -1.0, base);
    kernel::mul_add(update.as_mut(), lost.as_ref(), blind.transpose(), 1.0);
    Ok(update)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::{Seed, compare};

    fn loss(x: &Mat<f64>, y: &Mat<f64>, w: MatRef<'_, f64>) -> f64 {
        let mut rest = y.clone();
        kernel::mul_add(rest.as_mut(), w, x.as_ref(), -1.0);
        kernel::norm_squared(rest.as_ref())
    }

    fn random(seed: u64, d: usize, n: usize) -> (Mat<f64>, Mat<f64>, Mat<f64>) {
        let mut stream = Seed::root(seed).child("reduced-rank").stream();
        let a = stream.normal_matrix(d, d, 1.0);
        (a, stream.normal_matrix(d, n, 1.0), stream.normal_matrix(d, n, 1.0))
    }

    #[test]
    fn no_nearby_or_random_adapter_of_the_rank_is_better() {
        for (seed, d, n, rank) in [(1, 6, 40, 2), (2, 6, 4, 1), (3, 5, 5, 3), (4, 4, 30, 4)] {
            let (a, x, y) = random(seed, d, n);
            let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
            let best = fine_tune(a.as_ref(), &task, rank).unwrap();
            let mut w = a.clone();
            best.add_to(w.as_mut(), 1.0);
            let reached = loss(&x, &y, w.as_ref());
            let mut stream = Seed::root(seed).child("nearby").stream();
            for i in 0..200 {
                let std = 10f64.powi(-(i % 8));
                let mut left = stream.normal_matrix(d, rank, std);
                let mut right = stream.normal_matrix(d, rank, std);
                kernel::add_scaled(left.as_mut(), 1.0, best.left());
                kernel::add_scaled(right.as_mut(), 1.0, best.right());
                let mut other = a.clone();
                LowRank::new(left, right).unwrap().add_to(other.as_mut(), 1.0);
                // Rounding of the loss itself: n d products of size ||y||.
                let slack = 1e-13 * kernel::norm_squared(y.as_ref());
                assert!(loss(&x, &y, other.as_ref()) >= reached - slack);
            }
            // Control: one rank less is worse wherever the residual has more rank.
            if rank > 1 {
                let mut lower = a.clone();
                fine_tune(a.as_ref(), &task, rank - 1).unwrap().add_to(lower.as_mut(), 1.0);
                assert!(loss(&x, &y, lower.as_ref()) > reached * (1.0 + 1e-6));
            }
        }
    }

    #[test]
    fn full_rank_is_least_squares_and_fewer_samples_give_the_least_norm() {
        let (a, x, y) = random(9, 6, 3);
        let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
        let update = fine_tune(a.as_ref(), &task, 6).unwrap().to_dense();
        let mut w = a.clone();
        kernel::add_scaled(w.as_mut(), 1.0, update.as_ref());
        assert!(loss(&x, &y, w.as_ref()) < 1e-20 * kernel::norm_squared(y.as_ref()));
        // Least norm: rows within the inputs' span.
        let basis = decompose::orthonormal_basis(x.as_ref());
        let mut inside = Mat::zeros(6, 3);
        kernel::mul(inside.as_mut(), update.as_ref(), basis.as_ref(), 1.0);
        let (part, all) = (kernel::norm(inside.as_ref()), kernel::norm(update.as_ref()));
        assert!((part - all).abs() < 1e-12 * all);
    }

    #[test]
    fn an_exact_task_gives_the_truncated_svd() {
        let (a, _, _) = random(5, 7, 1);
        let (truth, _, _) = random(6, 7, 1);
        let adapter = fine_tune(a.as_ref(), &Task::exact(truth.clone()), 2).unwrap();
        let mut difference = truth;
        kernel::add_scaled(difference.as_mut(), -1.0, a.as_ref());
        let svd = decompose::thin_svd(difference.as_ref()).unwrap();
        let expected = svd.balanced_factors(2).to_dense();
        assert!(compare::relative_error(adapter.to_dense().as_ref(), expected.as_ref()) < 1e-13);
    }

    #[test]
    fn ranks_and_shapes_out_of_range_are_refused() {
        let (a, x, y) = random(7, 4, 9);
        let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
        for rank in [0, 5] {
            assert!(matches!(
                fine_tune(a.as_ref(), &task, rank),
                Err(SolveError::Linear(LinearError::Rank { .. }))
            ));
        }
        let small = Mat::zeros(3, 3);
        assert!(matches!(
            fine_tune(small.as_ref(), &task, 1),
            Err(SolveError::Linear(LinearError::Shape { .. }))
        ));
    }
}
