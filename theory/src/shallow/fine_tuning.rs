//! The fine-tuning objective: a fresh adapter on a frozen network.
//!
//! `F(U, V) = 1/n sum_s (c^T sigmoid((W + U V^T) x_s + b) + b_out - y_s)^2`, or `U U^T`; blocks `U0`
//! (h x r), `V0` (d x r). `W x_s + b` is computed once, in the constructor; with `q_s = V^T x_s` and
//! `delta_s = 2/n e_s (c o s (1 - s))`:
//!
//! * `z = (W x + b) + U q`
//! * `dF/dU = sum_s delta_s q_s^T`, `dF/dV = sum_s x_s (U^T delta_s)^T`; symmetric: their sum
//!
//! so that a gradient costs `2 r (2 d + 3 h)` flops and h logistic functions a sample.
//! Source: Block et al. 2025 (arXiv:2410.22264), experiments.

use super::gauss_newton::{self, Derivative, Trained};
use super::kernel::{
    Panels, ResidualSums, Start, activate, add_residuals, back_propagate, outer, pack, product,
    subtract_labels,
};
use super::lanes::{Kernel, Lanes, Quad, dispatch};
use super::network::{check_sizes, output_bias, pack_first};
use super::retraining::{Adapters, add_factor_gradients, add_lanes, reduce};
use super::samples::{Quads, Samples, aligned, scratch_len};
use super::second_order::{Curvature, SecondOrder, SecondOrderSums};
use super::{Network, ShallowError, Sizes};
use crate::linear::Kind;
use crate::objective::{Gauge, Objective};
use faer::MatMut;
use peftml_linalg::{Blocks, Layout};

/// The objective; see the module's header.
#[derive(Debug)]
pub struct FineTuningObjective<'a> {
    sizes: Sizes,
    adapters: Adapters,
    samples: &'a Samples,
    layout: Layout,
    /// `W x + b`: in every block h x width.
    frozen: Quads,
    /// The frozen network.
    network: &'a Network,
}

impl<'a> FineTuningObjective<'a> {
    /// The objective of an adapter on `network` with `samples`.
    ///
    /// # Errors
    /// [`ShallowError`]: samples of other sizes, adapters that are not defined.
    pub fn new(
        network: &'a Network,
        adapters: Adapters,
        samples: &'a Samples,
    ) -> Result<Self, ShallowError> {
        let sizes = network.sizes();
        check_sizes(0, samples, sizes)?;
        let layout = adapters.layout(sizes, 1)?;
        let (h, columns) = (sizes.hidden, sizes.columns());
        let mut panels = vec![0.0; h * columns];
        pack_first(sizes, network.weights(), &mut panels);
        let mut frozen = Quads::zeros(h * samples.quads());
        let first = Panels { values: &panels, rows: h, cols: columns };
        dispatch(Frozen { samples, first, out: frozen.as_mut_slice() });
        Ok(Self { sizes, adapters, samples, layout, frozen, network })
    }

    /// The fine-tuned network at `x`.
    ///
    /// # Errors
    /// [`ShallowError::Shape`] for a point of another layout.
    pub fn network_at(&self, x: &Blocks) -> Result<Network, ShallowError> {
        let right = match self.adapters.kind {
            Kind::Symmetric => 0,
            Kind::Asymmetric => 1,
        };
        self.network.adapted(x.block(0), x.block(right))
    }

    /// Where U and V begin and end in the point's scalars.
    fn factors(&self) -> [std::ops::Range<usize>; 2] {
        let (h, d, r) = (self.sizes.hidden, self.sizes.inputs, self.adapters.rank);
        match self.adapters.kind {
            Kind::Symmetric => [0..h * r, 0..h * r],
            Kind::Asymmetric => [0..h * r, h * r..(h + d) * r],
        }
    }

    fn second_layer(&self) -> &[f64] {
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        &self.network.weights().as_slice()[h * d..][..h]
    }

    /// Packs `[W + U V^T, b]`.
    fn pack_tuned(&self, point: &[f64], panels: &mut [f64]) {
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        let [left, right] = self.factors().map(|range| &point[range]);
        let weights = self.network.weights().as_slice();
        pack(h, self.sizes.columns(), panels, |i, j| {
            if j == d {
                return weights[h * d + h + i];
            }
            (0..self.adapters.rank)
                .fold(weights[j * h + i], |sum, r| sum + left[r * h + i] * right[r * d + j])
        });
    }

    /// Lengths of the scratch: doubles, then quads. Shared by first and second order.
    fn lengths(&self) -> (usize, usize) {
        let (h, d, r) = (self.sizes.hidden, self.sizes.inputs, self.adapters.rank);
        let (columns, width) = (self.sizes.columns(), self.samples.block_width());
        let first_order = (r * (2 * h + d), (h + 1 + 2 * r) * width + r * (h + d));
        let second_order = (4 * h * columns + h, (4 * h + 2) * width + 2 * h * (columns + 1));
        (first_order.0.max(second_order.0), first_order.1.max(second_order.1))
    }

    fn pass(&self, x: &Blocks, work: &mut [f64], gradient: Option<&mut Blocks>) -> f64 {
        let (h, d, r) = (self.sizes.hidden, self.sizes.inputs, self.adapters.rank);
        let [left, right] = self.factors();
        let (u, v) = (&x.as_slice()[left.clone()], &x.as_slice()[right.clone()]);
        let c = self.second_layer();
        let (down, rest) = work.split_at_mut(r * d);
        let (up, rest) = rest.split_at_mut(h * r);
        let (back, rest) = rest.split_at_mut(r * h);
        pack(r, d, down, |r, j| v[r * d + j]);
        pack(h, r, up, |i, r| u[r * h + i]);
        pack(r, h, back, |r, i| u[r * h + i] * c[i]);
        let width = self.samples.block_width();
        let (hidden, rest) = aligned(rest).split_at_mut(h * width);
        let (residuals, rest) = rest.split_at_mut(width);
        let (reduced, rest) = rest.split_at_mut(r * width);
        let (returned, rest) = rest.split_at_mut(r * width);
        let (left_sums, rest) = rest.split_at_mut(h * r);
        let right_sums = &mut rest[..r * d];
        left_sums.fill([0.0; 4]);
        right_sums.fill([0.0; 4]);
        let sums = dispatch(Pass {
            samples: self.samples,
            frozen: self.frozen.as_slice(),
            down: Panels { values: down, rows: r, cols: d },
            up: Panels { values: up, rows: h, cols: r },
            back: Panels { values: back, rows: r, cols: h },
            second: Panels { values: c, rows: 1, cols: h },
            output_bias: output_bias(self.sizes, self.network.weights()),
            hidden,
            residuals,
            reduced,
            returned,
            sums: gradient.is_some().then_some((&mut *left_sums, &mut *right_sums)),
        });
        let count = self.samples.count() as f64;
        if let Some(out) = gradient {
            let scale = 2.0 / count;
            let out = out.as_mut_slice();
            out.fill(0.0);
            for (i, row) in left_sums.chunks_exact(r).enumerate() {
                for (r, sum) in row.iter().enumerate() {
                    out[left.start + r * h + i] += scale * c[i] * add_lanes(sum);
                }
            }
            for (to, sum) in out[right].iter_mut().zip(right_sums) {
                *to += scale * add_lanes(sum);
            }
        }
        sums.squares / count
    }

    fn curvature_product(
        &self,
        curvature: Curvature,
        (x, v): (&Blocks, &Blocks),
        out: &mut Blocks,
        work: &mut [f64],
    ) {
        let (h, d, r) = (self.sizes.hidden, self.sizes.inputs, self.adapters.rank);
        let columns = self.sizes.columns();
        let matrix = h * columns;
        let [left, right] = self.factors();
        let (point, step) = (x.as_slice(), v.as_slice());
        let factor = |from: &[f64], i: usize, j: usize, r: usize| {
            (from[left.start + r * h + i], from[right.start + r * d + j])
        };
        let (first, rest) = work.split_at_mut(matrix);
        let (direction, rest) = rest.split_at_mut(matrix);
        let (g, rest) = rest.split_at_mut(matrix);
        let (g_change, rest) = rest.split_at_mut(matrix);
        let (zeros, rest) = rest.split_at_mut(h);
        zeros.fill(0.0);
        self.pack_tuned(point, first);
        pack(h, columns, direction, |i, j| {
            if j == d {
                return 0.0;
            }
            (0..r).fold(0.0, |sum, r| {
                let ((u, v), (du, dv)) = (factor(point, i, j, r), factor(step, i, j, r));
                sum + du * v + u * dv
            })
        });
        let (scratch, rest) = aligned(rest).split_at_mut((4 * h + 2) * self.samples.block_width());
        rest[..2 * h * (columns + 1)].fill([0.0; 4]);
        dispatch(SecondOrder {
            samples: self.samples,
            curvature,
            first: Panels { values: first, rows: h, cols: columns },
            direction: Panels { values: direction, rows: h, cols: columns },
            second: (self.second_layer(), zeros),
            output_bias: (output_bias(self.sizes, self.network.weights()), 0.0),
            scratch,
            sums: SecondOrderSums::new(rest, h, columns),
        });
        let scale = 2.0 / self.samples.count() as f64;
        let sums = SecondOrderSums::new(rest, h, columns);
        reduce(h, columns, sums.gradient, g, |_| scale);
        reduce(h, columns, sums.gradient_change, g_change, |_| scale);
        out.fill(0.0);
        let out = out.as_mut_slice();
        let ranges = || (left.clone(), right.clone());
        add_factor_gradients(h, d, &g_change[..h * d], (point, out), ranges());
        if curvature == Curvature::Full {
            add_factor_gradients(h, d, &g[..h * d], (step, out), ranges());
        }
    }
}

impl Objective for FineTuningObjective<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn work_len(&self) -> usize {
        let (doubles, quads) = self.lengths();
        doubles + scratch_len(quads)
    }

    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.pass(x, work, None)
    }

    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        self.pass(x, work, Some(out))
    }

    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.curvature_product(Curvature::Full, (x, v), out, work);
    }

    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.curvature_product(Curvature::GaussNewton, (x, v), out, work);
    }

    fn gauss_newton_matrix(&self, x: &Blocks, mut out: MatMut<'_, f64>, work: &mut [f64]) {
        let first = &mut work[..self.sizes.hidden * self.sizes.columns()];
        self.pack_tuned(x.as_slice(), first);
        let c = self.second_layer();
        let effective = gauss_newton::effective(self.samples, first, c, Trained::First);
        let mut derivative = Derivative::empty(self.sizes, Trained::First);
        let [left, right] = self.factors();
        derivative.add_factors(self.sizes, x.as_slice(), (left, right));
        out.fill(0.0);
        derivative.add_to(&effective, out);
    }

    fn gauge(&self) -> Gauge {
        self.adapters.gauge()
    }
}

/// `W x + b` of every sample.
struct Frozen<'a> {
    samples: &'a Samples,
    first: Panels<'a>,
    out: &'a mut [Quad],
}

impl Kernel for Frozen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for block in self.samples.blocks() {
            let out = &mut self.out[self.first.rows * block.start..];
            product(l, self.first, block.inputs, Start::Constant(0.0), out, block.width);
        }
    }
}

/// A pass over the samples: loss, and lane sums of the gradient.
struct Pass<'a> {
    samples: &'a Samples,
    frozen: &'a [Quad],
    /// V^T, r x d.
    down: Panels<'a>,
    /// U, h x r.
    up: Panels<'a>,
    /// (c o U)^T, r x h.
    back: Panels<'a>,
    /// c^T, 1 x h.
    second: Panels<'a>,
    output_bias: f64,
    hidden: &'a mut [Quad],
    residuals: &'a mut [Quad],
    reduced: &'a mut [Quad],
    returned: &'a mut [Quad],
    /// Of U (h x r, by rows; without c) and of V^T (r x d, by rows).
    sums: Option<(&'a mut [Quad], &'a mut [Quad])>,
}

impl Kernel for Pass<'_> {
    type Output = ResidualSums;

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) -> ResidualSums {
        let (h, d, r) = (self.up.rows, self.down.cols, self.up.cols);
        let (mut squares, mut plain) = (l.splat(0.0), l.splat(0.0));
        for block in self.samples.blocks() {
            let width = block.width;
            let hidden = &mut self.hidden[..h * width];
            let residuals = &mut self.residuals[..width];
            let reduced = &mut self.reduced[..r * width];
            product(l, self.down, block.inputs, Start::Constant(0.0), reduced, width);
            let frozen = Start::Values(&self.frozen[h * block.start..][..h * width]);
            product(l, self.up, reduced, frozen, hidden, width);
            activate(l, hidden);
            let start = Start::Constant(self.output_bias);
            product(l, self.second, hidden, start, residuals, width);
            subtract_labels(l, residuals, block.labels);
            self.samples.mask(&block, residuals);
            (squares, plain) = add_residuals(l, residuals, squares, plain);
            if let Some((left, right)) = &mut self.sums {
                back_propagate(l, residuals, hidden, None);
                outer(l, (hidden, h), (reduced, r), left, width);
                let returned = &mut self.returned[..r * width];
                product(l, self.back, hidden, Start::Constant(0.0), returned, width);
                outer(l, (returned, r), (block.inputs, d), right, width);
            }
        }
        ResidualSums { squares: l.sum(squares), plain: l.sum(plain) }
    }
}
