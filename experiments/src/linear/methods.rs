//! The methods of the two stages: two registries; everything else iterates over them.

use super::scene::Scene;
use crate::config::ConfigError;
use crate::two_stage::find_methods;
use faer::{Mat, MatRef};
use peftml_linalg::kernel;
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::fine_tuning::GradientFineTuning;
use peftml_solvers::first_order::standard::StandardScheme;
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::{global::Global, reduced_rank, two_task::TwoTask};
use peftml_solvers::{BaseSolver, Problem, SolveError};
use peftml_theory::linear::{predictions, standard::standard_base};

/// Sees the iteration and the base (d x d).
pub type BaseObserver<'o> = dyn FnMut(usize, MatRef<'_, f64>) + 'o;
/// Sees the iteration and the fine-tuned weights (d x d).
pub type WeightObserver<'o> = dyn FnMut(usize, MatRef<'_, f64>) + 'o;

/// A way from tasks to a base.
pub struct RetrainingMethod {
    /// Name in configurations: `retraining/solver`.
    pub name: &'static str,
    /// Name in figures.
    pub label: &'static str,
    /// What theory speaks of in figures: the same for methods that solve the same problem.
    pub told: &'static str,
    /// Column `retraining`.
    pub retraining: &'static str,
    /// Column `solver`, for T tasks.
    pub solver: fn(usize) -> &'static str,
    /// Whether it is the baseline without adapters.
    pub is_standard: bool,
    /// Estimated cost of retraining, in nanoseconds.
    pub cost: fn(&super::config::LinearConfig) -> f64,
    /// The base. Iterative methods show the observer every iteration, the start included.
    pub retrain: fn(&Scene<'_>, &mut BaseObserver<'_>) -> Result<Mat<f64>, SolveError>,
    /// What theory says of the base.
    pub theory: fn(&Scene<'_>) -> BaseTheory,
}

/// What theory says of a base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseTheory {
    /// Expected `||A - A*||_F^2`.
    pub error_squared: Option<f64>,
    /// What fine-tuning with the stated rank cannot remove, if that is known.
    pub floor: Option<f64>,
    /// Whether the rate of C10 comes on top of the floor: the residual has the adapter's rank.
    pub has_rate: bool,
}

/// All retraining methods.
pub const RETRAINING: &[RetrainingMethod] = &[
    RetrainingMethod {
        name: "standard/authors",
        label: "SR, authors' steps",
        told: "SR",
        retraining: "standard",
        solver: |_| "authors",
        is_standard: true,
        cost: |c| 0.3 * c.retraining.rounds as f64 * (c.dimension as f64).powi(3),
        retrain: standard_authors,
        theory: standard_theory,
    },
    RetrainingMethod {
        name: "standard/closed-form",
        label: "SR, closed form",
        told: "SR",
        retraining: "standard",
        solver: |_| "closed-form",
        is_standard: true,
        cost: |_| 1e4,
        retrain: |scene, _| Ok(standard_base(&scene.tasks)?),
        theory: standard_theory,
    },
    RetrainingMethod {
        name: "lora-ml/authors",
        label: "LoRA-ML, authors' scheme",
        told: "LoRA-ML",
        retraining: "lora-ml",
        solver: |_| "authors",
        is_standard: false,
        cost: authors_cost,
        retrain: lora_authors,
        theory: meta_theory,
    },
    RetrainingMethod {
        name: "lora-ml/global",
        label: "LoRA-ML, global solver",
        told: "LoRA-ML",
        retraining: "lora-ml",
        solver: |tasks| if tasks == 2 { "two-task" } else { "global" },
        is_standard: false,
        cost: |_| 1e6,
        retrain: |scene, _| solve_globally(&scene.problem()),
        theory: meta_theory,
    },
    RetrainingMethod {
        name: "lora-ml/exact",
        label: "LoRA-ML, exact tasks",
        told: "LoRA-ML, exact tasks",
        retraining: "lora-ml",
        solver: |_| "exact",
        is_standard: false,
        cost: |_| 1e6,
        retrain: |scene, _| solve_globally(&scene.exact_problem()),
        theory: exact_theory,
    },
];

fn authors_cost(c: &super::config::LinearConfig) -> f64 {
    let (d, k) = (c.dimension as f64, c.rank as f64);
    let inner = c.retraining.inner_steps as f64 * 4.0 * d * d * k;
    0.3 * c.retraining.rounds as f64 * c.tasks as f64 * (inner + 2.0 * d * d * d)
}

fn standard_authors(
    scene: &Scene<'_>,
    observer: &mut BaseObserver<'_>,
) -> Result<Mat<f64>, SolveError> {
    let quirks = &scene.config.quirks;
    let scheme = StandardScheme {
        steps: scene.config.retraining.rounds,
        step_size: scene.config.retraining.outer_step_size,
        untrained_adapters: quirks.standard_carries_random_adapters,
        summed_over_tasks: quirks.standard_gradient_times_tasks,
    };
    let d = scene.spec.dimension;
    let adapters = scheme.untrained_adapters.then(|| scene.standard_adapters());
    scheme.retrain(&scene.tasks, Mat::zeros(d, d).as_ref(), adapters.as_ref(), observer)
}

fn lora_authors(
    scene: &Scene<'_>,
    observer: &mut BaseObserver<'_>,
) -> Result<Mat<f64>, SolveError> {
    let settings = &scene.config.retraining;
    let scheme = AuthorsScheme {
        rounds: settings.rounds,
        inner_steps: settings.inner_steps,
        inner_step_size: settings.inner_step_size,
        outer_step_size: settings.outer_step_size,
    };
    let d = scene.spec.dimension;
    let zero = Mat::zeros(d, d);
    let done = scheme.retrain(&scene.problem(), zero.as_ref(), &scene.start(), &mut |round| {
        observer(round.number(), round.base());
    })?;
    Ok(done.base)
}

/// The global solver, or at T = 2 the closed form.
fn solve_globally(problem: &Problem<'_>) -> Result<Mat<f64>, SolveError> {
    let (global, two) = (Global::default(), TwoTask::default());
    let solver: &dyn BaseSolver = if problem.tasks.count() == 2 { &two } else { &global };
    Ok(solver.solve(problem, None, &mut Silent)?.base)
}

/// C1: the population's residual has rank k(T+1). A lower rank leaves `tail_r` of this truth, whatever
/// the number of samples; from k(T+1) on there is no floor, and the rate of C10.
fn standard_theory(scene: &Scene<'_>) -> BaseTheory {
    let rank = scene.config.adapter_rank();
    let enough = rank >= scene.spec.rank * (scene.spec.tasks + 1);
    let tail = scene.theory.standard_tails.get(rank).copied();
    BaseTheory {
        error_squared: Some(scene.theory.standard_error_squared),
        floor: if enough { Some(0.0) } else { tail },
        has_rate: enough,
    }
}

/// C9 and C10: the error of a base from N samples is a floor; at T = 2 it is not derived.
fn meta_theory(scene: &Scene<'_>) -> BaseTheory {
    let error_squared = scene.theory.meta_error_squared;
    let (d, rank) = (scene.spec.dimension, scene.config.adapter_rank());
    let floor = error_squared.map(|error| predictions::fine_tuning_floor(d, rank, error));
    BaseTheory { error_squared, floor, has_rate: true }
}

/// C4 and C3: the exact base, or at T = 2 a base that rank 3k makes exact.
fn exact_theory(scene: &Scene<'_>) -> BaseTheory {
    let identified = scene.theory.meta_error_squared.is_some();
    BaseTheory { error_squared: identified.then_some(0.0), floor: Some(0.0), has_rate: true }
}

/// From a base and a start to fine-tuned weights.
pub type FineTune = fn(
    &Scene<'_>,
    MatRef<'_, f64>,
    &Start<'_>,
    &mut WeightObserver<'_>,
) -> Result<Mat<f64>, SolveError>;

/// A way from a base to fine-tuned weights.
pub struct FineTuningMethod {
    /// Name in configurations and in the column `fine_tuning`.
    pub name: &'static str,
    /// Name in figures.
    pub label: &'static str,
    /// Rank of what is added to the base.
    pub rank: fn(&super::config::LinearConfig) -> usize,
    /// Trainable parameters for dimension d and rank r.
    pub parameters: fn(usize, usize) -> usize,
    /// Estimated cost, in nanoseconds.
    pub cost: fn(&super::config::LinearConfig) -> f64,
    /// The fine-tuned weights. Iterative methods show the observer those iterations of the grid.
    pub fine_tune: FineTune,
    /// Expected excess risk, from what theory says of the base.
    pub risk: fn(&Scene<'_>, &BaseTheory) -> Risk,
}

/// Where fine-tuning starts and what is recorded.
pub struct Start<'s> {
    /// Role of the fresh adapters' stream where starts are not paired.
    pub unpaired: Option<&'static str>,
    /// Iterations to be shown.
    pub grid: &'s [usize],
}

/// Expected excess risk and the part of it that more samples of the test task do not remove.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Risk {
    /// Expected excess risk.
    pub total: Option<f64>,
    /// Its floor.
    pub floor: Option<f64>,
}

/// All fine-tuning methods.
pub const FINE_TUNING: &[FineTuningMethod] = &[
    FineTuningMethod {
        name: "gradient",
        label: "gradient steps",
        rank: |config| config.adapter_rank(),
        parameters: |d, r| 2 * d * r,
        cost: |c| {
            let entries = (c.dimension as f64).powi(2) * c.adapter_rank() as f64;
            1.8 * c.fine_tuning.steps as f64 * entries
        },
        fine_tune: gradient,
        risk: adapter_risk,
    },
    FineTuningMethod {
        name: "reduced-rank-regression",
        label: "reduced-rank regression",
        rank: |config| config.adapter_rank(),
        parameters: |d, r| 2 * d * r,
        cost: |_| 2e4,
        fine_tune: |scene, base, _, _| {
            let rank = scene.config.adapter_rank();
            let mut weights = base.to_owned();
            reduced_rank::fine_tune(base, &scene.test, rank)?.add_to(weights.as_mut(), 1.0);
            Ok(weights)
        },
        risk: adapter_risk,
    },
    FineTuningMethod {
        name: "least-squares",
        label: "full least squares",
        rank: |config| config.dimension,
        parameters: |d, _| d * d,
        cost: |_| 1e4,
        fine_tune: |scene, _, _, _| Ok(scene.test.least_squares().to_owned()),
        risk: |scene, _| {
            let spec = &scene.spec;
            let total =
                predictions::least_squares_risk(spec.dimension, spec.test_samples, spec.noise_std);
            Risk { total, floor: Some(0.0) }
        },
    },
];

fn gradient(
    scene: &Scene<'_>,
    base: MatRef<'_, f64>,
    start: &Start<'_>,
    observer: &mut WeightObserver<'_>,
) -> Result<Mat<f64>, SolveError> {
    let settings = &scene.config.fine_tuning;
    let method = GradientFineTuning { steps: settings.steps, step_size: settings.step_size };
    let adapters = scene.fresh_adapters(scene.config.adapter_rank(), start.unpaired);
    let mut weights = base.to_owned();
    let tuned =
        method.fine_tune(base, &scene.test, &adapters, start.grid, &mut |step, left, right| {
            weights.copy_from(base);
            kernel::mul_add(weights.as_mut(), left, right.transpose(), 1.0);
            observer(step, weights.as_ref());
        })?;
    weights.copy_from(base);
    tuned.add_to(weights.as_mut(), 1.0);
    Ok(weights)
}

/// C10: the rate of the adapter's rank, on top of the base's floor.
fn adapter_risk(scene: &Scene<'_>, base: &BaseTheory) -> Risk {
    let spec = &scene.spec;
    if !base.has_rate {
        return Risk { total: base.floor, floor: base.floor };
    }
    let rank = scene.config.adapter_rank();
    let rate =
        predictions::fine_tuning_risk(spec.dimension, rank, spec.test_samples, spec.noise_std);
    // Where the floor is not derived, the rate alone is what theory has to say.
    Risk { total: rate.map(|rate| rate + base.floor.unwrap_or(0.0)), floor: base.floor }
}

macro_rules! find_all {
    ($method:ty, $registry:ident, $key:literal) => {
        impl $method {
            /// The methods called `names`, in their order.
            ///
            /// # Errors
            /// [`ConfigError::Value`] for an unknown name (with the known ones), a repeated one, or
            /// no name at all.
            pub fn find_all(names: &[String]) -> Result<Vec<&'static Self>, ConfigError> {
                let known = || $registry.iter().map(|method| method.name.to_owned()).collect();
                find_methods($key, names, known, |name| {
                    $registry.iter().find(|method| method.name == name)
                })
            }
        }
    };
}

find_all!(RetrainingMethod, RETRAINING, "retraining.methods");
find_all!(FineTuningMethod, FINE_TUNING, "fine_tuning.methods");
