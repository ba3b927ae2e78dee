//! The problem: linear tasks with low-rank offsets, their losses, derivatives and predictions.
//!
//! Task `t` has the truth `A*_t = A* + R*_t` with a common `A*` (d x d) and an offset `R*_t` of rank
//! k. Retraining looks for a base `A` from which an unseen task is one rank-k adapter away. Notation
//! follows Block et al. 2025 (arXiv:2410.22264).
//!
//! The crate knows nothing of solvers, files or clocks.

pub mod certificate;
pub mod derivative_check;
pub mod exact;
pub mod linear;
pub mod objective;
pub mod optimality;
pub mod shallow;

pub use objective::{Gauge, Objective};
