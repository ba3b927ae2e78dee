//! Records the revision that the binary is built from, so that every result can name it.
//!
//! `PEFTML_REVISION`: the last commit that touched a source, `-dirty` where sources differ from it, and
//! a fingerprint of the sources; `unknown` and the fingerprint where there is no git. The fingerprint
//! alone says whether two binaries are the same, so that a commit of other files, or of what was built
//! before it was committed, makes no new binary. `PEFTML_RUSTC`: the compiler's version.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders whose code can change a number.
const SOURCES: [&str; 8] = [
    "linalg/src",
    "theory/src",
    "solvers/src",
    "data/src",
    "peft/src",
    "experiments/src",
    "configs",
    "Cargo.lock",
];

fn main() {
    let root = Path::new("..");
    for source in SOURCES {
        let path = root.join(source);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    // Only what can change a number counts: a letter in a document does not make a run another one.
    let sources = SOURCES.map(|source| format!("../{source}"));
    let of_sources = |command: &[&'static str]| {
        let mut arguments = command.to_vec();
        arguments.extend(sources.iter().map(String::as_str));
        git(&arguments)
    };
    let clean = of_sources(&["status", "--porcelain", "--"]).is_some_and(|text| text.is_empty());
    let commit = of_sources(&["log", "-1", "--format=%h", "--abbrev=12", "--"])
        .filter(|commit| !commit.is_empty())
        .unwrap_or_else(|| "unknown".to_owned());
    let state = if clean || commit == "unknown" { "" } else { "-dirty" };
    let revision = format!("{commit}{state}-{:08x}", fingerprint(root) as u32);
    println!("cargo::rustc-env=PEFTML_REVISION={revision}");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(Command::new(compiler).arg("--version")).unwrap_or_default();
    println!("cargo::rustc-env=PEFTML_RUSTC={version}");
}

fn git(arguments: &[&str]) -> Option<String> {
    output(Command::new("git").args(arguments))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn fingerprint(root: &Path) -> u64 {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files);
    }
    files.sort();
    // `DefaultHasher::new` has fixed keys: equal sources give equal fingerprints.
    let mut hasher = DefaultHasher::new();
    for file in files {
        hasher.write(file.to_string_lossy().as_bytes());
        hasher.write(&std::fs::read(&file).unwrap_or_default());
    }
    hasher.finish()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
    } else if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries.flatten() {
            collect(&entry.path(), files);
        }
    }
}
