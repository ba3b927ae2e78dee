//! NumPy `.npz` files: arrays by name in a zip archive.

mod directory;
mod header;
mod read;
mod write;

pub use read::{Archive, Array};
pub use write::{ArrayRef, Staged, destination, same_file, stage, stage_text};

/// Most numbers that the needed arrays of one file may hold together: 512 MiB as float64, so that
/// the matrices and a second copy of them stay below 2 GiB of address space.
pub const MOST_NUMBERS: u64 = 1 << 26;
