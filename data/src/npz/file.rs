//! A matrix in an `.npy` file, read in parts.
//!
//! The header is read once; numbers by positioned reads (no seek: threads may read at the same time).

use super::header::{Header, Number};
use super::read::LARGEST_NUMBER;
use crate::error::{MemberProblem, Shape};
use faer::{Mat, MatRef};
use npyz::Order;
use std::fs::File;
use std::io::{self, Seek};
use std::ops::Range;
use std::path::Path;

/// Whether a matrix stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    Matrix,
    Stack,
}

/// A matrix in an open file.
pub struct NpyFileReader {
    file: File,
    number: Number,
    big_endian: bool,
    fortran: bool,
    shape: [usize; 2],
    /// Bytes before the first number.
    start: u64,
}

impl NpyFileReader {
    /// Opens a file and checks its header and length.
    ///
    /// # Errors
    /// A [`MemberProblem`].
    pub fn open(path: &Path) -> Result<Self, MemberProblem> {
        let kind = std::fs::metadata(path)?;
        if !kind.is_file() {
            return Err(MemberProblem::Header { reason: "it is no regular file".to_owned() });
        }
        let mut all = Self::within(File::open(path)?, 0, kind.len())?;
        match (all.pop(), all.is_empty()) {
            (Some((one, Axes::Matrix)), true) => Ok(one),
            (found, _) => {
                let shape = found.map_or(vec![0], |(one, _)| vec![1, one.shape[0], one.shape[1]]);
                let shape = Shape(shape.iter().map(|n| *n as u64).collect());
                let expected = "a matrix, two axes,".to_owned();
                Err(MemberProblem::Shape { shape, expected })
            }
        }
    }

    /// The matrices of an array (d, d) or (T, d, d) that stands uncompressed in the `length` bytes from `offset`
    /// on.
    pub(super) fn within(
        mut file: File,
        offset: u64,
        length: u64,
    ) -> Result<Vec<(Self, Axes)>, MemberProblem> {
        file.seek(io::SeekFrom::Start(offset))?;
        let header = Header::read(&mut io::BufReader::new(&file))?;
        let shape = header.shape();
        let expected = u128::from(header.parsed.len()) * u128::from(header.number.bytes());
        let found = length.saturating_sub(header.length);
        let dtype = header.parsed.dtype().descr().trim_matches('\'').to_owned();
        if expected != u128::from(found) {
            return Err(MemberProblem::Length { shape, dtype, expected, found });
        }
        let fortran = header.parsed.order() == Order::Fortran;
        let (count, rows, cols, axes) = match shape.0[..] {
            [rows, cols] => (1, rows, cols, Axes::Matrix),
            // In Fortran order the matrices of a stack are interleaved.
            [count, rows, cols] if !fortran => (count, rows, cols, Axes::Stack),
            _ => {
                let expected = "(d, d), or (T, d, d) in C order,".to_owned();
                return Err(MemberProblem::Shape { shape, expected });
            }
        };
        let bytes = rows * cols * header.number.bytes();
        (0..count)
            .map(|t| {
                let one = Self {
                    big_endian: dtype.starts_with('>'),
                    fortran,
                    number: header.number,
                    shape: [rows as usize, cols as usize],
                    start: offset + header.length + t * bytes,
                    file: file.try_clone()?,
                };
                Ok((one, axes))
            })
            .collect()
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Unit roundoff of the stored type.
    pub fn roundoff(&self) -> f64 {
        self.number.roundoff()
    }

    /// Whether columns lie side by side, and not rows.
    pub fn fortran(&self) -> bool {
        self.fortran
    }

    /// Length of a line: what lies side by side, a row or a column.
    fn line(&self) -> usize {
        if self.fortran { self.shape[0] } else { self.shape[1] }
    }

    /// Reads `lines` (rows, or columns in Fortran order) into `out`, one after the other.
    ///
    /// # Errors
    /// [`MemberProblem::Io`], [`MemberProblem::NotFinite`].
    pub fn lines(&self, lines: Range<usize>, out: &mut Vec<f64>) -> Result<(), MemberProblem> {
        out.clear();
        self.read(lines.start * self.line(), lines.len() * self.line(), out)
    }

    /// Appends `count` numbers from the number `first` on.
    fn read(&self, first: usize, count: usize, out: &mut Vec<f64>) -> Result<(), MemberProblem> {
        let size = self.number.bytes() as usize;
        let mut bytes = vec![0; count * size];
        read_at(&self.file, &mut bytes, self.start + (first * size) as u64)?;
        let before = out.len();
        decode(self.number, self.big_endian, &bytes, out);
        let bad = |v: &f64| v.is_nan() || v.abs() > LARGEST_NUMBER;
        if let Some(at) = out[before..].iter().position(bad) {
            let (line, place) = ((first + at) / self.line(), (first + at) % self.line());
            let index = if self.fortran { [place, line] } else { [line, place] };
            let index = Shape(index.iter().map(|n| *n as u64).collect());
            return Err(MemberProblem::NotFinite { value: out[before + at], index });
        }
        Ok(())
    }

    /// The columns `columns`, d x n.
    ///
    /// # Errors
    /// As [`NpyFileReader::lines`].
    pub fn columns(&self, columns: Range<usize>) -> Result<Mat<f64>, MemberProblem> {
        let [rows, cols] = self.shape;
        let mut numbers = Vec::new();
        if self.fortran {
            self.lines(columns.clone(), &mut numbers)?;
            return Ok(MatRef::from_column_major_slice(&numbers, rows, columns.len()).to_owned());
        }
        for row in 0..rows {
            self.read(row * cols + columns.start, columns.len(), &mut numbers)?;
        }
        Ok(MatRef::from_row_major_slice(&numbers, rows, columns.len()).to_owned())
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`NpyFileReader::lines`].
    pub fn matrix(&self) -> Result<Mat<f64>, MemberProblem> {
        let [rows, cols] = self.shape;
        let mut out = Mat::zeros(rows, cols);
        let (lines, mut numbers) = (if self.fortran { cols } else { rows }, Vec::new());
        for first in (0..lines).step_by(64) {
            let range = first..(first + 64).min(lines);
            self.lines(range.clone(), &mut numbers)?;
            if self.fortran {
                let part = MatRef::from_column_major_slice(&numbers, rows, range.len());
                out.as_mut().subcols_mut(first, range.len()).copy_from(part);
            } else {
                let part = MatRef::from_row_major_slice(&numbers, range.len(), cols);
                out.as_mut().subrows_mut(first, range.len()).copy_from(part);
            }
        }
        Ok(out)
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let count = file.seek_read(bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

/// Appends the numbers that `bytes` are.
fn decode(number: Number, big_endian: bool, bytes: &[u8], out: &mut Vec<f64>) {
    /// One type: the bytes of each number, turned where they are big-endian.
    macro_rules! all {
        ($type:ty, $convert:expr) => {{
            const SIZE: usize = size_of::<$type>();
            out.extend(bytes.as_chunks::<SIZE>().0.iter().map(|chunk| {
                let value = if big_endian {
                    <$type>::from_be_bytes(*chunk)
                } else {
                    <$type>::from_le_bytes(*chunk)
                };
                $convert(value)
            }));
        }};
    }
    match number {
        Number::F8 => all!(f64, |v: f64| v),
        Number::F4 => all!(f32, f64::from),
        Number::I1 => all!(i8, f64::from),
        Number::I2 => all!(i16, f64::from),
        Number::I4 => all!(i32, f64::from),
        Number::I8 => all!(i64, |v: i64| v as f64),
        Number::U1 => all!(u8, f64::from),
        Number::U2 => all!(u16, f64::from),
        Number::U4 => all!(u32, f64::from),
        Number::U8 => all!(u64, |v: u64| v as f64),
    }
}
