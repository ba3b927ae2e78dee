//! Retraining and fine-tuning, for any network and any method.
//!
//! A [`Training`] is configuration; all that changes is [`TrainingState`], which is also what a checkpoint
//! holds. Orders, masks and changes of images are drawn below the training's seed by role and number, so
//! a state needs no generator: step and seed say what comes next, and a training that was stopped and
//! resumed ends at the same bits.

mod checkpoint;
mod config;
mod evaluate;
mod order;
mod rounds;
mod training;

pub use config::{Algorithm, InnerState, Rounds, TrainingConfig};
pub use evaluate::{Evaluation, evaluate, evaluate_each};
pub use training::{Best, Record, Training, TrainingState};
