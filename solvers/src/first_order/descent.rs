//! Gradient steps on the adapter of one task with the base fixed, on sufficient statistics.
//!
//! Loss of base `A` and adapter `R` on a task: `L = 1/2 tr(E S E^T)`, `E = A + R - Ahat`, all d x d;
//! its derivative in the weights is `G = E S = B + R S` with `B = A S - C` fixed while `A` is. With
//! factors d x k a step costs O(d^2 k):
//!
//! * symmetric, `R = U U^T`: `(G + G^T) U = (B + B^T) U + U (U^T S U) + S U (U^T U)`
//! * asymmetric, `R = U V^T`: `G V = B V + U (V^T S V)`, `G^T U = B^T U + S V (U^T U)`
//!
//! Both factors move at once. Nothing allocates after construction. The functions are inlined so that
//! the caller's [`panel::vectorised`] reaches them.

use faer::{Mat, MatRef};
use peftml_linalg::panel;
use peftml_theory::linear::{Kind, Task};

/// One task's statistics, factors and workspace, in padded panels.
pub(super) struct AdapterDescent {
    kind: Kind,
    d: usize,
    k: usize,
    ld: usize,
    least_squares: Vec<f64>,
    cross_moment: Vec<f64>,
    /// `S`; `None` for exact tasks.
    second_moment: Option<Vec<f64>>,
    /// `B = A S - C`.
    moment: Vec<f64>,
    /// `B + B^T` for symmetric adapters, `B^T` for asymmetric ones.
    partner: Vec<f64>,
    left: Vec<f64>,
    /// Right factor; empty for symmetric adapters, where it is the left one.
    right: Vec<f64>,
    /// `S` times the right factor.
    weighted: Vec<f64>,
    left_step: Vec<f64>,
    right_step: Vec<f64>,
    /// `V^T S V`, k x k.
    inner_weighted: Vec<f64>,
    /// `U^T U`, k x k.
    inner: Vec<f64>,
}

impl AdapterDescent {
    /// The task with adapter `left right^T` (each d x k); `right` is ignored for symmetric adapters.
    pub fn new(task: &Task, kind: Kind, left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Self {
        let (d, k) = (left.nrows(), left.ncols());
        let ld = panel::padded(d);
        let packed = |m: MatRef<'_, f64>| {
            let mut out = vec![0.0; ld * m.ncols()];
            panel::load(&mut out, ld, m);
            out
        };
        let right = if kind == Kind::Symmetric { Vec::new() } else { packed(right) };
        Self {
            kind,
            d,
            k,
            ld,
            least_squares: packed(task.least_squares()),
            cross_moment: packed(task.cross_moment()),
            second_moment: task.second_moment().map(packed),
            moment: vec![0.0; ld * d],
            partner: vec![0.0; ld * d],
            left: packed(left),
            right_step: vec![0.0; right.len()],
            right,
            weighted: vec![0.0; ld * k],
            left_step: vec![0.0; ld * k],
            inner_weighted: vec![0.0; k * k],
            inner: vec![0.0; k * k],
        }
    }

    /// The left factor, d x k.
    pub fn left(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice_with_stride(&self.left, self.d, self.k, self.ld)
    }

    /// The right factor, d x k: the left one for symmetric adapters.
    pub fn right(&self) -> MatRef<'_, f64> {
        let right = if self.kind == Kind::Symmetric { &self.left } else { &self.right };
        MatRef::from_column_major_slice_with_stride(right, self.d, self.k, self.ld)
    }

    /// Fixes the base `A`, a padded panel: `B = A S - C` and its partner. O(d^3).
    #[inline(always)]
    pub fn set_base(&mut self, base: &[f64]) {
        let (d, ld) = (self.d, self.ld);
        match &self.second_moment {
            Some(s) => panel::mul(&mut self.moment, base, ld, d, s, ld, d),
            None => self.moment.copy_from_slice(base),
        }
        panel::add_scaled(&mut self.moment, -1.0, &self.cross_moment);
        panel::transpose(&mut self.partner, &self.moment, ld, d);
        if self.kind == Kind::Symmetric {
            panel::add_scaled(&mut self.partner, 1.0, &self.moment);
        }
    }

    /// `weighted = S V`.
    #[inline(always)]
    fn weigh(&mut self) {
        let right = if self.kind == Kind::Symmetric { &self.left } else { &self.right };
        match &self.second_moment {
            Some(s) => panel::mul(&mut self.weighted, s, self.ld, self.d, right, self.ld, self.k),
            None => self.weighted.copy_from_slice(right),
        }
    }

    /// Gradients in the factors at the fixed base, into `left_step` and `right_step`.
    #[inline(always)]
    pub fn gradients(&mut self) {
        let (d, k, ld) = (self.d, self.k, self.ld);
        self.weigh();
        panel::mul_transposed(&mut self.inner, &self.left, &self.left, ld);
        match self.kind {
            Kind::Symmetric => {
                panel::mul_transposed(&mut self.inner_weighted, &self.left, &self.weighted, ld);
                panel::mul(&mut self.left_step, &self.partner, ld, d, &self.left, ld, k);
                panel::add_mul_small(&mut self.left_step, &self.left, &self.inner_weighted, ld);
                panel::add_mul_small(&mut self.left_step, &self.weighted, &self.inner, ld);
            }
            Kind::Asymmetric => {
                panel::mul_transposed(&mut self.inner_weighted, &self.right, &self.weighted, ld);
                panel::mul(&mut self.left_step, &self.moment, ld, d, &self.right, ld, k);
                panel::add_mul_small(&mut self.left_step, &self.left, &self.inner_weighted, ld);
                panel::mul(&mut self.right_step, &self.partner, ld, d, &self.left, ld, k);
                panel::add_mul_small(&mut self.right_step, &self.weighted, &self.inner, ld);
            }
        }
    }

    /// One gradient step on the factors at the fixed base. O(d^2 k).
    #[inline(always)]
    pub fn step(&mut self, step_size: f64) {
        self.gradients();
        panel::add_scaled(&mut self.left, -step_size, &self.left_step);
        panel::add_scaled(&mut self.right, -step_size, &self.right_step);
    }

    /// `out += weight G`, `G = B + U (S V)^T` at the present factors. O(d^2 k).
    #[inline(always)]
    pub fn add_base_gradient(&mut self, weight: f64, out: &mut [f64]) {
        self.weigh();
        panel::add_scaled(out, weight, &self.moment);
        panel::add_outer(out, weight, &self.left, &self.weighted, self.ld, self.ld);
    }

    /// What [`Self::gradients`] found, d x k each; the second is absent where adapters are symmetric.
    pub fn factor_gradients(&self) -> (MatRef<'_, f64>, Option<MatRef<'_, f64>>) {
        let view = |m| MatRef::from_column_major_slice_with_stride(m, self.d, self.k, self.ld);
        let right = (self.kind == Kind::Asymmetric).then(|| view(&self.right_step));
        (view(&self.left_step), right)
    }

    /// `L = 1/2 <E, E S>` with `E` formed first, so that small losses keep their digits; `base` is the
    /// padded panel of `A`, `scratch` two panels of its size. O(d^3).
    #[inline(always)]
    pub fn loss(&self, base: &[f64], scratch: &mut [f64]) -> f64 {
        let (d, ld) = (self.d, self.ld);
        let (error, moment) = scratch.split_at_mut(ld * d);
        error.copy_from_slice(base);
        panel::add_scaled(error, -1.0, &self.least_squares);
        let right = if self.kind == Kind::Symmetric { &self.left } else { &self.right };
        panel::add_outer(error, 1.0, &self.left, right, ld, ld);
        match &self.second_moment {
            Some(s) => panel::mul(moment, error, ld, d, s, ld, d),
            None => moment.copy_from_slice(error),
        }
        0.5 * panel::dot(error, moment)
    }

    /// The factors as matrices.
    pub fn factors(&self) -> (Mat<f64>, Mat<f64>) {
        (self.left().to_owned(), self.right().to_owned())
    }
}
