//! Studies of the theory's questions: one file a question, one line in `QUESTIONS`.
//!
//! A trial is (sweep point, seed, method). Its random streams derive from (sizes, family, seed), so
//! methods share their problems and starts.

mod finite_samples;
mod prevalence;
mod rates;
mod spurious;
mod stability;
mod tails;
mod wrong_rank;

use crate::config::{ConfigError, Leaf, Seeds, sweep, typed};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Instance, Outcome, Study, Summary, Tables, Trial};
use peftml_data::synthetic::linear::{Family, LinearSpec};
use peftml_linalg::Seed;
use peftml_theory::linear::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use toml::{Table, Value};

/// Every question.
const QUESTIONS: &[&dyn Question] = &[
    &prevalence::Prevalence,
    &tails::Tails,
    &finite_samples::FiniteSamples,
    &stability::Stability,
    &wrong_rank::WrongRank,
    &rates::Rates,
];

/// What a study of the theory has of its own.
trait Question: Sync {
    /// The leaf `study`.
    fn name(&self) -> &'static str;
    /// Its methods.
    fn methods(&self) -> &'static [&'static str];
    /// Names of `[settings]`, with least and largest value.
    fn settings(&self) -> &'static [(&'static str, f64, f64)];
    /// Measured columns.
    fn columns(&self) -> &'static [&'static str];
    /// Whether a method has a trial at this point.
    fn applies(&self, _: &TheoryConfig, _: &str) -> bool {
        true
    }
    /// Estimated cost.
    fn cost(&self, config: &TheoryConfig, method: &str) -> f64;
    /// One trial.
    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String>;
    /// Writes the files of a kept instance.
    fn write_instance(&self, _text: &str, _folder: &Path) -> Result<(), String> {
        Err(format!("the study {} keeps no instances", self.name()))
    }
    /// Its figures.
    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure>;
    /// Its answer.
    fn summary(&self, tables: &Tables<'_>) -> Summary;
}

/// What a trial found.
#[derive(Default)]
struct Found {
    /// A figure a column.
    figures: Vec<f64>,
    /// Cases worth keeping: a number that names it in the trial, and a text that says all of it.
    instances: Vec<(usize, String)>,
}

impl From<Vec<f64>> for Found {
    fn from(figures: Vec<f64>) -> Self {
        Self { figures, ..Default::default() }
    }
}

/// What the leaves mean, beside those of every suite.
pub const LEAVES: &[Leaf] = &[
    Leaf::new("dimension", "d, 1 to 64"),
    Leaf::new("rank", "k, rank of the offsets, at most d"),
    Leaf::new("tasks", "T, 1 to 1000"),
    Leaf::new("family", "law of the offsets: `\"iid\"`, `\"correlated\"` or `\"badly-scaled\"`"),
    Leaf::new("methods", "names of what the study compares, of its own"),
    Leaf::new("settings.samples_per_task", "N, samples of each task"),
    Leaf::new("settings.test_samples", "n, samples of the test task"),
    Leaf::new("settings.noise_std", "standard deviation of the noise in each output"),
    Leaf::new("settings.starts", "`prevalence`: runs a seed of `lbfgs` and of `global`"),
    Leaf::new(
        "settings.few_starts",
        "`prevalence`: runs a seed of `gradient-descent` and `authors`",
    ),
    Leaf::new(
        "settings.start_scale",
        "`prevalence`: entries of the start in units of the root mean square of those of `U*`",
    ),
    Leaf::new("settings.iterations", "most iterations of a run"),
    Leaf::new("settings.descent_steps", "`prevalence`: most steps of `gradient-descent`"),
    Leaf::new("settings.problems", "`standard_norm`: problems a seed"),
    Leaf::new("settings.magnitude", "`stability`: size of the perturbation"),
    Leaf::new(
        "settings.adapter_rank",
        "`wrong_rank`: rank of the adapters of retraining and of fine-tuning",
    ),
    Leaf::new("settings.tail", "`wrong_rank`: Frobenius norm of what a task has beside its offset"),
];

/// A study's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TheoryConfig {
    suite: String,
    study: String,
    preset: String,
    title: String,
    question: String,
    seeds: String,
    dimension: usize,
    rank: usize,
    tasks: usize,
    family: String,
    methods: Vec<String>,
    settings: BTreeMap<String, f64>,
    #[serde(default)]
    sweep: Table,
}

impl TheoryConfig {
    /// A number of `[settings]`, which reading has checked to be there.
    fn setting(&self, name: &str) -> f64 {
        self.settings.get(name).copied().unwrap_or(f64::NAN)
    }

    /// A whole number of `[settings]`.
    fn count(&self, name: &str) -> usize {
        self.setting(name) as usize
    }

    fn family(&self) -> Family {
        Family::ALL.into_iter().find(|f| f.name() == self.family).unwrap_or(Family::Iid)
    }

    /// The problems' law; symmetric offsets.
    fn spec(&self) -> LinearSpec {
        LinearSpec {
            dimension: self.dimension,
            rank: self.rank,
            tasks: self.tasks,
            samples_per_task: 1,
            test_samples: 1,
            noise_std: 0.0,
            kind: Kind::Symmetric,
            family: self.family(),
        }
    }

    fn check(&self, question: &dyn Question) -> Result<(), ConfigError> {
        for (key, value, most) in [
            ("dimension", self.dimension, 64),
            ("rank", self.rank, 64),
            ("tasks", self.tasks, 1000),
        ] {
            if value == 0 || value > most {
                return Err(ConfigError::value(key, value, format!("1 to {most}")));
            }
        }
        if self.rank > self.dimension {
            return Err(ConfigError::value("rank", self.rank, "at most the dimension"));
        }
        if !Family::ALL.iter().any(|f| f.name() == self.family) {
            return Err(ConfigError::value(
                "family",
                &self.family,
                "iid, correlated or badly-scaled",
            ));
        }
        let known = question.methods();
        if let Some(wrong) = self.methods.iter().find(|m| !known.contains(&m.as_str())) {
            return Err(ConfigError::value(
                "methods",
                wrong,
                format!("known are {}", known.join(", ")),
            ));
        }
        for (name, least, most) in question.settings() {
            let value = self.settings.get(*name).copied();
            if !value.is_some_and(|v| (*least..=*most).contains(&v)) {
                let found = value.map_or("nothing".to_owned(), |v| v.to_string());
                return Err(ConfigError::value(
                    format!("settings.{name}"),
                    found,
                    format!("a number from {least} to {most}"),
                ));
            }
        }
        let names: Vec<&str> = question.settings().iter().map(|s| s.0).collect();
        match self.settings.keys().find(|key| !names.contains(&key.as_str())) {
            Some(key) => Err(ConfigError::value(
                format!("settings.{key}"),
                "",
                format!("known are {}", names.join(", ")),
            )),
            None => Ok(()),
        }
    }
}

/// A study of the suite `theory`.
pub struct TheoryStudy {
    about: About,
    question: &'static dyn Question,
    table: Table,
    points: Vec<(Vec<(String, Value)>, TheoryConfig)>,
    seeds: Seeds,
    /// Swept settings: columns beside the sizes.
    extra: Vec<String>,
}

/// Columns that name a problem.
const SIZES: [&str; 4] = ["dimension", "rank", "tasks", "family"];

impl TheoryStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let config: TheoryConfig = typed("theory", table)?;
        let Some(question) = QUESTIONS.iter().copied().find(|q| q.name() == config.study) else {
            let known: Vec<&str> = QUESTIONS.iter().map(|q| q.name()).collect();
            return Err(ConfigError::value(
                "study",
                &config.study,
                format!("known are {}", known.join(", ")),
            ));
        };
        let mut points = Vec::new();
        for point in sweep::points(table)? {
            let config: TheoryConfig = typed("theory", &point.table)?;
            config.check(question)?;
            points.push((point.values, config));
        }
        let swept: Vec<String> = sweep::lists(table)?.into_iter().map(|(path, _)| path).collect();
        let extra: Vec<String> =
            swept.iter().filter(|path| !SIZES.contains(&path.as_str())).cloned().collect();
        let mut keys: Vec<String> = SIZES.iter().map(|s| s.to_string()).collect();
        keys.extend(extra.iter().cloned());
        keys.extend(["seed".to_owned(), "method".to_owned()]);
        let about = About {
            suite: config.suite.clone(),
            name: About::full_name(&config.study, &config.preset),
            title: config.title.clone(),
            question: config.question.clone(),
            swept,
            keys,
            measures: question.columns().iter().map(|s| s.to_string()).collect(),
        };
        let seeds = Seeds::parse(&config.seeds)?;
        Ok(Self { about, question, table: table.clone(), points, seeds, extra })
    }

    fn prefix(&self, point: usize, seed: u64, method: &str) -> Line {
        let (values, config) = &self.points[point];
        let mut line = Line::new();
        line.text(&config.suite).text(&config.study);
        line.integer(config.dimension as u64).integer(config.rank as u64);
        line.integer(config.tasks as u64).text(&config.family);
        for path in &self.extra {
            let value = values.iter().find(|(swept, _)| swept == path).map(|(_, v)| v.to_string());
            line.text(&value.unwrap_or_default());
        }
        line.integer(seed).text(method);
        line
    }
}

impl Study for TheoryStudy {
    fn about(&self) -> &About {
        &self.about
    }

    fn config(&self) -> &Table {
        &self.table
    }

    fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.table);
        identity.remove("seeds");
        identity
    }

    fn headers(&self) -> Headers {
        let extra: String = self.extra.iter().map(|path| format!(",{path}")).collect();
        let keys = format!("suite,study,{}{extra},seed,method", SIZES.join(","));
        Headers {
            trials: format!("{keys},{},status", self.question.columns().join(",")),
            curves: format!("{keys},iteration,quantity,value"),
            timings: format!("{keys},seconds"),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for (point, (values, config)) in self.points.iter().enumerate() {
            let TheoryConfig { dimension, rank, tasks, family, .. } = config;
            let mut name = format!("d={dimension} k={rank} T={tasks} {family}");
            for (path, value) in values.iter().filter(|(path, _)| self.extra.contains(path)) {
                name += &format!(" {path}={value}");
            }
            for (index, seed) in self.seeds.values().iter().enumerate() {
                let group = point * self.seeds.values().len() + index;
                for method in config.methods.iter().filter(|m| self.question.applies(config, m)) {
                    let id = format!("{name} seed={seed} {method}");
                    trials.push(Trial { id, group, cost: self.question.cost(config, method) });
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let count = self.seeds.values().len();
        for trial in group {
            let (point, seed) = (trial.group / count, self.seeds.values()[trial.group % count]);
            let config = &self.points[point].1;
            let method = trial.id.rsplit(' ').next().unwrap_or_default();
            let started = Instant::now();
            let node = Seed::root(seed).child("theory").child(config.study.as_str());
            let node = node.child(config.spec_label().as_str());
            let outcome = self.question.run(config, &node, method).map(|found| {
                let mut line = self.prefix(point, seed, method);
                for figure in found.figures {
                    line.number(figure);
                }
                line.text("ok");
                let mut timing = self.prefix(point, seed, method);
                timing.number(started.elapsed().as_secs_f64());
                let (trials, timings) = (vec![line.finish()], vec![timing.finish()]);
                let stem = trial.id.replace("settings.", "").replace('=', "").replace(' ', "-");
                let named = |(number, text)| Instance { name: format!("{stem}-{number}"), text };
                let instances = found.instances.into_iter().map(named).collect();
                Outcome { trials, timings, instances, ..Default::default() }
            });
            finish(trial, outcome);
        }
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        self.question.figures(tables)
    }

    fn write_instance(&self, instance: &Instance, folder: &Path) -> Result<(), String> {
        self.question.write_instance(&instance.text, folder)
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        self.question.summary(tables)
    }
}

impl TheoryConfig {
    /// Name of the problem's node: sizes and family.
    fn spec_label(&self) -> String {
        format!("d={} k={} T={} {}", self.dimension, self.rank, self.tasks, self.family)
    }
}

/// Sums of columns by a key of each row, in order of first occurrence.
fn sums<const N: usize>(
    tables: &Tables<'_>,
    key: impl Fn(usize) -> Option<String>,
    columns: [&str; N],
) -> Vec<(String, usize, [f64; N])> {
    let table = &tables.trials;
    let columns = columns.map(|name| table.column(name));
    let mut found: Vec<(String, usize, [f64; N])> = Vec::new();
    for row in 0..table.len() {
        let Some(key) = key(row) else { continue };
        let at = found.iter().position(|(known, ..)| *known == key).unwrap_or_else(|| {
            found.push((key, 0, [0.0; N]));
            found.len() - 1
        });
        found[at].1 += 1;
        for (sum, column) in found[at].2.iter_mut().zip(columns) {
            *sum += table.number(row, column).unwrap_or(0.0);
        }
    }
    found
}
