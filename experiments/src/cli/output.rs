//! Standard output and output files.

use super::Failure;
use peftml_data::npz;
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;

/// Prints `value` as one line of JSON.
///
/// # Errors
/// Where standard output cannot be written; a closed pipe is none.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(&value.to_string())
}

/// Prints one line. A reader that leaves early (`| head -1`) is no error.
///
/// # Errors
/// As [`print_json`].
pub fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::refused(format_args!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// Checks before the work begins that its result can be written to `out`, and that none of
/// `inputs` (option and path) would be lost by it.
///
/// # Errors
/// Exit status 2.
pub(super) fn check_output(out: &Path, inputs: &[(&str, &Path)]) -> Result<(), Failure> {
    for (option, input) in inputs {
        if npz::same_file(out, input) {
            return Err(Failure::input(format_args!(
                "--out and {option} name the same file, {}; name another one to write",
                out.display()
            )));
        }
    }
    npz::destination(out)?;
    Ok(())
}
