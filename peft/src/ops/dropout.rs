//! Dropout: `y_i = x_i m_i / (1 - rate)`, `m_i` Bernoulli(1 - rate).
//!
//! The mask is a hash of (key, position), so that it needs no generator, is the same on every device
//! and for any number of threads, and can be made again in a backward pass instead of being kept.
//! Source of the mixing steps: Steele, Lea, Flood 2014 (SplitMix64), whose finaliser passes the usual
//! batteries on consecutive counters.

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
        // 53 random bits against the rate: a chance exact to 2^-53.
        let bits = mix(self.key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 11;
        bits as f64 * (1.0 / (1u64 << 53) as f64) >= self.rate
    }
}

/// `x` with `mask`; unchanged without one or at rate 0.
pub fn dropout<const D: usize>(x: Tensor<D>, mask: Option<Dropout>) -> Tensor<D> {
    let Some(mask) = mask.filter(|mask| mask.rate > 0.0) else { return x };
    let count: usize = x.dims().iter().product();
    let scale = 1.0 / (1.0 - mask.rate);
    let shape = x.dims();
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

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        // Control: a mask is not independent of itself.
        assert!(!near(share(&|i| a.keeps(i) && a.keeps(i)), 0.81));
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
