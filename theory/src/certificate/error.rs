//! Why a certificate cannot be read, proved or made.

use super::number::NumberError;
use crate::linear::LinearError;
use crate::optimality::OptimalityError;

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// Not JSON (or nested deeper than 128 levels).
    #[error("not JSON at line {line}, column {column} ({category})")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column.
        column: usize,
        /// Syntax, end of input or data.
        category: &'static str,
    },
    /// More than is read.
    #[error("{what}: {found}, at most {allowed} are read")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// Found.
        found: usize,
        /// Allowed.
        allowed: usize,
    },
    /// A key is missing.
    #[error("the certificate has no \"{key}\"")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong type.
    #[error("\"{key}\" must be {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// What is right.
        expected: &'static str,
    },
    /// Arrays of different lengths where they should be equal.
    #[error("\"{key}\" is not a full T x d (x k) array, or has another shape than \"instance\"")]
    Shape {
        /// The key.
        key: &'static str,
    },
    /// A text that is no number.
    #[error("\"{key}\": {source}")]
    Number {
        /// The key.
        key: &'static str,
        /// Why.
        source: NumberError,
    },
    /// A bound that must be positive.
    #[error("\"{key}\" must be above 0")]
    NotPositive {
        /// The key.
        key: &'static str,
    },
    /// A norm that is not known.
    #[error("\"norm\" must be \"2\" or \"max\"")]
    Norm,
}

/// Why a statement was not proved.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProofError {
    /// The certificate itself is malformed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The Hessian less the claimed curvature is not positive definite as far as intervals show.
    #[error("curvature of at least {claimed:e} on the whole ball is not proved")]
    Curvature {
        /// The claimed bound.
        claimed: f64,
    },
    /// The gradient at the centre is too large for the ball to hold a critical point.
    #[error(
        "the gradient at the centre is up to {gradient:e}, a critical point within the radius needs less than {needed:e}"
    )]
    Existence {
        /// Upper bound of the gradient's norm.
        gradient: f64,
        /// Curvature times radius.
        needed: f64,
    },
    /// The gradient exceeds the claimed bound.
    #[error("the gradient at the centre is up to {found:e}, the claimed bound is {claimed:e}")]
    Gradient {
        /// Upper bound found.
        found: f64,
        /// The claimed bound.
        claimed: f64,
    },
    /// The objective is not shown to exceed the claimed bound.
    #[error("the objective on the ball is at least {found:e}, the claimed bound is {claimed:e}")]
    Objective {
        /// Lower bound found.
        found: f64,
        /// The claimed bound.
        claimed: f64,
    },
    /// `C_t^T U_t` may be singular on the ball: the slice may miss or touch an orbit.
    #[error("the slice is not transversal to the orbits of task {task}: C_t^T U_t may be singular")]
    Slice {
        /// Task, from 0.
        task: usize,
    },
}

/// Why a certificate was not made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MakeError {
    /// Offsets and point do not fit.
    #[error("the offsets are {tasks} of {dimension} x {rank}, the point does not have that shape")]
    Shape {
        /// Tasks.
        tasks: usize,
        /// Dimension.
        dimension: usize,
        /// Rank.
        rank: usize,
    },
    /// More unknowns than intervals are meant for.
    #[error("{unknowns} unknowns; certificates are made for at most {allowed}")]
    TooLarge {
        /// Found.
        unknowns: usize,
        /// Allowed.
        allowed: usize,
    },
    /// Newton's method left the point: no critical point near by.
    #[error(
        "Newton's method moved by {moved:e} of the point's size: there is no critical point close by"
    )]
    NotCritical {
        /// Relative distance.
        moved: f64,
    },
    /// The smallest curvature is not positive.
    #[error("the smallest curvature is {curvature:e}: no strict minimum that intervals could show")]
    NotStrict {
        /// Smallest curvature.
        curvature: f64,
    },
    /// The objective is zero as far as can be told.
    #[error("the objective is {value:e}, not above 0 beyond rounding: the point may be global")]
    NotAboveZero {
        /// The value.
        value: f64,
    },
    /// No radius is small enough for the curvature and large enough for the gradient.
    #[error(
        "no radius fits: the gradient {gradient:e} needs {needed:e}, the curvature allows {allowed:e}"
    )]
    Radius {
        /// Bound of the gradient.
        gradient: f64,
        /// Least radius.
        needed: f64,
        /// Largest radius.
        allowed: f64,
    },
    /// The statement is not proved.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The instance is no problem.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// The point is none.
    #[error(transparent)]
    Point(#[from] OptimalityError),
}
