//! What configurations of network studies have in common: leaves, methods of the stages, and checks.

use super::answer::Cell;
use super::stages::Stages;
use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, Leaf, Seeds};
use crate::runs::{Site, Summary};
use peftml_peft::optimiser::{AdamConfig, OptimiserConfig};
use peftml_peft::train::Algorithm;
use peftml_peft::{AdapterConfig, PeftError};
use serde::{Deserialize, Serialize};

/// A larger factor is a slip of the finger.
const MOST_FACTOR: f64 = 1e6;
/// More steps than this are a slip of the finger.
pub const MOST_STEPS: u64 = 1_000_000_000;
/// More examples of a task than this are a slip of the finger.
pub const MOST_EXAMPLES: usize = 1_000_000;

/// What leaves mean that the suites of networks have in common.
pub const LEAVES: &[Leaf] = &[
    Leaf::new(
        "cells",
        "pairs of names: a retraining method, and the fine-tuning method that follows it",
    ),
    Leaf::new("baseline", "the retraining method that the others are compared with"),
    Leaf::new("retraining.step_factor", "multiplies every method's step size"),
    Leaf::new("retraining.keep", "the base of the `\"best\"` validation or of the `\"last\"` step"),
    Leaf::new(
        "retraining.optimiser.*",
        "`name` (`adam` with decay in the gradient, `adamw` with it decoupled, `sgd`), `step_size` of methods that name none, `weight_decay`, ..",
    ),
    Leaf::new(
        "retraining.schedule.*",
        "`name`: `constant`, `cosine` or `linear` (up over the share `warmup` of the steps, 0 at `end` times all steps)",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.adapter.*",
        "`peft-ml`: `method` (`peftml methods` lists them) and its own leaves",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.rounds.*",
        "`peft-ml`: `name` is `joint` (base and all adapters in every step), `alternating` (`inner` steps of the adapters, then `outer` of the base) or `cycle` (the tasks in turn)",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.outer_step_size",
        "`reptile`: part of the way to the inner steps' end, falling linearly to 0",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.inner_state",
        "`reptile`: whether the inner optimiser begins every round `\"fresh\"` or its memory is `\"kept\"`",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.inner_steps",
        "`reptile`, `fomaml`: steps on a task before the outer one",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.reversed",
        "`reptile`: the outer step with its sign turned, as in the reference code",
    ),
    Leaf::new("fine_tuning.step_factor", "multiplies every method's step size"),
    Leaf::new("fine_tuning.optimiser.*", "as in the first stage"),
    Leaf::new("fine_tuning.schedule.*", "as in the first stage"),
    Leaf::new(
        "fine_tuning.methods.*.adapter.*",
        "`method` (`peftml methods` lists them) and its own leaves",
    ),
];

/// The leaves that these configurations have in common.
pub struct Leaves<'c> {
    /// Suite.
    pub suite: &'c str,
    /// Name of the study.
    pub study: &'c str,
    /// Name of the preset.
    pub preset: &'c str,
    /// Title.
    pub title: &'c str,
    /// The question that the study answers.
    pub question: &'c str,
    /// Seeds; see [`Seeds`].
    pub seeds: &'c str,
    /// Names of a retraining method and of the fine-tuning method that follows it.
    pub cells: &'c [[String; 2]],
    /// The retraining method that the others are compared with.
    pub baseline: &'c str,
}

/// How a suite speaks of its data.
pub struct Words {
    /// What models are tested on: `the unseen task`.
    pub unseen: &'static str,
    /// The same as a title.
    pub title: &'static str,
    /// What is the same for all methods: `the same images, order and starts`.
    pub same: &'static str,
    /// Of synthetic data: a sentence, and an addition to a count of seeds; empty for real ones.
    pub synthetic: [&'static str; 2],
}

/// A configuration of one suite of network studies.
pub trait Staged: PointConfig + Send + Sync {
    /// The suite that it is of.
    const SUITE: &'static str;
    /// Columns of trials.csv that the suite has beside the others'.
    const OWN_COLUMNS: &'static [&'static str] = &[];
    /// What is read once for all trials.
    type Kept: Default + Send + Sync;

    /// The common leaves.
    fn leaves(&self) -> Leaves<'_>;

    /// Names of the retraining and of the fine-tuning methods.
    fn methods(&self) -> [Vec<&String>; 2];

    /// Step sizes of the retraining and of the fine-tuning method called `names`.
    fn step_sizes(&self, names: [&str; 2]) -> [Option<f64>; 2];

    /// Estimated work of a trial, of which `tunings` share a base.
    fn cost(&self, names: [&str; 2], tunings: usize) -> f64;

    /// Words for figures and answers.
    fn words(&self) -> Words;

    /// The accuracy of a guess, where figures should show it.
    fn chance(&self) -> Option<f64> {
        None
    }

    /// What all methods of seed `number` share.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    fn scene<'c>(
        &'c self,
        number: u64,
        site: &Site<'_>,
        kept: &Self::Kept,
    ) -> Result<Box<dyn Stages + 'c>, String>;

    /// Whether trials can be run at `site`.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    fn check_site(&self, site: &Site<'_>, kept: &Self::Kept) -> Result<(), String>;

    /// Adds to the answer what this suite alone has to say, from the cells with their own columns.
    fn complete(&self, _cells: &[Cell], _summary: &mut Summary) {}
}

/// Which base is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// That of the best validation.
    Best,
    /// That of the last step.
    Last,
}

/// A fine-tuning method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuningMethod {
    /// The adapter.
    pub adapter: AdapterConfig,
    /// Its step size, in the place of the optimiser's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
}

impl FineTuningMethod {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::FineTuning { adapter: self.adapter.clone() }
    }
}

/// Checks suite, names, seeds, cells and the baseline.
///
/// # Errors
/// [`ConfigError::Value`] that names the leaf.
pub fn check_leaves<C: Staged>(config: &C) -> Result<(), ConfigError> {
    let Leaves { suite, study, preset, seeds, cells, baseline, .. } = config.leaves();
    if suite != C::SUITE {
        let expected = format!("this study is of suite {}", C::SUITE);
        return Err(ConfigError::value("suite", suite, expected));
    }
    for (key, name) in [("study", study), ("preset", preset)] {
        check_name(key, name)?;
    }
    Seeds::parse(seeds)?;
    let wrong =
        |cell: &[String; 2], what: String| ConfigError::value("cells", format!("{cell:?}"), what);
    if cells.is_empty() {
        return Err(ConfigError::value("cells", "[]", "at least one pair is needed"));
    }
    let [retraining, fine_tuning] = config.methods();
    let known =
        |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    for (index, cell) in cells.iter().enumerate() {
        let [first, second] = cell;
        if !retraining.contains(&first) {
            let known = known(&retraining);
            return Err(wrong(cell, format!("no retraining method {first}; known: {known}")));
        }
        if !fine_tuning.contains(&second) {
            let known = known(&fine_tuning);
            return Err(wrong(cell, format!("no fine-tuning method {second}; known: {known}")));
        }
        if cells[..index].contains(cell) {
            return Err(wrong(cell, "no pair may stand twice".into()));
        }
    }
    if !retraining.iter().any(|name| *name == baseline) {
        let expected = "the name of a retraining method is needed";
        return Err(ConfigError::value("baseline", baseline, expected));
    }
    let names = retraining.iter().map(|name| ("retraining.methods", name));
    let more = fine_tuning.iter().map(|name| ("fine_tuning.methods", name));
    names.chain(more).try_for_each(|(key, name)| check_name(key, name))
}

/// Checks the batch and the factor of the stage called `stage`.
///
/// # Errors
/// As [`check_leaves`].
pub fn check_stage(stage: &str, batch: usize, factor: f64) -> Result<(), ConfigError> {
    if !(1..=MOST_EXAMPLES).contains(&batch) {
        let expected = format!("from 1 to {MOST_EXAMPLES}");
        return Err(ConfigError::value(format!("{stage}.batch"), batch, expected));
    }
    if !(factor > 0.0 && factor <= MOST_FACTOR) {
        let expected = format!("a number above 0, at most {MOST_FACTOR}, is needed");
        return Err(ConfigError::value(format!("{stage}.step_factor"), factor, expected));
    }
    Ok(())
}

/// Checks a number of steps.
///
/// # Errors
/// As [`check_leaves`].
pub fn check_steps(key: &str, steps: u64) -> Result<(), ConfigError> {
    if (1..=MOST_STEPS).contains(&steps) {
        return Ok(());
    }
    Err(ConfigError::value(format!("{key}.steps"), steps, format!("from 1 to {MOST_STEPS}")))
}

/// `optimiser` at `step_size` (its own where there is none) times `factor`.
pub fn with_rate(
    optimiser: &OptimiserConfig,
    step_size: Option<f64>,
    factor: f64,
) -> OptimiserConfig {
    let mut optimiser = optimiser.clone();
    let (OptimiserConfig::Adam(AdamConfig { step_size: own, .. })
    | OptimiserConfig::AdamW(AdamConfig { step_size: own, .. })
    | OptimiserConfig::Sgd { step_size: own, .. }) = &mut optimiser;
    *own = step_size.unwrap_or(*own) * factor;
    optimiser
}

/// An optimiser's step size.
pub fn step_size(optimiser: &OptimiserConfig) -> f64 {
    match optimiser {
        OptimiserConfig::Sgd { step_size, .. } => *step_size,
        OptimiserConfig::Adam(config) | OptimiserConfig::AdamW(config) => config.step_size,
    }
}

/// What networks and methods say of the leaf `key`, in one line.
pub fn failed(key: &str, error: &PeftError) -> ConfigError {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError::value(key, "as it stands", text)
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        let expected = "letters, digits, dots, dashes and underscores: it names files";
        return Err(ConfigError::value(key, format!("\"{name}\""), expected));
    }
    Ok(())
}
