//! Solvers for low-rank meta-learning on linear tasks.
//!
//! Two levels. [`Solver`] is one step of an iteration on any [`peftml_theory::Objective`], driven by
//! [`iterate::run`]. [`BaseSolver`] answers the question that users have, "which base does
//! meta-learning find for these tasks", whether by iteration or in closed form; [`registry`] lists
//! every one of them.
//!
//! The crate knows no theorem, file or clock; solvers are configuration only (`&self`).

pub mod adamw;
pub mod first_order;
pub mod iterate;
pub mod iterative;
pub mod low_rank;
mod preconditioner;
pub mod problem;
mod reduction;
mod registry;
pub mod second_order;

pub use adamw::AdamW;
pub use iterate::{Evaluations, Observer, Solver, State, StopReason, StopRule};
pub use iterative::{Iterative, Limits};
pub use problem::{BaseSolver, Problem, Solution, SolveError};
pub use registry::{Entry, Order, SettingInfo, Settings, entry, registry};
