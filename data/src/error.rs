//! What can be wrong with a task source.

use crate::cifar::ImageProblem;
use crate::convai2::DialogueProblem;
use crate::texts::TextProblem;
use peftml_theory::linear::LinearError;
use std::path::{Path, PathBuf};

/// Why a task source gives no tasks, or a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A setting of a synthetic problem that cannot be.
    #[error("{name} = {value} is out of range: {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would be right.
        expected: &'static str,
    },
    /// A file that cannot be read as what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file as a whole.
        problem: Box<FileProblem>,
    },
    /// A member (an array) of a file that cannot be read as what it should be.
    #[error("{}: {member}: {problem}", path.display())]
    Member {
        /// The file.
        path: PathBuf,
        /// The member's name.
        member: String,
        /// What is wrong with the member.
        problem: Box<MemberProblem>,
    },
    /// A file's matrices are no linear meta-learning problem.
    #[error("{}: {source}", path.display())]
    Tasks {
        /// The file.
        path: PathBuf,
        /// What is wrong with the matrices.
        source: Box<LinearError>,
    },
    /// A file or folder of images that cannot be read as what it should be.
    #[error("{}: {problem}", path.display())]
    Images {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<ImageProblem>,
    },
    /// A file of dialogues or a map of personas that cannot be read as what it should be.
    #[error("{}: {problem}", path.display())]
    Dialogues {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<DialogueProblem>,
    },
    /// A file or folder of labelled text that cannot be read as what it should be.
    #[error("{}: {problem}", path.display())]
    Texts {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<TextProblem>,
    },
    /// An output that cannot be written.
    #[error("{}: {problem}", path.display())]
    Output {
        /// The output.
        path: PathBuf,
        /// What is in the way.
        problem: OutputProblem,
    },
    /// The matrices are no linear meta-learning problem.
    #[error(transparent)]
    Linear(#[from] LinearError),
}

impl DataError {
    pub(crate) fn file(path: &Path, problem: FileProblem) -> Self {
        DataError::File { path: path.to_owned(), problem: Box::new(problem) }
    }

    pub(crate) fn member(path: &Path, member: &str, problem: MemberProblem) -> Self {
        // The name comes from the file: what a terminal would interpret does not get through.
        let member = member.chars().take(80).flat_map(char::escape_default).collect();
        DataError::Member { path: path.to_owned(), member, problem: Box::new(problem) }
    }

    pub(crate) fn images(path: &Path, problem: ImageProblem) -> Self {
        DataError::Images { path: path.to_owned(), problem: Box::new(problem) }
    }

    pub(crate) fn dialogues(path: &Path, problem: DialogueProblem) -> Self {
        DataError::Dialogues { path: path.to_owned(), problem: Box::new(problem) }
    }

    pub(crate) fn texts(path: &Path, problem: TextProblem) -> Self {
        DataError::Texts { path: path.to_owned(), problem: Box::new(problem) }
    }

    pub(crate) fn output(path: &Path, problem: OutputProblem) -> Self {
        DataError::Output { path: path.to_owned(), problem }
    }

    pub(crate) fn tasks(path: &Path, source: LinearError) -> Self {
        DataError::Tasks { path: path.to_owned(), source: Box::new(source) }
    }
}

/// What is in the way of an output.
#[derive(Debug, thiserror::Error)]
pub enum OutputProblem {
    /// The folder does not exist.
    #[error("the folder to write to does not exist; create it first")]
    NoFolder,
    /// Something that is no regular file has the name.
    #[error("is no regular file, so it is not replaced; name a file")]
    NotAFile,
    /// The system refuses.
    #[error("cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// What is wrong with an `.npz` file as a whole.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A folder, device or pipe.
    #[error("is no regular file; the path of an .npz file is needed")]
    NotAFile,
    /// Nothing in it.
    #[error("is empty; an .npz file of arrays is needed")]
    Empty,
    /// A single array.
    #[error(
        "is a single .npy array; an .npz file with named arrays is needed, as numpy.savez(path, {example}) writes it"
    )]
    SingleArray {
        /// Arguments of `numpy.savez` that would be right.
        example: &'static str,
    },
    /// Another format.
    #[error("is no .npz file (it does not begin as a zip archive); numpy.savez writes one")]
    NotZip,
    /// The archive's directory is damaged.
    #[error("is a truncated or damaged .npz file: {reason}; write it again with numpy.savez")]
    Damaged {
        /// What the zip reader says.
        reason: String,
    },
    /// More members than an honest file of tasks has.
    #[error("declares {found} members; at most {most} are read")]
    TooManyMembers {
        /// Members declared.
        found: u64,
        /// Limit.
        most: u64,
    },
    /// More bytes than the memory bound allows.
    #[error(
        "its members declare {found} bytes in all; at most {most} are read (many samples X, Y can be given as A with second moments S)"
    )]
    TooLarge {
        /// Bytes declared.
        found: u128,
        /// Limit.
        most: u64,
    },
    /// A folder without tasks.
    #[error(
        "is a folder without tasks; A_0.npy, A_1.npy and so on are needed, or X_0.npy, Y_0.npy and so on"
    )]
    NoTaskFiles,
    /// A gap in the numbers of a folder's files.
    #[error("has no {name}; the tasks' numbers begin at 0 or 1 and follow each other")]
    TaskFileMissing {
        /// The file.
        name: String,
    },
    /// Inputs and outputs of different tasks.
    #[error(
        "has {x} files X_t.npy and {y} files Y_t.npy; one of each a task, with equal numbers, are needed"
    )]
    TaskFilesDiffer {
        /// Files of inputs.
        x: usize,
        /// Files of outputs.
        y: usize,
    },
    /// C order among Fortran order.
    #[error(
        "is in another order (C or Fortran) than the first task's file; large matrices must agree in it"
    )]
    OtherOrder,
    /// Two members that share bytes of the file.
    #[error("has members that overlap in the file; write it again with numpy.savez")]
    Overlap,
    /// Two arrays of one name.
    #[error("has two arrays called {name}; each name may occur once")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// An array that is needed is not there.
    #[error("has no array {name} (it has {found}); {expected}")]
    Missing {
        /// The array.
        name: &'static str,
        /// The arrays it has.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Arrays that exclude each other.
    #[error("has {first} beside {second}; {expected}")]
    Ambiguous {
        /// One array.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

/// What is wrong with a member of an `.npz` file.
#[derive(Debug, thiserror::Error)]
pub enum MemberProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Needs a password.
    #[error("is encrypted; a plain member is needed")]
    Encrypted,
    /// A compression method that is not read.
    #[error("is compressed by {method}; stored and deflated members are read")]
    Compression {
        /// The method.
        method: String,
    },
    /// Sizes that cannot be.
    #[error(
        "declares {size} bytes in {compressed} stored ones, which its compression cannot give; the file is damaged"
    )]
    Sizes {
        /// Bytes declared.
        size: u64,
        /// Bytes in the file.
        compressed: u64,
    },
    /// The bytes are not those that were written.
    #[error("is damaged: {reason}; write the file again")]
    Damaged {
        /// What the reader says.
        reason: String,
    },
    /// The checksum does not fit.
    #[error("its checksum does not fit its bytes; write the file again")]
    Checksum,
    /// No npy header.
    #[error("is no .npy array: {reason}; numpy.savez writes one")]
    Header {
        /// What the reader says.
        reason: String,
    },
    /// A header longer than an honest one.
    #[error("has an .npy header of {found} bytes; at most {most} are read")]
    HeaderLength {
        /// Bytes.
        found: u64,
        /// Limit.
        most: u64,
    },
    /// A header that nests brackets.
    #[error(
        "has an .npy header with {found} opening brackets; a plain array has two, at most {most} are read"
    )]
    HeaderNesting {
        /// Brackets.
        found: usize,
        /// Limit.
        most: usize,
    },
    /// Numbers of a type that is not read.
    #[error("has dtype {dtype} ({what}); float32, float64 or integers are needed")]
    Dtype {
        /// As in the file.
        dtype: String,
        /// In words.
        what: &'static str,
    },
    /// A shape that does not fit the bytes.
    #[error("has shape {shape} of {dtype}, which takes {expected} bytes, but holds {found}")]
    Length {
        /// The shape.
        shape: Shape,
        /// The type.
        dtype: String,
        /// Bytes that the shape needs.
        expected: u128,
        /// Bytes there.
        found: u64,
    },
    /// More numbers than the memory bound allows.
    #[error(
        "has shape {shape}; together with the arrays before it at most {most} numbers are read (many samples X, Y can be given as A with second moments S)"
    )]
    TooLarge {
        /// The shape.
        shape: Shape,
        /// Limit.
        most: u64,
    },
    /// No memory left.
    #[error("does not fit in memory: {bytes} bytes are needed")]
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// A shape that does not fit its meaning.
    #[error("has shape {shape}; {expected} is needed")]
    Shape {
        /// The shape.
        shape: Shape,
        /// What would be right.
        expected: String,
    },
    /// NaN, infinite, or so large that its square overflows.
    #[error("has the entry {value} at {index}; finite numbers below 1e75 in modulus are needed")]
    NotFinite {
        /// The entry.
        value: f64,
        /// Its index.
        index: Shape,
    },
}

/// A shape or an index, written as Python writes a tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<u64>);

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [only] = self.0.as_slice() else {
            let sizes: Vec<String> = self.0.iter().take(8).map(u64::to_string).collect();
            let more = if self.0.len() > 8 { ", .." } else { "" };
            return write!(f, "({}{more})", sizes.join(", "));
        };
        write!(f, "({only},)")
    }
}
