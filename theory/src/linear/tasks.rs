//! What is known of the tasks: exact matrices, or sufficient statistics of samples.
//!
//! From samples `X_t` (d x N), `Y_t` (d x N), columns being samples:
//! `S_t = X_t X_t^T / N`, `C_t = Y_t X_t^T / N`, `Ahat_t = C_t S_t^+` (per-task least squares, minimum
//! norm where `S_t` is singular) and the least-squares residual `1/(2N) ||Y_t - Ahat_t X_t||_F^2`.
//! Exact tasks are `S_t = I`, `C_t = Ahat_t = A*_t`. Source: theory.md, Setting.

use super::LinearError;
use faer::{Mat, MatRef};
use peftml_linalg::{decompose, kernel};

/// Largest modulus of an entry whose fourth power still is far from overflow in sums.
const LARGEST_ENTRY: f64 = 1e75;

/// Where a task's matrices come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// The truth itself: `S = I`.
    Exact,
    /// `A` with a second moment: least squares of an unknown number of samples.
    Moments,
    /// Samples.
    Samples {
        /// Number of samples N.
        count: usize,
    },
}

/// Smallest modulus that the largest entry may have, unless all are 0: as above, for underflow.
const SMALLEST_ENTRY: f64 = 1e-75;

/// One task.
#[derive(Clone, Debug)]
pub struct Task {
    least_squares: Mat<f64>,
    second_moment: Option<Mat<f64>>,
    cross_moment: Option<Mat<f64>>,
    residual_loss: f64,
    source: TaskSource,
}

impl Task {
    /// `Ahat_t`, d x d.
    pub fn least_squares(&self) -> MatRef<'_, f64> {
        self.least_squares.as_ref()
    }

    /// `S_t`, d x d; `None` for exact tasks, where it is the identity.
    pub fn second_moment(&self) -> Option<MatRef<'_, f64>> {
        self.second_moment.as_ref().map(|m| m.as_ref())
    }

    /// `C_t = Ahat_t S_t`, d x d.
    pub fn cross_moment(&self) -> MatRef<'_, f64> {
        self.cross_moment.as_ref().unwrap_or(&self.least_squares).as_ref()
    }

    /// `1/(2N) ||Y_t - Ahat_t X_t||_F^2`; 0 where samples are not at hand.
    pub fn residual_loss(&self) -> f64 {
        self.residual_loss
    }

    /// Where the matrices come from.
    pub fn source(&self) -> TaskSource {
        self.source
    }

    /// The task whose truth is `a` (d x d).
    pub fn exact(a: Mat<f64>) -> Self {
        Self {
            least_squares: a,
            second_moment: None,
            cross_moment: None,
            residual_loss: 0.0,
            source: TaskSource::Exact,
        }
    }

    /// Least squares `a` with second moment `s` (both d x d).
    pub fn with_second_moment(a: Mat<f64>, s: Mat<f64>) -> Self {
        let mut c = Mat::zeros(a.nrows(), s.ncols());
        kernel::mul(c.as_mut(), a.as_ref(), s.as_ref(), 1.0);
        Self {
            least_squares: a,
            second_moment: Some(s),
            cross_moment: Some(c),
            residual_loss: 0.0,
            source: TaskSource::Moments,
        }
    }

    /// Statistics that were summed elsewhere, of `count` samples: `S` and `C` (both d x d). `Ahat = C S^+` by
    /// Cholesky, or where that fails by the eigenvalues of S above `d u` of the largest. The residual is
    /// taken as 0: see [`Task::with_residual_squares`].
    ///
    /// # Errors
    /// [`LinearError::NoSamples`], [`LinearError::Decomposition`].
    pub fn from_statistics(count: usize, s: Mat<f64>, c: Mat<f64>) -> Result<Self, LinearError> {
        if count == 0 {
            return Err(LinearError::NoSamples { task: 0 });
        }
        let mut a = c.clone();
        match decompose::CholeskyFactor::new(s.as_ref()) {
            Ok(factor) => factor.solve_right_in_place(a.as_mut()),
            Err(_) => {
                let (values, vectors) = decompose::symmetric_eigen(s.as_ref())
                    .map_err(|source| LinearError::Decomposition { what: "S of a task", source })?;
                let d = values.len();
                let cut = d as f64 * f64::EPSILON * values.last().copied().unwrap_or(0.0);
                let mut turned = Mat::zeros(d, d);
                kernel::mul(turned.as_mut(), c.as_ref(), vectors.as_ref(), 1.0);
                for (j, value) in values.iter().enumerate() {
                    let inverse = if *value > cut { 1.0 / value } else { 0.0 };
                    kernel::scale(turned.as_mut().subcols_mut(j, 1), inverse);
                }
                kernel::mul(a.as_mut(), turned.as_ref(), vectors.transpose(), 1.0);
            }
        }
        Ok(Self {
            least_squares: a,
            second_moment: Some(s),
            cross_moment: Some(c),
            residual_loss: 0.0,
            source: TaskSource::Samples { count },
        })
    }

    /// The task with `||Y - Ahat X||_F^2 = squares`, for samples.
    pub fn with_residual_squares(mut self, squares: f64) -> Self {
        if let TaskSource::Samples { count } = self.source {
            self.residual_loss = 0.5 * squares / count as f64;
        }
        self
    }

    /// Variance of an entry of `Ahat`, mean over entries, from the residual of N > d samples:
    /// `noise_std^2 trace(S^-1) / (d N)`; `None` for anything else.
    ///
    /// # Errors
    /// [`LinearError::Decomposition`].
    pub fn entry_variance(&self) -> Result<Option<f64>, LinearError> {
        let (TaskSource::Samples { count }, Some(s)) = (self.source, self.second_moment()) else {
            return Ok(None);
        };
        let (d, n) = (s.nrows() as f64, count as f64);
        if n <= d {
            return Ok(None);
        }
        let noise = 2.0 * self.residual_loss * n / ((n - d) * d);
        let values = decompose::symmetric_eigenvalues(s)
            .map_err(|source| LinearError::Decomposition { what: "S of a task", source })?;
        Ok(Some(noise * values.iter().map(|v| 1.0 / v).sum::<f64>() / (d * n)))
    }

    /// Sufficient statistics of samples `x` (d x N) and `y` (d x N).
    ///
    /// # Errors
    /// [`LinearError::Shape`] where `x` and `y` differ in shape, [`LinearError::NoSamples`] for
    /// N = 0, [`LinearError::NotFinite`].
    pub fn from_samples(
        task: usize,
        x: MatRef<'_, f64>,
        y: MatRef<'_, f64>,
    ) -> Result<Self, LinearError> {
        let (d, n) = (x.nrows(), x.ncols());
        check_shape("Y", task, y, d, n)?;
        if n == 0 {
            return Err(LinearError::NoSamples { task });
        }
        check_finite("X", task, x)?;
        check_finite("Y", task, y)?;
        let scale = 1.0 / n as f64;
        let (mut s, mut c) = (Mat::zeros(d, d), Mat::zeros(d, d));
        kernel::mul(s.as_mut(), x, x.transpose(), scale);
        kernel::symmetrise(s.as_mut());
        kernel::mul(c.as_mut(), y, x.transpose(), scale);
        let a = least_squares(x, s.as_ref(), y, c.as_ref())?;
        // ||Y - Ahat X||^2 summed in blocks of columns: no second copy of Y.
        let mut residual = 0.0;
        let mut block = Mat::zeros(d, 256.min(n));
        for start in (0..n).step_by(256) {
            let width = 256.min(n - start);
            let mut part = block.as_mut().subcols_mut(0, width);
            part.copy_from(y.subcols(start, width));
            kernel::mul_add(part, a.as_ref(), x.subcols(start, width), -1.0);
            residual += kernel::norm_squared(block.as_ref().subcols(0, width));
        }
        Ok(Self {
            least_squares: a,
            second_moment: Some(s),
            cross_moment: Some(c),
            residual_loss: 0.5 * scale * residual,
            source: TaskSource::Samples { count: n },
        })
    }

    /// Writes `S_t m` into `out`; both d x m.
    pub fn apply_second_moment(&self, mut out: faer::MatMut<'_, f64>, m: MatRef<'_, f64>) {
        match &self.second_moment {
            Some(s) => kernel::mul(out, s.as_ref(), m, 1.0),
            None => out.copy_from(m),
        }
    }
}

/// `Y X^+`: through Cholesky of S where that is safe, else by the singular values of X (or S).
fn least_squares(
    x: MatRef<'_, f64>,
    s: MatRef<'_, f64>,
    y: MatRef<'_, f64>,
    c: MatRef<'_, f64>,
) -> Result<Mat<f64>, LinearError> {
    let (d, n) = (x.nrows(), x.ncols());
    let decomposition = |source| LinearError::Decomposition { what: "inputs X of a task", source };
    if n >= d
        && let Ok(factor) = decompose::CholeskyFactor::new(s)
    {
        // The pivots' spread bounds the condition number from below; 1e4 of headroom for the rest.
        let pivots = (0..d).map(|i| factor.lower()[(i, i)]);
        let (least, most) = pivots.fold((f64::INFINITY, 0.0_f64), |(a, b), p| (a.min(p), b.max(p)));
        if least > 1e-4 * most {
            let mut a = c.to_owned();
            factor.solve_right_in_place(a.as_mut());
            return Ok(a);
        }
    }
    // Badly conditioned or N < d: Y V s^{-1} U^T with X = U s V^T; squaring X into S would lose half
    // of the digits.
    let svd = decompose::thin_svd(x).map_err(decomposition)?;
    let cut = svd.values.first().copied().unwrap_or(0.0) * d.max(n) as f64 * f64::EPSILON;
    let rank = svd.values.iter().filter(|v| **v > cut).count();
    let mut yv = Mat::zeros(y.nrows(), rank);
    kernel::mul(yv.as_mut(), y, svd.right.as_ref().subcols(0, rank), 1.0);
    for j in 0..rank {
        for i in 0..d {
            yv[(i, j)] /= svd.values[j];
        }
    }
    let mut a = Mat::zeros(y.nrows(), d);
    kernel::mul(a.as_mut(), yv.as_ref(), svd.left.as_ref().subcols(0, rank).transpose(), 1.0);
    Ok(a)
}

/// T tasks of one dimension.
#[derive(Clone, Debug)]
pub struct Tasks {
    tasks: Vec<Task>,
    dimension: usize,
    storage_roundoff: f64,
}

impl Tasks {
    /// Checks shapes, finiteness, and that second moments are symmetric and positive semidefinite to
    /// the rounding of the stored type (`storage_roundoff`: 2^-53 for f64, 2^-24 for f32).
    ///
    /// # Errors
    /// A [`LinearError`] that names task and figure.
    pub fn new(tasks: Vec<Task>, storage_roundoff: f64) -> Result<Self, LinearError> {
        let Some(first) = tasks.first() else {
            return Err(LinearError::NoTasks { least: 1 });
        };
        let d = first.least_squares.nrows();
        for (t, task) in tasks.iter().enumerate() {
            check_shape("A", t, task.least_squares(), d, d)?;
            check_finite("A", t, task.least_squares())?;
            if let Some(s) = task.second_moment() {
                check_shape("S", t, s, d, d)?;
                check_finite("S", t, s)?;
                if task.source == TaskSource::Moments {
                    check_second_moment(t, s, storage_roundoff)?;
                }
            }
        }
        check_underflow("A", tasks.iter().map(Task::least_squares))?;
        check_underflow("S", tasks.iter().filter_map(Task::second_moment))?;
        Ok(Self { dimension: d, tasks, storage_roundoff })
    }

    /// Exact tasks in double precision.
    ///
    /// # Errors
    /// As [`Tasks::new`].
    pub fn exact(truths: impl IntoIterator<Item = Mat<f64>>) -> Result<Self, LinearError> {
        Self::new(truths.into_iter().map(Task::exact).collect(), f64::EPSILON / 2.0)
    }

    /// Tasks from samples (`X_t`, `Y_t`), each d x N, in double precision.
    ///
    /// # Errors
    /// As [`Tasks::new`] and [`Task::from_samples`].
    pub fn from_samples<'a>(
        samples: impl IntoIterator<Item = (MatRef<'a, f64>, MatRef<'a, f64>)>,
    ) -> Result<Self, LinearError> {
        let tasks: Result<Vec<_>, _> = samples
            .into_iter()
            .enumerate()
            .map(|(t, (x, y))| Task::from_samples(t, x, y))
            .collect();
        Self::new(tasks?, f64::EPSILON / 2.0)
    }

    /// Dimension d.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of tasks T.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Task `t`. Panics if there is none.
    pub fn task(&self, t: usize) -> &Task {
        &self.tasks[t]
    }

    /// The tasks in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Task> {
        self.tasks.iter()
    }

    /// Whether the matrices are the truth itself (no second moments).
    pub fn is_exact(&self) -> bool {
        self.tasks.iter().all(|t| t.source == TaskSource::Exact)
    }

    /// Unit roundoff of the type that the matrices were stored in.
    pub fn storage_roundoff(&self) -> f64 {
        self.storage_roundoff
    }

    /// `(1/T) sum_t 1/(2N) ||Y_t - Ahat_t X_t||_F^2`: what no choice of weights removes.
    pub fn residual_loss(&self) -> f64 {
        self.tasks.iter().map(|t| t.residual_loss).sum::<f64>() / self.count() as f64
    }

    /// `(sum_t ||Ahat_t||_F^2)^(1/2)`.
    pub fn norm(&self) -> f64 {
        self.tasks.iter().map(|t| kernel::norm_squared(t.least_squares())).sum::<f64>().sqrt()
    }

    /// The first `count` tasks.
    pub fn take(&self, count: usize) -> Result<Self, LinearError> {
        Self::new(self.tasks.iter().take(count).cloned().collect(), self.storage_roundoff)
    }
}

fn check_shape(
    what: &'static str,
    task: usize,
    m: MatRef<'_, f64>,
    expected_rows: usize,
    expected_cols: usize,
) -> Result<(), LinearError> {
    let (rows, cols) = (m.nrows(), m.ncols());
    if (rows, cols) == (expected_rows, expected_cols) && rows > 0 {
        Ok(())
    } else {
        Err(LinearError::Shape { what, task, rows, cols, expected_rows, expected_cols })
    }
}

fn check_finite(what: &'static str, task: usize, m: MatRef<'_, f64>) -> Result<(), LinearError> {
    for col in 0..m.ncols() {
        for row in 0..m.nrows() {
            let value = m[(row, col)];
            if !value.is_finite() || value.abs() > LARGEST_ENTRY {
                return Err(LinearError::NotFinite { what, task, row, col, value });
            }
        }
    }
    Ok(())
}

/// Whether the largest entry of all matrices is 0 or far from underflow.
fn check_underflow<'a>(
    what: &'static str,
    matrices: impl Iterator<Item = MatRef<'a, f64>>,
) -> Result<(), LinearError> {
    let largest_of = |m: MatRef<'_, f64>| {
        let entries = (0..m.ncols()).flat_map(|j| (0..m.nrows()).map(move |i| (i, j)));
        entries.map(|at| m[at].abs()).fold(0.0, f64::max)
    };
    let largest = matrices.map(largest_of).fold(0.0, f64::max);
    if largest == 0.0 || largest >= SMALLEST_ENTRY {
        Ok(())
    } else {
        Err(LinearError::Underflow { what, largest })
    }
}

/// Symmetric and positive semidefinite as far as rounding of the stored entries can tell: an entry
/// is off by `roundoff |s_ij|`, hence `||S - S^T||_F <= 2 roundoff ||S||_F`, an eigenvalue by
/// `roundoff ||S||_F`; a product `X X^T / N` computed in that type adds about `d roundoff ||S||_F`.
fn check_second_moment(
    task: usize,
    s: MatRef<'_, f64>,
    storage_roundoff: f64,
) -> Result<(), LinearError> {
    let d = s.nrows();
    let size = kernel::norm(s);
    let allowed = 8.0 * d as f64 * storage_roundoff * size;
    let asymmetry = peftml_linalg::compare::distance(s, s.transpose());
    if asymmetry > allowed {
        return Err(LinearError::SecondMomentNotSymmetric { task, asymmetry, size, allowed });
    }
    // Positive definite once `allowed` is added: a tenth of the work of the eigenvalues, which decide
    // (and explain) where this fails.
    let shifted = Mat::from_fn(d, d, |i, j| s[(i, j)] + if i == j { allowed } else { 0.0 });
    if decompose::CholeskyFactor::new(shifted.as_ref()).is_ok() {
        return Ok(());
    }
    let (values, _) = decompose::symmetric_eigen(s)
        .map_err(|source| LinearError::Decomposition { what: "S of a task", source })?;
    let (smallest, largest) = (values[0], values[d - 1]);
    if smallest < -allowed {
        return Err(LinearError::SecondMomentNotPositive { task, smallest, largest, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::{Seed, compare};

    #[test]
    fn samples_without_noise_give_the_truth_back() {
        let mut stream = Seed::root(1).child("tasks").stream();
        for d in [1, 3, 8] {
            let a = stream.normal_matrix(d, d, 1.0);
            let x = stream.normal_matrix(d, 4 * d, 1.0);
            let mut y = Mat::zeros(d, 4 * d);
            kernel::mul(y.as_mut(), a.as_ref(), x.as_ref(), 1.0);
            let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
            assert!(compare::relative_error(task.least_squares(), a.as_ref()) < 1e-12);
            assert!(task.residual_loss() < 1e-24 * kernel::norm_squared(a.as_ref()));
        }
    }

    #[test]
    fn fewer_samples_than_dimensions_give_the_least_squares_solution_of_least_norm() {
        let mut stream = Seed::root(2).child("tasks").stream();
        let (d, n) = (6, 3);
        let x = stream.normal_matrix(d, n, 1.0);
        let y = stream.normal_matrix(d, n, 1.0);
        let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
        assert!(task.residual_loss() < 1e-26);
        // Least norm: the rows of Ahat lie in the span of the inputs.
        let basis = decompose::orthonormal_basis(x.as_ref());
        let mut inside = Mat::zeros(d, n);
        kernel::mul(inside.as_mut(), task.least_squares(), basis.as_ref(), 1.0);
        let all = kernel::norm(task.least_squares());
        assert!((kernel::norm(inside.as_ref()) - all).abs() < 1e-13 * all);
    }

    #[test]
    fn what_is_no_second_moment_is_refused_with_the_figure() {
        let a = Mat::<f64>::identity(2, 2);
        let skew = Mat::from_fn(2, 2, |i, j| if i == j { 1.0 } else { i as f64 * 0.1 });
        let task = Task::with_second_moment(a.clone(), skew);
        assert!(matches!(
            Tasks::new(vec![task], f64::EPSILON),
            Err(LinearError::SecondMomentNotSymmetric { task: 0, .. })
        ));
        let negative = Mat::from_fn(2, 2, |i, j| if i == j { 1.0 - 2.0 * i as f64 } else { 0.0 });
        assert!(matches!(
            Tasks::new(vec![Task::with_second_moment(a, negative)], f64::EPSILON),
            Err(LinearError::SecondMomentNotPositive { task: 0, .. })
        ));
        let tiny = Mat::from_fn(2, 2, |i, _| 1e-80 * i as f64);
        assert!(matches!(Tasks::exact([tiny]), Err(LinearError::Underflow { what: "A", .. })));
        assert!(Tasks::exact([Mat::zeros(2, 2)]).is_ok());
        let nan = Mat::from_fn(2, 2, |_, _| f64::NAN);
        assert!(matches!(Tasks::exact([nan]), Err(LinearError::NotFinite { row: 0, .. })));
    }
}
