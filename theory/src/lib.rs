//! The problem: linear tasks with low-rank offsets, their losses, derivatives and predictions.
//!
//! Task `t` has the truth `A*_t = A* + R*_t` with a common `A*` (d x d) and an offset `R*_t` of rank
//! k. Retraining looks for a base `A` from which an unseen task is one rank-k adapter away. Notation
//! follows Block et al. 2025 (arXiv:2410.22264).
//!
//! ```
//! use peftml_linalg::{Blocks, Seed};
//! use peftml_theory::Objective;
//! use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
//!
//! let mut stream = Seed::root(1).stream();
//! let base = stream.normal_matrix(4, 4, 1.0);
//! let factors: Vec<_> = (0..3).map(|_| stream.normal_matrix(4, 1, 1.0)).collect();
//! let tasks = Tasks::exact(factors.iter().map(|u| &base + u * u.transpose()))?;
//!
//! // What the adapted tasks still disagree in: nothing, where the adapters are the tasks' own.
//! let objective = ProfileObjective::new(&tasks, Kind::Symmetric, 1)?;
//! let truth = Blocks::from_matrices("U", factors.iter().map(|u| u.as_ref()));
//! let mut work = vec![0.0; objective.work_len()];
//! let mut gradient = Blocks::zeros(objective.layout().clone());
//! assert!(objective.gradient(&truth, &mut gradient, &mut work) < 1e-28);
//! assert!(gradient.norm() < 1e-13);
//! // .. and the base that goes with them is the tasks' base.
//! assert!((objective.base(&truth) - &base).norm_l2() < 1e-13);
//! # Ok::<(), peftml_theory::linear::LinearError>(())
//! ```
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
