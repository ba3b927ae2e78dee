//! Sequential products and vector loops.
//!
//! faer's operators use its global parallelism; everything here names [`Par::Seq`], so that a
//! result does not depend on how many threads the caller has. Nothing here allocates.

use crate::panel;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pulp::{Arch, Scalar, Simd, WithSimd};

/// `out = alpha * a b`.
pub fn mul(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    matmul(out, Accum::Replace, a, b, alpha, Par::Seq);
}

/// `out += alpha * a b`.
pub fn mul_add(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    matmul(out, Accum::Add, a, b, alpha, Par::Seq);
}

/// From this length on a loop is worth compiling for the machine's vectors: choosing them costs a few
/// nanoseconds.
const LONG: usize = 32;

/// Running sums of an inner product, whatever the machine's vectors.
const SUMS: usize = 8;

/// The eight sums as one, in a fixed order.
fn total(sums: &[f64; SUMS]) -> f64 {
    let quarter = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
}

struct Dot<'a>(&'a [f64], &'a [f64]);

impl WithSimd for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        match SUMS / S::F64_LANES.min(SUMS) {
            1 => dot_in::<S, 1>(simd, self.0, self.1),
            2 => dot_in::<S, 2>(simd, self.0, self.1),
            4 => dot_in::<S, 4>(simd, self.0, self.1),
            _ => dot_in::<S, 8>(simd, self.0, self.1),
        }
    }
}

/// The inner product in `R` vectors of sums.
#[inline(always)]
fn dot_in<S: Simd, const R: usize>(simd: S, x: &[f64], y: &[f64]) -> f64 {
    let (xs, x_rest) = x.as_chunks::<SUMS>();
    let (ys, y_rest) = y.as_chunks::<SUMS>();
    let mut sums = [simd.splat_f64s(0.0); R];
    for (x, y) in xs.iter().zip(ys) {
        let (x, y) = (S::as_simd_f64s(x).0, S::as_simd_f64s(y).0);
        for r in 0..R {
            sums[r] = simd.add_f64s(sums[r], simd.mul_f64s(x[r], y[r]));
        }
    }
    let tail: f64 = x_rest.iter().zip(y_rest).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0; SUMS];
    S::as_mut_simd_f64s(&mut lanes).0.copy_from_slice(&sums);
    total(&lanes) + tail
}

struct Axpy<'a>(f64, &'a [f64], &'a mut [f64]);

impl pulp::NullaryFnOnce for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (y, x) in self.2.iter_mut().zip(self.1) {
            *y += self.0 * x;
        }
    }
}

struct Subtract<'a>(&'a mut [f64], &'a [f64], &'a [f64]);

impl pulp::NullaryFnOnce for Subtract<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for ((out, x), y) in self.0.iter_mut().zip(self.1).zip(self.2) {
            *out = x - y;
        }
    }
}

/// `sum_i x_i y_i`, in a fixed order (eight running sums, so that it vectorises) whatever the machine.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    debug_assert_eq!(x.len(), y.len());
    if x.len() < LONG {
        dot_in::<Scalar, SUMS>(Scalar, x, y)
    } else {
        Arch::new().dispatch(Dot(x, y))
    }
}

/// `y += factor * x`.
pub fn axpy(factor: f64, x: &[f64], y: &mut [f64]) {
    debug_assert_eq!(x.len(), y.len());
    let work = Axpy(factor, x, y);
    if work.1.len() < LONG { pulp::NullaryFnOnce::call(work) } else { panel::vectorised(work) }
}

struct Combine<'a>(&'a mut [f64], &'a [f64], f64, &'a [f64]);

impl pulp::NullaryFnOnce for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for ((out, x), y) in self.0.iter_mut().zip(self.1).zip(self.3) {
            *out = x + self.2 * y;
        }
    }
}

/// `out = x + factor * y`.
pub fn combine(out: &mut [f64], x: &[f64], factor: f64, y: &[f64]) {
    debug_assert!(x.len() == y.len() && y.len() == out.len());
    let work = Combine(out, x, factor, y);
    if x.len() < LONG { pulp::NullaryFnOnce::call(work) } else { panel::vectorised(work) }
}

/// Numbers of a piece of a long vector: several pieces lie in the first cache at once.
const PIECE: usize = 512;

/// `<x_i, y>` for i below `count`, piece by piece from the front, so that `y` is read once: `add(i, part)` gets the
/// parts of every inner product in order.
pub fn dots<'a>(
    count: usize,
    x: impl Fn(usize) -> &'a [f64],
    y: &[f64],
    mut add: impl FnMut(usize, f64),
) {
    for begin in (0..y.len()).step_by(PIECE) {
        let piece = begin..y.len().min(begin + PIECE);
        for i in 0..count {
            add(i, dot(&x(i)[piece.clone()], &y[piece.clone()]));
        }
    }
}

/// `out = f y + sum_i f_i x_i` for the pairs `(f_i, x_i)`, i below `count`; returns `<out, y>`. Piece by piece from
/// the back: after [`dots`] over the same vectors their last pieces are still in the cache.
pub fn combine_many<'a>(
    out: &mut [f64],
    (factor, y): (f64, &[f64]),
    count: usize,
    x: impl Fn(usize) -> (f64, &'a [f64]),
) -> f64 {
    let mut sum = 0.0;
    for begin in (0..y.len()).step_by(PIECE).rev() {
        let piece = begin..y.len().min(begin + PIECE);
        let (out, y) = (&mut out[piece.clone()], &y[piece.clone()]);
        for (out, y) in out.iter_mut().zip(y) {
            *out = factor * y;
        }
        for i in 0..count {
            let (factor, x) = x(i);
            axpy(factor, &x[piece.clone()], out);
        }
        sum += dot(out, y);
    }
    sum
}

/// `<a, b> = sum_ij a_ij b_ij`, column by column in order.
pub fn inner(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    debug_assert_eq!((a.nrows(), a.ncols()), (b.nrows(), b.ncols()));
    let mut sum = 0.0;
    for j in 0..a.ncols() {
        match (a.col(j).try_as_col_major(), b.col(j).try_as_col_major()) {
            (Some(x), Some(y)) => sum += dot(x.as_slice(), y.as_slice()),
            _ => {
                for i in 0..a.nrows() {
                    sum += a[(i, j)] * b[(i, j)];
                }
            }
        }
    }
    sum
}

/// Squared Frobenius norm.
pub fn norm_squared(a: MatRef<'_, f64>) -> f64 {
    inner(a, a)
}

/// Frobenius norm.
pub fn norm(a: MatRef<'_, f64>) -> f64 {
    norm_squared(a).sqrt()
}

/// `out += factor * a`.
pub fn add_scaled(mut out: MatMut<'_, f64>, factor: f64, a: MatRef<'_, f64>) {
    debug_assert_eq!((a.nrows(), a.ncols()), (out.nrows(), out.ncols()));
    for j in 0..a.ncols() {
        let column = out.as_mut().col_mut(j).try_as_col_major_mut();
        match (column, a.col(j).try_as_col_major()) {
            (Some(y), Some(x)) => axpy(factor, x.as_slice(), y.as_slice_mut()),
            _ => {
                for i in 0..a.nrows() {
                    out[(i, j)] += factor * a[(i, j)];
                }
            }
        }
    }
}

/// `out = a - b`.
pub fn subtract(mut out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    debug_assert_eq!((a.nrows(), a.ncols()), (out.nrows(), out.ncols()));
    for j in 0..out.ncols() {
        let column = out.as_mut().col_mut(j).try_as_col_major_mut();
        match (column, a.col(j).try_as_col_major(), b.col(j).try_as_col_major()) {
            (Some(out), Some(x), Some(y)) => {
                panel::vectorised(Subtract(out.as_slice_mut(), x.as_slice(), y.as_slice()));
            }
            _ => {
                for i in 0..out.nrows() {
                    out[(i, j)] = a[(i, j)] - b[(i, j)];
                }
            }
        }
    }
}

/// `out *= factor`.
pub fn scale(mut out: MatMut<'_, f64>, factor: f64) {
    for j in 0..out.ncols() {
        match out.as_mut().col_mut(j).try_as_col_major_mut() {
            Some(column) => column.as_slice_mut().iter_mut().for_each(|x| *x *= factor),
            None => (0..out.nrows()).for_each(|i| out[(i, j)] *= factor),
        }
    }
}

/// Side of the squares that [`mirrored`] visits: two of them lie in the first cache.
const SQUARE: usize = 32;

/// Calls `visit(i, j)` for all i < j below `n`, square by square: entries (i, j) and (j, i) are near their
/// neighbours in memory both times.
pub fn mirrored(n: usize, mut visit: impl FnMut(usize, usize)) {
    for right in (0..n).step_by(SQUARE) {
        for left in (0..=right).step_by(SQUARE) {
            for j in right..n.min(right + SQUARE) {
                (left..j.min(left + SQUARE)).for_each(|i| visit(i, j));
            }
        }
    }
}

/// Replaces a square matrix by its symmetric part `(a + a^T)/2`.
pub fn symmetrise(mut a: MatMut<'_, f64>) {
    debug_assert_eq!(a.nrows(), a.ncols());
    mirrored(a.ncols(), |i, j| {
        let mean = 0.5 * (a[(i, j)] + a[(j, i)]);
        a[(i, j)] = mean;
        a[(j, i)] = mean;
    });
}

/// `out = a - b - l_1 r_1^T - l_2 r_2^T` as if computed in twice the working precision and rounded once
/// at the end: for residuals that are small differences of large terms. Compensated products and
/// sums (Ogita, Rump, Oishi, Accurate sum and dot product, SIAM J. Sci. Comput. 26, 2005); entries
/// below 1e140 in modulus, so that splitting does not overflow. Shapes: `a`, `b`, `out` m x n; `l_i`
/// m x k, `r_i` n x k.
pub fn compensated_residual(
    mut out: MatMut<'_, f64>,
    a: MatRef<'_, f64>,
    b: MatRef<'_, f64>,
    products: [(MatRef<'_, f64>, MatRef<'_, f64>); 2],
) {
    for j in 0..out.ncols() {
        for i in 0..out.nrows() {
            let (mut sum, mut low) = two_sum(a[(i, j)], -b[(i, j)]);
            for (left, right) in &products {
                for c in 0..left.ncols() {
                    let (product, product_low) = two_product(-left[(i, c)], right[(j, c)]);
                    let (next, next_low) = two_sum(sum, product);
                    sum = next;
                    low += next_low + product_low;
                }
            }
            out[(i, j)] = sum + low;
        }
    }
}

/// `a + b` and its rounding error (Knuth).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let virtual_b = sum - a;
    (sum, (a - (sum - virtual_b)) + (b - virtual_b))
}

/// `a * b` and its rounding error (Dekker, Veltkamp's splitting: no fused multiply-add needed).
#[inline]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = 134_217_729.0 * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let product = a * b;
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    (product, al * bl - (((product - ah * bh) - al * bh) - ah * bl))
}

/// Replaces a small symmetric positive semidefinite matrix by the inverse of itself plus `1e-12` of
/// its trace on the diagonal (identity where it is 0): for preconditioners, not for solutions.
/// Gauss-Jordan without pivoting, which positive definite matrices do not need.
pub fn invert_positive(mut a: MatMut<'_, f64>) {
    let n = a.nrows();
    let trace: f64 = (0..n).map(|i| a[(i, i)]).sum();
    let ridge = if trace > 0.0 { 1e-12 * trace } else { 1.0 };
    for i in 0..n {
        a[(i, i)] += ridge;
    }
    for pivot in 0..n {
        let inverse = 1.0 / a[(pivot, pivot)];
        a[(pivot, pivot)] = 1.0;
        for j in 0..n {
            a[(pivot, j)] *= inverse;
        }
        for i in (0..n).filter(|i| *i != pivot) {
            let factor = a[(i, pivot)];
            a[(i, pivot)] = 0.0;
            for j in 0..n {
                a[(i, j)] -= factor * a[(pivot, j)];
            }
        }
    }
}

/// Whether every entry is finite.
pub fn is_finite(a: MatRef<'_, f64>) -> bool {
    (0..a.ncols()).all(|j| (0..a.nrows()).all(|i| a[(i, j)].is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn dot_agrees_with_the_plain_sum_for_every_remainder() {
        for n in 0..40 {
            let x: Vec<f64> = (0..n).map(|i| i as f64 - 3.0).collect();
            let y: Vec<f64> = (0..n).map(|i| 2.0 - i as f64).collect();
            let plain: f64 = x.iter().zip(&y).map(|(a, b)| a * b).sum();
            assert_eq!(dot(&x, &y), plain, "integers below 2^53 add exactly");
        }
    }

    #[test]
    fn fused_passes_are_those_one_after_the_other() {
        for n in 0..70 {
            let vector = |a: usize| -> Vec<f64> { (0..n).map(|i| ((i * a) % 7) as f64).collect() };
            let (x, y) = (vector(3), vector(5));
            let mut plain = y.clone();
            axpy(-2.0, &x, &mut plain);
            let mut fused = vec![f64::NAN; n];
            combine(&mut fused, &y, -2.0, &x);
            assert_eq!(fused, plain);
        }
    }

    /// Small integers: every order of sums gives the same.
    #[test]
    fn passes_over_many_vectors_are_those_over_one() {
        for n in [1, 511, 512, 513, 1300] {
            let vector = |a: usize| -> Vec<f64> { (0..n).map(|i| ((i * a) % 7) as f64).collect() };
            let (x, y) = ([vector(3), vector(5), vector(2)], vector(4));
            let mut found = [0.0; 3];
            dots(3, |i| x[i].as_slice(), &y, |i, part| found[i] += part);
            assert_eq!(found, [0, 1, 2].map(|i| dot(&x[i], &y)));
            let mut out = vec![f64::NAN; n];
            let term = |i: usize| (i as f64 - 1.0, x[i].as_slice());
            let product = combine_many(&mut out, (2.0, &y), 3, term);
            let plain: Vec<f64> = (0..n).map(|i| 2.0 * y[i] - x[0][i] + x[2][i]).collect();
            assert_eq!(out, plain);
            assert_eq!(product, dot(&plain, &y));
        }
    }

    #[test]
    fn compensated_residual_keeps_what_plain_arithmetic_loses() {
        // a - l r^T with l r^T = a + tiny: the plain difference has no correct digit.
        let (x, y) = (1.0 + 2f64.powi(-30), 1.0 - 2f64.powi(-31));
        let tiny = 2f64.powi(-61);
        // x y = 1 + 2^-31 - 2^-61 exactly.
        let a = Mat::from_fn(1, 1, |_, _| 1.0 + 2f64.powi(-31));
        let (l, r) = (Mat::from_fn(1, 1, |_, _| x), Mat::from_fn(1, 1, |_, _| y));
        let zero = Mat::zeros(1, 1);
        let mut out = Mat::zeros(1, 1);
        let nothing = (zero.as_ref(), zero.as_ref());
        compensated_residual(
            out.as_mut(),
            a.as_ref(),
            zero.as_ref(),
            [(l.as_ref(), r.as_ref()), nothing],
        );
        assert_eq!(out[(0, 0)], tiny);
        assert_eq!(a[(0, 0)] - x * y, 0.0, "plain arithmetic loses it");
    }

    #[test]
    fn invert_positive_inverts() {
        let g = Mat::from_fn(3, 5, |i, j| ((i * 3 + j * j) % 7) as f64 - 2.0);
        let mut a = Mat::identity(3, 3);
        mul_add(a.as_mut(), g.as_ref(), g.transpose(), 1.0);
        let mut inverse = a.clone();
        invert_positive(inverse.as_mut());
        let mut product = Mat::identity(3, 3);
        mul_add(product.as_mut(), a.as_ref(), inverse.as_ref(), -1.0);
        // The ridge of 1e-12 trace(a) perturbs by at most 1e-12 cond-like factors; a >= I here.
        assert!(norm(product.as_ref()) < 1e-9);
        let mut zero = Mat::zeros(2, 2);
        invert_positive(zero.as_mut());
        assert_eq!(zero, Mat::<f64>::identity(2, 2));
    }

    #[test]
    fn inner_product_accepts_transposed_views() {
        let a = Mat::from_fn(3, 4, |i, j| (i + 2 * j) as f64);
        let b = Mat::from_fn(4, 3, |i, j| (i * j) as f64);
        let plain: f64 = (0..3)
            .flat_map(|i| (0..4).map(move |j| (i, j)))
            .map(|(i, j)| a[(i, j)] * b[(j, i)])
            .sum();
        assert_eq!(inner(a.as_ref(), b.transpose()), plain);
    }
}
