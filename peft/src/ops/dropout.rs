//! Dropout: `y_i = x_i m_i / (1 - rate)`, `m_i` Bernoulli(1 - rate).
//!
//! The mask is a hash of (key, position), so that it needs no generator, is the same on every device
//! and for any number of threads, and is made again in a backward pass instead of being kept. It mixes 32
//! bits at a time, which vector instructions can: the position is mixed with one half of the key, then,
//! after a round, with the other, so that no mask is another one's, shifted. Three rounds of multiply and
//! shift pass the statistics of the tests below.

use super::cpu::{self, DropoutAlone, Number, Operand};
use burn::tensor::{DType, Tensor, TensorData};
use peftml_linalg::Seed;

/// A mask: its rate and its key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The chance of a number to be dropped, in [0, 1).
    pub rate: f64,
    /// What names the mask.
    pub key: u64,
}

impl Dropout {
    /// The mask of the stream `seed`.
    pub fn new(rate: f64, seed: &Seed) -> Self {
        Self { rate, key: seed.number() }
    }

    /// Whether the number at `position` stays.
    pub fn keeps(&self, position: u64) -> bool {
        // Where positions pass 2^32 the key is another one.
        let [first, second] = self.halves((position >> 32) as u32);
        mixed(position as u32, first, second) >= self.threshold()
    }

    /// A chance exact to 2^-32.
    fn threshold(&self) -> u32 {
        (self.rate * 4_294_967_296.0) as u32
    }

    fn halves(&self, high: u32) -> [u32; 2] {
        let high = high.wrapping_mul(0x9e37_79b9);
        [(self.key as u32) ^ high, ((self.key >> 32) as u32).wrapping_add(high)]
    }

    /// The factors from position `start` on; positions stay below 2^32.
    pub(super) fn lane<T: Number>(&self, start: usize) -> Lane<T> {
        let [first, second] = self.halves(0);
        let scale = T::of(1.0 / (1.0 - self.rate));
        Lane { start: start as u32, first, second, threshold: self.threshold(), scale }
    }
}

/// A row's factors: 0, or `1 / (1 - rate)`.
#[derive(Clone, Copy)]
pub(super) struct Lane<T> {
    start: u32,
    first: u32,
    second: u32,
    threshold: u32,
    scale: T,
}

impl<T: Number> Lane<T> {
    #[inline(always)]
    pub(super) fn factor(&self, i: usize) -> T {
        let h = mixed(self.start.wrapping_add(i as u32), self.first, self.second);
        if h >= self.threshold { self.scale } else { T::ZERO }
    }
}

#[inline(always)]
fn mixed(position: u32, first: u32, second: u32) -> u32 {
    let h = position ^ first;
    let h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    let h = (h ^ (h >> 15)).wrapping_add(second);
    let h = (h ^ (h >> 17)).wrapping_mul(0x846c_a68b);
    (h ^ (h >> 16)).wrapping_mul(0x9e37_79b1)
}

/// Whether all positions of a tensor of `count` numbers are such that a [`Lane`] reaches.
pub(super) fn in_reach(count: usize) -> bool {
    count <= u32::MAX as usize
}

/// `x` with `mask`; unchanged without one or at rate 0.
pub fn dropout<const D: usize>(x: Tensor<D>, mask: Option<Dropout>) -> Tensor<D> {
    let Some(mask) = mask.filter(|mask| mask.rate > 0.0) else { return x };
    let shape = x.dims();
    if in_reach(shape.iter().product()) {
        let op = DropoutAlone { shape: shape.to_vec(), mask };
        if let Some(y) = cpu::apply(op, [Operand::of(&x)]) {
            return y;
        }
    }
    composed(x, mask)
}

/// The definition.
pub(super) fn composed<const D: usize>(x: Tensor<D>, mask: Dropout) -> Tensor<D> {
    let shape = x.dims();
    let count: usize = shape.iter().product();
    let scale = 1.0 / (1.0 - mask.rate);
    let kept = (0..count as u64).map(|i| if mask.keeps(i) { scale } else { 0.0 });
    let data = match x.dtype() {
        DType::F64 => TensorData::new(kept.collect::<Vec<f64>>(), shape),
        _ => TensorData::new(kept.map(|m| m as f32).collect::<Vec<f32>>(), shape),
    };
    let dtype = x.dtype();
    // The mask is a constant: made outside the computation graph.
    let factors = Tensor::from_data(data, (&x.clone().inner().device(), dtype));
    x * factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Place, Precision, values};

    #[test]
    fn the_share_and_the_independence_of_what_stays_are_as_named() {
        let n = 100_000u64;
        let (a, b) = (Dropout { rate: 0.1, key: 1 }, Dropout { rate: 0.1, key: 2 });
        let share = |f: &dyn Fn(u64) -> bool| (0..n).filter(|&i| f(i)).count() as f64 / n as f64;
        // Six standard errors of a share p among n: sqrt(p (1-p) / n).
        let near = |found: f64, p: f64| (found - p).abs() < 6.0 * (p * (1.0 - p) / n as f64).sqrt();
        assert!(near(share(&|i| a.keeps(i)), 0.9));
        assert!(near(share(&|i| a.keeps(i) && a.keeps(i + 1)), 0.81));
        assert!(near(share(&|i| a.keeps(i) && b.keeps(i)), 0.81));
        for distance in [2, 16, 64, 256, 512, 1 << 16] {
            assert!(near(share(&|i| a.keeps(i) && a.keeps(i + distance)), 0.81), "{distance}");
        }
        // Keys that differ in one bit of either half.
        for bit in [0, 5, 31, 32, 40, 63] {
            let other = Dropout { key: a.key ^ (1 << bit), ..a };
            assert!(near(share(&|i| a.keeps(i) && other.keeps(i)), 0.81), "{bit}");
        }
        assert!(near(share(&|i| a.keeps(i) && a.keeps(i + (1 << 32))), 0.81));
        // Control: a mask is not independent of itself.
        assert!(!near(share(&|i| a.keeps(i) && a.keeps(i)), 0.81));
    }

    #[test]
    fn sums_over_rows_of_a_mask_spread_as_independent_draws_do() {
        // Chi-squared over 4,096 rows of 256 numbers: mean 4,096, spread sqrt(2 x 4,096) = 90.5. Rows come
        // in the order of their positions, where a weak hash would be too even or too uneven.
        let (rows, width, p) = (4096u64, 256u64, 0.9);
        let (expected, variance) = (width as f64 * p, width as f64 * p * (1.0 - p));
        for key in [3u64, 0x1234_5678_9abc_def0] {
            let mask = Dropout { rate: 0.1, key };
            let kept = |row: u64| (0..width).filter(|i| mask.keeps(row * width + i)).count() as f64;
            let squares = (0..rows).map(|row| (kept(row) - expected).powi(2) / variance);
            let found = (squares.sum::<f64>() - rows as f64) / (2.0 * rows as f64).sqrt();
            // Six spreads.
            assert!(found.abs() < 6.0, "{key}: {found}");
        }
    }

    #[test]
    fn the_mean_stays_and_gradients_pass_where_the_value_does() {
        let place = Place::cpu(Precision::F64);
        let x = place.tensor(vec![1.0; 1000], [1000]).unwrap().autodiff().require_grad();
        let y = dropout(x.clone(), Some(Dropout { rate: 0.25, key: 7 }));
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        let y = values(&y).unwrap();
        assert_eq!(y, values(&gradient).unwrap());
        let scale: f64 = 1.0 / 0.75;
        assert!(y.iter().all(|&v| v == 0.0 || v == scale));
        let mean = y.iter().sum::<f64>() / 1000.0;
        // Variance of one factor: rate / (1 - rate); six standard errors.
        assert!((mean - 1.0).abs() < 6.0 * (0.25 / 0.75 / 1000.0f64).sqrt());
    }
}
