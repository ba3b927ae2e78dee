//! `cargo xtask test`: the tests.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;

/// The verb.
pub const VERB: Verb = Verb {
    name: "test",
    summary: "Run the tests of the default members.",
    operands: "",
    operand_count: 0..=0,
    flags: &[Flag {
        name: "--all",
        value: None,
        help: "every crate, also those outside the default members, and networks",
    }],
    rest: Some("cargo test"),
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let mut command = workspace::cargo()?;
    command.arg("test");
    if parsed.has("--all") {
        command.args(["--workspace", "--features", workspace::NETWORKS]);
    } else {
        command.arg("--no-default-features");
    }
    workspace::run(command.args(&parsed.rest))
}
