//! CIFAR-10: 60,000 images of 32 x 32 pixels in 10 classes, in either of its official layouts.
//!
//! * binary (`cifar-10-batches-bin`): records of one label byte and 3072 bytes, red, green and blue planes,
//!   rows from the top;
//! * python (`cifar-10-batches-py`): a pickled dictionary with `data` (n x 3072, the same order) and `labels`.
//!
//! Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
//! Limits: files above 64 MiB are refused; of pickle, what describes such a dictionary is read, and nothing
//! of a file is ever run.

mod pickle;

use crate::DataError;
use crate::images::Images;
use std::path::Path;

/// Height and width of an image.
pub const SIDE: usize = 32;
/// Bytes of an image.
const PIXELS: usize = 3 * SIDE * SIDE;
/// Number of classes.
pub const CLASSES: u8 = 10;
/// Largest file that is read; an official one has 31 MB.
const LARGEST: u64 = 1 << 26;

/// The training images, in the order of the files, and the test images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cifar10 {
    /// Training images.
    pub training: Images,
    /// Test images.
    pub test: Images,
}

/// What is wrong with a file of images.
#[derive(Debug, thiserror::Error)]
pub enum ImageProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// More bytes than any file of the set has.
    #[error("has {found} bytes; at most {LARGEST} are read")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
    },
    /// Bytes that are no whole number of records.
    #[error(
        "has {found} bytes, which is no whole number of records of {} bytes; it is cut short or has something behind its last record",
        PIXELS + 1
    )]
    Length {
        /// Bytes of the file.
        found: usize,
    },
    /// A label that is none.
    #[error("image {index} has the label {found}; labels are 0 to 9")]
    Label {
        /// The image, from 0.
        index: usize,
        /// Its label.
        found: i64,
    },
    /// No pickled batch.
    #[error("is no pickled batch: {0}")]
    Pickle(&'static str),
    /// Images and labels that are not as many.
    #[error("has {images} images and {labels} labels")]
    Counts {
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A folder without the set.
    #[error(
        "holds neither data_batch_1.bin .. data_batch_5.bin, test_batch.bin nor data_batch_1 .. data_batch_5, test_batch"
    )]
    NotThere,
}

/// The whole set from `folder`, or from the folder in it that the official archives make.
///
/// # Errors
/// [`DataError::Images`].
pub fn read(folder: &Path) -> Result<Cifar10, DataError> {
    let layouts = [("cifar-10-batches-bin", ".bin"), ("cifar-10-batches-py", "")];
    for (inner, ending) in layouts {
        for place in [folder.to_owned(), folder.join(inner)] {
            if place.join(format!("test_batch{ending}")).is_file() {
                let file = |name: &str| read_file(&place.join(format!("{name}{ending}")));
                let mut training = Images::empty(3, SIDE);
                for batch in 1..=5 {
                    training.append(file(&format!("data_batch_{batch}"))?);
                }
                return Ok(Cifar10 { training, test: file("test_batch")? });
            }
        }
    }
    Err(DataError::images(folder, ImageProblem::NotThere))
}

/// The images of one file; python's where it begins as a pickle does, else binary.
///
/// # Errors
/// [`DataError::Images`].
pub fn read_file(path: &Path) -> Result<Images, DataError> {
    let problem = |problem: ImageProblem| DataError::images(path, problem);
    let io = |error: std::io::Error| problem(error.into());
    let found = std::fs::metadata(path).map_err(io)?.len();
    if found > LARGEST {
        return Err(problem(ImageProblem::TooLarge { found }));
    }
    parse(&std::fs::read(path).map_err(io)?).map_err(problem)
}

/// The images in the bytes of a file.
///
/// # Errors
/// [`ImageProblem`].
pub fn parse(bytes: &[u8]) -> Result<Images, ImageProblem> {
    // A pickle's first byte is no label.
    if bytes.first() == Some(&0x80) { parse_python(bytes) } else { parse_binary(bytes) }
}

fn parse_binary(bytes: &[u8]) -> Result<Images, ImageProblem> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(PIXELS + 1) {
        return Err(ImageProblem::Length { found: bytes.len() });
    }
    let mut images = Images::empty(3, SIDE);
    for (index, record) in bytes.chunks_exact(PIXELS + 1).enumerate() {
        images.push(label(index, i64::from(record[0]))?, &record[1..]);
    }
    Ok(images)
}

fn parse_python(bytes: &[u8]) -> Result<Images, ImageProblem> {
    let batch = pickle::read_batch(bytes).map_err(ImageProblem::Pickle)?;
    if !batch.data.len().is_multiple_of(PIXELS) || batch.rows != batch.data.len() / PIXELS {
        return Err(ImageProblem::Pickle("`data` is not n x 3072 bytes"));
    }
    let (count, labels) = (batch.rows, batch.labels.len());
    if count != labels {
        return Err(ImageProblem::Counts { images: count, labels });
    }
    let mut images = Images::empty(3, SIDE);
    let rows = batch.data.chunks_exact(PIXELS).zip(&batch.labels);
    for (index, (pixels, &found)) in rows.enumerate() {
        images.push(label(index, found)?, pixels);
    }
    Ok(images)
}

fn label(index: usize, found: i64) -> Result<u8, ImageProblem> {
    u8::try_from(found)
        .ok()
        .filter(|label| *label < CLASSES)
        .ok_or(ImageProblem::Label { index, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    /// Three records with labels 3, 0, 9 and pixels that tell their place.
    fn binary() -> Vec<u8> {
        let record = |(i, label): (usize, u8)| {
            let pixels = (0..PIXELS).map(move |p| (i * 7 + p % 251) as u8);
            std::iter::once(label).chain(pixels)
        };
        [3, 0, 9].into_iter().enumerate().flat_map(record).collect()
    }

    /// The same as Python 2 pickles the official files.
    fn python() -> Vec<u8> {
        let binary = binary();
        let mut data = Vec::new();
        binary.chunks(PIXELS + 1).for_each(|record| data.extend_from_slice(&record[1..]));
        let mut bytes =
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05trialq\x03U\x06labelsq\x04]q\x05".to_vec();
        bytes.extend_from_slice(
            b"(K\x03K\x00K\x09eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07",
        );
        bytes.extend_from_slice(
            b"cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01K\x03M\x00\x0c\x86",
        );
        bytes.extend_from_slice(b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN");
        bytes.extend_from_slice(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
        bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&data);
        bytes.extend_from_slice(b"tbu.");
        bytes
    }

    #[test]
    fn both_layouts_give_the_same_images() {
        let images = parse(&binary()).unwrap();
        assert_eq!(images.labels(), [3, 0, 9]);
        assert_eq!(images.pixels(1)[PIXELS - 1], (7 + (PIXELS - 1) % 251) as u8);
        assert_eq!(parse(&python()).unwrap(), images);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = binary();
        let error = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(error(&good[..good.len() - 1]).contains("whole number of records"));
        assert!(error(&[&good[..], &[0]].concat()).contains("whole number of records"));
        let mut label = good.clone();
        label[PIXELS + 1] = 10;
        assert!(error(&label).contains("image 1 has the label 10"));
        let pickled = python();
        assert!(error(&pickled[..200]).contains("no pickled batch"));
        assert!(error(b"").contains("0 bytes"));
    }

    #[test]
    fn ten_thousand_corrupted_files_are_answered_without_a_panic() {
        let mut stream = Seed::root(4).child("corrupt").stream();
        let mut refused = 0;
        for good in [binary(), python()] {
            for trial in 0..10_000 {
                let mut bytes = good.clone();
                // Damage where the structure is, in half of the trials.
                let near = if trial % 2 == 0 { 260.min(good.len()) } else { good.len() };
                for _ in 0..1 + stream.below(4) {
                    let at = stream.below(near as u64) as usize;
                    bytes[at] = stream.below(256) as u8;
                }
                if stream.below(4) == 0 {
                    bytes.truncate(stream.below(good.len() as u64) as usize);
                }
                refused += usize::from(parse(&bytes).is_err());
            }
        }
        assert!((5_000..20_000).contains(&refused), "{refused}");
    }

    #[test]
    fn nesting_and_growth_are_bounded() {
        // A million tuples within each other, a million marks, a reference to what is not there.
        let deep = [&b"\x80\x02N"[..], &vec![0x85; 1 << 20], b"."].concat();
        let marks = [&b"\x80\x02"[..], &vec![b'('; 1 << 21], b"."].concat();
        for bytes in [deep, marks, b"\x80\x02h\x05.".to_vec()] {
            assert!(matches!(parse(&bytes), Err(ImageProblem::Pickle(_))));
        }
    }

    #[test]
    fn the_real_set_is_read_where_it_is() {
        let Some(folder) = std::env::var_os("PEFTML_DATA") else { return };
        let folder = Path::new(&folder).join("cifar-10-batches-bin");
        if !folder.is_dir() {
            return;
        }
        let set = read(&folder).unwrap();
        assert_eq!((set.training.len(), set.test.len()), (50_000, 10_000));
        for class in 0..CLASSES {
            assert_eq!(set.test.labels().iter().filter(|label| **label == class).count(), 1000);
        }
    }
}
