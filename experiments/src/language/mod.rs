//! The language studies: choosing the reply of a persona among candidates, retrained on dialogues of some
//! personas, then fine-tuned on each of others.
//!
//! What a trial is stands in [`crate::networks`]. A task is the dialogues of one persona, or of one cluster of
//! personas; an example is a turn: for each of its candidates the sequence `[CLS] context [SEP] [CLS] candidate [SEP]`,
//! of which a head with two classes says whether it is the true reply. The loss is the mean cross-entropy of these
//! decisions, a turn is hit where the true reply has the largest logit of class 1. Every test task's dialogues are
//! divided into folds; each fold is held out once, a model fine-tuned on the others is tested on it.
//! Source: experiments.md, section 4. Limits: a head that stands alone is trained on vectors that are computed once,
//! so without the encoder's dropout.

mod answer;
pub mod config;
mod examples;
mod scene;
mod talk;

use crate::networks::NetworkStudy;

/// A language study.
pub type LanguageStudy = NetworkStudy<config::LanguageConfig>;

#[cfg(test)]
mod tests;
