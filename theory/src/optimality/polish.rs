//! Newton's method towards the stationary point near by, gauge directions taken out.
//!
//! `x <- x - H^+ g` on the complement of the gauge directions, `H` formed and decomposed; eigenvalues
//! below `1e-10 ||H||` are left alone. Meant for points that already are close: no globalisation.
//! Limits: at most 700 unknowns.

use super::OptimalityError;
use super::curvature::{DENSE, GaugeSpace, projected_hessian};
use crate::Objective;
use crate::linear::ProfileObjective;
use peftml_linalg::{Blocks, decompose, kernel};

/// Eigenvalues below this share of the largest are no curvature to divide by.
const CUT: f64 = 1e-10;

/// Up to `steps` Newton steps from `x`, as long as they shrink the gradient; `None` where there are too
/// many unknowns.
///
/// # Errors
/// [`OptimalityError::Decomposition`] where an iterate is not finite.
pub fn polish(
    objective: &ProfileObjective<'_>,
    x: &Blocks,
    steps: usize,
) -> Result<Option<Blocks>, OptimalityError> {
    let n = x.as_slice().len();
    if n > DENSE {
        return Ok(None);
    }
    let mut work = vec![0.0; objective.work_len()];
    let (mut x, mut g) = (x.clone(), x.zeros_like());
    objective.gradient(&x, &mut g, &mut work);
    for _ in 0..steps {
        let gauge = GaugeSpace::new(&x, objective.kind(), objective.tasks().count())?;
        let hessian = projected_hessian(objective, &x, &gauge);
        let (values, vectors) = decompose::symmetric_eigen(hessian.as_ref())
            .map_err(|source| OptimalityError::Decomposition { what: "Hessian", source })?;
        let largest = values[0].abs().max(values[n - 1].abs());
        let mut next = x.clone();
        for (i, value) in values.iter().enumerate().filter(|(_, l)| l.abs() > CUT * largest) {
            let column = vectors.col(i);
            let overlap: f64 = g.as_slice().iter().enumerate().map(|(j, g)| column[j] * g).sum();
            for (j, x) in next.as_mut_slice().iter_mut().enumerate() {
                *x -= overlap / value * column[j];
            }
        }
        let mut next_g = x.zeros_like();
        objective.gradient(&next, &mut next_g, &mut work);
        if kernel::dot(next_g.as_slice(), next_g.as_slice()) >= g.dot(&g) {
            break;
        }
        (x, g) = (next, next_g);
    }
    Ok(Some(x))
}
