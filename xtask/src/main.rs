//! The project's own commands: `cargo xtask VERB`.
//!
//! One file a verb. The crate knows no other crate of the workspace: it runs cargo and the binary
//! `peftml`, and reads run folders. Exit status: that of the command it ran, 1 where work of its own
//! failed, 2 for bad usage.

mod bench;
mod book;
mod ci;
mod compare;
mod copies;
mod data;
mod failure;
mod faults;
mod flags;
mod interop;
mod licences;
mod markdown;
mod mutants;
mod new_method;
mod pairs;
mod release_check;
mod removal;
mod report;
mod reproduce;
mod run;
mod scratch;
mod slurm;
mod studies;
mod test;
mod tidy;
mod verify;
mod walkthrough;
mod workspace;

use failure::Failure;
use flags::Verb;
use std::process::ExitCode;

/// Every verb, in the order of the help text.
const VERBS: &[&Verb] = &[
    &reproduce::VERB,
    &run::VERB,
    &verify::VERB,
    &report::VERB,
    &test::VERB,
    &bench::VERB,
    &data::VERB,
    &tidy::VERB,
    &faults::VERB,
    &mutants::VERB,
    &new_method::VERB,
    &removal::VERB,
    &slurm::VERB,
    &walkthrough::VERB,
    &interop::VERB,
    &licences::VERB,
    &book::VERB,
    &release_check::VERB,
    &ci::VERB,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("xtask: {message}");
            }
            ExitCode::from(failure.status())
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), Failure> {
    let Some((name, rest)) = arguments.split_first() else {
        return Err(Failure::Usage(format!("a command is needed; known: {}", known())));
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", overview());
        return Ok(());
    }
    let verb = VERBS
        .iter()
        .find(|verb| verb.name == name)
        .ok_or_else(|| Failure::Usage(format!("unknown command `{name}`; known: {}", known())))?;
    if rest.iter().take_while(|a| *a != "--").any(|a| a == "--help" || a == "-h") {
        print!("{}", verb.help());
        return Ok(());
    }
    (verb.run)(&verb.parse(rest)?)
}

fn known() -> String {
    VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>().join(", ")
}

fn overview() -> String {
    let mut text = String::from("Usage: cargo xtask COMMAND [OPTIONS]\n\n");
    for verb in VERBS {
        text += &format!("  {:<12} {}\n", verb.name, verb.summary);
    }
    text + "\n`cargo xtask COMMAND --help` lists the options of one.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(arguments: &[&str]) -> (u8, String) {
        let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
        let failure = dispatch(&arguments).expect_err("bad usage");
        (failure.status(), failure.message().expect("a sentence").to_string())
    }

    #[test]
    fn an_unknown_verb_or_flag_names_the_known_ones() {
        let (status, message) = fails(&["reprodcue"]);
        assert_eq!(status, 2);
        assert!(message.contains("`reprodcue`") && message.contains("reproduce, run"), "{message}");
        let (status, message) = fails(&["reproduce", "--sweet", "linear"]);
        assert_eq!(status, 2);
        assert!(message.contains("`--sweet`") && message.contains("--suite"), "{message}");
        assert_eq!(fails(&[]).0, 2);
    }

    #[test]
    fn no_verb_is_listed_twice() {
        for (i, verb) in VERBS.iter().enumerate() {
            assert!(VERBS[..i].iter().all(|other| other.name != verb.name), "{}", verb.name);
        }
    }
}
