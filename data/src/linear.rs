//! Linear tasks, bases and adapters as NumPy files.
//!
//! | file | arrays |
//! |---|---|
//! | tasks | `A` (T, d, d); or `A` with second moments `S` (T, d, d); or samples `X`, `Y` (T, d, N) |
//! | test task | `A` (d, d) or (1, d, d), with `S` alike or without; or `X`, `Y` (d, n) or (1, d, n) |
//! | solution, point | `A` (d, d), `U` (T, d, k), `V` (T, d, k) where adapters are asymmetric |
//! | base | `A` (d, d) |
//! | fine-tuned | `A` (d, d) the base, `U`, `V` (d, r), `D = U V^T` (d, d) |
//!
//! Samples are columns. Arrays of other names are left alone, apart from their checksums. What is
//! read is float32, float64 or integers; the least precise array decides the storage roundoff.

use crate::error::{DataError, FileProblem, MemberProblem, Shape};
use crate::npz::{Archive, Array, ArrayRef, Staged, stage};
use faer::{Mat, MatRef};
use peftml_linalg::LowRank;
use peftml_theory::linear::{Kind, Task, Tasks};
use std::path::Path;

const TASKS: &str = "A; A with S; or X and Y are the arrays of a file of tasks";
const TEST: &str = "A, or X and Y, are the arrays of a file of one test task";
const POINT: &str = "a solution has A and U, and V where its adapters are asymmetric";
const BASE: &str = "a base is an array A of shape (d, d)";

/// Reads T tasks of one dimension.
///
/// # Errors
/// [`DataError::File`], [`DataError::Member`], and [`DataError::Tasks`] where second moments are not
/// symmetric positive semidefinite.
pub fn read_tasks(path: &Path) -> Result<Tasks, DataError> {
    read(path, "A=A", TASKS, Stack::Many)
}

/// Reads one test task: [`Tasks`] with a single one.
///
/// # Errors
/// As [`read_tasks`].
pub fn read_test_task(path: &Path) -> Result<Tasks, DataError> {
    read(path, "A=A", TEST, Stack::One)
}

/// A base to fine-tune, d x d.
#[derive(Clone, Debug)]
pub struct Base {
    /// `A`.
    pub matrix: Mat<f64>,
    /// Unit roundoff of the stored type.
    pub storage_roundoff: f64,
}

/// Reads the base `A` of a solution, of a fine-tuned model, or of a file with `A` alone.
///
/// # Errors
/// [`DataError::File`], [`DataError::Member`].
pub fn read_base(path: &Path) -> Result<Base, DataError> {
    let mut archive = Archive::open(path, "A=A")?;
    let a = archive.array("A", BASE)?;
    square(&archive, &a)?;
    archive.verify_rest()?;
    Ok(Base { matrix: a.matrix(0).to_owned(), storage_roundoff: a.storage_roundoff() })
}

/// A base with one adapter a task.
#[derive(Clone, Debug)]
pub struct Point {
    /// `A`, d x d.
    pub base: Mat<f64>,
    /// `U_t U_t^T`, or `U_t V_t^T`.
    pub adapters: Vec<LowRank>,
    /// Asymmetric where the file has `V`.
    pub kind: Kind,
    /// Unit roundoff of the stored type.
    pub storage_roundoff: f64,
}

/// Reads a solution or a point to be checked.
///
/// # Errors
/// [`DataError::File`], [`DataError::Member`].
pub fn read_point(path: &Path) -> Result<Point, DataError> {
    let mut archive = Archive::open(path, "A=A, U=U")?;
    let a = archive.array("A", BASE)?;
    let d = square(&archive, &a)?;
    let u = archive.array("U", POINT)?;
    let expected = format!("(T, {d}, k), T and k at least 1 and d = {d} as in A,");
    match u.shape()[..] {
        [count, rows, rank] if count > 0 && rows == d && rank > 0 => {}
        _ => return Err(shape(&archive, "U", u.shape(), expected)),
    }
    let v = if archive.contains("V") { Some(archive.array("V", POINT)?) } else { None };
    if let Some(v) = v.as_ref().filter(|v| v.shape() != u.shape()) {
        return Err(shape(&archive, "V", v.shape(), format!("{} as of U", tuple(u.shape()))));
    }
    archive.verify_rest()?;
    let adapters = (0..u.shape()[0]).map(|t| {
        let left = u.matrix(t).to_owned();
        match &v {
            None => LowRank::symmetric(left),
            Some(v) => LowRank::new(left, v.matrix(t).to_owned()).expect("V has the shape of U"),
        }
    });
    let roundoff = [Some(&a), Some(&u), v.as_ref()].into_iter().flatten();
    Ok(Point {
        base: a.matrix(0).to_owned(),
        adapters: adapters.collect(),
        kind: if v.is_some() { Kind::Asymmetric } else { Kind::Symmetric },
        storage_roundoff: roundoff.map(Array::storage_roundoff).fold(0.0, f64::max),
    })
}

/// Writes a base with its adapters (`A`, `U`, and `V` for [`Kind::Asymmetric`]) beside `path`;
/// [`Staged::commit`] puts it in place.
///
/// # Errors
/// [`DataError::Output`].
pub fn stage_point(
    path: &Path,
    base: MatRef<'_, f64>,
    adapters: &[LowRank],
    kind: Kind,
) -> Result<Staged, DataError> {
    let mut arrays =
        vec![ArrayRef::matrix("A", base), ArrayRef::stack("U", adapters.iter().map(LowRank::left))];
    if kind == Kind::Asymmetric {
        arrays.push(ArrayRef::stack("V", adapters.iter().map(LowRank::right)));
    }
    stage(path, &arrays)
}

/// Writes a base alone (`A`).
///
/// # Errors
/// [`DataError::Output`].
pub fn stage_base(path: &Path, base: MatRef<'_, f64>) -> Result<Staged, DataError> {
    stage(path, &[ArrayRef::matrix("A", base)])
}

/// Writes a fine-tuned model: the base `A`, the adapter's factors `U`, `V` and its product `D`.
///
/// # Errors
/// [`DataError::Output`].
pub fn stage_fine_tuned(
    path: &Path,
    base: MatRef<'_, f64>,
    adapter: &LowRank,
) -> Result<Staged, DataError> {
    let product = adapter.to_dense();
    let arrays = [
        ArrayRef::matrix("A", base),
        ArrayRef::matrix("U", adapter.left()),
        ArrayRef::matrix("V", adapter.right()),
        ArrayRef::matrix("D", product.as_ref()),
    ];
    stage(path, &arrays)
}

/// How many tasks a file has.
#[derive(Clone, Copy, PartialEq)]
enum Stack {
    /// T of them: three axes.
    Many,
    /// One: two axes, or three of which the first has length 1.
    One,
}

impl Stack {
    /// Number of tasks, rows and columns; `None` where the shape is no stack.
    fn sizes(self, shape: &[usize]) -> Option<(usize, usize, usize)> {
        let sizes = match (self, shape) {
            (_, &[count, rows, cols]) => (count, rows, cols),
            (Stack::One, &[rows, cols]) => (1, rows, cols),
            _ => return None,
        };
        let (count, rows, cols) = sizes;
        let enough = count > 0 && rows > 0 && cols > 0;
        (enough && (self == Stack::Many || count == 1)).then_some(sizes)
    }

    /// The shapes that would be right.
    fn expected(self, cols: &str) -> String {
        match self {
            Stack::Many => format!("(T, d, {cols}), none of them 0,"),
            Stack::One => format!("(d, {cols}) or (1, d, {cols}), none of them 0,"),
        }
    }
}

fn read(
    path: &Path,
    example: &'static str,
    expected: &'static str,
    stack: Stack,
) -> Result<Tasks, DataError> {
    let mut archive = Archive::open(path, example)?;
    let ambiguous = [("A", "X"), ("A", "Y"), ("S", "X"), ("S", "Y")];
    for (first, second) in ambiguous {
        if archive.contains(first) && archive.contains(second) {
            let problem = FileProblem::Ambiguous { first, second, expected };
            return Err(DataError::file(path, problem));
        }
    }
    let samples = archive.contains("X") || archive.contains("Y");
    let (tasks, roundoff) = if samples {
        read_samples(&mut archive, expected, stack)?
    } else {
        read_matrices(&mut archive, expected, stack)?
    };
    archive.verify_rest()?;
    Tasks::new(tasks, roundoff).map_err(|source| DataError::tasks(path, source))
}

fn read_matrices(
    archive: &mut Archive,
    expected: &'static str,
    stack: Stack,
) -> Result<(Vec<Task>, f64), DataError> {
    let a = archive.stack("A", expected)?;
    if stack.sizes(&a.shape).is_none_or(|(_, rows, cols)| rows != cols) {
        return Err(shape(archive, "A", &a.shape, stack.expected("d")));
    }
    if !archive.contains("S") {
        let tasks = a.matrices.into_iter().map(Task::exact).collect();
        return Ok((tasks, a.storage_roundoff));
    }
    let s = archive.stack("S", expected)?;
    if s.shape != a.shape {
        return Err(shape(archive, "S", &s.shape, format!("{} as of A", tuple(&a.shape))));
    }
    let pairs = a.matrices.into_iter().zip(s.matrices);
    let tasks = pairs.map(|(a, s)| Task::with_second_moment(a, s)).collect();
    Ok((tasks, a.storage_roundoff.max(s.storage_roundoff)))
}

fn read_samples(
    archive: &mut Archive,
    expected: &'static str,
    stack: Stack,
) -> Result<(Vec<Task>, f64), DataError> {
    let x = archive.stack("X", expected)?;
    if stack.sizes(&x.shape).is_none() {
        let samples = if stack == Stack::Many { "N" } else { "n" };
        return Err(shape(archive, "X", &x.shape, stack.expected(samples)));
    }
    let y = archive.stack("Y", expected)?;
    if y.shape != x.shape {
        return Err(shape(archive, "Y", &y.shape, format!("{} as of X", tuple(&x.shape))));
    }
    // A task's samples go when its statistics are there.
    let tasks: Result<Vec<_>, _> = x
        .matrices
        .into_iter()
        .zip(y.matrices)
        .enumerate()
        .map(|(t, (x, y))| Task::from_samples(t, x.as_ref(), y.as_ref()))
        .collect();
    let tasks = tasks.map_err(|source| DataError::tasks(archive.path(), source))?;
    Ok((tasks, x.storage_roundoff.max(y.storage_roundoff)))
}

/// The order of a square matrix.
fn square(archive: &Archive, a: &Array) -> Result<usize, DataError> {
    match a.shape()[..] {
        [rows, cols] if rows == cols && rows > 0 => Ok(rows),
        _ => Err(shape(archive, "A", a.shape(), "a square matrix, shape (d, d),".into())),
    }
}

fn shape(archive: &Archive, name: &str, shape: &[usize], expected: String) -> DataError {
    let shape = Shape(shape.iter().map(|n| *n as u64).collect());
    DataError::member(archive.path(), name, MemberProblem::Shape { shape, expected })
}

fn tuple(shape: &[usize]) -> Shape {
    Shape(shape.iter().map(|n| *n as u64).collect())
}
