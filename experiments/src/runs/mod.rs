//! Runs: trials in, a run folder out, whatever happens in between.
//!
//! ```text
//! results/<suite>/<name>-<hash8>/
//!   config.toml                    the complete configuration with its seeds
//!   run.json                       provenance and status
//!   parts/*.jsonl                  append-only, one line a finished trial
//!   trials.csv curves.csv timings.csv summary.json figures/ instances/   merged from the parts
//! ```
//! A [`Study`] knows its trials and how to run one; everything else is here. A trial's result depends
//! on configuration and trial alone, so the merged trials.csv, curves.csv and figures/*.svg have the
//! same bytes however a run was cut into threads, shards and resumptions. A finished trial is in a
//! part file before it counts; part files are never appended to by a second process.

pub mod csv;
mod execute;
mod folder;
mod merge;
mod parts;
pub mod provenance;
mod status;
mod study;

pub use execute::{Execution, Options, PartName, Progress, Shard, Silent, execute};
pub use folder::{Lock, RunFolder, write_atomically};
pub use merge::{Merged, merge};
pub use parts::Mixtures;
pub use status::{Failure, Status, status, unfinished};
pub use study::{About, Group, Headers, Instance, Outcome, Site, Study, Summary, Tables, Trial};

use crate::config::ConfigError;
use crate::figures::FigureError;
use std::path::PathBuf;

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process works in the folder.
    #[error("{} is in use by {holder}; wait for it, or end it", path.display())]
    Held {
        /// The run folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// Not a run folder.
    #[error("{} is no run folder: it has no config.toml (`peftml run` makes one)", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Two results of one trial differ.
    #[error(
        "trial `{trial}` has two results that differ: {} and {}; a result depends on the configuration alone, so one of the files is not of this run, or a machine is faulty; remove the wrong one",
        first.display(), second.display()
    )]
    Conflict {
        /// The trial.
        trial: String,
        /// The file of one result.
        first: PathBuf,
        /// The file of the other.
        second: PathBuf,
    },
    /// Results of different binaries or machines.
    #[error(
        "{} was written by {what} {found}, others or this binary by {expected}; results may differ in their last bits: remove the file to compute its trials again, or allow it with {flag}",
        path.display()
    )]
    Mixed {
        /// `revision` or `CPU features`.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What the others say.
        expected: String,
        /// The file.
        path: PathBuf,
        /// The option that allows it.
        flag: &'static str,
    },
    /// A line in the middle of a part file that is no result.
    #[error("{}, line {line}: {reason}; remove the line to compute its trial again", path.display())]
    MalformedPart {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A kept instance could not be written as files.
    #[error("instance {name}: {reason}")]
    Instance {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A shard that there cannot be.
    #[error("shard {text}: K/M with 1 <= K <= M is needed")]
    Shard {
        /// What was given.
        text: String,
    },
    /// A figure could not be drawn.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that the trials need is not there.
    #[error("{reason}")]
    NotReady {
        /// What, and how to get it.
        reason: String,
    },
    /// Worker threads could not be started.
    #[error("cannot start {threads} worker threads: {reason}")]
    Threads {
        /// Number of threads.
        threads: usize,
        /// Why not.
        reason: String,
    },
}

impl RunError {
    fn io<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
