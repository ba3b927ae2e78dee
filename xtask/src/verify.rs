//! `cargo xtask verify`: the theory's claims, by the release binary.

use crate::failure::Failure;
use crate::flags::{self, Flag, Parsed, Verb};
use crate::workspace;
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "verify",
    summary: "Verify the theory's claims.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--scale", value: Some("SCALE"), help: "quick (default) or full" },
        Flag { name: "--claim", value: Some("ID"), help: "only this claim; may be repeated" },
        Flag { name: "--out", value: Some("DIR"), help: "folder for verdicts and certificates" },
        flags::THREADS,
    ],
    rest: Some("peftml verify"),
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    flags::check_threads(parsed)?;
    let scale = parsed.value("--scale").unwrap_or("quick");
    if !["quick", "full"].contains(&scale) {
        return Err(Failure::Usage(format!("unknown scale `{scale}`; known: quick, full")));
    }
    let mut command = Command::new(workspace::build_peftml(None)?);
    command.current_dir(workspace::root()?).args(["verify", "--scale", scale]);
    if let Some(out) = parsed.value("--out") {
        command.arg("--out").arg(workspace::absolute(out)?);
    }
    workspace::run(
        command.args(parsed.forwarded(&["--claim", flags::THREADS.name])).args(&parsed.rest),
    )
}
