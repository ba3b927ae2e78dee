//! Copies of the tree, for what would change it.

use crate::failure::Failure;
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file that is tracked, or would be with `git add`, by its path from `root`.
///
/// # Errors
/// [`Failure::Work`] where git does not tell.
pub fn tracked(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let (list, outcome) = workspace::capture(&mut git)?;
    outcome?;
    let files = list.split_terminator('\0').map(PathBuf::from);
    // Files that are deleted and not yet committed are listed as well.
    Ok(files.filter(|file| root.join(file).exists()).collect())
}

/// Copies `files` from `root` to `tree` with their times: cargo builds again what is newer.
///
/// # Errors
/// [`Failure::Work`] where a file cannot be read or written.
pub fn copy(root: &Path, files: &[PathBuf], tree: &Path) -> Result<(), Failure> {
    for file in files {
        let (from, to) = (root.join(file), tree.join(file));
        copy_file(&from, &to)
            .map_err(|error| Failure::Work(format!("{}: {error}", from.display())))?;
    }
    Ok(())
}

/// Copies one file with its times; folders that it needs are made.
///
/// # Errors
/// As the file system fails.
pub fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    if from.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(from)?, to);
    }
    std::fs::copy(from, to)?;
    let changed = std::fs::metadata(from)?.modified()?;
    std::fs::File::options().write(true).open(to)?.set_modified(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_tracked_files_and_their_times() {
        let root = workspace::root().unwrap();
        let files = tracked(&root).unwrap();
        let manifest = PathBuf::from("xtask/Cargo.toml");
        assert!(files.contains(&manifest) && files.iter().all(|file| !file.starts_with("target")));
        let tree = tempfile::tempdir().unwrap();
        copy(&root, std::slice::from_ref(&manifest), tree.path()).unwrap();
        let time = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(tree.path().join(&manifest)), time(root.join(&manifest)));
        assert!(copy(&root, &["no-such-file".into()], tree.path()).is_err());
    }
}
