//! What the trials of one sweep point and seed share: truth, samples, starts.

use super::config::ShallowConfig;
use super::methods::{Optimiser, RetrainingMethod, Step};
use peftml_data::synthetic::shallow::{ShallowSpec, TestTask};
use peftml_linalg::Seed;
use peftml_solvers::{SolveError, State};
use peftml_theory::Objective;
use peftml_theory::linear::Kind;
use peftml_theory::shallow::{
    Adapters, FineTuningObjective, Network, RetrainingObjective, Samples, ShallowError,
};

/// The scene.
pub struct Scene<'c> {
    config: &'c ShallowConfig,
    spec: ShallowSpec,
    seed: Seed,
    tasks: Vec<Samples>,
    test: TestTask,
}

/// Why a stage has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SceneError {
    /// The optimiser's reason.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A network that is not finite, or settings that do not fit.
    #[error(transparent)]
    Shallow(#[from] ShallowError),
}

/// A retrained base.
pub struct Base {
    /// The network without adapters.
    pub network: Network,
    /// Training loss with them.
    pub loss: f64,
    /// Iterations of the start that was kept.
    pub iterations: usize,
}

/// Mean squared errors of a fine-tuned network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// On the fine-tuning inputs against noiseless labels, as the reference measures.
    pub reference_mse: f64,
    /// On fresh inputs.
    pub test_mse: f64,
}

impl<'c> Scene<'c> {
    /// The scene of `config`'s point and seed number `seed`.
    ///
    /// # Errors
    /// [`ShallowError`] for a problem that cannot be.
    pub fn new(config: &'c ShallowConfig, seed: u64) -> Result<Self, ShallowError> {
        let spec = config.spec();
        let seed = spec.seed(seed);
        let truth = spec.ground_truth(&seed)?;
        let tasks = spec.retraining_tasks(&truth, &seed)?;
        let test = spec.test_task(&truth, &seed)?;
        Ok(Self { config, spec, seed, tasks, test })
    }

    /// The base; the observer sees the states of the first start.
    ///
    /// # Errors
    /// [`SceneError`].
    pub fn retrain(
        &self,
        method: &RetrainingMethod,
        observer: &mut dyn FnMut(&State),
    ) -> Result<Base, SceneError> {
        let options = &self.config.retraining;
        let adapters = method
            .model
            .adapters
            .then(|| Adapters { kind: options.adapters.into(), rank: self.config.rank });
        let f = RetrainingObjective::new(self.spec.sizes(), adapters, &self.tasks)?;
        let step = Step { size: options.step_size, weight_decay: options.weight_decay };
        let start = |restart| self.spec.retraining_start(adapters, &self.seed, restart);
        let budget = (options.starts, options.epochs);
        let best = best_of(&f, method.optimiser, step, budget, &start, observer)?;
        let network = Network::from_blocks(self.spec.sizes(), &best.x)?;
        Ok(Base { network, loss: best.value, iterations: best.iteration })
    }

    /// Fine-tunes an asymmetric adapter of width `rank` on `base`; at the iterations of `grid` (of the
    /// first start) the observer sees the errors, before the step as in the reference. The last errors
    /// are those of the result.
    ///
    /// # Errors
    /// [`SceneError`].
    pub fn fine_tune(
        &self,
        base: &Network,
        optimiser: &Optimiser,
        rank: usize,
        grid: &[usize],
        observer: &mut dyn FnMut(usize, Errors),
    ) -> Result<Errors, SceneError> {
        let options = &self.config.fine_tuning;
        let adapters = Adapters { kind: Kind::Asymmetric, rank };
        let f = FineTuningObjective::new(base, adapters, &self.test.samples)?;
        let noiseless = FineTuningObjective::new(base, adapters, &self.test.noiseless)?;
        let mut work = vec![0.0; noiseless.work_len()];
        let mut errors = |state: &State| -> Result<Errors, ShallowError> {
            let network = noiseless.network_at(&state.x)?;
            Ok(Errors {
                reference_mse: noiseless.value(&state.x, &mut work),
                test_mse: network.mean_squared_error(&self.test.fresh)?,
            })
        };
        let step = Step { size: options.step_size, weight_decay: options.weight_decay };
        let start = |restart| self.spec.fine_tuning_start(adapters, &self.seed, restart);
        let budget = (options.starts, options.steps);
        let best = best_of(&f, optimiser, step, budget, &start, &mut |state| {
            // Samples and point fit by construction: errors exist wherever a state does.
            if grid.binary_search(&state.iteration).is_ok()
                && let Ok(found) = errors(state)
            {
                observer(state.iteration, found);
            }
        })?;
        Ok(errors(&best)?)
    }
}

/// The state of least value over the starts, which share the budget.
fn best_of(
    f: &dyn Objective,
    optimiser: &Optimiser,
    step: Step,
    (starts, budget): (usize, usize),
    start: &dyn Fn(u64) -> Result<peftml_linalg::Blocks, ShallowError>,
    observer: &mut dyn FnMut(&State),
) -> Result<State, SceneError> {
    let each = budget / starts;
    let mut best: Option<State> = None;
    for restart in 1..starts as u64 {
        let state = optimiser.run(f, start(restart)?, step, each, &mut |_| {})?;
        if best.as_ref().is_none_or(|best| state.value < best.value) {
            best = Some(state);
        }
    }
    // The first start last: it alone is observed, and wins ties.
    let first = optimiser.run(f, start(0)?, step, each, observer)?;
    Ok(best.filter(|best| best.value < first.value).unwrap_or(first))
}
