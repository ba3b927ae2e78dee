//! Methods that use the low rank itself: no iteration over a non-convex landscape.

pub mod base_system;
pub mod global;
pub mod intersection;
mod judgement;
pub mod parts;
pub mod reduced_rank;
mod scale;
pub mod symmetric_inner;
pub mod two_task;

pub use global::Global;
pub use scale::flops;
pub use two_task::TwoTask;
