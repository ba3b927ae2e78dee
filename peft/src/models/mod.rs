//! Networks to train.

mod encoder;
mod linear;
mod mixer;
mod mlp;
mod without_biases;

pub use encoder::{Encoder, EncoderConfig, EncoderForm, EncoderHead, Family, masked_mean};
pub use linear::Linear;
pub use mixer::{Mixer, MixerConfig};
pub use mlp::{Mlp, MlpConfig};
pub use without_biases::WithoutBiases;

use crate::methods::in_range;
use crate::{Input, PeftError};
use burn::tensor::Tensor;

/// Images cut into patches: batch x patches x (channels side^2), a patch's numbers by channel, row, column.
pub(crate) fn patches(images: Tensor<4>, side: usize) -> Tensor<3> {
    let [batch, channels, height, width] = images.dims();
    let (down, across) = (height / side, width / side);
    images
        .reshape([batch, channels, down, side, across, side])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch, down * across, channels * side * side])
}

/// The vectors of `input`; images as vectors, channel by channel.
fn vectors(input: &Input) -> Result<Tensor<2>, PeftError> {
    match input {
        Input::Vectors(x) => Ok(x.clone()),
        Input::Images(images) => {
            let [batch, channels, height, width] = images.dims();
            Ok(images.clone().reshape([batch, channels * height * width]))
        }
        Input::Tokens(_) | Input::Sequences(_) => {
            let expected = "vectors or images";
            Err(PeftError::InputKind { expected, found: input.kind() })
        }
    }
}

fn at_least_one(name: &str, value: usize) -> Result<(), PeftError> {
    in_range(name, value as f64, value >= 1, "at least 1")
}

fn rate(name: &str, value: f64) -> Result<(), PeftError> {
    in_range(name, value, (0.0..1.0).contains(&value), "from 0 to below 1")
}
