//! The `peftml` command: one module a subcommand.
//!
//! Results go to standard output (one JSON object a line, nothing else), progress and errors to
//! standard error. Exit status 0; 1 where the work failed (a solver's refusal); 2 for bad usage or
//! malformed input, with one sentence.

mod adapt;
mod adapters;
mod bench;
mod check;
mod evaluate;
mod export;
mod failure;
mod fine_tune;
mod generate;
mod merge;
mod methods;
mod networks;
mod output;
mod pool;
mod reference;
mod report;
mod run;
mod shard;
mod slurm;
mod solve;
mod solvers;
mod standard;
mod status;
mod study;
mod tokenize;
mod verify;

pub use failure::Failure;
pub use output::{print_json, print_line};

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// Meta-learning that plans for low-rank fine-tuning: linear problems, solvers and studies.
#[derive(Parser)]
#[command(name = "peftml", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Number of the random streams' root
    #[arg(long, global = true, default_value_t = 0, value_name = "NUMBER")]
    pub seed: u64,
    /// Worker threads, where a command uses any; results do not depend on them
    #[arg(long, global = true, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
    /// JSON lines on standard output, also where a table is the default
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Draw a problem with a known ground truth
    Generate(generate::Arguments),
    /// Find the base that meta-learning with adapters finds
    Solve(solve::Arguments),
    /// Tell what a point is, prove it, or prove a stored certificate
    Check(check::Arguments),
    /// Find the base of standard retraining and what it leaves to adapt
    Standard(standard::Arguments),
    /// Fit a low-rank adapter to one task, the base frozen
    FineTune(fine_tune::Arguments),
    /// Compare solvers, ours and the packages that people would otherwise use
    Bench(bench::Arguments),
    /// List the methods of `solve`
    Solvers(solvers::Arguments),
    /// List the parameter-efficient methods, with the parameters that they train on a network
    Methods(methods::Arguments),
    /// Turn lines of text into numbers of tokens with a model's tokenizer
    Tokenize(tokenize::Arguments),
    /// Run an encoder, with or without an adapter, on sequences of tokens
    Evaluate(evaluate::Arguments),
    /// Take adapters from and to Hugging Face's format, merge them, look into them
    Adapters(adapters::Arguments),
    Adapt(adapt::Arguments),
    Run(run::Arguments),
    Shard(shard::Arguments),
    Merge(merge::Arguments),
    Status(status::Arguments),
    Report(report::Arguments),
    Export(export::Arguments),
    /// Verify the theory's claims
    Verify(verify::Arguments),
    Reference(reference::Arguments),
    Completions(reference::CompletionsArguments),
    Man(reference::ManArguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs `arguments` (the first one is the program's name).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let result = match cli.command {
        Command::Generate(arguments) => generate::run(&arguments, &cli.common),
        Command::Solve(arguments) => solve::run(&arguments, &cli.common),
        Command::FineTune(arguments) => fine_tune::run(&arguments, &cli.common),
        Command::Bench(arguments) => bench::run(&arguments, &cli.common),
        Command::Solvers(arguments) => solvers::run(&arguments, &cli.common),
        Command::Methods(arguments) => methods::run(&arguments, &cli.common),
        Command::Tokenize(arguments) => tokenize::run(&arguments, &cli.common),
        Command::Evaluate(arguments) => evaluate::run(&arguments, &cli.common),
        Command::Adapters(arguments) => adapters::run(&arguments, &cli.common),
        Command::Adapt(arguments) => adapt::run(&arguments, &cli.common),
        Command::Check(arguments) => check::run(&arguments, &cli.common),
        Command::Standard(arguments) => standard::run(&arguments, &cli.common),
        Command::Run(arguments) => self::run::run(&arguments, &cli.common),
        Command::Shard(arguments) => shard::run(&arguments, &cli.common),
        Command::Merge(arguments) => merge::run(&arguments, &cli.common),
        Command::Status(arguments) => status::run(&arguments, &cli.common),
        Command::Report(arguments) => report::run(&arguments, &cli.common),
        Command::Export(arguments) => export::run(&arguments, &cli.common),
        Command::Verify(arguments) => verify::run(&arguments, &cli.common),
        Command::Reference(arguments) => self::reference::run(&arguments, &cli.common),
        Command::Completions(arguments) => self::reference::completions(&arguments, &cli.common),
        Command::Man(arguments) => self::reference::man(&arguments, &cli.common),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_subcommand_is_well_defined() {
        Cli::command().debug_assert();
    }
}
