//! Products of small matrices in padded column-major panels.
//!
//! At d = 10 a general matrix product spends its time in dispatch and packing (about 75 ns a call);
//! these loops are inlined into the caller's and keep the result in registers. A panel is `ld` rows by
//! some columns with `ld` a multiple of [`LANES`]; the rows past the matrix hold zeros and stay zero.
//!
//! Every entry is a sum over the inner index in ascending order, without fused multiply-add: the
//! bits do not depend on the width of the machine's vectors. Call these from inside [`vectorised`],
//! which compiles its argument for the widest vectors that the machine has.
//!
//! Limits: no blocking for cache, so for d up to a few hundred.

use faer::MatRef;
use pulp::{Arch, NullaryFnOnce, WithSimd};

/// Rows of a panel are a multiple of this.
pub const LANES: usize = 4;

/// `rows` rounded up to a multiple of [`LANES`].
pub fn padded(rows: usize) -> usize {
    rows.next_multiple_of(LANES)
}

/// Runs `work` compiled for the machine's vector instructions. What `work` calls must be
/// `#[inline(always)]` to profit.
#[inline]
pub fn vectorised<R>(work: impl NullaryFnOnce<Output = R>) -> R {
    Arch::new().dispatch(work)
}

/// The same for work that names its vector operations.
#[inline]
pub fn vectorised_with<R>(work: impl WithSimd<Output = R>) -> R {
    Arch::new().dispatch(work)
}

/// Copies `a` into the panel `out` with leading dimension `ld` and clears the padding.
pub fn load(out: &mut [f64], ld: usize, a: MatRef<'_, f64>) {
    out.fill(0.0);
    for (j, column) in out.chunks_exact_mut(ld).take(a.ncols()).enumerate() {
        for (i, x) in column[..a.nrows()].iter_mut().enumerate() {
            *x = a[(i, j)];
        }
    }
}

/// `out = a x` (`out` ld x k, `a` ld x n, `x` n x k with leading dimension `ldx >= n`).
#[inline(always)]
pub fn mul(out: &mut [f64], a: &[f64], ld: usize, n: usize, x: &[f64], ldx: usize, k: usize) {
    let a = &a[..ld * n];
    let mut j = 0;
    while k - j >= 4 {
        rows::<4>(&mut out[j * ld..(j + 4) * ld], a, ld, n, &x[j * ldx..], ldx, 0);
        j += 4;
    }
    if k - j >= 2 {
        rows::<2>(&mut out[j * ld..(j + 2) * ld], a, ld, n, &x[j * ldx..], ldx, 0);
        j += 2;
    }
    if k > j {
        rows::<1>(&mut out[j * ld..(j + 1) * ld], a, ld, n, &x[j * ldx..], ldx, 0);
    }
}

/// Rows and columns of the blocks that [`lower_product`] works on.
pub const BLOCK: usize = 16;

struct LowerProduct<'a>(&'a mut [f64], &'a [f64], usize, usize, &'a [f64], usize, usize);

impl NullaryFnOnce for LowerProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let LowerProduct(out, a, ld, n, x, ldx, k) = self;
        for j in (0..k).step_by(4) {
            let (first, width) = (j / BLOCK * BLOCK, 4.min(k - j));
            if width == 4 {
                rows::<4>(&mut out[j * ld..(j + 4) * ld], a, ld, n, &x[j * ldx..], ldx, first);
                continue;
            }
            for c in j..j + width {
                rows::<1>(&mut out[c * ld..(c + 1) * ld], a, ld, n, &x[c * ldx..], ldx, first);
            }
        }
    }
}

/// [`mul`] for a result that is symmetric: of its column j only the rows from the first of j's block of
/// [`BLOCK`] on. The rest of `out` stays as it is.
pub fn lower_product(
    out: &mut [f64],
    a: &[f64],
    ld: usize,
    n: usize,
    x: &[f64],
    ldx: usize,
    k: usize,
) {
    vectorised(LowerProduct(out, &a[..ld * n], ld, n, x, ldx, k));
}

/// The rows from `first` on of `K` columns, cut into blocks whose sums fit the registers.
#[inline(always)]
fn rows<const K: usize>(
    out: &mut [f64],
    a: &[f64],
    ld: usize,
    n: usize,
    x: &[f64],
    ldx: usize,
    first: usize,
) {
    let mut i = first;
    while i < ld {
        let left = ld - i;
        if K == 1 && left >= 16 {
            block::<16, K>(out, a, ld, n, x, ldx, i);
            i += 16;
        } else if K <= 2 && left >= 12 {
            block::<12, K>(out, a, ld, n, x, ldx, i);
            i += 12;
        } else if left >= 8 {
            block::<8, K>(out, a, ld, n, x, ldx, i);
            i += 8;
        } else {
            block::<4, K>(out, a, ld, n, x, ldx, i);
            i += 4;
        }
    }
}

/// Rows `i..i+W` of `K` columns.
#[inline(always)]
fn block<const W: usize, const K: usize>(
    out: &mut [f64],
    a: &[f64],
    ld: usize,
    n: usize,
    x: &[f64],
    ldx: usize,
    i: usize,
) {
    let mut sums = [[0.0; W]; K];
    let factors: [&[f64]; K] = std::array::from_fn(|c| &x[c * ldx..c * ldx + n]);
    for p in 0..n {
        let Some(column) = a[p * ld + i..].first_chunk::<W>() else { return };
        for c in 0..K {
            let factor = factors[c][p];
            for w in 0..W {
                sums[c][w] += column[w] * factor;
            }
        }
    }
    for c in 0..K {
        out[c * ld + i..c * ld + i + W].copy_from_slice(&sums[c]);
    }
}

struct Product<'a>(&'a mut [f64], &'a [f64], usize, usize, &'a [f64], usize, usize);

impl NullaryFnOnce for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Product(out, a, ld, n, x, ldx, k) = self;
        mul(out, a, ld, n, x, ldx, k);
    }
}

/// [`mul`], from outside of [`vectorised`]: one copy of the code for all callers.
pub fn product(out: &mut [f64], a: &[f64], ld: usize, n: usize, x: &[f64], ldx: usize, k: usize) {
    vectorised(Product(out, a, ld, n, x, ldx, k));
}

struct TransposedProduct<'a>(&'a mut [f64], &'a [f64], &'a [f64], usize);

impl NullaryFnOnce for TransposedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let TransposedProduct(out, a, b, ld) = self;
        mul_transposed(out, a, b, ld);
    }
}

/// [`mul_transposed`] likewise.
pub fn transposed_product(out: &mut [f64], a: &[f64], b: &[f64], ld: usize) {
    vectorised(TransposedProduct(out, a, b, ld));
}

/// `out = a^T b` (`a` ld x k, `b` ld x m, `out` k x m without padding).
#[inline(always)]
pub fn mul_transposed(out: &mut [f64], a: &[f64], b: &[f64], ld: usize) {
    let k = a.len() / ld;
    // Four columns of `a` at a time: their sums are independent, so that additions overlap.
    let blocked = k / 4 * 4;
    for (j, column) in b.chunks_exact(ld).enumerate() {
        let out = &mut out[j * k..(j + 1) * k];
        for (four, others) in out.chunks_exact_mut(4).zip(a.chunks_exact(4 * ld)) {
            four.copy_from_slice(&dots(others, column, ld));
        }
        for (x, other) in out[blocked..].iter_mut().zip(a[blocked * ld..].chunks_exact(ld)) {
            *x = dot(other, column);
        }
    }
}

/// `out = a^T a` (`a` ld x k, `out` k x k without padding): the bits of [`mul_transposed`], about half its work.
#[inline(always)]
pub fn gram(out: &mut [f64], a: &[f64], ld: usize) {
    let k = a.len() / ld;
    let blocked = k / 4 * 4;
    for (j, column) in a.chunks_exact(ld).enumerate() {
        // Whole blocks of four up to the one that holds the diagonal.
        let needed = (j / 4 + 1).min(blocked / 4);
        let out = &mut out[j * k..(j + 1) * k];
        for (four, others) in out.chunks_exact_mut(4).zip(a.chunks_exact(4 * ld)).take(needed) {
            four.copy_from_slice(&dots(others, column, ld));
        }
        for (i, other) in a.chunks_exact(ld).enumerate().take(j + 1).skip(blocked) {
            out[i] = dot(other, column);
        }
    }
    for j in 0..k {
        for i in 0..j {
            out[i * k + j] = out[j * k + i];
        }
    }
}

/// The four inner products of `column` with the columns of `a` (ld x 4), each as [`dot`] has it.
#[inline(always)]
fn dots(a: &[f64], column: &[f64], ld: usize) -> [f64; 4] {
    let mut sums = [[0.0; LANES]; 4];
    let (first, rest) = a.split_at(ld);
    let (second, rest) = rest.split_at(ld);
    let (third, fourth) = rest.split_at(ld);
    let chunks = column
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(first.as_chunks::<LANES>().0)
        .zip(second.as_chunks::<LANES>().0)
        .zip(third.as_chunks::<LANES>().0)
        .zip(fourth.as_chunks::<LANES>().0);
    for ((((y, a), b), c), d) in chunks {
        for lane in 0..LANES {
            sums[0][lane] += a[lane] * y[lane];
            sums[1][lane] += b[lane] * y[lane];
            sums[2][lane] += c[lane] * y[lane];
            sums[3][lane] += d[lane] * y[lane];
        }
    }
    sums.map(|s| (s[0] + s[2]) + (s[1] + s[3]))
}

/// `sum_i x_i y_i` of padded columns, in four running sums.
#[inline(always)]
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    for (a, b) in x.as_chunks::<LANES>().0.iter().zip(y.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

/// `out += a m` (`out` and `a` ld x k, `m` k x k without padding).
#[inline(always)]
pub fn add_mul_small(out: &mut [f64], a: &[f64], m: &[f64], ld: usize) {
    let k = a.len() / ld;
    for (j, column) in out.chunks_exact_mut(ld).enumerate() {
        for (l, other) in a.chunks_exact(ld).enumerate() {
            add_scaled(column, m[j * k + l], other);
        }
    }
}

/// `out += weight * u v^T` (`out` ld x n, `u` ld x k, `v` n x k with leading dimension `ldv`).
#[inline(always)]
pub fn add_outer(out: &mut [f64], weight: f64, u: &[f64], v: &[f64], ld: usize, ldv: usize) {
    for (j, column) in out.chunks_exact_mut(ld).enumerate() {
        for (left, right) in u.chunks_exact(ld).zip(v.chunks_exact(ldv)) {
            add_scaled(column, weight * right[j], left);
        }
    }
}

/// `out += factor * x`, lengths multiples of [`LANES`].
#[inline(always)]
pub fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(x.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            y[lane] += factor * x[lane];
        }
    }
}

/// `out = a^T` for the n x n matrix in a panel of leading dimension `ld`.
#[inline(always)]
pub fn transpose(out: &mut [f64], a: &[f64], ld: usize, n: usize) {
    for (j, column) in out.chunks_exact_mut(ld).take(n).enumerate() {
        for (x, other) in column[..n].iter_mut().zip(a.chunks_exact(ld)) {
            *x = other[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    fn panel(ld: usize, a: MatRef<'_, f64>) -> Vec<f64> {
        let mut out = vec![f64::NAN; ld * a.ncols()];
        load(&mut out, ld, a);
        out
    }

    /// Entries are small integers: products and sums are exact, whatever the order.
    #[test]
    fn products_of_every_shape_are_those_of_the_definition() {
        let mut stream = Seed::root(4).child("panel").stream();
        for n in [1, 2, 3, 4, 5, 7, 8, 10, 12, 17, 20, 33] {
            for k in 1..=9 {
                let ld = padded(n);
                let mut integers =
                    |m| faer::Mat::from_fn(n, m, |_, _| (stream.below(9) as f64) - 4.0);
                let (a, x, y) = (integers(n), integers(k), integers(k));
                let (pa, px, py) =
                    (panel(ld, a.as_ref()), panel(ld, x.as_ref()), panel(ld, y.as_ref()));
                let mut out = vec![f64::NAN; ld * k];
                vectorised(|| mul(&mut out, &pa, ld, n, &px, ld, k));
                assert_eq!(out, panel(ld, (&a * &x).as_ref()), "n = {n}, k = {k}");
                let mut gram = vec![f64::NAN; k * k];
                mul_transposed(&mut gram, &px, &py, ld);
                let expected = x.transpose() * &y;
                for j in 0..k {
                    for i in 0..k {
                        assert_eq!(gram[j * k + i], expected[(i, j)]);
                    }
                }
                let mut square = vec![f64::NAN; k * k];
                super::gram(&mut square, &px, ld);
                let mut plain = vec![f64::NAN; k * k];
                mul_transposed(&mut plain, &px, &px, ld);
                assert_eq!(square, plain);
                add_mul_small(&mut out, &px, &gram, ld);
                assert_eq!(out, panel(ld, (&a * &x + &x * &expected).as_ref()));
                let mut square = pa.clone();
                add_outer(&mut square, -2.0, &px, &py, ld, ld);
                let outer = &x * y.transpose();
                assert_eq!(square, panel(ld, (&a - &outer - &outer).as_ref()));
                let mut lower = square.clone();
                let ones = vec![1.0; k * n];
                lower_product(&mut lower, &px, ld, k, &ones, k, n);
                let mut whole = square.clone();
                vectorised(|| mul(&mut whole, &px, ld, k, &ones, k, n));
                for j in 0..n {
                    for i in 0..ld {
                        let from = if i >= j / BLOCK * BLOCK { &whole } else { &square };
                        assert_eq!(lower[j * ld + i], from[j * ld + i]);
                    }
                }
                let mut back = vec![0.0; ld * n];
                transpose(&mut back, &pa, ld, n);
                assert_eq!(back, panel(ld, a.transpose()));
            }
        }
    }
}
