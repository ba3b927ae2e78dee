//! Layer norm in one sweep, forward and backward, for operations of its own and for the blocks.
//!
//! With `h = (x - mean) / s`, `s = sqrt(variance + epsilon)` and `g = gamma dy`, width w:
//! `dx = (g - sum(g)/w - h sum(g h)/w) / s`, `dgamma = sum over rows of dy h`, `dbeta` of `dy`.

use super::activation::{add_row, dropped};
use super::bridge::{Fused, Made};
use super::number::{Number, sum};
use super::parts::{by_rows, ranges, total};
use super::wide::wide;
use crate::ops::dropout::{Dropout, Lane};

/// Mean and `1/s` of a row.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Moments<T> {
    pub(in crate::ops) mean: T,
    pub(in crate::ops) inverse: T,
}

/// Numbers of [`Moments`] as a pass keeps them: mean and inverse, row after row.
pub(in crate::ops) fn moments_of<T: Number>(kept: &[T], row: usize) -> Moments<T> {
    Moments { mean: kept[2 * row], inverse: kept[2 * row + 1] }
}

wide! {
    /// Normalises a row into `out`.
    pub(in crate::ops) fn norm_row<T: Number>(
        x: &[T],
        gamma: &[T],
        beta: &[T],
        epsilon: T,
        out: &mut [T],
    ) -> Moments<T> {
        let width = out.len();
        let x = &x[..width];
        let share = T::ONE / T::of(width as f64);
        let mean = sum(width, |i| x[i]) * share;
        let variance = sum(width, |i| (x[i] - mean) * (x[i] - mean)) * share;
        let moments = Moments { mean, inverse: T::ONE / (variance + epsilon).root() };
        scale(x, gamma, beta, moments, out);
        moments
    }

    /// The same with moments that are known.
    pub(in crate::ops) fn norm_row_again<T: Number>(
        x: &[T],
        gamma: &[T],
        beta: &[T],
        moments: Moments<T>,
        out: &mut [T],
    ) {
        scale(x, gamma, beta, moments, out);
    }

    /// `out = x + factor y`.
    fn added<T: Number>(x: &[T], y: &[T], lane: Option<Lane<T>>, out: &mut [T]) {
        let (x, y) = (&x[..out.len()], &y[..out.len()]);
        for (i, out) in out.iter_mut().enumerate() {
            *out = match lane {
                Some(lane) => x[i] + y[i] * lane.factor(i),
                None => x[i] + y[i],
            };
        }
    }

    /// The gradient `d` at a normalised row becomes the one at its `x`; adds to the sums for gamma and beta
    /// where they are not empty.
    fn back<T: Number>(
        x: &[T],
        gamma: &[T],
        m: Moments<T>,
        in_gamma: &mut [T],
        in_beta: &mut [T],
        d: &mut [T],
    ) {
        let width = d.len();
        let (x, gamma) = (&x[..width], &gamma[..width]);
        let h = |i: usize| (x[i] - m.mean) * m.inverse;
        if !in_gamma.is_empty() {
            let (in_gamma, in_beta) = (&mut in_gamma[..width], &mut in_beta[..width]);
            for i in 0..width {
                in_gamma[i] += d[i] * h(i);
                in_beta[i] += d[i];
            }
        }
        let share = T::ONE / T::of(width as f64);
        let mean = sum(width, |i| d[i] * gamma[i]) * share;
        let along = sum(width, |i| d[i] * gamma[i] * h(i)) * share;
        for i in 0..width {
            d[i] = (d[i] * gamma[i] - mean - h(i) * along) * m.inverse;
        }
    }
}

#[inline(always)]
fn scale<T: Number>(x: &[T], gamma: &[T], beta: &[T], m: Moments<T>, out: &mut [T]) {
    let width = out.len();
    let (x, gamma, beta) = (&x[..width], &gamma[..width], &beta[..width]);
    for i in 0..width {
        out[i] = (x[i] - m.mean) * m.inverse * gamma[i] + beta[i];
    }
}

/// Sums over rows of the gradients of gamma and beta; empty where they are not wanted.
pub(in crate::ops) struct NormSums<T> {
    gamma: Vec<T>,
    beta: Vec<T>,
}

impl<T: Number> NormSums<T> {
    pub(in crate::ops) fn new(width: usize, wanted: bool) -> Self {
        let zeros = vec![T::ZERO; if wanted { width } else { 0 }];
        Self { gamma: zeros.clone(), beta: zeros }
    }

    /// The gradient `d` at the normalised row becomes the one at `x`.
    pub(in crate::ops) fn back_row(&mut self, x: &[T], gamma: &[T], m: Moments<T>, d: &mut [T]) {
        back(x, gamma, m, &mut self.gamma, &mut self.beta, d);
    }

    /// The totals of all parts: gradients of gamma and beta.
    pub(in crate::ops) fn totals(parts: Vec<Self>) -> (Vec<T>, Vec<T>) {
        let (gamma, beta): (Vec<_>, Vec<_>) = parts.into_iter().map(|p| (p.gamma, p.beta)).unzip();
        (total(gamma), total(beta))
    }
}

/// Layer norm of rows x width; operands x, gamma, beta.
#[derive(Clone, Debug)]
pub(in crate::ops) struct LayerNorm {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) epsilon: f64,
}

impl Fused<3> for LayerNorm {
    fn shape(&self) -> Vec<usize> {
        vec![self.rows, self.width]
    }

    fn forward<T: Number>(&self, [x, gamma, beta]: [&[T]; 3], _: bool) -> Made<T> {
        let (width, epsilon) = (self.width, T::of(self.epsilon));
        let mut out = vec![T::ZERO; x.len()];
        let parts = by_rows(&mut out, width, &ranges(self.rows), 8 * x.len(), |range, own| {
            let mut kept = Vec::with_capacity(2 * range.len());
            for (row, out) in range.zip(own.chunks_mut(width)) {
                let m = norm_row(&x[row * width..][..width], gamma, beta, epsilon, out);
                kept.extend([m.mean, m.inverse]);
            }
            kept
        });
        Made { output: out, kept: vec![parts.concat()] }
    }

    fn backward<T: Number>(
        &self,
        [x, gamma, _]: [&[T]; 3],
        kept: &[&[T]],
        gradient: &[T],
        [x_wanted, gamma_wanted, beta_wanted]: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let width = self.width;
        let mut d = gradient.to_vec();
        let parts = by_rows(&mut d, width, &ranges(self.rows), 8 * x.len(), |range, own| {
            let mut sums = NormSums::new(width, gamma_wanted || beta_wanted);
            for (row, d) in range.zip(own.chunks_mut(width)) {
                let moments = moments_of(kept[0], row);
                sums.back_row(&x[row * width..][..width], gamma, moments, d);
            }
            sums
        });
        let (in_gamma, in_beta) = NormSums::totals(parts);
        [x_wanted.then_some(d), gamma_wanted.then_some(in_gamma), beta_wanted.then_some(in_beta)]
    }
}

/// The mean over the rows of each group of the layer norm: groups x rows x width to groups x width;
/// operands x, gamma, beta.
#[derive(Clone, Debug)]
pub(in crate::ops) struct LayerNormMean {
    pub(in crate::ops) groups: usize,
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) epsilon: f64,
}

impl Fused<3> for LayerNormMean {
    fn shape(&self) -> Vec<usize> {
        vec![self.groups, self.width]
    }

    fn forward<T: Number>(&self, [x, gamma, beta]: [&[T]; 3], _: bool) -> Made<T> {
        let (width, epsilon) = (self.width, T::of(self.epsilon));
        let share = T::ONE / T::of(self.rows as f64);
        let mut out = vec![T::ZERO; self.groups * width];
        let parts = by_rows(&mut out, width, &ranges(self.groups), 8 * x.len(), |range, own| {
            let mut kept = Vec::with_capacity(2 * range.len() * self.rows);
            let mut normed = vec![T::ZERO; width];
            for (group, out) in range.zip(own.chunks_mut(width)) {
                for row in group * self.rows..(group + 1) * self.rows {
                    let x = &x[row * width..][..width];
                    let m = norm_row(x, gamma, beta, epsilon, &mut normed);
                    kept.extend([m.mean, m.inverse]);
                    add_row(out, &normed);
                }
                out.iter_mut().for_each(|y| *y *= share);
            }
            kept
        });
        Made { output: out, kept: vec![parts.concat()] }
    }

    fn backward<T: Number>(
        &self,
        [x, gamma, _]: [&[T]; 3],
        kept: &[&[T]],
        gradient: &[T],
        [x_wanted, gamma_wanted, beta_wanted]: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let (width, rows) = (self.width, self.rows);
        let share = T::ONE / T::of(rows as f64);
        let mut d = vec![T::ZERO; x.len()];
        let ranges = ranges(self.groups);
        let parts = by_rows(&mut d, rows * width, &ranges, 8 * x.len(), |range, own| {
            let mut sums = NormSums::new(width, gamma_wanted || beta_wanted);
            let first = range.start * rows;
            for (i, d) in own.chunks_mut(width).enumerate() {
                let row = first + i;
                let from = &gradient[row / rows * width..][..width];
                d.iter_mut().zip(from).for_each(|(d, g)| *d = *g * share);
                sums.back_row(&x[row * width..][..width], gamma, moments_of(kept[0], row), d);
            }
            sums
        });
        let (in_gamma, in_beta) = NormSums::totals(parts);
        [x_wanted.then_some(d), gamma_wanted.then_some(in_gamma), beta_wanted.then_some(in_beta)]
    }
}

/// `norm(x + dropout(y))` of rows x width; operands x, y, gamma, beta.
#[derive(Clone, Debug)]
pub(in crate::ops) struct AddNorm {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) epsilon: f64,
    pub(in crate::ops) mask: Option<Dropout>,
}

impl AddNorm {
    fn lane<T: Number>(&self, row: usize) -> Option<Lane<T>> {
        self.mask.map(|mask| mask.lane(row * self.width))
    }
}

impl Fused<4> for AddNorm {
    fn shape(&self) -> Vec<usize> {
        vec![self.rows, self.width]
    }

    fn forward<T: Number>(&self, [x, y, gamma, beta]: [&[T]; 4], _: bool) -> Made<T> {
        let (width, epsilon) = (self.width, T::of(self.epsilon));
        let mut out = vec![T::ZERO; x.len()];
        let parts = by_rows(&mut out, width, &ranges(self.rows), 8 * x.len(), |range, own| {
            let mut kept = Vec::with_capacity(2 * range.len());
            let mut total = vec![T::ZERO; width];
            for (row, out) in range.zip(own.chunks_mut(width)) {
                let at = row * width..(row + 1) * width;
                added(&x[at.clone()], &y[at], self.lane(row), &mut total);
                let m = norm_row(&total, gamma, beta, epsilon, out);
                kept.extend([m.mean, m.inverse]);
            }
            kept
        });
        Made { output: out, kept: vec![parts.concat()] }
    }

    fn backward<T: Number>(
        &self,
        [x, y, gamma, _]: [&[T]; 4],
        kept: &[&[T]],
        gradient: &[T],
        [x_wanted, y_wanted, gamma_wanted, beta_wanted]: [bool; 4],
    ) -> [Option<Vec<T>>; 4] {
        let width = self.width;
        let mut d = gradient.to_vec();
        let ranges = ranges(self.rows);
        let parts = by_rows(&mut d, width, &ranges, 8 * x.len(), |range, own| {
            let mut sums = NormSums::new(width, gamma_wanted || beta_wanted);
            let mut total = vec![T::ZERO; width];
            let mut in_y = vec![T::ZERO; if y_wanted { own.len() } else { 0 }];
            for (i, d) in own.chunks_mut(width).enumerate() {
                let row = range.start + i;
                let at = row * width..(row + 1) * width;
                added(&x[at.clone()], &y[at], self.lane(row), &mut total);
                sums.back_row(&total, gamma, moments_of(kept[0], row), d);
                if y_wanted {
                    let own = &mut in_y[i * width..][..width];
                    match self.lane(row) {
                        Some(lane) => dropped(d, lane, own),
                        None => own.copy_from_slice(d),
                    }
                }
            }
            (sums, in_y)
        });
        let (sums, in_y): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let (in_gamma, in_beta) = NormSums::totals(sums);
        [
            x_wanted.then_some(d),
            y_wanted.then(|| in_y.concat()),
            gamma_wanted.then_some(in_gamma),
            beta_wanted.then_some(in_beta),
        ]
    }
}
