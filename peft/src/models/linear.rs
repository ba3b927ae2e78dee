//! The paper's linear model: `y = x W`, no bias, start `W = 0`.

use super::{at_least_one, vectors};
use crate::parameters::Init;
use crate::sites::Sites;
use crate::{Input, Network, Pass, PeftError};
use burn::tensor::Tensor;

/// The module's only layer.
const LAYER: &str = "linear";

/// A linear map; see the module's text.
#[derive(Debug)]
pub struct Linear {
    sites: Sites,
}

impl Linear {
    /// A map of vectors of length `inputs` to vectors of length `outputs`.
    ///
    /// # Errors
    /// [`PeftError::Range`] for a length of 0.
    pub fn new(inputs: usize, outputs: usize) -> Result<Self, PeftError> {
        at_least_one("inputs", inputs)?;
        at_least_one("outputs", outputs)?;
        let mut sites = Sites::default();
        sites.linear_from(LAYER, [inputs, outputs], Init::Constant(0.0), None);
        sites.head(LAYER);
        Ok(Self { sites })
    }
}

impl Network for Linear {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        pass.linear(LAYER, vectors(input)?)
    }
}
