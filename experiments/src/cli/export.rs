//! `peftml export DIR`: the tables of a run for other programs.

use super::{Common, Failure, print_line};
use crate::export::{ExportError, Format, export};
use crate::runs::RunError;
use std::path::PathBuf;

/// Write a run's tables as CSV or Parquet, with a description of their columns.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Format of the tables
    #[arg(long, value_enum, default_value = "parquet")]
    format: Chosen,
    /// Folder to write to (default: `export` in the run folder)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Chosen {
    Csv,
    Parquet,
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Run(error @ RunError::NotARun { .. }) => Failure::input(error),
            ExportError::Run(error) => error.into(),
            ExportError::Parquet { .. } => Failure::refused(error),
            _ => Failure::input(error),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, _common: &Common) -> Result<(), Failure> {
    let out = arguments.out.clone().unwrap_or_else(|| arguments.folder.join("export"));
    let format = match arguments.format {
        Chosen::Csv => Format::Csv,
        Chosen::Parquet => Format::Parquet,
    };
    for file in export(&arguments.folder, &out, format)? {
        print_line(&file.display().to_string())?;
    }
    Ok(())
}
