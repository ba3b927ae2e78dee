//! Solvers for low-rank meta-learning: global subspace intersection, first- and second-order methods.
