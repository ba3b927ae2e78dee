//! The channel half of a mixer block as one operation: `x + dropout(dropout(gelu(norm(x) W1 + b1)) W2 + b2)` for
//! every row x. Hidden activations before the bias are kept; they are half as large as the rows.

use super::activation::{Shift, activate, activate_back, add_row, dropped, finish_row};
use super::block::{Half, Weights};
use super::bridge::{Fused, Made};
use super::normalise::{moments_of, norm_row, norm_row_again};
use super::number::Number;
use super::parts::{by_rows, matrix, product, ranges};
use crate::ops::dropout::{Dropout, Lane};

/// Rows that go through both products at once: their activations stay in a core's cache.
const ROWS: usize = 256;

/// The channel half; its weights go from width to hidden and back.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Channels(pub(in crate::ops) Half);

fn lane<T: Number>(mask: Option<Dropout>, row: usize, width: usize) -> Option<Lane<T>> {
    mask.map(|mask| mask.lane(row * width))
}

impl Fused<11> for Channels {
    fn shape(&self) -> Vec<usize> {
        vec![self.0.batch, self.0.tokens, self.0.width]
    }

    fn forward<T: Number>(&self, operands: [&[T]; 11], tracked: bool) -> Made<T> {
        let w = Weights::new(&self.0, operands, [false; 11]);
        let [x, gamma, beta, _, b1, _, _, _, b2, ..] = operands;
        let (width, hidden) = (self.0.width, self.0.up.outputs);
        let epsilon = T::of(self.0.epsilon);
        let (up, down) = (w.up.sum(), w.down.sum());
        let (up, down) = (matrix(&up, width, hidden), matrix(&down, hidden, width));
        let mut out = vec![T::ZERO; x.len()];
        let ranges = ranges(self.0.batch * self.0.tokens);
        let parts = by_rows(&mut out, width, &ranges, self.0.steps(), |range, own| {
            let mut moments = Vec::with_capacity(2 * range.len());
            let mut kept = vec![T::ZERO; hidden * if tracked { range.len() } else { ROWS }];
            let (mut normed, mut act) = (vec![T::ZERO; ROWS * width], vec![T::ZERO; ROWS * hidden]);
            for (chunk, out) in own.chunks_mut(ROWS * width).enumerate() {
                let (first, rows) = (range.start + chunk * ROWS, out.len() / width);
                let x = &x[first * width..][..rows * width];
                let normed = &mut normed[..rows * width];
                for (x, n) in x.chunks(width).zip(normed.chunks_mut(width)) {
                    let m = norm_row(x, gamma, beta, epsilon, n);
                    moments.extend([m.mean, m.inverse]);
                }
                let from = if tracked { chunk * ROWS * hidden } else { 0 };
                let z = &mut kept[from..][..rows * hidden];
                product(z, matrix(normed, rows, width), up);
                let act = &mut act[..rows * hidden];
                for (i, (z, a)) in z.chunks(hidden).zip(act.chunks_mut(hidden)).enumerate() {
                    activate(z, Shift::Each(b1), lane(self.0.up_mask, first + i, hidden), a);
                }
                product(out, matrix(act, rows, hidden), down);
                for (i, (x, y)) in x.chunks(width).zip(out.chunks_mut(width)).enumerate() {
                    let lane = lane(self.0.down_mask, first + i, width);
                    finish_row(self.0.residual.then_some(x), Shift::Each(b2), lane, y);
                }
            }
            (moments, kept)
        });
        if !tracked {
            return Made::alone(out);
        }
        // Hidden activations stay in the pieces that they were made in.
        let (moments, hidden): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let kept = std::iter::once(moments.concat()).chain(hidden).collect();
        Made { output: out, kept }
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
        let (width, hidden) = (self.0.width, self.0.up.outputs);
        let (up, down) = (w.up.sum(), w.down.sum());
        let (up, down) = (matrix(&up, width, hidden), matrix(&down, hidden, width));
        let (moments, hiddens) = (kept[0], &kept[1..]);
        let mut in_x = vec![T::ZERO; x.len()];
        let ranges = ranges(self.0.batch * self.0.tokens);
        let parts = by_rows(&mut in_x, width, &ranges, self.0.steps(), |range, own| {
            let part = ranges.iter().position(|r| r.start == range.start).unwrap_or(0);
            let mut sums = w.sums(width);
            let (mut normed, mut dy) = (vec![T::ZERO; ROWS * width], vec![T::ZERO; ROWS * width]);
            let (mut z, mut dz) = (vec![T::ZERO; ROWS * hidden], vec![T::ZERO; ROWS * hidden]);
            for (chunk, d) in own.chunks_mut(ROWS * width).enumerate() {
                let (first, rows) = (range.start + chunk * ROWS, d.len() / width);
                let (x, g) = (&x[first * width..][..rows * width], &gradient[first * width..]);
                let (normed, dy) = (&mut normed[..rows * width], &mut dy[..rows * width]);
                for (i, (x, n)) in x.chunks(width).zip(normed.chunks_mut(width)).enumerate() {
                    norm_row_again(x, gamma, beta, moments_of(moments, first + i), n);
                }
                for (i, (g, dy)) in g.chunks(width).zip(dy.chunks_mut(width)).enumerate() {
                    match lane(self.0.down_mask, first + i, width) {
                        Some(lane) => dropped(g, lane, dy),
                        None => dy.copy_from_slice(g),
                    }
                    if wanted[8] {
                        add_row(&mut sums.down_bias, dy);
                    }
                }
                let (z, dz) = (&mut z[..rows * hidden], &mut dz[..rows * hidden]);
                z.copy_from_slice(&hiddens[part][chunk * ROWS * hidden..][..rows * hidden]);
                product(dz, matrix(dy, rows, width), down.transpose());
                for (i, (z, d)) in z.chunks_mut(hidden).zip(dz.chunks_mut(hidden)).enumerate() {
                    let lane = lane(self.0.up_mask, first + i, hidden);
                    activate_back(z, Shift::Each(b1), lane, d);
                    if wanted[4] {
                        add_row(&mut sums.up_bias, d);
                    }
                }
                let (act, dz) = (matrix(z, rows, hidden), matrix(dz, rows, hidden));
                sums.down.add(&w.down, act.transpose(), matrix(dy, rows, width).transpose());
                sums.up.add(&w.up, matrix(normed, rows, width).transpose(), dz.transpose());
                product(d, dz, up.transpose());
                for (i, (x, d)) in x.chunks(width).zip(d.chunks_mut(width)).enumerate() {
                    sums.norm.back_row(x, gamma, moments_of(moments, first + i), d);
                }
                if self.0.residual {
                    add_row(d, &g[..rows * width]);
                }
            }
            sums
        });
        w.gradients(parts, in_x)
    }
}
