//! A base with adapters, and the joint gradient there.

use super::OptimalityError;
use crate::linear::{Kind, Tasks};
use faer::{Mat, MatRef};
use peftml_linalg::{BlockSpec, Blocks, Layout, kernel};

/// Largest modulus of an adapter's entry: fourth powers and their sums stay finite.
const LARGEST_FACTOR: f64 = 1e36;
/// Largest modulus of a base's entry.
const LARGEST_BASE: f64 = 1e75;

/// A base `A` (d x d) with adapters `U_t` (d x k), and `V_t` (d x k) where they are asymmetric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    base: Mat<f64>,
    factors: Blocks,
    kind: Kind,
    rank: usize,
    storage_roundoff: f64,
}

impl Point {
    /// Checks that the matrices are a point of the tasks' problem. `storage_roundoff` is that of the
    /// type they were stored in (2^-53 for f64).
    ///
    /// # Errors
    /// [`OptimalityError`]: shapes, counts, entries that are not finite, a width outside 1..=d.
    pub fn new(
        tasks: &Tasks,
        base: Mat<f64>,
        left: Vec<Mat<f64>>,
        right: Option<Vec<Mat<f64>>>,
        storage_roundoff: f64,
    ) -> Result<Self, OptimalityError> {
        let d = tasks.dimension();
        let rank = left.first().map_or(0, |u| u.ncols());
        if rank == 0 || rank > d {
            return Err(OptimalityError::Rank { rank, dimension: d });
        }
        check("A", 0, base.as_ref(), (d, d), LARGEST_BASE)?;
        let kind = if right.is_some() { Kind::Asymmetric } else { Kind::Symmetric };
        let sides = [("U", Some(&left)), ("V", right.as_ref())];
        for (what, matrices) in sides.iter().filter_map(|(what, m)| m.map(|m| (*what, m))) {
            if matrices.len() != tasks.count() {
                let (found, expected) = (matrices.len(), tasks.count());
                return Err(OptimalityError::Count { what, found, expected });
            }
            for (t, m) in matrices.iter().enumerate() {
                check(what, t, m.as_ref(), (d, rank), LARGEST_FACTOR)?;
            }
        }
        let mut factors = Blocks::zeros(layout(kind, tasks.count(), d, rank));
        for (i, m) in left.iter().chain(right.iter().flatten()).enumerate() {
            factors.block_mut(i).copy_from(m);
        }
        Ok(Self { base, factors, kind, rank, storage_roundoff })
    }

    /// The point with the adapters `factors` (blocks `U0..`, then `V0..`) and a base.
    ///
    /// # Errors
    /// As [`Point::new`].
    pub fn from_blocks(
        tasks: &Tasks,
        base: Mat<f64>,
        factors: &Blocks,
        kind: Kind,
    ) -> Result<Self, OptimalityError> {
        let count = tasks.count();
        let expected = if kind == Kind::Symmetric { count } else { 2 * count };
        if factors.count() != expected {
            return Err(OptimalityError::Count { what: "U", found: factors.count(), expected });
        }
        let left = factors.to_matrices(0..count);
        let right = (kind == Kind::Asymmetric).then(|| factors.to_matrices(count..2 * count));
        Self::new(tasks, base, left, right, f64::EPSILON / 2.0)
    }

    /// The base, d x d.
    pub fn base(&self) -> MatRef<'_, f64> {
        self.base.as_ref()
    }

    /// The adapters: blocks `U0..`, then `V0..`, each d x k.
    pub fn factors(&self) -> &Blocks {
        &self.factors
    }

    /// Symmetric where the point has no `V`.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Width k of the adapters.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Unit roundoff of the type that the point was stored in.
    pub fn storage_roundoff(&self) -> f64 {
        self.storage_roundoff
    }

    /// Number of tasks.
    pub fn count(&self) -> usize {
        match self.kind {
            Kind::Symmetric => self.factors.count(),
            Kind::Asymmetric => self.factors.count() / 2,
        }
    }

    /// `U_t`.
    pub fn left(&self, t: usize) -> MatRef<'_, f64> {
        self.factors.block(t)
    }

    /// `V_t`; `U_t` itself where adapters are symmetric.
    pub fn right(&self, t: usize) -> MatRef<'_, f64> {
        match self.kind {
            Kind::Symmetric => self.factors.block(t),
            Kind::Asymmetric => self.factors.block(self.count() + t),
        }
    }

    /// `R_t`, d x d.
    pub fn offset(&self, t: usize) -> Mat<f64> {
        let d = self.base.nrows();
        let mut offset = Mat::zeros(d, d);
        kernel::mul(offset.as_mut(), self.left(t), self.right(t).transpose(), 1.0);
        offset
    }

    /// Scales `U_t` and `V_t` to equal norms (a gauge transformation) where neither is zero: verdicts
    /// do not depend on it, rounding does. Returns the factors `c_t` with which `U_t` was multiplied.
    pub(super) fn balance(&mut self) -> Vec<f64> {
        let count = self.count();
        if self.kind == Kind::Symmetric {
            return vec![1.0; count];
        }
        (0..count)
            .map(|t| {
                let (u, v) = (kernel::norm(self.left(t)), kernel::norm(self.right(t)));
                let factor = (v / u).sqrt();
                if !factor.is_finite() || factor == 0.0 {
                    return 1.0;
                }
                // A power of two: exact.
                let factor = factor.log2().round().exp2();
                kernel::scale(self.factors.block_mut(t), factor);
                kernel::scale(self.factors.block_mut(count + t), 1.0 / factor);
                factor
            })
            .collect()
    }
}

/// Blocks `U0..`, then `V0..` where adapters are asymmetric.
fn layout(kind: Kind, count: usize, d: usize, rank: usize) -> Layout {
    let named = |prefix: &'static str| {
        (0..count).map(move |t| BlockSpec { name: format!("{prefix}{t}"), rows: d, cols: rank })
    };
    match kind {
        Kind::Symmetric => Layout::new(named("U")),
        Kind::Asymmetric => Layout::new(named("U").chain(named("V"))),
    }
}

fn check(
    what: &'static str,
    task: usize,
    m: MatRef<'_, f64>,
    (expected_rows, expected_cols): (usize, usize),
    largest: f64,
) -> Result<(), OptimalityError> {
    let (rows, cols) = (m.nrows(), m.ncols());
    if (rows, cols) != (expected_rows, expected_cols) {
        return Err(OptimalityError::Shape {
            what,
            task,
            rows,
            cols,
            expected_rows,
            expected_cols,
        });
    }
    for col in 0..cols {
        for row in 0..rows {
            let value = m[(row, col)];
            if value.is_nan() || value.abs() > largest {
                return Err(OptimalityError::NotFinite { what, task, row, col, value, largest });
            }
        }
    }
    Ok(())
}

/// Value and gradient of `1/(2T) sum_t tr((A + R_t - Ahat_t) S_t (..)^T)` jointly in `(A, U[, V])`.
pub(super) struct JointGradient {
    /// The value.
    pub value: f64,
    /// `(1/T) sum_t G_t`, Frobenius norm.
    pub base: f64,
    /// The gradient in the adapters, Euclidean norm.
    pub factors: f64,
}

/// The joint gradient at `point`, `A` not eliminated.
pub(super) fn joint_gradient(tasks: &Tasks, point: &Point) -> JointGradient {
    let d = tasks.dimension();
    let weight = 1.0 / tasks.count() as f64;
    let mut in_base = Mat::<f64>::zeros(d, d);
    let (mut value, mut squares) = (0.0, 0.0);
    let mut side = Mat::zeros(d, point.rank());
    for (t, task) in tasks.iter().enumerate() {
        let mut error =
            Mat::from_fn(d, d, |i, j| point.base[(i, j)] - task.least_squares()[(i, j)]);
        kernel::mul_add(error.as_mut(), point.left(t), point.right(t).transpose(), 1.0);
        let mut moment = error.clone();
        if let Some(s) = task.second_moment() {
            kernel::mul(moment.as_mut(), error.as_ref(), s, 1.0);
        }
        value += 0.5 * weight * kernel::inner(error.as_ref(), moment.as_ref());
        kernel::add_scaled(in_base.as_mut(), weight, moment.as_ref());
        kernel::mul(side.as_mut(), moment.as_ref(), point.right(t), weight);
        match point.kind() {
            Kind::Symmetric => {
                kernel::mul_add(side.as_mut(), moment.transpose(), point.left(t), weight);
                squares += kernel::norm_squared(side.as_ref());
            }
            Kind::Asymmetric => {
                squares += kernel::norm_squared(side.as_ref());
                kernel::mul(side.as_mut(), moment.transpose(), point.left(t), weight);
                squares += kernel::norm_squared(side.as_ref());
            }
        }
    }
    JointGradient { value, base: kernel::norm(in_base.as_ref()), factors: squares.sqrt() }
}
