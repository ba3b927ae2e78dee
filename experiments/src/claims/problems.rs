//! Problems that claims are checked on, and the small matrix arithmetic they share.

use super::claim::{ClaimError, Context, Sizes};
use super::faults::Fault;
use faer::{Mat, MatRef};
use num_rational::BigRational;
use peftml_data::synthetic::linear::{Family, LinearSpec, exact_tasks};
use peftml_linalg::{Blocks, Layout, Seed, Stream, decompose, kernel};
use peftml_theory::exact::RationalMatrix;
use peftml_theory::linear::{GroundTruth, Kind, LinearError, ProfileObjective, Tasks, standard};
use peftml_theory::{Gauge, Objective};
use serde_json::{Value, json};

/// Unit roundoff.
pub const UNIT: f64 = f64::EPSILON / 2.0;

/// A drawn problem: a truth of T + 1 offsets.
pub struct Drawn {
    /// Its sizes.
    pub sizes: Sizes,
    /// Truth; the last offset is the test task's.
    pub truth: GroundTruth,
    /// The node of its streams.
    pub seed: Seed,
}

/// Problem number `index` of these sizes below the claim's seed.
pub fn draw(context: &Context, sizes: Sizes, kind: Kind, family: Family, index: usize) -> Drawn {
    let seed = context.seed.child(sizes.label().as_str()).child(index);
    let spec = spec(sizes, kind, family);
    Drawn { sizes, truth: spec.ground_truth(&seed), seed }
}

/// A specification with the defaults of the linear suite for what is not given.
pub fn spec(sizes: Sizes, kind: Kind, family: Family) -> LinearSpec {
    LinearSpec {
        dimension: sizes.d,
        rank: sizes.k,
        tasks: sizes.tasks,
        samples_per_task: 5000,
        test_samples: 100,
        noise_std: 0.1,
        kind,
        family,
    }
}

impl Drawn {
    /// The retraining tasks as exact matrices.
    pub fn tasks(&self) -> Result<Tasks, LinearError> {
        exact_tasks(&self.truth)
    }

    /// How to draw it again.
    pub fn instance(&self, context: &Context, index: usize) -> Value {
        json!({
            "seed": context.root, "d": self.sizes.d, "k": self.sizes.k,
            "tasks": self.sizes.tasks, "index": index,
        })
    }

    /// The true adapters as a point.
    pub fn solution(&self) -> Blocks {
        let lefts = (0..self.sizes.tasks).map(|t| self.truth.left(t));
        match self.truth.kind {
            Kind::Symmetric => Blocks::from_matrices("U", lefts),
            Kind::Asymmetric => {
                let rights = (0..self.sizes.tasks).map(|t| self.truth.offsets[t].right());
                join(&Blocks::from_matrices("U", lefts), &Blocks::from_matrices("V", rights))
            }
        }
    }
}

/// The blocks of `a`, then those of `b`.
fn join(a: &Blocks, b: &Blocks) -> Blocks {
    let mut all = Blocks::zeros(a.layout().followed_by(b.layout()));
    let (left, right) = all.as_mut_slice().split_at_mut(a.as_slice().len());
    left.copy_from_slice(a.as_slice());
    right.copy_from_slice(b.as_slice());
    all
}

/// SR's base as the claims see it.
pub fn standard_base(context: &Context, tasks: &Tasks) -> Result<Mat<f64>, LinearError> {
    let mut base = standard::standard_base(tasks)?;
    if context.faults.has(Fault::StandardBaseSum) {
        kernel::scale(base.as_mut(), tasks.count() as f64);
    }
    Ok(base)
}

/// `tail_r` of a difference with these descending singular values, r = 0..=d, as the claims see it.
pub fn tails(context: &Context, singular_values: &[f64]) -> Vec<f64> {
    let mut tails = standard::tails(singular_values);
    if context.faults.has(Fault::TailFactor) {
        tails.iter_mut().for_each(|t| *t *= 2.0);
    }
    if context.faults.has(Fault::TailShift) {
        tails.remove(0);
        tails.push(0.0);
    }
    tails
}

/// `a - b`.
pub fn minus(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[(i, j)] - b[(i, j)])
}

/// `a b`.
pub fn times(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    kernel::mul(out.as_mut(), a, b, 1.0);
    out
}

/// `u u^T`.
pub fn gram(u: MatRef<'_, f64>) -> Mat<f64> {
    times(u, u.transpose())
}

/// All columns side by side.
pub fn beside(parts: &[MatRef<'_, f64>]) -> Mat<f64> {
    let rows = parts.first().map_or(0, |p| p.nrows());
    let columns: Vec<(usize, usize)> =
        parts.iter().enumerate().flat_map(|(i, p)| (0..p.ncols()).map(move |j| (i, j))).collect();
    Mat::from_fn(rows, columns.len(), |r, c| parts[columns[c].0][(r, columns[c].1)])
}

/// A random orthogonal n x n matrix (of no particular law).
pub fn orthogonal(n: usize, seed: &Seed) -> Mat<f64> {
    decompose::orthonormal_basis(seed.stream().normal_matrix(n, n, 1.0).as_ref())
}

/// A point with independent N(0, std^2) entries.
pub fn random_point(layout: &Layout, std: f64, seed: &Seed) -> Blocks {
    let mut x = Blocks::zeros(layout.clone());
    seed.stream().fill_normal(std, x.as_mut_slice());
    x
}

/// Independent whole entries, uniform on `-reach ..= reach`.
pub fn whole_matrix(rows: usize, cols: usize, reach: i64, stream: &mut Stream) -> RationalMatrix {
    RationalMatrix::from_fn(rows, cols, |_, _| {
        BigRational::from_integer((stream.below(2 * reach as u64 + 1) as i64 - reach).into())
    })
}

/// The rows of a rational matrix as strings.
pub fn rational_rows(m: &RationalMatrix) -> Value {
    json!(
        (0..m.nrows())
            .map(|i| (0..m.ncols()).map(|j| m[(i, j)].to_string()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    )
}

/// The profile objective as the claims see it: with the fault that a test planted.
pub struct Seen<'a> {
    inner: ProfileObjective<'a>,
    faults: super::faults::Faults,
}

impl<'a> Seen<'a> {
    /// The objective of `tasks`.
    pub fn new(
        context: &Context,
        tasks: &'a Tasks,
        kind: Kind,
        rank: usize,
    ) -> Result<Self, ClaimError> {
        Ok(Self { inner: ProfileObjective::new(tasks, kind, rank)?, faults: context.faults })
    }

    /// The best base for the adapters `x`.
    pub fn base(&self, x: &Blocks) -> Mat<f64> {
        self.inner.base(x)
    }

    /// The value with scratch of its own.
    pub fn value_at(&self, x: &Blocks) -> f64 {
        self.value(x, &mut vec![0.0; self.work_len()])
    }

    /// The gradient with scratch of its own.
    pub fn gradient_at(&self, x: &Blocks) -> Blocks {
        let mut g = x.zeros_like();
        self.gradient(x, &mut g, &mut vec![0.0; self.work_len()]);
        g
    }

    /// The Hessian, formed.
    pub fn hessian_at(&self, x: &Blocks) -> Mat<f64> {
        let n = x.as_slice().len();
        let (mut unit, mut column) = (x.zeros_like(), x.zeros_like());
        let mut work = vec![0.0; self.work_len()];
        let mut hessian = Mat::zeros(n, n);
        for j in 0..n {
            unit.as_mut_slice()[j] = 1.0;
            self.hessian_product(x, &unit, &mut column, &mut work);
            unit.as_mut_slice()[j] = 0.0;
            for i in 0..n {
                hessian[(i, j)] = column.as_slice()[i];
            }
        }
        hessian
    }
}

impl Objective for Seen<'_> {
    fn layout(&self) -> &Layout {
        self.inner.layout()
    }

    fn work_len(&self) -> usize {
        self.inner.work_len()
    }

    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.faults.choose(Fault::ValueScale, 1.0, 0.5) * self.inner.value(x, work)
    }

    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        let value = self.inner.gradient(x, out, work);
        out.scale(self.faults.choose(Fault::GradientSign, 1.0, -1.0));
        if self.faults.has(Fault::GradientLastBlock) {
            kernel::scale(out.block_mut(x.count() - 1), -1.0);
        }
        value * self.faults.choose(Fault::ValueScale, 1.0, 0.5)
    }

    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        if self.faults.has(Fault::HessianWithoutResidual) {
            return self.inner.gauss_newton_product(x, v, out, work);
        }
        self.inner.hessian_product(x, v, out, work);
        out.scale(self.faults.choose(Fault::HessianSign, 1.0, -1.0));
    }

    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.inner.gauss_newton_product(x, v, out, work);
    }

    fn gauge(&self) -> Gauge {
        self.inner.gauge()
    }
}
