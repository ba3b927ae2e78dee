//! The operator that decides whether tasks identify the base.
//!
//! `H(D) = sum_t N_t D N'_t` with `N_t = I - Q_t Q_t^T`, `N'_t = I - P_t P_t^T`, the projectors off the
//! column and row spaces of task t's offset (`P_t = Q_t` where offsets are symmetric; then `H` acts on
//! symmetric matrices). `rho = lambda_min(H) / T` is the sharp local constant of identifiability:
//! `min_U (1/T) sum_t L_t(A* + D + R_t) = 1/2 <D, H D> / T + O(||D||^3)`; alternating minimisation
//! contracts at `1 - rho`; noise of variance v in each entry of `Ahat_t` gives
//! `E||A - A*||_F^2 = v [d(d-1)/(2T) + trace of H^{-1} on symmetric matrices]`, asymmetric
//! `v trace(H^{-1})`, to first order. Source: theory.md C5, C9.
//!
//! Shapes: `Q_t`, `P_t` d x k with orthonormal columns, kept side by side as d x Tk. A product costs
//! O(T d^2 k) and forms no projector.

use super::{Kind, LinearError};
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::{Seed, decompose, kernel};

/// Up to this order the spectrum is computed from the dense matrix; beyond, by Lanczos.
const DENSE_LIMIT: usize = 160;

/// A Ritz value below this fraction of T bounds `rho` from above: whether it is smaller still is not asked.
const SINGULAR: f64 = 1e-10;

/// The subspaces of the tasks' offsets and the operator they define.
#[derive(Clone, Debug)]
pub struct Identification {
    kind: Kind,
    rank: usize,
    count: usize,
    left: Mat<f64>,
    right: Mat<f64>,
}

/// Scratch of [`Identification::apply`].
#[derive(Clone, Debug)]
pub struct IdentificationWork {
    left: Mat<f64>,
    right: Mat<f64>,
    small: Mat<f64>,
}

/// Smallest eigenvalue and trace of the inverse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spectrum {
    /// `rho = lambda_min(H) / T`, in [0, 1].
    pub rho: f64,
    /// Trace of `H^{-1}` on the space that `H` acts on (symmetric or all matrices); infinite where
    /// `H` is singular to rounding.
    pub inverse_trace: f64,
}

impl Identification {
    /// The operator of orthonormal bases `left[t]` (and `right[t]` where offsets are asymmetric), each
    /// d x k.
    ///
    /// # Errors
    /// [`LinearError::NoTasks`], [`LinearError::Shape`].
    pub fn new(kind: Kind, left: &[Mat<f64>], right: &[Mat<f64>]) -> Result<Self, LinearError> {
        let first = left.first().ok_or(LinearError::NoTasks { least: 1 })?;
        let (d, k) = (first.nrows(), first.ncols());
        let joined = |parts: &[Mat<f64>]| -> Result<Mat<f64>, LinearError> {
            let mut all = Mat::zeros(d, k * left.len());
            for (t, part) in parts.iter().enumerate() {
                if (part.nrows(), part.ncols()) != (d, k) {
                    return Err(LinearError::Shape {
                        what: "the subspace basis",
                        task: t,
                        rows: part.nrows(),
                        cols: part.ncols(),
                        expected_rows: d,
                        expected_cols: k,
                    });
                }
                all.as_mut().subcols_mut(t * k, k).copy_from(part);
            }
            Ok(all)
        };
        let right = match kind {
            Kind::Symmetric => Mat::zeros(0, 0),
            Kind::Asymmetric if right.len() != left.len() => {
                return Err(LinearError::Count {
                    what: "right subspaces",
                    found: right.len(),
                    expected: left.len(),
                });
            }
            Kind::Asymmetric => joined(right)?,
        };
        Ok(Self { kind, rank: k, count: left.len(), left: joined(left)?, right })
    }

    /// Dimension d.
    pub fn dimension(&self) -> usize {
        self.left.nrows()
    }

    /// Number of tasks T.
    pub fn count(&self) -> usize {
        self.count
    }

    /// `Q_t`, d x k.
    pub fn left(&self, t: usize) -> MatRef<'_, f64> {
        self.left.as_ref().subcols(t * self.rank, self.rank)
    }

    /// `P_t`, d x k; `Q_t` where offsets are symmetric.
    pub fn right(&self, t: usize) -> MatRef<'_, f64> {
        match self.kind {
            Kind::Symmetric => self.left(t),
            Kind::Asymmetric => self.right.as_ref().subcols(t * self.rank, self.rank),
        }
    }

    /// Replaces the bases of task `t`; `right` is not used where offsets are symmetric.
    pub fn set(&mut self, t: usize, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
        let k = self.rank;
        self.left.as_mut().subcols_mut(t * k, k).copy_from(left);
        if self.kind == Kind::Asymmetric {
            self.right.as_mut().subcols_mut(t * k, k).copy_from(right);
        }
    }

    /// Scratch for [`Identification::apply`].
    pub fn work(&self) -> IdentificationWork {
        let (d, width) = (self.left.nrows(), self.left.ncols());
        IdentificationWork {
            left: Mat::zeros(d, width),
            right: Mat::zeros(d, width),
            small: Mat::zeros(self.rank, self.rank),
        }
    }

    /// `out = H(z)`; `z` must be symmetric where offsets are.
    pub fn apply(
        &self,
        z: MatRef<'_, f64>,
        mut out: MatMut<'_, f64>,
        work: &mut IdentificationWork,
    ) {
        let k = self.rank;
        out.copy_from(z);
        kernel::scale(out.as_mut(), self.count as f64);
        let all = self.left.as_ref();
        match self.kind {
            Kind::Symmetric => {
                // N Z N = Z - Q Y^T - Y Q^T with Y = Z Q - Q (Q^T Z Q) / 2.
                kernel::mul(work.left.as_mut(), z, all, 1.0);
                for t in 0..self.count {
                    let q = self.left(t);
                    let mut y = work.left.as_mut().subcols_mut(t * k, k);
                    kernel::mul(work.small.as_mut(), q.transpose(), y.as_ref(), 1.0);
                    kernel::mul_add(y.as_mut(), q, work.small.as_ref(), -0.5);
                }
                kernel::mul_add(out.as_mut(), all, work.left.transpose(), -1.0);
                kernel::mul_add(out, work.left.as_ref(), all.transpose(), -1.0);
            }
            Kind::Asymmetric => {
                // N Z N' = Z - Q W^T - V P^T with W = Z^T Q, V = Z P - Q (W^T P).
                kernel::mul(work.left.as_mut(), z.transpose(), all, 1.0);
                kernel::mul(work.right.as_mut(), z, self.right.as_ref(), 1.0);
                for t in 0..self.count {
                    let w = work.left.as_ref().subcols(t * k, k);
                    kernel::mul(work.small.as_mut(), w.as_ref().transpose(), self.right(t), 1.0);
                    let v = work.right.as_mut().subcols_mut(t * k, k);
                    kernel::mul_add(v, self.left(t), work.small.as_ref(), -1.0);
                }
                kernel::mul_add(out.as_mut(), all, work.left.transpose(), -1.0);
                kernel::mul_add(out, work.right.as_ref(), self.right.transpose(), -1.0);
            }
        }
    }

    /// `out += N_t m N'_t`; `m` must be symmetric where offsets are.
    pub fn add_projected(
        &self,
        t: usize,
        m: MatRef<'_, f64>,
        mut out: MatMut<'_, f64>,
        work: &mut IdentificationWork,
    ) {
        let k = self.rank;
        let (q, p) = (self.left(t), self.right(t));
        kernel::add_scaled(out.as_mut(), 1.0, m);
        let mut w = work.left.as_mut().subcols_mut(t * k, k);
        kernel::mul(w.as_mut(), m.transpose(), q, 1.0);
        match self.kind {
            Kind::Symmetric => {
                kernel::mul(work.small.as_mut(), q.transpose(), w.as_ref(), 1.0);
                kernel::mul_add(w.as_mut(), q, work.small.as_ref(), -0.5);
                kernel::mul_add(out.as_mut(), q, w.as_ref().transpose(), -1.0);
                kernel::mul_add(out, w.as_ref(), q.transpose(), -1.0);
            }
            Kind::Asymmetric => {
                let mut v = work.right.as_mut().subcols_mut(t * k, k);
                kernel::mul(v.as_mut(), m, p, 1.0);
                kernel::mul(work.small.as_mut(), w.as_ref().transpose(), p, 1.0);
                kernel::mul_add(v.as_mut(), q, work.small.as_ref(), -1.0);
                kernel::mul_add(out.as_mut(), q, w.as_ref().transpose(), -1.0);
                kernel::mul_add(out, v.as_ref(), p.transpose(), -1.0);
            }
        }
    }

    /// `out += N_t (a - b) N'_t`, accurate relative to the result: what is subtracted from `a - b` before
    /// projecting is subtracted in doubled precision, so that a result of size u ||a|| has correct
    /// digits. `spare` is d x d. Costs about ten times [`Identification::add_projected`].
    pub fn add_projected_difference(
        &self,
        t: usize,
        [a, b]: [MatRef<'_, f64>; 2],
        mut out: MatMut<'_, f64>,
        spare: &mut Mat<f64>,
        work: &mut IdentificationWork,
    ) {
        let k = self.rank;
        let (q, p) = (self.left(t), self.right(t));
        spare.copy_from(a);
        kernel::add_scaled(spare.as_mut(), -1.0, b);
        // N (m - Q W^T - V P^T) N' = N m N' for every W and V: these need not be accurate.
        let mut w = work.left.as_mut().subcols_mut(t * k, k);
        kernel::mul(w.as_mut(), spare.as_ref().transpose(), q, 1.0);
        let mut v = work.right.as_mut().subcols_mut(t * k, k);
        match self.kind {
            Kind::Symmetric => {
                kernel::mul(work.small.as_mut(), q.transpose(), w.as_ref(), 1.0);
                kernel::mul_add(w.as_mut(), q, work.small.as_ref(), -0.5);
                v.copy_from(w.as_ref());
            }
            Kind::Asymmetric => {
                kernel::mul(v.as_mut(), spare.as_ref(), p, 1.0);
                kernel::mul(work.small.as_mut(), w.as_ref().transpose(), p, 1.0);
                kernel::mul_add(v.as_mut(), q, work.small.as_ref(), -1.0);
            }
        }
        kernel::compensated_residual(spare.as_mut(), a, b, [(q, w.as_ref()), (v.as_ref(), p)]);
        if self.kind == Kind::Symmetric {
            kernel::symmetrise(spare.as_mut());
        }
        self.add_projected(t, spare.as_ref(), out.as_mut(), work);
    }

    /// Dimension of the space that `H` acts on.
    pub fn order(&self) -> usize {
        let d = self.dimension();
        match self.kind {
            Kind::Symmetric => d * (d + 1) / 2,
            Kind::Asymmetric => d * d,
        }
    }

    /// `rho` and the trace of the inverse: exact to rounding up to order 160, beyond by Lanczos with
    /// full reorthogonalisation and a stochastic trace with 16 probes (relative standard error about
    /// `sqrt(2 / (16 order))` times the spread of the inverse's eigenvalues). Probes come from fixed
    /// streams: equal inputs give equal figures.
    ///
    /// # Errors
    /// [`LinearError::Decomposition`].
    pub fn spectrum(&self) -> Result<Spectrum, LinearError> {
        if self.order() <= DENSE_LIMIT {
            self.dense_spectrum()
        } else {
            self.lanczos_spectrum(true)
        }
    }

    /// `rho` alone, without the trace.
    ///
    /// # Errors
    /// [`LinearError::Decomposition`].
    pub fn rho(&self) -> Result<f64, LinearError> {
        if self.order() <= DENSE_LIMIT {
            Ok(self.dense_spectrum()?.rho)
        } else {
            Ok(self.lanczos_spectrum(false)?.rho)
        }
    }

    /// Orthonormal coordinates: entry (i, j), or `(e_i e_j^T + e_j e_i^T) / sqrt(2)` off the diagonal.
    fn coordinates(&self, z: MatRef<'_, f64>, out: &mut [f64]) {
        let d = self.dimension();
        let mut at = 0;
        for j in 0..d {
            let rows = if self.kind == Kind::Symmetric { 0..j + 1 } else { 0..d };
            for i in rows {
                let scale = match self.kind {
                    Kind::Symmetric if i != j => std::f64::consts::SQRT_2,
                    _ => 1.0,
                };
                out[at] = z[(i, j)] * scale;
                at += 1;
            }
        }
    }

    fn matrix(&self, coordinates: &[f64], mut out: MatMut<'_, f64>) {
        let d = self.dimension();
        let mut at = 0;
        for j in 0..d {
            let rows = if self.kind == Kind::Symmetric { 0..j + 1 } else { 0..d };
            for i in rows {
                let scale = match self.kind {
                    Kind::Symmetric if i != j => std::f64::consts::FRAC_1_SQRT_2,
                    _ => 1.0,
                };
                out[(i, j)] = coordinates[at] * scale;
                if self.kind == Kind::Symmetric {
                    out[(j, i)] = out[(i, j)];
                }
                at += 1;
            }
        }
    }

    fn dense_spectrum(&self) -> Result<Spectrum, LinearError> {
        let (d, order) = (self.dimension(), self.order());
        let mut dense = Mat::<f64>::zeros(order, order);
        let (mut z, mut image) = (Mat::zeros(d, d), Mat::zeros(d, d));
        let (mut unit, mut column) = (vec![0.0; order], vec![0.0; order]);
        let mut work = self.work();
        for j in 0..order {
            unit[j] = 1.0;
            self.matrix(&unit, z.as_mut());
            unit[j] = 0.0;
            self.apply(z.as_ref(), image.as_mut(), &mut work);
            self.coordinates(image.as_ref(), &mut column);
            for (i, value) in column.iter().enumerate() {
                dense[(i, j)] = *value;
            }
        }
        let values = decompose::symmetric_eigenvalues(dense.as_ref())
            .map_err(|source| LinearError::Decomposition { what: "identification", source })?;
        Ok(spectrum_of(values.iter().map(|v| (*v, 1.0)), values[0], self.count, order))
    }

    fn lanczos_spectrum(&self, trace: bool) -> Result<Spectrum, LinearError> {
        let order = self.order();
        let probes = if trace { 16 } else { 1 };
        let mut smallest = f64::INFINITY;
        let mut inverse_trace = 0.0;
        for probe in 0..probes {
            // Gauss quadrature: probe^T H^{-1} probe = ||probe||^2 sum_i w_i / theta_i.
            let (values, weights) = self.lanczos(probe)?;
            smallest = smallest.min(values[0]);
            let part = spectrum_of(
                values.iter().zip(&weights).map(|(v, w)| (*v, w * order as f64)),
                values[0],
                self.count,
                order,
            );
            inverse_trace += part.inverse_trace / probes as f64;
        }
        let rho = (smallest / self.count as f64).clamp(0.0, 1.0);
        Ok(Spectrum { rho, inverse_trace })
    }

    /// Ritz values and squared first components after Lanczos from Rademacher probe `probe`, until the
    /// smallest Ritz value stands to 1 %, is 0 for all that is asked of it, or the space is exhausted.
    fn lanczos(&self, probe: u64) -> Result<(Vec<f64>, Vec<f64>), LinearError> {
        let (d, order) = (self.dimension(), self.order());
        let mut stream = Seed::root(0).child("identification-probe").child(probe).stream();
        let scale = 1.0 / (order as f64).sqrt();
        let mut basis: Vec<Vec<f64>> = vec![(0..order).map(|_| stream.sign() * scale).collect()];
        let (mut diagonal, mut off) = (Vec::new(), Vec::<f64>::new());
        let (mut z, mut image, mut work) = (Mat::zeros(d, d), Mat::zeros(d, d), self.work());
        let mut next = vec![0.0; order];
        let mut last = f64::INFINITY;
        loop {
            let current = basis.len() - 1;
            self.matrix(&basis[current], z.as_mut());
            self.apply(z.as_ref(), image.as_mut(), &mut work);
            self.coordinates(image.as_ref(), &mut next);
            diagonal.push(kernel::dot(&next, &basis[current]));
            for _ in 0..2 {
                for vector in &basis {
                    let part = kernel::dot(&next, vector);
                    kernel::axpy(-part, vector, &mut next);
                }
            }
            let norm = kernel::dot(&next, &next).sqrt();
            let steps = basis.len();
            let exhausted = steps == order || norm <= 64.0 * f64::EPSILON * self.count as f64;
            // The tridiagonal problem costs the cube of the steps: seldom where they are many.
            let every = if steps < 64 { 8 } else { 32 };
            if exhausted || (steps >= 16 && steps.is_multiple_of(every)) {
                let (values, weights) = tridiagonal(&diagonal, &off)?;
                let settled = (last - values[0]).abs() <= 0.005 * values[0].abs();
                let singular = values[0] <= SINGULAR * self.count as f64;
                if exhausted || settled || singular {
                    return Ok((values, weights));
                }
                last = values[0];
            }
            off.push(norm);
            basis.push(next.iter().map(|x| x / norm).collect());
        }
    }
}

/// Sums `weight / value` with values at rounding level counted as singular.
fn spectrum_of(
    values: impl Iterator<Item = (f64, f64)>,
    smallest: f64,
    count: usize,
    order: usize,
) -> Spectrum {
    let cut = order as f64 * f64::EPSILON * count as f64;
    let inverse_trace =
        values.map(|(v, w)| if v <= cut { f64::INFINITY } else { w / v }).sum::<f64>();
    Spectrum { rho: (smallest / count as f64).clamp(0.0, 1.0), inverse_trace }
}

fn tridiagonal(diagonal: &[f64], off: &[f64]) -> Result<(Vec<f64>, Vec<f64>), LinearError> {
    let n = diagonal.len();
    let matrix = Mat::from_fn(n, n, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => off[i.min(j)],
        _ => 0.0,
    });
    let (values, vectors) = decompose::symmetric_eigen(matrix.as_ref())
        .map_err(|source| LinearError::Decomposition { what: "identification", source })?;
    let weights = (0..n).map(|j| vectors[(0, j)] * vectors[(0, j)]).collect();
    Ok((values, weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(seed: u64, count: usize, d: usize, k: usize) -> Vec<Mat<f64>> {
        let mut stream = Seed::root(seed).child("bases").stream();
        (0..count)
            .map(|_| decompose::orthonormal_basis(stream.normal_matrix(d, k, 1.0).as_ref()))
            .collect()
    }

    fn projector(q: &Mat<f64>) -> Mat<f64> {
        let mut n = Mat::identity(q.nrows(), q.nrows());
        kernel::mul_add(n.as_mut(), q.as_ref(), q.transpose(), -1.0);
        n
    }

    #[test]
    fn the_operator_is_the_sum_of_two_sided_projections() {
        let (d, k, count) = (7, 2, 4);
        let (q, p) = (bases(1, count, d, k), bases(2, count, d, k));
        let mut z = Seed::root(3).stream().normal_matrix(d, d, 1.0);
        for kind in [Kind::Asymmetric, Kind::Symmetric] {
            if kind == Kind::Symmetric {
                kernel::symmetrise(z.as_mut());
            }
            let operator = Identification::new(kind, &q, &p).unwrap();
            let mut out = Mat::zeros(d, d);
            operator.apply(z.as_ref(), out.as_mut(), &mut operator.work());
            let mut expected = Mat::<f64>::zeros(d, d);
            for t in 0..count {
                let right = if kind == Kind::Symmetric { &q[t] } else { &p[t] };
                let mut half = Mat::zeros(d, d);
                kernel::mul(half.as_mut(), projector(&q[t]).as_ref(), z.as_ref(), 1.0);
                kernel::mul_add(expected.as_mut(), half.as_ref(), projector(right).as_ref(), 1.0);
            }
            let mut summed = Mat::zeros(d, d);
            for t in 0..count {
                operator.add_projected(t, z.as_ref(), summed.as_mut(), &mut operator.work());
            }
            let error = peftml_linalg::compare::relative_error(summed.as_ref(), expected.as_ref());
            assert!(error < 50.0 * f64::EPSILON, "{kind:?}: {error:e}");
            let error = peftml_linalg::compare::relative_error(out.as_ref(), expected.as_ref());
            assert!(error < 50.0 * f64::EPSILON, "{kind:?}: {error:e}");
        }
    }

    #[test]
    fn orthogonal_tasks_have_rho_one_minus_two_over_t() {
        // theory.md C5: mutually orthogonal tasks, rho = (T-2)/T.
        for count in [2, 3, 5] {
            let d = 2 * count;
            let q: Vec<_> = (0..count)
                .map(|t| Mat::from_fn(d, 1, |i, _| if i == t { 1.0 } else { 0.0 }))
                .collect();
            let operator = Identification::new(Kind::Symmetric, &q, &[]).unwrap();
            let rho = operator.rho().unwrap();
            let expected = (count as f64 - 2.0) / count as f64;
            assert!((rho - expected).abs() < 1e-14, "T = {count}: {rho} against {expected}");
            assert_eq!(operator.spectrum().unwrap().inverse_trace.is_infinite(), count == 2);
        }
    }

    #[test]
    fn lanczos_agrees_with_the_dense_spectrum() {
        for (kind, d, k) in [(Kind::Symmetric, 14, 2), (Kind::Asymmetric, 12, 2)] {
            let (q, p) = (bases(5, 6, d, k), bases(6, 6, d, k));
            let operator = Identification::new(kind, &q, &p).unwrap();
            let dense = operator.dense_spectrum().unwrap();
            let lanczos = operator.lanczos_spectrum(true).unwrap();
            assert!((dense.rho - lanczos.rho).abs() < 0.01 * dense.rho);
            // Hutchinson with Rademacher probes: variance at most 2 ||H^-1||_F^2 / 16 with
            // ||H^-1||_F^2 <= trace(H^-1) / (T rho); five standard errors.
            let allowed = 5.0 * (2.0 / 16.0 * dense.inverse_trace / (6.0 * dense.rho)).sqrt();
            assert!((dense.inverse_trace - lanczos.inverse_trace).abs() < allowed);
        }
    }
}
