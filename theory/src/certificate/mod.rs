//! Rigorous certificates of strict local minima.
//!
//! A certificate says of the symmetric population objective of given offsets: in an explicit ball
//! there is exactly one critical point, the curvature is positive on the whole ball (modulo gauge,
//! for k >= 2), and the value is above zero, the global minimum. [`certify`] makes one, [`verify`]
//! proves a stored one anew with nothing in common but interval arithmetic and the reading of numbers.
//! [`Instance`] holds those of theory.md C7.
//!
//! ```
//! use peftml_theory::certificate::{Certificate, Instance, verify};
//!
//! // Three tasks in integers, d = 4, k = 1: a minimum of value 3.195, where zero is possible.
//! let mut certificate = Instance::integer().certify().expect("it is one of theory.md C7");
//! let read = Certificate::from_json(&certificate.to_json()).expect("what was written");
//! assert!(verify(&read).is_ok());
//! // A curvature that is claimed too large is not proved.
//! certificate.lambda_min_lower = "3e-1".into();
//! assert!(verify(&certificate).is_err());
//! ```
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
