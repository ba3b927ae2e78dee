//! Run folders side by side: what must be identical, byte for byte.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// The files that must be identical, byte for byte.
///
/// # Errors
/// [`Failure::Work`] with the first file that differs.
pub fn compare(expected: &Path, found: &Path) -> Result<(), Failure> {
    let names = |folder: &Path| -> Result<Vec<PathBuf>, Failure> {
        let mut names = vec![PathBuf::from("trials.csv"), PathBuf::from("curves.csv")];
        for path in with_extension(&folder.join("figures"), "svg")? {
            names.push(Path::new("figures").join(path.file_name().unwrap_or_default()));
        }
        Ok(names)
    };
    let (left, right) = (names(expected)?, names(found)?);
    if left != right {
        return Err(Failure::Work(format!("the figures differ: {left:?} and {right:?}")));
    }
    for name in left {
        let read = |folder: &Path| {
            let path = folder.join(&name);
            std::fs::read(&path).map_err(io(&path))
        };
        if read(expected)? != read(found)? {
            return Err(Failure::Work(format!("{} differs", name.display())));
        }
    }
    Ok(())
}

/// The entries of `folder`, sorted.
///
/// # Errors
/// [`Failure::Work`] where it cannot be read.
pub fn listing(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        paths.push(entry.map_err(io(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The files of `folder` with that extension, sorted.
///
/// # Errors
/// As [`listing`].
pub fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = listing(folder)?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(paths)
}

/// Says on which file something failed.
pub fn io(what: &Path) -> impl Fn(std::io::Error) -> Failure {
    let what = what.display().to_string();
    move |error| Failure::Work(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_folder(trials: &str, figure: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("figures")).unwrap();
        for (name, text) in [("trials.csv", trials), ("curves.csv", "c"), ("figures/a.svg", figure)]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn one_byte_or_one_figure_more_is_a_difference() {
        let expected = run_folder("a,b\n", "<svg/>");
        let same = run_folder("a,b\n", "<svg/>");
        assert_eq!(compare(expected.path(), same.path()), Ok(()));
        for (trials, figure) in [("a,c\n", "<svg/>"), ("a,b\n", "<svg />")] {
            assert!(compare(expected.path(), run_folder(trials, figure).path()).is_err());
        }
        std::fs::write(same.path().join("figures/b.svg"), "").unwrap();
        assert!(compare(expected.path(), same.path()).is_err());
        std::fs::remove_file(same.path().join("curves.csv")).unwrap();
        assert!(compare(expected.path(), same.path()).is_err());
    }
}
