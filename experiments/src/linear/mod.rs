//! The linear studies: the paper's five sweeps, with theory's predictions beside every figure.
//!
//! A trial is (sweep point, seed, retraining method) with all its fine-tunings. Trials of a point and
//! a seed form a group: they share ground truth, samples and starts. Source: experiments.md,
//! section 1.

mod answer;
pub mod config;
mod draw;
pub mod methods;
mod scene;
mod stats;
mod trial;

pub use scene::{Losses, Scene};

use crate::config::ConfigError;
use crate::figures::Figure;
use crate::runs::{About, Group, Headers, Outcome, Study, Summary, Tables, Trial};
use crate::two_stage::{Frame, METHOD_KEYS};
use config::{GroundTruthMode, LinearConfig};
use methods::{FineTuningMethod, RetrainingMethod};
use peftml_data::synthetic::linear::{LinearSpec, cut};
use peftml_linalg::Seed;
use peftml_theory::linear::GroundTruth;
use std::time::Instant;
use toml::{Table, Value};
use trial::TrialPlan;

/// Measured columns.
const MEASURES: [&str; 3] = ["reference_loss", "excess_risk", "base_error_squared"];

/// A linear study.
pub struct LinearStudy {
    frame: Frame<LinearConfig>,
    retraining: Vec<&'static RetrainingMethod>,
    fine_tuning: Vec<&'static FineTuningMethod>,
    /// The truth of the whole sweep, at its largest sizes.
    largest: Option<GroundTruth>,
}

impl LinearStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let frame = Frame::<LinearConfig>::new(table, &MEASURES)?;
        let config = &frame.resolved.config;
        let largest = match config.ground_truth {
            GroundTruthMode::PerSeed => None,
            GroundTruthMode::PerSweep => {
                let spec = largest(frame.resolved.points.iter().map(|(_, config)| config.spec()));
                // One truth for all seeds: its stream has a number of its own.
                Some(spec.ground_truth(&spec.seed(0)))
            }
        };
        Ok(Self {
            retraining: RetrainingMethod::find_all(&config.retraining.methods)?,
            fine_tuning: FineTuningMethod::find_all(&config.fine_tuning.methods)?,
            largest,
            frame,
        })
    }

    fn scene(&self, point: usize, seed: u64) -> Result<Scene<'_>, String> {
        let config: &LinearConfig = &self.frame.resolved.points[point].1;
        let spec = config.spec();
        let seed: Seed = spec.seed(seed);
        let truth = match &self.largest {
            None => spec.ground_truth(&seed),
            Some(largest) => cut(largest, spec.dimension, spec.rank, spec.tasks)
                .map_err(|error| error.to_string())?,
        };
        Scene::new(config, truth, seed).map_err(|error| error.to_string())
    }

    fn cost(&self, config: &LinearConfig, method: &RetrainingMethod) -> f64 {
        let samples = config.samples_per_task * config.tasks + config.test_samples;
        // About 10 ns a normal draw, two for each coordinate of a sample, shared by the group.
        let sampling = 20.0 * (samples * config.dimension) as f64 / self.retraining.len() as f64;
        let tuning: f64 = self.fine_tuning.iter().map(|method| (method.cost)(config)).sum();
        sampling + (method.cost)(config) + tuning
    }
}

/// The largest sizes of a sweep.
fn largest(specs: impl Iterator<Item = LinearSpec>) -> LinearSpec {
    let joined = specs.reduce(|a, b| LinearSpec {
        dimension: a.dimension.max(b.dimension),
        rank: a.rank.max(b.rank),
        tasks: a.tasks.max(b.tasks),
        samples_per_task: a.samples_per_task.max(b.samples_per_task),
        test_samples: a.test_samples.max(b.test_samples),
        ..a
    });
    joined.expect("a sweep has at least one point")
}

impl Study for LinearStudy {
    fn about(&self) -> &About {
        &self.frame.about
    }

    fn config(&self) -> &Table {
        &self.frame.resolved.table
    }

    /// Without seeds, and without the sweep's values where trials do not depend on them; they do
    /// where one truth is cut down from the largest sizes, so those sizes are part of it then.
    fn identity(&self) -> Table {
        let mut identity = self.frame.identity();
        if self.largest.is_some() {
            let spec = largest(self.frame.resolved.points.iter().map(|(_, config)| config.spec()));
            let sizes =
                [spec.dimension, spec.rank, spec.tasks, spec.samples_per_task, spec.test_samples];
            let sizes = sizes.iter().map(|size| Value::Integer(*size as i64)).collect();
            identity.insert("largest".to_owned(), Value::Array(sizes));
        }
        identity
    }

    fn headers(&self) -> Headers {
        self.frame.headers([trial::TRIAL_COLUMNS, trial::CURVE_COLUMNS, trial::TIMING_COLUMNS])
    }

    fn trials(&self) -> Vec<Trial> {
        let names: Vec<String> = self.retraining.iter().map(|m| m.name.to_owned()).collect();
        self.frame.trials(&names, |config, method| self.cost(config, self.retraining[method]))
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let Some(first) = group.first() else { return };
        let (point, seed) = self.frame.place(first);
        let config = &self.frame.resolved.points[point].1;
        let prefix = self.frame.prefix(point, seed);
        let started = Instant::now();
        let scene = match self.scene(point, seed) {
            Ok(scene) => scene,
            Err(reason) => {
                return group.iter().for_each(|trial| finish(trial, Err(reason.clone())));
            }
        };
        let mut statistics = prefix.clone();
        for _ in METHOD_KEYS {
            statistics.text("");
        }
        statistics.text("statistics").number(started.elapsed().as_secs_f64());
        let mut timings = vec![statistics.finish()];
        for trial in group {
            let name = trial.id.rsplit(' ').next();
            let method = self.retraining.iter().find(|method| Some(method.name) == name);
            let Some(retraining) = method else {
                finish(trial, Err("no such retraining method".to_owned()));
                continue;
            };
            let plan =
                TrialPlan { config, prefix: &prefix, retraining, fine_tuning: &self.fine_tuning };
            let mut outcome = plan.run(&scene);
            // What the group shares stands once, with the first of its trials.
            outcome.timings.splice(0..0, timings.drain(..));
            finish(trial, Ok(outcome));
        }
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        draw::figures(self, tables)
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        answer::summary(self, tables)
    }
}

#[cfg(test)]
mod tests;
