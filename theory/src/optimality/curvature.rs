//! The smallest curvature with the gauge directions taken out.
//!
//! Gauge directions at a point: `U_t W`, `W` skew (k(k-1)/2 a task where `U_t` has full rank), or
//! `(U_t X, -V_t X^T)`, any `X` (k^2 a task). Where the factors are rank deficient fewer of them are
//! independent: the span is found by singular values. Differentiating the symmetry of the gradient
//! gives `H (U W) = g W`: the normalised direction carries curvature of order
//! `||g|| / ||U W||`, so directions shorter than `sqrt(u)` of the longest are left in.
//!
//! Up to [`DENSE`] unknowns the Hessian is formed and all eigenvalues are computed; beyond, Lanczos
//! with full reorthogonalisation gives the smallest Ritz value and its residual: an eigenvalue lies
//! within the residual, but that none lies lower is evidence, not proof.

use super::OptimalityError;
use crate::Objective;
use crate::linear::Kind;
use faer::Mat;
use peftml_linalg::{Blocks, Seed, decompose, kernel};

/// Most unknowns for a dense Hessian.
pub(super) const DENSE: usize = 700;
/// Most Lanczos steps, and the most numbers kept for their vectors.
const LANCZOS_STEPS: usize = 300;
const LANCZOS_NUMBERS: usize = 20_000_000;

/// The low end of a symmetric operator's spectrum.
pub(super) struct LowEnd {
    /// Smallest eigenvalue (Ritz value) found.
    pub value: f64,
    /// Unit eigenvector.
    pub vector: Vec<f64>,
    /// `||H v - value v||`; 0 for a dense decomposition.
    pub residual: f64,
    /// Largest modulus of an eigenvalue found.
    pub norm: f64,
    /// Unit vectors whose eigenvalue is below `kernel_below`, smallest first (dense only).
    pub low: Vec<(f64, Vec<f64>)>,
    /// Whether all eigenvalues were computed.
    pub dense: bool,
}

/// Orthonormal gauge directions, one matrix a task: rows are the task's unknowns (`U_t`, then `V_t`).
pub(super) struct GaugeSpace {
    bases: Vec<Mat<f64>>,
    kind: Kind,
}

impl GaugeSpace {
    /// The gauge directions at `x` of `count` tasks.
    pub fn new(x: &Blocks, kind: Kind, count: usize) -> Result<Self, OptimalityError> {
        let bases = (0..count).map(|t| basis(x, kind, count, t)).collect::<Result<_, _>>()?;
        Ok(Self { bases, kind })
    }

    /// Number of independent gauge directions.
    pub fn dimension(&self) -> usize {
        self.bases.iter().map(|b| b.ncols()).sum()
    }

    /// Takes the gauge directions out of `v`.
    pub fn project(&self, v: &mut [f64]) {
        let count = self.bases.len();
        let sides = if self.kind == Kind::Symmetric { 1 } else { 2 };
        let size = v.len() / (count * sides);
        for (t, basis) in self.bases.iter().enumerate() {
            for j in 0..basis.ncols() {
                let column = basis.col(j);
                let mut overlap = 0.0;
                for side in 0..sides {
                    let start = (side * count + t) * size;
                    for i in 0..size {
                        overlap += column[side * size + i] * v[start + i];
                    }
                }
                for side in 0..sides {
                    let start = (side * count + t) * size;
                    for i in 0..size {
                        v[start + i] -= overlap * column[side * size + i];
                    }
                }
            }
        }
    }
}

fn basis(x: &Blocks, kind: Kind, count: usize, t: usize) -> Result<Mat<f64>, OptimalityError> {
    let u = x.block(t);
    let (d, k) = (u.nrows(), u.ncols());
    let directions: Vec<Vec<f64>> = match kind {
        Kind::Symmetric => (0..k)
            .flat_map(|j| (0..j).map(move |i| (i, j)))
            .map(|(i, j)| {
                // U (e_i e_j^T - e_j e_i^T): column j is U_i, column i is -U_j.
                let mut z = vec![0.0; d * k];
                for row in 0..d {
                    z[j * d + row] = u[(row, i)];
                    z[i * d + row] = -u[(row, j)];
                }
                z
            })
            .collect(),
        Kind::Asymmetric => {
            let v = x.block(count + t);
            (0..k * k)
                .map(|index| {
                    // (U e_i e_j^T, -V e_j e_i^T).
                    let (i, j) = (index % k, index / k);
                    let mut z = vec![0.0; 2 * d * k];
                    for row in 0..d {
                        z[j * d + row] = u[(row, i)];
                        z[d * k + i * d + row] = -v[(row, j)];
                    }
                    z
                })
                .collect()
        }
    };
    let rows = if kind == Kind::Symmetric { d * k } else { 2 * d * k };
    if directions.is_empty() {
        return Ok(Mat::zeros(rows, 0));
    }
    let matrix = Mat::from_fn(rows, directions.len(), |i, j| directions[j][i]);
    let svd = decompose::thin_svd(matrix.as_ref())
        .map_err(|source| OptimalityError::Decomposition { what: "gauge directions", source })?;
    let cut = (f64::EPSILON / 2.0).sqrt() * svd.values[0];
    let rank = svd.values.iter().filter(|s| **s > cut).count();
    Ok(svd.left.as_ref().subcols(0, rank).to_owned())
}

/// The low end of the Hessian at `x`, gauge directions moved to `norm`; eigenvectors with values below
/// `low_below * norm` are kept.
pub(super) fn low_end(
    objective: &dyn Objective,
    x: &Blocks,
    gauge: &GaugeSpace,
    low_below: f64,
    seed: &Seed,
) -> Result<LowEnd, OptimalityError> {
    let n = x.as_slice().len();
    if n <= DENSE {
        return dense(&projected_hessian(objective, x, gauge), gauge, low_below);
    }
    let mut start = vec![0.0; n];
    seed.child("curvature").stream().fill_normal(1.0, &mut start);
    gauge.project(&mut start);
    let mut product = projected_product(objective, x, gauge);
    // Rounding feeds the gauge directions, and their eigenvalue 0 would be found: they get the
    // operator's root mean square curvature instead.
    let mut image = vec![0.0; n];
    product(&start, &mut image);
    let shift = (kernel::dot(&image, &image) / kernel::dot(&start, &start)).sqrt();
    let mut inside = vec![0.0; n];
    lanczos(start, &mut |input, output| {
        product(input, output);
        inside.copy_from_slice(input);
        gauge.project(&mut inside);
        for (out, (v, p)) in output.iter_mut().zip(input.iter().zip(&inside)) {
            *out += shift * (v - p);
        }
    })
}

/// `v -> P H P v`, `P` the projector off the gauge directions.
fn projected_product<'a>(
    objective: &'a dyn Objective,
    x: &'a Blocks,
    gauge: &'a GaugeSpace,
) -> impl FnMut(&[f64], &mut [f64]) + 'a {
    let mut work = vec![0.0; objective.work_len()];
    let (mut v, mut out) = (x.zeros_like(), x.zeros_like());
    move |input, output| {
        v.as_mut_slice().copy_from_slice(input);
        gauge.project(v.as_mut_slice());
        objective.hessian_product(x, &v, &mut out, &mut work);
        gauge.project(out.as_mut_slice());
        output.copy_from_slice(out.as_slice());
    }
}

/// `P H P`, formed column by column.
pub(super) fn projected_hessian(
    objective: &dyn Objective,
    x: &Blocks,
    gauge: &GaugeSpace,
) -> Mat<f64> {
    let n = x.as_slice().len();
    let mut apply = projected_product(objective, x, gauge);
    let mut h = Mat::<f64>::zeros(n, n);
    let (mut unit, mut column) = (vec![0.0; n], vec![0.0; n]);
    for j in 0..n {
        unit[j] = 1.0;
        apply(&unit, &mut column);
        unit[j] = 0.0;
        for (i, entry) in column.iter().enumerate() {
            h[(i, j)] = *entry;
        }
    }
    kernel::symmetrise(h.as_mut());
    h
}

fn dense(h: &Mat<f64>, gauge: &GaugeSpace, low_below: f64) -> Result<LowEnd, OptimalityError> {
    let n = h.nrows();
    let mut h = h.clone();
    let norm = kernel::norm(h.as_ref());
    // The gauge directions get the curvature `norm`, out of the way of the low end.
    let mut column = vec![0.0; n];
    for j in 0..n {
        column.fill(0.0);
        column[j] = 1.0;
        gauge.project(&mut column);
        for (i, entry) in column.iter().enumerate() {
            let unit = if i == j { 1.0 } else { 0.0 };
            h[(i, j)] += norm * (unit - entry);
        }
    }
    kernel::symmetrise(h.as_mut());
    let (values, vectors) = decompose::symmetric_eigen(h.as_ref())
        .map_err(|source| OptimalityError::Decomposition { what: "Hessian", source })?;
    let vector = |i: usize| (0..n).map(|row| vectors[(row, i)]).collect::<Vec<f64>>();
    let low = (0..n).take_while(|i| values[*i] < low_below * norm).map(|i| (values[i], vector(i)));
    Ok(LowEnd {
        value: values[0],
        vector: vector(0),
        residual: 0.0,
        norm,
        low: low.collect(),
        dense: true,
    })
}

/// Smallest Ritz value of a symmetric operator on the Krylov space of `start`.
pub(super) fn lanczos(
    mut start: Vec<f64>,
    apply: &mut dyn FnMut(&[f64], &mut [f64]),
) -> Result<LowEnd, OptimalityError> {
    let n = start.len();
    let steps = LANCZOS_STEPS.min(n).min((LANCZOS_NUMBERS / n).max(20));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(steps);
    let size = kernel::dot(&start, &start).sqrt();
    start.iter_mut().for_each(|x| *x /= size);
    let (mut diagonal, mut off) = (Vec::with_capacity(steps), Vec::<f64>::with_capacity(steps));
    let mut next = vec![0.0; n];
    let mut current = start;
    loop {
        apply(&current, &mut next);
        diagonal.push(kernel::dot(&current, &next));
        basis.push(current);
        // Twice: full orthogonality to rounding.
        for _ in 0..2 {
            for q in &basis {
                let overlap = kernel::dot(q, &next);
                kernel::axpy(-overlap, q, &mut next);
            }
        }
        let beta = kernel::dot(&next, &next).sqrt();
        let m = diagonal.len();
        let last = m == steps;
        if last || m.is_multiple_of(20) || beta == 0.0 || beta.is_nan() {
            let tridiagonal = Mat::from_fn(m, m, |i, j| match i.abs_diff(j) {
                0 => diagonal[i],
                1 => off[i.min(j)],
                _ => 0.0,
            });
            let (values, vectors) = decompose::symmetric_eigen(tridiagonal.as_ref())
                .map_err(|source| OptimalityError::Decomposition { what: "Lanczos", source })?;
            let norm = values[0].abs().max(values[m - 1].abs());
            let residual = beta * vectors[(m - 1, 0)].abs();
            if last || residual <= 64.0 * f64::EPSILON * norm {
                let mut vector = vec![0.0; n];
                for (j, q) in basis.iter().enumerate() {
                    kernel::axpy(vectors[(j, 0)], q, &mut vector);
                }
                let value = values[0];
                return Ok(LowEnd { value, vector, residual, norm, low: Vec::new(), dense: false });
            }
        }
        off.push(beta);
        current = next.iter().map(|x| x / beta).collect();
    }
}
