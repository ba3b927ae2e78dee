//! The global solver for large d: every d x d matrix is only passed over.
//!
//! | pass over the T matrices | flops (symmetric; asymmetric up to twice) |
//! |---|---|
//! | mean | T d^2 |
//! | sketch ([`sketch`]), w = 2k + 8 | 2 T d^2 w |
//! | products with the subspaces found ([`compressed`]) | 2 T d^2 k |
//! | residual, after `A = mean (Ahat_t - R_t)` | 6 T d^2 k |
//!
//! Four passes; a further round (where the first leaves a residual above rounding) repeats all but the sketch,
//! a power pass of the sketch (samples only) is one more. Beside them: 8 d w^2 a pair, of which there are
//! T times the partners' half, and O(d (Tk)^2) in the span of the subspaces.
//!
//! Adapters: with `H = Q^T E P` and the rests `Y = E P - Q H`, `Y' = E^T Q - P H^T` of `E = Ahat_t - A`, which
//! are as small as the subspaces are right, `R = (Q + Y H^{-1}) H (P + Y' H^{-T})^T` is `E` itself where `E` has
//! rank k (Nystroem), and needs no further pass.
//!
//! Memory: `A` (d x d), the strips, and O(T d k) for factors. Nothing of the input is copied.
//! Source: theory.md, Solvers. Limits: as of the global solver.

pub mod compressed;
pub mod passes;
pub mod sketch;

use crate::iterate::Evaluations;
use crate::problem::SolveError;
use compressed::Compressed;
use faer::{Mat, MatRef};
use passes::{Operands, Passes};
use peftml_linalg::{DecompositionError, LowRank, Seed, Workers, decompose, kernel, workers};
use peftml_theory::linear::{Kind, Spectrum};

/// Relative residual, in units of the stored type's roundoff, that counts as rounding: entries of `A_t`, of the
/// base and of the offset are each off by a few; an adapter's are sums of d terms.
const ROUNDING: f64 = 32.0;
/// A further round is made while the residual falls below this fraction: of exact tasks by far more than by
/// half, or rounding is reached; of estimates (which keep their noise) by a millionth, which is a thousandth in
/// the base.
const PROGRESS_EXACT: f64 = 0.5;
const PROGRESS_ESTIMATES: f64 = 1.0 - 1e-6;

/// Configuration of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Symmetric or asymmetric adapters.
    pub kind: Kind,
    /// Their rank.
    pub rank: usize,
    /// Each task is paired with this many on either side.
    pub reach: usize,
    /// Most rounds.
    pub rounds: usize,
    /// Number of the sketch's stream.
    pub sketch_seed: u64,
}

/// What was found; nothing is judged yet.
pub struct Found<'a> {
    /// `A = mean (Ahat_t - R_t)`, d x d.
    pub base: Mat<f64>,
    /// The adapters.
    pub adapters: Vec<LowRank>,
    /// The subspaces' equation.
    pub equation: Compressed<'a>,
    /// Smallest eigenvalue gap of the intersection.
    pub gap: f64,
    /// `sum_t ||Ahat_t - A - R_t||_F^2`.
    pub residual_squares: f64,
    /// `sum_t ||Ahat_t||_F^2`.
    pub squares: f64,
    /// Rounds made.
    pub rounds: usize,
    /// Work done.
    pub evaluations: Evaluations,
}

impl Found<'_> {
    /// `rho` at the subspaces found.
    pub fn rho(&self) -> Result<f64, SolveError> {
        self.equation.rho()
    }

    /// `rho` with the trace of the inverse.
    pub fn spectrum(&self) -> Result<Spectrum, SolveError> {
        self.equation.spectrum()
    }
}

/// Flops of `rounds` rounds for exact tasks: the table of the module's header, 8 d w^2 a pair and side, the Gram
/// matrices of the intersections, and the span (a QR and seven products of d x Tk by r). Conjugate gradients in
/// the span are left out: they do not grow with d.
pub fn flops(kind: Kind, d: usize, rank: usize, count: usize, rounds: usize) -> f64 {
    let partners = 2.0 * super::intersection::fewest_partners(d, rank) as f64;
    let (d, k, count, rounds) = (d as f64, rank as f64, count as f64, rounds as f64);
    let sides = match kind {
        Kind::Symmetric => 1.0,
        Kind::Asymmetric => 2.0,
    };
    let width = 2.0 * k + sketch::OVERSAMPLING as f64;
    let square = count * d * d;
    let sketching = 2.0 * square * width * sides;
    let pairs = count * partners / 2.0 * 8.0 * d * width * width * sides;
    let meetings = count * 2.0 * d * (2.0 * k * partners).powi(2) * sides;
    let passes = square * (2.0 + 2.0 * k * sides + 4.0 * k);
    let span = 18.0 * d * count * k * (count * k).min(d) * sides;
    sketching + pairs + meetings + rounds * (passes + span)
}

/// Whether two rounds with sketches cost less than dense decompositions: 9 d^3 flops for the eigenvectors of a
/// symmetric matrix, 22 d^3 for singular triples; one a pair, three a task (two rounds and the intersection).
pub fn pays(kind: Kind, d: usize, rank: usize, count: usize, dense_pairs: usize) -> bool {
    let one = match kind {
        Kind::Symmetric => 9.0 * (d as f64).powi(3),
        Kind::Asymmetric => 22.0 * (d as f64).powi(3),
    };
    flops(kind, d, rank, count, 2) < (dense_pairs as f64 + 3.0 * count as f64) * one
}

/// Finds base and adapters. The base is that of `Ahat_t^T` where the source is transposed; adapters too.
pub fn find<'a>(passes: Passes<'a>, settings: Settings) -> Result<Found<'a>, SolveError> {
    let Settings { kind, rank, .. } = settings;
    let source = passes.source;
    let (d, count) = (source.dimension(), source.count());
    let mut base = Mat::zeros(d, d);
    let squares = passes.mean(&mut base)?;
    let total = squares.iter().sum::<f64>();
    let seed = Seed::root(settings.sketch_seed).child("global").child("sketch");
    let request =
        sketch::Request { kind, rank, reach: settings.reach, seed: &seed, squares: &squares };
    let found = sketch::subspaces(passes, base.as_ref(), request)?;
    let mut evaluations =
        Evaluations { factorisations: found.factorisations, ..Default::default() };
    let gap = found.gap;
    let (mut left, mut right) = (found.left, found.right);
    let (mut last, mut rounds) = (f64::INFINITY, 0);
    let progress = if source.is_exact() { PROGRESS_EXACT } else { PROGRESS_ESTIMATES };
    loop {
        let equation = Compressed::new(kind, count, left, right, passes.workers)?;
        let (along, across) = products(passes, base.as_ref(), &equation, kind)?;
        let rests = equation.solve(along, across);
        let factors = adapters(passes, &equation, &rests, kind)?;
        let (u, v) = side_by_side(&factors, d, rank);
        let residual = passes.residual(&mut base, u.as_ref(), v.as_ref())?.iter().sum::<f64>();
        rounds += 1;
        evaluations.hessian_products += rests.products;
        evaluations.factorisations += 4 + count;
        let relative = residual.sqrt() / total.sqrt().max(f64::MIN_POSITIVE);
        let settled = relative <= ROUNDING * source.storage_roundoff();
        let stalled = relative > progress * last || relative.is_nan();
        if settled || stalled || rounds >= settings.rounds {
            return Ok(Found {
                base,
                adapters: factors,
                equation,
                gap,
                residual_squares: residual,
                squares: total,
                rounds,
                evaluations,
            });
        }
        last = relative;
        (left, right) = refreshed(&factors, kind, d, rank);
        passes.mean(&mut base)?;
    }
}

/// `E_t P_t` and `E_t^T Q_t` side by side (symmetric: `sym(E_t) Q_t`, d x 0).
fn products(
    passes: Passes<'_>,
    base: MatRef<'_, f64>,
    equation: &Compressed<'_>,
    kind: Kind,
) -> Result<(Mat<f64>, Mat<f64>), SolveError> {
    let both = kind == Kind::Asymmetric || !passes.source.is_exact();
    let made = passes.products(base, &|t| Operands {
        across: Some(equation.left_basis(t)),
        along: both.then_some(equation.right_basis(t)),
    })?;
    let (d, rank, count) = (base.nrows(), equation.left_basis(0).ncols(), made.len());
    let wide = if kind == Kind::Asymmetric { count * rank } else { 0 };
    let (mut along, mut across) = (Mat::zeros(d, count * rank), Mat::zeros(d, wide));
    for (t, one) in made.iter().enumerate() {
        let mut to = along.as_mut().subcols_mut(t * rank, rank);
        match kind {
            Kind::Asymmetric => {
                to.copy_from(&one.along);
                across.as_mut().subcols_mut(t * rank, rank).copy_from(&one.across);
            }
            Kind::Symmetric if both => {
                to.copy_from(&one.along);
                kernel::add_scaled(to.as_mut(), 1.0, one.across.as_ref());
                kernel::scale(to, 0.5);
            }
            // Exact tasks whose differences are not symmetric are refused by their residual.
            Kind::Symmetric => to.copy_from(&one.across),
        }
    }
    Ok((along, across))
}

/// A task's adapter, or why there is none.
type Adapter = Result<LowRank, DecompositionError>;

/// The adapters from the tasks' rests.
fn adapters(
    passes: Passes<'_>,
    equation: &Compressed<'_>,
    rests: &compressed::Rests,
    kind: Kind,
) -> Result<Vec<LowRank>, SolveError> {
    let rank = equation.left_basis(0).ncols();
    let (d, count) = (passes.source.dimension(), passes.source.count());
    let mut out: Vec<Adapter> =
        (0..count).map(|_| Ok(LowRank::symmetric(Mat::zeros(d, rank)))).collect();
    workers::for_each(passes.workers, &mut out, |t, adapter| {
        let along = rests.along.as_ref().subcols(t * rank, rank);
        let (q, p) = (equation.left_basis(t), equation.right_basis(t));
        *adapter = match kind {
            Kind::Symmetric => symmetric_part(q, along),
            Kind::Asymmetric => {
                asymmetric_part(q, p, along, rests.across.as_ref().subcols(t * rank, rank))
            }
        };
    });
    out.into_iter().map(|adapter| adapter.map_err(SolveError::from)).collect()
}

/// `out += y (v_i / s_i)` for column i of `out`, where that is a small correction.
fn correct(out: &mut Mat<f64>, y: &Mat<f64>, vectors: MatRef<'_, f64>, values: &[f64]) {
    let (d, k) = (y.nrows(), y.ncols());
    let mut turned = Mat::zeros(d, k);
    kernel::mul(turned.as_mut(), y.as_ref(), vectors, 1.0);
    for (i, value) in values.iter().enumerate() {
        let size = kernel::norm(turned.as_ref().subcols(i, 1));
        // Beyond this the subspace is not the adapter's: the next round finds a better one.
        if *value > 0.0 && size < *value {
            let to = out.as_mut().subcols_mut(i, 1);
            kernel::add_scaled(to, 1.0 / value, turned.as_ref().subcols(i, 1));
        }
    }
}

/// Multiplies column i by `sqrt(values[i])`, 0 where that is negative.
fn scale_columns(m: &mut Mat<f64>, values: &[f64]) {
    for (i, value) in values.iter().enumerate() {
        kernel::scale(m.as_mut().subcols_mut(i, 1), value.max(0.0).sqrt());
    }
}

/// `U` of the positive semidefinite `U U^T` from `E Q`.
fn symmetric_part(q: MatRef<'_, f64>, along: MatRef<'_, f64>) -> Adapter {
    let (d, k) = (q.nrows(), q.ncols());
    let mut h = Mat::zeros(k, k);
    kernel::mul(h.as_mut(), q.transpose(), along, 1.0);
    kernel::symmetrise(h.as_mut());
    let mut y = along.to_owned();
    kernel::mul_add(y.as_mut(), q, h.as_ref(), -1.0);
    let (values, vectors) = decompose::symmetric_eigen(h.as_ref())?;
    let mut u = Mat::zeros(d, k);
    kernel::mul(u.as_mut(), q, vectors.as_ref(), 1.0);
    correct(&mut u, &y, vectors.as_ref(), &values);
    scale_columns(&mut u, &values);
    Ok(LowRank::symmetric(u))
}

/// `U V^T` from `E P` and `E^T Q`, balanced.
fn asymmetric_part(
    q: MatRef<'_, f64>,
    p: MatRef<'_, f64>,
    along: MatRef<'_, f64>,
    across: MatRef<'_, f64>,
) -> Adapter {
    let (d, k) = (q.nrows(), q.ncols());
    let mut h = Mat::zeros(k, k);
    kernel::mul(h.as_mut(), q.transpose(), along, 1.0);
    let (mut y, mut z) = (along.to_owned(), across.to_owned());
    kernel::mul_add(y.as_mut(), q, h.as_ref(), -1.0);
    kernel::mul_add(z.as_mut(), p, h.transpose(), -1.0);
    let svd = decompose::thin_svd(h.as_ref())?;
    let (mut u, mut v) = (Mat::zeros(d, k), Mat::zeros(d, k));
    kernel::mul(u.as_mut(), q, svd.left.as_ref(), 1.0);
    kernel::mul(v.as_mut(), p, svd.right.as_ref(), 1.0);
    correct(&mut u, &y, svd.right.as_ref(), &svd.values);
    correct(&mut v, &z, svd.left.as_ref(), &svd.values);
    scale_columns(&mut u, &svd.values);
    scale_columns(&mut v, &svd.values);
    Ok(LowRank::new(u, v).expect("both factors have k columns"))
}

/// The subspaces' equation at the adapters' own subspaces.
pub fn equation_of<'a>(
    adapters: &[LowRank],
    kind: Kind,
    workers: &'a dyn Workers,
) -> Result<Compressed<'a>, SolveError> {
    let (d, rank) = adapters.first().map_or((0, 0), |a| (a.left().nrows(), a.width()));
    let (left, right) = refreshed(adapters, kind, d, rank);
    Compressed::new(kind, adapters.len(), left, right, workers)
}

/// All factors in two matrices, d x Tk.
fn side_by_side(adapters: &[LowRank], d: usize, rank: usize) -> (Mat<f64>, Mat<f64>) {
    let all = |side: fn(&LowRank) -> MatRef<'_, f64>| {
        let mut out = Mat::zeros(d, adapters.len() * rank);
        for (t, adapter) in adapters.iter().enumerate() {
            out.as_mut().subcols_mut(t * rank, rank).copy_from(side(adapter));
        }
        out
    };
    (all(LowRank::left), all(LowRank::right))
}

/// Orthonormal bases of the adapters' ranges.
fn refreshed(adapters: &[LowRank], kind: Kind, d: usize, rank: usize) -> (Mat<f64>, Mat<f64>) {
    let all = |side: fn(&LowRank) -> MatRef<'_, f64>| {
        let mut out = Mat::zeros(d, adapters.len() * rank);
        for (t, adapter) in adapters.iter().enumerate() {
            let basis = decompose::orthonormal_basis(side(adapter));
            out.as_mut().subcols_mut(t * rank, rank).copy_from(&basis);
        }
        out
    };
    match kind {
        Kind::Symmetric => (all(LowRank::left), Mat::zeros(d, 0)),
        Kind::Asymmetric => (all(LowRank::left), all(LowRank::right)),
    }
}
