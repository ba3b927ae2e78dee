//! Task sources for peftml: synthetic problems and NumPy files.
//!
//! * [`synthetic::linear`]: the linear problems of the studies, drawn from named streams.
//!
//! The crate knows neither solvers nor networks.

mod error;
pub mod synthetic;

pub use error::DataError;
