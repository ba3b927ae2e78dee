//! mdBook, at one version, below the target folder.

use crate::failure::Failure;
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version that the book is built with.
pub const VERSION: &str = "0.5.4";

/// An mdBook of that version: that below the target folder, else the one on the search path, else one that
/// is made now; `None` where that cannot be, for want of a network.
///
/// # Errors
/// As cargo fails where the packages are at hand.
pub fn find(root: &Path) -> Result<Option<PathBuf>, Failure> {
    let home = root.join("target/tools");
    let own = home.join("bin/mdbook");
    for program in [own.clone(), PathBuf::from("mdbook")] {
        if version(&program).is_some_and(|version| version == VERSION) {
            return Ok(Some(program));
        }
    }
    if !is_published()? {
        return Ok(None);
    }
    eprintln!(
        "book: building mdBook {VERSION} below target/tools (once; about a minute on two cores)"
    );
    let mut cargo = workspace::cargo()?;
    // Unoptimised: it compiles in a third of the time and has forty pages to write.
    cargo.args(["install", "--quiet", "--locked", "--debug", "--version", VERSION, "mdbook"]);
    cargo.args(["--no-default-features", "--features", "search"]).arg("--root").arg(&home);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env_remove("CARGO_TARGET_DIR");
    workspace::run(&mut cargo)?;
    Ok(Some(own))
}

/// What `program` says of itself, without its name.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.trim().trim_start_matches("mdbook v").to_string())
}

/// Whether the registry answers.
fn is_published() -> Result<bool, Failure> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["info", "--quiet", &format!("mdbook@{VERSION}")]);
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status
        .map(|status| status.success())
        .map_err(|error| Failure::Work(format!("cannot start cargo: {error}")))
}
