//! The vision studies: binary tasks from pairs of image classes, retrained with and without adapters, then
//! fine-tuned on a pair that was not seen.
//!
//! What a trial is stands in [`crate::networks`]. Images, split, order, initial weights and fresh adapters of a
//! seed are the same for every method. Source: experiments.md, section 3.

pub mod config;
pub mod images;
mod scene;

use crate::networks::NetworkStudy;

/// A vision study.
pub type VisionStudy = NetworkStudy<config::VisionConfig>;

#[cfg(test)]
mod tests;
