//! `cargo xtask ci`: what continuous integration runs, here.

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use crate::workspace;
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "ci",
    summary: "Run everything that continuous integration runs.",
    operands: "",
    operand_count: 0..=0,
    flags: &[],
    rest: None,
    run,
};

fn run(_: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    workspace::run(Command::new(root.join(".ci/run")).current_dir(root))
}
