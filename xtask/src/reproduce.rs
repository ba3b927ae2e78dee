//! `cargo xtask reproduce`: all studies of a suite, then one page.
//!
//! Without `--suite`: the linear suite and the claims at quick scale. A study with failed trials, or a
//! claim that fails, does not keep the rest from being made; the exit status tells in the end.

use crate::failure::Failure;
use crate::flags::{self, Flag, Parsed, Verb};
use crate::{report, run, studies, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "reproduce",
    summary: "Run all studies of a suite and write the report.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--suite", value: Some("S"), help: "suite (default: linear, and the claims)" },
        Flag { name: "--preset", value: Some("P"), help: "paper (default), authors or quick" },
        flags::OUT,
        flags::THREADS,
    ],
    rest: None,
    run: reproduce,
};

fn reproduce(parsed: &Parsed) -> Result<(), Failure> {
    flags::check_threads(parsed)?;
    let root = workspace::root()?;
    let suite = parsed.value("--suite").unwrap_or("linear");
    let preset = parsed.value("--preset").unwrap_or("paper");
    let names = studies::with_preset(&root, suite, preset)?;
    let out = match parsed.value(flags::OUT.name) {
        Some(folder) => workspace::absolute(folder)?,
        None => root.join("results"),
    };
    let binary = workspace::build_peftml(Some(suite))?;
    let mut folders = Vec::new();
    let mut first_failure = Ok(());
    for name in &names {
        eprintln!("{name}");
        let (output, outcome) =
            workspace::capture(&mut run::study_command(&binary, name, parsed)?)?;
        keep_first(&mut first_failure, outcome)?;
        folders.extend(run_folder(&output, &root));
    }
    if parsed.value("--suite").is_none() {
        let folder = out.join("theory/verify-quick");
        // Whatever becomes of the claims, the studies are there to be read.
        first_failure = first_failure.and(verify(&binary, &folder, parsed));
        folders.extend(folder.exists().then_some(folder));
    }
    report::write(&binary, &folders, &out.join(suite).join("report.html"))?;
    first_failure
}

/// Remembers that work failed (status 1), which does not end the others; anything else ends them.
fn keep_first(
    first: &mut Result<(), Failure>,
    outcome: Result<(), Failure>,
) -> Result<(), Failure> {
    match outcome {
        Err(Failure::Child(1)) => {
            if first.is_ok() {
                *first = Err(Failure::Child(1));
            }
            Ok(())
        }
        other => other,
    }
}

/// The run folder that `peftml run` names in the last line of its standard output.
fn run_folder(output: &str, root: &Path) -> Option<PathBuf> {
    output.lines().rfind(|line| !line.trim().is_empty()).map(|line| root.join(line.trim()))
}

fn verify(binary: &Path, folder: &Path, parsed: &Parsed) -> Result<(), Failure> {
    let mut command = Command::new(binary);
    command.args(["verify", "--scale", "quick", "--out"]).arg(folder);
    command.args(parsed.forwarded(&[flags::THREADS.name]));
    workspace::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_work_is_remembered_and_everything_else_ends_the_rest() {
        let mut first = Ok(());
        assert_eq!(keep_first(&mut first, Ok(())), Ok(()));
        assert_eq!(first, Ok(()));
        assert_eq!(keep_first(&mut first, Err(Failure::Child(1))), Ok(()));
        assert_eq!(first, Err(Failure::Child(1)));
        assert_eq!(keep_first(&mut first, Err(Failure::Child(2))), Err(Failure::Child(2)));
    }

    #[test]
    fn the_run_folder_is_the_last_line() {
        let root = Path::new("root");
        let folder = run_folder("answer\nresults/linear/a-1\n\n", root);
        assert_eq!(folder, Some(root.join("results/linear/a-1")));
        assert_eq!(run_folder("", root), None);
    }
}
