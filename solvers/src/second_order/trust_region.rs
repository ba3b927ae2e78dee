//! Trust-region Newton-CG with negative-curvature exits.
//!
//! Steps minimise the second-order model in a ball by truncated conjugate gradients (Steihaug); a
//! direction of negative curvature met on the way is followed to the ball's boundary, so that
//! saddles are left. Quadratic convergence near a minimum with positive curvature off the gauge: the flat
//! directions of the gauge are orthogonal to the gradient and to all products there, so conjugate
//! gradients do not see them. Source: Steihaug 1983; Nocedal and Wright, algorithms 4.1 and 7.2.
//!
//! One Hessian product a conjugate-gradient iteration, one gradient a step.

use super::steihaug::{Model, Steps, negative_curvature_exits};
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "trust-region",
    summary: "Trust-region Newton with truncated conjugate gradients and negative-curvature exits.",
    order: Order::Second,
    memory: "10 n + T k^2",
    guarantees: "decreases the objective; leaves strict saddles in practice; quadratic convergence near minima",
    needs_start: true,
    settings: &[
        SettingInfo {
            name: "first_radius",
            default: "0.125",
            meaning: "first radius over the start's norm, above 0",
        },
        SettingInfo {
            name: "preconditioned",
            default: "0",
            meaning: "1: scale by the other factor's Gram matrix; 0: do not",
        },
        SettingInfo { name: "products", default: "500", meaning: "most products a step, from 1" },
    ],
    build: |settings| {
        let default = TrustRegion::default();
        let solver = TrustRegion {
            first_radius: settings.number(
                "first_radius",
                default.first_radius,
                f64::MIN_POSITIVE..=1e300,
                "a positive number",
            )?,
            preconditioned: settings.count("preconditioned", 0, 0, "0 or 1")? > 0,
            products: settings.count("products", default.products, 1, "a whole number from 1")?,
        };
        let limits = settings.limits(Limits { max_iterations: 1000, ..Default::default() });
        Ok(Box::new(Iterative { name: "trust-region", solver, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrustRegion {
    /// First radius relative to the start's norm.
    pub first_radius: f64,
    /// Whether to scale by the other factor's Gram matrix.
    pub preconditioned: bool,
    /// Most Hessian products a step.
    pub products: usize,
}

impl Default for TrustRegion {
    fn default() -> Self {
        Self { first_radius: 0.125, preconditioned: false, products: 500 }
    }
}

impl TrustRegion {
    fn steps(&self) -> Steps {
        Steps {
            model: Model::Hessian,
            preconditioned: self.preconditioned,
            first_radius: self.first_radius,
            products: self.products,
        }
    }

    /// Steps that followed a direction of negative curvature in a state of this method.
    pub fn negative_curvature_exits(state: &State) -> usize {
        negative_curvature_exits(state)
    }
}

impl Solver for TrustRegion {
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
