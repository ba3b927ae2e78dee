//! Step 3 of the global solver: the base from the subspaces.
//!
//! Solves `sum_t N_t Z N'_t = sum_t N_t (Ahat_t - A) N'_t` by conjugate gradients from 0, on the operator
//! in product form; the caller adds `Z` to `A`. Repeated with the new `A` (and new subspaces) this is
//! iterative refinement. With the right side's cancellation done in doubled precision, rounding is
//! not amplified by `1 / rho`: only the rounding of the data is. Where offsets are symmetric the
//! residual is symmetrised in each iteration: rounding feeds the antisymmetric part, on which the
//! operator may be nearly singular. Source: theory.md, Solvers, step 3.

use faer::{Mat, MatMut, MatRef};
use peftml_linalg::kernel;
use peftml_theory::linear::{Identification, IdentificationWork, Kind};

/// Buffers of the solve, all d x d.
pub struct BaseSystem {
    symmetric: bool,
    compensated: bool,
    residual: Mat<f64>,
    direction: Mat<f64>,
    image: Mat<f64>,
    correction: Mat<f64>,
    work: IdentificationWork,
}

impl BaseSystem {
    /// Buffers for the operator's dimension; `compensated` for the right side in doubled precision.
    pub fn new(operator: &Identification, kind: Kind, compensated: bool) -> Self {
        let d = operator.dimension();
        let square = || Mat::zeros(d, d);
        Self {
            symmetric: kind == Kind::Symmetric,
            compensated,
            residual: square(),
            direction: square(),
            image: square(),
            correction: square(),
            work: operator.work(),
        }
    }

    /// Writes `H^{-1} sum_t N_t (targets[t] - base) N'_t` into `z` (targets and base symmetric where
    /// offsets are); returns the number of products.
    pub fn solve(
        &mut self,
        operator: &Identification,
        targets: &[Mat<f64>],
        base: MatRef<'_, f64>,
        mut z: MatMut<'_, f64>,
    ) -> usize {
        self.residual.fill(0.0);
        let Self { residual, image, direction, work, .. } = self;
        for (t, target) in targets.iter().enumerate() {
            if self.compensated {
                let pair = [target.as_ref(), base];
                operator.add_projected_difference(t, pair, residual.as_mut(), image, work);
            } else {
                direction.copy_from(target);
                kernel::add_scaled(direction.as_mut(), -1.0, base);
                operator.add_projected(t, direction.as_ref(), residual.as_mut(), work);
            }
        }
        if self.symmetric {
            kernel::symmetrise(self.residual.as_mut());
        }
        let products = self.conjugate_gradients(operator, usize::MAX);
        z.copy_from(self.correction.as_ref());
        if self.symmetric {
            kernel::symmetrise(z);
        }
        products
    }

    /// Writes `H^{-1} right_side` into `z` after at most `limit` products; returns their number.
    pub fn solve_for(
        &mut self,
        operator: &Identification,
        right_side: MatRef<'_, f64>,
        limit: usize,
        mut z: MatMut<'_, f64>,
    ) -> usize {
        self.residual.copy_from(right_side);
        if self.symmetric {
            kernel::symmetrise(self.residual.as_mut());
        }
        let products = self.conjugate_gradients(operator, limit);
        z.copy_from(self.correction.as_ref());
        if self.symmetric {
            kernel::symmetrise(z);
        }
        products
    }

    /// `correction` = approximate solution for the right side `residual`, from 0.
    fn conjugate_gradients(&mut self, operator: &Identification, most: usize) -> usize {
        self.correction.fill(0.0);
        let floor = 0.25 * f64::EPSILON * kernel::norm(self.residual.as_ref());
        self.direction.copy_from(self.residual.as_ref());
        let mut square = kernel::norm_squared(self.residual.as_ref());
        let (mut best, mut since_best) = (square, 0);
        // In exact arithmetic `order` products end it; a plateau may last nearly as long where rho is
        // small, and rounding stretches it.
        let patience = operator.order() + 20;
        let limit = (4 * patience).min(most);
        for iteration in 0..limit {
            if square.sqrt() <= floor || since_best > patience {
                return iteration;
            }
            operator.apply(self.direction.as_ref(), self.image.as_mut(), &mut self.work);
            let curvature = kernel::inner(self.direction.as_ref(), self.image.as_ref());
            if curvature <= 0.0 || !curvature.is_finite() {
                return iteration + 1;
            }
            let step = square / curvature;
            kernel::add_scaled(self.correction.as_mut(), step, self.direction.as_ref());
            kernel::add_scaled(self.residual.as_mut(), -step, self.image.as_ref());
            if self.symmetric {
                kernel::symmetrise(self.residual.as_mut());
            }
            let next = kernel::norm_squared(self.residual.as_ref());
            kernel::scale(self.direction.as_mut(), next / square);
            kernel::add_scaled(self.direction.as_mut(), 1.0, self.residual.as_ref());
            square = next;
            if square < 0.25 * best {
                (best, since_best) = (square, 0);
            } else {
                since_best += 1;
            }
        }
        limit
    }
}
