//! `peftml report DIR..`: one page over run folders.

use super::{Common, Failure, print_line};
use crate::report::{ReportError, write};
use std::path::PathBuf;

/// Write one self-contained page over run folders.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run folders
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The page (default: report.html in the first folder)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NoRuns | ReportError::NotARun { .. } => Failure::input(error),
            _ => Failure::refused(error),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, _common: &Common) -> Result<(), Failure> {
    let page = match &arguments.out {
        Some(page) => page.clone(),
        None => arguments.folders[0].join("report.html"),
    };
    write(&arguments.folders, &page)?;
    print_line(&page.display().to_string())
}
