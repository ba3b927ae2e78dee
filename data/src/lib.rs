//! Task sources for peftml: synthetic problems, NumPy files and images.
//!
//! * [`synthetic::linear`]: the linear problems of the studies, drawn from named streams.
//! * [`synthetic::shallow`]: the shallow-network problems, likewise.
//! * [`synthetic::images`]: images of gratings, for studies that need no data set.
//! * [`synthetic::dialogues`]: dialogues of personas with favourite words, likewise.
//! * [`cifar`]: CIFAR-10 from its official files.
//! * [`convai2`]: dialogues with personas in ParlAI's text format.
//! * [`texts`]: labelled text as CSV or JSON lines.
//! * [`linear`]: tasks, bases and adapters in NumPy archives.
//! * [`folder`]: tasks in a folder of arrays, larger than memory.
//! * [`npz`]: NumPy archives, read within bounds and written all or nothing.
//!
//! The crate knows neither solvers nor networks.

pub mod cifar;
pub mod convai2;
mod error;
pub mod folder;
mod images;
pub mod linear;
pub mod npz;
pub mod synthetic;
pub mod texts;

pub use error::{DataError, FileProblem, MemberProblem, OutputProblem, Shape};
pub use images::Images;
