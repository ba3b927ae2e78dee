//! Steps 1 and 2 of the global solver: the offsets' subspaces from pairwise differences.
//!
//! `A_s - A_t = R_s - R_t` has rank 2k, and its range contains range `U_s` and range `U_t`. Range `U_t`
//! is the intersection of the ranges over all partners s: `Q_t` = the k leading eigenvectors of
//! `sum_s B_ts B_ts^T`, `B_ts` a basis of the range (2k eigenvectors of largest modulus of the
//! symmetric part; asymmetric: 2k leading left, and right, singular vectors). Source: theory.md, Solvers.

use faer::{Mat, MatRef};
use peftml_linalg::decompose::{EigenWorkspace, SvdWorkspace};
use peftml_linalg::{DecompositionError, kernel};
use peftml_theory::linear::Kind;

/// The subspaces found, with what their accuracy depends on.
#[derive(Clone, Debug)]
pub struct Subspaces {
    /// `Q_t`, d x k, orthonormal.
    pub left: Vec<Mat<f64>>,
    /// `P_t`, d x k; equal to `left` where offsets are symmetric.
    pub right: Vec<Mat<f64>>,
    /// Smallest eigenvalue gap over tasks (and sides), divided by the number of partners.
    pub gap: f64,
    /// Smallest `sigma_2k` of the differences used.
    pub smallest_difference: f64,
    /// Factorisations made.
    pub factorisations: usize,
}

/// Fewest partners a task needs: `max(2, ceil((d-k)/(d-2k)))` (theory.md; with fewer the intersection
/// is too large).
pub fn fewest_partners(dimension: usize, rank: usize) -> usize {
    (dimension - rank).div_ceil(dimension - 2 * rank).max(2)
}

/// Finds the subspaces. Task t is paired with t+1, .., t+`reach` (cyclically); `reach >= T/2` pairs
/// all. Needs `2 rank <= d`.
pub fn intersect(
    tasks: &[MatRef<'_, f64>],
    kind: Kind,
    rank: usize,
    reach: usize,
) -> Result<Subspaces, DecompositionError> {
    let (count, d) = (tasks.len(), tasks[0].nrows());
    let sides = if kind == Kind::Symmetric { 1 } else { 2 };
    let mut projectors = vec![Mat::<f64>::zeros(d, d); count * sides];
    let mut partners = vec![0usize; count];
    let mut ranges = RangeFinder::new(kind, d, rank);
    let mut smallest_difference = f64::INFINITY;
    let mut factorisations = 0;
    for (s, t) in pairs(count, reach) {
        if same(tasks[s], tasks[t]) {
            continue;
        }
        let sigma = ranges.compute(tasks[s], tasks[t])?;
        factorisations += 1;
        smallest_difference = smallest_difference.min(sigma);
        for task in [s, t] {
            partners[task] += 1;
            for side in 0..sides {
                let basis = ranges.basis(side);
                kernel::mul_add(
                    projectors[task * sides + side].as_mut(),
                    basis,
                    basis.transpose(),
                    1.0,
                );
            }
        }
    }
    let mut eigen = EigenWorkspace::new(d);
    let mut gap = f64::INFINITY;
    let mut bases = Vec::with_capacity(count * sides);
    for (i, projector) in projectors.iter_mut().enumerate() {
        kernel::symmetrise(projector.as_mut());
        eigen.compute(projector.as_ref())?;
        factorisations += 1;
        let difference = eigen.value(d - rank) - eigen.value(d - rank - 1);
        gap = gap.min(difference / partners[i / sides].max(1) as f64);
        bases.push(Mat::from_fn(d, rank, |r, c| eigen.vectors()[(r, d - 1 - c)]));
    }
    let (left, right) = if sides == 1 {
        (bases.clone(), bases)
    } else {
        let left = bases.iter().step_by(2).cloned().collect();
        (left, bases.into_iter().skip(1).step_by(2).collect())
    };
    Ok(Subspaces { left, right, gap, smallest_difference, factorisations })
}

/// Whether two tasks differ by no more than rounding: their difference has a range of noise, which would spoil
/// the intersection.
fn same(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> bool {
    let (mut difference, mut size) = (0.0_f64, 0.0_f64);
    for j in 0..a.ncols() {
        for i in 0..a.nrows() {
            difference = difference.max((a[(i, j)] - b[(i, j)]).abs());
            size = size.max(a[(i, j)].abs());
        }
    }
    difference <= 4.0 * f64::EPSILON * size
}

/// Pairs (t, t + j mod T) for j = 1..=reach, each once.
pub(super) fn pairs(count: usize, reach: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = (count - 1).div_ceil(2).min(reach.max(1));
    (1..=most).flat_map(move |j| {
        // Half-way round an even cycle every pair would be met twice.
        let starts = if 2 * j == count { count / 2 } else { count };
        (0..starts).map(move |t| (t, (t + j) % count))
    })
}

/// Orthonormal bases of the leading 2k-dimensional ranges of a difference.
struct RangeFinder {
    rank: usize,
    difference: Mat<f64>,
    left: Mat<f64>,
    right: Mat<f64>,
    method: Method,
}

enum Method {
    Eigen(EigenWorkspace),
    Svd(SvdWorkspace),
}

impl RangeFinder {
    fn new(kind: Kind, d: usize, rank: usize) -> Self {
        let method = match kind {
            Kind::Symmetric => Method::Eigen(EigenWorkspace::new(d)),
            Kind::Asymmetric => Method::Svd(SvdWorkspace::new(d, d)),
        };
        let basis = || Mat::zeros(d, 2 * rank);
        Self { rank, difference: Mat::zeros(d, d), left: basis(), right: basis(), method }
    }

    /// Decomposes `a - b`; returns the 2k-th largest singular value.
    fn compute(
        &mut self,
        a: MatRef<'_, f64>,
        b: MatRef<'_, f64>,
    ) -> Result<f64, DecompositionError> {
        self.difference.copy_from(a);
        kernel::add_scaled(self.difference.as_mut(), -1.0, b);
        let (d, width) = (a.nrows(), 2 * self.rank);
        match &mut self.method {
            Method::Eigen(eigen) => {
                kernel::symmetrise(self.difference.as_mut());
                eigen.compute(self.difference.as_ref())?;
                // Ascending order: the largest moduli stand at the two ends.
                let (mut low, mut high, mut last) = (0, d, 0.0);
                for column in 0..width {
                    let take_low = eigen.value(low).abs() > eigen.value(high - 1).abs();
                    let index = if take_low { low } else { high - 1 };
                    if take_low {
                        low += 1
                    } else {
                        high -= 1
                    }
                    last = eigen.value(index).abs();
                    self.left.col_mut(column).copy_from(eigen.vectors().col(index));
                }
                Ok(last)
            }
            Method::Svd(svd) => {
                svd.compute(self.difference.as_ref())?;
                self.left.copy_from(svd.left().subcols(0, width));
                self.right.copy_from(svd.right().subcols(0, width));
                Ok(svd.value(width - 1))
            }
        }
    }

    fn basis(&self, side: usize) -> MatRef<'_, f64> {
        if side == 0 { self.left.as_ref() } else { self.right.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_within_reach_is_met_once() {
        for count in 2..9 {
            for reach in 1..count {
                let mut seen: Vec<_> =
                    pairs(count, reach).map(|(s, t)| (s.min(t), s.max(t))).collect();
                let total = seen.len();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), total, "T = {count}, reach {reach}");
                if reach >= count / 2 {
                    assert_eq!(total, count * (count - 1) / 2, "T = {count}, reach {reach}");
                }
            }
        }
    }

    #[test]
    fn fewest_partners_follows_the_dimensions() {
        assert_eq!(fewest_partners(10, 1), 2);
        assert_eq!(fewest_partners(5, 2), 3);
        assert_eq!(fewest_partners(9, 4), 5);
    }
}
