//! `peftml merge DIR`: the merged files of a run folder from its parts.

use super::study::{MixtureOptions, conclude, open, threads};
use super::{Common, Failure, print_line};
use crate::runs::merge;
use std::path::PathBuf;

/// Merge the parts of a run folder into tables and figures.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    mixtures: MixtureOptions,
}

/// Runs the command.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let (folder, study) = open(&arguments.folder)?;
    let lock = folder.lock()?;
    let merged = merge(&*study, &folder, arguments.mixtures.into(), threads(common), None)?;
    drop(lock);
    print_line(&folder.path().display().to_string())?;
    conclude(&merged, None)
}
