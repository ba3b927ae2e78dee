//! Criterion benchmarks of peftml beside its peers.
//!
//! `benches/linear.rs` times the hot kernels; their names carry the sizes (`authors/d10-k1-T3-N5000`).
//! The programs in `src/bin` run ours and a peer's script from `peers/` on the same problem in one
//! run and print the ratio. A ratio counts only where the peer is as fast as it should be: each
//! script's per-step times are held against those that the reference's own code is known to reach.

pub mod peer;
pub mod problem;
