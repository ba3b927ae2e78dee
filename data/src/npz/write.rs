//! Writing `.npz` files, all or nothing.
//!
//! Arrays are float64, little-endian, C order, stored (not deflated), npy 1.0. A file is first
//! written beside its destination under a temporary name and then renamed: on any error the
//! destination is as it was and the temporary file is gone. Equal arrays give equal bytes (the
//! archive carries no time).

use crate::error::{DataError, OutputProblem};
use faer::MatRef;
use npyz::WriterBuilder;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

/// An array to be written: one matrix, or a stack of matrices of one shape.
#[derive(Clone)]
pub struct ArrayRef<'a> {
    name: &'static str,
    matrices: Vec<MatRef<'a, f64>>,
    stacked: bool,
}

impl<'a> ArrayRef<'a> {
    /// `matrix` (m x n) as an array of shape (m, n).
    pub fn matrix(name: &'static str, matrix: MatRef<'a, f64>) -> Self {
        Self { name, matrices: vec![matrix], stacked: false }
    }

    /// T matrices (m x n) as an array of shape (T, m, n); they must agree in shape.
    pub fn stack(name: &'static str, matrices: impl IntoIterator<Item = MatRef<'a, f64>>) -> Self {
        Self { name, matrices: matrices.into_iter().collect(), stacked: true }
    }

    fn shape(&self) -> Vec<u64> {
        let (rows, cols) = self.matrices.first().map_or((0, 0), |m| (m.nrows(), m.ncols()));
        let matrix = [rows as u64, cols as u64];
        if self.stacked {
            [&[self.matrices.len() as u64], matrix.as_slice()].concat()
        } else {
            matrix.to_vec()
        }
    }

    fn write(&self, out: impl Write) -> io::Result<()> {
        let options = npyz::WriteOptions::<f64>::new().default_dtype().shape(&self.shape());
        let mut array = options.writer(out).begin_nd()?;
        for m in &self.matrices {
            for i in 0..m.nrows() {
                for j in 0..m.ncols() {
                    array.push(&m[(i, j)])?;
                }
            }
        }
        array.finish()
    }
}

/// A file that is complete under a temporary name; dropped, it leaves nothing behind.
#[must_use = "a staged file is only written by `commit`"]
pub struct Staged {
    temporary: NamedTempFile,
    destination: PathBuf,
}

impl Staged {
    /// Puts the file in its place.
    ///
    /// # Errors
    /// [`DataError::Output`]; the destination is then as it was.
    pub fn commit(self) -> Result<(), DataError> {
        let Self { temporary, destination } = self;
        temporary
            .persist(&destination)
            .map(|_| ())
            .map_err(|e| DataError::output(&destination, e.error.into()))
    }
}

/// Checks that `path` can be written: its folder exists, and it is absent or a regular file.
/// Returns the path behind symbolic links.
///
/// # Errors
/// [`DataError::Output`].
pub fn destination(path: &Path) -> Result<PathBuf, DataError> {
    let refuse = |problem| Err(DataError::output(path, problem));
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            std::fs::canonicalize(path).or_else(|e| refuse(OutputProblem::Io(e)))
        }
        Ok(_) => refuse(OutputProblem::NotAFile),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if path.file_name().is_none() || path.as_os_str().to_string_lossy().ends_with('/') {
                return refuse(OutputProblem::NotAFile);
            }
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            if folder.is_some_and(|f| !f.is_dir()) {
                return refuse(OutputProblem::NoFolder);
            }
            Ok(path.to_owned())
        }
        Err(e) => refuse(OutputProblem::Io(e)),
    }
}

/// Whether two paths name one file, also by links or where neither exists yet.
pub fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        std::fs::canonicalize(path).ok().or_else(|| {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let folder = std::fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
            Some(folder.join(path.file_name()?))
        })
    };
    a == b || real(a).is_some_and(|a| Some(a) == real(b)) || same_inode(a, b)
}

#[cfg(unix)]
fn same_inode(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    inode(a).is_some_and(|a| Some(a) == inode(b))
}

#[cfg(not(unix))]
fn same_inode(_: &Path, _: &Path) -> bool {
    false
}

/// Writes `arrays` under a temporary name beside `path`; [`Staged::commit`] renames.
///
/// # Errors
/// [`DataError::Output`].
pub fn stage(path: &Path, arrays: &[ArrayRef<'_>]) -> Result<Staged, DataError> {
    stage_with(path, |file| write_archive(file, arrays))
}

/// Writes `text` in the same way.
///
/// # Errors
/// [`DataError::Output`].
pub fn stage_text(path: &Path, text: &str) -> Result<Staged, DataError> {
    stage_with(path, |file| file.write_all(text.as_bytes()))
}

fn stage_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<Staged, DataError> {
    let destination = destination(path)?;
    let failed = |e: io::Error| DataError::output(path, e.into());
    let folder = destination.parent().filter(|p| !p.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".peftml-").suffix(".part");
    #[cfg(unix)]
    {
        // As other programs create files: everyone's, less the umask.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    write(temporary.as_file_mut()).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    Ok(Staged { temporary, destination })
}

fn write_archive(file: &mut File, arrays: &[ArrayRef<'_>]) -> io::Result<()> {
    archive(BufWriter::new(file), arrays)?.flush()
}

/// The archive's bytes; returns the writer, not yet flushed.
fn archive<W: Write + Seek>(out: W, arrays: &[ArrayRef<'_>]) -> io::Result<W> {
    let mut zip = ZipWriter::new(out);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    for array in arrays {
        zip.start_file(format!("{}.npy", array.name), options)?;
        array.write(BufWriter::new(&mut zip))?;
    }
    Ok(zip.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    fn numbers() -> Mat<f64> {
        Mat::from_fn(2, 3, |i, j| (10 * i + j) as f64)
    }

    #[test]
    fn an_error_leaves_the_folder_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        std::fs::write(&path, b"before").unwrap();
        let matrix = numbers();
        let staged = stage(&path, &[ArrayRef::matrix("A", matrix.as_ref())]).unwrap();
        drop(staged);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // Control: committed, it replaces.
        stage(&path, &[ArrayRef::matrix("A", matrix.as_ref())]).unwrap().commit().unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_and_missing_folders_are_no_destination() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| match destination(path) {
            Err(DataError::Output { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(folder.path()), OutputProblem::NotAFile));
        let inside = folder.path().join("missing/a.npz");
        assert!(matches!(refused(&inside), OutputProblem::NoFolder));
        assert!(destination(&folder.path().join("a.npz")).is_ok());
        assert!(destination(Path::new("a.npz")).is_ok());
    }

    #[test]
    fn equal_arrays_give_equal_bytes() {
        let matrix = numbers();
        let write = || {
            let arrays = [
                ArrayRef::matrix("A", matrix.as_ref()),
                ArrayRef::stack("U", [matrix.as_ref(), matrix.as_ref()]),
            ];
            archive(io::Cursor::new(Vec::new()), &arrays).unwrap().into_inner()
        };
        assert_eq!(write(), write());
    }
}
