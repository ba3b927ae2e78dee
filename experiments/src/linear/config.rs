//! The linear studies' configuration.

use super::methods::{FineTuningMethod, RetrainingMethod};
use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, KindName, Leaf, typed};
use crate::two_stage::{Leaves, TwoStage, check_positive};
use peftml_data::synthetic::linear::{Family, LinearSpec};
use serde::{Deserialize, Serialize};
use toml::Table;

/// What the leaves mean, beside those of every suite.
pub const LEAVES: &[Leaf] = &[
    Leaf::new(
        "ground_truth",
        "`\"per-seed\"`: every seed and sweep point has its own; `\"per-sweep\"`: one, drawn at the largest sizes and cut down",
    ),
    Leaf::new("dimension", "d, rows and columns of every matrix"),
    Leaf::new("rank", "k, rank of the offsets and of the adapters"),
    Leaf::new("tasks", "T, number of retraining tasks"),
    Leaf::new("samples_per_task", "N, samples of each retraining task"),
    Leaf::new("test_samples", "n, samples of the test task"),
    Leaf::new("noise_std", "standard deviation of the noise in each output"),
    Leaf::new(
        "kind",
        "offsets and retraining adapters `\"symmetric\"` (`U U^T`) or `\"asymmetric\"` (`U V^T`)",
    ),
    Leaf::new("family", "law of the offsets: `\"iid\"`, `\"correlated\"` or `\"badly-scaled\"`"),
    Leaf::new(
        "retraining.methods",
        "names of methods of the first stage, as in column `retraining`",
    ),
    Leaf::new(
        "retraining.rounds",
        "outer rounds of the authors' scheme, and steps of standard retraining by steps",
    ),
    Leaf::new("retraining.inner_steps", "steps on the adapters in a round"),
    Leaf::new("retraining.inner_step_size", "their size"),
    Leaf::new("retraining.outer_step_size", "size of the step on the base that ends a round"),
    Leaf::new("retraining.start_std", "standard deviation of the entries of initial adapters"),
    Leaf::new("fine_tuning.methods", "names of methods of the second stage"),
    Leaf::new("fine_tuning.steps", "gradient steps of the method `gradient`"),
    Leaf::new("fine_tuning.step_size", "their size"),
    Leaf::new("fine_tuning.start_std", "standard deviation of the entries of fresh adapters"),
    Leaf::new("fine_tuning.shown_steps", "figures show the curves up to this step"),
    Leaf::new(
        "quirks.standard_carries_random_adapters",
        "standard retraining carries one random, never trained adapter a task in its forward pass, as in the reference code",
    ),
    Leaf::new(
        "quirks.standard_gradient_times_tasks",
        "its outer gradient is summed over the tasks where that of meta-learning is averaged",
    ),
    Leaf::new(
        "quirks.unpaired_fine_tuning_starts",
        "fine-tuning starts from other adapters after standard retraining than after meta-learning",
    ),
];

/// One linear study; [`LEAVES`] says what its leaves mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearConfig {
    /// `linear`.
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
    /// What the ground truth is drawn for.
    pub ground_truth: GroundTruthMode,
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
    /// Standard deviation of the noise.
    pub noise_std: f64,
    /// Symmetric or asymmetric offsets.
    pub kind: KindName,
    /// Law of the offsets.
    pub family: FamilyName,
    /// First stage.
    pub retraining: Retraining,
    /// Second stage.
    pub fine_tuning: FineTuning,
    /// What the reference does beside its description.
    pub quirks: Quirks,
    /// Leaf paths and lists.
    #[serde(default)]
    pub sweep: Table,
}

/// What a ground truth is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroundTruthMode {
    /// Every seed and sweep point has its own.
    PerSeed,
    /// One for the whole sweep, drawn at its largest sizes and cut down.
    PerSweep,
}

/// [`Family`] in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyName {
    /// Independent N(0, 1) entries.
    Iid,
    /// A common part.
    Correlated,
    /// Log-normal scales.
    BadlyScaled,
}

/// First stage: from tasks to a base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraining {
    /// Names of [`super::methods::RETRAINING`].
    pub methods: Vec<String>,
    /// Outer rounds of the authors' scheme, and steps of standard retraining by steps.
    pub rounds: usize,
    /// Inner steps a round.
    pub inner_steps: usize,
    /// Step on the adapters.
    pub inner_step_size: f64,
    /// Step on the base.
    pub outer_step_size: f64,
    /// Standard deviation of initial adapters.
    pub start_std: f64,
}

/// Second stage: from a base to a fine-tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuning {
    /// Names of [`super::methods::FINE_TUNING`].
    pub methods: Vec<String>,
    /// Gradient steps.
    pub steps: usize,
    /// Their size.
    pub step_size: f64,
    /// Standard deviation of fresh adapters.
    pub start_std: f64,
    /// Figures show curves up to this step.
    pub shown_steps: usize,
}

/// Quirks of the reference code, each a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// Standard retraining carries random, never trained adapters in its forward pass.
    pub standard_carries_random_adapters: bool,
    /// Its gradient is summed over tasks instead of averaged.
    pub standard_gradient_times_tasks: bool,
    /// Fine-tuning starts from other adapters after standard retraining than after meta-learning.
    pub unpaired_fine_tuning_starts: bool,
}

impl PointConfig for LinearConfig {
    const NAME: &'static str = "of a linear study";

    fn read(table: &Table) -> Result<Self, ConfigError> {
        let config: Self = typed(Self::NAME, table)?;
        config.check()?;
        Ok(config)
    }
}

impl TwoStage for LinearConfig {
    const SUITE: &'static str = "linear";

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

impl LinearConfig {
    fn check(&self) -> Result<(), ConfigError> {
        self.spec().check().map_err(|error| {
            ConfigError::value("the problem", self.spec_text(), error.to_string())
        })?;
        self.check_leaves(&[])?;
        let Self { retraining, fine_tuning, .. } = self;
        check_positive(&[
            ("retraining.inner_step_size", retraining.inner_step_size),
            ("retraining.outer_step_size", retraining.outer_step_size),
            ("retraining.start_std", retraining.start_std),
            ("fine_tuning.step_size", fine_tuning.step_size),
            ("fine_tuning.start_std", fine_tuning.start_std),
        ])?;
        RetrainingMethod::find_all(&retraining.methods)?;
        FineTuningMethod::find_all(&fine_tuning.methods)?;
        Ok(())
    }

    fn spec_text(&self) -> String {
        let Self { dimension, rank, tasks, samples_per_task, test_samples, noise_std, .. } = self;
        format!(
            "dimension {dimension}, rank {rank}, tasks {tasks}, samples_per_task \
             {samples_per_task}, test_samples {test_samples}, noise_std {noise_std}"
        )
    }

    /// The problem's sizes and laws.
    pub fn spec(&self) -> LinearSpec {
        LinearSpec {
            dimension: self.dimension,
            rank: self.rank,
            tasks: self.tasks,
            samples_per_task: self.samples_per_task,
            test_samples: self.test_samples,
            noise_std: self.noise_std,
            kind: self.kind.into(),
            family: match self.family {
                FamilyName::Iid => Family::Iid,
                FamilyName::Correlated => Family::Correlated,
                FamilyName::BadlyScaled => Family::BadlyScaled,
            },
        }
    }

    /// Rank of gradient and reduced-rank fine-tuning: k, but 3k where T = 2, as theory.md C3 asks
    /// for; at most d.
    pub fn adapter_rank(&self) -> usize {
        let rank = if self.tasks == 2 { 3 * self.rank } else { self.rank };
        rank.min(self.dimension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved;
    use crate::config::{StudyName, load, set};

    type Resolved = resolved::Resolved<LinearConfig>;

    fn table(name: &str) -> Table {
        load(&StudyName(format!("linear/{name}"))).unwrap()
    }

    #[test]
    fn the_presets_hold_the_numbers_of_the_experiments() {
        // experiments.md, section 1: swept leaf, its values, fine-tuning steps.
        let studies: [(&str, &str, [i64; 3], usize); 5] = [
            ("sweep_n", "test_samples", [100, 1000, 10000], 1000),
            ("sweep_t", "tasks", [2, 3, 5], 10000),
            ("sweep_d", "dimension", [5, 10, 20], 1400),
            ("sweep_samples", "samples_per_task", [100, 1000, 10000], 1000),
            ("sweep_k", "rank", [1, 2, 3], 10000),
        ];
        for (study, leaf, values, steps) in studies {
            for preset in ["paper", "authors"] {
                let resolved = Resolved::read(&table(&format!("{study}.{preset}"))).unwrap();
                let config = &resolved.config;
                let authors = preset == "authors";
                assert_eq!(resolved.swept, [leaf]);
                let swept: Vec<i64> =
                    resolved.points.iter().map(|(v, _)| v[0].1.as_integer().unwrap()).collect();
                assert_eq!(swept, values);
                assert_eq!(config.fine_tuning.steps, steps);
                assert_eq!(config.noise_std, if authors { 0.01 } else { 0.1 });
                let mode =
                    if authors { GroundTruthMode::PerSweep } else { GroundTruthMode::PerSeed };
                assert_eq!(config.ground_truth, mode);
                assert_eq!(config.quirks.standard_carries_random_adapters, authors);
                assert_eq!(config.quirks.standard_gradient_times_tasks, authors);
                let spec = config.spec();
                assert_eq!((spec.dimension, spec.tasks, spec.rank), (10, 3, 1));
                assert_eq!((spec.samples_per_task, spec.test_samples), (5000, 100));
                let r = &config.retraining;
                assert_eq!((r.rounds, r.inner_steps), (3000, 10));
                assert_eq!((r.inner_step_size, r.outer_step_size, r.start_std), (0.003, 0.03, 0.1));
                assert_eq!(
                    (config.fine_tuning.step_size, config.fine_tuning.start_std),
                    (0.005, 0.1)
                );
            }
        }
        let shown = |name| Resolved::read(&table(name)).unwrap().config.fine_tuning.shown_steps;
        assert_eq!((shown("sweep_k"), shown("sweep_t")), (1000, 10000));
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        for (edit, named) in [
            ("noise_std=-1", "noise_std"),
            ("noise_std=nan", "noise_std"),
            ("rank=11", "rank"),
            ("dimension=0", "dimension"),
            ("seeds=5..2", "seeds"),
            ("kind=diagonal", "asymmetric"),
            ("ground_truth=per-week", "per-sweep"),
            ("retraining.methods=[\"magic\"]", "lora-ml/global"),
            ("retraining.methods=[]", "retraining.methods"),
            ("fine_tuning.methods=[\"magic\"]", "reduced-rank-regression"),
            ("fine_tuning.step_size=0", "fine_tuning.step_size"),
            ("study=../elsewhere", "study"),
            ("samples_per_task=1000000000000", "samples_per_task"),
            ("rank=1.5", "rank"),
        ] {
            let mut table = table("sweep_n");
            set(&mut table, edit).unwrap();
            let error = Resolved::read(&table).unwrap_err().to_string();
            assert!(error.contains(named), "{edit}: {error}");
        }
        // A sweep that leaves the possible is found before anything is run.
        let mut table = table("sweep_k");
        set(&mut table, "sweep.rank=[1, 11]").unwrap();
        assert!(Resolved::read(&table).is_err());
    }
}
