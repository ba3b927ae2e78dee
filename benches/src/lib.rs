//! Criterion benchmarks of peftml beside its peers.
