//! Solvers for low-rank meta-learning on linear tasks.
//!
//! Two levels. [`Solver`] is one step of an iteration on any [`peftml_theory::Objective`], driven by
//! [`iterate::run`]. [`BaseSolver`] answers the question that users have, "which base does
//! meta-learning find for these tasks", whether by iteration or in closed form; [`registry`] lists
//! every one of them.
//!
//! ```
//! use peftml_linalg::Seed;
//! use peftml_solvers::{Problem, Settings, entry, iterate::Silent};
//! use peftml_theory::linear::{Kind, Tasks};
//!
//! // Three tasks that share a base up to offsets u u^T.
//! let mut stream = Seed::root(1).stream();
//! let base = stream.normal_matrix(6, 6, 1.0);
//! let factors: Vec<_> = (0..3).map(|_| stream.normal_matrix(6, 1, 1.0)).collect();
//! let tasks = Tasks::exact(factors.iter().map(|u| &base + u * u.transpose()))?;
//!
//! let solver = entry("global").expect("it is in the registry").build(&Settings::default())?;
//! let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
//! let found = solver.solve(&problem, None, &mut Silent)?;
//! assert!((&found.base - &base).norm_l2() < 1e-10, "three tasks determine the base");
//! # Ok::<(), peftml_solvers::SolveError>(())
//! ```
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
