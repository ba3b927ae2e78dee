//! NumPy `.npz` files: arrays by name in a zip archive.

mod directory;
mod file;
mod header;
mod read;
mod write;

pub use file::NpyFileReader;
pub use read::{Archive, Array, Stack};
pub use write::{ArrayRef, Staged, destination, same_file, stage, stage_text};

/// Most numbers that the needed arrays of one file may hold together: 512 MiB as float64.
pub const MOST_NUMBERS: u64 = 1 << 26;
