//! `factor gelu(x + b)` and its derivative in one sweep, for the operation of its own and for the blocks.

use super::bridge::{Fused, Made};
use super::number::{Number, gelu, gelu_and_slope, sum};
use super::parts::{by_rows, each, ranges, total};
use super::wide::wide;
use crate::ops::dropout::{Dropout, Lane};

/// What is added to the numbers of a row.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Shift<'a, T> {
    /// The same to all.
    Same(T),
    /// To each its own.
    Each(&'a [T]),
}

wide! {
    /// `out = factor gelu(z + shift)`, the factors those of `lane`.
    pub(in crate::ops) fn activate<T: Number>(
        z: &[T],
        shift: Shift<'_, T>,
        lane: Option<Lane<T>>,
        out: &mut [T],
    ) {
        #[inline(always)]
        fn row<T: Number>(
            z: &[T],
            shift: impl Fn(usize) -> T,
            factor: impl Fn(usize) -> T,
            out: &mut [T],
        ) {
            let z = &z[..out.len()];
            for (i, out) in out.iter_mut().enumerate() {
                *out = factor(i) * gelu(z[i] + shift(i));
            }
        }
        match (shift, lane) {
            (Shift::Same(b), None) => row(z, |_| b, |_| T::ONE, out),
            (Shift::Same(b), Some(lane)) => row(z, |_| b, |i| lane.factor(i), out),
            (Shift::Each(b), None) => {
                let b = &b[..out.len()];
                row(z, |i| b[i], |_| T::ONE, out)
            }
            (Shift::Each(b), Some(lane)) => {
                let b = &b[..out.len()];
                row(z, |i| b[i], |i| lane.factor(i), out)
            }
        }
    }

    /// Turns `z` into `factor gelu(z + shift)` and the gradient `d` there into the one at `z`.
    pub(in crate::ops) fn activate_back<T: Number>(
        z: &mut [T],
        shift: Shift<'_, T>,
        lane: Option<Lane<T>>,
        d: &mut [T],
    ) {
        #[inline(always)]
        fn row<T: Number>(
            z: &mut [T],
            shift: impl Fn(usize) -> T,
            factor: impl Fn(usize) -> T,
            d: &mut [T],
        ) {
            let z = &mut z[..d.len()];
            for (i, d) in d.iter_mut().enumerate() {
                let (value, slope) = gelu_and_slope(z[i] + shift(i));
                let factor = factor(i);
                z[i] = factor * value;
                *d = *d * factor * slope;
            }
        }
        match (shift, lane) {
            (Shift::Same(b), None) => row(z, |_| b, |_| T::ONE, d),
            (Shift::Same(b), Some(lane)) => row(z, |_| b, |i| lane.factor(i), d),
            (Shift::Each(b), None) => {
                let b = &b[..d.len()];
                row(z, |i| b[i], |_| T::ONE, d)
            }
            (Shift::Each(b), Some(lane)) => {
                let b = &b[..d.len()];
                row(z, |i| b[i], |i| lane.factor(i), d)
            }
        }
    }

    /// The sum of a row.
    pub(in crate::ops) fn row_sum<T: Number>(row: &[T]) -> T {
        sum(row.len(), |i| row[i])
    }

    /// `sums += row`.
    pub(in crate::ops) fn add_row<T: Number>(sums: &mut [T], row: &[T]) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += *x;
        }
    }

    /// `out = factor x` on a row.
    pub(in crate::ops) fn dropped<T: Number>(x: &[T], lane: Lane<T>, out: &mut [T]) {
        let x = &x[..out.len()];
        for (i, out) in out.iter_mut().enumerate() {
            *out = x[i] * lane.factor(i);
        }
    }

    /// `out = residual + factor (out + shift)` on a row; without a residual, `factor (out + shift)`.
    pub(in crate::ops) fn finish_row<T: Number>(
        residual: Option<&[T]>,
        shift: Shift<'_, T>,
        lane: Option<Lane<T>>,
        out: &mut [T],
    ) {
        match shift {
            Shift::Same(b) => out.iter_mut().for_each(|y| *y += b),
            Shift::Each(b) => out.iter_mut().zip(b).for_each(|(y, b)| *y += *b),
        }
        if let Some(lane) = lane {
            out.iter_mut().enumerate().for_each(|(i, y)| *y *= lane.factor(i));
        }
        if let Some(residual) = residual {
            out.iter_mut().zip(residual).for_each(|(y, x)| *y += *x);
        }
    }
}

/// Dropout of any tensor.
#[derive(Clone, Debug)]
pub(in crate::ops) struct DropoutAlone {
    pub(in crate::ops) shape: Vec<usize>,
    pub(in crate::ops) mask: Dropout,
}

impl DropoutAlone {
    fn on<T: Number>(&self, x: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; x.len()];
        by_rows(&mut out, 1, &ranges(x.len()), 4 * x.len(), |range, own| {
            dropped(&x[range.clone()], self.mask.lane(range.start), own);
        });
        out
    }
}

impl Fused<1> for DropoutAlone {
    fn shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward<T: Number>(&self, [x]: [&[T]; 1], _: bool) -> Made<T> {
        Made::alone(self.on(x))
    }

    fn backward<T: Number>(
        &self,
        _: [&[T]; 1],
        _: &[&[T]],
        gradient: &[T],
        _: [bool; 1],
    ) -> [Option<Vec<T>>; 1] {
        [Some(self.on(gradient))]
    }
}

/// `dropout(gelu(x + b))`, x rows x width; operands x, b.
#[derive(Clone, Debug)]
pub(in crate::ops) struct BiasGeluDropout {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) mask: Option<Dropout>,
}

/// Elementary steps of one number's error function, exponential and mask.
const STEPS: usize = 32;

impl BiasGeluDropout {
    fn lane<T: Number>(&self, row: usize) -> Option<Lane<T>> {
        self.mask.map(|mask| mask.lane(row * self.width))
    }
}

fn shift<T: Number>(b: &[T]) -> Shift<'_, T> {
    if b.is_empty() { Shift::Same(T::ZERO) } else { Shift::Each(b) }
}

impl Fused<2> for BiasGeluDropout {
    fn shape(&self) -> Vec<usize> {
        vec![self.rows, self.width]
    }

    fn forward<T: Number>(&self, [x, b]: [&[T]; 2], _: bool) -> Made<T> {
        let (width, shift) = (self.width, shift(b));
        let mut out = vec![T::ZERO; x.len()];
        by_rows(&mut out, width, &ranges(self.rows), STEPS * x.len(), |range, own| {
            for (row, out) in range.zip(own.chunks_mut(width)) {
                activate(&x[row * width..][..width], shift, self.lane(row), out);
            }
        });
        Made::alone(out)
    }

    fn backward<T: Number>(
        &self,
        [x, b]: [&[T]; 2],
        _: &[&[T]],
        gradient: &[T],
        [x_wanted, b_wanted]: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        let (width, shift) = (self.width, shift(b));
        let mut d = gradient.to_vec();
        let parts = by_rows(&mut d, width, &ranges(self.rows), STEPS * x.len(), |range, own| {
            let mut z = vec![T::ZERO; width];
            let mut sums = vec![T::ZERO; if b_wanted { width } else { 0 }];
            for (row, d) in range.zip(own.chunks_mut(width)) {
                z.copy_from_slice(&x[row * width..][..width]);
                activate_back(&mut z, shift, self.lane(row), d);
                add_row(&mut sums, d);
            }
            sums
        });
        [x_wanted.then_some(d), b_wanted.then(|| total(parts))]
    }
}

/// The sums over rows of `x`, rows x width, in parts.
pub(in crate::ops) fn column_sums<T: Number>(x: &[T], rows: usize, width: usize) -> Vec<T> {
    let parts = each(&ranges(rows), x.len(), |range| {
        let mut sums = vec![T::ZERO; width];
        for row in range {
            add_row(&mut sums, &x[row * width..][..width]);
        }
        sums
    });
    let sums = total(parts);
    if sums.is_empty() { vec![T::ZERO; width] } else { sums }
}
