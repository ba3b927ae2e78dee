//! `cargo xtask interop`: models and adapters exchanged with transformers and peft.
//!
//! The versions are pinned in `interop/requirements.txt`. The environment is made once, in `target/interop/`, and made
//! again where the pins change; or one is named that has the packages.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::scratch::Scratch;
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The verb.
pub const VERB: Verb = Verb {
    name: "interop",
    summary: "Exchange models and adapters with transformers and peft.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--python", value: Some("FILE"), help: "a Python that has the packages" },
        Flag { name: "--binary", value: Some("FILE"), help: "a binary peftml with networks" },
        Flag {
            name: "--minutes",
            value: Some("N"),
            help: "time to make the environment in; without one then, say so and succeed",
        },
    ],
    rest: None,
    run,
};

const REQUIREMENTS: &str = include_str!("../interop/requirements.txt");
const SCRIPT: &str = include_str!("../interop/interop.py");
/// Written last: an environment without it is not whole.
const WHOLE: &str = "requirements.txt";

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let minutes = parsed.value("--minutes").map(|text| {
        let number = text.parse::<f64>().ok().filter(|minutes| minutes.is_finite());
        number.filter(|minutes| *minutes > 0.0).ok_or_else(|| {
            Failure::Usage(format!("--minutes takes a positive number, not `{text}`"))
        })
    });
    let minutes = minutes.transpose()?;
    let python = match parsed.value("--python") {
        Some(path) => workspace::absolute(path)?,
        None => match environment(minutes) {
            Ok(python) => python,
            Err(reason) if minutes.is_some() => {
                eprintln!("interop: skipped: {reason}");
                return Ok(());
            }
            Err(reason) => return Err(Failure::Work(reason)),
        },
    };
    let binary = match parsed.value("--binary") {
        Some(path) => workspace::absolute(path)?,
        None => workspace::build_debug("peftml")?,
    };
    let scratch = Scratch::new(&std::env::temp_dir())?;
    let script = scratch.path().join("interop.py");
    write(&script, SCRIPT)?;
    let mut command = Command::new(python);
    workspace::run(command.arg(script).arg(binary).arg(scratch.path()))
}

/// The environment's Python; why there is none otherwise.
fn environment(minutes: Option<f64>) -> Result<PathBuf, String> {
    let root = workspace::root().map_err(|f| f.message().unwrap_or_default().to_owned())?;
    let folder = root.join("target/interop");
    let python = folder.join("bin/python");
    let pinned = std::fs::read_to_string(folder.join(WHOLE)).is_ok_and(|text| text == REQUIREMENTS);
    if pinned && python.is_file() {
        return Ok(python);
    }
    let deadline = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let list = folder.join("wanted.txt");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write(&list, REQUIREMENTS).map_err(|f| f.message().unwrap_or_default().to_owned())?;
    eprintln!("interop: making the Python environment in {}", folder.display());
    let make = |command: &mut Command| timed(command, deadline);
    make(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--requirement"];
    make(Command::new(&python).args(install).arg(&list))?;
    std::fs::rename(&list, folder.join(WHOLE)).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs `command` to its end, or to the deadline.
fn timed(command: &mut Command, deadline: Option<Instant>) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot = |error: std::io::Error| format!("{name} does not start: {error}");
    let mut child = command.stdin(Stdio::null()).spawn().map_err(cannot)?;
    loop {
        match child.try_wait() {
            Err(error) => return Err(format!("{name}: {error}")),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{name} could not make it: {status}")),
            Ok(None) if deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                // Both may fail only because it has ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err("the environment was not made in time".into());
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_ended_at_its_deadline_and_its_failure_is_told() {
        let soon = Some(Instant::now() + Duration::from_millis(1));
        let error = timed(Command::new("sleep").arg("60"), soon).unwrap_err();
        assert!(error.contains("in time"), "{error}");
        assert!(timed(&mut Command::new("false"), None).is_err());
        assert_eq!(timed(&mut Command::new("true"), None), Ok(()));
        assert!(timed(&mut Command::new("no-such-program"), None).is_err());
    }

    #[test]
    fn every_requirement_is_pinned() {
        for line in REQUIREMENTS.lines() {
            assert_eq!(line.split("==").count(), 2, "{line}");
        }
    }
}
