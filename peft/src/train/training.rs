//! A training, its state, and the way from one state to the next.

use super::config::{Algorithm, TrainingConfig};
use super::evaluate::{Evaluation, evaluate};
use crate::adapter::Adapter;
use crate::batch::Task;
use crate::optimiser::OptimiserState;
use crate::parameters::Parameters;
use crate::{Network, PeftError, Place};
use peftml_linalg::Seed;
use std::ops::ControlFlow;

/// A training: network, tasks, settings. Nothing of it changes.
pub struct Training<'a> {
    pub(super) network: &'a dyn Network,
    pub(super) tasks: &'a [Task],
    pub(super) config: TrainingConfig,
    pub(super) adapter: Option<Adapter>,
    pub(super) seed: Seed,
    pub(super) place: Place,
    pub(super) outer_sign: f64,
    /// What the examples are, for checkpoints.
    pub(super) data: Option<String>,
    pub(super) ties_by_loss: bool,
}

/// All that changes in a training.
#[derive(Clone)]
pub struct TrainingState {
    /// Optimiser steps made, inner ones counted.
    pub step: u64,
    /// The base.
    pub base: Parameters,
    /// Every task's adapter parameters, where the algorithm has any.
    pub adapters: Vec<Parameters>,
    /// The training loss of the last step, mean over the tasks that it saw.
    pub loss: f64,
    /// Validations so far.
    pub history: Vec<Record>,
    /// The best of them.
    pub best: Option<Best>,
    pub(super) base_optimiser: OptimiserState,
    pub(super) adapter_optimisers: Vec<OptimiserState>,
}

/// A validation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// After how many steps.
    pub step: u64,
    /// The training loss of the last step before it.
    pub training_loss: f64,
    /// The mean over the tasks.
    pub mean: Evaluation,
    /// Each task.
    pub tasks: Vec<Evaluation>,
}

/// The state that validated best; of equal ones, the first.
#[derive(Clone)]
pub struct Best {
    /// After how many steps.
    pub step: u64,
    /// Its score, see [`Evaluation::score`].
    pub score: f64,
    /// Its base.
    pub base: Parameters,
    /// Its adapters.
    pub adapters: Vec<Parameters>,
}

impl<'a> Training<'a> {
    /// A training of `network` on `tasks` from the weights `base`. Orders, masks, fresh adapters and
    /// random projections are drawn below `seed`.
    ///
    /// # Errors
    /// [`PeftError::Range`], [`PeftError::Tasks`]; as [`Adapter::new`] and [`Adapter::prepared`];
    /// [`PeftError::NothingShared`] where PEFT-ML is asked for with a method that replaces the whole base.
    pub fn new(
        network: &'a dyn Network,
        tasks: &'a [Task],
        config: TrainingConfig,
        base: &Parameters,
        seed: &Seed,
        place: &Place,
    ) -> Result<Self, PeftError> {
        config.check(tasks.len())?;
        let wrong = |what: &str, problem| PeftError::Tasks { what: what.into(), problem };
        if tasks.is_empty() {
            return Err(wrong("tasks", "there are none"));
        }
        if let Some(task) = tasks.iter().find(|task| task.training.is_empty()) {
            return Err(wrong(&task.name, "it has no training examples"));
        }
        let sites = network.sites();
        let adapter = match config.adapter() {
            Some(settings) => {
                let adapter = Adapter::new(settings, sites)?;
                if let Algorithm::PeftMl { .. } | Algorithm::Reptile { .. } = config.algorithm {
                    adapter.check_shares(sites)?;
                }
                Some(adapter.prepared(base, &seed.child("projection"), place)?)
            }
            None => None,
        };
        let (seed, place) = (seed.clone(), place.clone());
        let (outer_sign, data, ties_by_loss) = (1.0, None, false);
        Ok(Self { network, tasks, config, adapter, seed, place, outer_sign, data, ties_by_loss })
    }

    /// The same, with a name for its examples (a hash of them, say): checkpoints hold it, and none of other
    /// examples is resumed from.
    pub fn on_data(self, name: String) -> Self {
        Self { data: Some(name), ..self }
    }

    /// The same, where of two validations with the same score the one with the lower loss is the better.
    pub fn breaking_ties_by_loss(self) -> Self {
        Self { ties_by_loss: true, ..self }
    }

    /// For tests only: every outer update with its sign turned.
    #[doc(hidden)]
    pub fn with_outer_sign_flipped(self) -> Self {
        Self { outer_sign: -self.outer_sign, ..self }
    }

    /// The state before the first step.
    ///
    /// # Errors
    /// As [`Adapter::fresh`].
    pub fn start(&self, base: &Parameters) -> Result<TrainingState, PeftError> {
        let fresh = |adapter: &Adapter, t: usize| {
            adapter.fresh(base, &self.seed.child("adapter").child(t), &self.place)
        };
        let adapters = match &self.adapter {
            Some(adapter) => {
                (0..self.tasks.len()).map(|t| fresh(adapter, t)).collect::<Result<Vec<_>, _>>()?
            }
            None => Vec::new(),
        };
        Ok(TrainingState {
            step: 0,
            base: base.clone(),
            adapter_optimisers: vec![OptimiserState::default(); adapters.len()],
            adapters,
            loss: f64::NAN,
            history: Vec::new(),
            best: None,
            base_optimiser: OptimiserState::default(),
        })
    }

    /// Whether no further round fits.
    pub fn is_finished(&self, state: &TrainingState) -> bool {
        state.step.saturating_add(self.config.round_steps()) > self.config.steps
    }

    /// The next round, and a validation where one is due.
    ///
    /// # Errors
    /// [`PeftError::NotFinite`] for a loss that is no finite number; `state` is then what it was.
    pub fn advance(&self, state: &mut TrainingState) -> Result<(), PeftError> {
        // Tensors are shared: the copy costs no memory of their size.
        let mut next = state.clone();
        self.round(&mut next)?;
        let every = self.config.validate_every;
        let due = every > 0 && next.step / every > state.step / every;
        if due || self.is_finished(&next) {
            self.record(&mut next)?;
        }
        *state = next;
        Ok(())
    }

    /// Rounds until no further one fits, or `watch` breaks off; `watch` sees the state after each.
    ///
    /// # Errors
    /// As [`Training::advance`].
    pub fn run(
        &self,
        state: &mut TrainingState,
        watch: &mut dyn FnMut(&TrainingState) -> ControlFlow<()>,
    ) -> Result<(), PeftError> {
        while !self.is_finished(state) {
            self.advance(state)?;
            if watch(state).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The tasks' validation examples under `state`, as the algorithm means a task to be met: with the
    /// task's adapter, or after its inner steps. Tasks without validation examples are left out.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn validate(&self, state: &TrainingState) -> Result<Vec<Evaluation>, PeftError> {
        let mut all = Vec::new();
        for (t, task) in self.tasks.iter().enumerate() {
            if task.validation.is_empty() {
                continue;
            }
            let (base, own) = self.adapted_to(t, state)?;
            let adapter = self.adapter.as_ref().zip(own.as_ref());
            let examples = task.validation.as_ref();
            all.extend(evaluate(self.network, &base, adapter, examples, &self.place)?);
        }
        Ok(all)
    }

    /// The settings.
    pub fn config(&self) -> &TrainingConfig {
        &self.config
    }

    /// The adapter, where the algorithm has one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    fn record(&self, state: &mut TrainingState) -> Result<(), PeftError> {
        let tasks = self.validate(state)?;
        let Some(mean) = Evaluation::mean(&tasks) else { return Ok(()) };
        let score = mean.score();
        let better = match &state.best {
            None => true,
            Some(best) if score == best.score && self.ties_by_loss => {
                let known = state.history.iter().find(|record| record.step == best.step);
                known.is_some_and(|record| mean.loss < record.mean.loss)
            }
            // A score that is no number is never better.
            Some(best) => score > best.score,
        };
        state.history.push(Record { step: state.step, training_loss: state.loss, mean, tasks });
        if better {
            let (base, adapters) = (state.base.clone(), state.adapters.clone());
            state.best = Some(Best { step: state.step, score, base, adapters });
        }
        Ok(())
    }
}
