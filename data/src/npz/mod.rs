//! NumPy `.npz` files: arrays by name in a zip archive.
//!
//! ```
//! use faer::mat;
//! use peftml_data::npz::{Archive, ArrayRef, stage};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tasks.npz");
//! let tasks = [mat![[1.0, 2.0], [3.0, 4.0]], mat![[5.0, 6.0], [7.0, 8.0]]];
//! // Written beside its place, put there whole.
//! stage(&path, &[ArrayRef::stack("A", tasks.iter().map(|a| a.as_ref()))])?.commit()?;
//!
//! let mut archive = Archive::open(&path, "A=A")?;
//! let a = archive.array("A", "A is the array of tasks")?;
//! assert_eq!(a.shape(), [2, 2, 2]);
//! assert_eq!(a.matrix(1), tasks[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
