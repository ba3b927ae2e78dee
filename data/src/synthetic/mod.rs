//! Problems with a known ground truth.

pub mod dialogues;
pub mod images;
pub mod linear;
pub mod shallow;
