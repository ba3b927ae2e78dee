//! What the studies of networks share: a base by one of several retraining methods, then fine-tuned.
//!
//! A trial is (sweep point, seed, retraining method, fine-tuning method). Trials of a point, a seed and a
//! retraining method form a group: their base is made once, and kept as a checkpoint in the run folder.
//! Data, split, order, initial weights and fresh adapters of a seed are the same for every method.
//!
//! * [`NetworkStudy`]: a study of a configuration that says what its suite's own is ([`Staged`])
//! * [`stages`]: bases, fine-tuned models, checkpoints' names; [`config`]: leaves and checks in common

pub mod answer;
pub mod config;
mod draw;
pub mod stages;
pub mod trial;

use crate::config::resolved::{Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Outcome, Site, Study, Summary, Tables, Trial};
use config::Staged;
use stages::{Base, TrialError};
use std::collections::BTreeMap;
use toml::Table;
use trial::TrialPlan;

/// Measured columns.
const MEASURES: [&str; 4] =
    ["accuracy", "best_accuracy", "best_validation_accuracy", "retraining_validation"];

/// A study of networks.
pub struct NetworkStudy<C: Staged> {
    about: About,
    pub(crate) resolved: Resolved<C>,
    seeds: Vec<u64>,
    /// Retraining methods in the order of the cells, each with its fine-tuning methods.
    methods: Vec<(String, Vec<String>)>,
    /// Real data, once they are read.
    pub(crate) kept: C::Kept,
}

impl<C: Staged> NetworkStudy<C> {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let resolved = Resolved::<C>::read(table)?;
        let leaves = resolved.config.leaves();
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let swept = resolved.swept.clone();
        let about = About {
            suite: leaves.suite.to_owned(),
            name: About::full_name(leaves.study, leaves.preset),
            title: leaves.title.to_owned(),
            question: leaves.question.to_owned(),
            keys: [swept.clone(), text(&["seed", "fine_tuning", "retraining"])].concat(),
            swept,
            measures: text(&MEASURES),
        };
        let mut methods: Vec<(String, Vec<String>)> = Vec::new();
        for [retraining, fine_tuning] in leaves.cells {
            match methods.iter_mut().find(|(known, _)| known == retraining) {
                Some((_, tunings)) => tunings.push(fine_tuning.clone()),
                None => methods.push((retraining.clone(), vec![fine_tuning.clone()])),
            }
        }
        let seeds = Seeds::parse(leaves.seeds)?.values().to_vec();
        Ok(Self { about, seeds, methods, kept: C::Kept::default(), resolved })
    }

    /// A group's sweep point, seed and retraining method.
    fn place(&self, group: usize) -> (usize, u64, &(String, Vec<String>)) {
        let (rest, method) = (group / self.methods.len(), group % self.methods.len());
        (rest / self.seeds.len(), self.seeds[rest % self.seeds.len()], &self.methods[method])
    }

    /// Cells up to and with the seed.
    fn prefix(&self, point: usize, seed: u64) -> Line {
        let (values, config) = &self.resolved.points[point];
        let leaves = config.leaves();
        let mut line = Line::new();
        line.text(leaves.suite).text(leaves.study);
        for (_, value) in values {
            line.text(&plain(value));
        }
        line.integer(seed);
        line
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
        let scene = config.scene(seed, site, &self.kept)?;
        let mut base: Result<Base, TrialError> = scene.retrain(retraining);
        let prefix = self.prefix(point, seed);
        for trial in group {
            let name = trial.id.rsplit(' ').next().unwrap_or_default();
            let Some(fine_tuning) = tunings.iter().find(|tuning| *tuning == name) else {
                finish(trial, Err("no such fine-tuning method".to_owned()));
                continue;
            };
            let names = [retraining.as_str(), fine_tuning];
            let step_sizes = config.step_sizes(names);
            let plan = TrialPlan { prefix: &prefix, names, step_sizes, own: C::OWN_COLUMNS.len() };
            let outcome = plan.run(scene.as_ref(), base.as_ref());
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
}

impl<C: Staged> Study for NetworkStudy<C> {
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
        let own: String = C::OWN_COLUMNS.iter().map(|name| format!("{name},")).collect();
        Headers {
            trials: header(&format!("{}{own}status", trial::TRIAL_COLUMNS)),
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
                            cost: config.cost([retraining, tuning], tunings.len()),
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
        self.resolved.points.iter().try_for_each(|(_, config)| config.check_site(site, &self.kept))
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
