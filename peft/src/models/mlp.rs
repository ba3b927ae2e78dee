//! Multilayer perceptron: `h <- dropout(gelu(h W + b))`, then a linear head. Images enter as vectors.

use super::{at_least_one, rate, vectors};
use crate::sites::Sites;
use crate::{Input, Network, Pass, PeftError};
use burn::tensor::Tensor;

/// Sizes of an [`Mlp`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Length of an input.
    pub inputs: usize,
    /// Lengths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Length of an output.
    pub classes: usize,
    /// Dropout behind each hidden layer.
    #[serde(default)]
    pub dropout: f64,
}

/// The network; see the module's text.
#[derive(Debug)]
pub struct Mlp {
    config: MlpConfig,
    sites: Sites,
}

impl Mlp {
    /// A network of these sizes.
    ///
    /// # Errors
    /// [`PeftError::Range`] for a length of 0 or a rate outside [0, 1).
    pub fn new(config: MlpConfig) -> Result<Self, PeftError> {
        at_least_one("inputs", config.inputs)?;
        at_least_one("classes", config.classes)?;
        rate("dropout", config.dropout)?;
        let (mut sites, mut width) = (Sites::default(), config.inputs);
        for (i, &hidden) in config.hidden.iter().enumerate() {
            at_least_one("hidden", hidden)?;
            sites.linear(&format!("layers.{i}"), width, hidden, true);
            sites.block(&format!("layers.{i}"), hidden);
            width = hidden;
        }
        sites.linear("head", width, config.classes, true);
        sites.head("head");
        Ok(Self { config, sites })
    }
}

impl Network for Mlp {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        let mut h = vectors(input)?;
        for i in 0..self.config.hidden.len() {
            let path = format!("layers.{i}");
            h = pass.block(&path, pass.linear_gelu_dropout(&path, h, self.config.dropout)?)?;
        }
        pass.linear("head", h)
    }
}
