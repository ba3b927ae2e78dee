//! The shallow network: `y = c^T sigmoid((A + U_t V_t^T) x)`, scalar output.
//!
//! * [`Sizes`], [`Network`]: a two-layer network of any width, with or without biases.
//! * [`Samples`]: a task's inputs and labels.
//! * [`RetrainingObjective`]: base, second layer and one adapter a task on the sum of the tasks' mean
//!   squared errors; standard retraining without adapters.
//! * [`FineTuningObjective`]: a fresh adapter on a frozen network.
//!
//! Derivatives are analytic, everything is in double precision, sums have one order: the same bits on
//! every machine and for any number of threads (nothing here starts any). The reference's description
//! has no biases in either layer; [`Sizes::biases`] adds both, as PyTorch's `Linear` does by default.
//! Source: Block et al. 2025 (arXiv:2410.22264), second experiment.

mod error;
mod fine_tuning;
mod gauss_newton;
mod kernel;
mod lanes;
mod network;
mod retraining;
mod samples;
mod second_order;
mod sigmoid;
mod sizes;

pub use error::ShallowError;
pub use fine_tuning::FineTuningObjective;
pub use network::Network;
pub use retraining::{Adapters, RetrainingObjective};
pub use samples::Samples;
pub use sigmoid::sigmoid_in_place;
pub use sizes::Sizes;

#[cfg(test)]
mod tests;
