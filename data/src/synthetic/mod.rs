//! Problems with a known ground truth.

pub mod images;
pub mod linear;
pub mod shallow;
