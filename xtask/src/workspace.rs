//! Where the workspace is, and how its commands are run.

use crate::failure::Failure;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The workspace's root: the nearest folder upwards that holds a manifest with `[workspace]`, from
/// the manifest that cargo runs us for, else from the current folder.
///
/// # Errors
/// [`Failure::Work`] where there is none.
pub fn root() -> Result<PathBuf, Failure> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => current_folder()?,
    };
    let found = start.ancestors().find(|folder| {
        std::fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    });
    found
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::Work(format!("no workspace at or above {}", start.display())))
}

fn current_folder() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::Work(format!("the current folder: {error}")))
}

/// `path` as the user meant it, relative to the folder of the command line; commands run in the root.
///
/// # Errors
/// [`Failure::Work`] where the current folder cannot be read.
pub fn absolute(path: &str) -> Result<PathBuf, Failure> {
    Ok(current_folder()?.join(path))
}

/// cargo, in the workspace's root.
///
/// # Errors
/// As [`root`].
pub fn cargo() -> Result<Command, Failure> {
    // Cargo tells which of its installations runs us; the same one must build.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root()?);
    Ok(command)
}

/// Runs `command`; its exit status is handed on.
///
/// # Errors
/// [`Failure::Child`] where it fails, [`Failure::Work`] where it does not start.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    handed_on(status)
}

/// Runs `command` and returns its standard output beside its outcome; standard error passes through.
///
/// # Errors
/// [`Failure::Work`] where it does not start.
pub fn capture(command: &mut Command) -> Result<(String, Result<(), Failure>), Failure> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| cannot_start(command, &error))?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), handed_on(output.status)))
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::Work(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}

/// The outcome that an exit status stands for.
pub fn handed_on(status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        // As shells report it.
        return Err(Failure::Child(128u8.saturating_add(signal as u8)));
    }
    Err(Failure::Child(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The feature that pulls in networks, for commands that run over the whole workspace.
pub const NETWORKS: &str = "peftml-experiments/networks";

/// Features of what is checked and not run, all of them, so that one check of the dependencies serves all.
pub const CHECKED: &str = "peftml-experiments/networks,peftml-peft/cuda";

/// Says to `command` which CUDA to assume where there is none: checking needs its interface alone.
pub fn without_cuda(command: &mut Command) -> &mut Command {
    if std::env::var_os("CUDARC_CUDA_VERSION").is_none() {
        command.env("CUDARC_CUDA_VERSION", "13000");
    }
    command
}

/// Suites that need the feature `networks`, which takes many minutes more to build.
const NETWORK_SUITES: [&str; 2] = ["vision", "language"];

/// Builds the release binary `peftml`, with networks where `suite` needs them, and returns its path.
///
/// # Errors
/// As cargo fails.
pub fn build_peftml(suite: Option<&str>) -> Result<PathBuf, Failure> {
    let mut command = cargo()?;
    command.args(["build", "--release", "--package", "peftml-experiments", "--bin", "peftml"]);
    command.arg("--message-format=json-render-diagnostics");
    if !suite.is_some_and(|suite| NETWORK_SUITES.contains(&suite)) {
        command.arg("--no-default-features");
    }
    let (output, outcome) = capture(&mut command)?;
    outcome?;
    executable(&output, "peftml")
        .ok_or_else(|| Failure::Work("cargo built no binary `peftml`".into()))
}

/// Builds the binary `name` with networks as the tests of all crates do, and returns its path.
///
/// # Errors
/// As cargo fails.
pub fn build_debug(name: &str) -> Result<PathBuf, Failure> {
    let mut command = cargo()?;
    command.args(["build", "--workspace", "--features", NETWORKS, "--bin", name]);
    let (output, outcome) = capture(command.arg("--message-format=json-render-diagnostics"))?;
    outcome?;
    executable(&output, name)
        .ok_or_else(|| Failure::Work(format!("cargo built no binary `{name}`")))
}

/// The path of the binary `name` in cargo's messages. Cargo knows best where its target folder is:
/// CARGO_TARGET_DIR and every configuration file have had their say.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"peftml_linalg"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"peftml"},"executable":"/a/target/release/peftml"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "peftml"), Some("/a/target/release/peftml".into()));
        assert_eq!(executable(messages, "other"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_childs_exit_status_is_handed_on() {
        for (script, expected) in [("exit 3", 3), ("kill -9 $$", 128 + 9)] {
            let outcome = run(Command::new("sh").args(["-c", script]));
            assert_eq!(outcome, Err(Failure::Child(expected)));
        }
        assert_eq!(run(&mut Command::new("true")), Ok(()));
        assert!(matches!(run(&mut Command::new("no-such-program")), Err(Failure::Work(_))));
    }

    #[test]
    fn the_root_holds_this_crate() {
        assert!(root().unwrap().join("xtask/src/workspace.rs").is_file());
    }
}
