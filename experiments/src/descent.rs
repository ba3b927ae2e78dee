//! Gradient descent with the step that the theory's notes prescribe: 1/L at the iterate.

use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, decompose, kernel};
use peftml_solvers::SolveError;
use peftml_theory::Objective;
use peftml_theory::linear::{ProfileObjective, Tasks};

/// Gradient descent with step 1/L, `L = (2/T)(2 max ||U_t||_2^2 + max ||sym G_t||_2)` at the iterate,
/// halved until F decreases.
pub fn descend(
    objective: &ProfileObjective<'_>,
    tasks: &Tasks,
    mut x: Blocks,
    steps: usize,
    tolerance: f64,
    target: f64,
) -> Result<Blocks, SolveError> {
    let mut work = vec![0.0; objective.work_len()];
    let (mut g, mut trial) = (x.zeros_like(), x.zeros_like());
    let mut value = objective.gradient(&x, &mut g, &mut work);
    for _ in 0..steps {
        if value <= target || g.norm() <= tolerance {
            break;
        }
        let mut step = 1.0 / lipschitz(objective, tasks, &x)?;
        let mut moved = false;
        for _ in 0..60 {
            trial.copy_from(&x);
            trial.add_scaled(-step, &g);
            if objective.value(&trial, &mut work) < value {
                moved = true;
                break;
            }
            step *= 0.5;
        }
        if !moved {
            break;
        }
        std::mem::swap(&mut x, &mut trial);
        value = objective.gradient(&x, &mut g, &mut work);
    }
    Ok(x)
}

fn lipschitz(
    objective: &ProfileObjective<'_>,
    tasks: &Tasks,
    x: &Blocks,
) -> Result<f64, SolveError> {
    let base = objective.base(x);
    let (mut adapters, mut moments) = (0.0_f64, 0.0_f64);
    for t in 0..tasks.count() {
        let u: MatRef<'_, f64> = x.block(t);
        let mut small = Mat::zeros(u.ncols(), u.ncols());
        kernel::mul(small.as_mut(), u.transpose(), u, 1.0);
        let values = decompose::symmetric_eigenvalues(small.as_ref())?;
        adapters = adapters.max(values[values.len() - 1]);
        let mut error = base.clone();
        kernel::mul_add(error.as_mut(), u, u.transpose(), 1.0);
        kernel::add_scaled(error.as_mut(), -1.0, tasks.task(t).least_squares());
        kernel::symmetrise(error.as_mut());
        let values = decompose::symmetric_eigenvalues(error.as_ref())?;
        moments = moments.max(values[0].abs()).max(values[values.len() - 1].abs());
    }
    Ok(2.0 / tasks.count() as f64 * (2.0 * adapters + moments))
}
