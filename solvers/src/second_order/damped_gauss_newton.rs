//! Gauss-Newton with inner conjugate gradients in a trust region: from any start.
//!
//! The model's matrix is the second derivative without the terms that vanish with the residual: positive
//! semidefinite, the Hessian itself at a solution of zero loss. Inner conjugate gradients are
//! preconditioned by right multiplication with `((2/T) U_t^T U_t)^{-1}` (asymmetric: `V_t^T V_t` and `U_t^T
//! U_t` over T), in whose norm the trust region is a ball; steps that do not decrease `F` are rejected.
//! Quadratic convergence to solutions of zero loss, linear and fast to those of small residual.
//! Source: theory.md, Derivatives and global solver, step 5.
//!
//! Limits: blind to negative curvature, so it may stop at saddles. To finish a solution to the last digit
//! use [`super::GaussNewton`], whose inner systems are solved further.

use super::steihaug::{Model, Steps};
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "gauss-newton",
    summary: "Gauss-Newton with preconditioned inner conjugate gradients in a trust region.",
    order: Order::Second,
    memory: "10 n + 2 T k^2",
    guarantees: "decreases the objective; quadratic convergence to zero loss; may stop at saddles",
    needs_start: true,
    settings: &[
        SettingInfo {
            name: "first_radius",
            default: "0.5",
            meaning: "first radius over the start's scaled norm, above 0",
        },
        SettingInfo { name: "products", default: "500", meaning: "most products a step, from 1" },
    ],
    build: |settings| {
        let default = DampedGaussNewton::default();
        let solver = DampedGaussNewton {
            first_radius: settings.number(
                "first_radius",
                default.first_radius,
                f64::MIN_POSITIVE..=1e300,
                "a positive number",
            )?,
            products: settings.count("products", default.products, 1, "a whole number from 1")?,
        };
        let limits = settings.limits(Limits { max_iterations: 1000, ..Default::default() });
        Ok(Box::new(Iterative { name: "gauss-newton", solver, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DampedGaussNewton {
    /// First radius relative to the start's scaled norm.
    pub first_radius: f64,
    /// Most products a step.
    pub products: usize,
}

impl Default for DampedGaussNewton {
    fn default() -> Self {
        Self { first_radius: 0.5, products: 500 }
    }
}

impl DampedGaussNewton {
    fn steps(&self) -> Steps {
        Steps {
            model: Model::GaussNewton,
            preconditioned: true,
            first_radius: self.first_radius,
            products: self.products,
        }
    }
}

impl Solver for DampedGaussNewton {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        self.steps().init(f, x)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        self.steps().step(f, state)
    }

    fn commutes_with_rotations(&self) -> bool {
        true
    }
}
