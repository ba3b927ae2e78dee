//! `cargo xtask bench`: Criterion's benches, then the comparison with the peers.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;

/// The verb.
pub const VERB: Verb = Verb {
    name: "bench",
    summary: "Time the solvers, and compare with the peers.",
    operands: "",
    operand_count: 0..=0,
    flags: &[Flag { name: "--suite", value: Some("S"), help: "only this suite of benches" }],
    rest: Some("cargo bench"),
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let mut command = workspace::cargo()?;
    command.args(["bench", "--package", "peftml-benches"]);
    if let Some(suite) = parsed.value("--suite") {
        command.args(["--bench", suite]);
    }
    workspace::run(command.args(&parsed.rest))
}
