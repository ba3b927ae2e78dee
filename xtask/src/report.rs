//! `cargo xtask report DIR..`: one page over run folders.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "report",
    summary: "Write one page over run folders.",
    operands: "DIR..",
    operand_count: 1..=usize::MAX,
    flags: &[Flag {
        name: "--out",
        value: Some("FILE"),
        help: "the page (default: report.html in the first folder)",
    }],
    rest: None,
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let folders = parsed
        .operands
        .iter()
        .map(|folder| workspace::absolute(folder))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    let page = match parsed.value("--out") {
        Some(file) => workspace::absolute(file)?,
        None => folders[0].join("report.html"),
    };
    write(&workspace::build_peftml(None)?, &folders, &page)
}

/// Writes the page over `folders` and prints its path.
///
/// # Errors
/// As `peftml report` fails.
pub fn write(binary: &Path, folders: &[PathBuf], page: &Path) -> Result<(), Failure> {
    let mut command = Command::new(binary);
    command.arg("report").args(folders).arg("--out").arg(page);
    let (_, outcome) = workspace::capture(&mut command)?;
    outcome?;
    println!("{}", page.display());
    Ok(())
}
