//! Second derivatives of the network's mean squared error on one task.
//!
//! In a direction that moves pre-activations by `z'`, the second layer by `c'` and the output bias by
//! `b'`, with `s = sigmoid(z)`, `s_1 = s (1 - s)`, `e` the residuals:
//!
//! * `p' = c'^T s + c^T (s_1 z') + b'`
//! * `G = sum e (c o s_1) x^T`
//! * `G' = sum [s_1 (p' c + e c') + e c o s_1 (1 - 2 s) z'] x^T`, `gc' = sum p' s + e s_1 z'`
//! * Gauss-Newton: the same without the terms in `e`
//!
//! (all without the factor 2/N.) The objectives combine them with the factors. Once an iteration of
//! a second-order method, so written for shortness.

use super::kernel::{Panels, Start, outer, product};
use super::lanes::{Kernel, Lanes, Quad};
use super::samples::Samples;
use super::sigmoid::sigmoid_lanes;

/// Which second derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curvature {
    /// The Hessian.
    Full,
    /// Without the terms that vanish with the residuals.
    GaussNewton,
}

/// Lane sums, by rows.
pub(crate) struct SecondOrderSums<'a> {
    /// `G`, h x columns.
    pub(crate) gradient: &'a mut [Quad],
    /// `G'`, h x columns.
    pub(crate) gradient_change: &'a mut [Quad],
    /// `gc'`, h.
    pub(crate) second_change: &'a mut [Quad],
}

impl<'a> SecondOrderSums<'a> {
    /// Places in `sums`, of length at least h (2 columns + 1).
    pub(crate) fn new(sums: &'a mut [Quad], h: usize, columns: usize) -> Self {
        let (gradient, rest) = sums.split_at_mut(h * columns);
        let (gradient_change, rest) = rest.split_at_mut(h * columns);
        Self { gradient, gradient_change, second_change: &mut rest[..h] }
    }
}

/// The pass over a task's samples; returns `sum p'`.
pub(crate) struct SecondOrder<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) curvature: Curvature,
    /// The first layer and its direction, h x columns.
    pub(crate) first: Panels<'a>,
    pub(crate) direction: Panels<'a>,
    /// c and c'.
    pub(crate) second: (&'a [f64], &'a [f64]),
    /// b_out and its direction.
    pub(crate) output_bias: (f64, f64),
    /// At least (4 h + 2) block width.
    pub(crate) scratch: &'a mut [Quad],
    /// Zero on entry.
    pub(crate) sums: SecondOrderSums<'a>,
}

impl Kernel for SecondOrder<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> f64 {
        let h = self.first.rows;
        let (c, d_c) = self.second;
        let full = if self.curvature == Curvature::Full { 1.0 } else { 0.0 };
        let mut sum = l.splat(0.0);
        for block in self.samples.blocks() {
            let width = block.width;
            let (s, rest) = self.scratch.split_at_mut(h * width);
            let (moved, rest) = rest.split_at_mut(h * width);
            let (delta, rest) = rest.split_at_mut(h * width);
            let (d_delta, rest) = rest.split_at_mut(h * width);
            let (e, rest) = rest.split_at_mut(width);
            let d_p = &mut rest[..width];
            product(l, self.first, block.inputs, Start::Constant(0.0), s, width);
            product(l, self.direction, block.inputs, Start::Constant(0.0), moved, width);
            e.fill([self.output_bias.0; 4]);
            d_p.fill([self.output_bias.1; 4]);
            for i in 0..h {
                for v in 0..width {
                    let place = i * width + v;
                    let value = sigmoid_lanes(l, l.load(&s[place]));
                    l.store(&mut s[place], value);
                    // From here on `moved` is s_1 z'.
                    let slope = l.negated_fma(value, value, value);
                    let change = l.mul(slope, l.load(&moved[place]));
                    l.store(&mut moved[place], change);
                    let output = l.fma(l.splat(c[i]), value, l.load(&e[v]));
                    l.store(&mut e[v], output);
                    let d_output = l.fma(l.splat(d_c[i]), value, l.load(&d_p[v]));
                    let d_output = l.fma(l.splat(c[i]), change, d_output);
                    l.store(&mut d_p[v], d_output);
                }
            }
            for (e, label) in e[..width].iter_mut().zip(&block.labels[..width]) {
                let residual = l.sub(l.load(e), l.load(label));
                l.store(e, residual);
            }
            self.samples.mask(&block, e);
            self.samples.mask(&block, d_p);
            for change in &d_p[..width] {
                sum = l.add(sum, l.load(change));
            }
            for i in 0..h {
                let mut second = l.load(&self.sums.second_change[i]);
                for v in 0..width {
                    let place = i * width + v;
                    let (value, change) = (l.load(&s[place]), l.load(&moved[place]));
                    let residual = l.mul(l.splat(full), l.load(&e[v]));
                    let d_output = l.load(&d_p[v]);
                    let slope = l.negated_fma(value, value, value);
                    second = l.fma(d_output, value, second);
                    second = l.fma(residual, change, second);
                    let back = l.mul(residual, l.splat(c[i]));
                    l.store(&mut delta[place], l.mul(back, slope));
                    let d_back = l.mul(d_output, l.splat(c[i]));
                    let d_back = l.fma(residual, l.splat(d_c[i]), d_back);
                    let bend = l.negated_fma(l.splat(2.0), value, l.splat(1.0));
                    let bent = l.mul(l.mul(back, bend), change);
                    l.store(&mut d_delta[place], l.fma(d_back, slope, bent));
                }
                l.store(&mut self.sums.second_change[i], second);
            }
            let inputs = (block.inputs, self.first.cols);
            outer(l, (delta, h), inputs, self.sums.gradient, width);
            outer(l, (d_delta, h), inputs, self.sums.gradient_change, width);
        }
        l.sum(sum)
    }
}
