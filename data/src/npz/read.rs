//! Reading `.npz` files within bounds.
//!
//! Zip and npy are read by the crates `zip` and `npyz`; the bounds are ours and stand before them:
//! at most [`MOST_BYTES`] declared by deflated members in all, at most [`MOST_NUMBERS`] numbers in the arrays asked for,
//! no member that declares more than deflate can give, nothing allocated beyond what shape and
//! member size agree on. Every member is read to its end, so that its checksum is verified, also
//! those that nobody asked for.

use super::MOST_NUMBERS;
use super::directory;
use super::file::NpyFileReader;
use super::header::{Header, Number};
use crate::error::{DataError, FileProblem, MemberProblem, Shape};
use faer::{Mat, MatRef};
use npyz::{Deserialize, NpyFile, Order};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::read::{ArchiveOffset, Config, ZipArchive, ZipReadOptions};
use zip::{CompressionMethod, result::ZipError};

/// Most bytes that the deflated members of one file may declare together.
const MOST_BYTES: u64 = 1 << 30;

/// Largest ratio of deflate, rounded up; and what short members may have beside it.
const DEFLATE_RATIO: u64 = 1040;
const DEFLATE_SLACK: u64 = 4096;

/// Rows of a matrix that are turned together.
const ROWS: usize = 64;

/// Largest modulus of a number: as for tasks, its fourth power stays far from overflow.
pub(super) const LARGEST_NUMBER: f64 = 1e75;

/// An array of numbers, C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
    roundoff: f64,
}

impl Array {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, last index fastest.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Unit roundoff of the stored type: 2^-24 for float32, else 2^-53.
    pub fn storage_roundoff(&self) -> f64 {
        self.roundoff
    }

    /// Matrix `t` of an array of shape (T, m, n), or the one of shape (m, n) for `t = 0`. Panics
    /// for other shapes and where there is no matrix `t`.
    pub fn matrix(&self, t: usize) -> MatRef<'_, f64> {
        let [.., rows, cols] = self.shape[..] else { panic!("an array of matrices is needed") };
        let size = rows * cols;
        MatRef::from_row_major_slice(&self.values[t * size..(t + 1) * size], rows, cols)
    }
}

/// Matrices of one shape, in the order of a solver's memory: nothing is copied to make tasks of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// The array's shape: (T, m, n), or (m, n).
    pub shape: Vec<usize>,
    /// The T matrices, or the one; none where the shape is another.
    pub matrices: Vec<Mat<f64>>,
    /// Unit roundoff of the stored type.
    pub storage_roundoff: f64,
}

/// An `.npz` file that is being read.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// Positions of members by array name.
    members: BTreeMap<String, usize>,
    unread: Vec<bool>,
    numbers_left: u64,
}

impl Archive {
    /// Opens a file and checks everything that needs no inflating. `example` are the arguments of
    /// `numpy.savez` that would be right, for the error message of a single array.
    ///
    /// # Errors
    /// [`DataError::File`] and [`DataError::Member`].
    pub fn open(path: &Path, example: &'static str) -> Result<Self, DataError> {
        let failed = |problem| DataError::file(path, problem);
        // A pipe or device is not opened: that could wait for ever.
        let kind = std::fs::metadata(path).map_err(|e| failed(e.into()))?;
        if !kind.is_file() {
            return Err(failed(FileProblem::NotAFile));
        }
        let mut file = BufReader::new(File::open(path).map_err(|e| failed(e.into()))?);
        directory::check_end_records(&mut file, example).map_err(failed)?;
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, file).map_err(|e| failed(damaged(&e)))?;
        let mut archive = Self {
            path: path.to_owned(),
            members: BTreeMap::new(),
            unread: vec![true; zip.len()],
            numbers_left: MOST_NUMBERS,
            zip,
        };
        archive.check_names()?;
        archive.check_members(kind.len())?;
        Ok(archive)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The array `name`.
    ///
    /// # Errors
    /// [`DataError::File`] with [`FileProblem::Missing`], whose explanation is `expected`;
    /// [`DataError::Member`].
    pub fn array(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Array, DataError> {
        let array = self.read(name, expected, read_array)?;
        self.numbers_left -= array.values.len() as u64;
        Ok(array)
    }

    /// The array `name` as a stack of matrices: read a few rows at a time, so that no second copy of it is
    /// ever held.
    ///
    /// # Errors
    /// As [`Archive::array`].
    pub fn stack(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Stack, DataError> {
        let stack = self.read(name, expected, read_stack)?;
        self.numbers_left -= stack.shape.iter().product::<usize>() as u64;
        Ok(stack)
    }

    /// The matrices of the array `name`, left in the file, where it holds more than [`MOST_NUMBERS`] numbers and
    /// stands there uncompressed; else `None`. Its checksum is verified by [`Archive::verify_rest`].
    ///
    /// # Errors
    /// [`DataError::Member`].
    pub fn large_stack(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Vec<NpyFileReader>>, DataError> {
        let Some(&index) = self.members.get(name) else { return Ok(None) };
        let entry = self.zip.by_index_data(index);
        let entry = entry.map_err(|e| DataError::file(&self.path, damaged(&e)))?;
        let (size, stored) = (entry.size(), entry.compression() == CompressionMethod::Stored);
        // No type has less than a byte a number.
        if !stored || size <= MOST_NUMBERS {
            return Ok(None);
        }
        let file =
            self.zip.by_index(index).map_err(|e| DataError::file(&self.path, damaged(&e)))?;
        let start = file.data_start();
        drop(file);
        let member = |problem| DataError::member(&self.path, name, problem);
        let start = start.ok_or_else(|| member(MemberProblem::Sizes { size, compressed: size }))?;
        let file = File::open(&self.path).map_err(|e| DataError::file(&self.path, e.into()))?;
        let found = NpyFileReader::within(file, start, size).map_err(member)?;
        let count = |one: &NpyFileReader| one.shape().iter().map(|n| *n as u64).product::<u64>();
        let numbers: u64 = found.iter().map(|(one, _)| count(one)).sum();
        if numbers <= MOST_NUMBERS {
            return Ok(None);
        }
        Ok(Some(found.into_iter().map(|(one, _)| one).collect()))
    }

    fn read<A>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&mut Member<Box<dyn Read + '_>>, u64) -> Result<A, MemberProblem>,
    ) -> Result<A, DataError> {
        let Some(&index) = self.members.get(name) else {
            let names: Vec<String> =
                self.members.keys().take(12).map(|n| n.escape_default().to_string()).collect();
            let found = if names.is_empty() { "no arrays".into() } else { names.join(", ") };
            return Err(DataError::file(
                &self.path,
                FileProblem::Missing { name, found, expected },
            ));
        };
        self.unread[index] = false;
        let most = self.numbers_left;
        let path = self.path.clone();
        self.open_member(index)
            .and_then(|mut member| {
                let result = read(&mut member, most);
                // A damaged member may fail anywhere; that it is damaged is what should be said.
                match member.finish() {
                    Err(e) => Err(e),
                    Ok(()) => result,
                }
            })
            .map_err(|problem| DataError::member(&path, name, problem))
    }

    /// Reads the members that nobody asked for, to verify their checksums.
    ///
    /// # Errors
    /// [`DataError::Member`].
    pub fn verify_rest(mut self) -> Result<(), DataError> {
        let names: Vec<(String, usize)> = self.members.clone().into_iter().collect();
        for (name, index) in names {
            if self.unread[index] {
                self.open_member(index)
                    .and_then(|mut member| member.finish())
                    .map_err(|problem| DataError::member(&self.path, &name, problem))?;
            }
        }
        Ok(())
    }

    fn open_member(&mut self, index: usize) -> Result<Member<Box<dyn Read + '_>>, MemberProblem> {
        // Names and sizes stand in the file twice; where they differ, one is wrong.
        let options = ZipReadOptions::new().enforce_header_consistency(true);
        let file = self.zip.by_index_with_options(index, options).map_err(|e| match e {
            ZipError::InvalidPassword => MemberProblem::Encrypted,
            e => MemberProblem::Damaged { reason: reason(&e) },
        })?;
        Ok(Member { size: file.size(), read: 0, reader: Box::new(file) })
    }

    fn check_names(&mut self) -> Result<(), DataError> {
        let failed = |problem| DataError::file(&self.path, problem);
        let start = self.zip.central_directory_start();
        let mut file = File::open(&self.path).map_err(|e| failed(e.into()))?;
        let (names, ends) = directory::names(&mut file, start).map_err(|e| failed(e.into()))?;
        for raw in &names {
            let name = array_name(&String::from_utf8_lossy(raw));
            let index = self.zip.index_for_name_raw(raw);
            match index.map(|index| self.members.insert(name.clone(), index)) {
                Some(None) => {}
                Some(Some(_)) => return Err(failed(FileProblem::Duplicate { name })),
                None => {
                    let reason = format!("its directory lists {name} outside of its bounds");
                    return Err(failed(FileProblem::Damaged { reason }));
                }
            }
        }
        if names.len() != self.zip.len() || !ends {
            let reason = "its directory does not end where its end record says".to_owned();
            return Err(failed(FileProblem::Damaged { reason }));
        }
        Ok(())
    }

    fn check_members(&mut self, file_length: u64) -> Result<(), DataError> {
        let mut total = 0_u128;
        for (name, &index) in &self.members {
            let entry = self.zip.by_index_data(index);
            let entry = entry.map_err(|e| DataError::file(&self.path, damaged(&e)))?;
            let (size, compressed) = (entry.size(), entry.compressed_size());
            // What is stored is as large as the file itself; what is deflated could be anything.
            if entry.compression() != CompressionMethod::Stored {
                total += u128::from(size);
            }
            let possible = match entry.compression() {
                CompressionMethod::Stored => Ok(size == compressed),
                CompressionMethod::Deflated => {
                    let most = compressed.saturating_mul(DEFLATE_RATIO);
                    Ok(size <= most.saturating_add(DEFLATE_SLACK))
                }
                other => Err(MemberProblem::Compression { method: method_name(other) }),
            };
            let problem = match possible {
                _ if entry.encrypted() => MemberProblem::Encrypted,
                Ok(true) if compressed <= file_length => continue,
                Ok(_) => MemberProblem::Sizes { size, compressed },
                Err(problem) => problem,
            };
            return Err(DataError::member(&self.path, name, problem));
        }
        let failed = |problem| DataError::file(&self.path, problem);
        if total > u128::from(MOST_BYTES) {
            return Err(failed(FileProblem::TooLarge { found: total, most: MOST_BYTES }));
        }
        if self.zip.has_overlapping_files().map_err(|e| failed(damaged(&e)))? {
            return Err(failed(FileProblem::Overlap));
        }
        Ok(())
    }
}

fn array_name(member: &str) -> String {
    member.strip_suffix(".npy").unwrap_or(member).escape_default().to_string()
}

fn damaged(error: &ZipError) -> FileProblem {
    FileProblem::Damaged { reason: reason(error) }
}

/// The usual name of a compression method.
fn method_name(method: CompressionMethod) -> String {
    match method {
        CompressionMethod::BZIP2 => "bzip2".into(),
        CompressionMethod::LZMA => "lzma".into(),
        CompressionMethod::XZ => "xz".into(),
        CompressionMethod::ZSTD => "zstd".into(),
        CompressionMethod::DEFLATE64 => "deflate64".into(),
        other => format!("{other:?}"),
    }
}

/// The zip reader's words, as part of a sentence.
fn reason(error: &ZipError) -> String {
    match error {
        ZipError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => "it ends too early".into(),
        ZipError::Io(e) => e.to_string(),
        ZipError::InvalidArchive(reason) => reason.replace(". ", "; "),
        ZipError::UnsupportedArchive(reason) => reason.replace(". ", "; "),
        other => other.to_string(),
    }
}

/// A member's bytes, counted.
struct Member<R> {
    reader: R,
    /// Bytes declared.
    size: u64,
    /// Bytes read.
    read: u64,
}

impl<R: Read> Read for Member<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl<R: Read> Member<R> {
    /// Reads what is left, and one byte more than declared: that is where the reader compares the
    /// checksum, or finds the member too long.
    fn finish(&mut self) -> Result<(), MemberProblem> {
        let rest = self.size.saturating_sub(self.read).saturating_add(1);
        match io::copy(&mut self.by_ref().take(rest), &mut io::sink()) {
            Err(e) if e.to_string().contains("checksum") => Err(MemberProblem::Checksum),
            Err(e) => Err(MemberProblem::Damaged { reason: e.to_string() }),
            Ok(_) if self.read != self.size => {
                let reason = format!("it declares {} bytes and has {}", self.size, self.read);
                Err(MemberProblem::Damaged { reason })
            }
            Ok(_) => Ok(()),
        }
    }
}

/// Reads the header of an array of at most `most` numbers; afterwards the reader stands at the first one.
fn read_header<R: Read>(
    reader: &mut BufReader<&mut Member<R>>,
    most: u64,
) -> Result<Header, MemberProblem> {
    let header = Header::read(reader)?;
    let shape = header.shape();
    let count = header.parsed.len();
    let expected = u128::from(count) * u128::from(header.number.bytes());
    let found = reader.get_ref().size.saturating_sub(header.length);
    if expected != u128::from(found) {
        let dtype = header.parsed.dtype().descr().trim_matches('\'').to_owned();
        return Err(MemberProblem::Length { shape, dtype, expected, found });
    }
    if count > most {
        return Err(MemberProblem::TooLarge { shape, most });
    }
    Ok(header)
}

fn read_array(member: &mut Member<Box<dyn Read + '_>>, most: u64) -> Result<Array, MemberProblem> {
    let mut reader = BufReader::with_capacity(1 << 16, member.by_ref());
    let header = read_header(&mut reader, most)?;
    let (shape, roundoff) = (sizes(&header), header.number.roundoff());
    let mut values = Vec::new();
    reserve(&mut values, header.parsed.len())?;
    values.resize(header.parsed.len() as usize, 0.0);
    read_numbers(header, reader, &mut |offset, value| values[offset] = value)?;
    Ok(Array { shape, values, roundoff })
}

fn read_stack(member: &mut Member<Box<dyn Read + '_>>, most: u64) -> Result<Stack, MemberProblem> {
    let mut reader = BufReader::with_capacity(1 << 16, member.by_ref());
    let header = read_header(&mut reader, most)?;
    let (shape, storage_roundoff) = (sizes(&header), header.number.roundoff());
    let (count, rows, cols) = match shape[..] {
        [rows, cols] => (1, rows, cols),
        [count, rows, cols] => (count, rows, cols),
        // The caller says which shapes are right.
        _ => return Ok(Stack { shape, matrices: Vec::new(), storage_roundoff }),
    };
    // Whether there is memory, asked in a way that can be answered.
    reserve(&mut Vec::new(), header.parsed.len())?;
    let mut matrices: Vec<Mat<f64>> = (0..count).map(|_| Mat::zeros(rows, cols)).collect();
    if header.parsed.order() == Order::C && count * rows * cols > 0 {
        // Some rows at a time, turned while they are in the cache.
        let block = ROWS.min(rows);
        let mut buffer = vec![0.0; block * cols];
        // Where the block begins, and how many numbers make it whole: they come in order.
        let (mut task, mut first, mut filled) = (0, 0, 0);
        let mut whole = block * cols;
        read_numbers(header, reader, &mut |_, value| {
            buffer[filled] = value;
            filled += 1;
            if filled == whole {
                let part = MatRef::from_row_major_slice(&buffer[..whole], whole / cols, cols);
                matrices[task].as_mut().subrows_mut(first, whole / cols).copy_from(part);
                first += whole / cols;
                if first == rows {
                    (task, first) = (task + 1, 0);
                }
                (filled, whole) = (0, block.min(rows - first) * cols);
            }
        })?;
    } else {
        read_numbers(header, reader, &mut |offset, value| {
            let (row, col) = (offset / cols % rows, offset % cols);
            matrices[offset / (rows * cols)][(row, col)] = value;
        })?;
    }
    Ok(Stack { shape, matrices, storage_roundoff })
}

fn sizes(header: &Header) -> Vec<usize> {
    header.parsed.shape().iter().map(|n| *n as usize).collect()
}

fn reserve(values: &mut Vec<f64>, count: u64) -> Result<(), MemberProblem> {
    let bytes = count.saturating_mul(8);
    let count = usize::try_from(count).map_err(|_| MemberProblem::Memory { bytes })?;
    values.try_reserve_exact(count).map_err(|_| MemberProblem::Memory { bytes })
}

/// Hands every number to `put` with its offset in C order, in the order of the file.
fn read_numbers(
    header: Header,
    reader: impl Read,
    put: &mut dyn FnMut(usize, f64),
) -> Result<(), MemberProblem> {
    let number = header.number;
    let file = NpyFile::with_header(header.parsed, reader);
    match number {
        Number::F8 => convert(file, |v: f64| v, put),
        Number::F4 => convert(file, |v: f32| f64::from(v), put),
        Number::I1 => convert(file, |v: i8| f64::from(v), put),
        Number::I2 => convert(file, |v: i16| f64::from(v), put),
        Number::I4 => convert(file, |v: i32| f64::from(v), put),
        Number::I8 => convert(file, |v: i64| v as f64, put),
        Number::U1 => convert(file, |v: u8| f64::from(v), put),
        Number::U2 => convert(file, |v: u16| f64::from(v), put),
        Number::U4 => convert(file, |v: u32| f64::from(v), put),
        Number::U8 => convert(file, |v: u64| v as f64, put),
    }
}

/// The caller has checked that shape and bytes agree.
fn convert<T: Deserialize, R: Read>(
    file: NpyFile<R>,
    to_f64: impl Fn(T) -> f64,
    put: &mut dyn FnMut(usize, f64),
) -> Result<(), MemberProblem> {
    let (order, shape) = (file.order(), file.shape().to_vec());
    let failed = |e: io::Error| MemberProblem::Damaged { reason: e.to_string() };
    let numbers = file.data::<T>().map_err(|e| MemberProblem::Header { reason: e.to_string() })?;
    let mut bad: Option<(usize, f64)> = None;
    let mut take = |offset: usize, value: f64| {
        if value.is_nan() || value.abs() > LARGEST_NUMBER {
            // The first in C order, whatever the order of the file.
            if bad.is_none_or(|(first, _)| offset < first) {
                bad = Some((offset, value));
            }
        } else {
            put(offset, value);
        }
    };
    if order == Order::C || shape.len() < 2 {
        for (offset, number) in numbers.enumerate() {
            take(offset, to_f64(number.map_err(failed)?));
        }
    } else {
        let mut place = FortranOrder::new(&shape);
        for number in numbers {
            take(place.offset, to_f64(number.map_err(failed)?));
            place.advance();
        }
    }
    match bad {
        Some((at, value)) => Err(MemberProblem::NotFinite { value, index: index_of(at, &shape) }),
        None => Ok(()),
    }
}

/// Offsets in C order of the elements of a Fortran-ordered array, one after the other.
struct FortranOrder {
    shape: Vec<usize>,
    strides: Vec<usize>,
    index: Vec<usize>,
    offset: usize,
}

impl FortranOrder {
    fn new(shape: &[u64]) -> Self {
        let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self { index: vec![0; shape.len()], shape, strides, offset: 0 }
    }

    fn advance(&mut self) {
        for axis in 0..self.shape.len() {
            self.index[axis] += 1;
            self.offset += self.strides[axis];
            if self.index[axis] < self.shape[axis] {
                return;
            }
            self.offset -= self.strides[axis] * self.shape[axis];
            self.index[axis] = 0;
        }
    }
}

/// The index of the element at `offset` in C order.
fn index_of(offset: usize, shape: &[u64]) -> Shape {
    let mut rest = offset as u64;
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = rest % shape[axis];
        rest /= shape[axis];
    }
    Shape(index)
}
