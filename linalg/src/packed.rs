//! Products with matrices packed so that they are read from front to back.
//!
//! A panel ([`crate::panel`]) is read in strides of its leading dimension, one cache line a column: out of the
//! first cache that costs four times the arithmetic at d = 100. Here blocks of [`ROWS`] rows (the last one
//! of [`LANES`] where the number of rows asks for it) follow each other, each column by column without gaps.
//!
//! Every entry is a sum over the inner index in ascending order, without fused multiply-add: the bits are
//! those of [`crate::panel::mul`].
//!
//! Limits: no blocking over the inner index: up to a few hundred.

use crate::panel::{self, LANES};
use faer::MatRef;
use pulp::{Arch, Simd, WithSimd};

/// Rows of a block: two vectors of [`LANES`], so that a product with four columns has eight sums in flight.
pub const ROWS: usize = 2 * LANES;

/// A packed matrix.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Rows times columns numbers.
    values: &'a [f64],
    /// Rows, a multiple of [`LANES`].
    rows: usize,
    /// Columns.
    columns: usize,
}

/// What a product does with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// `out = a x`.
    Replace,
    /// `out += a x`.
    Add,
    /// `out = a x` for a symmetric result, only its blocks of [`ROWS`] on and below the diagonal.
    Lower,
    /// [`Accumulate::Lower`], then mirrored.
    Symmetric,
}

impl<'a> Packed<'a> {
    /// The matrix that `values` hold, `rows` a multiple of [`LANES`].
    pub fn new(values: &'a [f64], rows: usize) -> Self {
        debug_assert!(rows.is_multiple_of(LANES) && values.len().is_multiple_of(rows.max(1)));
        Self { values, rows, columns: values.len() / rows.max(1) }
    }

    /// `out = a x`, or as `how` says: `x` has `k` columns of leading dimension `ldx`, `out` of `ldo >= rows`.
    #[inline]
    pub fn mul(
        self,
        out: &mut [f64],
        ldo: usize,
        x: &[f64],
        ldx: usize,
        k: usize,
        how: Accumulate,
    ) {
        Arch::new().dispatch(Product { a: self, out, ldo, x, ldx, k, how });
    }
}

struct Product<'a> {
    a: Packed<'a>,
    out: &'a mut [f64],
    ldo: usize,
    x: &'a [f64],
    ldx: usize,
    k: usize,
    how: Accumulate,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { a: Packed { values, rows, columns }, out, ldo, x, ldx, k, how } = self;
        let half = matches!(how, Accumulate::Lower | Accumulate::Symmetric);
        let add = how == Accumulate::Add;
        let mut first = 0;
        while first < rows {
            let width = ROWS.min(rows - first);
            let a = &values[first * columns..(first + width) * columns];
            // Of a symmetric result the columns up to the block's last row.
            let k = if half { k.min(first + width) } else { k };
            let out = &mut out[first..];
            match width / S::F64_LANES.min(width) {
                1 => block::<S, 1>(simd, out, ldo, a, x, ldx, k, add),
                2 => block::<S, 2>(simd, out, ldo, a, x, ldx, k, add),
                4 => block::<S, 4>(simd, out, ldo, a, x, ldx, k, add),
                _ => block::<S, 8>(simd, out, ldo, a, x, ldx, k, add),
            }
            first += width;
        }
        if how == Accumulate::Symmetric {
            for j in 1..k {
                for i in 0..j {
                    out[j * ldo + i] = out[i * ldo + j];
                }
            }
        }
    }
}

/// The rows of one block, `R` vectors of them, for all columns.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
fn block<S: Simd, const R: usize>(
    simd: S,
    out: &mut [f64],
    ldo: usize,
    a: &[f64],
    x: &[f64],
    ldx: usize,
    k: usize,
    add: bool,
) {
    let a = S::as_simd_f64s(a).0.as_chunks::<R>().0;
    let mut j = 0;
    while k - j >= 4 {
        columns::<S, R, 4>(simd, &mut out[j * ldo..], ldo, a, &x[j * ldx..], ldx, add);
        j += 4;
    }
    if k - j >= 2 {
        columns::<S, R, 2>(simd, &mut out[j * ldo..], ldo, a, &x[j * ldx..], ldx, add);
        j += 2;
    }
    if k > j {
        columns::<S, R, 1>(simd, &mut out[j * ldo..], ldo, a, &x[j * ldx..], ldx, add);
    }
}

/// `R` vectors of rows of `K` columns; their sums stay in registers.
#[inline(always)]
fn columns<S: Simd, const R: usize, const K: usize>(
    simd: S,
    out: &mut [f64],
    ldo: usize,
    a: &[[S::f64s; R]],
    x: &[f64],
    ldx: usize,
    add: bool,
) {
    let n = a.len();
    let mut sums = [[simd.splat_f64s(0.0); R]; K];
    let factors: [&[f64]; K] = std::array::from_fn(|c| &x[c * ldx..c * ldx + n]);
    for (p, column) in a.iter().enumerate() {
        for c in 0..K {
            let factor = simd.splat_f64s(factors[c][p]);
            for r in 0..R {
                sums[c][r] = simd.add_f64s(sums[c][r], simd.mul_f64s(column[r], factor));
            }
        }
    }
    for (c, sums) in sums.iter().enumerate() {
        let (places, _) = S::as_mut_simd_f64s(&mut out[c * ldo..]);
        for (place, sum) in places.iter_mut().zip(sums) {
            *place = if add { simd.add_f64s(*place, *sum) } else { *sum };
        }
    }
}

/// Packs `a` in `padded` rows, a multiple of [`LANES`]; what its own leave is filled with zeros.
pub fn pack(out: &mut [f64], padded: usize, a: MatRef<'_, f64>) {
    let n = a.ncols();
    debug_assert_eq!(out.len(), padded * n);
    for first in (0..a.nrows()).step_by(ROWS) {
        let width = ROWS.min(padded - first);
        let rows = width.min(a.nrows() - first);
        for (j, column) in out[first * n..].chunks_exact_mut(width).take(n).enumerate() {
            match a.col(j).try_as_col_major() {
                Some(from) => column[..rows].copy_from_slice(&from.as_slice()[first..first + rows]),
                None => {
                    for (i, x) in column[..rows].iter_mut().enumerate() {
                        *x = a[(first + i, j)];
                    }
                }
            }
            column[rows..].fill(0.0);
        }
    }
}

/// Packs `factor (a + a^T)` of a square column-major `a` likewise.
pub fn pack_with_transpose(out: &mut [f64], padded: usize, a: MatRef<'_, f64>, factor: f64) {
    let n = a.ncols();
    debug_assert!(out.len() == padded * n && a.nrows() == n);
    pack(out, padded, a);
    for first in (0..n).step_by(ROWS) {
        let width = ROWS.min(padded - first);
        let block = &mut out[first * n..(first + width) * n];
        // Row i of the block gets column i of `a`.
        for i in 0..width.min(n - first) {
            let column = a.col(first + i);
            for (j, x) in block.iter_mut().skip(i).step_by(width).enumerate() {
                *x = factor * (*x + column[j]);
            }
        }
    }
}

/// Packs a panel of leading dimension `ld`.
#[inline(always)]
pub fn pack_panel(out: &mut [f64], a: &[f64], ld: usize) {
    let n = a.len() / ld;
    let mut first = 0;
    while first < ld {
        let width = ROWS.min(ld - first);
        let block = &mut out[first * n..(first + width) * n];
        if width == ROWS {
            copy_rows::<ROWS>(block, a, ld, first);
        } else {
            copy_rows::<LANES>(block, a, ld, first);
        }
        first += width;
    }
}

#[inline(always)]
fn copy_rows<const W: usize>(block: &mut [f64], a: &[f64], ld: usize, first: usize) {
    for (place, column) in block.as_chunks_mut::<W>().0.iter_mut().zip(a.chunks_exact(ld)) {
        if let Some(rows) = column[first..].first_chunk::<W>() {
            *place = *rows;
        }
    }
}

/// Packs the transpose of a panel of leading dimension `ld`: `ld` columns, as many rows as the panel has
/// columns, padded.
#[inline(always)]
pub fn pack_transposed(out: &mut [f64], a: &[f64], ld: usize) {
    let k = a.len() / ld;
    let padded = panel::padded(k);
    let mut first = 0;
    while first < padded {
        let width = ROWS.min(padded - first);
        let block = &mut out[first * ld..(first + width) * ld];
        let from = &a[first * ld..k.min(first + width) * ld];
        if width == ROWS {
            turn_rows::<ROWS>(block, from, ld);
        } else {
            turn_rows::<LANES>(block, from, ld);
        }
        first += width;
    }
}

#[inline(always)]
fn turn_rows<const W: usize>(block: &mut [f64], a: &[f64], ld: usize) {
    let block = block.as_chunks_mut::<W>().0;
    if a.len() < W * ld {
        // The last block: what is missing are zeros.
        block.fill([0.0; W]);
        for (w, column) in a.chunks_exact(ld).enumerate() {
            for (place, x) in block.iter_mut().zip(column) {
                place[w] = *x;
            }
        }
        return;
    }
    // Squares of LANES: loads and stores of whole vectors with shuffles between.
    for p in (0..ld).step_by(LANES) {
        for half in (0..W).step_by(LANES) {
            let square: [[f64; LANES]; LANES] = std::array::from_fn(|w| {
                let from = (half + w) * ld + p;
                a[from..].first_chunk::<LANES>().copied().unwrap_or([0.0; LANES])
            });
            for (i, place) in block[p..p + LANES].iter_mut().enumerate() {
                for w in 0..LANES {
                    place[half + w] = square[w][i];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use faer::Mat;

    fn panel_of(a: MatRef<'_, f64>) -> Vec<f64> {
        let ld = panel::padded(a.nrows());
        let mut out = vec![f64::NAN; ld * a.ncols()];
        panel::load(&mut out, ld, a);
        out
    }

    /// Entries are small integers: products and sums are exact, whatever the order.
    #[test]
    fn products_of_every_shape_are_those_of_the_definition() {
        let mut stream = Seed::root(5).child("packed").stream();
        for m in [1, 3, 4, 5, 8, 9, 12, 13, 20] {
            for n in [1, 2, 4, 7, 16] {
                for k in 1..=9 {
                    let mut integers =
                        |r, c| Mat::from_fn(r, c, |_, _| (stream.below(9) as f64) - 4.0);
                    let (a, x) = (integers(m, n), integers(n, k));
                    let (rows, ldx) = (panel::padded(m), panel::padded(n));
                    let mut values = vec![f64::NAN; rows * n];
                    pack(&mut values, rows, a.as_ref());
                    let mut again = vec![f64::NAN; rows * n];
                    pack_panel(&mut again, &panel_of(a.as_ref()), rows);
                    assert_eq!(values, again, "{m} x {n}");
                    let square = integers(n, n);
                    let sum = -0.5 * (&square + square.transpose());
                    let mut packed_sum = vec![f64::NAN; panel::padded(n) * n];
                    pack(&mut packed_sum, panel::padded(n), sum.as_ref());
                    let mut fused = vec![f64::NAN; panel::padded(n) * n];
                    pack_with_transpose(&mut fused, panel::padded(n), square.as_ref(), -0.5);
                    assert_eq!(fused, packed_sum);
                    let packed = Packed::new(&values, rows);
                    let x_panel = panel_of(x.as_ref());
                    let mut out = vec![f64::NAN; rows * k];
                    packed.mul(&mut out, rows, &x_panel, ldx, k, Accumulate::Replace);
                    let product = &a * &x;
                    assert_eq!(out, panel_of(product.as_ref()), "{m} x {n} x {k}");
                    packed.mul(&mut out, rows, &x_panel, ldx, k, Accumulate::Add);
                    assert_eq!(out, panel_of((&product + &product).as_ref()));
                    let mut plain = vec![f64::NAN; rows * k];
                    let a_panel = panel_of(a.as_ref());
                    panel::product(&mut plain, &a_panel, rows, n, &x_panel, ldx, k);
                    packed.mul(&mut out, rows, &x_panel, ldx, k, Accumulate::Replace);
                    assert_eq!(out, plain);
                    // a^T a through the packed transpose.
                    let turned_rows = panel::padded(n);
                    let mut turned = vec![f64::NAN; turned_rows * rows];
                    pack_transposed(&mut turned, &a_panel, rows);
                    let mut gram = vec![f64::NAN; turned_rows * n];
                    Packed::new(&turned, turned_rows).mul(
                        &mut gram,
                        turned_rows,
                        &a_panel,
                        rows,
                        n,
                        Accumulate::Symmetric,
                    );
                    let expected = a.transpose() * &a;
                    for j in 0..n {
                        for i in 0..n {
                            assert_eq!(gram[j * turned_rows + i], expected[(i, j)]);
                        }
                    }
                }
            }
        }
    }
}
