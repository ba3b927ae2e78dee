//! `cargo xtask mutants`: every planted fault must turn a verdict.

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use crate::workspace;

/// The verb.
pub const VERB: Verb = Verb {
    name: "mutants",
    summary: "Plant errors in objectives and bounds: each must turn a claim's verdict.",
    operands: "",
    operand_count: 0..=0,
    flags: &[],
    rest: None,
    run,
};

fn run(_: &Parsed) -> Result<(), Failure> {
    let mut command = workspace::cargo()?;
    command.args([
        "test",
        "--release",
        "-p",
        "peftml-experiments",
        "--no-default-features",
        "--test",
        "mutants",
        "--",
        "all",
    ]);
    workspace::run(&mut command)
}
