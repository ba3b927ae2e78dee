//! Scaling by the other factor: what makes steps in `U V^T` independent of how its size is split.
//!
//! The Gauss-Newton matrix of one block is about `Z -> (c/T) Z W`, with `W = U^T U`, `c = 2` for a
//! symmetric factor, `W = V^T V` for `U` and `U^T U` for `V` with `c = 1` for asymmetric ones. `M` is
//! right multiplication by `(c/T) W`, and `M^{-1}` solves with its Cholesky factor. `W` gets `1e-12` of its trace
//! on the diagonal, so that factors without full rank have an inverse too. Cost O(T d k^2).
//!
//! Works on any objective whose blocks are such factors ([`Gauge`] says which).

use faer::MatRef;
use peftml_linalg::{Blocks, kernel};
use peftml_theory::Gauge;

/// Relative size of what is added to the Gram matrices' diagonals.
const DAMPING: f64 = 1e-12;

/// Length of the scalars that hold the factors for blocks of `x`'s shapes.
pub(crate) fn len(x: &Blocks) -> usize {
    x.layout().specs().iter().map(|spec| spec.cols * spec.cols).sum()
}

/// The block whose Gram matrix scales block `index`.
fn partner(gauge: Gauge, count: usize, index: usize) -> usize {
    match gauge {
        Gauge::GeneralLinear => (index + count / 2) % count,
        Gauge::Orthogonal | Gauge::None => index,
    }
}

/// Writes the Cholesky factors of the scaled Gram matrices at `x` into `factors`, block behind block.
pub(crate) fn factorise(x: &Blocks, gauge: Gauge, factors: &mut [f64]) {
    let count = x.count();
    // c/T: T = count with c = 2, or T = count/2 with c = 1.
    let weight = 2.0 / count as f64;
    let mut begin = 0;
    for index in 0..count {
        let other = x.block(partner(gauge, count, index));
        let k = other.ncols();
        let gram = &mut factors[begin..begin + k * k];
        begin += k * k;
        for j in 0..k {
            for i in 0..k {
                gram[j * k + i] = weight * kernel::inner(column(other, i), column(other, j));
            }
        }
        let trace: f64 = (0..k).map(|i| gram[i * k + i]).sum();
        // A factor that vanishes gives no scale: any positive number will do.
        let added = if trace > 0.0 { DAMPING * trace } else { 1.0 };
        (0..k).for_each(|i| gram[i * k + i] += added);
        cholesky(gram, k);
    }
}

fn column(m: MatRef<'_, f64>, j: usize) -> MatRef<'_, f64> {
    m.subcols(j, 1)
}

/// Lower Cholesky factor in place of a k x k column-major matrix.
fn cholesky(a: &mut [f64], k: usize) {
    for j in 0..k {
        for p in 0..j {
            let factor = a[p * k + j];
            for i in j..k {
                a[j * k + i] -= a[p * k + i] * factor;
            }
        }
        // Positive by construction; the floor guards against rounding.
        let root = a[j * k + j].max(f64::MIN_POSITIVE).sqrt();
        for i in j..k {
            a[j * k + i] /= root;
        }
    }
}

/// `out = M^{-1} v`: each block times `(L L^T)^{-1}` from the right.
pub(crate) fn solve(factors: &[f64], v: &Blocks, out: &mut Blocks) {
    out.copy_from(v);
    let mut begin = 0;
    for index in 0..v.count() {
        let mut block = out.block_mut(index);
        let k = block.ncols();
        let lower = &factors[begin..begin + k * k];
        begin += k * k;
        // X (L L^T) = V: forward for Y = X L.. from the last column, Y L^T = V from the first.
        for j in 0..k {
            for p in 0..j {
                subtract_column(block.as_mut(), j, p, lower[p * k + j]);
            }
            scale_column(block.as_mut(), j, 1.0 / lower[j * k + j]);
        }
        for j in (0..k).rev() {
            for p in j + 1..k {
                subtract_column(block.as_mut(), j, p, lower[j * k + p]);
            }
            scale_column(block.as_mut(), j, 1.0 / lower[j * k + j]);
        }
    }
}

/// `<v, M v>`.
pub(crate) fn norm_squared(factors: &[f64], v: &Blocks) -> f64 {
    let mut begin = 0;
    let mut sum = 0.0;
    for index in 0..v.count() {
        let block = v.block(index);
        let k = block.ncols();
        let lower = &factors[begin..begin + k * k];
        begin += k * k;
        // ||V L||_F^2, row by row.
        for i in 0..block.nrows() {
            for j in 0..k {
                let entry: f64 = (j..k).map(|p| block[(i, p)] * lower[j * k + p]).sum();
                sum += entry * entry;
            }
        }
    }
    sum
}

fn subtract_column(mut m: faer::MatMut<'_, f64>, to: usize, from: usize, factor: f64) {
    for i in 0..m.nrows() {
        m[(i, to)] -= factor * m[(i, from)];
    }
}

fn scale_column(mut m: faer::MatMut<'_, f64>, j: usize, factor: f64) {
    for i in 0..m.nrows() {
        m[(i, j)] *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;
    use peftml_linalg::Seed;

    #[test]
    fn solving_inverts_right_multiplication_by_the_partners_gram_matrix() {
        let mut stream = Seed::root(9).child("preconditioner").stream();
        for gauge in [Gauge::Orthogonal, Gauge::GeneralLinear] {
            for k in 1..=4 {
                let blocks: Vec<_> = (0..4).map(|_| stream.normal_matrix(7, k, 1.0)).collect();
                let x = Blocks::from_matrices("U", blocks.iter().map(|m| m.as_ref()));
                let mut factors = vec![0.0; len(&x)];
                factorise(&x, gauge, &mut factors);
                let mut v = x.zeros_like();
                stream.fill_normal(1.0, v.as_mut_slice());
                let mut product = x.zeros_like();
                for i in 0..4 {
                    let other = x.block(partner(gauge, 4, i));
                    let mut gram = Mat::zeros(k, k);
                    kernel::mul(gram.as_mut(), other.transpose(), other, 0.5);
                    kernel::mul(product.block_mut(i), v.block(i), gram.as_ref(), 1.0);
                }
                assert!(
                    (norm_squared(&factors, &v) / v.dot(&product) - 1.0).abs() < 1e-10,
                    "damping of 1e-12 changes this by no more"
                );
                let mut back = x.zeros_like();
                solve(&factors, &product, &mut back);
                back.add_scaled(-1.0, &v);
                // Damping 1e-12 times a condition number that random 7 x 4 factors keep below 1e4.
                assert!(back.norm() < 1e-7 * v.norm());
            }
        }
    }
}
