//! `cargo xtask run SUITE/STUDY[.PRESET]`: one study, by the release binary.

use crate::failure::Failure;
use crate::flags::{self, Flag, Parsed, Verb};
use crate::workspace;
use std::path::PathBuf;
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "run",
    summary: "Run one study.",
    operands: "SUITE/STUDY[.PRESET]",
    operand_count: 1..=1,
    flags: &[
        Flag {
            name: "--seeds",
            value: Some("A..B"),
            help: "seeds A to B-1 in place of the study's",
        },
        Flag { name: "--set", value: Some("PATH=VALUE"), help: "edit one leaf; may be repeated" },
        flags::OUT,
        flags::THREADS,
    ],
    rest: Some("peftml run"),
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    flags::check_threads(parsed)?;
    let study = &parsed.operands[0];
    let suite = study.split_once('/').map(|(suite, _)| suite).ok_or_else(|| {
        Failure::Usage(format!("`{study}` is no study: SUITE/STUDY is needed, as linear/sweep_n"))
    })?;
    let binary = workspace::build_peftml(Some(suite))?;
    workspace::run(
        study_command(&binary, study, parsed)?
            .args(parsed.forwarded(&["--seeds", "--set"]))
            .args(&parsed.rest),
    )
}

/// `peftml run STUDY` with the options that `run` and `reproduce` share.
///
/// # Errors
/// [`Failure::Work`] where the workspace is not found.
pub fn study_command(binary: &PathBuf, study: &str, parsed: &Parsed) -> Result<Command, Failure> {
    let mut command = Command::new(binary);
    command.current_dir(workspace::root()?).args(["run", study]);
    if let Some(out) = parsed.value(flags::OUT.name) {
        command.arg("--out").arg(workspace::absolute(out)?);
    }
    command.args(parsed.forwarded(&[flags::THREADS.name]));
    Ok(command)
}
