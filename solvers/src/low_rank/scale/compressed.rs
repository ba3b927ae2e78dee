//! Step 3 of the global solver in the span of all subspaces.
//!
//! `sum_t N_t Z N'_t = sum_t N_t D_t N'_t` with `sum_t D_t = 0` has the right side
//! `B = -sum_t Pi_t(D_t)`, `Pi_t(M) = M - N_t M N'_t`, which is known from `D_t P_t` and `D_t^T Q_t` alone (theory.md,
//! factored form). With `W_L`, `W_R` orthonormal bases of the spans of all `Q_t` and all `P_t` (r <= Tk
//! columns), `Q_t = W_L Q'_t`, `P_t = W_R P'_t`, the equation falls apart:
//!
//! * `Z11 = W_L^T Z W_R`: the same equation for the `Q'_t`, `P'_t`, order r: conjugate gradients at O(T r^2 k)
//! * `Z12 = W_L^T Z (I - W_R W_R^T)`: `(T - sum Q'_t Q'_t^T) Z12 = B12`, one small factorisation
//! * `Z21 = (I - W_L W_L^T) Z W_R`: `Z21 (T - sum P'_t P'_t^T) = B21`
//! * outside of both spans `Z` is 0
//!
//! So the eigenvalues of `H` are those of order r, `T - lambda(sum Q'_t Q'_t^T)` (d - r times each, likewise
//! P'), and T. An iteration costs O((Tk)^3) where the factored form costs O(T^2 d k^2); what has the size d
//! is done once, at O(d (Tk)^2). Where Tk >= d the span is everything, and this is the full form.

use crate::low_rank::base_system::BaseSystem;
use crate::problem::SolveError;
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::{Workers, decompose, kernel, workers};
use peftml_theory::linear::{Identification, Kind, Spectrum};

/// Columns of a product that one job forms.
const COLUMNS: usize = 16;
/// Eigenvalues of `T - sum Q' Q'^T` below this fraction of T count as 0.
const SINGULAR: f64 = 1e-12;

/// The subspaces of one side.
struct Side {
    /// `Q_1 .. Q_T`, d x Tk.
    all: Mat<f64>,
    /// `W`, d x r; the identity where `r = d`.
    span: Mat<f64>,
    /// `W^T [Q_1 .. Q_T]`, r x Tk.
    small: Mat<f64>,
    /// Eigenvalues of `sum Q'_t Q'_t^T`, ascending; empty where `r = d`.
    values: Vec<f64>,
    /// Its eigenvectors.
    vectors: Mat<f64>,
}

/// The equation; see the module's header.
pub struct Compressed<'a> {
    kind: Kind,
    rank: usize,
    count: usize,
    left: Side,
    right: Option<Side>,
    operator: Identification,
    workers: &'a dyn Workers,
}

/// The tasks' rests after the correction: `(D_t - Z) P_t` and `(D_t - Z)^T Q_t`, side by side.
pub struct Rests {
    /// `(D_t - Z) P_t`, d x Tk.
    pub along: Mat<f64>,
    /// `(D_t - Z)^T Q_t`, d x Tk; d x 0 where offsets are symmetric.
    pub across: Mat<f64>,
    /// Products of conjugate gradients.
    pub products: usize,
}

/// `out = alpha a b`, or `out += alpha a b` where `add`, a few columns a job.
fn product(
    workers: &dyn Workers,
    mut out: MatMut<'_, f64>,
    a: MatRef<'_, f64>,
    b: MatRef<'_, f64>,
    (alpha, add): (f64, bool),
) {
    let mut jobs = Vec::new();
    let (mut rest, mut first) = (out.as_mut(), 0);
    while rest.ncols() > 0 {
        let here = COLUMNS.min(rest.ncols());
        let (head, tail) = rest.split_at_col_mut(here);
        jobs.push((first, head));
        first += here;
        rest = tail;
    }
    workers::for_each(workers, &mut jobs, |_, (first, part)| {
        let columns = b.subcols(*first, part.ncols());
        if add {
            kernel::mul_add(part.as_mut(), a, columns, alpha);
        } else {
            kernel::mul(part.as_mut(), a, columns, alpha);
        }
    });
}

impl Side {
    fn new(all: Mat<f64>, workers: &dyn Workers) -> Result<Self, SolveError> {
        let (d, width) = (all.nrows(), all.ncols());
        if width >= d {
            let (span, small) = (Mat::identity(d, d), all.clone());
            return Ok(Self { all, span, small, values: Vec::new(), vectors: Mat::new() });
        }
        let span = decompose::orthonormal_basis(all.as_ref());
        let mut small = Mat::zeros(width, width);
        product(workers, small.as_mut(), span.transpose(), all.as_ref(), (1.0, false));
        let mut gram = Mat::zeros(width, width);
        product(workers, gram.as_mut(), small.as_ref(), small.transpose(), (1.0, false));
        kernel::symmetrise(gram.as_mut());
        let (values, vectors) = decompose::symmetric_eigen(gram.as_ref())?;
        Ok(Self { all, span, small, values, vectors })
    }

    /// Order r of the span.
    fn order(&self) -> usize {
        self.span.ncols()
    }

    /// `[Q_1 ..]^T (T - sum Q' Q'^T)^+ [Q_1 ..]` in the span, Tk x Tk.
    fn outer_inverse(&self, count: usize, workers: &dyn Workers) -> Mat<f64> {
        let order = self.order();
        let total = count as f64;
        let mut rotated = Mat::zeros(order, self.small.ncols());
        product(
            workers,
            rotated.as_mut(),
            self.vectors.transpose(),
            self.small.as_ref(),
            (1.0, false),
        );
        let inverse = |value: f64| {
            let gap = total - value;
            if gap > SINGULAR * total { 1.0 / gap } else { 0.0 }
        };
        let scaled = Mat::from_fn(order, self.small.ncols(), |i, j| {
            rotated[(i, j)] * inverse(self.values[i])
        });
        let mut out = Mat::zeros(self.small.ncols(), self.small.ncols());
        product(workers, out.as_mut(), rotated.transpose(), scaled.as_ref(), (1.0, false));
        out
    }

    /// Splits `m` (d x n) into `W^T m` and `m - W W^T m`, the latter in place; nothing is left of it where
    /// the span is everything.
    fn split(&self, m: &mut Mat<f64>, workers: &dyn Workers) -> Mat<f64> {
        let mut inside = Mat::zeros(self.order(), m.ncols());
        if self.order() == m.nrows() {
            inside.copy_from(m.as_ref());
            m.fill(0.0);
        } else {
            let by = (1.0, false);
            product(workers, inside.as_mut(), self.span.transpose(), m.as_ref(), by);
            product(workers, m.as_mut(), self.span.as_ref(), inside.as_ref(), (-1.0, true));
        }
        inside
    }
}

impl<'a> Compressed<'a> {
    /// The equation for the subspaces `left` (and `right` where offsets are asymmetric), d x Tk each.
    pub fn new(
        kind: Kind,
        count: usize,
        left: Mat<f64>,
        right: Mat<f64>,
        workers: &'a dyn Workers,
    ) -> Result<Self, SolveError> {
        let rank = left.ncols() / count;
        let left = Side::new(left, workers)?;
        let right = match kind {
            Kind::Symmetric => None,
            Kind::Asymmetric => Some(Side::new(right, workers)?),
        };
        let cut = |side: &Side| -> Vec<Mat<f64>> {
            (0..count).map(|t| side.small.as_ref().subcols(t * rank, rank).to_owned()).collect()
        };
        let bases = (cut(&left), right.as_ref().map(cut).unwrap_or_default());
        let operator = Identification::new(kind, &bases.0, &bases.1)?;
        Ok(Self { kind, rank, count, left, right, operator, workers })
    }

    fn right(&self) -> &Side {
        self.right.as_ref().unwrap_or(&self.left)
    }

    /// `Q_t`, d x k.
    pub fn left_basis(&self, t: usize) -> MatRef<'_, f64> {
        self.left.all.as_ref().subcols(t * self.rank, self.rank)
    }

    /// `P_t`, d x k; `Q_t` where offsets are symmetric.
    pub fn right_basis(&self, t: usize) -> MatRef<'_, f64> {
        self.right().all.as_ref().subcols(t * self.rank, self.rank)
    }

    /// Smallest eigenvalue of `H / T` outside of the spans.
    fn outer_rho(&self) -> f64 {
        let largest = |side: &Side| side.values.last().copied().unwrap_or(0.0);
        let most = largest(&self.left).max(largest(self.right()));
        (1.0 - most / self.count as f64).clamp(0.0, 1.0)
    }

    /// `rho = lambda_min(H) / T`.
    pub fn rho(&self) -> Result<f64, SolveError> {
        Ok(self.operator.rho()?.min(self.outer_rho()))
    }

    /// `rho` with the trace of `H^{-1}`.
    pub fn spectrum(&self) -> Result<Spectrum, SolveError> {
        let inner = self.operator.spectrum()?;
        let total = self.count as f64;
        let d = self.left.all.nrows() as f64;
        let mut trace = inner.inverse_trace;
        let outer = |side: &Side| -> f64 {
            side.values.iter().map(|value| 1.0 / (total - value).max(0.0)).sum()
        };
        let outside = |side: &Side| d - side.order() as f64;
        let (l, r) = (outside(&self.left), outside(self.right()));
        if l > 0.0 || r > 0.0 {
            trace += match self.kind {
                Kind::Symmetric => l * outer(&self.left) + l * (l + 1.0) / 2.0 / total,
                Kind::Asymmetric => {
                    // Z12 has one copy of the left spectrum for each direction off the right span.
                    r * outer(&self.left) + l * outer(self.right()) + l * r / total
                }
            };
        }
        Ok(Spectrum { rho: inner.rho.min(self.outer_rho()), inverse_trace: trace })
    }

    /// Solves for `Z` and applies it. `along` holds `D_t P_t`, `across` holds `D_t^T Q_t` (not used where
    /// offsets are symmetric), d x Tk each.
    pub fn solve(&self, along: Mat<f64>, across: Mat<f64>) -> Rests {
        let (k, count, workers) = (self.rank, self.count, self.workers);
        let (left, right) = (&self.left, self.right());
        // D_t P_t less its part in range Q_t, which D_t^T Q_t has already.
        let mut beyond = along.clone();
        let mut small = Mat::zeros(k, k);
        for t in 0..count {
            let part = along.as_ref().subcols(t * k, k);
            kernel::mul(small.as_mut(), self.left_basis(t).transpose(), part, 1.0);
            let to = beyond.as_mut().subcols_mut(t * k, k);
            kernel::mul_add(to, self.left_basis(t), small.as_ref(), -1.0);
        }
        let mut outside = match self.kind {
            Kind::Symmetric => along.clone(),
            Kind::Asymmetric => across.clone(),
        };
        let beyond_inside = left.split(&mut beyond, workers);
        let across_inside = right.split(&mut outside, workers);
        let mut rhs = Mat::zeros(left.order(), right.order());
        let by = (-1.0, false);
        product(workers, rhs.as_mut(), left.small.as_ref(), across_inside.transpose(), by);
        let by = (-1.0, true);
        product(workers, rhs.as_mut(), beyond_inside.as_ref(), right.small.transpose(), by);
        let mut inner = Mat::zeros(left.order(), right.order());
        let (products, mut along, mut across) = (self.inner(&rhs, &mut inner), along, across);
        // Z P_t = W_L Z11 P'_t + Z21 P'_t.
        self.subtract(&mut along, left, right, inner.as_ref(), &beyond);
        if self.kind == Kind::Asymmetric {
            self.subtract(&mut across, right, left, inner.transpose(), &outside);
        }
        Rests { along, across, products }
    }

    /// `out -= W (z11 P' - ..)`: the correction's product with the other side's subspaces, `beyond` being
    /// what the right side has outside of `own`'s span.
    fn subtract(
        &self,
        out: &mut Mat<f64>,
        own: &Side,
        other: &Side,
        z11: MatRef<'_, f64>,
        beyond: &Mat<f64>,
    ) {
        let workers = self.workers;
        let mut inside = Mat::zeros(own.order(), other.small.ncols());
        product(workers, inside.as_mut(), z11, other.small.as_ref(), (1.0, false));
        product(workers, out.as_mut(), own.span.as_ref(), inside.as_ref(), (-1.0, true));
        if !own.values.is_empty() && !other.values.is_empty() {
            // Z21 = -beyond P'^T (T - sum P' P'^T)^{-1}.
            let inverse = other.outer_inverse(self.count, workers);
            product(workers, out.as_mut(), beyond.as_ref(), inverse.as_ref(), (1.0, true));
        }
    }

    /// Conjugate gradients of order r.
    fn inner(&self, rhs: &Mat<f64>, out: &mut Mat<f64>) -> usize {
        let order = self.operator.dimension() as f64;
        // Singular equations converge slowly or not at all; their answer is refused anyway. 40 Gflop.
        let flops = 8.0 * order * order * (self.count * self.rank) as f64;
        let limit = (4e10 / flops).clamp(200.0, 1e5) as usize;
        let mut system = BaseSystem::new(&self.operator, self.kind, false);
        system.solve_for(&self.operator, rhs.as_ref(), limit, out.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::{Seed, Sequential, compare};

    /// `D_t` of mean 0, and subspaces.
    fn problem(kind: Kind, d: usize, k: usize, count: usize) -> (Vec<Mat<f64>>, [Mat<f64>; 2]) {
        let mut stream = Seed::root(31).child("compressed").child(kind.name()).stream();
        let mut sides = [Mat::zeros(d, count * k), Mat::zeros(d, count * k)];
        for side in &mut sides {
            for t in 0..count {
                let basis = decompose::orthonormal_basis(stream.normal_matrix(d, k, 1.0).as_ref());
                side.as_mut().subcols_mut(t * k, k).copy_from(&basis);
            }
        }
        if kind == Kind::Symmetric {
            sides[1] = sides[0].clone();
        }
        let mut all: Vec<Mat<f64>> = (0..count).map(|_| stream.normal_matrix(d, d, 1.0)).collect();
        let mut mean = Mat::<f64>::zeros(d, d);
        for one in &mut all {
            if kind == Kind::Symmetric {
                kernel::symmetrise(one.as_mut());
            }
            kernel::add_scaled(mean.as_mut(), 1.0 / count as f64, one.as_ref());
        }
        for one in &mut all {
            kernel::add_scaled(one.as_mut(), -1.0, mean.as_ref());
        }
        (all, sides)
    }

    #[test]
    fn the_small_equations_give_the_solution_of_the_full_one() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for (d, k, count) in [(40, 2, 5), (40, 3, 4), (12, 2, 6), (9, 2, 7)] {
                let (all, sides) = problem(kind, d, k, count);
                let part = |m: &Mat<f64>, t: usize| m.as_ref().subcols(t * k, k).to_owned();
                let bases = |m: &Mat<f64>| (0..count).map(|t| part(m, t)).collect::<Vec<_>>();
                let full = Identification::new(kind, &bases(&sides[0]), &bases(&sides[1])).unwrap();
                let mut z = Mat::zeros(d, d);
                let zero = Mat::zeros(d, d);
                BaseSystem::new(&full, kind, false).solve(&full, &all, zero.as_ref(), z.as_mut());
                let (mut along, mut across) = (Mat::zeros(d, k * count), Mat::zeros(d, k * count));
                for (t, one) in all.iter().enumerate() {
                    let (q, p) = (part(&sides[0], t), part(&sides[1], t));
                    let to = along.as_mut().subcols_mut(t * k, k);
                    kernel::mul(to, one.as_ref(), p.as_ref(), 1.0);
                    let to = across.as_mut().subcols_mut(t * k, k);
                    kernel::mul(to, one.transpose(), q.as_ref(), 1.0);
                }
                let [left, right] = sides;
                let (p, q) = (right.clone(), left.clone());
                let compressed = Compressed::new(kind, count, left, right, &Sequential).unwrap();
                let rests = compressed.solve(along.clone(), across.clone());
                kernel::mul_add(along.as_mut(), z.as_ref(), p.as_ref(), -1.0);
                kernel::mul_add(across.as_mut(), z.transpose(), q.as_ref(), -1.0);
                // Both solve to u / rho; rho is above 0.01 here.
                let error = compare::relative_error(rests.along.as_ref(), along.as_ref());
                assert!(error < 1e-12, "{kind:?} {d} {k} {count}: {error:e}");
                if kind == Kind::Asymmetric {
                    let error = compare::relative_error(rests.across.as_ref(), across.as_ref());
                    assert!(error < 1e-12, "{kind:?} {d} {k} {count}: {error:e}");
                }
                // Both smallest eigenvalues stand to 1 %.
                let (rho, expected) = (compressed.rho().unwrap(), full.rho().unwrap());
                assert!((rho - expected).abs() <= 0.02 * expected, "{rho} {expected}");
                assert!(expected > 0.01, "the tolerance above");
                let (a, b) = (compressed.spectrum().unwrap(), full.spectrum().unwrap());
                // Stochastic traces: 16 probes, the spread of the eigenvalues below 1 / rho.
                let ratio = a.inverse_trace / b.inverse_trace;
                assert!((ratio - 1.0).abs() < 0.1, "{kind:?} {d} {k} {count}: {ratio}");
            }
        }
    }
}
