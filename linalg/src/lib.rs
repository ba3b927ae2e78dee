//! Ground floor of peftml: points, factors, streams and comparison.
//!
//! * [`Blocks`]: a point in a product of matrix spaces, one contiguous buffer.
//! * [`LowRank`]: a factor pair `L R^T`, never formed unless asked for.
//! * [`Seed`], [`Stream`]: random streams named by a path from one root.
//! * [`decompose`]: symmetric eigenvalues, thin SVD, QR and Cholesky with typed errors.
//! * [`compare`]: errors scaled by size, distances between subspaces.
//! * [`kernel`]: products with explicit, sequential arithmetic.
//! * [`panel`]: the same for matrices so small that a call costs more than its arithmetic.
//! * [`packed`]: the same for matrices that are multiplied many times.
//! * [`workers`]: parallelism as an argument.
//!
//! The crate knows nothing of tasks or losses. It starts no threads, reads no clock, no
//! environment and no file; equal inputs give equal bits on one machine type.

pub mod blocks;
pub mod compare;
pub mod decompose;
pub mod kernel;
pub mod low_rank;
pub mod packed;
pub mod panel;
pub mod seed;
pub mod workers;

pub use blocks::{BlockSpec, Blocks, Layout};
pub use decompose::DecompositionError;
pub use low_rank::{LowRank, ThinSvd};
pub use seed::{Seed, SeedLabel, Stream};
pub use workers::{Sequential, Workers};
