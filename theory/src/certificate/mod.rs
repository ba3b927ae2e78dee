//! Rigorous certificates of strict local minima.
//!
//! A certificate says of the symmetric population objective of given offsets: in an explicit ball
//! there is exactly one critical point, the curvature is positive on the whole ball (modulo gauge,
//! for k >= 2), and the value is above zero, the global minimum. [`certify`] makes one, [`verify`]
//! proves a stored one anew with nothing in common but interval arithmetic and the reading of numbers.
//! [`Instance`] holds those of theory.md C7.
//!
//! Limits: at most 400 coordinates T d k; adapters of full rank (for k >= 2); exact tasks, symmetric
//! adapters.

mod error;
mod file;
mod instances;
mod interval;
mod make;
pub mod number;
mod verify;

pub use error::{MakeError, ProofError, ReadError};
pub use file::{Certificate, FORMULA, LARGEST_TEXT, LARGEST_UNKNOWNS, Norm, SLICE, TextArray};
pub use instances::Instance;
pub use interval::{Interval, IntervalMatrix};
pub use make::certify;
pub use verify::{Proof, verify};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
