//! The run folder: its files, atomic writing, and the lock.

use super::RunError;
use super::provenance;
use super::study::Study;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Temporary files carry this prefix, so that those of a killed process can be told and removed.
pub(super) const TEMPORARY: &str = ".unfinished-";

/// Writes `bytes` to `path` so that a reader finds the old file or the new one, never a part: a
/// temporary file in the same folder, synced, then renamed.
///
/// # Errors
/// [`RunError::Io`]; the temporary file is gone and the old one is untouched then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let failed = |source| RunError::Io { action: "write", path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_data().map_err(failed)?;
    make_readable(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Temporary files are private to their owner; results are read by others.
#[cfg(unix)]
fn make_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &File) -> std::io::Result<()> {
    Ok(())
}

/// As [`make_readable`], of a temporary folder.
#[cfg(unix)]
pub(super) fn make_folder_readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
pub(super) fn make_folder_readable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// A run folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Keeps other processes out of a run folder (or out of one of its shards) until dropped.
#[derive(Debug)]
pub struct Lock {
    files: Vec<File>,
}

impl RunFolder {
    /// The folder of `study` below `results`, made with its configuration. An existing one gets the
    /// configuration of now: its seeds and swept values may be others.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn create(results: &Path, study: &dyn Study) -> Result<Self, RunError> {
        let path = results.join(&study.about().suite).join(study.folder_name());
        let folder = Self { path };
        for part in [folder.path.clone(), folder.parts(), folder.figures()] {
            std::fs::create_dir_all(&part).map_err(RunError::io("make the folder", &part))?;
        }
        Ok(folder)
    }

    /// An existing run folder.
    ///
    /// # Errors
    /// [`RunError::NotARun`] where there is no config.toml.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let folder = Self { path: path.to_owned() };
        if folder.file("config.toml").is_file() {
            Ok(folder)
        } else {
            Err(RunError::NotARun { path: path.to_owned() })
        }
    }

    /// Writes config.toml.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn write_config(&self, study: &dyn Study) -> Result<(), RunError> {
        write_atomically(&self.file("config.toml"), study.config().to_string().as_bytes())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The part files' folder.
    pub fn parts(&self) -> PathBuf {
        self.path.join("parts")
    }

    /// The folder of kept instances; absent where there are none.
    pub fn instances(&self) -> PathBuf {
        self.path.join("instances")
    }

    /// The folder of trainings that are under way; absent where there are none.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The figures' folder.
    pub fn figures(&self) -> PathBuf {
        self.path.join("figures")
    }

    /// Holds the whole folder.
    ///
    /// # Errors
    /// [`RunError::Held`] with the holder's own words.
    pub fn lock(&self) -> Result<Lock, RunError> {
        let file = self.hold("lock", false)?;
        self.remove_unfinished();
        Ok(Lock { files: vec![file] })
    }

    /// Holds shard `k` of `m`: others may work on other shards, none on the whole.
    ///
    /// # Errors
    /// [`RunError::Held`].
    pub fn lock_shard(&self, k: usize, m: usize) -> Result<Lock, RunError> {
        let whole = self.hold("lock", true)?;
        let shard = self.hold(&format!("lock-{k}-of-{m}"), false)?;
        Ok(Lock { files: vec![whole, shard] })
    }

    fn hold(&self, name: &str, shared: bool) -> Result<File, RunError> {
        let path = self.file(name);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(RunError::io("open", &path))?;
        let taken = if shared { file.try_lock_shared() } else { file.try_lock() };
        match taken {
            Ok(()) if shared => {
                // Words of a whole-folder holder that was killed would name the wrong process.
                let _ = file.set_len(0);
                Ok(file)
            }
            Ok(()) => {
                let words = format!(
                    "process {} on {} since {}\n",
                    std::process::id(),
                    provenance::host(),
                    provenance::timestamp(provenance::unix_time())
                );
                // Who holds the lock is a courtesy: a full disk must not keep a reader out.
                let _ = file.set_len(0).and_then(|()| file.write_all(words.as_bytes()));
                Ok(file)
            }
            Err(TryLockError::WouldBlock) => {
                let mut words = String::new();
                let _ = file.take(200).read_to_string(&mut words);
                let holder = match words.trim() {
                    "" => "processes working on its shards".to_owned(),
                    words => words.to_owned(),
                };
                Err(RunError::Held { path: self.path.clone(), holder })
            }
            Err(TryLockError::Error(source)) => Err(RunError::Io { action: "lock", path, source }),
        }
    }

    /// Removes temporary files of processes that were killed; the lock says that none is alive.
    fn remove_unfinished(&self) {
        for folder in [self.path.clone(), self.figures(), self.checkpoints()] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = file.set_len(0);
            let _ = file.unlock();
        }
    }
}
