//! The Gauss-Newton matrix of the network's mean squared error, dense.
//!
//! Where a task's effective first layer `[W + R_t, b]` is the variable, the output's derivatives are the
//! features `phi = (c_i s_i (1 - s_i) x_j; s_i; 1)`, and the matrix is `P = 2/N sum_s phi phi^T`. In the
//! parameters it is `M^T P M`, `M` the derivative of the effective weights: `dW + dU V^T + U dV^T`.
//!
//! Cost: m^2 fused multiply-adds a sample, m = h (d + 1): for few parameters far below as many
//! Gauss-Newton products. Once an iteration of a second-order method: allocates its matrices.

use super::Sizes;
use super::kernel::{Panels, Start, activate, outer, product};
use super::lanes::{Kernel, Lanes, Quad, dispatch};
use super::retraining::add_lanes;
use super::samples::{Quads, Samples};
use faer::{Mat, MatMut};
use peftml_linalg::kernel;

/// Which derivatives are features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trained {
    /// Of both layers: `h columns` of the first, by rows, then `c`, then the output bias.
    Both,
    /// Of the first layer alone.
    First,
}

/// Number of features.
fn count(sizes: Sizes, trained: Trained) -> usize {
    let first = sizes.hidden * sizes.columns();
    match trained {
        Trained::Both => first + sizes.hidden + usize::from(sizes.biases),
        Trained::First => first,
    }
}

/// `P` of one task, m x m; `first` is packed.
pub(crate) fn effective(samples: &Samples, first: &[f64], c: &[f64], trained: Trained) -> Mat<f64> {
    let sizes = samples.sizes();
    let (h, columns, m) = (sizes.hidden, sizes.columns(), count(sizes, trained));
    let width = samples.block_width();
    let (mut scratch, mut sums) = (Quads::zeros((m + h) * width), Quads::zeros(m * m));
    dispatch(Features {
        samples,
        first: Panels { values: first, rows: h, cols: columns },
        c,
        count: m,
        scratch: scratch.as_mut_slice(),
        sums: sums.as_mut_slice(),
    });
    let scale = 2.0 / samples.count() as f64;
    let sums = sums.as_slice();
    Mat::from_fn(m, m, |i, j| scale * add_lanes(&sums[i * m + j]))
}

struct Features<'a> {
    samples: &'a Samples,
    first: Panels<'a>,
    c: &'a [f64],
    count: usize,
    /// (count + h) x block width.
    scratch: &'a mut [Quad],
    /// count x count lane sums, by rows.
    sums: &'a mut [Quad],
}

impl Kernel for Features<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (h, columns, m) = (self.first.rows, self.first.cols, self.count);
        for block in self.samples.blocks() {
            let width = block.width;
            let (features, rest) = self.scratch.split_at_mut(m * width);
            let hidden = &mut rest[..h * width];
            product(l, self.first, block.inputs, Start::Constant(0.0), hidden, width);
            activate(l, hidden);
            for (i, row) in hidden.chunks_exact(width).enumerate() {
                for (v, value) in row.iter().enumerate() {
                    let value = l.load(value);
                    let slope = l.mul(l.splat(self.c[i]), l.negated_fma(value, value, value));
                    for j in 0..columns {
                        // Missing samples have inputs 0.
                        let input = l.load(&block.inputs[j * width + v]);
                        l.store(&mut features[(i * columns + j) * width + v], l.mul(slope, input));
                    }
                }
            }
            let second = &mut features[h * columns * width..];
            for (i, row) in second.chunks_exact_mut(width).enumerate() {
                match hidden.chunks_exact(width).nth(i) {
                    Some(hidden) => row.copy_from_slice(hidden),
                    None => row.fill([1.0; 4]),
                }
                self.samples.mask(&block, row);
            }
            outer(l, (features, m), (features, m), self.sums, width);
        }
    }
}

/// `M`, with the parameter that each of its columns stands for.
#[derive(Clone)]
pub(crate) struct Derivative {
    matrix: Mat<f64>,
    parameters: Vec<usize>,
}

impl Derivative {
    /// The network's own weights: entry `i + h j` of `W` is effective weight `i columns + j`, and so on.
    pub(crate) fn of_network(sizes: Sizes) -> Self {
        let (h, d, columns) = (sizes.hidden, sizes.inputs, sizes.columns());
        let mut derivative = Self::empty(sizes, Trained::Both);
        // Places in the point: W column-major, c, then b and b_out.
        for (parameter, feature) in (0..h * d)
            .map(|p| (p, p % h * columns + p / h))
            .chain((0..h).map(|i| (h * d + i, h * columns + i)))
            .chain((0..h * (columns - d)).map(|i| (h * d + h + i, i * columns + d)))
            .chain((0..columns - d).map(|_| (h * (d + 2), h * columns + h)))
        {
            let column = derivative.column(parameter);
            derivative.matrix[(feature, column)] = 1.0;
        }
        derivative
    }

    /// No parameters.
    pub(crate) fn empty(sizes: Sizes, trained: Trained) -> Self {
        Self { matrix: Mat::zeros(count(sizes, trained), 0), parameters: Vec::new() }
    }

    /// The column of a parameter, made where there is none.
    fn column(&mut self, parameter: usize) -> usize {
        self.parameters.iter().position(|known| *known == parameter).unwrap_or_else(|| {
            self.parameters.push(parameter);
            let (rows, columns) = (self.matrix.nrows(), self.parameters.len());
            self.matrix.resize_with(rows, columns, |_, _| 0.0);
            columns - 1
        })
    }

    /// An adapter's factors, at the ranges `left` and `right` of the point, which may be the same.
    pub(crate) fn add_factors(
        &mut self,
        sizes: Sizes,
        point: &[f64],
        (left, right): (std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let (h, d, columns) = (sizes.hidden, sizes.inputs, sizes.columns());
        for r in 0..left.len() / h {
            for i in 0..h {
                for j in 0..d {
                    let (u, v) = (left.start + r * h + i, right.start + r * d + j);
                    let feature = i * columns + j;
                    let column = self.column(u);
                    self.matrix[(feature, column)] += point[v];
                    let column = self.column(v);
                    self.matrix[(feature, column)] += point[u];
                }
            }
        }
    }

    /// `out += M^T P M` at the parameters' places.
    pub(crate) fn add_to(&self, p: &Mat<f64>, mut out: MatMut<'_, f64>) {
        let (rows, columns) = (self.matrix.nrows(), self.parameters.len());
        let mut half = Mat::zeros(rows, columns);
        let mut whole = Mat::zeros(columns, columns);
        kernel::mul(half.as_mut(), p.as_ref(), self.matrix.as_ref(), 1.0);
        kernel::mul(whole.as_mut(), self.matrix.transpose(), half.as_ref(), 1.0);
        for (j, to_j) in self.parameters.iter().enumerate() {
            for (i, to_i) in self.parameters.iter().enumerate() {
                out[(*to_i, *to_j)] += whole[(i, j)];
            }
        }
    }
}
