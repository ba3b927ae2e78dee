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
    eprintln!(
        "book: building mdBook {VERSION} below target/tools (once; about a minute on two cores)"
    );
    let mut cargo = workspace::cargo()?;
    // Unoptimised: it compiles in a third of the time and has forty pages to write.
    cargo.args(["install", "--quiet", "--locked", "--debug", "--version", VERSION, "mdbook"]);
    cargo.args(["--no-default-features", "--features", "search"]).arg("--root").arg(&home);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env_remove("CARGO_TARGET_DIR");
    let output = cargo
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Work(format!("cannot start cargo: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Some(own));
    }
    eprint!("{said}");
    if wants_network(&said) { Ok(None) } else { workspace::handed_on(output.status).map(|()| None) }
}

/// Whether cargo failed because it could not load something.
fn wants_network(said: &str) -> bool {
    const WORDS: [&str; 5] =
        ["offline", "network", "failed to download", "resolve host", "connect"];
    WORDS.iter().any(|word| said.contains(word))
}

/// What `program` says of itself, without its name.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.trim().trim_start_matches("mdbook v").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_missing_is_told_from_code_that_does_not_compile() {
        for (said, right) in [
            (
                "error: failed to download `clap v4`\n  attempting to make an HTTP request, but --offline was specified",
                true,
            ),
            (
                "warning: spurious network error (3 tries remaining): [7] Could not connect to server",
                true,
            ),
            ("error[E0308]: mismatched types\nerror: could not compile `mdbook`", false),
        ] {
            assert_eq!(wants_network(said), right, "{said}");
        }
    }
}
