//! Methods that use the low rank itself: no iteration over a non-convex landscape.

pub mod base_system;
pub mod global;
pub mod intersection;
pub mod parts;
pub mod reduced_rank;
pub mod symmetric_inner;
pub mod two_task;

pub use global::Global;
pub use two_task::TwoTask;
