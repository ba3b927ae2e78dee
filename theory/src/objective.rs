//! What a solver may ask of a function.

use faer::MatMut;
use peftml_linalg::{Blocks, Layout};

/// The group that leaves an objective alone; its orbits are flat directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// No symmetry.
    None,
    /// `U_t -> U_t Q_t`, each `Q_t` orthogonal: `k (k-1) / 2` flat directions a task where `U_t` has
    /// full rank.
    Orthogonal,
    /// `(U_t, V_t) -> (U_t B_t, V_t B_t^-T)`, each `B_t` invertible: `k^2` flat directions a task
    /// where the factors have full rank.
    GeneralLinear,
}

/// A twice differentiable function on a product of matrix spaces.
///
/// `work` is scratch of length [`Objective::work_len`]: its contents on entry do not matter and
/// mean nothing on return. With it every evaluation but that of the dense matrix is free of allocation.
pub trait Objective: Sync {
    /// The space of points.
    fn layout(&self) -> &Layout;

    /// Length of the scratch that the other methods need.
    fn work_len(&self) -> usize;

    /// The value at `x`.
    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64;

    /// Writes the Euclidean gradient at `x` into `out` and returns the value.
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64;

    /// Writes the Hessian at `x` times `v` into `out`.
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]);

    /// Writes the Gauss-Newton approximation of the Hessian times `v` into `out`: the second
    /// derivative without the terms that vanish with the residual.
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]);

    /// Readies `work` for products at `x` by the two methods below: what they share is computed once.
    fn prepare(&self, _x: &Blocks, _work: &mut [f64]) {}

    /// [`Objective::hessian_product`] at the `x` that `work` has been prepared at. Between preparation
    /// and product `work` may be used for nothing but other such products.
    fn prepared_hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.hessian_product(x, v, out, work);
    }

    /// [`Objective::gauss_newton_product`] likewise.
    fn prepared_gauss_newton_product(
        &self,
        x: &Blocks,
        v: &Blocks,
        out: &mut Blocks,
        work: &mut [f64],
    ) {
        self.gauss_newton_product(x, v, out, work);
    }

    /// Writes the Gauss-Newton matrix at `x`, n x n for n scalars, into `out`.
    ///
    /// For methods that factor it, once an iteration: allocates. As provided it takes n products.
    fn gauss_newton_matrix(&self, x: &Blocks, mut out: MatMut<'_, f64>, work: &mut [f64]) {
        let (mut unit, mut product) = (x.zeros_like(), x.zeros_like());
        for j in 0..unit.as_slice().len() {
            unit.as_mut_slice()[j] = 1.0;
            self.gauss_newton_product(x, &unit, &mut product, work);
            unit.as_mut_slice()[j] = 0.0;
            for (i, value) in product.as_slice().iter().enumerate() {
                out[(i, j)] = *value;
            }
        }
    }

    /// The symmetry group.
    fn gauge(&self) -> Gauge;
}
