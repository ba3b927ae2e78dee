//! Tasks as a folder of `.npy` files, one task a file: for tasks that are larger than memory.
//!
//! | files | shape |
//! |---|---|
//! | `A_0.npy`, `A_1.npy`, .. | (d, d): exact matrices |
//! | `X_0.npy`, `Y_0.npy`, .. | (d, N_t) each: samples as columns |
//!
//! Numbers begin at 0 or 1 and have no gap; other files are left alone. float32, float64 or integers, C or
//! Fortran order (the same for all `A`). Up to [`MOST_NUMBERS`] numbers the tasks are read as from an `.npz`
//! file. Beyond, matrices stay where they are and are read by positioned reads a strip at a time; of
//! samples the statistics are summed in blocks of columns, one task after the other, and only the
//! estimates `Ahat_t` are kept, in the type that the samples came in.
//!
//! Limits: estimates without their second moments cannot be polished. Files must not change meanwhile.

use crate::error::{DataError, FileProblem, MemberProblem, Shape};
use crate::npz::{Archive, MOST_NUMBERS, NpyFileReader};
use faer::{Mat, MatRef};
use peftml_linalg::kernel;
use peftml_theory::linear::{LinearError, Task, TaskMatrices, Tasks};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Columns of samples that are read together.
const BLOCK: usize = 512;
/// Rows of a matrix that are read together when it is checked.
const ROWS: usize = 64;

/// Tasks of a folder.
pub enum FolderTasks {
    /// All that solvers may ask for.
    Memory(Tasks),
    /// Matrices alone.
    Matrices(StoredMatrices),
}

/// `Ahat_t` in files, or in memory in the type that they were stored in.
pub struct StoredMatrices {
    dimension: usize,
    storage_roundoff: f64,
    transposed: bool,
    matrices: Matrices,
    /// Mean variance of an estimate's entry; `None` for exact matrices or too few samples.
    entry_variance: Option<f64>,
}

enum Matrices {
    Files(Vec<NpyFileReader>),
    Single(Vec<Vec<f32>>),
    Double(Vec<Vec<f64>>),
}

/// Opens a folder of tasks.
///
/// # Errors
/// [`DataError::File`] for a folder without tasks or with gaps, [`DataError::Member`] for a file that is no
/// array of the right shape, [`DataError::Tasks`].
pub fn open_tasks(folder: &Path) -> Result<FolderTasks, DataError> {
    let names = list(folder)?;
    let (a, x, y) = (numbered(&names, 'A'), numbered(&names, 'X'), numbered(&names, 'Y'));
    let failed = |problem| Err(DataError::file(folder, problem));
    match (a.is_empty(), x.is_empty() && y.is_empty()) {
        (true, true) => failed(FileProblem::NoTaskFiles),
        (false, false) => {
            let expected =
                "either A_t.npy or X_t.npy with Y_t.npy are the files of a folder of tasks";
            failed(FileProblem::Ambiguous {
                first: "A_t.npy",
                second: "X_t.npy or Y_t.npy",
                expected,
            })
        }
        (false, true) => matrices(folder, &paths(folder, 'A', &a)?),
        (true, false) => {
            let (xs, ys) = (paths(folder, 'X', &x)?, paths(folder, 'Y', &y)?);
            if x != y {
                return failed(FileProblem::TaskFilesDiffer { x: xs.len(), y: ys.len() });
            }
            samples(folder, &xs, &ys)
        }
    }
}

fn list(folder: &Path) -> Result<Vec<String>, DataError> {
    let failed = |e: std::io::Error| DataError::file(folder, e.into());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The numbers (with their text) of the files `LETTER_NUMBER.npy`, ascending.
fn numbered(names: &[String], letter: char) -> Vec<(usize, String)> {
    let number = |name: &String| {
        let rest = name.strip_prefix(letter)?.strip_prefix('_')?.strip_suffix(".npy")?;
        let digits = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| rest.parse().ok().map(|n| (n, rest.to_owned()))).flatten()
    };
    let mut found: Vec<_> = names.iter().filter_map(number).collect();
    found.sort();
    found
}

/// The files' paths; numbers must begin at 0 or 1 and follow each other.
fn paths(
    folder: &Path,
    letter: char,
    numbers: &[(usize, String)],
) -> Result<Vec<PathBuf>, DataError> {
    let first = numbers.first().map_or(0, |(number, _)| (*number).min(1));
    for (i, (number, _)) in numbers.iter().enumerate() {
        if *number != first + i {
            let name = format!("{letter}_{}.npy", first + i);
            return Err(DataError::file(folder, FileProblem::TaskFileMissing { name }));
        }
    }
    Ok(numbers.iter().map(|(_, text)| folder.join(format!("{letter}_{text}.npy"))).collect())
}

fn member(path: &Path, problem: MemberProblem) -> DataError {
    DataError::member(path, "array", problem)
}

fn shape_error(path: &Path, shape: [usize; 2], expected: String) -> DataError {
    let shape = Shape(shape.iter().map(|n| *n as u64).collect());
    member(path, MemberProblem::Shape { shape, expected })
}

/// Exact matrices.
fn matrices(folder: &Path, paths: &[PathBuf]) -> Result<FolderTasks, DataError> {
    let mut files = Vec::new();
    let mut dimension = 0;
    for path in paths {
        let file = NpyFileReader::open(path).map_err(|problem| member(path, problem))?;
        let [rows, cols] = file.shape();
        if dimension == 0 {
            dimension = rows;
        }
        if rows != cols || rows != dimension || rows == 0 {
            let expected = match files.is_empty() {
                true => "a square matrix, shape (d, d),".to_owned(),
                false => format!("({dimension}, {dimension}) as of the first task"),
            };
            return Err(shape_error(path, [rows, cols], expected));
        }
        files.push(file);
    }
    let roundoff = files.iter().map(NpyFileReader::roundoff).fold(0.0, f64::max);
    let numbers = dimension as u128 * dimension as u128 * files.len() as u128;
    if numbers <= u128::from(MOST_NUMBERS) {
        let mut tasks = Vec::new();
        for (file, path) in files.iter().zip(paths) {
            tasks.push(Task::exact(file.matrix().map_err(|problem| member(path, problem))?));
        }
        let tasks = Tasks::new(tasks, roundoff).map_err(|e| DataError::tasks(folder, e))?;
        return Ok(FolderTasks::Memory(tasks));
    }
    stored(files, paths)
}

/// Matrices that stay in their files, after every number was seen once.
fn stored(files: Vec<NpyFileReader>, paths: &[PathBuf]) -> Result<FolderTasks, DataError> {
    let dimension = files[0].shape()[0];
    let roundoff = files.iter().map(NpyFileReader::roundoff).fold(0.0, f64::max);
    let transposed = !files[0].fortran();
    if let Some(other) = files.iter().position(|file| file.fortran() == transposed) {
        return Err(DataError::file(&paths[other], FileProblem::OtherOrder));
    }
    let mut buffer = Vec::new();
    for (file, path) in files.iter().zip(paths) {
        for first in (0..dimension).step_by(ROWS) {
            let lines = first..(first + ROWS).min(dimension);
            file.lines(lines, &mut buffer).map_err(|problem| member(path, problem))?;
        }
    }
    Ok(FolderTasks::Matrices(StoredMatrices {
        dimension,
        storage_roundoff: roundoff,
        transposed,
        matrices: Matrices::Files(files),
        entry_variance: None,
    }))
}

/// Opens an `.npz` file of tasks: exact matrices `A` beyond [`MOST_NUMBERS`] numbers that are stored (not
/// deflated) stay in the file, anything else is read as [`linear::read_tasks`](crate::linear::read_tasks) does.
///
/// # Errors
/// As there.
pub fn open_archive(path: &Path) -> Result<FolderTasks, DataError> {
    let mut archive = Archive::open(path, "A=A")?;
    let alone = ["S", "X", "Y"].iter().all(|name| !archive.contains(name));
    let files = if alone { archive.large_stack("A")? } else { None };
    let Some(files) = files else {
        drop(archive);
        return Ok(FolderTasks::Memory(crate::linear::read_tasks(path)?));
    };
    archive.verify_rest()?;
    let [rows, cols] = files[0].shape();
    if rows != cols {
        return Err(shape_error(path, [rows, cols], "(T, d, d)".to_owned()));
    }
    let paths = vec![path.to_owned(); files.len()];
    stored(files, &paths)
}

/// Statistics of samples.
fn samples(folder: &Path, xs: &[PathBuf], ys: &[PathBuf]) -> Result<FolderTasks, DataError> {
    let mut opened = Vec::new();
    for (x_path, y_path) in xs.iter().zip(ys) {
        let x = NpyFileReader::open(x_path).map_err(|problem| member(x_path, problem))?;
        let y = NpyFileReader::open(y_path).map_err(|problem| member(y_path, problem))?;
        let dimension =
            opened.first().map_or(x.shape()[0], |(x, _): &(NpyFileReader, _)| x.shape()[0]);
        let [rows, cols] = x.shape();
        if rows != dimension || rows == 0 || cols == 0 {
            let expected = format!("({dimension}, N), neither of them 0,");
            return Err(shape_error(x_path, x.shape(), expected));
        }
        if y.shape() != x.shape() {
            return Err(shape_error(y_path, y.shape(), format!("({rows}, {cols}) as of X")));
        }
        opened.push((x, y));
    }
    let dimension = opened[0].0.shape()[0];
    let roundoffs = opened.iter().flat_map(|(x, y)| [x.roundoff(), y.roundoff()]);
    let roundoff = roundoffs.fold(0.0, f64::max);
    let square = dimension as u128 * dimension as u128;
    let keep = 3 * square * opened.len() as u128 <= u128::from(MOST_NUMBERS);
    let single = roundoff > f64::EPSILON;
    let (mut tasks, mut halves, mut doubles) = (Vec::new(), Vec::new(), Vec::new());
    let mut variance = Some(0.0);
    for ((x, y), path) in opened.iter().zip(xs) {
        let task = statistics(x, y).map_err(|error| error.at(folder, path))?;
        if keep {
            tasks.push(task);
            continue;
        }
        let one = task.entry_variance().map_err(|e| DataError::tasks(folder, e))?;
        variance = variance.zip(one).map(|(sum, one)| sum + one / opened.len() as f64);
        let a = task.least_squares();
        let entries = (0..dimension).flat_map(|j| (0..dimension).map(move |i| (i, j)));
        if single {
            halves.push(entries.map(|at| a[at] as f32).collect::<Vec<f32>>());
        } else {
            doubles.push(entries.map(|at| a[at]).collect::<Vec<f64>>());
        }
    }
    if keep {
        let tasks = Tasks::new(tasks, roundoff).map_err(|e| DataError::tasks(folder, e))?;
        return Ok(FolderTasks::Memory(tasks));
    }
    let matrices = if single { Matrices::Single(halves) } else { Matrices::Double(doubles) };
    Ok(FolderTasks::Matrices(StoredMatrices {
        dimension,
        storage_roundoff: roundoff,
        transposed: false,
        matrices,
        entry_variance: variance,
    }))
}

/// Why a task has no statistics.
enum Failed {
    Member(MemberProblem),
    Linear(LinearError),
}

impl Failed {
    fn at(self, folder: &Path, path: &Path) -> DataError {
        match self {
            Failed::Member(problem) => member(path, problem),
            Failed::Linear(error) => DataError::tasks(folder, error),
        }
    }
}

/// `S`, `C`, `Ahat` and the residual of one task, in two passes over its samples.
fn statistics(x: &NpyFileReader, y: &NpyFileReader) -> Result<Task, Failed> {
    let [d, n] = x.shape();
    let (mut s, mut c) = (Mat::zeros(d, d), Mat::zeros(d, d));
    let blocks = || (0..n).step_by(BLOCK).map(|first| first..(first + BLOCK).min(n));
    let scale = 1.0 / n as f64;
    for columns in blocks() {
        let xb = x.columns(columns.clone()).map_err(Failed::Member)?;
        let yb = y.columns(columns).map_err(Failed::Member)?;
        kernel::mul_add(s.as_mut(), xb.as_ref(), xb.transpose(), scale);
        kernel::mul_add(c.as_mut(), yb.as_ref(), xb.transpose(), scale);
    }
    kernel::symmetrise(s.as_mut());
    let task = Task::from_statistics(n, s, c).map_err(Failed::Linear)?;
    let mut squares = 0.0;
    for columns in blocks() {
        let xb = x.columns(columns.clone()).map_err(Failed::Member)?;
        let mut rest = y.columns(columns).map_err(Failed::Member)?;
        kernel::mul_add(rest.as_mut(), task.least_squares(), xb.as_ref(), -1.0);
        squares += kernel::norm_squared(rest.as_ref());
    }
    Ok(task.with_residual_squares(squares))
}

impl TaskMatrices for StoredMatrices {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn count(&self) -> usize {
        match &self.matrices {
            Matrices::Files(files) => files.len(),
            Matrices::Single(all) => all.len(),
            Matrices::Double(all) => all.len(),
        }
    }

    fn storage_roundoff(&self) -> f64 {
        self.storage_roundoff
    }

    fn is_exact(&self) -> bool {
        matches!(self.matrices, Matrices::Files(_))
    }

    fn transposed(&self) -> bool {
        self.transposed
    }

    fn entry_variance(&self) -> Result<Option<f64>, LinearError> {
        Ok(self.entry_variance)
    }

    fn columns<'a>(
        &'a self,
        task: usize,
        columns: Range<usize>,
        buffer: &'a mut Vec<f64>,
    ) -> Result<MatRef<'a, f64>, LinearError> {
        let (d, width) = (self.dimension, columns.len());
        let place = columns.start * d..columns.end * d;
        match &self.matrices {
            Matrices::Files(files) => {
                files[task].lines(columns, buffer).map_err(|problem| {
                    let kind = match problem {
                        MemberProblem::Io(error) => error.kind(),
                        _ => std::io::ErrorKind::InvalidData,
                    };
                    LinearError::Unreadable { task, kind }
                })?;
                Ok(MatRef::from_column_major_slice(buffer, d, width))
            }
            Matrices::Single(all) => {
                buffer.clear();
                buffer.extend(all[task][place].iter().map(|value| f64::from(*value)));
                Ok(MatRef::from_column_major_slice(buffer, d, width))
            }
            Matrices::Double(all) => {
                Ok(MatRef::from_column_major_slice(&all[task][place], d, width))
            }
        }
    }
}
