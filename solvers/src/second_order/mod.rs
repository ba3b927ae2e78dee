//! Second-order methods on any objective.

pub mod gauss_newton;

pub use gauss_newton::GaussNewton;
