//! Sequential products and vector loops.
//!
//! faer's operators use its global parallelism; everything here names [`Par::Seq`], so that a
//! result does not depend on how many threads the caller has. Nothing here allocates.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// `out = alpha * a b`.
pub fn mul(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    matmul(out, Accum::Replace, a, b, alpha, Par::Seq);
}

/// `out += alpha * a b`.
pub fn mul_add(out: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    matmul(out, Accum::Add, a, b, alpha, Par::Seq);
}

/// `sum_i x_i y_i`, in a fixed order (eight running sums, so that it vectorises).
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    debug_assert_eq!(x.len(), y.len());
    let mut sums = [0.0; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in xs.zip(ys) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let quarter = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    ((quarter[0] + quarter[2]) + (quarter[1] + quarter[3])) + tail
}

/// `y += factor * x`.
pub fn axpy(factor: f64, x: &[f64], y: &mut [f64]) {
    debug_assert_eq!(x.len(), y.len());
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
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
        for i in 0..a.nrows() {
            out[(i, j)] += factor * a[(i, j)];
        }
    }
}

/// `out *= factor`.
pub fn scale(mut out: MatMut<'_, f64>, factor: f64) {
    for j in 0..out.ncols() {
        for i in 0..out.nrows() {
            out[(i, j)] *= factor;
        }
    }
}

/// Replaces a square matrix by its symmetric part `(a + a^T)/2`.
pub fn symmetrise(mut a: MatMut<'_, f64>) {
    debug_assert_eq!(a.nrows(), a.ncols());
    for j in 0..a.ncols() {
        for i in 0..j {
            let mean = 0.5 * (a[(i, j)] + a[(j, i)]);
            a[(i, j)] = mean;
            a[(j, i)] = mean;
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
