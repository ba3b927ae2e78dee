//! Attention of all heads as one operation on batch x length x width: heads are ranges of columns, so nothing
//! is turned. Weights of the softmax are made again in the backward pass from each row's largest score and sum.
//!
//! With P the softmax, F the mask's factors, `d` the gradient: `dV = (P F)^T d`, `dP = (d V^T) F`,
//! `dS = P (dP - rowsum(dP P))`, `dQ = s dS K`, `dK = s dS^T Q`. Operands: q, k, v, and the keys' mask.

use super::bridge::{Fused, Made};
use super::number::{Number, sum};
use super::parts::{by_rows, each, product, ranges};
use super::wide::wide;
use crate::ops::dropout::{Dropout, Lane};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Low enough that no key of padding keeps weight, far from the smallest number of any type.
pub(in crate::ops) const HIDDEN: f64 = -1e9;

/// Sizes and mask of an attention.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Attention {
    pub(in crate::ops) batch: usize,
    pub(in crate::ops) heads: usize,
    pub(in crate::ops) queries: usize,
    pub(in crate::ops) keys: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) drop: Option<Dropout>,
}

wide! {
    /// Scores of a row to weights; returns the largest, and the reciprocal of the sum of exponentials.
    fn softmax<T: Number>(scores: &mut [T], hidden: &[T], scale: T) -> [T; 2] {
        let count = scores.len();
        if hidden.is_empty() {
            scores.iter_mut().for_each(|s| *s *= scale);
        } else {
            let hidden = &hidden[..count];
            for (j, s) in scores.iter_mut().enumerate() {
                *s = *s * scale + hidden[j];
            }
        }
        let mut largest = scores[0];
        for s in scores.iter() {
            largest = if *s > largest { *s } else { largest };
        }
        scores.iter_mut().for_each(|s| *s = (*s - largest).exp_negative());
        let total = sum(count, |j| scores[j]);
        let share = T::ONE / total;
        scores.iter_mut().for_each(|s| *s *= share);
        [largest, share]
    }

    /// The same weights from those two numbers.
    fn softmax_again<T: Number>(scores: &mut [T], hidden: &[T], scale: T, known: [T; 2]) {
        let [largest, share] = known;
        if hidden.is_empty() {
            scores.iter_mut().for_each(|s| *s = (*s * scale - largest).exp_negative() * share);
        } else {
            let hidden = &hidden[..scores.len()];
            for (j, s) in scores.iter_mut().enumerate() {
                *s = (*s * scale + hidden[j] - largest).exp_negative() * share;
            }
        }
    }

    /// `out = factor x`.
    fn masked<T: Number>(x: &[T], lane: Option<Lane<T>>, out: &mut [T]) {
        match lane {
            None => out.copy_from_slice(x),
            Some(lane) => {
                for (j, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out = *x * lane.factor(j);
                }
            }
        }
    }

    /// The gradient `d` at the masked weights becomes `scale` times the one at the scores.
    fn softmax_back<T: Number>(weights: &[T], lane: Option<Lane<T>>, scale: T, d: &mut [T]) {
        let weights = &weights[..d.len()];
        if let Some(lane) = lane {
            for (j, d) in d.iter_mut().enumerate() {
                *d *= lane.factor(j);
            }
        }
        let mean = sum(d.len(), |j| d[j] * weights[j]);
        for (j, d) in d.iter_mut().enumerate() {
            *d = (*d - mean) * weights[j] * scale;
        }
    }
}

impl Attention {
    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn scale<T: Number>(&self) -> T {
        T::of(1.0 / (self.head_width() as f64).sqrt())
    }

    fn steps(&self) -> usize {
        self.batch * self.queries * self.keys * self.width
    }

    /// The columns of `head` in the rows of `sample`.
    fn part<'a, T: Number>(
        &self,
        all: &'a [T],
        length: usize,
        sample: usize,
        head: usize,
    ) -> MatRef<'a, T> {
        let own = &all[sample * length * self.width..][..length * self.width];
        let columns = head * self.head_width();
        MatRef::from_row_major_slice(own, length, self.width).subcols(columns, self.head_width())
    }

    fn lane<T: Number>(&self, sample: usize, head: usize, row: usize) -> Option<Lane<T>> {
        let row = (sample * self.heads + head) * self.queries + row;
        self.drop.map(|drop| drop.lane(row * self.keys))
    }

    /// What is added to the scores of `sample`; nothing where no key is hidden.
    fn hidden<T: Number>(&self, mask: &[T], sample: usize) -> Vec<T> {
        if mask.is_empty() {
            return Vec::new();
        }
        let own = &mask[sample * self.keys..][..self.keys];
        if own.iter().all(|m| *m == T::ONE) {
            return Vec::new();
        }
        own.iter().map(|m| (T::ONE - *m) * T::of(HIDDEN)).collect()
    }
}

/// Writes `a b` into the columns of `head` of rows x width.
fn into_head<T: Number>(
    out: &mut [T],
    width: usize,
    head: usize,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
) {
    let columns = b.ncols();
    let out = MatMut::from_row_major_slice_mut(out, a.nrows(), width);
    let out = out.subcols_mut(head * columns, columns);
    matmul(out, Accum::Replace, a, b, T::ONE, Par::Seq);
}

impl Fused<4> for Attention {
    fn shape(&self) -> Vec<usize> {
        vec![self.batch, self.queries, self.width]
    }

    fn forward<T: Number>(&self, [q, k, v, mask]: [&[T]; 4], _: bool) -> Made<T> {
        let (queries, keys, width) = (self.queries, self.keys, self.width);
        let mut out = vec![T::ZERO; q.len()];
        let ranges = ranges(self.batch);
        let parts = by_rows(&mut out, queries * width, &ranges, self.steps(), |range, own| {
            let mut scores = vec![T::ZERO; queries * keys];
            let mut weights = vec![T::ZERO; queries * keys];
            let mut known = Vec::with_capacity(2 * range.len() * self.heads * queries);
            for (sample, out) in range.zip(own.chunks_mut(queries * width)) {
                let hidden = self.hidden(mask, sample);
                for head in 0..self.heads {
                    let q = self.part(q, queries, sample, head);
                    product(&mut scores, q, self.part(k, keys, sample, head).transpose());
                    let rows = scores.chunks_mut(keys).zip(weights.chunks_mut(keys));
                    for (row, (scores, weights)) in rows.enumerate() {
                        known.extend(softmax(scores, &hidden, self.scale()));
                        masked(scores, self.lane(sample, head, row), weights);
                    }
                    let weights = MatRef::from_row_major_slice(&weights, queries, keys);
                    into_head(out, width, head, weights, self.part(v, keys, sample, head));
                }
            }
            known
        });
        Made { output: out, kept: vec![parts.concat()] }
    }

    fn backward<T: Number>(
        &self,
        [q, k, v, mask]: [&[T]; 4],
        kept: &[&[T]],
        gradient: &[T],
        wanted: [bool; 4],
    ) -> [Option<Vec<T>>; 4] {
        let (queries, keys, width) = (self.queries, self.keys, self.width);
        let parts = each(&ranges(self.batch), self.steps(), |range| {
            let lengths = [queries, keys, keys].map(|length| range.len() * length * width);
            let mut found = lengths.map(|length| vec![T::ZERO; length]);
            let [mut p, mut masked_p, mut d] = [(); 3].map(|()| vec![T::ZERO; queries * keys]);
            for sample in range.clone() {
                let hidden = self.hidden(mask, sample);
                let [in_q, in_k, in_v] = &mut found;
                let at = sample - range.start;
                let in_q = &mut in_q[at * queries * width..][..queries * width];
                let in_k = &mut in_k[at * keys * width..][..keys * width];
                let in_v = &mut in_v[at * keys * width..][..keys * width];
                for head in 0..self.heads {
                    let q = self.part(q, queries, sample, head);
                    let (k, v) =
                        (self.part(k, keys, sample, head), self.part(v, keys, sample, head));
                    let dy = self.part(gradient, queries, sample, head);
                    product(&mut p, q, k.transpose());
                    product(&mut d, dy, v.transpose());
                    let first = (sample * self.heads + head) * queries;
                    for row in 0..queries {
                        let at = row * keys..(row + 1) * keys;
                        let lane = self.lane(sample, head, row);
                        let p = &mut p[at.clone()];
                        let known = &kept[0][2 * (first + row)..][..2];
                        softmax_again(p, &hidden, self.scale(), [known[0], known[1]]);
                        masked(p, lane, &mut masked_p[at.clone()]);
                        softmax_back(p, lane, self.scale(), &mut d[at]);
                    }
                    let weights = MatRef::from_row_major_slice(&masked_p, queries, keys);
                    let d = MatRef::from_row_major_slice(&d, queries, keys);
                    into_head(in_v, width, head, weights.transpose(), dy);
                    into_head(in_q, width, head, d, k);
                    into_head(in_k, width, head, d.transpose(), q);
                }
            }
            found
        });
        let mut all: [Vec<T>; 3] = [(); 3].map(|()| Vec::new());
        for part in parts {
            for (all, part) in all.iter_mut().zip(part) {
                all.extend(part);
            }
        }
        let [in_q, in_k, in_v] = all;
        [wanted[0].then_some(in_q), wanted[1].then_some(in_k), wanted[2].then_some(in_v), None]
    }
}
