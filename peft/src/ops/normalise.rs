//! Layer norm: `gamma (x - mean) / sqrt(variance + epsilon) + beta` along the last axis.

use super::cpu::{self, AddNorm, LayerNorm, LayerNormMean, Operand};
use super::{Dropout, dropout};
use burn::tensor::Tensor;

/// Normalises the rows of `x` (rows x width); the variance is the biased one, as in PyTorch.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [rows, width] = x.dims();
    let operands = [Operand::of(&x), Operand::of(&gamma), Operand::of(&beta)];
    cpu::apply(LayerNorm { rows, width, epsilon }, operands)
        .unwrap_or_else(|| composed(x, gamma, beta, epsilon))
}

/// The mean over the second axis of the layer norm of groups x rows x width.
pub fn layer_norm_mean(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [groups, rows, width] = x.dims();
    let operands = [Operand::of(&x), Operand::of(&gamma), Operand::of(&beta)];
    cpu::apply(LayerNormMean { groups, rows, width, epsilon }, operands)
        .unwrap_or_else(|| composed_mean(x, gamma, beta, epsilon))
}

/// `norm(x + dropout(y))` of rows x width, the end of an encoder's sublayer.
pub fn add_norm(
    x: Tensor<2>,
    y: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    mask: Option<Dropout>,
) -> Tensor<2> {
    let [rows, width] = x.dims();
    let mask = mask.filter(|mask| mask.rate > 0.0);
    if dropout::in_reach(rows * width) {
        let operands = [Operand::of(&x), Operand::of(&y), Operand::of(&gamma), Operand::of(&beta)];
        if let Some(z) = cpu::apply(AddNorm { rows, width, epsilon, mask }, operands) {
            return z;
        }
    }
    composed_add(x, y, gamma, beta, epsilon, mask)
}

/// The definition.
pub(super) fn composed_add(
    x: Tensor<2>,
    y: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    mask: Option<Dropout>,
) -> Tensor<2> {
    let y = match mask {
        Some(mask) => dropout::composed(y, mask),
        None => y,
    };
    composed(x + y, gamma, beta, epsilon)
}

/// The definition.
pub(super) fn composed_mean(
    x: Tensor<3>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<2> {
    let [groups, rows, width] = x.dims();
    let normed = composed(x.reshape([groups * rows, width]), gamma, beta, epsilon);
    let sums = normed.reshape([groups, rows, width]).sum_dim(1).reshape([groups, width]);
    sums.mul_scalar(1.0 / rows as f64)
}

/// The definition.
pub(super) fn composed(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    // The back end's own division by a number has a derivative of single precision.
    let share = 1.0 / x.dims()[1] as f64;
    let mean = x.clone().sum_dim(1).mul_scalar(share);
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).sum_dim(1).mul_scalar(share);
    let scaled = centred / variance.add_scalar(epsilon).sqrt();
    scaled * gamma.unsqueeze::<2>() + beta.unsqueeze::<2>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Place, Precision, values};

    #[test]
    fn rows_have_the_mean_and_the_spread_that_were_asked_for() {
        let place = Place::cpu(Precision::F64);
        let x = place.tensor(vec![1.0, 2.0, 3.0, 6.0, 10.0, -5.0, 0.0, 3.0], [2, 4]).unwrap();
        let vector = |v: f64| place.tensor(vec![v; 4], [4]).unwrap();
        let y = values(&layer_norm(x, vector(2.0), vector(0.5), 0.0)).unwrap();
        for row in y.chunks(4) {
            let mean = row.iter().sum::<f64>() / 4.0;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4.0;
            // A few roundings of numbers below 5.
            assert!((mean - 0.5).abs() < 1e-14 && (variance - 4.0).abs() < 1e-13);
        }
        // Control: row 0 by hand. Mean 3, variance (4 + 1 + 0 + 9)/4 = 3.5.
        assert!((y[3] - (2.0 * 3.0 / 3.5f64.sqrt() + 0.5)).abs() < 1e-14);
    }
}
