//! The operations that time goes into, in one place.
//!
//! Models and methods compute through these functions only. On the CPU they are operations of their own
//! (`cpu/`): one sweep over memory, a backward pass written by hand, products in a fixed partition. Everywhere
//! else they are composed of the back end's elementary operations; the composed form is the definition that
//! tests compare the other with. Everything is a pure function of its arguments: masks come from a key,
//! never from a generator with a state, and no sum depends on the number of threads.

mod cpu;
mod dropout;
mod mixing;
mod normalise;
mod sum;
mod update;

pub use dropout::{Dropout, dropout};
pub use mixing::{Along, Half, mix_channels, mix_tokens};
pub use normalise::{add_norm, layer_norm, layer_norm_mean};
pub use sum::{cross_entropy, half_mean_squares, sum_all};
pub use update::{AdamConstants, adam};

use burn::tensor::{Tensor, activation};
use cpu::{Attention, BiasGeluDropout, Dense, HIDDEN, Operand, Sizes};

/// A linear map `x (W + A B) + b` as operations take it, `W` inputs x outputs.
#[derive(Clone, Debug)]
pub struct LinearMap {
    /// W.
    pub weight: Tensor<2>,
    /// b.
    pub bias: Option<Tensor<1>>,
    /// A (inputs x rank) and B (rank x outputs).
    pub low_rank: Option<(Tensor<2>, Tensor<2>)>,
}

impl LinearMap {
    /// `x W + b`.
    pub fn plain(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self { weight, bias, low_rank: None }
    }

    /// `W + A B`.
    pub fn sum(&self) -> Tensor<2> {
        match &self.low_rank {
            Some((a, b)) => self.weight.clone() + a.clone().matmul(b.clone()),
            None => self.weight.clone(),
        }
    }

    fn sizes(&self) -> Sizes {
        let [inputs, outputs] = self.weight.dims();
        let rank = self.low_rank.as_ref().map_or(0, |(a, _)| a.dims()[1]);
        Sizes { inputs, outputs, rank }
    }

    /// W, b, A, B.
    fn operands(&self) -> [Option<Operand>; 4] {
        let factors = self.low_rank.as_ref();
        [
            Operand::of(&self.weight),
            Operand::maybe(self.bias.as_ref()),
            Operand::maybe(factors.map(|(a, _)| a)),
            Operand::maybe(factors.map(|(_, b)| b)),
        ]
    }
}

/// `x (W + A B) + b`, `x` rows x inputs.
///
/// A weight that is not tracked costs no gradient product; neither do, then, its factors.
pub fn linear(x: Tensor<2>, map: LinearMap) -> Tensor<2> {
    let [w, bias, a, b] = map.operands();
    let op = Dense { rows: x.dims()[0], sizes: map.sizes() };
    cpu::apply(op, [Operand::of(&x), w, bias, a, b]).unwrap_or_else(|| composed_linear(x, map))
}

/// The definition.
fn composed_linear(x: Tensor<2>, map: LinearMap) -> Tensor<2> {
    let product = x.matmul(map.sum());
    match map.bias {
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
    let [rows, width] = x.dims();
    let mask = mask.filter(|mask| mask.rate > 0.0);
    if dropout::in_reach(rows * width) {
        let op = BiasGeluDropout { rows, width, mask };
        let operands = [Operand::of(&x), Operand::maybe(bias.as_ref())];
        if let Some(y) = cpu::apply(op, operands) {
            return y;
        }
    }
    composed_bias_gelu_dropout(x, bias, mask)
}

/// The definition.
fn composed_bias_gelu_dropout(
    x: Tensor<2>,
    bias: Option<Tensor<1>>,
    mask: Option<Dropout>,
) -> Tensor<2> {
    let shifted = match bias {
        Some(bias) => x + bias.unsqueeze::<2>(),
        None => x,
    };
    let y = gelu(shifted);
    match mask {
        Some(mask) => dropout::composed(y, mask),
        None => y,
    }
}

/// `dropout(softmax(q k^T / sqrt(w) + mask)) v` in every head, w a head's width.
///
/// `q` batch x queries x width, `k` and `v` batch x keys x width, heads side by side along the width; `mask`
/// batch x keys: 1 where a key may be looked at, 0 where it is padding. The dropout's positions are those of
/// batch x heads x queries x keys.
pub fn attention(
    [q, k, v]: [Tensor<3>; 3],
    heads: usize,
    mask: Option<Tensor<2>>,
    drop: Option<Dropout>,
) -> Tensor<3> {
    let ([batch, queries, width], keys) = (q.dims(), k.dims()[1]);
    let drop = drop.filter(|drop| drop.rate > 0.0);
    let frozen = mask.as_ref().is_none_or(|mask| !mask.is_tracked());
    if frozen && dropout::in_reach(batch * heads * queries * keys) && keys > 0 {
        let op = Attention { batch, heads, queries, keys, width, drop };
        let operands = [&q, &k, &v].map(Operand::of);
        let [in_q, in_k, in_v] = operands;
        if let Some(y) = cpu::apply(op, [in_q, in_k, in_v, Operand::maybe(mask.as_ref())]) {
            return y;
        }
    }
    composed_attention([q, k, v], heads, mask, drop)
}

/// The definition.
fn composed_attention(
    [q, k, v]: [Tensor<3>; 3],
    heads: usize,
    mask: Option<Tensor<2>>,
    drop: Option<Dropout>,
) -> Tensor<3> {
    let [batch, queries, width] = q.dims();
    let cut = |t: Tensor<3>| {
        let length = t.dims()[1];
        t.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
    };
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let mut scores = cut(q).mul_scalar(scale).matmul(cut(k).swap_dims(2, 3));
    if let Some(mask) = mask {
        let keys = mask.dims()[1];
        let hidden = mask.mul_scalar(-1.0).add_scalar(1.0).mul_scalar(HIDDEN);
        scores = scores + hidden.reshape([batch, 1, 1, keys]);
    }
    let weights = activation::softmax(scores, 3);
    let weights = match drop {
        Some(drop) => dropout::composed(weights, drop),
        None => weights,
    };
    weights.matmul(cut(v)).swap_dims(1, 2).reshape([batch, queries, width])
}

#[cfg(test)]
#[path = "tests.rs"]
mod contract;

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
            let numbers = (0..keys * 6).map(|_| stream.normal()).collect();
            place.tensor(numbers, [1, keys, 6]).unwrap()
        };
        let (q, k, v) = (random("q", 4), random("k", 5), random("v", 5));
        let mask = |numbers: [f64; 5]| Some(place.tensor(numbers.to_vec(), [1, 5]).unwrap());
        let first3 = |t: &Tensor<3>| t.clone().narrow(1, 0, 3);
        let on = |k: &Tensor<3>, v: &Tensor<3>, mask| {
            attention([q.clone(), k.clone(), v.clone()], 2, mask, None)
        };
        let masked = on(&k, &v, mask([1., 1., 1., 0., 0.]));
        let short = on(&first3(&k), &first3(&v), None);
        let whole = on(&k, &v, mask([1.0; 5]));
        let distance = |a: &Tensor<3>, b: &Tensor<3>| {
            let (a, b) = (values(a).unwrap(), values(b).unwrap());
            a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
        };
        // exp(-1e9) is 0: only rounding is left, of sums of three numbers of order 1.
        assert!(distance(&masked, &short) < 16.0 * f64::EPSILON);
        assert!(distance(&masked, &whole) > 1e-3);
    }
}
