//! Second-order methods on any objective.

pub mod damped_gauss_newton;
pub mod gauss_newton;
pub mod levenberg_marquardt;
mod steihaug;
pub mod trust_region;

pub use gauss_newton::GaussNewton;
pub use levenberg_marquardt::LevenbergMarquardt;
