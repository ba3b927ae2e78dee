//! Errors scaled by size, distances between subspaces.

use crate::{decompose, kernel};
use faer::{Mat, MatRef};

/// `||a - b||_F / ||b||_F`; the absolute error where `b = 0`. NaN if an entry is.
pub fn relative_error(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    let error = distance(a, b);
    let size = kernel::norm(b);
    if size == 0.0 { error } else { error / size }
}

/// `||a - b||_F`.
pub fn distance(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    let mut sum = 0.0;
    for j in 0..a.ncols() {
        match (a.col(j).try_as_col_major(), b.col(j).try_as_col_major()) {
            (Some(x), Some(y)) => sum += squared_distance(x.as_slice(), y.as_slice()),
            _ => {
                for i in 0..a.nrows() {
                    let difference = a[(i, j)] - b[(i, j)];
                    sum += difference * difference;
                }
            }
        }
    }
    sum.sqrt()
}

/// `||a - a^T||_F / ||a||_F` of a square matrix; 0 where `a = 0`.
pub fn asymmetry(a: MatRef<'_, f64>) -> f64 {
    let mut sum = 0.0;
    kernel::mirrored(a.ncols(), |i, j| {
        let difference = a[(i, j)] - a[(j, i)];
        sum += difference * difference;
    });
    let size = kernel::norm(a);
    if size == 0.0 { 0.0 } else { (2.0 * sum).sqrt() / size }
}

/// `sum_i (x_i - y_i)^2` in four running sums.
fn squared_distance(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (xs, ys) = (x.chunks_exact(4), y.chunks_exact(4));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in xs.zip(ys) {
        for lane in 0..4 {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + tail
}

/// Sine of the largest principal angle between the spans of two orthonormal bases of equal width:
/// `||(I - P P^T) Q||_2`.
pub fn subspace_distance(p: MatRef<'_, f64>, q: MatRef<'_, f64>) -> f64 {
    let mut overlap = Mat::zeros(p.ncols(), q.ncols());
    kernel::mul(overlap.as_mut(), p.transpose(), q, 1.0);
    let mut rest = q.to_owned();
    kernel::mul_add(rest.as_mut(), p, overlap.as_ref(), -1.0);
    decompose::singular_values(rest.as_ref())
        .ok()
        .and_then(|values| values.first().copied())
        .unwrap_or(f64::NAN)
        .min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asymmetry_is_the_distance_from_the_transpose() {
        let a = Mat::from_fn(5, 5, |i, j| (i * i + 2 * j) as f64);
        let plain = relative_error(a.transpose(), a.as_ref());
        // The same sum in another order: a few roundings.
        assert!((asymmetry(a.as_ref()) - plain).abs() < 1e-15 * plain * 25.0 && plain > 0.1);
        assert_eq!(asymmetry(Mat::<f64>::zeros(2, 2).as_ref()), 0.0);
    }

    #[test]
    fn subspace_distance_of_a_rotated_line_is_the_sine() {
        let angle = 0.3_f64;
        let p = Mat::from_fn(2, 1, |i, _| if i == 0 { 1.0 } else { 0.0 });
        let q = Mat::from_fn(2, 1, |i, _| if i == 0 { angle.cos() } else { angle.sin() });
        assert!(
            (subspace_distance(p.as_ref(), q.as_ref()) - angle.sin()).abs() < 4.0 * f64::EPSILON
        );
        assert!(subspace_distance(p.as_ref(), p.as_ref()) < f64::EPSILON);
    }
}
