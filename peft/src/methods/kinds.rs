//! What a method can act on, and what it sees there.

use crate::PeftError;
use crate::ops::{Dropout, dropout};
use crate::parameters::{Parameters, Spec};
use crate::sites::{BlockSite, LinearSite, Sites};
use burn::tensor::Tensor;
use peftml_linalg::Seed;

/// A method, by what it acts on.
pub enum Kind {
    /// Linear maps' weights.
    Weight(Box<dyn WeightMethod>),
    /// Sublayers' outputs.
    Activation(Box<dyn ActivationMethod>),
    /// Token sequences, keys and values.
    Input(Box<dyn InputMethod>),
    /// Parameters of the network itself.
    Selection(Box<dyn SelectionMethod>),
}

/// What binding a method to a network changed or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A rank larger than a layer's smaller side.
    RankCapped {
        /// The layer.
        layer: String,
        /// The rank asked for.
        asked: usize,
        /// The rank used.
        used: usize,
    },
    /// A block size that does not divide a layer's inputs.
    BlockSize {
        /// The layer.
        layer: String,
        /// The size asked for.
        asked: usize,
        /// The size used.
        used: usize,
    },
    /// A layer that the method cannot act on.
    Skipped {
        /// The layer.
        layer: String,
        /// Why.
        reason: &'static str,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::RankCapped { layer, asked, used } => {
                write!(f, "{layer}: rank {asked} is more than fits, {used} is used")
            }
            Note::BlockSize { layer, asked, used } => {
                write!(f, "{layer}: block size {asked} does not divide its inputs, {used} is used")
            }
            Note::Skipped { layer, reason } => write!(f, "{layer} is left alone: {reason}"),
        }
    }
}

/// A parameterisation `W(W0, theta)` of linear maps `x W + b`, `W` inputs x outputs.
pub trait WeightMethod: Send + Sync {
    /// The parameters at `layer`; none where the method does not act on it (with a note that says why).
    ///
    /// # Errors
    /// [`PeftError::Rank`] where a setting was made for this very layer and does not fit it.
    fn parameters(&self, layer: &LinearSite, notes: &mut Vec<Note>)
    -> Result<Vec<Spec>, PeftError>;

    /// How many numbers are trained at `layer`: the documented formula.
    fn count(&self, layer: &LinearSite) -> usize;

    /// Parameters that all layers share.
    fn shared(&self, _layers: &[LinearSite]) -> Vec<Spec> {
        Vec::new()
    }

    /// `W(W0, theta)`.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] for parameters of another method.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError>;

    /// `x W(W0, theta)`, `x` rows x inputs; to be overridden where there is a cheaper way than forming
    /// the weight.
    ///
    /// # Errors
    /// As [`WeightMethod::weight`].
    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        Ok(x.matmul(self.weight(base, theta)?))
    }

    /// The same as a low-rank addition to the base, `W = W0 + A B`; `None` where it is none. Networks then
    /// multiply by the weight in one operation that knows the cheap way to the gradients of A and B.
    ///
    /// # Errors
    /// As [`WeightMethod::weight`].
    fn low_rank(
        &self,
        _base: &Tensor<2>,
        _theta: &Theta<'_>,
    ) -> Result<Option<(Tensor<2>, Tensor<2>)>, PeftError> {
        Ok(None)
    }

    /// Whether [`WeightMethod::product`] is, in training too, the product with [`WeightMethod::weight`];
    /// not so where the method masks what enters its own path.
    fn is_plain(&self) -> bool {
        true
    }

    /// The bias; the base's own for most methods.
    ///
    /// # Errors
    /// As [`WeightMethod::weight`].
    fn bias(&self, base: Tensor<1>, _theta: &Theta<'_>) -> Result<Tensor<1>, PeftError> {
        Ok(base)
    }
}

/// A map of a sublayer's output.
pub trait ActivationMethod: Send + Sync {
    /// The parameters at `block`.
    fn parameters(&self, block: &BlockSite) -> Vec<Spec>;

    /// How many numbers are trained at `block`: the documented formula.
    fn count(&self, block: &BlockSite) -> usize;

    /// The output, rows x width, as the method leaves it.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] for parameters of another method.
    fn apply(&self, x: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError>;
}

/// A change of what a network's layers get to see.
pub trait InputMethod: Send + Sync {
    /// The parameters for a network with these sites.
    ///
    /// # Errors
    /// [`PeftError::NoSite`] where the network has not what the method needs; [`PeftError::Range`].
    fn parameters(&self, sites: &Sites) -> Result<Vec<Spec>, PeftError>;

    /// How many numbers are trained: the documented formula.
    fn count(&self, sites: &Sites) -> usize;

    /// The embedded tokens, batch x length x width.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] for parameters of another method.
    fn tokens(&self, x: Tensor<3>, _theta: &Theta<'_>) -> Result<Tensor<3>, PeftError> {
        Ok(x)
    }

    /// How many positions are taken before the sequence's first, though no token stands there.
    fn positions_before(&self) -> usize {
        0
    }

    /// Keys and values of attention number `layer`, batch x length x width each.
    ///
    /// # Errors
    /// As [`InputMethod::tokens`].
    fn keys_values(
        &self,
        _layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
        _theta: &Theta<'_>,
    ) -> Result<(Tensor<3>, Tensor<3>), PeftError> {
        Ok((keys, values))
    }
}

/// How a method takes hold of a parameter of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// It is replaced by a copy of its own, which is trained.
    Copy,
    /// It is replaced by one drawn anew, as the network's own start.
    Fresh,
    /// A trained difference, zero at first, is added to it.
    Delta,
}

/// A choice among the network's own parameters.
pub trait SelectionMethod: Send + Sync {
    /// What becomes of `parameter`; `None`: it stays the base's.
    fn select(&self, parameter: &Spec, sites: &Sites) -> Option<Selection>;
}

/// A method's parameters at one module.
pub struct Theta<'a> {
    parameters: &'a Parameters,
    constants: &'a Parameters,
    path: &'a str,
    masks: Option<Seed>,
}

impl<'a> Theta<'a> {
    pub(crate) fn new(
        parameters: &'a Parameters,
        constants: &'a Parameters,
        path: &'a str,
        masks: Option<Seed>,
    ) -> Self {
        Self { parameters, constants, path, masks }
    }

    /// The module's path.
    pub fn path(&self) -> &str {
        self.path
    }

    /// The parameter `name` of this module, or of all where none is the module's own.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`].
    pub fn get<const D: usize>(&self, name: &str) -> Result<Tensor<D>, PeftError> {
        let own = joined(self.path, name);
        let holder = if self.parameters.get(&own).is_some() {
            self.parameters
        } else if self.constants.get(&own).is_some() {
            self.constants
        } else {
            return self.constants.tensor(name);
        };
        holder.tensor(&own)
    }

    /// Whether this module has a parameter called `name`.
    pub fn has(&self, name: &str) -> bool {
        let own = joined(self.path, name);
        self.parameters.get(&own).is_some() || self.constants.get(&own).is_some()
    }

    /// `x` after the method's own dropout, in training.
    pub fn dropout(&self, x: Tensor<2>, rate: f64) -> Tensor<2> {
        dropout(x, self.masks.as_ref().map(|seed| Dropout::new(rate, seed)))
    }
}

/// The name of `name` at module `path`.
pub(crate) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
