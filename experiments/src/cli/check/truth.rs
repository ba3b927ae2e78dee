//! The true offsets that a file of tasks may hold beside its matrices.

use super::super::Failure;
use faer::Mat;
use peftml_data::npz::Archive;
use peftml_linalg::{compare, kernel};
use peftml_theory::linear::{Kind, Tasks};
use std::path::Path;

/// Factors `U*_t` of the tasks' offsets.
pub struct Offsets {
    /// `U*_t`, d x k.
    pub factors: Vec<Mat<f64>>,
    /// Where they come from.
    pub source: &'static str,
}

/// `U_true` (and `V_true`) of exact tasks, where it explains the matrices (all `A_t - R*_t` are the
/// same to rounding) and adapters of `kind` and `rank` can attain it; else nothing.
pub fn read(
    path: &Path,
    tasks: &Tasks,
    kind: Kind,
    rank: usize,
) -> Result<Option<Offsets>, Failure> {
    let mut archive = Archive::open(path, "A=A")?;
    if !tasks.is_exact() || !archive.contains("U_true") {
        return Ok(None);
    }
    let explanation = "the factors of the tasks' offsets";
    let left = archive.array("U_true", explanation)?;
    let right = match archive.contains("V_true") {
        true => Some(archive.array("V_true", explanation)?),
        false => None,
    };
    let (count, d) = (tasks.count(), tasks.dimension());
    let fits = |shape: &[usize]| matches!(*shape, [t, r, k] if t == count && r == d && k <= rank);
    let arrays = [Some(&left), right.as_ref()];
    if !arrays.into_iter().flatten().all(|array| fits(array.shape()))
        || right.as_ref().is_some_and(|r| r.shape() != left.shape() || kind == Kind::Symmetric)
    {
        return Ok(None);
    }
    let factors: Vec<Mat<f64>> = (0..count).map(|t| left.matrix(t).to_owned()).collect();
    let bases: Vec<Mat<f64>> = (0..count)
        .map(|t| {
            let mut base = tasks.task(t).least_squares().to_owned();
            let other = right.as_ref().map_or(left.matrix(t), |right| right.matrix(t));
            kernel::mul_add(base.as_mut(), left.matrix(t), other.transpose(), -1.0);
            base
        })
        .collect();
    // Rounding of A_t as stored and of k + 1 sums in each entry of both differences.
    let roundoff = tasks.storage_roundoff().max(left.storage_roundoff());
    let size = |t: usize| {
        let task = kernel::norm(tasks.task(t).least_squares());
        task + compare::distance(bases[t].as_ref(), tasks.task(t).least_squares())
    };
    let largest = (0..count).map(size).fold(0.0, f64::max);
    let allowed = 4.0 * (rank as f64 + 2.0) * roundoff * largest;
    let explained =
        bases.iter().all(|base| compare::distance(base.as_ref(), bases[0].as_ref()) <= allowed);
    Ok(explained.then_some(Offsets { factors, source: "U_true" }))
}

/// The factor with zero columns added up to `rank`.
pub fn widened(factor: &Mat<f64>, rank: usize) -> Mat<f64> {
    let own = factor.ncols();
    let at = |i, j| if j < own { factor[(i, j)] } else { 0.0 };
    Mat::from_fn(factor.nrows(), rank.max(own), at)
}
