//! What can be wrong with a method, a network or a training.

use std::path::PathBuf;

/// Why networks or their adapters cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// No method of this name.
    #[error("no method is called {name:?}; there are {}", known.join(", "))]
    UnknownMethod {
        /// The name asked for.
        name: String,
        /// Those that exist, nearest first.
        known: Vec<&'static str>,
    },
    /// A configuration that does not fit the method (or algorithm) that it is for.
    #[error("settings of {of}: {}", at_its_key(source))]
    Settings {
        /// Whose settings.
        of: String,
        /// What is wrong, with the known keys.
        source: Box<toml::de::Error>,
    },
    /// A number outside its range.
    #[error("{name} = {value} is out of range: {expected}")]
    Range {
        /// The setting.
        name: String,
        /// Its value.
        value: f64,
        /// What would be right.
        expected: String,
    },
    /// A target pattern that is no regular expression.
    #[error("target pattern {pattern:?}: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        problem: String,
    },
    /// A pattern that matches nothing.
    #[error("{pattern:?} matches none of the {what}; there are {}", shown(paths))]
    NoTarget {
        /// The pattern.
        pattern: String,
        /// What was looked for.
        what: &'static str,
        /// The paths that exist, nearest first.
        paths: Vec<String>,
    },
    /// A rank that was named for one layer and does not fit it.
    #[error(
        "rank {rank} was named for {layer}, which is {inputs} x {outputs}: at most {} fits",
        inputs.min(outputs)
    )]
    Rank {
        /// The layer.
        layer: String,
        /// The rank asked for.
        rank: usize,
        /// The layer's inputs.
        inputs: usize,
        /// The layer's outputs.
        outputs: usize,
    },
    /// A method that this network gives no place for.
    #[error("{method} needs {needed}, which this network has not")]
    NoSite {
        /// The method.
        method: &'static str,
        /// What it needs.
        needed: &'static str,
    },
    /// Targets for a method that acts on the network as a whole.
    #[error("targets: {method} acts on the network as a whole, there is nothing to choose")]
    NoChoice {
        /// The method.
        method: &'static str,
    },
    /// A method whose adapter cannot be written into the weights.
    #[error("{method} cannot be merged into the weights: {reason}")]
    NotMergeable {
        /// The method.
        method: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A method, or a setting of one, that Hugging Face's format has not.
    #[error("{method} cannot be written in Hugging Face's format: {problem}")]
    NotInFormat {
        /// The method.
        method: &'static str,
        /// What the format has not.
        problem: String,
    },
    /// Retraining with a method that leaves nothing of the base in use.
    #[error("{method} replaces every parameter of the base: nothing is shared between the tasks")]
    NothingShared {
        /// The method.
        method: &'static str,
    },
    /// A parameter that a forward pass needs and that is not there.
    #[error("no parameter is called {name:?}")]
    MissingParameter {
        /// Its name.
        name: String,
    },
    /// A parameter or an input of another shape.
    #[error("{name}: expected shape {expected:?}, got {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// An input of another kind than the network takes.
    #[error("this network takes {expected}, got {found}")]
    InputKind {
        /// What it takes.
        expected: &'static str,
        /// What it got.
        found: &'static str,
    },
    /// A set of tasks or examples that training cannot use.
    #[error("{what}: {problem}")]
    Tasks {
        /// Which.
        what: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A loss that is not a finite number: training stops before the step that it would cause.
    #[error("the loss is {loss} at step {step}{}: the last state before it stands", in_task(task))]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// The task, where it belongs to one.
        task: Option<String>,
        /// The loss.
        loss: f64,
    },
    /// Numbers that a decomposition cannot take.
    #[error("{name}: {source}")]
    Decomposition {
        /// Of what.
        name: String,
        /// Why not.
        source: peftml_linalg::DecompositionError,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: FileProblem,
    },
    /// A device that is not there.
    #[error("device {name}: {reason}")]
    Device {
        /// The device asked for.
        name: &'static str,
        /// Why it cannot be used, and what would help.
        reason: &'static str,
    },
    /// The back end failed to hand over numbers.
    #[error("the device did not hand over {what}: {problem}")]
    Execution {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        problem: String,
    },
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// Not the safetensors format.
    #[error("no safetensors file: {0}")]
    Format(String),
    /// Tensors that are not there.
    #[error("tensors are missing: {}", shown(.0))]
    Missing(Vec<String>),
    /// Tensors that do not belong there.
    #[error("tensors that nothing asks for: {}", shown(.0))]
    Unexpected(Vec<String>),
    /// A tensor of another shape.
    #[error("{key}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor's key.
        key: String,
        /// What was expected.
        expected: Vec<usize>,
        /// What was found.
        found: Vec<usize>,
    },
    /// A tensor of an element type that is not read.
    #[error("{key}: element type {found} is not read; F64, F32, F16 and BF16 are")]
    ElementType {
        /// The tensor's key.
        key: String,
        /// What was found.
        found: String,
    },
    /// A text that says something else than it should.
    #[error("{0}")]
    Description(String),
    /// A network that is not among those that are read.
    #[error("{found:?} is not among the networks that are read: {}", supported.join(", "))]
    Architecture {
        /// What the file names.
        found: String,
        /// Those that are read.
        supported: Vec<String>,
    },
    /// Weights in a format that can run code when it is read.
    #[error(
        "it holds {name} alone, which is not read (reading it can run code); convert it with \
         transformers: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER) writes \
         model.safetensors, and so does AutoModelForSequenceClassification where there is a head"
    )]
    Pickle {
        /// The file.
        name: &'static str,
    },
    /// A setting of another program's that has no counterpart here.
    #[error("{setting} = {value} cannot be represented: {reason}")]
    Foreign {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
        /// What would be right.
        reason: String,
    },
    /// A checkpoint of another training.
    #[error("this checkpoint belongs to another training: {field} is {found}, here {expected}")]
    OtherTraining {
        /// What differs.
        field: &'static str,
        /// In this training.
        expected: String,
        /// In the file.
        found: String,
    },
}

/// A list that stays one sentence: the first dozen, and how many more.
fn shown(names: &[String]) -> String {
    const MOST: usize = 12;
    let mut text = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text += &format!(" and {} more", names.len() - MOST);
    }
    text
}

fn in_task(task: &Option<String>) -> String {
    task.as_ref().map(|name| format!(" in task {name}")).unwrap_or_default()
}

/// The message, and the key where the error is of a table; one of a text would draw the place.
fn at_its_key(error: &toml::de::Error) -> String {
    match error.span() {
        Some(_) => error.message().to_owned(),
        None => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
