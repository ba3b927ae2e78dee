//! Passes over the tasks' matrices, strip by strip.
//!
//! `E_t = Ahat_t - B` for a base `B` (d x d). A pass reads every matrix once and keeps one strip of columns
//! of `E_t` in the cache; nothing of size d x d is made beside `B`. Jobs are strips, or tasks cut into a
//! number of parts that depends on T and d alone: sums have one order whatever the workers.
//!
//! | pass | flops | result |
//! |---|---|---|
//! | [`Passes::mean`] | T d^2 | `B = mean Ahat`, `||Ahat_t||_F^2` |
//! | [`Passes::products`] | 2 T d^2 w a side | `E_t^T L_t`, `E_t R_t` (w columns), `||E_t||_F^2` |
//! | [`Passes::residual`] | 4 T d^2 k | `B -= (1/T) sum U_t V_t^T`, then `sum_t ||E_t - U_t V_t^T||_F^2` |

use faer::{Mat, MatMut, MatRef};
use peftml_linalg::{Workers, kernel, workers};
use peftml_theory::linear::{LinearError, TaskMatrices};
use std::ops::Range;

/// Numbers of a strip: half a megabyte.
const STRIP: usize = 1 << 16;
/// Jobs of a pass over tasks: enough for the workers of a large machine where tasks are few.
const PARTS: usize = 16;
/// Tasks that are summed before their sum is added: rounding grows with this and with T over this.
const GROUP: usize = 32;

/// A source of matrices with the workers that read it.
#[derive(Clone, Copy)]
pub struct Passes<'a> {
    /// The tasks' matrices.
    pub source: &'a dyn TaskMatrices,
    /// Who runs the jobs.
    pub workers: &'a dyn Workers,
}

/// What a task's matrix is multiplied with, each d x w.
#[derive(Clone, Copy, Default)]
pub struct Operands<'a> {
    /// `L_t` of `E_t^T L_t`.
    pub across: Option<MatRef<'a, f64>>,
    /// `R_t` of `E_t R_t`.
    pub along: Option<MatRef<'a, f64>>,
}

/// A task's products; d x 0 where there was no operand.
pub struct Products {
    /// `E_t^T L_t`.
    pub across: Mat<f64>,
    /// `E_t R_t`.
    pub along: Mat<f64>,
    /// `||E_t||_F^2`.
    pub squares: f64,
}

/// Columns of a strip.
fn strip_width(d: usize) -> usize {
    (STRIP / d / 8 * 8).clamp(8, 64).min(d)
}

/// Cuts a matrix into strips of columns; each with its first column.
fn strips(m: MatMut<'_, f64>) -> Vec<(usize, MatMut<'_, f64>)> {
    let width = strip_width(m.nrows());
    let (mut out, mut rest, mut first) = (Vec::new(), m, 0);
    while rest.ncols() > 0 {
        let here = width.min(rest.ncols());
        let (head, tail) = rest.split_at_col_mut(here);
        out.push((first, head));
        first += here;
        rest = tail;
    }
    out
}

/// What a job of [`Passes::mean`] or [`Passes::residual`] has for itself.
struct StripJob<'b> {
    first: usize,
    base: MatMut<'b, f64>,
    /// One figure a task.
    squares: Vec<f64>,
    failed: Option<LinearError>,
}

impl Passes<'_> {
    /// Writes `mean_t Ahat_t` into `base`; returns `||Ahat_t||_F^2` for every task.
    pub fn mean(&self, base: &mut Mat<f64>) -> Result<Vec<f64>, LinearError> {
        self.over_strips(base, |job| self.mean_of_strip(job))
    }

    fn mean_of_strip(&self, job: &mut StripJob<'_>) -> Result<(), LinearError> {
        let (d, width, count) = (self.source.dimension(), job.base.ncols(), self.source.count());
        let mut buffer = Vec::new();
        let mut group = Mat::<f64>::zeros(d, width);
        job.base.fill(0.0);
        for t in 0..count {
            let columns = job.first..job.first + width;
            let strip = self.source.columns(t, columns, &mut buffer)?;
            job.squares[t] = kernel::norm_squared(strip);
            kernel::add_scaled(group.as_mut(), 1.0, strip);
            if (t + 1).is_multiple_of(GROUP) || t + 1 == count {
                kernel::add_scaled(job.base.as_mut(), 1.0 / count as f64, group.as_ref());
                group.fill(0.0);
            }
        }
        Ok(())
    }

    /// `base -= (1/T) sum_t U_t V_t^T`, then `||Ahat_t - base - U_t V_t^T||_F^2` for every task. `left` and
    /// `right` hold the factors side by side, d x Tk.
    pub fn residual(
        &self,
        base: &mut Mat<f64>,
        left: MatRef<'_, f64>,
        right: MatRef<'_, f64>,
    ) -> Result<Vec<f64>, LinearError> {
        let count = self.source.count();
        let (d, rank) = (self.source.dimension(), left.ncols() / count);
        self.over_strips(base, |job| {
            let width = job.base.ncols();
            let columns = job.first..job.first + width;
            let rows = right.subrows(job.first, width);
            let share = -1.0 / count as f64;
            kernel::mul_add(job.base.as_mut(), left, rows.transpose(), share);
            let (mut buffer, mut rest) = (Vec::new(), Mat::<f64>::zeros(d, width));
            for t in 0..count {
                let strip = self.source.columns(t, columns.clone(), &mut buffer)?;
                kernel::subtract(rest.as_mut(), strip, job.base.as_ref());
                let (u, v) = (left.subcols(t * rank, rank), rows.subcols(t * rank, rank));
                kernel::mul_add(rest.as_mut(), u, v.transpose(), -1.0);
                job.squares[t] = kernel::norm_squared(rest.as_ref());
            }
            Ok(())
        })
    }

    /// Runs a job for every strip of `base`, and sums the tasks' figures in the order of strips.
    fn over_strips(
        &self,
        base: &mut Mat<f64>,
        job: impl Fn(&mut StripJob<'_>) -> Result<(), LinearError> + Sync,
    ) -> Result<Vec<f64>, LinearError> {
        let count = self.source.count();
        let strip =
            |(first, base)| StripJob { first, base, squares: vec![0.0; count], failed: None };
        let mut jobs: Vec<_> = strips(base.as_mut()).into_iter().map(strip).collect();
        workers::for_each(self.workers, &mut jobs, |_, one| one.failed = job(one).err());
        let mut sums = vec![0.0; count];
        for done in jobs {
            if let Some(error) = done.failed {
                return Err(error);
            }
            sums.iter_mut().zip(&done.squares).for_each(|(sum, part)| *sum += part);
        }
        Ok(sums)
    }

    /// The products of every task with its operands.
    pub fn products<'o>(
        &self,
        base: MatRef<'_, f64>,
        operands: &(dyn Fn(usize) -> Operands<'o> + Sync),
    ) -> Result<Vec<Products>, LinearError> {
        let (d, count) = (self.source.dimension(), self.source.count());
        let width = strip_width(d);
        let parts = PARTS.div_ceil(count).min(d.div_ceil(width));
        // Whole strips a part.
        let columns = d.div_ceil(width).div_ceil(parts) * width;
        let cut = |part: usize| (part * columns).min(d)..((part + 1) * columns).min(d);
        let mut jobs: Vec<Result<PartProducts, LinearError>> =
            (0..count * parts).map(|_| Ok(PartProducts::empty())).collect();
        workers::for_each(self.workers, &mut jobs, |i, out| {
            *out = self.part(i / parts, cut(i % parts), base, operands(i / parts));
        });
        let mut jobs = jobs.into_iter();
        (0..count)
            .map(|t| {
                let operands = operands(t);
                let sides = |m: Option<MatRef<'_, f64>>| m.map_or(0, |m| m.ncols());
                let mut all = Products {
                    across: Mat::zeros(d, sides(operands.across)),
                    along: Mat::zeros(d, sides(operands.along)),
                    squares: 0.0,
                };
                for (part, done) in jobs.by_ref().take(parts).enumerate() {
                    let (done, range) = (done?, cut(part));
                    all.squares += done.squares;
                    if operands.across.is_some() {
                        let mut rows = all.across.as_mut().subrows_mut(range.start, range.len());
                        rows.copy_from(done.across.transpose());
                    }
                    if operands.along.is_some() {
                        kernel::add_scaled(all.along.as_mut(), 1.0, done.along.as_ref());
                    }
                }
                Ok(all)
            })
            .collect()
    }

    /// The products of some columns of one task's matrix.
    fn part(
        &self,
        t: usize,
        columns: Range<usize>,
        base: MatRef<'_, f64>,
        operands: Operands<'_>,
    ) -> Result<PartProducts, LinearError> {
        let d = self.source.dimension();
        let width = strip_width(d);
        let wide = |m: Option<MatRef<'_, f64>>| m.map_or(0, |m| m.ncols());
        let mut out = PartProducts {
            across: Mat::zeros(wide(operands.across), columns.len()),
            along: Mat::zeros(d, wide(operands.along)),
            squares: 0.0,
        };
        let (mut buffer, mut difference_buffer) = (Vec::new(), Mat::<f64>::zeros(d, width));
        for first in columns.clone().step_by(width) {
            let here = first..(first + width).min(columns.end);
            let strip = self.source.columns(t, here.clone(), &mut buffer)?;
            let mut e = difference_buffer.as_mut().subcols_mut(0, here.len());
            kernel::subtract(e.as_mut(), strip, base.subcols(here.start, here.len()));
            out.squares += kernel::norm_squared(e.as_ref());
            if let Some(l) = operands.across {
                // Transposed, so that the long sums run down the columns of both.
                let to = out.across.as_mut().subcols_mut(here.start - columns.start, here.len());
                kernel::mul(to, l.transpose(), e.as_ref(), 1.0);
            }
            if let Some(r) = operands.along {
                let rows = r.subrows(here.start, here.len());
                kernel::mul_add(out.along.as_mut(), e.as_ref(), rows, 1.0);
            }
        }
        Ok(out)
    }
}

/// [`Products`] of some columns: `L^T E` (w x columns) and the columns' share of `E R`.
struct PartProducts {
    across: Mat<f64>,
    along: Mat<f64>,
    squares: f64,
}

impl PartProducts {
    fn empty() -> Self {
        Self { across: Mat::new(), along: Mat::new(), squares: 0.0 }
    }
}
