//! `cargo xtask removal`: that a method is one file and one line, on copies of the tree.
//!
//! Of each method named (the first, the middle and the last of the registry where none is) file and line
//! are removed, and the rest is checked with all its tests; with `--test` the tests of `peft` are run. Then
//! `new-method` makes a method, and with `--test` the contract suite is run on it. Copies share this
//! workspace's build folder, so that dependencies are not built again.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::scratch::Scratch;
use crate::{copies, new_method, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "removal",
    summary: "Check that methods can be removed and added by one file and one line.",
    operands: "[METHOD..]",
    operand_count: 0..=64,
    flags: &[Flag { name: "--test", value: None, help: "run tests and do not only compile them" }],
    rest: None,
    run,
};

const REGISTRY: &str = "peft/src/methods/mod.rs";
/// A name that no method has.
const NEW: &str = "one-more";

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    let registry = read(&root.join(REGISTRY))?;
    let known = modules(&registry);
    let chosen: Vec<String> = match parsed.operands.is_empty() {
        false => parsed.operands.iter().map(|name| name.replace('-', "_")).collect(),
        true => chosen(&known),
    };
    let files = copies::tracked(&root)?;
    for module in &chosen {
        if !known.contains(module) {
            let known = known.join(", ");
            return Err(Failure::Usage(format!("there is no method `{module}`; known: {known}")));
        }
        eprintln!("without {module}");
        let copy = Copy::new(&root, &files)?;
        copy.remove(module, &registry)?;
        copy.cargo(&root, parsed.has("--test"), &[])?;
    }
    eprintln!("with {NEW}");
    let copy = Copy::new(&root, &files)?;
    new_method::create(copy.path(), NEW)?;
    copy.cargo(&root, parsed.has("--test"), &["--test", "contract"])
}

/// First, middle and last.
fn chosen(known: &[String]) -> Vec<String> {
    let mut chosen: Vec<String> = [0, known.len() / 2, known.len().saturating_sub(1)]
        .iter()
        .filter_map(|&at| known.get(at))
        .cloned()
        .collect();
    chosen.dedup();
    chosen
}

/// The modules in the registry's list.
fn modules(registry: &str) -> Vec<String> {
    let list = registry.split_once("methods! {\n").and_then(|(_, rest)| rest.split_once("}\n"));
    let lines = list.map_or("", |(list, _)| list).lines();
    lines.map(|line| line.trim().trim_end_matches(',').to_owned()).collect()
}

/// A copy of the tree.
struct Copy(Scratch);

impl Copy {
    fn new(root: &Path, files: &[PathBuf]) -> Result<Self, Failure> {
        let scratch = Scratch::new(&std::env::temp_dir())?;
        copies::copy(root, files, scratch.path())?;
        Ok(Self(scratch))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remove(&self, module: &str, registry: &str) -> Result<(), Failure> {
        let file = self.path().join(format!("peft/src/methods/{module}.rs"));
        std::fs::remove_file(&file).map_err(|error| trouble(&file, &error))?;
        let list = self.path().join(REGISTRY);
        let without = registry.replacen(&format!("    {module},\n"), "", 1);
        std::fs::write(&list, without).map_err(|error| trouble(&list, &error))
    }

    /// Checks or runs the tests of what knows methods.
    fn cargo(&self, root: &Path, runs: bool, tests: &[&str]) -> Result<(), Failure> {
        let mut command: Command = workspace::cargo()?;
        command.current_dir(self.path()).env_remove("CARGO_MANIFEST_DIR");
        command.arg(if runs { "test" } else { "check" });
        command.args(["--quiet", "--package", "peftml-peft"]);
        match (runs, tests.is_empty()) {
            (true, _) => command.args(tests),
            (false, _) => command
                .args(["--package", "peftml-experiments", "--features", workspace::CHECKED])
                .arg("--tests"),
        };
        workspace::without_cuda(&mut command);
        if std::env::var_os("CARGO_TARGET_DIR").is_none() {
            command.env("CARGO_TARGET_DIR", root.join("target"));
        }
        workspace::run(&mut command)
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| trouble(path, &error))
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Work(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_methods_of_the_registry_are_chosen_and_their_files_are_there() {
        let root = workspace::root().unwrap();
        let known = modules(&read(&root.join(REGISTRY)).unwrap());
        assert!(known.len() >= 15, "{known:?}");
        for module in &known {
            assert!(root.join(format!("peft/src/methods/{module}.rs")).is_file(), "{module}");
        }
        let chosen = chosen(&known);
        assert_eq!(chosen.len(), 3);
        assert_eq!((&chosen[0], &chosen[2]), (&known[0], &known[known.len() - 1]));
    }

    #[test]
    fn a_copy_without_a_method_has_neither_file_nor_line() {
        let root = workspace::root().unwrap();
        let registry = read(&root.join(REGISTRY)).unwrap();
        let module = modules(&registry).remove(0);
        let file = PathBuf::from(format!("peft/src/methods/{module}.rs"));
        let copy = Copy::new(&root, &[file.clone(), REGISTRY.into()]).unwrap();
        copy.remove(&module, &registry).unwrap();
        assert!(!copy.path().join(file).exists());
        let after = read(&copy.path().join(REGISTRY)).unwrap();
        assert_eq!(modules(&after).len() + 1, modules(&registry).len());
        assert!(!modules(&after).contains(&module));
    }
}
