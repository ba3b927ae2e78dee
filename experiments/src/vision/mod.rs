//! The vision studies: binary tasks from pairs of image classes, retrained with and without adapters, then
//! fine-tuned on a pair that was not seen.
//!
//! A trial is (sweep point, seed, retraining method, fine-tuning method). Trials of a point, a seed and a
//! retraining method form a group: their base is made once, and kept as a checkpoint in the run folder.
//! Images, split, order, initial weights and fresh adapters of a seed are the same for every method.
//! Source: experiments.md, section 3.

mod answer;
pub mod config;
mod draw;
pub mod images;
mod scene;
mod trial;

use crate::config::resolved::{Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Outcome, Site, Study, Summary, Tables, Trial};
use config::{Source, VisionConfig};
use peftml_data::cifar;
use scene::{Base, Pictures, Scene, TrialError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use toml::Table;
use trial::TrialPlan;

/// Measured columns.
const MEASURES: [&str; 4] =
    ["accuracy", "best_accuracy", "best_validation_accuracy", "retraining_validation"];

/// A vision study.
pub struct VisionStudy {
    about: About,
    resolved: Resolved<VisionConfig>,
    seeds: Vec<u64>,
    /// Retraining methods in the order of the cells, each with its fine-tuning methods.
    methods: Vec<(String, Vec<String>)>,
    /// Real images, once they are read.
    pictures: Mutex<Option<Pictures>>,
}

impl VisionStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let resolved = Resolved::<VisionConfig>::read(table)?;
        let config = &resolved.config;
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let swept = resolved.swept.clone();
        let about = About {
            suite: config.suite.clone(),
            name: match config.preset.as_str() {
                "paper" => config.study.clone(),
                preset => format!("{}.{preset}", config.study),
            },
            title: config.title.clone(),
            question: config.question.clone(),
            keys: [swept.clone(), text(&["seed", "fine_tuning", "retraining"])].concat(),
            swept,
            measures: text(&MEASURES),
        };
        let mut methods: Vec<(String, Vec<String>)> = Vec::new();
        for [retraining, fine_tuning] in &config.cells {
            match methods.iter_mut().find(|(known, _)| known == retraining) {
                Some((_, tunings)) => tunings.push(fine_tuning.clone()),
                None => methods.push((retraining.clone(), vec![fine_tuning.clone()])),
            }
        }
        let seeds = Seeds::parse(&config.seeds)?.values().to_vec();
        Ok(Self { about, seeds, methods, pictures: Mutex::new(None), resolved })
    }

    /// A group's sweep point, seed and retraining method.
    fn place(&self, group: usize) -> (usize, u64, &(String, Vec<String>)) {
        let (rest, method) = (group / self.methods.len(), group % self.methods.len());
        (rest / self.seeds.len(), self.seeds[rest % self.seeds.len()], &self.methods[method])
    }

    /// Cells up to and with the seed.
    fn prefix(&self, point: usize, seed: u64) -> Line {
        let (values, config) = &self.resolved.points[point];
        let mut line = Line::new();
        line.text(&config.suite).text(&config.study);
        for (_, value) in values {
            line.text(&plain(value));
        }
        line.integer(seed);
        line
    }

    /// The images of a seed; real ones are read once.
    fn pictures(
        &self,
        config: &VisionConfig,
        seed: u64,
        data: Option<&Path>,
    ) -> Result<Pictures, String> {
        if let Some(pictures) = Pictures::synthetic(&config.data, seed) {
            return Ok(pictures);
        }
        // A thread that panicked while reading left nothing behind.
        let mut kept = self.pictures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pictures) = kept.as_ref() {
            return Ok(pictures.clone());
        }
        let folder = data.ok_or_else(|| not_there("no folder of real data is known"))?;
        let set = cifar::read(folder).map_err(|error| not_there(&error.to_string()))?;
        let (training, test) = (Arc::new(set.training), Arc::new(set.test));
        Ok(kept.insert(Pictures { training, test }).clone())
    }

    fn run_group(
        &self,
        site: &Site<'_>,
        group: &Group<'_>,
        finish: &mut dyn FnMut(&Trial, Result<Outcome, String>),
    ) -> Result<(), String> {
        let Some(first) = group.first() else { return Ok(()) };
        let (point, seed, (retraining, tunings)) = self.place(first.group);
        let config = &self.resolved.points[point].1;
        let pictures = self.pictures(config, seed, site.data)?;
        let failed = |error: TrialError| error.to_string();
        let scene = Scene::new(config, seed, &pictures, site).map_err(failed)?;
        let mut base: Result<Base, TrialError> = scene.retrain(retraining);
        let prefix = self.prefix(point, seed);
        for trial in group {
            let name = trial.id.rsplit(' ').next().unwrap_or_default();
            let Some(fine_tuning) = tunings.iter().find(|tuning| *tuning == name) else {
                finish(trial, Err("no such fine-tuning method".to_owned()));
                continue;
            };
            let names = [retraining.as_str(), fine_tuning];
            let plan = TrialPlan { config, prefix: &prefix, names };
            let outcome = plan.run(&scene, base.as_ref());
            let whole = outcome.is_ok();
            finish(trial, outcome);
            if whole {
                scene.forget(names);
            }
            if let Ok(base) = &mut base {
                // The trial that comes next spends none of it.
                base.spent = (0, 0.0);
            }
        }
        Ok(())
    }

    /// Estimated work of one step: images through the network and back.
    fn cost(config: &VisionConfig, tunings: usize) -> f64 {
        let work = |steps: u64, batch: usize| steps as f64 * batch as f64;
        let (first, second) = (&config.retraining, &config.fine_tuning);
        work(first.steps, first.batch) / tunings as f64 + work(second.steps, second.batch)
    }
}

fn not_there(reason: &str) -> String {
    format!(
        "CIFAR-10 cannot be read: {reason}; `cargo xtask data cifar10` gets it, PEFTML_DATA names the \
         folder that holds it, and the study vision/quick needs none"
    )
}

impl Study for VisionStudy {
    fn about(&self) -> &About {
        &self.about
    }

    fn config(&self) -> &Table {
        &self.resolved.table
    }

    /// No trial depends on the other cells, nor on what they are compared with.
    fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.resolved.table);
        for leaf in ["seeds", "cells", "baseline"] {
            identity.remove(leaf);
        }
        identity
    }

    fn headers(&self) -> Headers {
        let swept: String = self.resolved.swept.iter().map(|path| format!(",{path}")).collect();
        let header = |rest: &str| format!("suite,study{swept},seed,{rest}");
        Headers {
            trials: header(trial::TRIAL_COLUMNS),
            curves: header(trial::CURVE_COLUMNS),
            timings: header(trial::TIMING_COLUMNS),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        let mut group = 0;
        for (values, config) in &self.resolved.points {
            let point: String =
                values.iter().map(|(path, value)| format!("{path}={} ", plain(value))).collect();
            for seed in &self.seeds {
                for (retraining, tunings) in &self.methods {
                    for tuning in tunings {
                        trials.push(Trial {
                            id: format!("{point}seed={seed} {retraining} {tuning}"),
                            group,
                            cost: Self::cost(config, tunings.len()),
                        });
                    }
                    group += 1;
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        self.run_at(&Site::default(), group, finish);
    }

    fn run_at(
        &self,
        site: &Site<'_>,
        group: &Group<'_>,
        finish: &mut dyn FnMut(&Trial, Result<Outcome, String>),
    ) {
        let mut open: BTreeMap<&str, &Trial> =
            group.iter().map(|trial| (trial.id.as_str(), *trial)).collect();
        let ended = self.run_group(site, group, &mut |trial, outcome| {
            open.remove(trial.id.as_str());
            finish(trial, outcome);
        });
        if let Err(reason) = ended {
            open.into_values().for_each(|trial| finish(trial, Err(reason.clone())));
        }
    }

    fn check_site(&self, site: &Site<'_>) -> Result<(), String> {
        let real = |(_, config): &&(_, VisionConfig)| config.data.source == Source::Cifar10;
        match self.resolved.points.iter().find(real) {
            Some((_, config)) => self.pictures(config, 0, site.data).map(|_| ()),
            None => Ok(()),
        }
    }

    fn shares_threads(&self) -> bool {
        true
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
