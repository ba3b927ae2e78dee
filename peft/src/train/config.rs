//! What a training does.

use crate::methods::in_range;
use crate::optimiser::{OptimiserConfig, ScheduleConfig};
use crate::{AdapterConfig, PeftError};

/// A way to train.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Algorithm {
    /// One set of weights on the tasks' union: `min_W sum_t L_t(W)`.
    Standard,
    /// One base, an adapter per task: `min_W sum_t min_theta_t L_t(W, theta_t)`.
    PeftMl {
        /// The adapters.
        adapter: AdapterConfig,
        /// When the base and when the adapters step.
        #[serde(default)]
        rounds: Rounds,
        /// The adapters' optimiser; the base's own where nothing is said.
        #[serde(default)]
        adapter_optimiser: Option<OptimiserConfig>,
    },
    /// First-order meta-learning: `W += eps (theta - W)`, theta after `inner_steps` steps on one task from W,
    /// eps falling linearly from `outer_step_size` to 0 (Nichol et al. 2018, arXiv:1803.02999).
    Reptile {
        /// Inner steps of a round.
        #[serde(default = "default_inner_steps")]
        inner_steps: u64,
        /// eps at the beginning.
        #[serde(default = "whole")]
        outer_step_size: f64,
        /// Whether the inner optimiser remembers earlier rounds.
        #[serde(default)]
        inner_state: InnerState,
        /// An optimiser that takes `W - theta` for a gradient, in the place of eps.
        #[serde(default)]
        outer: Option<OptimiserConfig>,
        /// The reference code's flaw: the update with the sign reversed.
        #[serde(default)]
        reversed: bool,
        /// What every task keeps of its own (a head, say): trained by the inner steps, and left where they end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        own: Option<AdapterConfig>,
    },
    /// First-order MAML: after `inner_steps - 1` steps on one task from W, the gradient of the next batch
    /// there steps W (Finn et al. 2017, arXiv:1703.03400, section 5.2).
    Fomaml {
        /// Steps of a round, the outer one counted.
        #[serde(default = "default_inner_steps")]
        inner_steps: u64,
        /// Optimiser of the inner steps, made anew for each round.
        inner: OptimiserConfig,
    },
    /// The base is frozen, every task trains an adapter of its own.
    FineTuning {
        /// The adapter.
        adapter: AdapterConfig,
    },
}

/// When the base and when the adapters step in PEFT-ML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rounds {
    /// Base and all adapters in every step, on one batch of each task.
    #[default]
    Joint,
    /// `inner` steps of all adapters, then `outer` steps of the base.
    Alternating {
        /// Steps of the adapters.
        inner: u64,
        /// Steps of the base.
        outer: u64,
    },
    /// Base and one task's adapter in every step, the tasks in turn.
    Cycle,
}

/// Whether an inner optimiser remembers earlier rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InnerState {
    /// Every round begins without a memory.
    #[default]
    Fresh,
    /// One memory for all rounds.
    Kept,
}

fn default_inner_steps() -> u64 {
    5
}

fn whole() -> f64 {
    1.0
}

/// A training's settings.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Optimiser steps in all, inner ones counted. A round that does not fit any more is not begun.
    pub steps: u64,
    /// Examples that an optimiser step sees: of the union, of one task, or as many as fit of each task.
    pub batch: usize,
    /// The optimiser: of the base; of the inner steps (Reptile); of the adapters (fine-tuning).
    pub optimiser: OptimiserConfig,
    /// How the step size changes; Reptile's inner steps keep theirs.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Steps between validations; 0: at the end only.
    #[serde(default)]
    pub validate_every: u64,
}

impl TrainingConfig {
    /// Checks the ranges of all numbers for `tasks` tasks.
    ///
    /// # Errors
    /// [`PeftError::Range`].
    pub fn check(&self, tasks: usize) -> Result<(), PeftError> {
        self.optimiser.check()?;
        self.schedule.check()?;
        let least = if self.splits_batch() { tasks.max(1) } else { 1 };
        let enough = self.batch >= least;
        in_range("batch", self.batch as f64, enough, "at least one example of each task")?;
        let inner = |steps: u64, least: u64| {
            let expected = format!("at least {least}");
            in_range("inner_steps", steps as f64, steps >= least, &expected)
        };
        match &self.algorithm {
            Algorithm::Standard | Algorithm::FineTuning { .. } => Ok(()),
            Algorithm::PeftMl { rounds, adapter_optimiser, .. } => {
                if let Rounds::Alternating { inner, outer } = rounds {
                    in_range("inner", *inner as f64, *inner >= 1, "at least 1")?;
                    in_range("outer", *outer as f64, *outer >= 1, "at least 1")?;
                }
                adapter_optimiser.as_ref().map_or(Ok(()), OptimiserConfig::check)
            }
            Algorithm::Reptile { inner_steps, outer_step_size, outer, inner_state, .. } => {
                let eps = *outer_step_size;
                let memories =
                    usize::from(outer.is_some()) + usize::from(*inner_state == InnerState::Kept);
                let expected = "one: inner_state = 'kept' only without an outer optimiser";
                in_range("kept optimiser states", memories as f64, memories <= 1, expected)?;
                in_range("outer_step_size", eps, eps > 0.0 && eps <= 1.0, "from above 0 to 1")?;
                outer.as_ref().map_or(Ok(()), OptimiserConfig::check)?;
                inner(*inner_steps, 1)
            }
            Algorithm::Fomaml { inner_steps, inner: optimiser } => {
                optimiser.check()?;
                inner(*inner_steps, 1)
            }
        }
    }

    /// Optimiser steps of one round.
    pub fn round_steps(&self) -> u64 {
        match self.algorithm {
            Algorithm::PeftMl { rounds: Rounds::Alternating { inner, outer }, .. } => {
                inner.saturating_add(outer)
            }
            Algorithm::Reptile { inner_steps, .. } | Algorithm::Fomaml { inner_steps, .. } => {
                inner_steps
            }
            _ => 1,
        }
    }

    /// Whether a step's batch is cut into one part a task.
    pub(crate) fn splits_batch(&self) -> bool {
        match &self.algorithm {
            Algorithm::PeftMl { rounds, .. } => *rounds != Rounds::Cycle,
            _ => false,
        }
    }

    /// Examples of one task in one step.
    pub(crate) fn task_batch(&self, tasks: usize) -> usize {
        if self.splits_batch() { (self.batch / tasks.max(1)).max(1) } else { self.batch }
    }

    /// The adapters' configuration, where there are adapters.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        match &self.algorithm {
            Algorithm::PeftMl { adapter, .. } | Algorithm::FineTuning { adapter } => Some(adapter),
            Algorithm::Reptile { own, .. } => own.as_ref(),
            _ => None,
        }
    }
}
