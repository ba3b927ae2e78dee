//! The token half of a mixer block as one operation: `x + dropout(W2^T dropout(gelu(W1^T norm(x) + b1)) + b2)`
//! for every sample x, tokens x width. No transpose: both products act on the sample as it lies in memory.
//!
//! Hidden activations are 4 times as large as everything else, so the backward pass makes them again from x,
//! which costs one product of seven. Operands: x, gamma, beta, then W, b, A, B of the way up and of the
//! way down.

use super::activation::{Shift, activate, activate_back, add_row, dropped, finish_row, row_sum};
use super::block::{Half, Weights};
use super::bridge::{Fused, Made};
use super::normalise::{moments_of, norm_row, norm_row_again};
use super::number::Number;
use super::parts::{by_rows, matrix, product, ranges};
use crate::ops::dropout::Lane;

/// The token half; its weights go from tokens to hidden and back.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Tokens(pub(in crate::ops) Half);

impl Tokens {
    fn steps(&self) -> usize {
        self.0.batch * self.0.width * self.0.up.inputs * self.0.up.outputs
    }

    fn up_lane<T: Number>(&self, sample: usize, row: usize) -> Option<Lane<T>> {
        self.0.up_mask.map(|mask| mask.lane((sample * self.0.up.outputs + row) * self.0.width))
    }

    fn down_lane<T: Number>(&self, sample: usize, row: usize) -> Option<Lane<T>> {
        self.0.down_mask.map(|mask| mask.lane((sample * self.0.up.inputs + row) * self.0.width))
    }
}

impl Fused<11> for Tokens {
    fn shape(&self) -> Vec<usize> {
        vec![self.0.batch, self.0.up.inputs, self.0.width]
    }

    fn forward<T: Number>(&self, operands: [&[T]; 11], _: bool) -> Made<T> {
        let w = Weights::new(&self.0, operands, [false; 11]);
        let [x, gamma, beta, _, b1, _, _, _, b2, ..] = operands;
        let (width, tokens, hidden) = (self.0.width, self.0.up.inputs, self.0.up.outputs);
        let (sample_len, epsilon) = (tokens * width, T::of(self.0.epsilon));
        let (up, down) = (w.up.sum(), w.down.sum());
        let (up, down) = (matrix(&up, tokens, hidden), matrix(&down, hidden, tokens));
        let mut out = vec![T::ZERO; x.len()];
        let ranges = ranges(self.0.batch);
        let parts = by_rows(&mut out, sample_len, &ranges, self.steps(), |range, own| {
            let mut kept = Vec::with_capacity(2 * tokens * range.len());
            let mut normed = vec![T::ZERO; sample_len];
            let (mut z, mut act) = (vec![T::ZERO; hidden * width], vec![T::ZERO; hidden * width]);
            for (sample, out) in range.zip(own.chunks_mut(sample_len)) {
                let x = &x[sample * sample_len..][..sample_len];
                for (x, n) in x.chunks(width).zip(normed.chunks_mut(width)) {
                    let m = norm_row(x, gamma, beta, epsilon, n);
                    kept.extend([m.mean, m.inverse]);
                }
                product(&mut z, up.transpose(), matrix(&normed, tokens, width));
                let rows = z.chunks(width).zip(act.chunks_mut(width)).enumerate();
                for (row, (z, act)) in rows {
                    activate(z, Shift::Same(b1[row]), self.up_lane(sample, row), act);
                }
                product(out, down.transpose(), matrix(&act, hidden, width));
                for (row, (x, y)) in x.chunks(width).zip(out.chunks_mut(width)).enumerate() {
                    let lane = self.down_lane(sample, row);
                    finish_row(self.0.residual.then_some(x), Shift::Same(b2[row]), lane, y);
                }
            }
            kept
        });
        Made { output: out, kept: vec![parts.concat()] }
    }

    fn backward<T: Number>(
        &self,
        operands: [&[T]; 11],
        kept: &[&[T]],
        gradient: &[T],
        wanted: [bool; 11],
    ) -> [Option<Vec<T>>; 11] {
        let w = Weights::new(&self.0, operands, wanted);
        let [x, gamma, beta, _, b1, ..] = operands;
        let (width, tokens, hidden) = (self.0.width, self.0.up.inputs, self.0.up.outputs);
        let sample_len = tokens * width;
        let (up, down) = (w.up.sum(), w.down.sum());
        let (up, down) = (matrix(&up, tokens, hidden), matrix(&down, hidden, tokens));
        let mut in_x = vec![T::ZERO; x.len()];
        let ranges = ranges(self.0.batch);
        let parts = by_rows(&mut in_x, sample_len, &ranges, self.steps(), |range, own| {
            let mut sums = w.sums(width);
            let (mut normed, mut dy) = (vec![T::ZERO; sample_len], vec![T::ZERO; sample_len]);
            let (mut z, mut dz) = (vec![T::ZERO; hidden * width], vec![T::ZERO; hidden * width]);
            for (sample, d) in range.zip(own.chunks_mut(sample_len)) {
                let x = &x[sample * sample_len..][..sample_len];
                let g = &gradient[sample * sample_len..][..sample_len];
                for (row, (x, n)) in x.chunks(width).zip(normed.chunks_mut(width)).enumerate() {
                    let m = moments_of(kept[0], sample * tokens + row);
                    norm_row_again(x, gamma, beta, m, n);
                }
                for (row, (g, dy)) in g.chunks(width).zip(dy.chunks_mut(width)).enumerate() {
                    match self.down_lane(sample, row) {
                        Some(lane) => dropped(g, lane, dy),
                        None => dy.copy_from_slice(g),
                    }
                    if wanted[8] {
                        sums.down_bias[row] += row_sum(dy);
                    }
                }
                let normed_now = matrix(&normed, tokens, width);
                product(&mut z, up.transpose(), normed_now);
                product(&mut dz, down, matrix(&dy, tokens, width));
                for (row, (z, d)) in z.chunks_mut(width).zip(dz.chunks_mut(width)).enumerate() {
                    activate_back(z, Shift::Same(b1[row]), self.up_lane(sample, row), d);
                    if wanted[4] {
                        sums.up_bias[row] += row_sum(d);
                    }
                }
                let (act, dz) = (matrix(&z, hidden, width), matrix(&dz, hidden, width));
                sums.down.add(&w.down, act, matrix(&dy, tokens, width));
                sums.up.add(&w.up, normed_now, dz);
                product(d, up, dz);
                for (row, (x, d)) in x.chunks(width).zip(d.chunks_mut(width)).enumerate() {
                    let m = moments_of(kept[0], sample * tokens + row);
                    sums.norm.back_row(x, gamma, m, d);
                }
                if self.0.residual {
                    add_row(d, g);
                }
            }
            sums
        });
        w.gradients(parts, in_x)
    }
}
