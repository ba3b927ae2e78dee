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
//! formed. The value's sum cancels near a solution: where less than [`CANCELLED`] of `sum ||D_t||^2` is left it is
//! formed entry by entry instead. Symmetric adapters: the skew parts of `D_t` add a constant.
//!
//! Limits: the packed `D_t` (twice for asymmetric adapters) must be of a size that caches hold.

use super::{Kind, Tasks};
use faer::{Mat, MatMut};
use peftml_linalg::{Blocks, kernel, panel};

/// Most numbers of all `D_t` together: 4 MiB.
const LARGEST: usize = 1 << 19;
/// Below this fraction of `sum ||D_t||^2` the expanded sum has lost too many digits (it keeps 1e-8).
const CANCELLED: f64 = 1e-8;

/// Packed differences; see the module's header.
pub(super) struct Factored {
    kind: Kind,
    d: usize,
    k: usize,
    count: usize,
    ld: usize,
    /// `D_t`, T panels.
    differences: Vec<f64>,
    /// `D_t^T`; empty for symmetric adapters.
    transposes: Vec<f64>,
    /// `sum ||D_t||^2` of what `differences` holds.
    size: f64,
    /// `sum ||D_t - sym D_t||^2` for symmetric adapters, else 0.
    skew: f64,
}

/// Replaces `m` by `sym m` and returns `||m - sym m||_F^2`.
fn split_off_skew_part(mut m: MatMut<'_, f64>) -> f64 {
    let mut sum = 0.0;
    for j in 0..m.ncols() {
        for i in 0..j {
            let (upper, lower) = (m[(i, j)], m[(j, i)]);
            let half = 0.5 * (upper - lower);
            sum += 2.0 * half * half;
            let mean = 0.5 * (upper + lower);
            m[(i, j)] = mean;
            m[(j, i)] = mean;
        }
    }
    sum
}

/// The parts of the scratch.
struct Work<'w> {
    left: &'w mut [f64],
    right: &'w mut [f64],
    left_change: &'w mut [f64],
    right_change: &'w mut [f64],
    out: &'w mut [f64],
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
    /// Packs `tasks`, if they are exact and small enough for this form to pay.
    pub fn new(tasks: &Tasks, kind: Kind, rank: usize) -> Option<Self> {
        let (d, count) = (tasks.dimension(), tasks.count());
        let ld = panel::padded(d);
        let numbers = ld.checked_mul(d)?.checked_mul(count)?;
        if !tasks.is_exact() || count * rank > 2 * d || numbers > LARGEST {
            return None;
        }
        let mut mean = Mat::zeros(d, d);
        for task in tasks.iter() {
            kernel::add_scaled(mean.as_mut(), 1.0 / count as f64, task.least_squares());
        }
        let mut differences = vec![0.0; numbers];
        let mut transposes = vec![0.0; if kind == Kind::Asymmetric { numbers } else { 0 }];
        let (mut size, mut skew) = (0.0, 0.0);
        let mut difference = Mat::zeros(d, d);
        for (t, task) in tasks.iter().enumerate() {
            difference.copy_from(task.least_squares());
            kernel::add_scaled(difference.as_mut(), -1.0, mean.as_ref());
            let range = t * ld * d..(t + 1) * ld * d;
            if kind == Kind::Symmetric {
                skew += split_off_skew_part(difference.as_mut());
            } else {
                panel::load(&mut transposes[range.clone()], ld, difference.transpose());
            }
            panel::load(&mut differences[range], ld, difference.as_ref());
            size += kernel::norm_squared(difference.as_ref());
        }
        Some(Self { kind, d, k: rank, count, ld, differences, transposes, size, skew })
    }

    /// Length of the scratch.
    pub fn work_len(&self) -> usize {
        let columns = self.count * self.k;
        5 * self.ld * columns + 4 * columns * columns + self.ld * self.d + columns * self.d
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
        let factor = self.ld * columns;
        let (left, rest) = work.split_at_mut(factor);
        let (right, rest) = rest.split_at_mut(factor);
        let (left_change, rest) = rest.split_at_mut(factor);
        let (right_change, rest) = rest.split_at_mut(factor);
        let (out, rest) = rest.split_at_mut(factor);
        let (gram, rest) = rest.split_at_mut(columns * columns);
        let (other_gram, rest) = rest.split_at_mut(columns * columns);
        let (coefficients, rest) = rest.split_at_mut(columns * columns);
        let (product, square) = rest.split_at_mut(columns * columns);
        Work {
            left,
            right,
            left_change,
            right_change,
            out,
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
        let columns = self.count * self.k;
        let share = 1.0 / self.count as f64;
        for j in 0..columns {
            let own = j / self.k * self.k;
            let column = &mut coefficients[j * columns..(j + 1) * columns];
            for (i, out) in column.iter_mut().enumerate() {
                let mut entry = gram[j * columns + i];
                if both {
                    entry += gram[i * columns + j];
                }
                let kept = if (own..own + self.k).contains(&i) { entry } else { 0.0 };
                *out = kept - share * entry;
            }
        }
    }

    /// `out -= [D_t x_t]` (or `D_t^T x_t`), and returns `sum_t <D_t x_t, y_t>`.
    #[inline(always)]
    fn subtract_differences(
        &self,
        differences: &[f64],
        x: &[f64],
        y: &[f64],
        out: &mut [f64],
        spare: &mut [f64],
    ) -> f64 {
        let (ld, d, width) = (self.ld, self.d, self.ld * self.k);
        let spare = &mut spare[..width];
        let mut sum = 0.0;
        for (t, difference) in differences.chunks_exact(ld * d).enumerate() {
            let range = t * width..(t + 1) * width;
            panel::mul(spare, difference, ld, d, &x[range.clone()], ld, self.k);
            sum += panel::dot(spare, &y[range.clone()]);
            panel::add_scaled(&mut out[range], -1.0, spare);
        }
        sum
    }

    /// `sum_t ||U_t V_t^T - (1/T) W W'^T - D_t||^2`, every entry formed first; of symmetric matrices those
    /// in blocks on and below the diagonal.
    #[inline(always)]
    fn sum_of_squares(&self, left: &[f64], right: &[f64], square: &mut [f64]) -> f64 {
        let (ld, d, k) = (self.ld, self.d, self.k);
        let columns = self.count * k;
        let (mean, rows) = square.split_at_mut(ld * d);
        let share = 1.0 / self.count as f64;
        for (j, row) in rows.chunks_exact_mut(columns).enumerate() {
            for (p, x) in row.iter_mut().enumerate() {
                *x = share * right[p * ld + j];
            }
        }
        if self.kind == Kind::Symmetric {
            panel::lower_product(mean, left, ld, columns, rows, columns, d);
        } else {
            panel::product(mean, left, ld, columns, rows, columns, d);
        }
        let mut sums = [0.0; panel::BLOCK];
        for (t, difference) in self.differences.chunks_exact(ld * d).enumerate() {
            let left = &left[t * ld * k..(t + 1) * ld * k];
            let right = &right[t * ld * k..(t + 1) * ld * k];
            for j in 0..d {
                let range = j * ld..(j + 1) * ld;
                let (mean, difference) = (&mean[range.clone()], &difference[range]);
                let symmetric = self.kind == Kind::Symmetric;
                let first = if symmetric { j / panel::BLOCK * panel::BLOCK } else { 0 };
                let mut i = first;
                while i < ld {
                    let width = (ld - i).min(panel::BLOCK);
                    let mut entries = [0.0; panel::BLOCK];
                    let known = mean[i..i + width].iter().zip(&difference[i..i + width]);
                    for (entry, (a, b)) in entries.iter_mut().zip(known) {
                        *entry = -(a + b);
                    }
                    for (column, other) in left.chunks_exact(ld).zip(right.chunks_exact(ld)) {
                        let factor = other[j];
                        for (entry, u) in entries.iter_mut().zip(&column[i..i + width]) {
                            *entry += u * factor;
                        }
                    }
                    // What lies below the blocks on the diagonal stands for its mirror image too.
                    let doubled = symmetric && i > first;
                    let weight = if doubled { 2.0 } else { 1.0 };
                    for (sum, entry) in sums.iter_mut().zip(&entries) {
                        *sum += weight * entry * entry;
                    }
                    i += width;
                }
            }
        }
        let halves = sums.chunks_exact(panel::LANES);
        halves.map(|s| (s[0] + s[2]) + (s[1] + s[3])).sum()
    }
}

impl pulp::NullaryFnOnce for Evaluate<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Evaluate { factored: this, x, out: result, work } = self;
        let (ld, count, columns) = (this.ld, this.count, this.count * this.k);
        let work = this.split(work);
        let symmetric = this.kind == Kind::Symmetric;
        this.pack(x, 0, work.left);
        this.pack(x, if symmetric { 0 } else { count }, work.right);
        let (left, right) = (&*work.left, &*work.right);
        panel::gram(work.gram, right, ld);
        this.coefficients(work.gram, work.coefficients, false);
        let spare = &mut *work.left_change;
        panel::mul(work.out, left, ld, columns, work.coefficients, columns, columns);
        let crossed = this.subtract_differences(&this.differences, right, left, work.out, spare);
        let weight = if symmetric { 2.0 } else { 1.0 } / count as f64;
        let mut result = result;
        if let Some(result) = &mut result {
            this.unpack(work.out, weight, result, 0);
        }
        if symmetric {
            work.other_gram.copy_from_slice(work.gram);
        } else {
            panel::gram(work.other_gram, left, ld);
            if let Some(result) = &mut result {
                this.coefficients(work.other_gram, work.coefficients, false);
                panel::mul(work.out, right, ld, columns, work.coefficients, columns, columns);
                this.subtract_differences(&this.transposes, left, right, work.out, spare);
                this.unpack(work.out, weight, result, count);
            }
        }
        // sum <P_tt, P'_tt> - <P, P'>/T.
        let share = 1.0 / count as f64;
        let (mut own, mut all) = (0.0, 0.0);
        for (j, (a, b)) in
            work.gram.chunks_exact(columns).zip(work.other_gram.chunks_exact(columns)).enumerate()
        {
            let block = j / this.k * this.k..(j / this.k + 1) * this.k;
            own += a[block.clone()].iter().zip(&b[block]).map(|(x, y)| x * y).sum::<f64>();
            all += a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        }
        let mut sum = this.size - 2.0 * crossed + own - share * all;
        // Also where the sum is not finite: the entries decide.
        if !sum.is_finite() || sum < CANCELLED * (this.size + own) {
            sum = this.sum_of_squares(left, right, work.square);
        }
        0.5 * share * (sum + this.skew)
    }
}

impl pulp::NullaryFnOnce for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Prepare(this, x, work) = self;
        let work = this.split(work);
        let second = if this.kind == Kind::Symmetric { 0 } else { this.count };
        this.pack(x, 0, work.left);
        this.pack(x, second, work.right);
        panel::gram(work.product, work.right, this.ld);
        this.coefficients(work.product, work.gram, false);
        if second > 0 {
            panel::gram(work.product, work.left, this.ld);
            this.coefficients(work.product, work.other_gram, false);
        }
    }
}

impl pulp::NullaryFnOnce for Differentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Differentiate { factored: this, v, out, work, full } = self;
        let (count, second) =
            (this.count, if this.kind == Kind::Symmetric { 0 } else { this.count });
        let mut work = this.split(work);
        this.pack(v, 0, work.left_change);
        this.pack(v, second, work.right_change);
        let weight = if second == 0 { 2.0 } else { 1.0 } / count as f64;
        this.second_side(&mut work, &this.differences, full);
        this.unpack(work.out, weight, out, 0);
        if second > 0 {
            std::mem::swap(&mut work.left, &mut work.right);
            std::mem::swap(&mut work.left_change, &mut work.right_change);
            std::mem::swap(&mut work.gram, &mut work.other_gram);
            this.second_side(&mut work, &this.transposes, full);
            this.unpack(work.out, weight, out, count);
        }
    }
}

impl Factored {
    /// `out = [dG_t V_t + G_t Z'_t]`; the second term where `full`. `gram` holds `bd P - P/T`.
    #[inline(always)]
    fn second_side(&self, work: &mut Work<'_>, differences: &[f64], full: bool) {
        let (ld, columns) = (self.ld, self.count * self.k);
        panel::mul(work.out, work.left_change, ld, columns, work.gram, columns, columns);
        panel::mul_transposed(work.product, work.right_change, work.right, ld);
        self.coefficients(work.product, work.coefficients, full);
        // A task's columns at a time: `square` holds a d x d panel, hence d x k.
        let spare = &mut work.square[..];
        for first in (0..columns).step_by(self.k) {
            let part = &mut spare[..ld * self.k];
            let from = &work.coefficients[first * columns..(first + self.k) * columns];
            panel::mul(part, work.left, ld, columns, from, columns, self.k);
            panel::add_scaled(&mut work.out[first * ld..(first + self.k) * ld], 1.0, part);
        }
        if full {
            let (z, out) = (&*work.right_change, &mut *work.out);
            self.subtract_differences(differences, z, z, out, spare);
        }
    }
}
