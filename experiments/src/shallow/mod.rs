//! The shallow-network studies: `y = c^T sigmoid((A + U_t U_t^T) x)`, retrained with and without
//! adapters, then fine-tuned.
//!
//! A trial is (sweep point, seed, retraining method) with all its fine-tunings. Trials of a point and
//! a seed form a group: they share ground truth, samples and starts. Theory has no prediction here;
//! methods are compared by medians with intervals of order statistics and by a paired sign test.
//! Source: experiments.md, section 2.

mod answer;
pub mod config;
mod draw;
pub mod methods;
mod pairs;
mod scene;
mod trial;

pub use scene::{Base, Errors, Scene, SceneError};

use crate::config::ConfigError;
use crate::figures::Figure;
use crate::runs::{About, Group, Headers, Outcome, Study, Summary, Tables, Trial};
use crate::two_stage::Frame;
use config::ShallowConfig;
use methods::{FineTuningMethod, RetrainingMethod};
use toml::Table;
use trial::TrialPlan;

/// Measured columns.
const MEASURES: [&str; 3] = ["reference_mse", "test_mse", "retraining_loss"];

/// A shallow study.
pub struct ShallowStudy {
    frame: Frame<ShallowConfig>,
    retraining: Vec<RetrainingMethod>,
    fine_tuning: Vec<FineTuningMethod>,
}

impl ShallowStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let frame = Frame::<ShallowConfig>::new(table, &MEASURES)?;
        let config = &frame.resolved.config;
        Ok(Self {
            retraining: RetrainingMethod::find_all(&config.retraining.methods)?,
            fine_tuning: FineTuningMethod::find_all(&config.fine_tuning.methods)?,
            frame,
        })
    }

    fn cost(config: &ShallowConfig, retraining: &RetrainingMethod, tuning: usize) -> f64 {
        let units = [config.fine_tuning.steps, config.test_samples, config.dimension];
        let units: f64 = units.iter().map(|size| *size as f64).product();
        retraining.cost(config) + 1.7 * units * (tuning * config.adapter_ranks().len()) as f64
    }
}

impl Study for ShallowStudy {
    fn about(&self) -> &About {
        &self.frame.about
    }

    fn config(&self) -> &Table {
        &self.frame.resolved.table
    }

    fn identity(&self) -> Table {
        self.frame.identity()
    }

    fn headers(&self) -> Headers {
        self.frame.headers([trial::TRIAL_COLUMNS, trial::CURVE_COLUMNS, trial::TIMING_COLUMNS])
    }

    fn trials(&self) -> Vec<Trial> {
        let names: Vec<String> = self.retraining.iter().map(RetrainingMethod::name).collect();
        self.frame.trials(&names, |config, method| {
            Self::cost(config, &self.retraining[method], self.fine_tuning.len())
        })
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let Some(first) = group.first() else { return };
        let (point, seed) = self.frame.place(first);
        let config = &self.frame.resolved.points[point].1;
        let scene = match Scene::new(config, seed) {
            Ok(scene) => scene,
            Err(reason) => {
                return group.iter().for_each(|trial| finish(trial, Err(reason.to_string())));
            }
        };
        let prefix = self.frame.prefix(point, seed);
        for trial in group {
            let name = trial.id.rsplit(' ').next().unwrap_or_default();
            match self.retraining.iter().find(|method| method.name() == name) {
                None => finish(trial, Err("no such retraining method".to_owned())),
                Some(retraining) => {
                    let fine_tuning = &self.fine_tuning;
                    let plan = TrialPlan { config, prefix: &prefix, retraining, fine_tuning };
                    finish(trial, Ok(plan.run(&scene)));
                }
            }
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
