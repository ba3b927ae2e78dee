//! The configuration of a comparison.

use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, KindName, Leaf, typed};
use peftml_data::synthetic::linear::{Family, LinearSpec};
use peftml_theory::linear::Kind;
use serde::{Deserialize, Serialize};
use toml::Table;

/// What the leaves mean, beside those of every suite.
pub const LEAVES: &[Leaf] = &[
    Leaf::new("size", "of drawn problems: `\"d=20 k=2 T=5\"`"),
    Leaf::new("samples_per_task", "N, samples of each task; 0 for exact tasks"),
    Leaf::new("noise_std", "standard deviation of the samples' noise"),
    Leaf::new("kind", "adapters `\"symmetric\"` (`U U^T`) or `\"asymmetric\"` (`U V^T`)"),
    Leaf::new("family", "law of the offsets: `\"iid\"`, `\"correlated\"` or `\"badly-scaled\"`"),
    Leaf::new(
        "start_scale",
        "standard deviation of the start's entries over that of factors as large as the offsets",
    ),
    Leaf::new("tolerance", "of the scaled gradient test that all methods end at"),
    Leaf::new("max_iterations", "most iterations of a run"),
    Leaf::new("max_seconds", "most seconds of a peer's run, and of all repetitions of a method"),
    Leaf::new("repetitions", "runs of which the shortest counts"),
    Leaf::new("methods", "names of solvers (`peftml solvers`) and of peers, `PACKAGE/METHOD`"),
];

/// A comparison's configuration: problems that are drawn, or one from a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonConfig {
    /// `solvers`.
    pub suite: String,
    /// Name of the study.
    pub study: String,
    /// Preset.
    pub preset: String,
    /// Title.
    pub title: String,
    /// The question that it answers.
    pub question: String,
    /// Problems and starts, or starts alone where the problem is a file.
    pub seeds: String,
    /// Sizes of drawn problems, `d=20 k=2 T=5`; of a file's problem the same, as found there.
    pub size: String,
    /// Samples a task; 0 for exact tasks.
    pub samples_per_task: usize,
    /// Standard deviation of the samples' noise.
    pub noise_std: f64,
    /// Adapters `U U^T` or `U V^T`.
    pub kind: KindName,
    /// Law of the offsets; of no meaning where the problem is a file.
    pub family: String,
    /// Standard deviation of the start's entries over that of factors as large as the offsets.
    pub start_scale: f64,
    /// Tolerance of the scaled gradient test.
    pub tolerance: f64,
    /// Most iterations a run.
    pub max_iterations: usize,
    /// Most seconds a run of a peer; what a method's repetitions may take together.
    pub max_seconds: f64,
    /// Runs of which the shortest counts.
    pub repetitions: usize,
    /// Names of the registry and of peers.
    pub methods: Vec<String>,
    /// A person's own problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileConfig>,
    /// Swept leaves.
    #[serde(default)]
    pub sweep: Table,
}

/// Files of a person's own problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The tasks (.npz).
    pub tasks: String,
    /// The start (.npz); random ones where it is empty.
    pub start: String,
    /// SHA-256 of both files' bytes: what the run's name depends on.
    pub digest: String,
}

impl ComparisonConfig {
    /// `(d, k, T)` from the leaf `size`.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn sizes(&self) -> Result<(usize, usize, usize), ConfigError> {
        let wrong = || ConfigError::value("size", &self.size, "of the form \"d=20 k=2 T=5\"");
        let mut found = [0; 3];
        let mut words = self.size.split_whitespace();
        for (name, value) in ["d=", "k=", "T="].into_iter().zip(&mut found) {
            let word = words.next().and_then(|word| word.strip_prefix(name)).ok_or_else(wrong)?;
            *value = word.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        }
        match (words.next(), found) {
            (None, [d, k, t]) if k <= d && d <= 4096 && t <= 100_000 => Ok((d, k, t)),
            _ => Err(wrong()),
        }
    }

    /// The law of drawn problems.
    ///
    /// # Errors
    /// As [`ComparisonConfig::sizes`], and for an unknown family.
    pub fn spec(&self) -> Result<LinearSpec, ConfigError> {
        let (dimension, rank, tasks) = self.sizes()?;
        let family = match &self.file {
            Some(_) => Some(Family::Iid),
            None => Family::ALL.into_iter().find(|f| f.name() == self.family),
        };
        let expected = "iid, correlated or badly-scaled";
        Ok(LinearSpec {
            dimension,
            rank,
            tasks,
            samples_per_task: self.samples_per_task.max(1),
            test_samples: 1,
            noise_std: self.noise_std,
            kind: self.kind(),
            family: family.ok_or_else(|| ConfigError::value("family", &self.family, expected))?,
        })
    }

    /// Symmetric or asymmetric adapters.
    pub fn kind(&self) -> Kind {
        self.kind.into()
    }
}

impl PointConfig for ComparisonConfig {
    const NAME: &'static str = "of a comparison of solvers";

    fn read(table: &Table) -> Result<Self, ConfigError> {
        let config: Self = typed(Self::NAME, table)?;
        config.spec()?;
        let positive = "a positive finite number";
        for (key, value) in [
            ("start_scale", config.start_scale),
            ("tolerance", config.tolerance),
            ("max_seconds", config.max_seconds),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::value(key, value, positive));
            }
        }
        if !(config.noise_std.is_finite() && config.noise_std >= 0.0) {
            return Err(ConfigError::value(
                "noise_std",
                config.noise_std,
                "a finite number from 0",
            ));
        }
        for (key, value) in
            [("max_iterations", config.max_iterations), ("repetitions", config.repetitions)]
        {
            if value == 0 {
                return Err(ConfigError::value(key, value, "a whole number from 1"));
            }
        }
        if config.methods.is_empty() {
            return Err(ConfigError::value("methods", "[]", "at least one method"));
        }
        Ok(config)
    }
}
