//! Problems with a known ground truth.

pub mod linear;
pub mod shallow;
