//! C9, step 3 of the global solver in its factored form, small and dense.
//!
//! `sum_t N_t A N'_t = sum_t N_t Ahat_t N'_t` has the solution `A = mean Ahat + Z`, `Z = sum_t Theta_t`,
//! `T Z = sum_t Pi_t(Z - D_t)`, `Theta_t` in the tangent space at task t's subspace. Symmetric:
//! `Theta = Q K Q^T + Q Y^T + Y Q^T`, K symmetric, `Q^T Y = 0`; asymmetric: `Theta = Q X^T + W P^T`,
//! `Q^T W = 0`. The operator is formed column by column from its factored products, in coordinates that
//! are orthonormal for an inner product; there the conjugate gradients are the plain ones.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::faults::Fault;
use super::problems::{UNIT, orthogonal, times};
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::{Mat, MatRef};
use peftml_linalg::{Seed, decompose, kernel};
use peftml_theory::linear::{Identification, Kind};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[
    &Factored { id: "C9.factored", kind: Kind::Symmetric },
    &Factored { id: "C9.factored-asymmetric", kind: Kind::Asymmetric },
];

/// Determined problems: rho > 0 for almost all subspaces.
const GRID: [Sizes; 4] = [sizes(5, 1, 3), sizes(7, 2, 3), sizes(6, 2, 4), sizes(8, 1, 6)];

struct Factored {
    id: &'static str,
    kind: Kind,
}

/// Subspaces and the differences `D_t = Ahat_t - mean Ahat`.
struct Problem {
    kind: Kind,
    d: usize,
    k: usize,
    left: Vec<Mat<f64>>,
    right: Vec<Mat<f64>>,
    differences: Vec<Mat<f64>>,
}

/// A task's coordinates: `(K, Y)` where symmetric, `(X, W)` where not; the first is k x k or d x k.
type Pair = (Mat<f64>, Mat<f64>);

impl Claim for Factored {
    fn id(&self) -> &'static str {
        self.id
    }
    fn statement(&self) -> &'static str {
        match self.kind {
            Kind::Symmetric => {
                "symmetric: sum_t N_t A N_t = sum_t N_t Ahat_t N_t has the solution mean Ahat + sum_t (Q K Q^T + Q Y^T + Y Q^T)_t with T K_t - Q_t^T Z Q_t = -Q_t^T D_t Q_t, T Y_t - N_t Z Q_t = -N_t D_t Q_t; the operator is symmetric in sum <K, K'> + 2 <Y, Y'> alone, with eigenvalues in [T rho, T]"
            }
            Kind::Asymmetric => {
                "asymmetric: sum_t N_t A N'_t = sum_t N_t Ahat_t N'_t has the solution mean Ahat + sum_t (Q X^T + W P^T)_t with T X_t - Z^T Q_t = -D_t^T Q_t, T W_t - N_t Z P_t = -N_t D_t P_t; the operator is symmetric in the plain inner product, with eigenvalues in [T rho, T]"
            }
        }
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["orthonormal Q_t (and P_t) with rho > 0", "any Ahat_t, not only exact ones"]
    }
    fn method(&self) -> &'static str {
        "random subspaces and matrices: conjugate gradients in the factored coordinates, then the residual of the full equation; the operator's symmetry and spectrum against rho"
    }
    fn refutation(&self) -> &'static str {
        "a residual, an asymmetry or an eigenvalue outside"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut residual, mut skew, mut low, mut high) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
        let mut wrong_skew = f64::INFINITY;
        let (mut worst, mut budget) = (json!(null), 0.0_f64);
        for s in GRID {
            for index in 0..context.count(3, 30) {
                let seed = context.seed.child(s.label().as_str()).child(index);
                let p = Problem::draw(s, self.kind, &seed);
                let identification = Identification::new(self.kind, &p.left, &p.right)?;
                let rho = identification.rho()?;
                // The planted fault leaves out the weight 2; asymmetric ones take the control's.
                let planted = context.faults.choose(Fault::FactoredWeight, 2.0, 1.0);
                let (right, wrong) =
                    if self.kind == Kind::Symmetric { (planted, 1.0) } else { (1.0, 2.0) };
                let operator = p.operator(right);
                let count = s.tasks as f64;
                // Conjugate gradients end within n u / rho of the solution, relative to D.
                let allowed = 64.0 * operator.nrows() as f64 * UNIT / rho;
                let found = p.residual(right, &operator) / allowed;
                if found > residual || found.is_nan() {
                    (residual, budget) = (found, allowed);
                    worst = json!({"seed": context.root, "sizes": s.label(), "index": index, "rho": rho});
                }
                skew = skew.max(asymmetry(&operator));
                let mut symmetric = operator.clone();
                kernel::symmetrise(symmetric.as_mut());
                let values = decompose::symmetric_eigenvalues(symmetric.as_ref())?;
                low = low.max(1.0 - values[0] / (count * rho));
                high = high.max(values[values.len() - 1] / count - 1.0);
                wrong_skew = wrong_skew.min(asymmetry(&p.operator(wrong)));
            }
        }
        let rounding = 1024.0 * UNIT;
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most(
                    "residual of the full equation / ||D|| over its allowance",
                    residual,
                    1.0,
                )
                .within(0.0, format!("64 n u / rho, {budget:.1e} at the worst")),
            )
            .check(
                Check::at_most("asymmetry of the operator / its norm", skew, 0.0)
                    .within(rounding, "sums of up to 32 products, twice 16 u each"),
            )
            .check(
                Check::at_most("T rho over the least eigenvalue, beyond 1", low, 0.0)
                    .within(1e-9, "n u T / (T rho), rho > 1e-4 for these draws"),
            )
            .check(
                Check::at_most("largest eigenvalue over T, beyond 1", high, 0.0)
                    .within(rounding, "n u"),
            )
            .control(
                Check::at_most("asymmetry in the other inner product", wrong_skew, 0.0)
                    .within(rounding, "as above"),
            )
            .instance(worst))
    }
}

/// `max |M - M^T| / max |M|`.
fn asymmetry(m: &Mat<f64>) -> f64 {
    let (mut off, mut size) = (0.0_f64, 0.0_f64);
    for j in 0..m.ncols() {
        for i in 0..m.nrows() {
            off = off.max((m[(i, j)] - m[(j, i)]).abs());
            size = size.max(m[(i, j)].abs());
        }
    }
    off / size
}

impl Problem {
    fn draw(s: Sizes, kind: Kind, seed: &Seed) -> Self {
        let bases = |name: &str| -> Vec<Mat<f64>> {
            let basis = |t: usize| {
                let q = orthogonal(s.d, &seed.child(name).child(t));
                q.as_ref().subcols(0, s.k).to_owned()
            };
            (0..s.tasks).map(basis).collect()
        };
        let left = bases("left");
        let right = if kind == Kind::Symmetric { left.clone() } else { bases("right") };
        let mut differences: Vec<Mat<f64>> = (0..s.tasks)
            .map(|t| {
                let mut m = seed.child("matrix").child(t).stream().normal_matrix(s.d, s.d, 1.0);
                if kind == Kind::Symmetric {
                    kernel::symmetrise(m.as_mut());
                }
                m
            })
            .collect();
        let mut mean = Mat::zeros(s.d, s.d);
        for m in &differences {
            kernel::add_scaled(mean.as_mut(), 1.0 / s.tasks as f64, m.as_ref());
        }
        for m in &mut differences {
            kernel::add_scaled(m.as_mut(), -1.0, mean.as_ref());
        }
        Self { kind, d: s.d, k: s.k, left, right, differences }
    }

    /// `M - Q (Q^T M)`.
    fn off(q: &Mat<f64>, m: &Mat<f64>) -> Mat<f64> {
        let inner = times(q.transpose(), m.as_ref());
        let mut out = m.clone();
        kernel::mul_add(out.as_mut(), q.as_ref(), inner.as_ref(), -1.0);
        out
    }

    /// The factored operator: `Z Q_t` (and `Z^T Q_t`, `Z P_t`) from products of thin factors alone.
    fn apply(&self, v: &[Pair]) -> Vec<Pair> {
        let count = v.len() as f64;
        let thin = |a: MatRef<'_, f64>, b: &Mat<f64>, c: &Mat<f64>, out: &mut Mat<f64>| {
            // out += a (b^T c).
            let inner = times(b.transpose(), c.as_ref());
            kernel::mul_add(out.as_mut(), a, inner.as_ref(), 1.0);
        };
        let scaled = |m: &Mat<f64>| Mat::from_fn(m.nrows(), m.ncols(), |i, j| count * m[(i, j)]);
        (0..v.len())
            .map(|t| {
                let (q, p) = (&self.left[t], &self.right[t]);
                let (mut first, mut second) =
                    (Mat::zeros(self.d, self.k), Mat::zeros(self.d, self.k));
                for (s, (a, b)) in v.iter().enumerate() {
                    let (qs, ps) = (&self.left[s], &self.right[s]);
                    match self.kind {
                        Kind::Symmetric => {
                            // X_s = Q_s K_s / 2 + Y_s; Z Q_t = sum_s Q_s (X_s^T Q_t) + X_s (Q_s^T Q_t).
                            let mut x = b.clone();
                            kernel::mul_add(x.as_mut(), qs.as_ref(), a.as_ref(), 0.5);
                            thin(qs.as_ref(), &x, q, &mut first);
                            thin(x.as_ref(), qs, q, &mut first);
                        }
                        Kind::Asymmetric => {
                            // Z^T Q_t = sum_s X_s (Q_s^T Q_t) + P_s (W_s^T Q_t);
                            // Z P_t = sum_s Q_s (X_s^T P_t) + W_s (P_s^T P_t).
                            thin(a.as_ref(), qs, q, &mut first);
                            thin(ps.as_ref(), b, q, &mut first);
                            thin(qs.as_ref(), a, p, &mut second);
                            thin(b.as_ref(), ps, p, &mut second);
                        }
                    }
                }
                let (mut a, mut b) = (scaled(&v[t].0), scaled(&v[t].1));
                match self.kind {
                    Kind::Symmetric => {
                        kernel::mul_add(a.as_mut(), q.transpose(), first.as_ref(), -1.0);
                        kernel::add_scaled(b.as_mut(), -1.0, Self::off(q, &first).as_ref());
                    }
                    Kind::Asymmetric => {
                        kernel::add_scaled(a.as_mut(), -1.0, first.as_ref());
                        kernel::add_scaled(b.as_mut(), -1.0, Self::off(q, &second).as_ref());
                    }
                }
                (a, b)
            })
            .collect()
    }

    /// The right-hand side.
    fn target(&self) -> Vec<Pair> {
        let pair = |t: usize| {
            let (q, p, m) = (&self.left[t], &self.right[t], &self.differences[t]);
            let (mut a, mut b) = match self.kind {
                Kind::Symmetric => {
                    let mq = times(m.as_ref(), q.as_ref());
                    (times(q.transpose(), mq.as_ref()), Self::off(q, &mq))
                }
                Kind::Asymmetric => {
                    (times(m.transpose(), q.as_ref()), Self::off(q, &times(m.as_ref(), p.as_ref())))
                }
            };
            kernel::scale(a.as_mut(), -1.0);
            kernel::scale(b.as_mut(), -1.0);
            (a, b)
        };
        (0..self.left.len()).map(pair).collect()
    }

    /// A basis of the coordinates, orthonormal for `sum <a, a'> + weight <b, b'>`.
    fn basis(&self, weight: f64) -> Vec<Vec<Pair>> {
        let first_rows = if self.kind == Kind::Symmetric { self.k } else { self.d };
        let zero = || (Mat::zeros(first_rows, self.k), Mat::zeros(self.d, self.k));
        let mut all = Vec::new();
        for (t, q) in self.left.iter().enumerate() {
            let mut push = |pair: Pair| {
                let mut v: Vec<Pair> = self.left.iter().map(|_| zero()).collect();
                v[t] = pair;
                all.push(v);
            };
            for j in 0..self.k {
                let rows = if self.kind == Kind::Symmetric { j + 1 } else { self.d };
                for i in 0..rows {
                    let mut pair = zero();
                    pair.0[(i, j)] = 1.0;
                    if self.kind == Kind::Symmetric && i != j {
                        pair.0[(i, j)] = std::f64::consts::FRAC_1_SQRT_2;
                        pair.0[(j, i)] = std::f64::consts::FRAC_1_SQRT_2;
                    }
                    push(pair);
                }
            }
            // The complement of Q: what is left of the unit vectors, orthonormalised.
            let full = Mat::from_fn(self.d, self.d + self.k, |i, j| match j.checked_sub(self.k) {
                None => q[(i, j)],
                Some(unit) => f64::from(u8::from(unit == i)),
            });
            let complement = complement(&full, self.k);
            for c in 0..complement.ncols() {
                for j in 0..self.k {
                    let mut pair = zero();
                    for i in 0..self.d {
                        pair.1[(i, j)] = complement[(i, c)] / weight.sqrt();
                    }
                    push(pair);
                }
            }
        }
        all
    }

    fn operator(&self, weight: f64) -> Mat<f64> {
        let basis = self.basis(weight);
        let images: Vec<Vec<Pair>> = basis.iter().map(|v| self.apply(v)).collect();
        Mat::from_fn(basis.len(), basis.len(), |i, j| product(&basis[i], &images[j], weight))
    }

    /// Conjugate gradients with the operator's matrix; then the full equation's residual over `||D||`.
    fn residual(&self, weight: f64, operator: &Mat<f64>) -> f64 {
        let basis = self.basis(weight);
        let target = self.target();
        let right: Vec<f64> = basis.iter().map(|v| product(v, &target, weight)).collect();
        let solution = conjugate_gradients(operator, &right);
        let mut z = Mat::<f64>::zeros(self.d, self.d);
        for (x, v) in solution.iter().zip(&basis) {
            for (t, (a, b)) in v.iter().enumerate() {
                let (q, p) = (&self.left[t], &self.right[t]);
                match self.kind {
                    Kind::Symmetric => {
                        let qa = times(q.as_ref(), a.as_ref());
                        kernel::mul_add(z.as_mut(), qa.as_ref(), q.transpose(), *x);
                        kernel::mul_add(z.as_mut(), q.as_ref(), b.transpose(), *x);
                        kernel::mul_add(z.as_mut(), b.as_ref(), q.transpose(), *x);
                    }
                    Kind::Asymmetric => {
                        kernel::mul_add(z.as_mut(), q.as_ref(), a.transpose(), *x);
                        kernel::mul_add(z.as_mut(), b.as_ref(), p.transpose(), *x);
                    }
                }
            }
        }
        // sum_t N_t (Z - D_t) N'_t: the full equation with A = mean Ahat + Z.
        let mut sum = Mat::<f64>::zeros(self.d, self.d);
        let mut size = 0.0_f64;
        for (t, m) in self.differences.iter().enumerate() {
            let mut rest = z.clone();
            kernel::add_scaled(rest.as_mut(), -1.0, m.as_ref());
            let rows = Self::off(&self.left[t], &rest);
            let both = Self::off(&self.right[t], &rows.transpose().to_owned());
            kernel::add_scaled(sum.as_mut(), 1.0, both.transpose());
            size = size.max(kernel::norm(m.as_ref()));
        }
        kernel::norm(sum.as_ref()) / size
    }
}

/// An orthonormal basis of the complement of the first k (orthonormal) columns of `full`, whose other
/// columns are the unit vectors: Gram and Schmidt, twice, those of length below 1/2 left out last.
fn complement(full: &Mat<f64>, k: usize) -> Mat<f64> {
    let d = full.nrows();
    let mut kept: Vec<Vec<f64>> = (0..k).map(|j| (0..d).map(|i| full[(i, j)]).collect()).collect();
    while kept.len() < d {
        // The unit vector that is farthest from what is kept.
        let best = (k..full.ncols())
            .map(|j| {
                let mut v: Vec<f64> = (0..d).map(|i| full[(i, j)]).collect();
                for _ in 0..2 {
                    for u in &kept {
                        let overlap = kernel::dot(u, &v);
                        kernel::axpy(-overlap, u, &mut v);
                    }
                }
                v
            })
            .max_by(|a, b| kernel::dot(a, a).total_cmp(&kernel::dot(b, b)));
        let Some(mut v) = best else { break };
        let size = kernel::dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x /= size);
        kept.push(v);
    }
    Mat::from_fn(d, kept.len() - k, |i, j| kept[k + j][i])
}

fn product(v: &[Pair], w: &[Pair], weight: f64) -> f64 {
    v.iter()
        .zip(w)
        .map(|(a, b)| {
            kernel::inner(a.0.as_ref(), b.0.as_ref())
                + weight * kernel::inner(a.1.as_ref(), b.1.as_ref())
        })
        .sum()
}

/// Hestenes and Stiefel's iteration, up to four times the order or until nothing is left.
fn conjugate_gradients(m: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let column = |v: &[f64]| -> Vec<f64> {
        (0..n).map(|i| (0..n).map(|j| m[(i, j)] * v[j]).sum()).collect()
    };
    let (mut x, mut r, mut p) = (vec![0.0; n], right.to_vec(), right.to_vec());
    let start = kernel::dot(&r, &r);
    let mut rr = start;
    for _ in 0..4 * n {
        if rr <= start * UNIT * UNIT {
            break;
        }
        let mp = column(&p);
        let step = rr / kernel::dot(&p, &mp);
        kernel::axpy(step, &p, &mut x);
        kernel::axpy(-step, &mp, &mut r);
        let next = kernel::dot(&r, &r);
        let ratio = next / rr;
        p.iter_mut().zip(&r).for_each(|(p, r)| *p = r + ratio * *p);
        rr = next;
    }
    x
}
