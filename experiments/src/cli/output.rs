//! Standard output: a reader that leaves early (`| head -1`) is no error.

use super::Failure;
use serde_json::Value;
use std::io::{self, Write};

/// Prints `value` as one line of JSON.
///
/// # Errors
/// Where standard output cannot be written; a closed pipe is none.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(&value.to_string())
}

/// Prints one line.
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
