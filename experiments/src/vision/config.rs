//! Configuration of the vision studies.

use super::scene::{Kept, Pictures, Scene};
use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, Leaf, typed};
use crate::networks::config::{
    FineTuningMethod, Keep, Leaves, MOST_EXAMPLES, MOST_STEPS, Staged, Words, check_leaves,
    check_stage, check_steps, failed, step_size, with_rate,
};
use crate::networks::stages::Stages;
use crate::runs::Site;
use peftml_peft::models::{Mixer, MixerConfig, Mlp, MlpConfig};
use peftml_peft::optimiser::{OptimiserConfig, ScheduleConfig};
use peftml_peft::train::{Algorithm, TrainingConfig};
use peftml_peft::{Adapter, AdapterConfig, Network, PeftError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::Table;

/// Images of CIFAR-10: height and width, and of each class in training and in test.
const CIFAR10: (usize, usize, usize) = (peftml_data::cifar::SIDE, 5000, 1000);

/// What the leaves mean, beside those of every suite and of suites of networks.
pub const LEAVES: &[Leaf] = &[
    Leaf::new(
        "data.source.name",
        "`\"cifar10\"`: the real images; `\"synthetic\"`: gratings drawn here",
    ),
    Leaf::new("data.source.side", "synthetic images: height and width in pixels, 1 to 256"),
    Leaf::new(
        "data.source.noise_std",
        "synthetic images: standard deviation of the noise in grey levels",
    ),
    Leaf::new(
        "data.retraining_tasks",
        "pairs of classes, one even and one odd; label = class mod 2",
    ),
    Leaf::new("data.test_task", "the pair of classes of the unseen task"),
    Leaf::new("data.training_images", "of each task, half of each class"),
    Leaf::new("data.validation_images", "of each task, taken from the set's training images"),
    Leaf::new("data.test_images", "of the test task"),
    Leaf::new(
        "data.augmentation",
        "of training images: `\"crop-flip\"` (a border of 4 pixels, a random crop, a flip) or `\"none\"`",
    ),
    Leaf::new("network.name", "`\"mixer\"` or `\"mlp\"`"),
    Leaf::new("network.image_side", "height and width of an image in pixels"),
    Leaf::new("network.channels", "colours of an image"),
    Leaf::new(
        "network.patch_side",
        "`mixer`: height and width of a patch in pixels; divides `image_side`",
    ),
    Leaf::new("network.width", "`mixer`: channels of a patch"),
    Leaf::new("network.blocks", "`mixer`: number of blocks"),
    Leaf::new(
        "network.token_expansion",
        "`mixer`: hidden units of the mixing over patches, over their number",
    ),
    Leaf::new(
        "network.channel_expansion",
        "`mixer`: hidden units of the mixing over channels, over `width`",
    ),
    Leaf::new("network.dropout", "probability that a unit is left out in training"),
    Leaf::new("network.classes", "outputs"),
    Leaf::new("retraining.steps", "optimiser steps of the first stage"),
    Leaf::new(
        "retraining.batch",
        "images that a step sees: of the union, of one task, or an equal part of each task",
    ),
    Leaf::new(
        "retraining.validate_every",
        "steps between validations, at which a run can be resumed too",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.name",
        "`\"standard\"`, `\"peft-ml\"`, `\"reptile\"` or `\"fomaml\"`",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.outer.*",
        "`reptile`: an optimiser that takes the way to the inner steps' end for a gradient",
    ),
    Leaf::new("retraining.methods.*.algorithm.inner.*", "their optimiser"),
    Leaf::new(
        "retraining.methods.*.optimiser.*",
        "a method's own optimiser, in the place of the stage's",
    ),
    Leaf::new("retraining.methods.*.step_size", "a method's own step size"),
    Leaf::new("retraining.methods.*.steps", "a method's own number of steps"),
    Leaf::new("fine_tuning.steps", "optimiser steps of the second stage"),
    Leaf::new("fine_tuning.batch", "images that a step sees"),
    Leaf::new("fine_tuning.validate_every", "steps between validations"),
    Leaf::new("fine_tuning.methods.*.step_size", "a method's own step size"),
    Leaf::new(
        "flaws.drop_biases",
        "linear maps with an adapter lose their biases, also those that were trained",
    ),
    Leaf::new(
        "flaws.keep_first_adapter",
        "fine-tuning starts from the first retraining task's adapter where it has the same parameters",
    ),
    Leaf::new("flaws.augment_once", "crop and flip are drawn once an image"),
    Leaf::new(
        "flaws.batch_per_task",
        "PEFT-ML sees a whole batch of each task in a step, and makes that many steps fewer",
    ),
    Leaf::new("flaws.select_on_test", "validation, and so every choice, looks at test images"),
];

/// One vision study; [`LEAVES`] says what its leaves mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// `vision`.
    pub suite: String,
    /// Name of the study.
    pub study: String,
    /// Name of the preset.
    pub preset: String,
    /// Title.
    pub title: String,
    /// The question that the study answers.
    pub question: String,
    /// Seeds; see [`crate::config::Seeds`].
    pub seeds: String,
    /// Names of a retraining method and of the fine-tuning method that follows it.
    pub cells: Vec<[String; 2]>,
    /// The retraining method that the others are compared with.
    pub baseline: String,
    /// Images.
    pub data: Data,
    /// The network.
    pub network: NetworkConfig,
    /// First stage.
    pub retraining: Retraining,
    /// Second stage.
    pub fine_tuning: FineTuning,
    /// What is unfair in the reference code.
    pub flaws: Flaws,
    /// Leaf paths and lists.
    #[serde(default)]
    pub sweep: Table,
}

/// Images and tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where images come from.
    pub source: Source,
    /// Pairs of classes, label = class mod 2.
    pub retraining_tasks: Vec<[u8; 2]>,
    /// The unseen task.
    pub test_task: [u8; 2],
    /// Training images of each task.
    pub training_images: usize,
    /// Validation images of each task, taken from the set's training images.
    pub validation_images: usize,
    /// Test images of the test task.
    pub test_images: usize,
    /// What is done to training images.
    pub augmentation: Augmentation,
}

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// CIFAR-10's files.
    Cifar10,
    /// Gratings; see [`peftml_data::synthetic::images`].
    Synthetic {
        /// Height and width.
        side: usize,
        /// Standard deviation of the noise, in grey levels.
        noise_std: f64,
    },
}

/// What is done to training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// A random crop of the image with a border of 4 black pixels, and a flip.
    CropFlip,
    /// Nothing.
    None,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// MLP-Mixer.
    Mixer(MixerConfig),
    /// Multilayer perceptron.
    Mlp(MlpConfig),
}

/// First stage: from tasks to a base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraining {
    /// Optimiser steps.
    pub steps: u64,
    /// Images that a step sees.
    pub batch: usize,
    /// Steps between validations.
    pub validate_every: u64,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// How the step size changes.
    pub schedule: ScheduleConfig,
    /// Multiplies every step size.
    pub step_factor: f64,
    /// Which base is kept.
    pub keep: Keep,
    /// Methods by name.
    pub methods: BTreeMap<String, RetrainingMethod>,
}

/// A retraining method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrainingMethod {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Its optimiser, in the place of the stage's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimiser: Option<OptimiserConfig>,
    /// Its step size, in the place of the optimiser's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Its steps, in the place of the stage's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

/// Second stage: from a base to a model of the unseen task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuning {
    /// Optimiser steps.
    pub steps: u64,
    /// Images that a step sees.
    pub batch: usize,
    /// Steps between validations.
    pub validate_every: u64,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// How the step size changes.
    pub schedule: ScheduleConfig,
    /// Multiplies every step size.
    pub step_factor: f64,
    /// Methods by name.
    pub methods: BTreeMap<String, FineTuningMethod>,
}

/// What is unfair in the reference code, each behind a switch. (Reptile's reversed sign and its own budget
/// are leaves of its method.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flaws {
    /// Linear maps with an adapter lose their biases, also those that were trained.
    pub drop_biases: bool,
    /// Fine-tuning starts from the first retraining task's adapter where it has the same parameters.
    pub keep_first_adapter: bool,
    /// Crop and flip are drawn once an image.
    pub augment_once: bool,
    /// PEFT-ML sees a whole batch of each task in a step, and makes that many steps fewer.
    pub batch_per_task: bool,
    /// Validation, and so every choice, looks at test images.
    pub select_on_test: bool,
}

impl PointConfig for VisionConfig {
    const NAME: &'static str = "of a vision study";

    fn read(table: &Table) -> Result<Self, ConfigError> {
        let config: Self = typed(Self::NAME, table)?;
        config.check()?;
        Ok(config)
    }
}

impl Staged for VisionConfig {
    const SUITE: &'static str = "vision";
    type Kept = Kept;

    fn leaves(&self) -> Leaves<'_> {
        let Self { suite, study, preset, title, question, seeds, cells, baseline, .. } = self;
        Leaves { suite, study, preset, title, question, seeds, cells, baseline }
    }

    fn methods(&self) -> [Vec<&String>; 2] {
        [self.retraining.methods.keys().collect(), self.fine_tuning.methods.keys().collect()]
    }

    fn step_sizes(&self, [first, second]: [&str; 2]) -> [Option<f64>; 2] {
        let first = self.retraining.methods.get(first).map(|m| self.retraining_training(m));
        let second = self.fine_tuning.methods.get(second).map(|m| self.fine_tuning_training(m));
        [first, second].map(|training| training.map(|training| step_size(&training.optimiser)))
    }

    /// Images through the network and back.
    fn cost(&self, _: [&str; 2], tunings: usize) -> f64 {
        let work = |steps: u64, batch: usize| steps as f64 * batch as f64;
        let (first, second) = (&self.retraining, &self.fine_tuning);
        work(first.steps, first.batch) / tunings as f64 + work(second.steps, second.batch)
    }

    fn words(&self) -> Words {
        let synthetic = match self.data.source {
            Source::Cifar10 => ["", ""],
            Source::Synthetic { .. } => {
                ["Synthetic images, not photographs. ", ", synthetic images"]
            }
        };
        Words {
            unseen: "the unseen task",
            title: "Unseen task",
            same: "the same images, order and starts",
            synthetic,
        }
    }

    fn scene<'c>(
        &'c self,
        number: u64,
        site: &Site<'_>,
        kept: &Kept,
    ) -> Result<Box<dyn Stages + 'c>, String> {
        let pictures = Pictures::of(self, number, site.data, kept)?;
        let scene = Scene::new(self, number, &pictures, site).map_err(|error| error.to_string())?;
        Ok(Box::new(scene))
    }

    fn check_site(&self, site: &Site<'_>, kept: &Kept) -> Result<(), String> {
        match self.data.source {
            Source::Cifar10 => Pictures::of(self, 0, site.data, kept).map(|_| ()),
            Source::Synthetic { .. } => Ok(()),
        }
    }
}

impl VisionConfig {
    /// Height and width of an image.
    pub fn side(&self) -> usize {
        match self.data.source {
            Source::Cifar10 => CIFAR10.0,
            Source::Synthetic { side, .. } => side,
        }
    }

    /// The network.
    ///
    /// # Errors
    /// As the network's own constructor.
    pub fn network(&self) -> Result<Box<dyn Network>, PeftError> {
        Ok(match &self.network {
            NetworkConfig::Mixer(config) => Box::new(Mixer::new(config.clone())?),
            NetworkConfig::Mlp(config) => Box::new(Mlp::new(config.clone())?),
        })
    }

    /// The first stage's training by method `name`.
    pub fn retraining_training(&self, method: &RetrainingMethod) -> TrainingConfig {
        let stage = &self.retraining;
        let (mut steps, mut batch) = (method.steps.unwrap_or(stage.steps), stage.batch);
        let mut validate_every = stage.validate_every;
        if self.flaws.batch_per_task && matches!(method.algorithm, Algorithm::PeftMl { .. }) {
            let tasks = self.data.retraining_tasks.len();
            steps = (steps / tasks as u64).max(1);
            validate_every = validate_every.div_ceil(tasks as u64);
            batch *= tasks;
        }
        TrainingConfig {
            algorithm: method.algorithm.clone(),
            steps,
            batch,
            optimiser: with_rate(
                method.optimiser.as_ref().unwrap_or(&stage.optimiser),
                method.step_size,
                stage.step_factor,
            ),
            schedule: stage.schedule,
            validate_every,
        }
    }

    /// The second stage's training by method `name`.
    pub fn fine_tuning_training(&self, method: &FineTuningMethod) -> TrainingConfig {
        let stage = &self.fine_tuning;
        TrainingConfig {
            algorithm: method.algorithm(),
            steps: stage.steps,
            batch: stage.batch,
            optimiser: with_rate(&stage.optimiser, method.step_size, stage.step_factor),
            schedule: stage.schedule,
            validate_every: stage.validate_every,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_leaves(self)?;
        self.check_data()?;
        self.check_stages()?;
        self.check_network()
    }

    fn check_data(&self) -> Result<(), ConfigError> {
        let Data { retraining_tasks, test_task, .. } = &self.data;
        let pairs = retraining_tasks.iter().map(|pair| ("data.retraining_tasks", pair));
        for (key, pair) in pairs.chain([("data.test_task", test_task)]) {
            let [a, b] = *pair;
            if a > 9 || b > 9 || a % 2 == b % 2 {
                let expected = "two classes from 0 to 9, one of them odd: label = class mod 2";
                return Err(ConfigError::value(key, format!("[{a}, {b}]"), expected));
            }
        }
        if retraining_tasks.is_empty() {
            let expected = "at least one task is needed";
            return Err(ConfigError::value("data.retraining_tasks", "[]", expected));
        }
        let (training, test) = match self.data.source {
            Source::Cifar10 => (2 * CIFAR10.1, 2 * CIFAR10.2),
            Source::Synthetic { .. } => (MOST_EXAMPLES, MOST_EXAMPLES),
        };
        for (key, count, least, most) in [
            ("data.training_images", self.data.training_images, 2, training),
            ("data.validation_images", self.data.validation_images, 0, training),
            ("data.test_images", self.data.test_images, 2, test),
        ] {
            if !count.is_multiple_of(2) || count < least || count > most {
                let expected = format!("an even number from {least} to {most}: half of each class");
                return Err(ConfigError::value(key, count, expected));
            }
        }
        if self.data.training_images + self.data.validation_images > training {
            let expected = format!("with data.validation_images at most {training}");
            let count = self.data.training_images;
            return Err(ConfigError::value("data.training_images", count, expected));
        }
        if let Source::Synthetic { side, noise_std } = self.data.source {
            if !(1..=256).contains(&side) {
                let expected = "from 1 to 256 pixels";
                return Err(ConfigError::value("data.source.side", side, expected));
            }
            if !noise_std.is_finite() || noise_std < 0.0 {
                let expected = "a finite number from 0 is needed";
                return Err(ConfigError::value("data.source.noise_std", noise_std, expected));
            }
        }
        Ok(())
    }

    fn check_stages(&self) -> Result<(), ConfigError> {
        let (first, second) = (&self.retraining, &self.fine_tuning);
        for (stage, steps, batch, factor) in [
            ("retraining", first.steps, first.batch, first.step_factor),
            ("fine_tuning", second.steps, second.batch, second.step_factor),
        ] {
            if !(1..=MOST_STEPS).contains(&steps) {
                let expected = format!("from 1 to {MOST_STEPS}");
                return Err(ConfigError::value(format!("{stage}.steps"), steps, expected));
            }
            check_stage(stage, batch, factor)?;
        }
        Ok(())
    }

    /// A network that cannot be, with all its sizes: they limit each other.
    fn bad_network(&self, expected: &str) -> ConfigError {
        let table = Table::try_from(&self.network).unwrap_or_default();
        let sizes: Vec<String> =
            table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        ConfigError::value("network", format!("{{ {} }}", sizes.join(", ")), expected)
    }

    /// Network and methods, by making each once.
    fn check_network(&self) -> Result<(), ConfigError> {
        let (side, inputs) = (self.side(), 3 * self.side() * self.side());
        match &self.network {
            NetworkConfig::Mixer(c) if (c.image_side, c.channels) != (side, 3) => {
                let found = format!("{} x {0} x {}", c.image_side, c.channels);
                let expected = format!("images are {side} x {side} x 3");
                return Err(ConfigError::value("network.image_side, channels", found, expected));
            }
            NetworkConfig::Mlp(c) if c.inputs != inputs => {
                let expected = format!("an image is {inputs} numbers");
                return Err(ConfigError::value("network.inputs", c.inputs, expected));
            }
            NetworkConfig::Mixer(MixerConfig { classes, .. })
            | NetworkConfig::Mlp(MlpConfig { classes, .. })
                if *classes != 2 =>
            {
                return Err(ConfigError::value("network.classes", classes, "tasks have 2 classes"));
            }
            _ => {}
        }
        if network_size(&self.network).is_none_or(|size| size > 1 << 32) {
            return Err(self.bad_network("at most 2^32 numbers"));
        }
        let network = self.network().map_err(|error| self.bad_network(&error.to_string()))?;
        let make = |adapter: &AdapterConfig| Adapter::new(adapter, network.sites());
        let tasks = self.data.retraining_tasks.len();
        for (name, method) in &self.retraining.methods {
            let key = format!("retraining.methods.{name}");
            let training = self.retraining_training(method);
            training.check(tasks).map_err(|error| failed(&key, &error))?;
            check_steps(&key, training.steps)?;
            if let Some(adapter) = training.adapter() {
                make(adapter)
                    .and_then(|adapter| adapter.check_shares(network.sites()))
                    .map_err(|error| failed(&key, &error))?;
            }
        }
        for (name, method) in &self.fine_tuning.methods {
            let key = format!("fine_tuning.methods.{name}");
            let training = self.fine_tuning_training(method);
            training.check(1).map_err(|error| failed(&key, &error))?;
            make(&method.adapter).map_err(|error| failed(&key, &error))?;
        }
        Ok(())
    }
}

/// A bound on the numbers of a network; `None` where it overflows.
fn network_size(network: &NetworkConfig) -> Option<usize> {
    match network {
        NetworkConfig::Mixer(c) => {
            let tokens = (c.image_side / c.patch_side.max(1)).checked_pow(2)?;
            // Products of hidden lengths are bounded where the network is made.
            let square = c.width.checked_mul(c.width)?.checked_add(tokens.checked_mul(tokens)?)?;
            let expansion = c.token_expansion.abs() + c.channel_expansion.abs() + 1.0;
            let all = square as f64 * expansion * c.blocks as f64;
            let patch = c.patch_side.checked_pow(2)?.checked_mul(3)?.checked_mul(c.width)?;
            (all.is_finite() && all < 1e15).then_some(all as usize)?.checked_add(patch)
        }
        NetworkConfig::Mlp(c) => {
            let mut width = c.inputs;
            let mut all = 0usize;
            for next in c.hidden.iter().chain([&c.classes]) {
                all = all.checked_add(width.checked_mul(*next)?)?;
                width = *next;
            }
            Some(all)
        }
    }
}
