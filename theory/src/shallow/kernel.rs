//! Products, sums and residuals over one block of samples, in vectors.
//!
//! A block has w quads of samples; a matrix of values "rows x w" has row i of quad v at `i w + v`.
//! Sums run over quads in order, lanes apart, and are added up at the very end: one order, whatever
//! the tiles. Small matrices come as *panels*: rows in groups of [`TILE`], column by column inside a
//! group, so that the innermost loops read memory in order.

use super::lanes::{Kernel, Lanes, Quad};
use super::samples::Samples;
use super::sigmoid::sigmoid_lanes;

/// Rows of a panel: with two quads a row, ten sums stay in sixteen registers and hide the latency of
/// a fused multiply-add on machines that start two a cycle.
pub(crate) const TILE: usize = 5;

/// Writes the matrix of `rows` x `cols` entries `value(i, j)` as panels.
#[inline(always)]
pub(crate) fn pack(
    rows: usize,
    cols: usize,
    out: &mut [f64],
    mut value: impl FnMut(usize, usize) -> f64,
) {
    let mut place = out.iter_mut();
    for start in (0..rows).step_by(TILE) {
        for j in 0..cols {
            for i in start..rows.min(start + TILE) {
                if let Some(out) = place.next() {
                    *out = value(i, j);
                }
            }
        }
    }
}

/// A packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) values: &'a [f64],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// `out = start + M x`: `out` and `start` rows x w, `x` cols x w.
#[inline(always)]
pub(crate) fn product<L: Lanes>(
    l: L,
    m: Panels<'_>,
    x: &[Quad],
    start: Start<'_>,
    out: &mut [Quad],
    width: usize,
) {
    l.call(Product { m, x, start, out, width });
}

struct Product<'a> {
    m: Panels<'a>,
    x: &'a [Quad],
    start: Start<'a>,
    out: &'a mut [Quad],
    width: usize,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { m, x, start, out, width } = self;
        let x = &x[..m.cols * width];
        for i in (0..m.rows).step_by(TILE) {
            let rows = TILE.min(m.rows - i);
            let panel = &m.values[i * m.cols..][..rows * m.cols];
            let start = start.rows(i * width, rows * width);
            let out = &mut out[i * width..][..rows * width];
            match rows {
                1 => rows_product::<L, 1, 4>(l, panel, x, start, out, width),
                2 => rows_product::<L, 2, 4>(l, panel, x, start, out, width),
                3 => rows_product::<L, 3, 2>(l, panel, x, start, out, width),
                4 => rows_product::<L, 4, 2>(l, panel, x, start, out, width),
                _ => rows_product::<L, TILE, 2>(l, panel, x, start, out, width),
            }
        }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Constant(f64),
    Values(&'a [Quad]),
}

impl<'a> Start<'a> {
    #[inline(always)]
    fn rows(self, from: usize, len: usize) -> Self {
        match self {
            Start::Constant(x) => Start::Constant(x),
            Start::Values(x) => Start::Values(&x[from..][..len]),
        }
    }
}

#[inline(always)]
fn rows_product<L: Lanes, const I: usize, const V: usize>(
    l: L,
    panel: &[f64],
    x: &[Quad],
    start: Start<'_>,
    out: &mut [Quad],
    width: usize,
) {
    let panel = panel.as_chunks::<I>().0;
    let mut v = 0;
    while v + V <= width {
        product_tile::<L, I, V>(l, panel, x, start, out, width, v);
        v += V;
    }
    while v < width {
        product_tile::<L, I, 1>(l, panel, x, start, out, width, v);
        v += 1;
    }
}

#[inline(always)]
fn product_tile<L: Lanes, const I: usize, const V: usize>(
    l: L,
    panel: &[[f64; I]],
    x: &[Quad],
    start: Start<'_>,
    out: &mut [Quad],
    width: usize,
    v: usize,
) {
    let mut sums = [[l.splat(0.0); V]; I];
    for i in 0..I {
        for k in 0..V {
            sums[i][k] = match start {
                Start::Constant(x) => l.splat(x),
                Start::Values(x) => l.load(&x[i * width + v + k]),
            };
        }
    }
    for (m, row) in panel.iter().zip(x.chunks_exact(width)) {
        let row = &row[v..v + V];
        for i in 0..I {
            let factor = l.splat(m[i]);
            for k in 0..V {
                sums[i][k] = l.fma(factor, l.load(&row[k]), sums[i][k]);
            }
        }
    }
    for i in 0..I {
        let row = &mut out[i * width + v..][..V];
        for k in 0..V {
            l.store(&mut row[k], sums[i][k]);
        }
    }
}

/// `sums += a b^T`, lanes apart: `a` rows x w, `b` cols x w, `sums` rows x cols by rows.
#[inline(always)]
pub(crate) fn outer<L: Lanes>(
    l: L,
    a: (&[Quad], usize),
    b: (&[Quad], usize),
    sums: &mut [Quad],
    width: usize,
) {
    l.call(Outer { a, b, sums, width });
}

struct Outer<'a> {
    a: (&'a [Quad], usize),
    b: (&'a [Quad], usize),
    sums: &'a mut [Quad],
    width: usize,
}

impl Kernel for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { a: (a, rows), b: (b, cols), sums, width } = self;
        // Tall tiles, or wide ones where there are few rows.
        let (tall, wide) = if rows > 2 { (TILE, 2) } else { (2, TILE) };
        for i in (0..rows).step_by(tall) {
            for j in (0..cols).step_by(wide) {
                let a = &a[i * width..];
                let b = &b[j * width..];
                let sums = &mut sums[i * cols + j..];
                match (tall.min(rows - i), wide.min(cols - j)) {
                    (1, 1) => outer_tile::<L, 1, 1>(l, a, b, sums, cols, width),
                    (2, 1) => outer_tile::<L, 2, 1>(l, a, b, sums, cols, width),
                    (3, 1) => outer_tile::<L, 3, 1>(l, a, b, sums, cols, width),
                    (4, 1) => outer_tile::<L, 4, 1>(l, a, b, sums, cols, width),
                    (5, 1) => outer_tile::<L, 5, 1>(l, a, b, sums, cols, width),
                    (1, 2) => outer_tile::<L, 1, 2>(l, a, b, sums, cols, width),
                    (2, 2) => outer_tile::<L, 2, 2>(l, a, b, sums, cols, width),
                    (3, 2) => outer_tile::<L, 3, 2>(l, a, b, sums, cols, width),
                    (4, 2) => outer_tile::<L, 4, 2>(l, a, b, sums, cols, width),
                    (5, 2) => outer_tile::<L, 5, 2>(l, a, b, sums, cols, width),
                    (1, 3) => outer_tile::<L, 1, 3>(l, a, b, sums, cols, width),
                    (2, 3) => outer_tile::<L, 2, 3>(l, a, b, sums, cols, width),
                    (1, 4) => outer_tile::<L, 1, 4>(l, a, b, sums, cols, width),
                    (2, 4) => outer_tile::<L, 2, 4>(l, a, b, sums, cols, width),
                    (1, _) => outer_tile::<L, 1, TILE>(l, a, b, sums, cols, width),
                    (_, _) => outer_tile::<L, 2, TILE>(l, a, b, sums, cols, width),
                }
            }
        }
    }
}

#[inline(always)]
fn outer_tile<L: Lanes, const I: usize, const J: usize>(
    l: L,
    a: &[Quad],
    b: &[Quad],
    sums: &mut [Quad],
    cols: usize,
    width: usize,
) {
    let (mut rows, mut columns) = ([&a[..width]; I], [&b[..width]; J]);
    for i in 0..I {
        rows[i] = &a[i * width..][..width];
    }
    for j in 0..J {
        columns[j] = &b[j * width..][..width];
    }
    let mut tile = [[l.splat(0.0); J]; I];
    for i in 0..I {
        for j in 0..J {
            tile[i][j] = l.load(&sums[i * cols + j]);
        }
    }
    for v in 0..width {
        let mut column = [l.splat(0.0); J];
        for j in 0..J {
            column[j] = l.load(&columns[j][v]);
        }
        for i in 0..I {
            let row = l.load(&rows[i][v]);
            for j in 0..J {
                tile[i][j] = l.fma(row, column[j], tile[i][j]);
            }
        }
    }
    for i in 0..I {
        for j in 0..J {
            l.store(&mut sums[i * cols + j], tile[i][j]);
        }
    }
}

/// Replaces pre-activations by the hidden units' values.
#[inline(always)]
pub(crate) fn activate<L: Lanes>(l: L, values: &mut [Quad]) {
    for quad in values {
        let value = sigmoid_lanes(l, l.load(quad));
        l.store(quad, value);
    }
}

/// With residuals `e` (w) and hidden units `s` (h x w): `s_i <- e s_i (1 - s_i)` and, where `sums` (h)
/// are wanted, `sums_i += e s_i`.
#[inline(always)]
pub(crate) fn back_propagate<L: Lanes>(
    l: L,
    e: &[Quad],
    s: &mut [Quad],
    sums: Option<&mut [Quad]>,
) {
    let width = e.len();
    let Some(sums) = sums else {
        for row in s.chunks_exact_mut(width) {
            for (place, e) in row.iter_mut().zip(e) {
                let value = l.load(place);
                l.store(place, l.mul(l.load(e), l.negated_fma(value, value, value)));
            }
        }
        return;
    };
    // Four rows at a time: four sums to hide the latency of one.
    for (s, sums) in s.chunks_mut(4 * width).zip(sums.chunks_mut(4)) {
        match sums.len() {
            1 => back_propagate_rows::<L, 1>(l, e, s, sums),
            2 => back_propagate_rows::<L, 2>(l, e, s, sums),
            3 => back_propagate_rows::<L, 3>(l, e, s, sums),
            _ => back_propagate_rows::<L, 4>(l, e, s, sums),
        }
    }
}

#[inline(always)]
fn back_propagate_rows<L: Lanes, const I: usize>(
    l: L,
    e: &[Quad],
    s: &mut [Quad],
    sums: &mut [Quad],
) {
    let mut tile = [l.splat(0.0); I];
    for i in 0..I {
        tile[i] = l.load(&sums[i]);
    }
    for (v, e_v) in e.iter().enumerate() {
        let e_v = l.load(e_v);
        for i in 0..I {
            let place = &mut s[i * e.len() + v];
            let value = l.load(place);
            tile[i] = l.fma(e_v, value, tile[i]);
            l.store(place, l.mul(e_v, l.negated_fma(value, value, value)));
        }
    }
    for i in 0..I {
        l.store(&mut sums[i], tile[i]);
    }
}

/// `p <- p - y`.
#[inline(always)]
pub(crate) fn subtract_labels<L: Lanes>(l: L, p: &mut [Quad], labels: &[Quad]) {
    for (p, y) in p.iter_mut().zip(labels) {
        let residual = l.sub(l.load(p), l.load(y));
        l.store(p, residual);
    }
}

/// `(sum e^2, sum e)` of one block's residuals, added to the running lanes.
#[inline(always)]
pub(crate) fn add_residuals<L: Lanes>(l: L, e: &[Quad], squares: L::V, sum: L::V) -> (L::V, L::V) {
    let (mut squares, mut sum) = (squares, sum);
    for e in e {
        let e = l.load(e);
        squares = l.fma(e, e, squares);
        sum = l.add(sum, e);
    }
    (squares, sum)
}

/// Sums over a task's samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResidualSums {
    /// `sum e^2`.
    pub(crate) squares: f64,
    /// `sum e`.
    pub(crate) plain: f64,
}

/// Outputs of a network on samples, and their derivatives by the first layer; see [`Pass`].
pub(crate) struct Pass<'a> {
    pub(crate) samples: &'a Samples,
    /// The first layer, h x columns.
    pub(crate) first: Panels<'a>,
    /// The second layer, 1 x h.
    pub(crate) second: Panels<'a>,
    pub(crate) output_bias: f64,
    /// h x block width: scratch.
    pub(crate) hidden: &'a mut [Quad],
    /// Block width: scratch.
    pub(crate) residuals: &'a mut [Quad],
    /// `None`: values only.
    pub(crate) sums: Option<GradientSums<'a>>,
}

/// Lane sums of one task's gradient, without the factors `2 c_i / N` and `2 / N`.
pub(crate) struct GradientSums<'a> {
    /// `sum_s e s_i (1 - s_i) x_j`, h x columns by rows.
    pub(crate) first: &'a mut [Quad],
    /// `sum_s e s_i`, h.
    pub(crate) second: &'a mut [Quad],
}

impl Kernel for Pass<'_> {
    type Output = ResidualSums;

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) -> ResidualSums {
        let (mut squares, mut plain) = (l.splat(0.0), l.splat(0.0));
        for block in self.samples.blocks() {
            let width = block.width;
            let hidden = &mut self.hidden[..self.first.rows * width];
            let residuals = &mut self.residuals[..width];
            product(l, self.first, block.inputs, Start::Constant(0.0), hidden, width);
            activate(l, hidden);
            let start = Start::Constant(self.output_bias);
            product(l, self.second, hidden, start, residuals, width);
            subtract_labels(l, residuals, block.labels);
            self.samples.mask(&block, residuals);
            (squares, plain) = add_residuals(l, residuals, squares, plain);
            if let Some(sums) = &mut self.sums {
                back_propagate(l, residuals, hidden, Some(&mut *sums.second));
                let inputs = (block.inputs, self.first.cols);
                outer(l, (hidden, self.first.rows), inputs, sums.first, width);
            }
        }
        ResidualSums { squares: l.sum(squares), plain: l.sum(plain) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Portable, dispatch};
    use super::super::{Samples, Sizes};
    use super::*;
    use faer::Col;
    use peftml_linalg::Seed;

    /// Everything that a pass computes, with the given runner.
    fn everything(
        samples: &Samples,
        weights: &[f64],
        run: impl FnOnce(Pass<'_>) -> ResidualSums,
    ) -> Vec<u64> {
        let Sizes { hidden: h, .. } = samples.sizes();
        let columns = samples.sizes().columns();
        let width = samples.block_width();
        let (first, second) = weights.split_at(h * columns);
        let mut sums = vec![[0.0; 4]; h * (columns + 1)];
        let mut scratch = vec![[f64::NAN; 4]; (h + 1) * width];
        let (hidden, residuals) = scratch.split_at_mut(h * width);
        let (first_sums, second_sums) = sums.split_at_mut(h * columns);
        let out = run(Pass {
            samples,
            first: Panels { values: first, rows: h, cols: columns },
            second: Panels { values: &second[..h], rows: 1, cols: h },
            output_bias: 0.25,
            hidden,
            residuals,
            sums: Some(GradientSums { first: first_sums, second: second_sums }),
        });
        let lanes = sums.iter().flatten().map(|x| x.to_bits());
        [out.squares.to_bits(), out.plain.to_bits()].into_iter().chain(lanes).collect()
    }

    #[test]
    fn plain_rust_and_vector_instructions_give_the_same_bits() {
        let mut stream = Seed::root(6).child("lanes").stream();
        for (inputs, hidden, count) in [(10, 10, 1000), (7, 13, 55), (1, 3, 2), (20, 20, 301)] {
            let sizes = Sizes { inputs, hidden, biases: false };
            let x = stream.normal_matrix(inputs, count, 1.0);
            let y = Col::from_fn(count, |_| stream.normal());
            let samples = Samples::new(sizes, x.as_ref(), y.as_ref()).unwrap();
            let mut weights = vec![0.0; hidden * (inputs + 1)];
            stream.fill_normal(1.0, &mut weights);
            let fast = everything(&samples, &weights, |pass| dispatch(pass));
            let plain = everything(&samples, &weights, |pass| pass.run(Portable));
            assert_eq!(fast, plain);
        }
    }
}
