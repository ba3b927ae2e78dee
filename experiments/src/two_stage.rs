//! What the studies of two stages share: problems of sizes d, k, T, N and n, retrained, then fine-tuned.
//!
//! * [`TwoStage`]: leaves that every such configuration has, with the checks on them
//! * [`Frame`]: sweep points times seeds times retraining methods as trials, and the cells that name a row
//! * [`find_methods`]: methods by name

use crate::config::resolved::{PointConfig, Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::runs::csv::Line;
use crate::runs::{About, Headers, Trial};
use crate::swept::Swept;
use toml::Table;

/// Size columns: what names a problem.
pub const SIZES: [&str; 5] = ["dimension", "rank", "tasks", "samples_per_task", "test_samples"];

/// Columns that name a row beside point and seed.
pub const METHOD_KEYS: [&str; 4] = ["retraining", "solver", "fine_tuning", "adapter_rank"];

/// How many numbers a single matrix of samples may hold: 2 GiB of them.
const MOST_NUMBERS: usize = 1 << 28;

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
    /// Values of [`SIZES`].
    pub sizes: [usize; 5],
}

/// A configuration with these leaves.
pub trait TwoStage: PointConfig {
    /// The suite that it is of.
    const SUITE: &'static str;

    /// The common leaves.
    fn leaves(&self) -> Leaves<'_>;

    /// Checks suite, names, seeds and the size of sample matrices; `others` are more numbers of samples,
    /// by leaf.
    ///
    /// # Errors
    /// [`ConfigError::Value`] that names the leaf.
    fn check_leaves(&self, others: &[(&str, usize)]) -> Result<(), ConfigError> {
        let Leaves { suite, study, preset, seeds, sizes, .. } = self.leaves();
        if suite != Self::SUITE {
            let expected = format!("this study is of suite {}", Self::SUITE);
            return Err(ConfigError::value("suite", suite, expected));
        }
        for (key, name) in [("study", study), ("preset", preset)] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                let expected = "letters, digits, dots, dashes and underscores: it names a folder";
                return Err(ConfigError::value(key, format!("\"{name}\""), expected));
            }
        }
        Seeds::parse(seeds)?;
        let [dimension, _, tasks, samples_per_task, test_samples] = sizes;
        let counts = [("samples_per_task", samples_per_task), ("test_samples", test_samples)];
        for (key, count) in counts.iter().chain(others) {
            if count.checked_mul(dimension).is_none_or(|numbers| numbers > MOST_NUMBERS) {
                let expected = "dimension times samples must be at most 2^28";
                return Err(ConfigError::value(*key, count, expected));
            }
        }
        // A task has samples and a matrix of weights.
        let numbers =
            samples_per_task.checked_add(dimension).and_then(|n| n.checked_mul(dimension));
        if numbers.and_then(|n| n.checked_mul(tasks)).is_none_or(|n| n > 4 * MOST_NUMBERS) {
            let expected = "tasks times dimension times (samples + dimension): at most 2^30";
            return Err(ConfigError::value("tasks", tasks, expected));
        }
        Ok(())
    }
}

/// Checks that numbers are positive and finite.
///
/// # Errors
/// [`ConfigError::Value`] for the first that is not.
pub fn check_positive(values: &[(&str, f64)]) -> Result<(), ConfigError> {
    match values.iter().find(|(_, value)| !value.is_finite() || *value <= 0.0) {
        Some((key, value)) => {
            Err(ConfigError::value(*key, value, "a positive finite number is needed"))
        }
        None => Ok(()),
    }
}

/// The methods called `names`, in their order; `known` lists all names.
///
/// # Errors
/// [`ConfigError::Value`] for an unknown name (with the known ones), a repeated one, or no name at all.
pub fn find_methods<M>(
    key: &str,
    names: &[String],
    known: impl Fn() -> Vec<String>,
    one: impl Fn(&str) -> Option<M>,
) -> Result<Vec<M>, ConfigError> {
    let wrong = |value: &str, what: &str| {
        ConfigError::value(key, value, format!("{what}; known are {}", known().join(", ")))
    };
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(wrong(name, "no method may stand twice"));
        }
        found.push(one(name).ok_or_else(|| wrong(name, "there is no such method"))?);
    }
    if found.is_empty() { Err(wrong("[]", "at least one method is needed")) } else { Ok(found) }
}

/// A study's points, seeds and trials; see the module's header.
pub struct Frame<C> {
    /// What the study is called and asks.
    pub about: About,
    /// The configuration of every point.
    pub resolved: Resolved<C>,
    /// Seeds in order.
    pub seeds: Vec<u64>,
    /// Swept leaves that have no column among the sizes.
    extra: Vec<String>,
}

impl<C: TwoStage> Frame<C> {
    /// The frame of a configuration table; `measures` are the study's measured columns.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table, measures: &[&str]) -> Result<Self, ConfigError> {
        let resolved = Resolved::<C>::read(table)?;
        let leaves = resolved.config.leaves();
        let extra: Vec<String> =
            resolved.swept.iter().filter(|path| !SIZES.contains(&path.as_str())).cloned().collect();
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let about = About {
            suite: leaves.suite.to_owned(),
            name: About::full_name(leaves.study, leaves.preset),
            title: leaves.title.to_owned(),
            question: leaves.question.to_owned(),
            swept: resolved.swept.clone(),
            keys: [text(&SIZES), extra.clone(), text(&["seed"]), text(&METHOD_KEYS)].concat(),
            measures: text(measures),
        };
        let seeds = Seeds::parse(leaves.seeds)?.values().to_vec();
        Ok(Self { about, seeds, extra, resolved })
    }

    /// Swept leaves in tables and figures.
    pub fn swept(&self) -> Swept<'_> {
        Swept { paths: &self.resolved.swept, default: "test_samples" }
    }

    /// The configuration without seeds and the sweep's values, on which no trial depends.
    pub fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.resolved.table);
        identity.remove("seeds");
        identity
    }

    /// Heads of trials.csv, curves.csv and timings.csv from their columns after the seed.
    pub fn headers(&self, [trials, curves, timings]: [&str; 3]) -> Headers {
        let keys = [&["suite", "study"][..], &SIZES].concat().join(",");
        let extra: String = self.extra.iter().map(|path| format!(",{path}")).collect();
        let header = |rest: &str| format!("{keys}{extra},seed,{rest}");
        Headers { trials: header(trials), curves: header(curves), timings: header(timings) }
    }

    /// Cells up to and with the seed.
    pub fn prefix(&self, point: usize, seed: u64) -> Line {
        let (values, config) = &self.resolved.points[point];
        let leaves = config.leaves();
        let mut line = Line::new();
        line.text(leaves.suite).text(leaves.study);
        for size in leaves.sizes {
            line.integer(size as u64);
        }
        for path in &self.extra {
            let value = values.iter().find(|(swept, _)| swept == path).map(|(_, value)| value);
            line.text(&value.map(plain).unwrap_or_default());
        }
        line.integer(seed);
        line
    }

    /// One trial a point, seed and method, groups being points and seeds; `cost` of a point's
    /// configuration and the method's index. An id ends with the method's name.
    pub fn trials(&self, methods: &[String], cost: impl Fn(&C, usize) -> f64) -> Vec<Trial> {
        let mut trials = Vec::new();
        for (point, (values, config)) in self.resolved.points.iter().enumerate() {
            let [d, k, tasks, samples, test] = config.leaves().sizes;
            let mut name = format!("d={d} k={k} T={tasks} N={samples} n={test}");
            for (path, value) in values.iter().filter(|(path, _)| self.extra.contains(path)) {
                name += &format!(" {path}={}", plain(value));
            }
            for (index, seed) in self.seeds.iter().enumerate() {
                for (at, method) in methods.iter().enumerate() {
                    trials.push(Trial {
                        id: format!("{name} seed={seed} {method}"),
                        group: point * self.seeds.len() + index,
                        cost: cost(config, at),
                    });
                }
            }
        }
        trials
    }

    /// A trial's sweep point and seed.
    pub fn place(&self, trial: &Trial) -> (usize, u64) {
        (trial.group / self.seeds.len(), self.seeds[trial.group % self.seeds.len()])
    }
}
