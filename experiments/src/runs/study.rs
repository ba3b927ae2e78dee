//! What a study tells the machinery.

use super::RunError;
use super::csv::Table;
use crate::figures::Figure;
use serde::{Deserialize, Serialize};

/// What a study is, for the report: no reader of a run folder needs to know its suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Suite: `linear`, ..
    pub suite: String,
    /// Study with its preset: `sweep_n`, `sweep_n.quick`, ..
    pub name: String,
    /// Title.
    pub title: String,
    /// The question that it answers.
    pub question: String,
    /// Columns of trials.csv that are swept.
    pub swept: Vec<String>,
    /// Columns of trials.csv that name a row.
    pub keys: Vec<String>,
    /// Columns of trials.csv that are measured.
    pub measures: Vec<String>,
}

impl About {
    /// The name of a study with its preset: that of the preset `paper` is the study's own.
    pub fn full_name(study: &str, preset: &str) -> String {
        match preset {
            "paper" => study.to_owned(),
            preset => format!("{study}.{preset}"),
        }
    }
}

/// Header lines of the merged files, without line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Of trials.csv.
    pub trials: String,
    /// Of curves.csv.
    pub curves: String,
    /// Of timings.csv.
    pub timings: String,
}

/// The unit of work and of resumption.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Everything that the result depends on beside the configuration's unswept part.
    pub id: String,
    /// Trials of one group share work (data, say) and are run together by one thread.
    pub group: usize,
    /// Estimated cost, in any unit common to the study.
    pub cost: f64,
}

/// The trials of one group that are to be run.
pub type Group<'t> = [&'t Trial];

/// What trials may use beside their configuration. No result depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site<'s> {
    /// The run folder, where long trials keep checkpoints; without it they keep none.
    pub folder: Option<&'s std::path::Path>,
    /// The folder of real data sets.
    pub data: Option<&'s std::path::Path>,
}

/// What a finished trial leaves: lines of the merged files, without line ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lines of trials.csv.
    pub trials: Vec<String>,
    /// Lines of curves.csv.
    pub curves: Vec<String>,
    /// Lines of timings.csv; the only ones that may differ from run to run.
    pub timings: Vec<String>,
    /// Why a method gave no answer, if it refused: the rows stand, without numbers.
    pub refused: Option<String>,
    /// Cases worth keeping: merging makes a folder `instances/NAME` of each.
    pub instances: Vec<Instance>,
}

/// A case worth keeping, as text that says all of it; [`Study::write_instance`] makes files of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Unique in the run, and the name of its folder: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it is, in the study's own form.
    pub text: String,
}

/// The merged files, read back: what figures and summary are made from.
pub struct Tables<'t> {
    /// trials.csv.
    pub trials: Table<'t>,
    /// curves.csv.
    pub curves: Table<'t>,
}

/// The answer of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One sentence with numbers.
    pub answer: String,
    /// Headline figures by name.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// A study: its trials, how to run them, and what to draw.
pub trait Study: Sync {
    /// What it is.
    fn about(&self) -> &About;

    /// The complete configuration, seeds included; written to config.toml.
    fn config(&self) -> &toml::Table;

    /// What the run's hash is taken over: the configuration without seeds, and without whatever
    /// else no trial's result depends on.
    fn identity(&self) -> toml::Table;

    /// Header lines of the merged files.
    fn headers(&self) -> Headers;

    /// All trials, in the order of the merged files, groups being contiguous.
    fn trials(&self) -> Vec<Trial>;

    /// Runs trials of one group in the given order. `finish` is called once a trial, with the
    /// reason where it failed (which is not a refusal: a failed trial is tried again next time).
    ///
    /// The result of a trial must not depend on the others in `group`.
    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>));

    /// As [`Study::run`], for studies whose trials keep checkpoints or read real data.
    fn run_at(
        &self,
        _site: &Site<'_>,
        group: &Group<'_>,
        finish: &mut dyn FnMut(&Trial, Result<Outcome, String>),
    ) {
        self.run(group, finish);
    }

    /// Whether trials can be run at `site`; asked once, before the first.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    fn check_site(&self, _site: &Site<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Whether a trial computes with all threads, and not with the one that runs it alone.
    fn shares_threads(&self) -> bool {
        false
    }

    /// The study's figures.
    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure>;

    /// The study's answer.
    fn summary(&self, tables: &Tables<'_>) -> Summary;

    /// Writes the files of a kept instance into its folder; equal texts give equal bytes.
    ///
    /// # Errors
    /// Why not, in a sentence: a text that is no instance of this study, a file that cannot be written.
    fn write_instance(&self, instance: &Instance, _folder: &std::path::Path) -> Result<(), String> {
        Err(format!("the study `{}` keeps no instances ({})", self.about().name, instance.name))
    }

    /// The folder's name below the suite: name and hash.
    fn folder_name(&self) -> String {
        format!("{}-{}", self.about().name, crate::config::hash8(&self.identity()))
    }
}

/// The table of one merged file.
pub(super) fn table<'t>(path: &std::path::Path, text: &'t str) -> Result<Table<'t>, RunError> {
    Table::parse(text).map_err(|(line, reason)| RunError::MalformedPart {
        path: path.to_owned(),
        line,
        reason,
    })
}
