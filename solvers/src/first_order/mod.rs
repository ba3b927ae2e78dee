//! Methods that use gradients only.

pub mod alternating;
pub mod authors;
mod descent;
pub mod fine_tuning;
pub mod gradient_descent;
pub mod gradient_flow;
pub mod lbfgs;
mod line_search;
pub mod scaled_gradient;
pub mod standard;

use crate::SolveError;
use peftml_linalg::{BlockSpec, Blocks};
use peftml_theory::linear::Kind;

/// Whether `start` holds adapters of `count` tasks (blocks `U..`, then `V..` where asymmetric, each
/// `dimension` x `rank`).
pub(crate) fn check_start(
    start: &Blocks,
    kind: Kind,
    count: usize,
    dimension: usize,
    rank: usize,
) -> Result<(), SolveError> {
    let expected = if kind == Kind::Symmetric { count } else { 2 * count };
    let absent = BlockSpec { name: "the number of factors".into(), rows: start.count(), cols: 1 };
    if start.count() != expected {
        return Err(misfit(&absent, expected, 1));
    }
    let wrong =
        start.layout().specs().iter().find(|spec| (spec.rows, spec.cols) != (dimension, rank));
    wrong.map_or(Ok(()), |spec| Err(misfit(spec, dimension, rank)))
}

fn misfit(spec: &BlockSpec, expected_rows: usize, expected_cols: usize) -> SolveError {
    SolveError::Start {
        what: spec.name.clone(),
        rows: spec.rows,
        cols: spec.cols,
        expected_rows,
        expected_cols,
    }
}

/// A step along `-gradient` or another direction that changed nothing: the state as it was, stopped.
pub(crate) fn stagnate(state: &mut crate::State, x: &Blocks, gradient: &Blocks, value: f64) {
    state.x.copy_from(x);
    state.gradient.copy_from(gradient);
    state.value = value;
    state.stop = Some(crate::StopReason::Stagnated);
}

/// Whether a step size is a positive finite number.
fn check_step(name: &'static str, value: f64) -> Result<(), SolveError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(SolveError::Setting { name, value, expected: "a positive finite number" })
    }
}
