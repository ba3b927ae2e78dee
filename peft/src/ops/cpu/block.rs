//! What the two halves of a mixer block have in common: sizes, operands, and sums over parts.
//!
//! Operands: x, gamma, beta, then W, b, A, B of the way up and of the way down.

use super::low_rank::{Sizes, Weight, WeightSums};
use super::normalise::NormSums;
use super::number::Number;
use super::parts::total;
use crate::ops::dropout::Dropout;

/// Sizes and masks of a half: a batch of tokens x width.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Half {
    pub(in crate::ops) batch: usize,
    pub(in crate::ops) tokens: usize,
    pub(in crate::ops) width: usize,
    /// To the hidden activations.
    pub(in crate::ops) up: Sizes,
    /// And back.
    pub(in crate::ops) down: Sizes,
    /// Added to variances.
    pub(in crate::ops) epsilon: f64,
    /// Of the hidden activations.
    pub(in crate::ops) up_mask: Option<Dropout>,
    /// Of the output.
    pub(in crate::ops) down_mask: Option<Dropout>,
    /// Whether the input is added to the output.
    pub(in crate::ops) residual: bool,
}

impl Half {
    /// Elementary steps of one product.
    pub(super) fn steps(&self) -> usize {
        self.batch * self.tokens * self.width * self.up.outputs
    }
}

/// The weights of both ways, and which gradients are wanted.
pub(super) struct Weights<'a, T> {
    pub(super) up: Weight<'a, T>,
    pub(super) down: Weight<'a, T>,
    wanted: [bool; 11],
}

/// What a part sums over its rows.
pub(super) struct Sums<T> {
    pub(super) norm: NormSums<T>,
    pub(super) up: WeightSums<T>,
    pub(super) down: WeightSums<T>,
    pub(super) up_bias: Vec<T>,
    pub(super) down_bias: Vec<T>,
}

impl<'a, T: Number> Weights<'a, T> {
    pub(super) fn new(half: &Half, operands: [&'a [T]; 11], wanted: [bool; 11]) -> Self {
        let at = |sizes, first: usize| Weight {
            sizes,
            w: operands[first],
            a: operands[first + 2],
            b: operands[first + 3],
            wanted: [wanted[first], wanted[first + 2], wanted[first + 3]],
        };
        Self { up: at(half.up, 3), down: at(half.down, 7), wanted }
    }

    pub(super) fn sums(&self, width: usize) -> Sums<T> {
        Sums {
            norm: NormSums::new(width, self.wanted[1] || self.wanted[2]),
            up: WeightSums::new(&self.up),
            down: WeightSums::new(&self.down),
            up_bias: vec![T::ZERO; self.up.sizes.outputs],
            down_bias: vec![T::ZERO; self.down.sizes.outputs],
        }
    }

    /// The gradients of all operands.
    pub(super) fn gradients(&self, parts: Vec<Sums<T>>, in_x: Vec<T>) -> [Option<Vec<T>>; 11] {
        let (mut norms, mut ups, mut downs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut up_bias, mut down_bias) = (Vec::new(), Vec::new());
        for part in parts {
            norms.push(part.norm);
            ups.push(part.up);
            downs.push(part.down);
            up_bias.push(part.up_bias);
            down_bias.push(part.down_bias);
        }
        let wanted = self.wanted;
        let (in_gamma, in_beta) = NormSums::totals(norms);
        let [in_w1, in_a1, in_f1] = self.up.gradients(ups);
        let [in_w2, in_a2, in_f2] = self.down.gradients(downs);
        [
            wanted[0].then_some(in_x),
            wanted[1].then_some(in_gamma),
            wanted[2].then_some(in_beta),
            in_w1,
            wanted[4].then(|| total(up_bias)),
            in_a1,
            in_f1,
            in_w2,
            wanted[8].then(|| total(down_bias)),
            in_a2,
            in_f2,
        ]
    }
}
