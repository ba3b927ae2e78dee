//! The two stages of a trial: a base, and a model fine-tuned from it.

use crate::config::ConfigError;
use crate::config::hash8;
use crate::runs::{RunError, provenance};
use peftml_data::DataError;
use peftml_peft::train::{Evaluation, Record};
use peftml_peft::{Parameters, PeftError};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why a trial has no result.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The network's side.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The data's side.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A method that this network gives no place for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Fewer images of a class than the configuration asks for.
    #[error("class {class} has {found} {what} images, {needed} are needed")]
    TooFew {
        /// The class.
        class: u8,
        /// Training or test.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Fewer personas, or clusters of them, than the configuration asks for.
    #[error("{} has {found} tasks, {needed} are needed", path.display())]
    FewTasks {
        /// The file of dialogues.
        path: PathBuf,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A task that cannot be divided as the configuration asks for.
    #[error("the task {task:?} has {found} dialogues, {needed} are needed to hold some out")]
    FewDialogues {
        /// The task.
        task: String,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A tokenizer of another model.
    #[error("the tokenizer has {tokens} tokens, the model knows {known}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Words of the model.
        known: usize,
    },
    /// Sequences that are longer than the model takes.
    #[error("data.max_length = {asked}: the model takes at most {most} tokens")]
    Length {
        /// The length asked for.
        asked: usize,
        /// The model's.
        most: usize,
    },
    /// A run that was begun with other data.
    #[error(
        "{} was written for other token sequences: the data, the tokenizer or the program changed since this run began; take a new folder, or remove the file with all checkpoints and parts",
        path.display()
    )]
    OtherData {
        /// The file of hashes.
        path: PathBuf,
    },
}

impl TrialError {
    /// Whether the method is at fault: it would fail again, and its row stands without numbers.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Peft(PeftError::NotFinite { .. } | PeftError::Decomposition { .. }))
    }
}

/// A base.
pub struct Base {
    /// Its weights.
    pub parameters: Parameters,
    /// The retraining tasks' adapters that belong to it.
    pub adapters: Vec<Parameters>,
    /// Validations on the way to it.
    pub history: Vec<Record>,
    /// The step that it is of, and the score of the best validation.
    pub best: Option<(u64, f64)>,
    /// Steps of the retraining.
    pub steps: u64,
    /// Numbers that were trained.
    pub trained_parameters: usize,
    /// Steps made by this process, and the seconds that they took.
    pub spent: (u64, f64),
}

/// A fine-tuned model, measured.
pub struct Tuned {
    /// On the test examples, after the last step.
    pub last: Evaluation,
    /// On the test examples, after the step of the best validation.
    pub best: Option<Evaluation>,
    /// Step and score of the best validation.
    pub best_validation: Option<(u64, f64)>,
    /// Validations on the way.
    pub history: Vec<Record>,
    /// Steps.
    pub steps: u64,
    /// Numbers that were trained.
    pub trained_parameters: usize,
    /// Steps made by this process, and the seconds that they took.
    pub spent: (u64, f64),
    /// Cells of the suite's own columns.
    pub own: Vec<String>,
}

/// What all methods of a sweep point and seed share, and what is made of it.
pub trait Stages {
    /// The base that retraining method `name` makes.
    ///
    /// # Errors
    /// [`TrialError`]; for a loss that is no finite number the last checkpoint stays.
    fn retrain(&self, name: &str) -> Result<Base, TrialError>;

    /// `base`, made by retraining method `names[0]`, fine-tuned by method `names[1]`.
    ///
    /// # Errors
    /// As [`Stages::retrain`].
    fn fine_tune(&self, base: &Base, names: [&str; 2]) -> Result<Tuned, TrialError>;

    /// Forgets what was kept for a trial that is finished.
    fn forget(&self, names: [&str; 2]);
}

/// The path without its ending of the checkpoint of the training of `config` that `names` (of a retraining method,
/// and of a fine-tuning method) and the seed mean, in `folder`, which is made. Its own name holds a hash of all that
/// the training depends on, this binary and the machine's features included.
///
/// # Errors
/// [`PeftError::Io`].
pub fn checkpoint(
    folder: &Path,
    config: &impl serde::Serialize,
    number: u64,
    names: &[&str],
) -> Result<PathBuf, PeftError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| PeftError::Io { path: folder.to_owned(), source })?;
    // A configuration was made from a table.
    let mut identity = Table::try_from(config).unwrap_or_default();
    for presentation in ["study", "preset", "title", "question", "seeds", "cells", "baseline"] {
        identity.remove(presentation);
    }
    identity.remove("sweep");
    for (stage, name) in ["retraining", "fine_tuning"].iter().zip(names) {
        let methods = identity.get_mut(*stage).and_then(|stage| stage.get_mut("methods"));
        if let Some(methods) = methods.and_then(Value::as_table_mut) {
            methods.retain(|known, _| known == *name);
        }
    }
    if names.len() < 2 {
        identity.remove("fine_tuning");
    }
    identity.insert("seed".into(), number.to_string().into());
    identity.insert("revision".into(), provenance::revision().into());
    identity.insert("features".into(), provenance::cpu_features().into());
    let name = format!("{}-{}-{}", names.join("-"), number, hash8(&identity));
    Ok(folder.join(name))
}
