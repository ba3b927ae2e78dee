//! Configuration of the shallow studies.

use super::methods::{FineTuningMethod, RetrainingMethod};
use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, KindName, Leaf, typed};
use crate::two_stage::{Leaves, TwoStage, check_positive};
use peftml_data::synthetic::shallow::ShallowSpec;
use serde::{Deserialize, Serialize};
use toml::Table;

/// What the leaves mean, beside those of every suite.
pub const LEAVES: &[Leaf] = &[
    Leaf::new("dimension", "d, inputs and hidden units"),
    Leaf::new("rank", "k, rank of the true offsets and of the adapters"),
    Leaf::new("tasks", "T, number of retraining tasks"),
    Leaf::new("samples_per_task", "N, samples of each retraining task"),
    Leaf::new("test_samples", "n, samples of the test task"),
    Leaf::new("fresh_samples", "inputs on which `test_mse` is measured"),
    Leaf::new("noise_std", "standard deviation of the labels' noise"),
    Leaf::new("kind", "true offsets `\"symmetric\"` (`U U^T`) or `\"asymmetric\"` (`U V^T`)"),
    Leaf::new("biases", "whether the trained layers have biases; the truth has none"),
    Leaf::new(
        "retraining.methods",
        "names `MODEL/OPTIMISER`, with models `standard` and `lora-ml`",
    ),
    Leaf::new("retraining.adapters", "kind of the adapters that are trained"),
    Leaf::new("retraining.epochs", "budget in gradients, over all starts together"),
    Leaf::new("retraining.starts", "the start of least training loss is kept"),
    Leaf::new("retraining.step_size", "step size of AdamW"),
    Leaf::new("retraining.weight_decay", "its decay, decoupled"),
    Leaf::new("fine_tuning.methods", "names of optimisers"),
    Leaf::new("fine_tuning.steps", "budget in gradients, over all starts together"),
    Leaf::new("fine_tuning.starts", "the start of least training loss is kept"),
    Leaf::new("fine_tuning.step_size", "step size of AdamW"),
    Leaf::new("fine_tuning.weight_decay", "its decay, decoupled"),
];

/// One shallow study; [`LEAVES`] says what its leaves mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShallowConfig {
    /// `shallow`.
    pub suite: String,
    /// Name of the study.
    pub study: String,
    /// Name of the preset.
    pub preset: String,
    /// Title.
    pub title: String,
    /// The question that the study answers.
    pub question: String,
    /// Seeds; see [`Seeds`](crate::config::Seeds).
    pub seeds: String,
    /// Dimension d.
    pub dimension: usize,
    /// Rank k of the offsets.
    pub rank: usize,
    /// Retraining tasks T.
    pub tasks: usize,
    /// Samples N of each retraining task.
    pub samples_per_task: usize,
    /// Samples n of the test task.
    pub test_samples: usize,
    /// Fresh inputs to test on.
    pub fresh_samples: usize,
    /// Standard deviation of the noise.
    pub noise_std: f64,
    /// Symmetric or asymmetric offsets.
    pub kind: KindName,
    /// Whether trained layers have biases.
    pub biases: bool,
    /// First stage.
    pub retraining: Retraining,
    /// Second stage.
    pub fine_tuning: FineTuning,
    /// Leaf paths and lists.
    #[serde(default)]
    pub sweep: Table,
}

/// First stage: from tasks to a base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraining {
    /// Names `retraining/optimiser`.
    pub methods: Vec<String>,
    /// Kind of the adapters.
    pub adapters: KindName,
    /// Budget in gradients, over all starts together.
    pub epochs: usize,
    /// Starts.
    pub starts: usize,
    /// AdamW's step size.
    pub step_size: f64,
    /// AdamW's decay.
    pub weight_decay: f64,
}

/// Second stage: from a base to a fine-tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuning {
    /// Names of optimisers.
    pub methods: Vec<String>,
    /// Budget in gradients, over all starts together.
    pub steps: usize,
    /// Starts.
    pub starts: usize,
    /// AdamW's step size.
    pub step_size: f64,
    /// AdamW's decay.
    pub weight_decay: f64,
}

impl PointConfig for ShallowConfig {
    const NAME: &'static str = "of a shallow study";

    fn read(table: &Table) -> Result<Self, ConfigError> {
        let config: Self = typed(Self::NAME, table)?;
        config.check()?;
        Ok(config)
    }
}

impl TwoStage for ShallowConfig {
    const SUITE: &'static str = "shallow";

    fn leaves(&self) -> Leaves<'_> {
        Leaves {
            suite: &self.suite,
            study: &self.study,
            preset: &self.preset,
            title: &self.title,
            question: &self.question,
            seeds: &self.seeds,
            sizes: [
                self.dimension,
                self.rank,
                self.tasks,
                self.samples_per_task,
                self.test_samples,
            ],
        }
    }
}

impl ShallowConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.spec().check().map_err(|error| {
            ConfigError::value("the problem", format!("{:?}", self.spec()), error.to_string())
        })?;
        self.check_leaves(&[("fresh_samples", self.fresh_samples)])?;
        let Self { retraining, fine_tuning, .. } = self;
        check_positive(&[
            ("retraining.step_size", retraining.step_size),
            ("fine_tuning.step_size", fine_tuning.step_size),
        ])?;
        for (key, value) in [
            ("retraining.weight_decay", retraining.weight_decay),
            ("fine_tuning.weight_decay", fine_tuning.weight_decay),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(ConfigError::value(key, value, "a finite number from 0 is needed"));
            }
        }
        for ([starts_key, budget_key], starts, budget) in [
            (["retraining.starts", "retraining.epochs"], retraining.starts, retraining.epochs),
            (["fine_tuning.starts", "fine_tuning.steps"], fine_tuning.starts, fine_tuning.steps),
        ] {
            if budget == 0 {
                return Err(ConfigError::value(budget_key, budget, "at least 1 is needed"));
            }
            if starts == 0 || starts > budget {
                let expected = format!("at least 1, and at most {budget_key} = {budget}");
                return Err(ConfigError::value(starts_key, starts, expected));
            }
        }
        RetrainingMethod::find_all(&retraining.methods)?;
        FineTuningMethod::find_all(&fine_tuning.methods)?;
        Ok(())
    }

    /// The problem's sizes and laws.
    pub fn spec(&self) -> ShallowSpec {
        ShallowSpec {
            dimension: self.dimension,
            rank: self.rank,
            tasks: self.tasks,
            samples_per_task: self.samples_per_task,
            test_samples: self.test_samples,
            fresh_samples: self.fresh_samples,
            noise_std: self.noise_std,
            kind: self.kind.into(),
            biases: self.biases,
        }
    }

    /// Ranks of fine-tuning: k, and for T = 2 also 3k (theory.md C3); at most d.
    pub fn adapter_ranks(&self) -> Vec<usize> {
        let mut ranks = vec![self.rank];
        if self.tasks == 2 {
            ranks.push((3 * self.rank).min(self.dimension));
        }
        ranks.dedup();
        ranks
    }
}
