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

use crate::config::resolved::{Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Outcome, Study, Summary, Tables, Trial};
use crate::swept::Swept;
use config::ShallowConfig;
use methods::{FineTuningMethod, RetrainingMethod};
use toml::Table;
use trial::TrialPlan;

/// Size columns: what names a problem.
const SIZES: [&str; 5] = ["dimension", "rank", "tasks", "samples_per_task", "test_samples"];

/// Columns that name a row beside point and seed.
const METHOD_KEYS: [&str; 4] = ["retraining", "solver", "fine_tuning", "adapter_rank"];

/// Measured columns.
const MEASURES: [&str; 3] = ["reference_mse", "test_mse", "retraining_loss"];

/// A shallow study.
pub struct ShallowStudy {
    about: About,
    resolved: Resolved<ShallowConfig>,
    seeds: Seeds,
    retraining: Vec<RetrainingMethod>,
    fine_tuning: Vec<FineTuningMethod>,
    /// Swept leaves that have no column among the sizes.
    extra: Vec<String>,
}

impl ShallowStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let resolved = Resolved::<ShallowConfig>::read(table)?;
        let config = &resolved.config;
        let extra: Vec<String> =
            resolved.swept.iter().filter(|path| !SIZES.contains(&path.as_str())).cloned().collect();
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let keys = [text(&SIZES), extra.clone(), text(&["seed"]), text(&METHOD_KEYS)].concat();
        let name = match config.preset.as_str() {
            "paper" => config.study.clone(),
            preset => format!("{}.{preset}", config.study),
        };
        let about = About {
            suite: config.suite.clone(),
            name,
            title: config.title.clone(),
            question: config.question.clone(),
            swept: resolved.swept.clone(),
            keys,
            measures: text(&MEASURES),
        };
        Ok(Self {
            about,
            seeds: Seeds::parse(&config.seeds)?,
            retraining: RetrainingMethod::find_all(&config.retraining.methods)?,
            fine_tuning: FineTuningMethod::find_all(&config.fine_tuning.methods)?,
            extra,
            resolved,
        })
    }

    fn swept(&self) -> Swept<'_> {
        Swept { paths: &self.resolved.swept, default: "test_samples" }
    }

    /// Cells up to and with the seed.
    fn prefix(&self, point: usize, seed: u64) -> Line {
        let (values, config) = &self.resolved.points[point];
        let mut line = Line::new();
        line.text(&config.suite).text(&config.study);
        for size in [
            config.dimension,
            config.rank,
            config.tasks,
            config.samples_per_task,
            config.test_samples,
        ] {
            line.integer(size as u64);
        }
        for path in &self.extra {
            let value = values.iter().find(|(swept, _)| swept == path).map(|(_, value)| value);
            line.text(&value.map(plain).unwrap_or_default());
        }
        line.integer(seed);
        line
    }

    fn cost(config: &ShallowConfig, retraining: &RetrainingMethod, tuning: usize) -> f64 {
        let units = (config.fine_tuning.steps * config.test_samples * config.dimension) as f64;
        retraining.cost(config) + 1.7 * units * (tuning * config.adapter_ranks().len()) as f64
    }

    fn header(&self, rest: &str) -> String {
        let keys = [&["suite", "study"][..], &SIZES].concat().join(",");
        let extra: String = self.extra.iter().map(|path| format!(",{path}")).collect();
        format!("{keys}{extra},seed,{rest}")
    }
}

impl Study for ShallowStudy {
    fn about(&self) -> &About {
        &self.about
    }

    fn config(&self) -> &Table {
        &self.resolved.table
    }

    /// Without seeds and the sweep's values, on which no trial depends.
    fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.resolved.table);
        identity.remove("seeds");
        identity
    }

    fn headers(&self) -> Headers {
        Headers {
            trials: self.header(trial::TRIAL_COLUMNS),
            curves: self.header(trial::CURVE_COLUMNS),
            timings: self.header(trial::TIMING_COLUMNS),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let seeds = self.seeds.values();
        let mut trials = Vec::new();
        for (point, (values, config)) in self.resolved.points.iter().enumerate() {
            let ShallowConfig { dimension, rank, tasks, samples_per_task, test_samples, .. } =
                config;
            let mut name =
                format!("d={dimension} k={rank} T={tasks} N={samples_per_task} n={test_samples}");
            for (path, value) in values.iter().filter(|(path, _)| self.extra.contains(path)) {
                name += &format!(" {path}={}", plain(value));
            }
            for (index, seed) in seeds.iter().enumerate() {
                for method in &self.retraining {
                    trials.push(Trial {
                        id: format!("{name} seed={seed} {}", method.name()),
                        group: point * seeds.len() + index,
                        cost: Self::cost(config, method, self.fine_tuning.len()),
                    });
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let Some(first) = group.first() else { return };
        let seeds = self.seeds.values();
        let (point, seed) = (first.group / seeds.len(), seeds[first.group % seeds.len()]);
        let config = &self.resolved.points[point].1;
        let scene = match Scene::new(config, seed) {
            Ok(scene) => scene,
            Err(reason) => {
                return group.iter().for_each(|trial| finish(trial, Err(reason.to_string())));
            }
        };
        let prefix = self.prefix(point, seed);
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
