//! The profile objective of tasks with second moments, without products of d x d matrices.
//!
//! With `A_0` the base at `R = 0`, `B_t = Ahat_t - A_0`, `H_t = B_t S_t`, `Sigma = sum_t S_t`, `W = [U_1 .. U_T]`,
//! `Y = [S_1 V_1 .. S_T V_T]`, `X = Sigma^{-1} Y`, `P = W^T W`, `Q = X^T Y`, `N = [V_1 .. V_T]^T Y` and `bd` the k x k
//! diagonal blocks (`sum_t H_t = 0`, and `A = A_0 - W X^T`):
//!
//! * `[G_t V_t] = W (bd N - Q) - [H_t V_t]`
//! * `[G_t^T U_t] = [S_t (V bd P - X P)_t] - [H_t^T U_t]`
//! * `sum_t <E_t, G_t> = sum <B_t, H_t> - 2 sum <U_t, H_t V_t> + sum <P_tt, N_tt> - <P, Q>`
//!
//! and along `Z, Z'` with `Y' = [S_t Z'_t]`, `X' = Sigma^{-1} Y'`, `J = X'^T Y`, `C = Z^T W`, `B = Y^T Z'`
//! (`+ ..^T` where the whole Hessian is asked for, not its Gauss-Newton part):
//!
//! * `[dG_t V_t + G_t Z'_t] = Z (bd N - Q) + W (bd (B^T + B) - (J + J^T)) - [H_t Z'_t]`
//! * `[dG_t^T U_t + G_t^T Z_t] = [S_t (V bd (C + C^T) + Z' bd P - X (C + C^T) - X' P)_t] - [H_t^T Z_t]`
//!
//! O(T d^2 k + d T^2 k^2) where forming `G_t` costs O(T d^3). Symmetric adapters add both sides, with
//! `H_t + H_t^T` packed once.
//!
//! The value costs nothing beside the gradient: `sum <U_t, H_t V_t> = <P, bd N - Q> - sum <U_t, G_t V_t>`.
//!
//! Limits: `S_t` and `H_t` are packed, as much memory again as the tasks take, and `Sigma` must be so well
//! conditioned that its explicit inverse is as good as solving with its factor. The value's sum cancels: where
//! it could hide the decrease that a step can still make, the caller forms `E_t` instead.

use super::{Kind, Tasks};
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::decompose::CholeskyFactor;
use peftml_linalg::packed::{self, Accumulate, Packed};
use peftml_linalg::{Blocks, kernel, panel};

/// Most numbers of all `S_t` together: 128 MiB.
const LARGEST: usize = 1 << 24;

/// Largest condition number of `sum_t S_t`, as far as its factor's diagonal shows it: the inverse then keeps
/// eleven digits.
const WORST_CONDITION: f64 = 1e4;

/// Packed statistics; see the module's header.
pub(super) struct Weighted {
    kind: Kind,
    d: usize,
    k: usize,
    count: usize,
    /// Leading dimension of d x .. panels.
    ld: usize,
    /// Leading dimension of Tk x .. panels.
    lc: usize,
    /// `S_t`, T packed matrices.
    moments: Vec<f64>,
    /// `-H_t`, or `-(H_t + H_t^T)` for symmetric adapters, packed.
    pulls: Vec<f64>,
    /// `-H_t^T`, packed; empty for symmetric adapters.
    transposes: Vec<f64>,
    /// `Sigma^{-1}`, packed.
    inverse: Vec<f64>,
    /// `sum <B_t, H_t>`.
    size: f64,
    /// `A_0`.
    base: Mat<f64>,
}

/// A value with what is needed to judge it.
pub(super) struct Value {
    /// `sum_t <E_t, G_t>`, from the expanded sum.
    pub sum: f64,
    /// The largest term of that sum: it is off by a few roundings of this.
    pub terms: f64,
    /// `sum_t tr N_tt / T`: the size of second derivatives times T.
    pub curvature: f64,
}

/// The parts of the scratch. What stands before `direction` is fixed by the point; `.._rows` are packed,
/// `turned` is a packed transpose.
struct Work<'w> {
    left: &'w mut [f64],
    right: &'w mut [f64],
    weighted: &'w mut [f64],
    solved: &'w mut [f64],
    left_rows: &'w mut [f64],
    solved_rows: &'w mut [f64],
    left_gram: &'w mut [f64],
    /// `bd N - Q`.
    left_factor: &'w mut [f64],
    direction: &'w mut [f64],
    other_direction: &'w mut [f64],
    weighted_direction: &'w mut [f64],
    solved_direction: &'w mut [f64],
    out: &'w mut [f64],
    inner: &'w mut [f64],
    gram: &'w mut [f64],
    factor: &'w mut [f64],
    rows: &'w mut [f64],
    turned: &'w mut [f64],
    small: &'w mut [f64],
}

impl Weighted {
    /// Packs `tasks` with `pooled` the factor of `sum_t S_t`, if this form pays and is accurate.
    pub fn new(tasks: &Tasks, kind: Kind, rank: usize, pooled: &CholeskyFactor) -> Option<Self> {
        let (d, count) = (tasks.dimension(), tasks.count());
        let ld = panel::padded(d);
        let numbers = ld.checked_mul(d)?.checked_mul(count)?;
        if count * rank > 4 * d || numbers > LARGEST {
            return None;
        }
        let pivots = (0..d).map(|i| pooled.lower()[(i, i)]);
        let (least, most) = pivots.fold((f64::INFINITY, 0.0_f64), |(a, b), p| (a.min(p), b.max(p)));
        if most * most > WORST_CONDITION * least * least {
            return None;
        }
        let identity = Mat::<f64>::identity(d, d);
        let mut inverse = identity.clone();
        pooled.solve_right_in_place(inverse.as_mut());
        kernel::symmetrise(inverse.as_mut());
        let mut base = Mat::zeros(d, d);
        for task in tasks.iter() {
            kernel::add_scaled(base.as_mut(), 1.0, task.cross_moment());
        }
        pooled.solve_right_in_place(base.as_mut());
        let mut this = Self {
            kind,
            d,
            k: rank,
            count,
            ld,
            lc: panel::padded(count * rank),
            moments: vec![0.0; numbers],
            pulls: vec![0.0; numbers],
            transposes: vec![0.0; if kind == Kind::Asymmetric { numbers } else { 0 }],
            inverse: vec![0.0; ld * d],
            size: 0.0,
            base,
        };
        packed::pack(&mut this.inverse, ld, inverse.as_ref());
        let (mut difference, mut pull) = (Mat::zeros(d, d), Mat::zeros(d, d));
        for (t, task) in tasks.iter().enumerate() {
            let moment: MatRef<'_, f64> = task.second_moment().unwrap_or(identity.as_ref());
            kernel::subtract(difference.as_mut(), task.least_squares(), this.base.as_ref());
            kernel::mul(pull.as_mut(), difference.as_ref(), moment, 1.0);
            this.size += kernel::inner(difference.as_ref(), pull.as_ref());
            let range = t * ld * d..(t + 1) * ld * d;
            packed::pack(&mut this.moments[range.clone()], ld, moment);
            let pulls = &mut this.pulls[range.clone()];
            if kind == Kind::Symmetric {
                packed::pack_with_transpose(pulls, ld, pull.as_ref(), -1.0);
            } else {
                kernel::scale(pull.as_mut(), -1.0);
                packed::pack(&mut this.transposes[range], ld, pull.transpose());
                packed::pack(pulls, ld, pull.as_ref());
            }
        }
        Some(this)
    }

    /// Length of the scratch.
    pub fn work_len(&self) -> usize {
        let columns = self.count * self.k;
        13 * self.ld * columns + self.lc * (4 * columns + self.ld) + self.k * self.k
    }

    /// The value; the gradient into `out` where given.
    pub fn evaluate(&self, x: &Blocks, out: Option<&mut Blocks>, work: &mut [f64]) -> Value {
        let mut result = out;
        let (ld, lc, columns) = (self.ld, self.lc, self.count * self.k);
        let symmetric = self.kind == Kind::Symmetric;
        let mut work = self.split(work);
        self.fix_point(x, &mut work);
        // <P, bd N - Q>, and the trace of N from its diagonal and that of Q.
        let inner = kernel::dot(work.left_gram, work.left_factor);
        let curvature = kernel::dot(work.right, work.weighted) / self.count as f64;
        self.times(work.left_rows, work.left_factor, work.out, Accumulate::Replace);
        self.add_by_task(&self.pulls, work.right, work.out);
        // Symmetric adapters have H + H^T packed, which counts twice.
        let crossed = inner - kernel::dot(work.out, work.left);
        let crossed = if symmetric { crossed } else { 2.0 * crossed };
        if let Some(result) = &mut result {
            if !symmetric {
                self.unpack(work.out, result, 0);
                work.out.fill(0.0);
                self.add_by_task(&self.transposes, work.left, work.out);
            }
            let (solved, gram) = (&*work.solved_rows, &*work.left_gram);
            Packed::new(solved, ld).mul(work.inner, ld, gram, lc, columns, Accumulate::Replace);
            work.inner.iter_mut().for_each(|entry| *entry = -*entry);
            self.add_diagonal(work.right, work.left_gram, work.inner, work.small);
            self.add_by_task(&self.moments, work.inner, work.out);
            self.unpack(work.out, result, if symmetric { 0 } else { self.count });
        }
        Value {
            sum: self.size - crossed + inner,
            terms: self.size.abs() + crossed.abs() + inner.abs(),
            curvature,
        }
    }

    /// `base -= W X^T` at the point that [`Weighted::evaluate`] or [`Weighted::prepare`] left in `work`:
    /// from `A_0` to the minimiser.
    fn add_to_base(&self, work: &Work<'_>, base: MatMut<'_, f64>) {
        let columns = self.count * self.k;
        let view = |m| MatRef::from_column_major_slice_with_stride(m, self.d, columns, self.ld);
        let solved: MatRef<'_, f64> = view(&*work.solved);
        kernel::mul_add(base, view(&*work.left), solved.transpose(), -1.0);
    }

    /// The minimiser `A(R)` at `x`, d x d, into `base`.
    pub fn base_into(&self, x: &Blocks, mut base: MatMut<'_, f64>, work: &mut [f64]) {
        let mut work = self.split(work);
        self.fix_point(x, &mut work);
        base.copy_from(&self.base);
        self.add_to_base(&work, base);
    }

    /// Length of `squares` in [`Weighted::sum_of_squares`].
    pub fn squares_len(&self) -> usize {
        4 * self.ld * self.ld
    }

    /// `sum_t <E_t, G_t> = sum_t <E_t^T E_t, S_t>` with `E_t` formed, at the point that [`Weighted::evaluate`] left
    /// in `work`; of `E_t^T E_t`, which is symmetric as `S_t` is, only blocks on and below the diagonal. The value is
    /// stationary in the base: the rounding of the inverse enters squared.
    pub fn sum_of_squares(&self, tasks: &Tasks, work: &mut [f64], squares: &mut [f64]) -> f64 {
        let (d, ld) = (self.d, self.ld);
        let work = self.split(work);
        let view = |m, columns| MatRef::from_column_major_slice_with_stride(m, d, columns, ld);
        let (left, right) = (&*work.left, &*work.right);
        let (base, rest) = squares.split_at_mut(ld * ld);
        let (error, rest) = rest.split_at_mut(ld * ld);
        let (turned, gram) = rest.split_at_mut(ld * ld);
        let (base, error, gram) = (&mut base[..ld * d], &mut error[..ld * d], &mut gram[..ld * d]);
        // Padding stays zero.
        error.fill(0.0);
        let mut base = MatMut::from_column_major_slice_with_stride_mut(base, d, d, ld);
        base.copy_from(&self.base);
        self.add_to_base(&work, base.as_mut());
        let mut sum = 0.0;
        for (t, task) in tasks.iter().enumerate() {
            let range = t * ld * self.k..(t + 1) * ld * self.k;
            let mut place = MatMut::from_column_major_slice_with_stride_mut(&mut *error, d, d, ld);
            kernel::subtract(place.as_mut(), base.as_ref(), task.least_squares());
            let (u, v) = (view(&left[range.clone()], self.k), view(&right[range], self.k));
            kernel::mul_add(place, u, v.transpose(), 1.0);
            let Some(moment) = task.second_moment() else {
                sum += kernel::dot(error, error);
                continue;
            };
            packed::pack_transposed(turned, error, ld);
            Packed::new(turned, ld).mul(gram, ld, error, ld, d, Accumulate::Lower);
            sum += lower_inner(moment, gram, ld);
        }
        sum
    }

    /// Readies `work` for [`Weighted::second_derivative`] at `x`.
    pub fn prepare(&self, x: &Blocks, work: &mut [f64]) {
        self.fix_point(x, &mut self.split(work));
    }

    /// The Hessian (`full`) or its Gauss-Newton approximation times `v` at the point prepared.
    pub fn second_derivative(&self, v: &Blocks, result: &mut Blocks, work: &mut [f64], full: bool) {
        let (ld, lc, columns) = (self.ld, self.lc, self.count * self.k);
        let symmetric = self.kind == Kind::Symmetric;
        let work = self.split(work);
        self.pack(v, 0, work.direction);
        self.pack(v, if symmetric { 0 } else { self.count }, work.other_direction);
        work.weighted_direction.fill(0.0);
        self.add_by_task(&self.moments, work.other_direction, work.weighted_direction);
        self.solve(work.weighted_direction, work.solved_direction);
        // Left side. bd (B^T + B) - (J + J^T).
        let how = Accumulate::Replace;
        self.cross(work.solved_direction, work.weighted, work.turned, work.factor, how);
        work.factor.iter_mut().for_each(|entry| *entry = -*entry);
        if full {
            add_transpose(work.factor, lc);
        }
        self.add_blocks(work.other_direction, work.weighted, full, work.factor, work.small);
        self.times(work.left_rows, work.factor, work.out, Accumulate::Replace);
        packed::pack_panel(work.rows, work.direction, ld);
        self.times(work.rows, work.left_factor, work.out, Accumulate::Add);
        if full {
            self.add_by_task(&self.pulls, work.other_direction, work.out);
        }
        if !symmetric {
            self.unpack(work.out, result, 0);
            work.out.fill(0.0);
            if full {
                self.add_by_task(&self.transposes, work.direction, work.out);
            }
        }
        // Right side, before S_t.
        self.cross(work.direction, work.left, work.turned, work.gram, how);
        if full {
            add_transpose(work.gram, lc);
        }
        let (solved, gram) = (Packed::new(work.solved_rows, ld), &*work.gram);
        solved.mul(work.inner, ld, gram, lc, columns, Accumulate::Replace);
        packed::pack_panel(work.rows, work.solved_direction, ld);
        self.times(work.rows, work.left_gram, work.inner, Accumulate::Add);
        work.inner.iter_mut().for_each(|entry| *entry = -*entry);
        self.add_diagonal(work.right, work.gram, work.inner, work.small);
        self.add_diagonal(work.other_direction, work.left_gram, work.inner, work.small);
        self.add_by_task(&self.moments, work.inner, work.out);
        self.unpack(work.out, result, if symmetric { 0 } else { self.count });
    }

    fn split<'w>(&self, work: &'w mut [f64]) -> Work<'w> {
        let columns = self.count * self.k;
        let (factor, square) = (self.ld * columns, self.lc * columns);
        let (left, rest) = work.split_at_mut(factor);
        let (right, rest) = rest.split_at_mut(factor);
        let (weighted, rest) = rest.split_at_mut(factor);
        let (solved, rest) = rest.split_at_mut(factor);
        let (left_rows, rest) = rest.split_at_mut(factor);
        let (solved_rows, rest) = rest.split_at_mut(factor);
        let (left_gram, rest) = rest.split_at_mut(square);
        let (left_factor, rest) = rest.split_at_mut(square);
        let (direction, rest) = rest.split_at_mut(factor);
        let (other_direction, rest) = rest.split_at_mut(factor);
        let (weighted_direction, rest) = rest.split_at_mut(factor);
        let (solved_direction, rest) = rest.split_at_mut(factor);
        let (out, rest) = rest.split_at_mut(factor);
        let (inner, rest) = rest.split_at_mut(factor);
        let (rows, rest) = rest.split_at_mut(factor);
        let (gram, rest) = rest.split_at_mut(square);
        let (factor, rest) = rest.split_at_mut(square);
        let (turned, small) = rest.split_at_mut(self.lc * self.ld);
        Work {
            left,
            right,
            weighted,
            solved,
            left_rows,
            solved_rows,
            left_gram,
            left_factor,
            direction,
            other_direction,
            weighted_direction,
            solved_direction,
            out,
            inner,
            gram,
            factor,
            rows,
            turned,
            small,
        }
    }

    /// Packs the factors `first..first + T` of `x` side by side.
    fn pack(&self, x: &Blocks, first: usize, out: &mut [f64]) {
        let begin = first * self.d * self.k;
        let from = &x.as_slice()[begin..begin + self.count * self.d * self.k];
        for (column, source) in out.chunks_exact_mut(self.ld).zip(from.chunks_exact(self.d)) {
            column[..self.d].copy_from_slice(source);
            column[self.d..].fill(0.0);
        }
    }

    /// Writes `1/T` times the packed factors into blocks `first..` of `x`.
    fn unpack(&self, packed: &[f64], x: &mut Blocks, first: usize) {
        let (begin, weight) = (first * self.d * self.k, 1.0 / self.count as f64);
        let to = &mut x.as_mut_slice()[begin..begin + self.count * self.d * self.k];
        for (column, source) in to.chunks_exact_mut(self.d).zip(packed.chunks_exact(self.ld)) {
            for (x, y) in column.iter_mut().zip(source) {
                *x = weight * y;
            }
        }
    }

    /// `out += [m_t x_t]` for the packed `m`.
    fn add_by_task(&self, m: &[f64], x: &[f64], out: &mut [f64]) {
        let (ld, width) = (self.ld, self.ld * self.k);
        for ((m, x), out) in
            m.chunks_exact(ld * self.d).zip(x.chunks_exact(width)).zip(out.chunks_exact_mut(width))
        {
            Packed::new(m, ld).mul(out, ld, x, ld, self.k, Accumulate::Add);
        }
    }

    /// `out = Sigma^{-1} y`.
    fn solve(&self, y: &[f64], out: &mut [f64]) {
        let (ld, columns) = (self.ld, self.count * self.k);
        let inverse = Packed::new(&self.inverse, ld);
        inverse.mul(out, ld, y, ld, columns, Accumulate::Replace);
    }

    /// `out = a^T b`, Tk x Tk.
    fn cross(&self, a: &[f64], b: &[f64], turned: &mut [f64], out: &mut [f64], how: Accumulate) {
        packed::pack_transposed(turned, a, self.ld);
        let columns = self.count * self.k;
        Packed::new(turned, self.lc).mul(out, self.lc, b, self.ld, columns, how);
    }

    /// `out = x m`, or added to it, for the packed `x` and a Tk x Tk `m`.
    fn times(&self, rows: &[f64], m: &[f64], out: &mut [f64], how: Accumulate) {
        let columns = self.count * self.k;
        Packed::new(rows, self.ld).mul(out, self.ld, m, self.lc, columns, how);
    }

    /// Everything that stands before `direction`, at `x`.
    fn fix_point(&self, x: &Blocks, work: &mut Work<'_>) {
        self.pack(x, 0, work.left);
        self.pack(x, if self.kind == Kind::Symmetric { 0 } else { self.count }, work.right);
        work.weighted.fill(0.0);
        self.add_by_task(&self.moments, work.right, work.weighted);
        self.solve(work.weighted, work.solved);
        packed::pack_panel(work.left_rows, work.left, self.ld);
        packed::pack_panel(work.solved_rows, work.solved, self.ld);
        let how = Accumulate::Symmetric;
        self.cross(work.left, work.left, work.turned, work.left_gram, how);
        self.cross(work.solved, work.weighted, work.turned, work.left_factor, how);
        work.left_factor.iter_mut().for_each(|entry| *entry = -*entry);
        self.add_blocks(work.right, work.weighted, false, work.left_factor, work.small);
    }

    /// Adds the diagonal blocks `a_t^T b_t` (and their transposes, where `both`) to `out`.
    fn add_blocks(&self, a: &[f64], b: &[f64], both: bool, out: &mut [f64], small: &mut [f64]) {
        let (k, width, lc) = (self.k, self.ld * self.k, self.lc);
        for (t, (a, b)) in a.chunks_exact(width).zip(b.chunks_exact(width)).enumerate() {
            panel::transposed_product(small, a, b, self.ld);
            for j in 0..k {
                let column = &mut out[(t * k + j) * lc + t * k..][..k];
                for (i, x) in column.iter_mut().enumerate() {
                    *x += small[j * k + i] + if both { small[i * k + j] } else { 0.0 };
                }
            }
        }
    }

    /// `small = m_tt`, the k x k diagonal block of a square of all columns.
    fn diagonal(&self, t: usize, m: &[f64], small: &mut [f64]) {
        let k = self.k;
        for j in 0..k {
            let from = &m[(t * k + j) * self.lc + t * k..][..k];
            small[j * k..(j + 1) * k].copy_from_slice(from);
        }
    }

    /// `inner += V bd m`.
    fn add_diagonal(&self, v: &[f64], m: &[f64], inner: &mut [f64], small: &mut [f64]) {
        let width = self.ld * self.k;
        for (t, (v, inner)) in v.chunks_exact(width).zip(inner.chunks_exact_mut(width)).enumerate()
        {
            self.diagonal(t, m, small);
            panel::add_mul_small(inner, v, small, self.ld);
        }
    }
}

/// `<S, P>` for symmetric matrices of which `P` has only its blocks of [`packed::ROWS`] on and below the diagonal, in a
/// panel of leading dimension `ld`.
fn lower_inner(s: MatRef<'_, f64>, p: &[f64], ld: usize) -> f64 {
    let d = s.nrows();
    let mut sum = 0.0;
    for (j, p) in p.chunks_exact(ld).enumerate() {
        let first = j / packed::ROWS * packed::ROWS;
        let below = d.min(first + packed::ROWS);
        // What lies below stands for its mirror image too.
        for (rows, weight) in [(first..below, 1.0), (below..d, 2.0)] {
            sum += weight
                * match s.col(j).try_as_col_major() {
                    Some(s) => kernel::dot(&s.as_slice()[rows.clone()], &p[rows]),
                    None => rows.map(|i| s[(i, j)] * p[i]).sum::<f64>(),
                };
        }
    }
    sum
}

/// `m + m^T` in place, square but for its padding to leading dimension `lc`.
fn add_transpose(m: &mut [f64], lc: usize) {
    for j in 0..m.len() / lc {
        for i in 0..=j {
            let sum = m[j * lc + i] + m[i * lc + j];
            m[j * lc + i] = sum;
            m[i * lc + j] = sum;
        }
    }
}
