//! The operations that time goes into, in one place.
//!
//! Models and methods compute through these functions only, so that a faster form of one of them (its
//! own backward pass, one sweep over memory) can take its place without a model knowing. What stands
//! here is composed of the back end's elementary operations and is the definition that a faster form
//! is compared with. Everything is a pure function of its arguments: masks come from a key, never from
//! a generator with a state, and no sum depends on the number of threads.

mod dropout;
mod normalise;
mod sum;
mod update;

pub use dropout::{Dropout, dropout};
pub use normalise::layer_norm;
pub use sum::{cross_entropy, half_mean_squares, sum_all};
pub use update::{AdamConstants, adam};

use burn::tensor::{Tensor, activation};

/// `x W + b`: `x` rows x inputs, `weight` inputs x outputs.
///
/// A weight that is not tracked costs no gradient product.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let product = x.matmul(weight);
    match bias {
        Some(bias) => product + bias.unsqueeze::<2>(),
        None => product,
    }
}

/// `x/2 (1 + erf(x / sqrt 2))`, exact on every device (a back end's own may be an approximation).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let erf = x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf();
    x.mul_scalar(0.5) * erf.add_scalar(1.0)
}

/// `dropout(gelu(x + b))`: the middle of every two-layer block.
pub fn bias_gelu_dropout(
    x: Tensor<2>,
    bias: Option<Tensor<1>>,
    mask: Option<Dropout>,
) -> Tensor<2> {
    let shifted = match bias {
        Some(bias) => x + bias.unsqueeze::<2>(),
        None => x,
    };
    dropout(gelu(shifted), mask)
}

/// `dropout(softmax(q k^T / sqrt(width) + mask)) v`.
///
/// `q` batch x heads x queries x width, `k` and `v` batch x heads x keys x width, `mask` batch x keys:
/// 1 where a key may be looked at, 0 where it is padding.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<2>>,
    drop: Option<Dropout>,
) -> Tensor<4> {
    /// Low enough that no key of padding keeps weight, far from the smallest number of any type.
    const HIDDEN: f64 = -1e9;
    let [batch, _, _, width] = q.dims();
    let mut scores = q.mul_scalar(1.0 / (width as f64).sqrt()).matmul(k.swap_dims(2, 3));
    if let Some(mask) = mask {
        let keys = mask.dims()[1];
        let hidden = mask.mul_scalar(-1.0).add_scalar(1.0).mul_scalar(HIDDEN);
        scores = scores + hidden.reshape([batch, 1, 1, keys]);
    }
    dropout(activation::softmax(scores, 3), drop).matmul(v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Place, Precision, values};

    #[test]
    fn gelu_is_exact() {
        let place = Place::cpu(Precision::F64);
        let x = place.tensor(vec![-1.0, 0.0, 1.0, 2.0], [4]).unwrap();
        // x Phi(x) with Phi(1) = 0.841344746068543, Phi(2) = 0.977249868051821 (tables).
        let expected = [-0.158_655_253_931_457, 0.0, 0.841_344_746_068_543, 1.954_499_736_103_642];
        let found = values(&gelu(x.clone())).unwrap();
        for (x, y) in found.iter().zip(expected) {
            // Tables have 15 digits; the approximation by tanh is off by 1e-4.
            assert!((x - y).abs() < 4e-15, "{x} {y}");
        }
        let control = values(&activation::gelu_approximate(x)).unwrap();
        assert!((control[2] - expected[2]).abs() > 1e-5);
    }

    #[test]
    fn attention_sees_no_padding() {
        let place = Place::cpu(Precision::F64);
        let random = |name: &str, keys: usize| {
            let mut stream = peftml_linalg::Seed::root(4).child(name).stream();
            let numbers = (0..2 * keys * 3).map(|_| stream.normal()).collect();
            place.tensor(numbers, [1, 2, keys, 3]).unwrap()
        };
        let (q, k, v) = (random("q", 4), random("k", 5), random("v", 5));
        let mask = |numbers: [f64; 5]| Some(place.tensor(numbers.to_vec(), [1, 5]).unwrap());
        let first3 = |t: &Tensor<4>| t.clone().narrow(2, 0, 3);
        let masked = attention(q.clone(), k.clone(), v.clone(), mask([1., 1., 1., 0., 0.]), None);
        let short = attention(q.clone(), first3(&k), first3(&v), None, None);
        let whole = attention(q, k, v, mask([1.0; 5]), None);
        let distance = |a: &Tensor<4>, b: &Tensor<4>| {
            let (a, b) = (values(a).unwrap(), values(b).unwrap());
            a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
        };
        // exp(-1e9) is 0: only rounding is left, of sums of three numbers of order 1.
        assert!(distance(&masked, &short) < 16.0 * f64::EPSILON);
        assert!(distance(&masked, &whole) > 1e-3);
    }
}
