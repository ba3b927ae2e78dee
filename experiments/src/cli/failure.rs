//! From errors to exit statuses.

use peftml_data::DataError;
use peftml_solvers::SolveError;
use peftml_theory::linear::LinearError;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command ends without a result: an exit status and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: u8,
    sentence: String,
}

impl Failure {
    /// Bad usage or malformed input: exit status 2.
    pub fn input(sentence: impl Display) -> Self {
        Self { status: 2, sentence: one_line(&sentence.to_string()) }
    }

    /// The work failed, for instance a solver's refusal: exit status 1.
    pub fn refused(sentence: impl Display) -> Self {
        Self { status: 1, sentence: one_line(&sentence.to_string()) }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The sentence on standard error; the exit status as code.
    pub(super) fn report(&self) -> ExitCode {
        // Nothing is left to be done where standard error is closed.
        let _ = writeln!(io::stderr(), "peftml: {}", self.sentence);
        ExitCode::from(self.status)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Failure::input(error)
    }
}

impl From<LinearError> for Failure {
    fn from(error: LinearError) -> Self {
        match &error {
            // Well-formed tasks that do not determine an answer.
            LinearError::PooledInputsSingular { .. } | LinearError::Decomposition { .. } => {
                Failure::refused(error)
            }
            _ => Failure::input(error),
        }
    }
}

impl From<SolveError> for Failure {
    fn from(error: SolveError) -> Self {
        match error {
            SolveError::Linear(error) => error.into(),
            error @ (SolveError::Start { .. }
            | SolveError::StartMissing { .. }
            | SolveError::Setting { .. }
            | SolveError::SettingText { .. }
            | SolveError::UnknownSetting { .. }) => Failure::input(error),
            error => Failure::refused(error),
        }
    }
}

/// What clap has to say: help and version on standard output with status 0, an error as one
/// sentence with status 2.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = write!(io::stdout(), "{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let complaint = text.split("\n\n").next().unwrap_or(&text);
    let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
    // Where only a command is missing, clap prints the whole help.
    let complaint = match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
        _ => complaint,
    };
    Failure::input(format_args!("{}; --help shows what is possible", one_line(complaint))).report()
}

/// Line breaks and other control characters become single spaces.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c == ' ')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_malformed_input_have_their_own_status() {
        let refusal = SolveError::OutsideConditions { dimension: 2, rank: 1, tasks: 3 };
        assert_eq!(Failure::from(refusal).status(), 1);
        let rank = SolveError::Linear(LinearError::Rank { rank: 9, dimension: 3 });
        assert_eq!(Failure::from(rank).status(), 2);
        let undetermined = LinearError::PooledInputsSingular { dimension: 3, condition: 1e20 };
        assert_eq!(Failure::from(undetermined).status(), 1);
        assert_eq!(Failure::from(LinearError::NoTasks { least: 1 }).status(), 2);
    }

    #[test]
    fn a_sentence_is_one_line() {
        assert_eq!(Failure::input("a\n  b\u{1b}[31m c").sentence, "a b [31m c");
    }
}
