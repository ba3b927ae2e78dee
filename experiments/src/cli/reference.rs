//! `peftml reference`, `peftml completions`, `peftml man`: the program's account of itself.

use super::{Cli, Common, Failure, print_line};
use crate::reference;
use crate::runs::write_atomically;
use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;
use std::fmt::Write;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Print the reference of commands or of configurations, as Markdown
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    page: Page,
}

#[derive(Subcommand)]
enum Page {
    /// Every command with its options
    Commands,
    /// Every leaf of every suite's configurations
    Configuration,
}

/// Print the completions of a shell
#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write a manual page for every command
#[derive(Args)]
pub struct ManArguments {
    /// Folder that the pages are written to
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let page = match arguments.page {
        Page::Commands => commands(),
        Page::Configuration => reference::configuration()?,
    };
    print_line(page.trim_end())
}

pub fn completions(arguments: &CompletionsArguments, _: &Common) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "peftml", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())
}

pub fn man(arguments: &ManArguments, _: &Common) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let trouble = |path: &Path, error: std::io::Error| {
        Failure::refused(format_args!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| trouble(folder, error))?;
    for (name, command) in all() {
        let path = folder.join(format!("{}.1", name.replace(' ', "-")));
        let mut page = Cursor::new(Vec::new());
        clap_mangen::Man::new(command).render(&mut page).map_err(|error| trouble(&path, error))?;
        write_atomically(&path, &page.into_inner())?;
    }
    print_line(&folder.display().to_string())
}

/// The program and its subcommands at every depth, each named by the words that call it.
fn all() -> Vec<(String, clap::Command)> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut found = Vec::new();
    let mut waiting = vec![(String::from("peftml"), program)];
    while let Some((name, command)) = waiting.pop() {
        let inner: Vec<_> = command.get_subcommands().cloned().collect();
        for sub in inner.into_iter().rev() {
            waiting.push((format!("{name} {}", sub.get_name()), sub));
        }
        let page = command.bin_name(&name).display_name(name.replace(' ', "-"));
        found.push((name, page));
    }
    found
}

/// Every command's help.
fn commands() -> String {
    let mut text = String::from(
        "# Commands\n\nWhat each command says of itself with `--help`. This page is what `peftml \
         reference commands` prints.\n",
    );
    for (name, mut command) in all() {
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_commands_is_what_the_program_prints() {
        let page = include_str!("../../../docs/commands.md");
        assert!(
            page == commands(),
            "docs/commands.md differs: peftml reference commands > docs/commands.md"
        );
    }

    #[test]
    fn every_command_has_a_manual_page_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("man1");
        let common = Common { seed: 0, threads: None, json: false };
        man(&ManArguments { folder: target.clone() }, &common).unwrap();
        let page = std::fs::read_to_string(target.join("peftml-adapters-import.1")).unwrap();
        assert!(page.contains(".TH peftml-adapters-import") || page.contains("adapters import"));
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), all().len());
    }
}
