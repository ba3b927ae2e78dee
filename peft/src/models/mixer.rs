//! MLP-Mixer: patches are embedded; each block mixes tokens, then channels; the mean over the tokens goes
//! to a linear head.
//!
//! A block, pre-norm with residuals, X tokens x width: `X += T(norm(X))`, T acting along the tokens, then
//! `X += C(norm(X))`, C along the width; T and C are `dropout(W2 dropout(gelu(W1 x + b1)) + b2)`.
//! Source: Tolstikhin et al. 2021 (arXiv:2105.01601). With the defaults (32 x 32 x 3, patches of 4, width
//! 512, one block, expansions 4 and 1/2, 2 classes) the paper's 325,186 parameters.

use super::{at_least_one, patches, rate};
use crate::methods::in_range;
use crate::ops::Along;
use crate::sites::Sites;
use crate::{Input, Network, Pass, PeftError};
use burn::tensor::Tensor;

/// Sizes of a [`Mixer`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixerConfig {
    /// Height and width of an image.
    pub image_side: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Height and width of a patch.
    pub patch_side: usize,
    /// Length of a token.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Hidden length of token mixing over the number of tokens.
    pub token_expansion: f64,
    /// Hidden length of channel mixing over the width.
    pub channel_expansion: f64,
    /// Dropout rate.
    pub dropout: f64,
    /// Number of classes.
    pub classes: usize,
}

impl Default for MixerConfig {
    fn default() -> Self {
        Self {
            image_side: 32,
            channels: 3,
            patch_side: 4,
            width: 512,
            blocks: 1,
            token_expansion: 4.0,
            channel_expansion: 0.5,
            dropout: 0.1,
            classes: 2,
        }
    }
}

/// Added to variances, as PyTorch's default.
const NORM_EPSILON: f64 = 1e-5;

/// The network; see the module's text.
#[derive(Debug)]
pub struct Mixer {
    config: MixerConfig,
    sites: Sites,
}

impl Mixer {
    /// A network of these sizes.
    ///
    /// # Errors
    /// [`PeftError::Range`] for a length of 0, a rate outside [0, 1), a patch that does not divide the image.
    pub fn new(config: MixerConfig) -> Result<Self, PeftError> {
        let c = &config;
        for (name, value) in [
            ("image_side", c.image_side),
            ("channels", c.channels),
            ("patch_side", c.patch_side),
            ("width", c.width),
            ("blocks", c.blocks),
            ("classes", c.classes),
        ] {
            at_least_one(name, value)?;
        }
        rate("dropout", c.dropout)?;
        let divides = c.image_side.is_multiple_of(c.patch_side);
        in_range("patch_side", c.patch_side as f64, divides, "a divisor of image_side")?;
        let tokens = (c.image_side / c.patch_side).pow(2);
        let hidden_tokens = expanded("token_expansion", c.token_expansion, tokens)?;
        let hidden_width = expanded("channel_expansion", c.channel_expansion, c.width)?;
        let mut sites = Sites::default();
        sites.linear("embed", c.channels * c.patch_side.pow(2), c.width, true);
        for i in 0..c.blocks {
            sites.layer_norm(&format!("blocks.{i}.token_norm"), c.width);
            two_layers(&mut sites, &format!("blocks.{i}.token"), tokens, hidden_tokens);
            sites.block(&format!("blocks.{i}.token"), c.width);
            sites.layer_norm(&format!("blocks.{i}.channel_norm"), c.width);
            two_layers(&mut sites, &format!("blocks.{i}.channel"), c.width, hidden_width);
            sites.block(&format!("blocks.{i}.channel"), c.width);
        }
        sites.layer_norm("norm", c.width);
        sites.linear("head", c.width, c.classes, true);
        sites.head("head");
        Ok(Self { config, sites })
    }

    fn images(&self, input: &Input) -> Result<Tensor<4>, PeftError> {
        let Input::Images(images) = input else {
            return Err(PeftError::InputKind { expected: "images", found: input.kind() });
        };
        let (side, found) = (self.config.image_side, images.dims());
        let expected = [found[0], self.config.channels, side, side];
        if found != expected {
            let (expected, found) = (expected.to_vec(), found.to_vec());
            return Err(PeftError::Shape { name: "images".into(), expected, found });
        }
        Ok(images.clone())
    }
}

impl Network for Mixer {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        let cut = patches(self.images(input)?, self.config.patch_side);
        let mut x = pass.linear("embed", cut)?;
        let rate = self.config.dropout;
        for i in 0..self.config.blocks {
            for (half, along) in [("token", Along::Tokens), ("channel", Along::Channels)] {
                x = pass.half_block(&format!("blocks.{i}.{half}"), x, rate, NORM_EPSILON, along)?;
            }
        }
        let mean = pass.layer_norm_mean("norm", x, NORM_EPSILON)?;
        pass.linear("head", mean)
    }
}

fn two_layers(sites: &mut Sites, path: &str, width: usize, hidden: usize) {
    sites.linear(&format!("{path}.up"), width, hidden, true);
    sites.linear(&format!("{path}.down"), hidden, width, true);
}

fn expanded(name: &str, factor: f64, length: usize) -> Result<usize, PeftError> {
    let hidden = factor * length as f64;
    in_range(name, factor, (1.0..=1e6).contains(&hidden), "a hidden length from 1 to 1,000,000")?;
    Ok(hidden as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::values;
    use crate::{Place, Precision};

    #[test]
    fn it_has_the_papers_number_of_parameters() {
        let mixer = Mixer::new(MixerConfig::default()).unwrap();
        assert_eq!(mixer.sites().count(), 325_186);
        assert_eq!(mixer.sites().linears().len(), 6);
    }

    #[test]
    fn a_patch_is_a_square_of_the_image() {
        let place = Place::cpu(Precision::F64);
        let numbers = (0..2 * 16).map(f64::from).collect();
        let image = place.tensor(numbers, [1, 2, 4, 4]).unwrap();
        let cut = patches(image, 2);
        assert_eq!(cut.dims(), [1, 4, 8]);
        // The second patch: rows 0 and 1, columns 2 and 3, of both channels.
        let second = values(&cut.narrow(1, 1, 1)).unwrap();
        assert_eq!(second, [2., 3., 6., 7., 18., 19., 22., 23.]);
    }
}
