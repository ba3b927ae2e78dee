//! One page for people: `report.html` of one run folder or of several.
//!
//! The page stands alone: style and script are embedded, it asks no network, and a policy in its
//! head forbids it to. Every number on it comes from a file of a run folder; what a file holds is
//! escaped before it is written. Figures are redrawn from the data inside `figures/*.svg`, once a
//! scale, by [`crate::figures`]; the script adds only values under the pointer, switches and the
//! sorting of tables, and the page reads without it.
//!
//! A file that is missing or malformed leaves a visible note in its place; only a folder that is
//! no run at all is an error.

mod aggregate;
mod figure;
mod html;
mod page;
pub(crate) mod paired;
mod run;
mod section;
mod tables;

use std::path::{Path, PathBuf};

use crate::runs::{RunError, write_atomically};

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No folder was given.
    #[error("a report needs at least one run folder")]
    NoRuns,
    /// A folder without the files of a run.
    #[error("{} is no run folder: expected a folder that holds run.json", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// The page could not be written.
    #[error(transparent)]
    Write(#[from] RunError),
}

/// Writes the report of `runs` to the file `out`.
///
/// # Errors
/// [`ReportError::NoRuns`], [`ReportError::NotARun`] where a folder has no `run.json`,
/// [`ReportError::Write`]. An existing `out` is as it was then.
pub fn write(runs: &[PathBuf], out: &Path) -> Result<(), ReportError> {
    write_atomically(out, render(runs)?.as_bytes())?;
    Ok(())
}

/// The page of `runs`, as text.
///
/// # Errors
/// As [`write()`], without those of writing.
pub fn render(runs: &[PathBuf]) -> Result<String, ReportError> {
    if runs.is_empty() {
        return Err(ReportError::NoRuns);
    }
    let runs: Vec<run::Run> =
        runs.iter().map(|path| run::Run::read(path)).collect::<Result<_, _>>()?;
    Ok(page::render(&runs))
}

#[cfg(test)]
mod browser_tests;
#[cfg(test)]
mod tests;
