//! A temporary folder of a verb.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// A folder that goes away with its owner.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A folder of this process in `below`.
    ///
    /// # Errors
    /// [`Failure::Work`] where it cannot be made.
    pub fn new(below: &Path) -> Result<Self, Failure> {
        let path = below.join(format!("peftml-xtask-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is left to be told if the system keeps it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
