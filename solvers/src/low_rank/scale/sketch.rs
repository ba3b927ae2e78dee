//! The offsets' subspaces from sketches: steps 1 and 2 of the global solver without d x d work.
//!
//! One Gaussian `Omega` (d x w, w = 2k + [`OVERSAMPLING`]) is shared by all tasks: `E_s^T Omega - E_t^T Omega`
//! is the sketch of `(Ahat_s - Ahat_t)^T`, whose range it spans exactly where the difference has rank 2k. So
//! one pass gives the ranges of all pairs (asymmetric: `E_t Omega` too, in the same pass). Estimates from
//! samples have a tail: power passes multiply each pair's basis by its difference again until
//! `(sigma_{2k+1} / sigma_2k)^(passes + 1)` is below [`ANGLE`] (the sketch's singular values stand for them).
//!
//! `Q_t`: the k leading eigenvectors of `sum_s B_ts B_ts^T`, from the small Gram matrix of `[B_ts ..]`; its
//! leading eigenvalues are near the number of partners, so that squaring costs no digits.
//! Source: theory.md, Solvers; Halko, Martinsson, Tropp, SIAM Review 53 (2011).

use super::passes::{Operands, Passes, Products};
use crate::low_rank::intersection::pairs;
use crate::problem::SolveError;
use faer::{Mat, MatRef};
use peftml_linalg::{DecompositionError, Seed, decompose, kernel, workers};
use peftml_theory::linear::Kind;

/// Columns of the sketch beyond 2k.
pub const OVERSAMPLING: usize = 8;
/// The subspaces' error enters A squared, and later rounds remove it: this is close enough to start.
const ANGLE: f64 = 1e-3;
/// Most power passes.
const MOST_POWERS: usize = 3;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Symmetric or asymmetric offsets.
    pub kind: Kind,
    /// Their rank.
    pub rank: usize,
    /// Each task is paired with this many on either side.
    pub reach: usize,
    /// The stream of `Omega`.
    pub seed: &'a Seed,
    /// `||Ahat_t||_F^2`: rounding is relative to it.
    pub squares: &'a [f64],
}

/// Subspaces side by side.
pub struct Subspaces {
    /// `Q_1 .. Q_T`, d x Tk.
    pub left: Mat<f64>,
    /// `P_1 .. P_T`, d x Tk; d x 0 where offsets are symmetric.
    pub right: Mat<f64>,
    /// Smallest eigenvalue gap, divided by the number of partners.
    pub gap: f64,
    /// Factorisations made.
    pub factorisations: usize,
}

/// A pair's ranges: `left` of `E_s - E_t`, `right` of its transpose (asymmetric only).
struct Pair {
    tasks: (usize, usize),
    left: Mat<f64>,
    right: Mat<f64>,
    /// `sigma_{2k+1} / sigma_2k`.
    tail: f64,
    failed: Option<DecompositionError>,
}

/// Finds the subspaces of `Ahat_t`; `base` is their mean.
pub fn subspaces(
    passes: Passes<'_>,
    base: MatRef<'_, f64>,
    request: Request<'_>,
) -> Result<Subspaces, SolveError> {
    let (d, count) = (passes.source.dimension(), passes.source.count());
    let Request { kind, rank, .. } = request;
    let width = (2 * rank + OVERSAMPLING).min(d);
    let omega = request.seed.stream().normal_matrix(d, width, 1.0);
    // Differences of exact tasks with symmetric offsets are symmetric: one side will do.
    let both = kind == Kind::Asymmetric || !passes.source.is_exact();
    let operands = Operands { across: Some(omega.as_ref()), along: both.then_some(omega.as_ref()) };
    let mut sketches = passes.products(base, &|_| operands)?;
    let mut powers = 0;
    let mut found: Vec<Pair> = pairs(count, request.reach)
        .map(|tasks| Pair { tasks, left: Mat::new(), right: Mat::new(), tail: 0.0, failed: None })
        .collect();
    let shared = |_: usize, _: usize| 0;
    refine(passes, &request, &sketches, &mut found, (both, &shared))?;
    let mut factorisations = found.len();
    let tail = found.iter().map(|pair| pair.tail).fold(0.0, f64::max);
    if !passes.source.is_exact() {
        let mut angle = tail;
        while angle > ANGLE && powers < MOST_POWERS {
            let blocks = Blocks::new(&found, count);
            let joined = blocks.join(&found, kind, d);
            sketches = passes.products(base, &|t| Operands {
                across: Some(joined[t].0.as_ref()),
                along: Some(if kind == Kind::Symmetric {
                    joined[t].0.as_ref()
                } else {
                    joined[t].1.as_ref()
                }),
            })?;
            powers += 1;
            let place = |pair: usize, side: usize| blocks.starts[pair][side];
            refine(passes, &request, &sketches, &mut found, (both, &place))?;
            factorisations += found.len();
            angle *= tail;
        }
    }
    let (left, right, gap) = intersect(passes, &request, &found)?;
    Ok(Subspaces { left, right, gap, factorisations: factorisations + count })
}

/// Where a pair's basis stands in the two tasks' joined operands.
struct Blocks {
    starts: Vec<[usize; 2]>,
    widths: Vec<usize>,
}

impl Blocks {
    fn new(found: &[Pair], count: usize) -> Self {
        let mut widths = vec![0; count];
        let starts = found.iter().map(|pair| {
            let width = pair.left.ncols().max(pair.right.ncols());
            [pair.tasks.0, pair.tasks.1].map(|task| {
                let start = widths[task];
                widths[task] += width;
                start
            })
        });
        let starts = starts.collect();
        Self { starts, widths }
    }

    /// Every task's bases side by side: left ones, right ones.
    fn join(&self, found: &[Pair], kind: Kind, d: usize) -> Vec<(Mat<f64>, Mat<f64>)> {
        let zeros = |width: &usize| {
            let right = if kind == Kind::Symmetric { 0 } else { *width };
            (Mat::zeros(d, *width), Mat::zeros(d, right))
        };
        let mut out: Vec<(Mat<f64>, Mat<f64>)> = self.widths.iter().map(zeros).collect();
        for (pair, starts) in found.iter().zip(&self.starts) {
            for (task, start) in [pair.tasks.0, pair.tasks.1].into_iter().zip(starts) {
                let put = |to: &mut Mat<f64>, from: &Mat<f64>| {
                    if from.ncols() > 0 && to.ncols() > 0 {
                        to.as_mut().subcols_mut(*start, from.ncols()).copy_from(from);
                    }
                };
                put(&mut out[task].0, &pair.left);
                put(&mut out[task].1, &pair.right);
            }
        }
        out
    }
}

/// The pairs' bases from the tasks' products. `place` tells at which column of a task's products those of a
/// pair begin.
fn refine(
    passes: Passes<'_>,
    request: &Request<'_>,
    sketches: &[Products],
    found: &mut [Pair],
    (both, place): (bool, &(dyn Fn(usize, usize) -> usize + Sync)),
) -> Result<(), SolveError> {
    let d = passes.source.dimension();
    let width = (2 * request.rank + OVERSAMPLING).min(d);
    let roundoff = passes.source.storage_roundoff();
    workers::for_each(passes.workers, found, |i, pair| {
        let (s, t) = pair.tasks;
        let starts = (place(i, 0), place(i, 1));
        // A later basis may have fewer columns: only as many as there are.
        let columns = |width: usize| {
            let known = pair.left.ncols().max(pair.right.ncols());
            if known == 0 { width } else { known }
        };
        let width = columns(width);
        let sketch = |side: fn(&Products) -> MatRef<'_, f64>| {
            let mut out = Mat::zeros(d, width);
            out.copy_from(side(&sketches[s]).subcols(starts.0, width));
            let other = side(&sketches[t]).subcols(starts.1, width);
            kernel::add_scaled(out.as_mut(), -1.0, other);
            out
        };
        let mut right = sketch(|p| p.across.as_ref());
        // Entries of Omega have size 1, those of an orthonormal basis 1/sqrt(d); the first sketch counts.
        let size = request.squares[s].sqrt() + request.squares[t].sqrt();
        let floor = 2.0 * roundoff * size * (width as f64).sqrt();
        let keep = 2 * request.rank;
        let mut left = Mat::new();
        if both {
            left = sketch(|p| p.along.as_ref());
            if request.kind == Kind::Symmetric {
                kernel::add_scaled(right.as_mut(), 1.0, left.as_ref());
                kernel::scale(right.as_mut(), 0.5);
            }
        }
        let result = match request.kind {
            Kind::Symmetric => range(&right, keep, floor).map(|(basis, tail)| {
                pair.left = basis;
                pair.tail = tail;
            }),
            Kind::Asymmetric => range(&left, keep, floor).and_then(|(basis, tail)| {
                pair.left = basis;
                pair.tail = tail;
                let (basis, tail) = range(&right, keep, floor)?;
                pair.right = basis;
                pair.tail = pair.tail.max(tail);
                Ok(())
            }),
        };
        pair.failed = result.err();
    });
    found.iter().find_map(|pair| pair.failed).map_or(Ok(()), |error| Err(error.into()))
}

/// An orthonormal basis of the leading range of `sketch`, at most `keep` columns and none whose singular
/// value is below `floor`; and how fast the values fall behind it.
fn range(
    sketch: &Mat<f64>,
    keep: usize,
    floor: f64,
) -> Result<(Mat<f64>, f64), DecompositionError> {
    let width = sketch.ncols();
    let q = decompose::orthonormal_basis(sketch.as_ref());
    let mut r = Mat::zeros(q.ncols(), width);
    kernel::mul(r.as_mut(), q.transpose(), sketch.as_ref(), 1.0);
    let svd = decompose::thin_svd(r.as_ref())?;
    let kept = svd.values.iter().take(keep).take_while(|value| **value > floor).count();
    let tail = match svd.values.get(keep) {
        Some(next) if kept == keep => next / svd.values[keep - 1],
        _ => 0.0,
    };
    let mut basis = Mat::zeros(sketch.nrows(), kept);
    kernel::mul(basis.as_mut(), q.as_ref(), svd.left.as_ref().subcols(0, kept), 1.0);
    Ok((basis, tail))
}

/// One task's intersection.
struct Meeting {
    left: Mat<f64>,
    right: Mat<f64>,
    gap: f64,
    failed: Option<SolveError>,
}

/// `Q_t` (and `P_t`) of every task, side by side, and the smallest gap.
fn intersect(
    passes: Passes<'_>,
    request: &Request<'_>,
    found: &[Pair],
) -> Result<(Mat<f64>, Mat<f64>, f64), SolveError> {
    let (d, count, rank) = (passes.source.dimension(), passes.source.count(), request.rank);
    let mut partners = vec![Vec::new(); count];
    for (i, pair) in found.iter().enumerate() {
        partners[pair.tasks.0].push(i);
        partners[pair.tasks.1].push(i);
    }
    let mut meetings: Vec<Meeting> = (0..count)
        .map(|_| Meeting { left: Mat::new(), right: Mat::new(), gap: 0.0, failed: None })
        .collect();
    workers::for_each(passes.workers, &mut meetings, |t, meeting| {
        let met = |side: fn(&Pair) -> MatRef<'_, f64>| {
            let bases: Vec<_> = partners[t].iter().map(|i| side(&found[*i])).collect();
            meet(&bases, rank)
        };
        let result = met(|pair| pair.left.as_ref()).and_then(|(basis, gap)| {
            (meeting.left, meeting.gap) = (basis, gap);
            if request.kind == Kind::Asymmetric {
                let (basis, gap) = met(|pair| pair.right.as_ref())?;
                meeting.right = basis;
                meeting.gap = meeting.gap.min(gap);
            }
            Ok(())
        });
        meeting.failed = result.err();
    });
    let sides = if request.kind == Kind::Asymmetric { count * rank } else { 0 };
    let (mut left, mut right) = (Mat::zeros(d, count * rank), Mat::zeros(d, sides));
    let mut gap = f64::INFINITY;
    for (t, meeting) in meetings.into_iter().enumerate() {
        if let Some(error) = meeting.failed {
            return Err(error);
        }
        gap = gap.min(meeting.gap);
        left.as_mut().subcols_mut(t * rank, rank).copy_from(&meeting.left);
        if sides > 0 {
            right.as_mut().subcols_mut(t * rank, rank).copy_from(&meeting.right);
        }
    }
    Ok((left, right, gap))
}

/// The k leading eigenvectors of `sum_i B_i B_i^T`, and the gap behind them divided by the number of bases.
fn meet(bases: &[MatRef<'_, f64>], rank: usize) -> Result<(Mat<f64>, f64), SolveError> {
    let (d, width) = (bases[0].nrows(), bases.iter().map(|b| b.ncols()).sum::<usize>());
    if width < rank {
        // The differences of this task have fewer directions than an adapter.
        return Err(SolveError::RankTooLarge { rank });
    }
    let mut joined = Mat::zeros(d, width);
    let mut start = 0;
    for basis in bases {
        joined.as_mut().subcols_mut(start, basis.ncols()).copy_from(basis);
        start += basis.ncols();
    }
    let mut gram = Mat::zeros(width, width);
    kernel::mul(gram.as_mut(), joined.transpose(), joined.as_ref(), 1.0);
    kernel::symmetrise(gram.as_mut());
    let (values, vectors) = decompose::symmetric_eigen(gram.as_ref())?;
    let leading = Mat::from_fn(width, rank, |i, j| {
        let at = width - 1 - j;
        vectors[(i, at)] / values[at].max(f64::MIN_POSITIVE).sqrt()
    });
    let mut basis = Mat::zeros(d, rank);
    kernel::mul(basis.as_mut(), joined.as_ref(), leading.as_ref(), 1.0);
    let next = if width > rank { values[width - 1 - rank] } else { 0.0 };
    Ok((basis, (values[width - rank] - next) / bases.len() as f64))
}
