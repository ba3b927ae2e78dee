//! The network's sizes and its parameters' places.

use super::ShallowError;
use peftml_linalg::{BlockSpec, Layout};

/// Sizes of the two-layer network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Inputs d.
    pub inputs: usize,
    /// Hidden units h.
    pub hidden: usize,
    /// Whether both layers have biases. The reference's description (weights only) has none.
    pub biases: bool,
}

impl Sizes {
    /// A network of `inputs` inputs and as many hidden units, without biases: the study's.
    pub fn square(inputs: usize) -> Self {
        Self { inputs, hidden: inputs, biases: false }
    }

    /// Checks that nothing is empty.
    ///
    /// # Errors
    /// [`ShallowError::Zero`].
    pub fn check(&self) -> Result<(), ShallowError> {
        match (self.inputs, self.hidden) {
            (0, _) => Err(ShallowError::Zero { name: "inputs" }),
            (_, 0) => Err(ShallowError::Zero { name: "hidden" }),
            _ => Ok(()),
        }
    }

    /// Blocks of a network: `W` (h x d), `c` (h x 1), with biases also `b` (h x 1) and `b_out`
    /// (1 x 1).
    pub fn layout(&self) -> Layout {
        let block = |name: &str, rows, cols| BlockSpec { name: name.into(), rows, cols };
        let mut specs = vec![block("W", self.hidden, self.inputs), block("c", self.hidden, 1)];
        if self.biases {
            specs.extend([block("b", self.hidden, 1), block("b_out", 1, 1)]);
        }
        Layout::new(specs)
    }

    /// Columns of the first layer: the inputs, and a constant 1 where there are biases.
    pub(crate) fn columns(&self) -> usize {
        self.inputs + usize::from(self.biases)
    }

    /// Number of scalars of the network.
    pub(crate) fn layout_len(&self) -> usize {
        self.hidden * (self.inputs + 1) + if self.biases { self.hidden + 1 } else { 0 }
    }

    /// Number of blocks of the network.
    pub(crate) fn blocks(&self) -> usize {
        if self.biases { 4 } else { 2 }
    }
}
