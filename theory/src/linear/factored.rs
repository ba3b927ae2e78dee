//! The profile objective of exact tasks through small Gram matrices, for T k of the order of d.
//!
//! With `D_t = Ahat_t - mean Ahat`, `W = [U_1 .. U_T]`, `W' = [V_1 .. V_T]` (d x Tk each; `W' = W` and
//! `D_t` symmetrised where adapters are symmetric), `P = W'^T W'` and `bd` the k x k diagonal blocks:
//!
//! * `G_t = U_t V_t^T - (1/T) W W'^T - D_t`
//! * `[G_1 V_1 .. G_T V_T] = W (bd P - P/T) - [D_1 V_1 .. D_T V_T]`, likewise `G_t^T U_t`
//! * `sum_t ||G_t||^2 = sum ||D_t||^2 - 2 sum <U_t, D_t V_t> + sum <P_tt, P'_tt> - <P, P'>/T`, `P' = W^T W`
//! * along `Z, Z'` with `Q = Z'^T W'`: `[dG_t V_t] = Z (bd P - P/T) + W (bd Q - Q/T)`, and
//!   `[G_t Z'_t] = W (bd Q^T - Q^T/T) - [D_t Z'_t]`
//!
//! so that one product of T d^2 k a factor remains: O(T d^2 k + d T^2 k^2) in all, and no d x d result is
//! formed. Both halves of the value are by-products of the gradient: with `q = <bd P - P/T, P'>` it is
//! `sum ||D_t||^2 - q + 2 sum <U_t, G_t V_t>`. That sum cancels near a solution: where less than [`CANCELLED`] of
//! `sum ||D_t||^2` is left it is formed entry by entry instead. Symmetric adapters: the skew parts of `D_t` add a
//! constant. Where all `D_t` vanish outside of a leading block (tasks in a basis of their own ranges), only that
//! block is multiplied.
//!
//! Limits: `D_t` is packed (twice for asymmetric adapters): as much memory again as the tasks take.

use super::{Kind, Tasks};
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::packed::{self, Accumulate, Packed};
use peftml_linalg::{Blocks, kernel, panel};
use pulp::Simd;

/// Most numbers of all `D_t` together: 128 MiB.
const LARGEST: usize = 1 << 24;
/// Below this fraction of `sum ||D_t||^2` the expanded sum has lost too many digits (it keeps 1e-8).
const CANCELLED: f64 = 1e-8;

/// Packed differences; see the module's header.
pub(super) struct Factored {
    kind: Kind,
    d: usize,
    k: usize,
    count: usize,
    /// Leading dimension of d x .. panels.
    ld: usize,
    /// Leading dimension of Tk x .. panels.
    lc: usize,
    /// Outside of the leading `active` rows and columns all `D_t` vanish.
    active: usize,
    /// Rows of a packed `D_t`: `active` padded.
    rows: usize,
    /// `-D_t`, T packed matrices, `active` columns each.
    negated: Vec<f64>,
    /// `-D_t^T`; empty for symmetric adapters.
    transposes: Vec<f64>,
    /// `sum ||D_t||^2` of what `negated` holds.
    size: f64,
    /// `sum ||D_t - sym D_t||^2` for symmetric adapters, else 0.
    skew: f64,
}

/// Replaces `m` by `sym m` and returns `||m - sym m||_F^2`.
fn split_off_skew_part(mut m: MatMut<'_, f64>) -> f64 {
    let mut sum = 0.0;
    kernel::mirrored(m.ncols(), |i, j| {
        let (upper, lower) = (m[(i, j)], m[(j, i)]);
        let half = 0.5 * (upper - lower);
        sum += 2.0 * half * half;
        let mean = 0.5 * (upper + lower);
        m[(i, j)] = mean;
        m[(j, i)] = mean;
    });
    sum
}

/// The parts of the scratch. `.._rows` are packed, `turned` a packed transpose; the second line of matrices is
/// Tk x Tk.
struct Work<'w> {
    left: &'w mut [f64],
    right: &'w mut [f64],
    left_rows: &'w mut [f64],
    right_rows: &'w mut [f64],
    left_change: &'w mut [f64],
    right_change: &'w mut [f64],
    change_rows: &'w mut [f64],
    out: &'w mut [f64],
    turned: &'w mut [f64],
    gram: &'w mut [f64],
    other_gram: &'w mut [f64],
    coefficients: &'w mut [f64],
    product: &'w mut [f64],
    square: &'w mut [f64],
}

/// What second derivatives at one point share, as one piece of code.
struct Prepare<'a>(&'a Factored, &'a Blocks, &'a mut [f64]);

/// One evaluation, as one piece of code that is compiled for the machine's vectors.
struct Evaluate<'a> {
    factored: &'a Factored,
    x: &'a Blocks,
    out: Option<&'a mut Blocks>,
    work: &'a mut [f64],
}

/// One second derivative at the point prepared.
struct Differentiate<'a> {
    factored: &'a Factored,
    v: &'a Blocks,
    out: &'a mut Blocks,
    work: &'a mut [f64],
    full: bool,
}

impl Factored {
    /// Packs `tasks`, if they are exact and small enough for this form to pay; `dimension` is theirs, or a larger
    /// one where they vanish outside of their own.
    pub fn new(tasks: &Tasks, kind: Kind, rank: usize, dimension: usize) -> Option<Self> {
        let (d, count) = (dimension, tasks.count());
        let ld = panel::padded(d);
        let numbers = ld.checked_mul(d)?.checked_mul(count)?;
        if !tasks.is_exact() || count * rank > 2 * d || numbers > LARGEST {
            return None;
        }
        let active = tasks.iter().fold(1, |known, task| leading(task.least_squares(), known));
        let parts = || tasks.iter().map(|task| task.least_squares().get(..active, ..active));
        let mut mean = Mat::zeros(active, active);
        for part in parts() {
            kernel::add_scaled(mean.as_mut(), 1.0 / count as f64, part);
        }
        // Whole blocks, so that those of the differences are those of the factors.
        let rows = active.next_multiple_of(packed::ROWS).min(ld);
        let one = rows * active;
        let mut negated = vec![0.0; one * count];
        let mut transposes = vec![0.0; if kind == Kind::Asymmetric { one * count } else { 0 }];
        let (mut size, mut skew) = (0.0, 0.0);
        let mut negative = Mat::zeros(active, active);
        for (t, part) in parts().enumerate() {
            kernel::subtract(negative.as_mut(), mean.as_ref(), part);
            if kind == Kind::Symmetric {
                skew += split_off_skew_part(negative.as_mut());
            } else {
                let out = &mut transposes[t * one..(t + 1) * one];
                packed::pack(out, rows, negative.transpose());
            }
            size += kernel::norm_squared(negative.as_ref());
            packed::pack(&mut negated[t * one..(t + 1) * one], rows, negative.as_ref());
        }
        let lc = panel::padded(count * rank);
        Some(Self {
            kind,
            d,
            k: rank,
            count,
            ld,
            lc,
            active,
            rows,
            negated,
            transposes,
            size,
            skew,
        })
    }

    /// Length of the scratch.
    pub fn work_len(&self) -> usize {
        let columns = self.count * self.k;
        8 * self.ld * columns + self.lc * (self.ld + 4 * columns) + (self.ld + self.lc) * self.d
    }

    /// The value; the gradient into `out` where given.
    pub fn evaluate(&self, x: &Blocks, out: Option<&mut Blocks>, work: &mut [f64]) -> f64 {
        panel::vectorised(Evaluate { factored: self, x, out, work })
    }

    /// Readies `work` for [`Factored::second_derivative`] at `x`: the packed factors, `bd P - P/T` and
    /// its like for the other side.
    pub fn prepare(&self, x: &Blocks, work: &mut [f64]) {
        panel::vectorised(Prepare(self, x, work));
    }

    /// The Hessian (`full`) or its Gauss-Newton approximation at the point prepared, times `v`.
    pub fn second_derivative(&self, v: &Blocks, out: &mut Blocks, work: &mut [f64], full: bool) {
        panel::vectorised(Differentiate { factored: self, v, out, work, full });
    }

    #[inline(always)]
    fn split<'w>(&self, work: &'w mut [f64]) -> Work<'w> {
        let columns = self.count * self.k;
        let (factor, square) = (self.ld * columns, self.lc * columns);
        let (left, rest) = work.split_at_mut(factor);
        let (right, rest) = rest.split_at_mut(factor);
        let (left_rows, rest) = rest.split_at_mut(factor);
        let (right_rows, rest) = rest.split_at_mut(factor);
        let (left_change, rest) = rest.split_at_mut(factor);
        let (right_change, rest) = rest.split_at_mut(factor);
        let (change_rows, rest) = rest.split_at_mut(factor);
        let (out, rest) = rest.split_at_mut(factor);
        let (turned, rest) = rest.split_at_mut(self.lc * self.ld);
        let (gram, rest) = rest.split_at_mut(square);
        let (other_gram, rest) = rest.split_at_mut(square);
        let (coefficients, rest) = rest.split_at_mut(square);
        let (product, square) = rest.split_at_mut(square);
        Work {
            left,
            right,
            left_rows,
            right_rows,
            left_change,
            right_change,
            change_rows,
            out,
            turned,
            gram,
            other_gram,
            coefficients,
            product,
            square,
        }
    }

    /// Packs the factors `first..first + T` of `x` side by side.
    #[inline(always)]
    fn pack(&self, x: &Blocks, first: usize, out: &mut [f64]) {
        let begin = first * self.d * self.k;
        let from = &x.as_slice()[begin..begin + self.count * self.d * self.k];
        for (column, source) in out.chunks_exact_mut(self.ld).zip(from.chunks_exact(self.d)) {
            column[..self.d].copy_from_slice(source);
            column[self.d..].fill(0.0);
        }
    }

    /// Writes `weight` times the packed factors into blocks `first..` of `x`.
    #[inline(always)]
    fn unpack(&self, packed: &[f64], weight: f64, x: &mut Blocks, first: usize) {
        let begin = first * self.d * self.k;
        let to = &mut x.as_mut_slice()[begin..begin + self.count * self.d * self.k];
        for (column, source) in to.chunks_exact_mut(self.d).zip(packed.chunks_exact(self.ld)) {
            for (x, y) in column.iter_mut().zip(source) {
                *x = weight * y;
            }
        }
    }

    /// `coefficients = bd M - M/T` with `M = gram`, or `gram + gram^T` where `both`.
    #[inline(always)]
    fn coefficients(&self, gram: &[f64], coefficients: &mut [f64], both: bool) {
        let lc = self.lc;
        let share = 1.0 / self.count as f64;
        let columns = coefficients.chunks_exact_mut(lc).zip(gram.chunks_exact(lc));
        for (j, (out, column)) in columns.enumerate() {
            let own = j / self.k * self.k;
            for (x, y) in out.iter_mut().zip(column) {
                *x = -share * y;
            }
            if both {
                for (x, row) in out.iter_mut().zip(gram.chunks_exact(lc)) {
                    *x -= share * row[j];
                }
            }
            for i in own..own + self.k {
                out[i] += column[i] + if both { gram[i * lc + j] } else { 0.0 };
            }
        }
    }

    /// `out -= [D_t x_t]` for the packed `-D_t`, or `-D_t^T`.
    #[inline(always)]
    fn subtract_differences(&self, negated: &[f64], x: &[f64], out: &mut [f64]) {
        let (ld, width) = (self.ld, self.ld * self.k);
        let parts = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (difference, (x, out)) in negated.chunks_exact(self.rows * self.active).zip(parts) {
            let difference = Packed::new(difference, self.rows);
            difference.mul(out, ld, x, ld, self.k, Accumulate::Add);
        }
    }

    /// `P = x^T x` into `gram`.
    #[inline(always)]
    fn gram(&self, x: &[f64], turned: &mut [f64], gram: &mut [f64]) {
        packed::pack_transposed(turned, x, self.ld);
        let columns = self.count * self.k;
        Packed::new(turned, self.lc).mul(gram, self.lc, x, self.ld, columns, Accumulate::Symmetric);
    }

    /// `out = x m`, or added to it, for the packed `x` and a Tk x Tk `m`.
    #[inline(always)]
    fn times(&self, rows: &[f64], m: &[f64], out: &mut [f64], how: Accumulate) {
        let columns = self.count * self.k;
        Packed::new(rows, self.ld).mul(out, self.ld, m, self.lc, columns, how);
    }

    /// `sum_t ||U_t V_t^T - (1/T) W W'^T - D_t||^2`, every entry formed first; of symmetric matrices those
    /// in blocks on and below the diagonal. `left_rows` holds `W` packed.
    #[inline(always)]
    fn sum_of_squares(&self, left_rows: &[f64], right: &[f64], square: &mut [f64]) -> f64 {
        let (ld, d, lc) = (self.ld, self.d, self.lc);
        let (mean, shares) = square.split_at_mut(ld * d);
        let share = -1.0 / self.count as f64;
        shares.fill(0.0);
        for (j, row) in shares.chunks_exact_mut(lc).enumerate() {
            for (x, column) in row.iter_mut().zip(right.chunks_exact(ld)) {
                *x = share * column[j];
            }
        }
        let symmetric = self.kind == Kind::Symmetric;
        let how = if symmetric { Accumulate::Lower } else { Accumulate::Replace };
        Packed::new(left_rows, ld).mul(mean, ld, shares, lc, d, how);
        let mut sum = 0.0;
        for first in (0..ld).step_by(packed::ROWS) {
            let rows = packed::ROWS.min(ld - first);
            sum +=
                panel::vectorised_with(Squares { this: self, left_rows, right, mean, first, rows });
        }
        sum
    }
}

/// The part of [`Factored::sum_of_squares`] of one block of rows; `mean` holds `-(1/T) W W'^T`.
struct Squares<'a> {
    this: &'a Factored,
    left_rows: &'a [f64],
    right: &'a [f64],
    mean: &'a [f64],
    first: usize,
    rows: usize,
}

impl pulp::WithSimd for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        match self.rows / S::F64_LANES.min(self.rows) {
            1 => self.sum::<S, 1>(simd),
            2 => self.sum::<S, 2>(simd),
            4 => self.sum::<S, 4>(simd),
            _ => self.sum::<S, 8>(simd),
        }
    }
}

impl Squares<'_> {
    /// In `R` vectors of rows.
    #[inline(always)]
    fn sum<S: Simd, const R: usize>(self, simd: S) -> f64 {
        let Squares { this, left_rows, right, mean, first, rows } = self;
        let (ld, d, k, active) = (this.ld, this.d, this.k, this.active);
        let columns = this.count * k;
        let symmetric = this.kind == Kind::Symmetric;
        let last = if symmetric { d.min(first + rows) } else { d };
        let left = &left_rows[first * columns..(first + rows) * columns];
        let factors = left.chunks_exact(rows * k).zip(right.chunks_exact(ld * k));
        let mut sums = [simd.splat_f64s(0.0); R];
        for (difference, (left, right)) in
            this.negated.chunks_exact(this.rows * active).zip(factors)
        {
            let known =
                if first < this.rows { first * active..(first + rows) * active } else { 0..0 };
            let known = S::as_simd_f64s(&difference[known]).0.as_chunks::<R>().0;
            let left = S::as_simd_f64s(left).0.as_chunks::<R>().0;
            for (j, column) in mean.chunks_exact(ld).enumerate().take(last) {
                let Some(mut entries) =
                    S::as_simd_f64s(&column[first..]).0.first_chunk::<R>().copied()
                else {
                    break;
                };
                if let Some(known) = known.get(j) {
                    for r in 0..R {
                        entries[r] = simd.add_f64s(entries[r], known[r]);
                    }
                }
                for (u, other) in left.iter().zip(right.chunks_exact(ld)) {
                    let factor = simd.splat_f64s(other[j]);
                    for r in 0..R {
                        entries[r] = simd.add_f64s(entries[r], simd.mul_f64s(u[r], factor));
                    }
                }
                // What lies below the blocks on the diagonal stands for its mirror image too.
                let weight = simd.splat_f64s(if symmetric && j < first { 2.0 } else { 1.0 });
                for r in 0..R {
                    let square = simd.mul_f64s(entries[r], entries[r]);
                    sums[r] = simd.add_f64s(sums[r], simd.mul_f64s(weight, square));
                }
            }
        }
        let mut lanes = [0.0; packed::ROWS];
        S::as_mut_simd_f64s(&mut lanes[..rows]).0.copy_from_slice(&sums);
        lanes.iter().sum()
    }
}

/// The least n, at least `known`, such that `m` vanishes outside of its leading n x n block.
fn leading(m: MatRef<'_, f64>, known: usize) -> usize {
    let mut active = known;
    for j in 0..m.ncols() {
        // Of the columns known the rows below, of others all.
        let first = if j < active { active } else { 0 };
        let last = match m.col(j).try_as_col_major() {
            Some(column) if column.as_slice()[first..].iter().all(|x| *x == 0.0) => None,
            _ => (first..m.nrows()).rev().find(|i| m[(*i, j)] != 0.0),
        };
        if let Some(last) = last {
            active = active.max(last + 1).max(j + 1);
        }
    }
    active
}

impl pulp::NullaryFnOnce for Evaluate<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Evaluate { factored: this, x, out: mut result, work } = self;
        let (ld, lc, k, count) = (this.ld, this.lc, this.k, this.count);
        let work = this.split(work);
        let symmetric = this.kind == Kind::Symmetric;
        this.pack(x, 0, work.left);
        if !symmetric {
            this.pack(x, count, work.right);
        }
        let left = &*work.left;
        let right = if symmetric { left } else { &*work.right };
        packed::pack_panel(work.left_rows, left, ld);
        this.gram(right, work.turned, work.gram);
        this.coefficients(work.gram, work.coefficients, false);
        this.times(work.left_rows, work.coefficients, work.out, Accumulate::Replace);
        this.subtract_differences(&this.negated, right, work.out);
        let along = panel::dot(work.out, left);
        let weight = if symmetric { 2.0 } else { 1.0 } / count as f64;
        if let Some(result) = &mut result {
            this.unpack(work.out, weight, result, 0);
        }
        if !symmetric {
            this.gram(left, work.turned, work.other_gram);
        }
        let other_gram = if symmetric { &*work.gram } else { &*work.other_gram };
        let known = panel::dot(work.coefficients, other_gram);
        let mut own = 0.0;
        for (j, (a, b)) in work.gram.chunks_exact(lc).zip(other_gram.chunks_exact(lc)).enumerate() {
            let block = j / k * k..(j / k + 1) * k;
            own += a[block.clone()].iter().zip(&b[block]).map(|(x, y)| x * y).sum::<f64>();
        }
        if let (false, Some(result)) = (symmetric, &mut result) {
            this.coefficients(other_gram, work.coefficients, false);
            packed::pack_panel(work.change_rows, right, ld);
            this.times(work.change_rows, work.coefficients, work.out, Accumulate::Replace);
            this.subtract_differences(&this.transposes, left, work.out);
            this.unpack(work.out, weight, result, count);
        }
        let mut sum = this.size - known + 2.0 * along;
        // Also where the sum is not finite: the entries decide.
        if !sum.is_finite() || sum < CANCELLED * (this.size + own) {
            sum = this.sum_of_squares(work.left_rows, right, work.square);
        }
        0.5 / count as f64 * (sum + this.skew)
    }
}

impl pulp::NullaryFnOnce for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Prepare(this, x, work) = self;
        let work = this.split(work);
        this.pack(x, 0, work.left);
        packed::pack_panel(work.left_rows, work.left, this.ld);
        if this.kind == Kind::Symmetric {
            this.gram(work.left, work.turned, work.product);
            this.coefficients(work.product, work.gram, false);
            return;
        }
        this.pack(x, this.count, work.right);
        packed::pack_panel(work.right_rows, work.right, this.ld);
        this.gram(work.right, work.turned, work.product);
        this.coefficients(work.product, work.gram, false);
        this.gram(work.left, work.turned, work.product);
        this.coefficients(work.product, work.other_gram, false);
    }
}

impl pulp::NullaryFnOnce for Differentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Differentiate { factored: this, v, out, work, full } = self;
        let work = this.split(work);
        this.pack(v, 0, work.left_change);
        let weight = 1.0 / this.count as f64;
        if this.kind == Kind::Symmetric {
            let side = Side {
                rows: work.left_rows,
                other: work.left,
                change: work.left_change,
                other_change: work.left_change,
                coefficients: work.gram,
                negated: &this.negated,
            };
            let spare = (work.change_rows, work.turned, work.product, work.coefficients);
            this.second_side(&side, spare, work.out, full);
            return this.unpack(work.out, 2.0 * weight, out, 0);
        }
        this.pack(v, this.count, work.right_change);
        let side = Side {
            rows: work.left_rows,
            other: work.right,
            change: work.left_change,
            other_change: work.right_change,
            coefficients: work.gram,
            negated: &this.negated,
        };
        let (rows, turned) = (work.change_rows, work.turned);
        let (product, coefficients) = (work.product, work.coefficients);
        let spare = (&mut *rows, &mut *turned, &mut *product, &mut *coefficients);
        this.second_side(&side, spare, work.out, full);
        this.unpack(work.out, weight, out, 0);
        let side = Side {
            rows: work.right_rows,
            other: work.left,
            change: work.right_change,
            other_change: work.left_change,
            coefficients: work.other_gram,
            negated: &this.transposes,
        };
        this.second_side(&side, (rows, turned, product, coefficients), work.out, full);
        this.unpack(work.out, weight, out, this.count);
    }
}

/// What the second derivative in one factor depends on; names as for the left factor.
struct Side<'a> {
    /// `W`, packed.
    rows: &'a [f64],
    /// `W'`.
    other: &'a [f64],
    /// `Z`.
    change: &'a [f64],
    /// `Z'`.
    other_change: &'a [f64],
    /// `bd P - P/T`.
    coefficients: &'a [f64],
    /// `-D_t`, packed.
    negated: &'a [f64],
}

impl Factored {
    /// `out = [dG_t V_t + G_t Z'_t]`; the second term where `full`.
    #[inline(always)]
    fn second_side(
        &self,
        side: &Side<'_>,
        (rows, turned, product, coefficients): Spare<'_>,
        out: &mut [f64],
        full: bool,
    ) {
        let (ld, lc, columns) = (self.ld, self.lc, self.count * self.k);
        packed::pack_panel(rows, side.change, ld);
        self.times(rows, side.coefficients, out, Accumulate::Replace);
        packed::pack_transposed(turned, side.other_change, ld);
        Packed::new(turned, lc).mul(product, lc, side.other, ld, columns, Accumulate::Replace);
        self.coefficients(product, coefficients, full);
        self.times(side.rows, coefficients, out, Accumulate::Add);
        if full {
            self.subtract_differences(side.negated, side.other_change, out);
        }
    }
}

/// Scratch of [`Factored::second_side`]: `Z` packed, `Z'^T` packed, `Q` and its coefficients.
type Spare<'a> = (&'a mut [f64], &'a mut [f64], &'a mut [f64], &'a mut [f64]);
