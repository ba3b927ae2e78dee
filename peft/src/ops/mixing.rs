//! The halves of a mixer block: `x + dropout(f(norm(x)))`, f two linear maps with `dropout(gelu(..))` between
//! them, along the tokens or along the width. Positions of masks are those of the tensors as named below.
//!
//! Source: Tolstikhin et al. 2021 (arXiv:2105.01601).

use super::cpu::{self, Channels, Operand, Tokens};
use super::{Dropout, LinearMap, dropout, gelu, normalise};
use crate::PeftError;
use burn::tensor::Tensor;

/// A half: layer norm, two linear maps, masks.
#[derive(Clone, Debug)]
pub struct Half {
    /// Scale of the layer norm.
    pub gamma: Tensor<1>,
    /// Shift of the layer norm.
    pub beta: Tensor<1>,
    /// Added to variances.
    pub epsilon: f64,
    /// To the hidden activations.
    pub up: LinearMap,
    /// And back.
    pub down: LinearMap,
    /// Mask of the hidden activations.
    pub up_mask: Option<Dropout>,
    /// Mask of the output.
    pub down_mask: Option<Dropout>,
    /// Whether the input is added to the output.
    pub residual: bool,
}

/// The axis that a half mixes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// The second, the tokens.
    Tokens,
    /// The third, a token's numbers.
    Channels,
}

impl Half {
    /// Checks that its maps fit each other and an input of this shape.
    ///
    /// # Errors
    /// [`PeftError::Shape`].
    pub fn check(&self, path: &str, shape: [usize; 3], along: Along) -> Result<(), PeftError> {
        let length = if along == Along::Tokens { shape[1] } else { shape[2] };
        let (up, down) = (self.up.weight.dims(), self.down.weight.dims());
        for (name, expected, found) in
            [("up", [length, down[0]], up), ("down", [up[1], length], down)]
        {
            if expected != found {
                let name = format!("{path}.{name}.weight");
                let (expected, found) = (expected.to_vec(), found.to_vec());
                return Err(PeftError::Shape { name, expected, found });
            }
        }
        Ok(())
    }

    fn sizes(&self, [batch, tokens, width]: [usize; 3]) -> cpu::Half {
        let some = |mask: Option<Dropout>| mask.filter(|mask| mask.rate > 0.0);
        cpu::Half {
            batch,
            tokens,
            width,
            up: self.up.sizes(),
            down: self.down.sizes(),
            epsilon: self.epsilon,
            up_mask: some(self.up_mask),
            down_mask: some(self.down_mask),
            residual: self.residual,
        }
    }

    fn operands(&self, x: &Tensor<3>) -> [Option<Operand>; 11] {
        let [w1, b1, a1, f1] = self.up.operands();
        let [w2, b2, a2, f2] = self.down.operands();
        let (x, gamma, beta) = (Operand::of(x), Operand::of(&self.gamma), Operand::of(&self.beta));
        [x, gamma, beta, w1, b1, a1, f1, w2, b2, a2, f2]
    }

    /// Whether the form for the CPU takes it.
    fn fits(&self, [batch, tokens, width]: [usize; 3]) -> bool {
        let hidden = self.up.sizes().outputs;
        let longest = tokens.max(width).max(hidden);
        let biases = self.up.bias.is_some() && self.down.bias.is_some();
        biases && dropout::in_reach(batch * longest * longest.max(tokens.max(width)))
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let rows = x.reshape([batch * tokens, width]);
        normalise::composed(rows, self.gamma.clone(), self.beta.clone(), self.epsilon)
            .reshape([batch, tokens, width])
    }
}

/// Along the tokens of `x`, batch x tokens x width; hidden activations lie batch x hidden x width.
pub fn mix_tokens(x: Tensor<3>, half: Half) -> Tensor<3> {
    let shape = x.dims();
    if half.fits(shape)
        && let Some(y) = cpu::apply(Tokens(half.sizes(shape)), half.operands(&x))
    {
        return y;
    }
    composed_tokens(x, half)
}

/// Along the width of `x`, batch x tokens x width; hidden activations lie batch x tokens x hidden.
pub fn mix_channels(x: Tensor<3>, half: Half) -> Tensor<3> {
    let shape = x.dims();
    if half.fits(shape)
        && let Some(y) = cpu::apply(Channels(half.sizes(shape)), half.operands(&x))
    {
        return y;
    }
    composed_channels(x, half)
}

/// The definition.
pub(super) fn composed_tokens(x: Tensor<3>, half: Half) -> Tensor<3> {
    let along = |map: &LinearMap, x: Tensor<3>| {
        let y = map.sum().transpose().unsqueeze::<3>().matmul(x);
        match &map.bias {
            Some(bias) => y + bias.clone().reshape([1, map.weight.dims()[1], 1]),
            None => y,
        }
    };
    let hidden = masked(gelu(along(&half.up, half.normed(x.clone()))), half.up_mask);
    let y = masked(along(&half.down, hidden), half.down_mask);
    if half.residual { x + y } else { y }
}

/// The definition.
pub(super) fn composed_channels(x: Tensor<3>, half: Half) -> Tensor<3> {
    let along = |map: &LinearMap, x: Tensor<3>| {
        let y = x.matmul(map.sum().unsqueeze::<3>());
        match &map.bias {
            Some(bias) => y + bias.clone().unsqueeze::<3>(),
            None => y,
        }
    };
    let hidden = masked(gelu(along(&half.up, half.normed(x.clone()))), half.up_mask);
    let y = masked(along(&half.down, hidden), half.down_mask);
    if half.residual { x + y } else { y }
}

fn masked(x: Tensor<3>, mask: Option<Dropout>) -> Tensor<3> {
    match mask.filter(|mask| mask.rate > 0.0) {
        Some(mask) => dropout::composed(x, mask),
        None => x,
    }
}
