//! Task sources for peftml: synthetic problems and NumPy files.
//!
//! * [`synthetic::linear`]: the linear problems of the studies, drawn from named streams.
//! * [`synthetic::shallow`]: the shallow-network problems, likewise.
//! * [`linear`]: tasks, bases and adapters in NumPy archives.
//! * [`npz`]: NumPy archives, read within bounds and written all or nothing.
//!
//! The crate knows neither solvers nor networks.

mod error;
pub mod linear;
pub mod npz;
pub mod synthetic;

pub use error::{DataError, FileProblem, MemberProblem, OutputProblem, Shape};
