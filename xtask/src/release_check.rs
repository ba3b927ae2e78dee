//! `cargo xtask release-check`: that crates, program and wheel can be given away.
//!
//! Everything is built below `target/release-check`, in one folder, since the tensor library takes long;
//! the first time about half an hour on two cores. Needs the network (cargo's registry, and PyPI for the
//! wheel). Not part of continuous integration.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "release-check",
    summary: "Package, install and make a wheel, and try what comes out.",
    operands: "[STEP..]",
    operand_count: 0..=STEPS.len(),
    flags: &[Flag { name: "--list", value: None, help: "only list the steps" }],
    rest: None,
    run,
};

/// A step: its name, what it checks, and the check.
struct Step {
    name: &'static str,
    checks: &'static str,
    run: fn(&Place) -> Result<(), Failure>,
}

const STEPS: [Step; 6] = [
    Step { name: "versions", checks: "no dependency needs a newer compiler", run: versions },
    Step { name: "features", checks: "every library without its features", run: features },
    Step { name: "packages", checks: "packages of the small crates, verified", run: packages },
    Step {
        name: "networks",
        checks: "packages of the others, built as a user would",
        run: networks,
    },
    Step { name: "install", checks: "cargo install, and what it installs", run: install },
    Step { name: "wheel", checks: "pip install in a fresh environment", run: wheel },
];

/// Crates that cargo verifies as it packages them.
const SMALL: [&str; 4] = ["peftml-linalg", "peftml-theory", "peftml-solvers", "peftml-data"];
/// Crates that need the stand-in of `vendor/`, which a package cannot carry along.
const LARGE: [&str; 2] = ["peftml-peft", "peftml-experiments"];

/// Where things are.
struct Place {
    root: PathBuf,
    home: PathBuf,
}

impl Place {
    /// cargo, building into the shared folder.
    fn cargo(&self) -> Result<Command, Failure> {
        let mut command = workspace::cargo()?;
        command.env("CARGO_TARGET_DIR", self.build()).env_remove("CARGO_MANIFEST_DIR");
        Ok(command)
    }

    fn build(&self) -> PathBuf {
        self.home.join("build")
    }
}

fn run(parsed: &Parsed) -> Result<(), Failure> {
    if parsed.has("--list") {
        for step in &STEPS {
            println!("{:10} {}", step.name, step.checks);
        }
        return Ok(());
    }
    let chosen = chosen(&parsed.operands)?;
    let root = workspace::root()?;
    let home = root.join("target/release-check");
    std::fs::create_dir_all(&home).map_err(|error| trouble(&home, &error))?;
    let place = Place { root, home };
    for step in chosen {
        eprintln!("release-check: {}: {}", step.name, step.checks);
        (step.run)(&place)?;
        println!("{}: passed", step.name);
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Step>, Failure> {
    let known = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(Failure::Usage(format!("no step `{unknown}`; there are {}", known())));
    }
    let all = names.is_empty();
    Ok(STEPS.iter().filter(|step| all || names.iter().any(|name| name == step.name)).collect())
}

fn versions(place: &Place) -> Result<(), Failure> {
    let mut command = place.cargo()?;
    command.args(["metadata", "--locked", "--format-version", "1"]);
    let (text, outcome) = workspace::capture(&mut command)?;
    outcome?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Work(format!("cargo's metadata: {error}")))?;
    let toolchain = read(&place.root.join("rust-toolchain.toml"))?;
    let manifest = read(&place.root.join("Cargo.toml"))?;
    let found = newer(&metadata, &toolchain, &manifest);
    if found.is_empty() { Ok(()) } else { Err(Failure::Work(found.join("\n"))) }
}

/// What does not go with the version of the compiler that the workspace states.
fn newer(metadata: &Value, toolchain: &str, manifest: &str) -> Vec<String> {
    let stated = quoted(manifest, "rust-version");
    let used = quoted(toolchain, "channel");
    let mut found = Vec::new();
    if stated.is_empty() || version(&used)[..2] != version(&stated)[..2] {
        found.push(format!("rust-version is {stated:?}, the toolchain's channel {used:?}"));
    }
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let wanted = package["rust_version"].as_str().unwrap_or("0");
        if version(wanted) > version(&stated) {
            found.push(format!("{} needs Rust {wanted}, stated is {stated}", package["name"]));
        }
    }
    found
}

/// The text in quotes behind `key =` in a TOML file's line.
fn quoted(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    line.and_then(|line| line.split('"').nth(1)).unwrap_or_default().to_owned()
}

fn version(text: &str) -> [u64; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn features(place: &Place) -> Result<(), Failure> {
    for package in SMALL.iter().chain(&LARGE) {
        let mut command = place.cargo()?;
        command.args(["check", "--locked", "--no-default-features", "--package", package]);
        workspace::run(&mut command)?;
    }
    Ok(())
}

fn packages(place: &Place) -> Result<(), Failure> {
    let mut command = place.cargo()?;
    command.args(["package", "--allow-dirty"]);
    workspace::run(command.args(SMALL.iter().flat_map(|name| ["--package", name])))
}

fn networks(place: &Place) -> Result<(), Failure> {
    let mut command = place.cargo()?;
    command.args(["package", "--allow-dirty", "--no-verify"]);
    let names: Vec<&str> = SMALL.into_iter().chain(LARGE).collect();
    workspace::run(command.args(names.iter().flat_map(|name| ["--package", name])))?;
    let tree = place.home.join("unpacked");
    if tree.exists() {
        std::fs::remove_dir_all(&tree).map_err(|error| trouble(&tree, &error))?;
    }
    std::fs::create_dir_all(&tree).map_err(|error| trouble(&tree, &error))?;
    let version = env!("CARGO_PKG_VERSION");
    for name in &names {
        let archive = place.build().join(format!("package/{name}-{version}.crate"));
        let mut tar = Command::new("tar");
        workspace::run(tar.arg("xzf").arg(&archive).arg("-C").arg(&tree))?;
    }
    write(&tree.join("Cargo.toml"), &unpacked_manifest(&names, version, &place.root))?;
    write(&tree.join("Cargo.lock"), &read(&place.root.join("Cargo.lock"))?)?;
    let mut command = place.cargo()?;
    command.current_dir(&tree).args(["build", "--release", "--bin", "peftml"]);
    workspace::run(&mut command)?;
    workspace::run(Command::new(place.build().join("release/peftml")).arg("--version"))
}

/// A workspace of the unpacked packages that take each other, and the stand-in, by path.
fn unpacked_manifest(names: &[&str], version: &str, root: &Path) -> String {
    let member = |name: &&str| format!("\"{name}-{version}\"");
    let members: Vec<String> = names.iter().map(member).collect();
    let patch = |name: &&str| format!("{name} = {{ path = \"{name}-{version}\" }}\n");
    let patches: String = names.iter().map(patch).collect();
    let stand_in = root.join("vendor/cubecl-llvm").display().to_string();
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[profile.release]\ncodegen-units = 4\n\n\
         [patch.crates-io]\n{patches}cubecl-llvm = {{ path = {stand_in:?} }}\n",
        members.join(", ")
    )
}

fn install(place: &Place) -> Result<(), Failure> {
    let installed = place.home.join("installed");
    let mut command = place.cargo()?;
    command.args(["install", "--locked", "--force", "--bin", "peftml", "--path"]);
    workspace::run(command.arg(place.root.join("experiments")).arg("--root").arg(&installed))?;
    try_out(&installed.join("bin/peftml"), &place.home)
}

/// Uses an installed program where there is nothing of this tree around it.
fn try_out(program: &Path, home: &Path) -> Result<(), Failure> {
    let elsewhere = home.join("elsewhere");
    if elsewhere.exists() {
        std::fs::remove_dir_all(&elsewhere).map_err(|error| trouble(&elsewhere, &error))?;
    }
    std::fs::create_dir_all(&elsewhere).map_err(|error| trouble(&elsewhere, &error))?;
    for (arguments, expected) in [
        (&["--version"][..], "peftml "),
        (&["methods"], "lora: "),
        (&["completions", "bash"], "complete -F _peftml"),
        (&["man", "man1"], "man1"),
        (&["run", "linear/sweep_d.quick", "--seeds", "0..1", "--out", "results"], "results"),
    ] {
        let mut command = Command::new(program);
        let (text, outcome) = workspace::capture(command.args(arguments).current_dir(&elsewhere))?;
        outcome?;
        if !text.contains(expected) {
            let call = arguments.join(" ");
            return Err(Failure::Work(format!("`peftml {call}` does not print `{expected}`")));
        }
    }
    if elsewhere.join("man1/peftml-solve.1").is_file() {
        Ok(())
    } else {
        Err(Failure::Work("`peftml man` writes no peftml-solve.1".into()))
    }
}

fn wheel(place: &Place) -> Result<(), Failure> {
    let environment = place.home.join("python");
    if environment.exists() {
        std::fs::remove_dir_all(&environment).map_err(|error| trouble(&environment, &error))?;
    }
    let base = std::env::var_os("PEFTML_PYTHON").unwrap_or_else(|| "python3".into());
    workspace::run(Command::new(base).args(["-m", "venv"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "pandas"]).arg(&place.root);
    workspace::run(pip.env("CARGO_TARGET_DIR", place.build()))?;
    try_out(&environment.join("bin/peftml"), &place.home)?;
    let found = format!(
        "import glob, pandas; print(len(pandas.read_csv(glob.glob({:?})[0])))",
        place.home.join("elsewhere/results/linear/*/trials.csv").display().to_string()
    );
    workspace::run(Command::new(environment.join("bin/python")).args(["-c", &found]))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| trouble(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| trouble(path, &error))
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Work(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_dependency_that_needs_a_newer_compiler_is_named() {
        let manifest = "[workspace.package]\nrust-version = \"1.95\"\n";
        let metadata = |wanted: &str| {
            json!({"packages": [{"name": "old", "rust_version": null},
                                {"name": "new", "rust_version": wanted}]})
        };
        let toolchain = "[toolchain]\nchannel = \"1.95.0\"\n";
        assert!(newer(&metadata("1.95"), toolchain, manifest).is_empty());
        let found = newer(&metadata("1.95.1"), toolchain, manifest);
        assert!(found.len() == 1 && found[0].contains("new"), "{found:?}");
        let other = "[toolchain]\nchannel = \"1.96.0\"\n";
        assert_eq!(newer(&metadata("1.9"), other, manifest).len(), 1);
        assert_eq!(newer(&metadata("1.9"), toolchain, "").len(), 2);
    }

    #[test]
    fn steps_are_chosen_by_name_and_others_refused() {
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
        assert_eq!(chosen(&["wheel".into()]).unwrap()[0].name, "wheel");
        assert!(matches!(chosen(&["well".into()]), Err(Failure::Usage(_))));
    }
}
