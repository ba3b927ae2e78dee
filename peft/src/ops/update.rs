//! The update of an adaptive optimiser, number by number.

use burn::tensor::Tensor;

/// What an Adam step multiplies with; made by the optimiser in double precision.
#[derive(Clone, Copy, Debug)]
pub struct AdamConstants {
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Step size divided by the mean's bias correction.
    pub step: f64,
    /// Square root of the mean square's bias correction.
    pub root_correction: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
}

/// `m <- beta1 m + (1 - beta1) g`, `v <- beta2 v + (1 - beta2) g^2`,
/// `x <- x - step m / (sqrt(v) / root_correction + epsilon)`; returns (x, m, v).
pub fn adam(
    x: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    c: AdamConstants,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    if let Some([x, mean, square]) = super::cpu::adam([&x, &gradient, &mean, &square], c) {
        return (x, mean, square);
    }
    composed(x, gradient, mean, square, c)
}

/// The definition.
pub(super) fn composed(
    x: Tensor<1>,
    gradient: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    c: AdamConstants,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let squared = gradient.clone() * gradient.clone();
    let mean = mean.mul_scalar(c.beta1) + gradient.mul_scalar(1.0 - c.beta1);
    let square = square.mul_scalar(c.beta2) + squared.mul_scalar(1.0 - c.beta2);
    let root = square.clone().sqrt().div_scalar(c.root_correction).add_scalar(c.epsilon);
    let x = x - (mean.clone() / root).mul_scalar(c.step);
    (x, mean, square)
}
