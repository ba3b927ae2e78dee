//! Criterion benchmarks of peftml beside its peers.
//!
//! `benches/` times the hot kernels and whole solves; names carry the sizes (`authors/d10-k1-T3-N5000`), and
//! the number of allocations stands beside the time. The comparison of solvers with the packages that people
//! would otherwise use is `peftml bench`.
//! The programs in `src/bin` run ours and a peer's script from `peers/` on the same problem in one
//! run and print the ratio. A ratio counts only where the peer is as fast as it should be: each
//! script's per-step times are held against those that the reference's own code is known to reach.

pub mod counted;
pub mod hard;
pub mod peer;
pub mod problem;
