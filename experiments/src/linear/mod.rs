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

use crate::config::resolved::{Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Outcome, Study, Summary, Tables, Trial};
use config::{GroundTruthMode, LinearConfig};
use methods::{FineTuningMethod, RetrainingMethod};
use peftml_data::synthetic::linear::{LinearSpec, cut};
use peftml_linalg::Seed;
use peftml_theory::linear::GroundTruth;
use std::time::Instant;
use toml::{Table, Value};
use trial::TrialPlan;

/// Size columns: what names a problem.
const SIZES: [&str; 5] = ["dimension", "rank", "tasks", "samples_per_task", "test_samples"];

/// Columns that name a row beside point and seed.
const METHOD_KEYS: [&str; 4] = ["retraining", "solver", "fine_tuning", "adapter_rank"];

/// Measured columns.
const MEASURES: [&str; 3] = ["reference_loss", "excess_risk", "base_error_squared"];

/// A linear study.
pub struct LinearStudy {
    about: About,
    resolved: Resolved<LinearConfig>,
    seeds: Seeds,
    retraining: Vec<&'static RetrainingMethod>,
    fine_tuning: Vec<&'static FineTuningMethod>,
    /// Swept leaves that have no column among the sizes.
    extra: Vec<String>,
    /// The truth of the whole sweep, at its largest sizes.
    largest: Option<GroundTruth>,
}

impl LinearStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let resolved = Resolved::<LinearConfig>::read(table)?;
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
        let largest = match config.ground_truth {
            GroundTruthMode::PerSeed => None,
            GroundTruthMode::PerSweep => {
                let spec = largest(resolved.points.iter().map(|(_, config)| config.spec()));
                // One truth for all seeds: its stream has a number of its own.
                Some(spec.ground_truth(&spec.seed(0)))
            }
        };
        Ok(Self {
            about,
            seeds: Seeds::parse(&config.seeds)?,
            retraining: RetrainingMethod::find_all(&config.retraining.methods)?,
            fine_tuning: FineTuningMethod::find_all(&config.fine_tuning.methods)?,
            extra,
            largest,
            resolved,
        })
    }

    /// Number of seeds and of retraining methods: how trials are counted off.
    fn counts(&self) -> (usize, usize) {
        (self.seeds.values().len(), self.retraining.len())
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

    fn scene(&self, point: usize, seed: u64) -> Result<Scene<'_>, String> {
        let config: &LinearConfig = &self.resolved.points[point].1;
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

    fn header(&self, rest: &str) -> String {
        let keys = [&["suite", "study"][..], &SIZES].concat().join(",");
        let extra: String = self.extra.iter().map(|path| format!(",{path}")).collect();
        format!("{keys}{extra},seed,{rest}")
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
        &self.about
    }

    fn config(&self) -> &Table {
        &self.resolved.table
    }

    /// Without seeds, and without the sweep's values where trials do not depend on them; they do
    /// where one truth is cut down from the largest sizes, so those sizes are part of it then.
    fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.resolved.table);
        identity.remove("seeds");
        if self.largest.is_some() {
            let spec = largest(self.resolved.points.iter().map(|(_, config)| config.spec()));
            let sizes =
                [spec.dimension, spec.rank, spec.tasks, spec.samples_per_task, spec.test_samples];
            let sizes = sizes.iter().map(|size| Value::Integer(*size as i64)).collect();
            identity.insert("largest".to_owned(), Value::Array(sizes));
        }
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
        let mut trials = Vec::new();
        for (point, (values, config)) in self.resolved.points.iter().enumerate() {
            let LinearConfig { dimension, rank, tasks, samples_per_task, test_samples, .. } =
                config;
            let mut name =
                format!("d={dimension} k={rank} T={tasks} N={samples_per_task} n={test_samples}");
            for (path, value) in values.iter().filter(|(path, _)| self.extra.contains(path)) {
                name += &format!(" {path}={}", plain(value));
            }
            for (index, seed) in self.seeds.values().iter().enumerate() {
                for method in &self.retraining {
                    trials.push(Trial {
                        id: format!("{name} seed={seed} {}", method.name),
                        group: point * self.counts().0 + index,
                        cost: self.cost(config, method),
                    });
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let Some(first) = group.first() else { return };
        let seeds = self.counts().0;
        let (point, seed) = (first.group / seeds, self.seeds.values()[first.group % seeds]);
        let config = &self.resolved.points[point].1;
        let prefix = self.prefix(point, seed);
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
