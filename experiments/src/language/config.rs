//! Configuration of the language studies.

use super::scene::{Kept, Scene};
use crate::config::resolved::PointConfig;
use crate::config::{ConfigError, Leaf, typed};
use crate::networks::answer::Cell;
use crate::networks::config::{
    FineTuningMethod, Keep, Leaves, MOST_EXAMPLES, Staged, Words, check_leaves, check_stage,
    failed, step_size, with_rate,
};
use crate::networks::stages::Stages;
use crate::runs::{Site, Summary};
use peftml_data::synthetic::dialogues::DialogueSpec;
use peftml_peft::models::{Encoder, EncoderConfig};
use peftml_peft::optimiser::{OptimiserConfig, ScheduleConfig};
use peftml_peft::train::{Algorithm, TrainingConfig};
use peftml_peft::{Adapter, Network as _, PeftError, Sites};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Table;

/// Tokens that are no words: padding, the two ends, and what is not known.
pub const SPECIAL: usize = 4;
/// Candidates of a turn of ConvAI2.
const CONVAI2: usize = 20;
/// More passes than this are a slip of the finger.
const MOST_EPOCHS: u64 = 100_000;
/// More of a random encoder's numbers than this are a slip of the finger.
const MOST_NUMBERS: f64 = 4294967296.0;
/// Longest sequence; models of this kind take 512.
const LONGEST: usize = 1 << 16;

/// What the leaves mean, beside those of every suite and of suites of networks.
pub const LEAVES: &[Leaf] = &[
    Leaf::new(
        "data.source.name",
        "`\"convai2\"`: the real files; `\"synthetic\"`: personas with favourite words, drawn here",
    ),
    Leaf::new(
        "data.source.grouping",
        "`convai2`: a task is the dialogues of one `\"persona\"` or of one cluster of the `\"persona-map\"`",
    ),
    Leaf::new("data.source.personas", "`synthetic`: personas of each stage"),
    Leaf::new("data.source.dialogues", "`synthetic`: dialogues of each persona"),
    Leaf::new("data.source.turns", "`synthetic`: turns of a dialogue"),
    Leaf::new("data.source.candidates", "`synthetic`: candidates of a turn"),
    Leaf::new("data.source.words", "`synthetic`: number of words"),
    Leaf::new("data.source.favourites", "`synthetic`: favourite words of a persona"),
    Leaf::new(
        "data.retraining_tasks",
        "so many of the largest tasks of the training file, by turns",
    ),
    Leaf::new("data.test_tasks", "so many of the largest tasks of the validation file, by turns"),
    Leaf::new("data.validation_dialogues", "of each retraining task, held out from training"),
    Leaf::new(
        "data.folds.by",
        "a test task's dialogues are cut into `count` `\"folds\"`, or into folds of `count` `\"dialogues\"`",
    ),
    Leaf::new("data.folds.count", "how many"),
    Leaf::new(
        "data.max_length",
        "longest sequence in tokens, special ones included; the context's oldest tokens go",
    ),
    Leaf::new(
        "data.training_candidates",
        "candidates of a turn in training and validation, the true one included; a test has all",
    ),
    Leaf::new(
        "model.name",
        "`\"folder\"`: an encoder in Hugging Face's layout; `\"random\"`: a small one with random weights",
    ),
    Leaf::new("model.folder", "its path below the folder of the data sets"),
    Leaf::new("model.width", "`random`: length of a token's vector"),
    Leaf::new("model.layers", "`random`: number of layers"),
    Leaf::new("model.heads", "`random`: attention heads; divides `width`"),
    Leaf::new("model.hidden", "`random`: hidden length of a layer's two-layer part"),
    Leaf::new("model.dropout", "`random`: probability that a unit is left out in training"),
    Leaf::new("retraining.epochs", "passes over the turns of all tasks"),
    Leaf::new("retraining.batch", "turns that a step sees, each with its candidates"),
    Leaf::new("retraining.validate", "after every `\"epoch\"`, at the `\"end\"` or `\"never\"`"),
    Leaf::new(
        "retraining.methods.*.algorithm.name",
        "`\"standard\"`, `\"peft-ml\"`, `\"reptile\"` or `\"fomaml\"`; without an algorithm the base stays as it is",
    ),
    Leaf::new(
        "retraining.methods.*.algorithm.own.*",
        "`reptile`: what every task keeps of its own, as an adapter: a head, say",
    ),
    Leaf::new("fine_tuning.epochs", "passes over a fold's training turns"),
    Leaf::new("fine_tuning.batch", "turns that a step sees, each with its candidates"),
    Leaf::new(
        "fine_tuning.validation_dialogues",
        "of a fold's training dialogues, held out to choose the step of `best_accuracy` by",
    ),
];

/// One language study; [`LEAVES`] says what its leaves mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageConfig {
    /// `language`.
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
    /// Dialogues.
    pub data: Data,
    /// The encoder.
    pub model: Model,
    /// First stage.
    pub retraining: Retraining,
    /// Second stage.
    pub fine_tuning: FineTuning,
    /// Leaf paths and lists.
    #[serde(default)]
    pub sweep: Table,
}

/// Dialogues and tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where dialogues come from.
    pub source: Source,
    /// Tasks of the first stage.
    pub retraining_tasks: usize,
    /// Tasks of the second stage.
    pub test_tasks: usize,
    /// Dialogues of each retraining task that are held out from training.
    pub validation_dialogues: usize,
    /// How a test task's dialogues are divided.
    pub folds: Folds,
    /// Longest sequence.
    pub max_length: usize,
    /// Candidates of a turn in training and validation.
    pub training_candidates: usize,
}

/// Where dialogues come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// Files of ConvAI2: retraining tasks from the training file, test tasks from the validation file.
    Convai2 {
        /// What a task is.
        grouping: Grouping,
    },
    /// Dialogues of personas with favourite words; see [`peftml_data::synthetic::dialogues`].
    Synthetic {
        /// Personas of each stage.
        personas: usize,
        /// Dialogues of each persona.
        dialogues: usize,
        /// Turns of a dialogue.
        turns: usize,
        /// Candidates of a turn.
        candidates: usize,
        /// Number of words.
        words: usize,
        /// Favourite words of a persona.
        favourites: usize,
    },
}

/// What a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    /// The dialogues with the same persona.
    Persona,
    /// The dialogues with personas of the same cluster of the file's map.
    PersonaMap,
}

/// How a test task's dialogues are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Folds {
    /// So many folds.
    Folds {
        /// How many.
        count: usize,
    },
    /// Folds of so many dialogues, the last perhaps smaller.
    Dialogues {
        /// How many.
        count: usize,
    },
}

/// The encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Model {
    /// In Hugging Face's layout.
    Folder {
        /// The folder's path below that of the data sets.
        folder: String,
    },
    /// BERT's form with random weights and a word a token; for synthetic dialogues.
    Random {
        /// Length of a token's vector.
        width: usize,
        /// Number of layers.
        layers: usize,
        /// Number of attention heads.
        heads: usize,
        /// Hidden length of a layer's two-layer part.
        hidden: usize,
        /// Dropout rate.
        dropout: f64,
    },
}

/// First stage: from tasks to a base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraining {
    /// Passes over all tasks' turns.
    pub epochs: u64,
    /// Turns of an optimiser step.
    pub batch: usize,
    /// When there is a validation.
    pub validate: Validate,
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

/// When there is a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// After every epoch.
    Epoch,
    /// At the end.
    End,
    /// Never.
    Never,
}

/// A retraining method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrainingMethod {
    /// The algorithm; none: the base stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Its step size, in the place of the optimiser's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
}

/// Second stage: from a base to models of the test tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuning {
    /// Passes over a fold's training turns.
    pub epochs: u64,
    /// Turns of an optimiser step.
    pub batch: usize,
    /// Dialogues of a fold's training dialogues that choose the epoch of `best_accuracy`.
    pub validation_dialogues: usize,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// How the step size changes.
    pub schedule: ScheduleConfig,
    /// Multiplies every step size.
    pub step_factor: f64,
    /// Methods by name.
    pub methods: BTreeMap<String, FineTuningMethod>,
}

impl PointConfig for LanguageConfig {
    const NAME: &'static str = "of a language study";

    fn read(table: &Table) -> Result<Self, ConfigError> {
        let config: Self = typed(Self::NAME, table)?;
        check_leaves(&config)?;
        config.check_data()?;
        config.check_stages()?;
        config.check_model()?;
        Ok(config)
    }
}

impl Staged for LanguageConfig {
    const SUITE: &'static str = "language";
    const OWN_COLUMNS: &'static [&'static str] = &["dialogue_hits"];
    type Kept = Kept;

    fn leaves(&self) -> Leaves<'_> {
        let Self { suite, study, preset, title, question, seeds, cells, baseline, .. } = self;
        Leaves { suite, study, preset, title, question, seeds, cells, baseline }
    }

    fn methods(&self) -> [Vec<&String>; 2] {
        [self.retraining.methods.keys().collect(), self.fine_tuning.methods.keys().collect()]
    }

    fn step_sizes(&self, [first, second]: [&str; 2]) -> [Option<f64>; 2] {
        let first = self.retraining.methods.get(first);
        let first = first.and_then(|method| self.retraining_training(method, 1, 1));
        let second = self.fine_tuning.methods.get(second);
        let second = second.map(|method| self.fine_tuning_training(method, 1, 1));
        [first, second].map(|training| training.map(|training| step_size(&training.optimiser)))
    }

    /// Candidates through the encoder, thrice where it is trained.
    fn cost(&self, [first, _]: [&str; 2], tunings: usize) -> f64 {
        let (data, each) = (&self.data, self.data.training_candidates as f64);
        let trained = self.retraining.methods.get(first).is_some_and(|m| m.algorithm.is_some());
        let passes = if trained { 3.0 * self.retraining.epochs as f64 } else { 0.0 };
        let retraining = passes * data.retraining_tasks as f64 * each / tunings as f64;
        let fine_tuning = 6.0 * self.fine_tuning.epochs as f64 * each + self.candidates() as f64;
        retraining + fine_tuning * data.test_tasks as f64
    }

    fn words(&self) -> Words {
        let synthetic = match self.data.source {
            Source::Convai2 { .. } => ["", ""],
            Source::Synthetic { .. } => {
                ["Synthetic personas, nobody's words. ", ", synthetic personas"]
            }
        };
        Words {
            unseen: "unseen personas",
            title: "Unseen personas",
            same: "the same dialogues, folds, order and starts",
            synthetic,
        }
    }

    fn chance(&self) -> Option<f64> {
        Some(1.0 / self.candidates() as f64)
    }

    fn scene<'c>(
        &'c self,
        number: u64,
        site: &Site<'_>,
        kept: &Kept,
    ) -> Result<Box<dyn Stages + 'c>, String> {
        let scene = Scene::new(self, number, site, kept).map_err(|error| error.to_string())?;
        Ok(Box::new(scene))
    }

    fn check_site(&self, site: &Site<'_>, kept: &Kept) -> Result<(), String> {
        let here = Site { folder: None, ..*site };
        Scene::new(self, 0, &here, kept).map(|_| ()).map_err(|error| {
            format!(
                "{error}; PEFTML_DATA names the folder that holds convai2/ and the model's folder, and the \
                 study language/quick needs neither"
            )
        })
    }

    fn complete(&self, cells: &[Cell], summary: &mut Summary) {
        super::answer::complete(self, cells, summary);
    }
}

impl LanguageConfig {
    /// Candidates of a turn in the tests.
    pub fn candidates(&self) -> usize {
        match self.data.source {
            Source::Convai2 { .. } => CONVAI2,
            Source::Synthetic { candidates, .. } => candidates,
        }
    }

    /// What is drawn, where dialogues are synthetic.
    pub fn spec(&self) -> Option<DialogueSpec> {
        match self.data.source {
            Source::Convai2 { .. } => None,
            Source::Synthetic { personas, dialogues, turns, candidates, words, favourites } => {
                Some(DialogueSpec { personas, dialogues, turns, candidates, words, favourites })
            }
        }
    }

    /// The sizes of a random encoder of so many tokens.
    pub fn random_encoder(&self, vocabulary: usize) -> Option<EncoderConfig> {
        let Model::Random { width, layers, heads, hidden, dropout } = self.model else {
            return None;
        };
        let (positions, segments, classes) = (self.data.max_length, 1, 2);
        let form = Default::default();
        Some(EncoderConfig {
            vocabulary,
            width,
            layers,
            heads,
            hidden,
            positions,
            segments,
            classes,
            dropout,
            form,
        })
    }

    /// The first stage's training by `method`, of so many steps in all and in an epoch; none where the base stays
    /// as it is.
    pub fn retraining_training(
        &self,
        method: &RetrainingMethod,
        steps: u64,
        per_epoch: u64,
    ) -> Option<TrainingConfig> {
        let stage = &self.retraining;
        Some(TrainingConfig {
            algorithm: method.algorithm.clone()?,
            steps,
            batch: stage.batch,
            optimiser: with_rate(&stage.optimiser, method.step_size, stage.step_factor),
            schedule: stage.schedule,
            validate_every: if stage.validate == Validate::Epoch { per_epoch } else { 0 },
        })
    }

    /// The second stage's training by `method`, of so many steps in all and in an epoch.
    pub fn fine_tuning_training(
        &self,
        method: &FineTuningMethod,
        steps: u64,
        per_epoch: u64,
    ) -> TrainingConfig {
        let stage = &self.fine_tuning;
        TrainingConfig {
            algorithm: method.algorithm(),
            steps,
            batch: stage.batch,
            optimiser: with_rate(&stage.optimiser, method.step_size, stage.step_factor),
            schedule: stage.schedule,
            validate_every: per_epoch,
        }
    }

    fn check_data(&self) -> Result<(), ConfigError> {
        let data = &self.data;
        let between = |key: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let expected = format!("from {least} to {most}");
            Err(ConfigError::value(format!("data.{key}"), value, expected))
        };
        let mut tasks = MOST_EXAMPLES;
        if let Some(spec) = self.spec() {
            between("source.personas", spec.personas, 2, MOST_EXAMPLES)?;
            between("source.dialogues", spec.dialogues, 2, MOST_EXAMPLES)?;
            between("source.turns", spec.turns, 1, MOST_EXAMPLES)?;
            between("source.candidates", spec.candidates, 2, 100)?;
            // Few words would have few different replies.
            between("source.words", spec.words, 20, MOST_EXAMPLES)?;
            between("source.favourites", spec.favourites, 1, spec.words)?;
            let all = [spec.dialogues, spec.turns, spec.candidates];
            let rows = all.iter().try_fold(spec.personas, |product, n| product.checked_mul(*n));
            if rows.is_none_or(|rows| rows > MOST_EXAMPLES) {
                let expected = "with dialogues, turns and candidates at most a million replies";
                return Err(ConfigError::value("data.source.personas", spec.personas, expected));
            }
            tasks = spec.personas;
        }
        between("retraining_tasks", data.retraining_tasks, 1, tasks)?;
        between("test_tasks", data.test_tasks, 1, tasks)?;
        between("validation_dialogues", data.validation_dialogues, 0, MOST_EXAMPLES)?;
        match data.folds {
            Folds::Folds { count } => between("folds.count", count, 2, MOST_EXAMPLES)?,
            Folds::Dialogues { count } => between("folds.count", count, 1, MOST_EXAMPLES)?,
        }
        // Two special tokens and one other of each.
        between("max_length", data.max_length, 6, LONGEST)?;
        between("training_candidates", data.training_candidates, 2, self.candidates())
    }

    fn check_stages(&self) -> Result<(), ConfigError> {
        let (first, second) = (&self.retraining, &self.fine_tuning);
        for (stage, epochs, batch, factor) in [
            ("retraining", first.epochs, first.batch, first.step_factor),
            ("fine_tuning", second.epochs, second.batch, second.step_factor),
        ] {
            if !(1..=MOST_EPOCHS).contains(&epochs) {
                let expected = format!("from 1 to {MOST_EPOCHS}");
                return Err(ConfigError::value(format!("{stage}.epochs"), epochs, expected));
            }
            check_stage(stage, batch, factor)?;
        }
        if first.keep == Keep::Best && first.validate == Validate::Never {
            let expected = "\"best\" needs validations, see retraining.validate";
            return Err(ConfigError::value("retraining.keep", "\"best\"", expected));
        }
        if first.validate != Validate::Never && self.data.validation_dialogues == 0 {
            let expected = "validations need dialogues, see data.validation_dialogues";
            return Err(ConfigError::value("retraining.validate", "as it stands", expected));
        }
        for (name, method) in &first.methods {
            let key = format!("retraining.methods.{name}");
            if let Some(training) = self.retraining_training(method, 1, 1) {
                let tasks = self.data.retraining_tasks;
                training.check(tasks).map_err(|error| failed(&key, &error))?;
            }
        }
        for (name, method) in &second.methods {
            let key = format!("fine_tuning.methods.{name}");
            let training = self.fine_tuning_training(method, 1, 1);
            training.check(1).map_err(|error| failed(&key, &error))?;
        }
        Ok(())
    }

    fn check_model(&self) -> Result<(), ConfigError> {
        let synthetic = self.spec();
        match &self.model {
            Model::Folder { folder } => {
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                let below = !folder.is_empty() && Path::new(folder).components().all(plain);
                if !below || folder.contains(['\0', '\n']) {
                    let expected = "a path below the folder of the data sets";
                    return Err(ConfigError::value(
                        "model.folder",
                        format!("{folder:?}"),
                        expected,
                    ));
                }
                if synthetic.is_some() {
                    let expected = "synthetic words are a random encoder's";
                    return Err(ConfigError::value("model.name", "folder", expected));
                }
                Ok(())
            }
            Model::Random { width, layers, hidden, .. } => {
                let Some(spec) = synthetic else {
                    let expected = "real words need a model's folder";
                    return Err(ConfigError::value("model.name", "random", expected));
                };
                let [w, l, h, v] = [*width, *layers, *hidden, spec.words].map(|n| n as f64);
                let all = w * (v + self.data.max_length as f64) + l * w * (4.0 * w + 2.0 * h);
                if all > MOST_NUMBERS {
                    let (key, sizes) = ("model.width, layers, hidden", [*width, *layers, *hidden]);
                    let expected = "at most 2^32 numbers in all";
                    return Err(ConfigError::value(key, format!("{sizes:?}"), expected));
                }
                let sizes = self.random_encoder(spec.words + SPECIAL);
                let encoder = sizes.map(Encoder::new).transpose();
                let encoder = encoder.map_err(|error| failed("model", &error))?;
                encoder.map_or(Ok(()), |encoder| self.check_methods(encoder.sites()))
            }
        }
    }

    /// Binds every method once.
    ///
    /// # Errors
    /// [`ConfigError::Value`] that names the method.
    pub fn check_methods(&self, sites: &Sites) -> Result<(), ConfigError> {
        let bound = |key: &str, adapter: Result<Adapter, PeftError>, shares: bool| {
            let checked = adapter.and_then(|adapter| match shares {
                true => adapter.check_shares(sites),
                false => Ok(()),
            });
            checked.map_err(|error| match &error {
                PeftError::NoTarget { .. } | PeftError::Pattern { .. } => {
                    failed(&format!("{key}: targets or modules_to_save"), &error)
                }
                _ => failed(key, &error),
            })
        };
        for (name, method) in &self.retraining.methods {
            let training = self.retraining_training(method, 1, 1);
            if let Some(adapter) = training.as_ref().and_then(TrainingConfig::adapter) {
                let key = format!("retraining.methods.{name}");
                bound(&key, Adapter::new(adapter, sites), true)?;
            }
        }
        for (name, method) in &self.fine_tuning.methods {
            let key = format!("fine_tuning.methods.{name}");
            bound(&key, Adapter::new(&method.adapter, sites), false)?;
        }
        Ok(())
    }
}
