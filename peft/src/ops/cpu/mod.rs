//! Forms for the CPU: one sweep over memory where the composed form makes many, with derivatives of
//! their own.

mod bridge;
mod number;
mod parts;

mod activation;
mod attention;
mod block;
mod channels;
mod dense;
mod low_rank;
mod normalise;
mod tokens;
mod update;
mod wide;

pub(super) use activation::{BiasGeluDropout, DropoutAlone};
pub(super) use attention::{Attention, HIDDEN};
pub(super) use block::Half;
pub(super) use bridge::{Operand, apply};
pub(super) use channels::Channels;
pub(super) use dense::Dense;
pub(super) use low_rank::Sizes;
pub(super) use normalise::{AddNorm, LayerNorm, LayerNormMean};
pub(super) use number::Number;
pub(super) use tokens::Tokens;
pub(super) use update::adam;
