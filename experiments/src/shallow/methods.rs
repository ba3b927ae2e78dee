//! The methods of the shallow studies: a retraining method is a model (with or without adapters) and
//! an optimiser, a fine-tuning method an optimiser. Everything else iterates over these lists.

use super::config::ShallowConfig;
use crate::config::ConfigError;
use crate::two_stage::find_methods;
use peftml_linalg::Blocks;
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{Any, MaxIterations, ScaledGradient, State, StopRule, run};
use peftml_solvers::second_order::LevenbergMarquardt;
use peftml_solvers::second_order::trust_region::TrustRegion;
use peftml_solvers::{AdamW, SolveError, Solver};
use peftml_theory::Objective;

/// What is trained in the first stage.
pub struct Model {
    /// Column `retraining`.
    pub name: &'static str,
    /// Name in figures.
    pub label: &'static str,
    /// Whether each task has an adapter of its own.
    pub adapters: bool,
}

/// The models; the first is the baseline.
pub const MODELS: &[Model] = &[
    Model { name: "standard", label: "SR", adapters: false },
    Model { name: "lora-ml", label: "LoRA-ML", adapters: true },
];

/// AdamW's settings of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Step size.
    pub size: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// An iterative method with its rule for stopping early.
pub struct Optimiser {
    /// Name in configurations, column `solver`.
    pub name: &'static str,
    /// Name in figures; empty for the reference's.
    pub label: &'static str,
    /// Cost of an iteration in gradients.
    pub gradients: f64,
    solver: fn(Step) -> Box<dyn Solver>,
    /// Whether it ends where the gradient vanishes.
    stops: bool,
}

/// The optimisers; the first is the reference's.
pub const OPTIMISERS: &[Optimiser] = &[
    Optimiser {
        name: "adamw",
        label: "",
        gradients: 1.0,
        solver: |step| {
            let (step_size, weight_decay) = (step.size, step.weight_decay);
            Box::new(AdamW { step_size, weight_decay, ..AdamW::default() })
        },
        stops: false,
    },
    Optimiser {
        name: "l-bfgs",
        label: ", L-BFGS",
        gradients: 1.1,
        solver: |_| Box::new(Lbfgs { memory: 20 }),
        stops: true,
    },
    Optimiser {
        name: "levenberg-marquardt",
        label: ", Levenberg-Marquardt",
        // The dense matrix and its factors at d = 10, T = 3.
        gradients: 45.0,
        // PyTorch's starts are far from any minimum: the first steps are the gradient's.
        solver: |_| Box::new(LevenbergMarquardt { first_damping: 1.0 }),
        stops: true,
    },
    Optimiser {
        name: "trust-region",
        label: ", trust region",
        // About 100 Hessian products of three gradients each at d = 10, T = 3.
        gradients: 300.0,
        solver: |_| Box::new(TrustRegion::default()),
        stops: true,
    },
];

/// A gradient of this norm is stationary: values and weights are of order 1.
const STATIONARY: f64 = 1e-9;

impl Optimiser {
    /// Iterates on `f` from `start`, as often as `budget` gradients pay for, at least once.
    ///
    /// # Errors
    /// The solver's.
    pub fn run(
        &self,
        f: &dyn Objective,
        start: Blocks,
        step: Step,
        budget: usize,
        observer: &mut dyn FnMut(&State),
    ) -> Result<State, SolveError> {
        let iterations = ((budget as f64 / self.gradients) as usize).max(1);
        let mut rules: Vec<Box<dyn StopRule>> = vec![Box::new(MaxIterations(iterations))];
        if self.stops {
            let small = ScaledGradient { tolerance: STATIONARY, scale: 1.0 };
            rules.push(Box::new(small));
        }
        let mut observe = |state: &State| observer(state);
        run(&*(self.solver)(step), f, start, &Any(rules), &mut observe)
    }
}

/// A way from tasks to a base.
pub struct RetrainingMethod {
    /// What is trained.
    pub model: &'static Model,
    /// How.
    pub optimiser: &'static Optimiser,
}

impl RetrainingMethod {
    /// Name in configurations.
    pub fn name(&self) -> String {
        format!("{}/{}", self.model.name, self.optimiser.name)
    }

    /// Name in figures.
    pub fn label(&self) -> String {
        format!("{}{}", self.model.label, self.optimiser.label)
    }

    /// Position among all methods: the colour.
    pub fn colour(&self) -> usize {
        let at = |found: Option<usize>| found.unwrap_or(0);
        at(OPTIMISERS.iter().position(|o| o.name == self.optimiser.name)) * MODELS.len()
            + at(MODELS.iter().position(|m| m.name == self.model.name))
    }

    /// Estimated cost of retraining, in nanoseconds.
    pub fn cost(&self, config: &ShallowConfig) -> f64 {
        let units = [config.tasks, config.samples_per_task, config.dimension];
        let units: f64 = units.iter().map(|size| *size as f64).product();
        // Two nanoseconds a hidden unit and sample at d = 10, growing with d.
        let epoch = units * (1.0 + 0.1 * config.dimension as f64);
        epoch * config.retraining.epochs as f64
    }

    /// The methods of that name, in the given order.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for an unknown or repeated name, or none at all.
    pub fn find_all(names: &[String]) -> Result<Vec<Self>, ConfigError> {
        let all = || {
            OPTIMISERS
                .iter()
                .flat_map(|optimiser| MODELS.iter().map(move |model| Self { model, optimiser }))
        };
        find_methods(
            "retraining.methods",
            names,
            || all().map(|m| m.name()).collect(),
            |name| all().find(|method| method.name() == name),
        )
    }
}

/// A way from a base to a fine-tuned network.
pub struct FineTuningMethod(
    /// How.
    pub &'static Optimiser,
);

impl FineTuningMethod {
    /// The methods of that name, in the given order.
    ///
    /// # Errors
    /// As [`RetrainingMethod::find_all`].
    pub fn find_all(names: &[String]) -> Result<Vec<Self>, ConfigError> {
        let known = || OPTIMISERS.iter().map(|o| o.name.to_owned()).collect();
        find_methods("fine_tuning.methods", names, known, |name| {
            OPTIMISERS.iter().find(|optimiser| optimiser.name == name).map(Self)
        })
    }
}
