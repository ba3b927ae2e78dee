//! Damaged and hostile files give one sentence, never a panic, and never other numbers than those
//! that were written; what is undamaged reads back to the last bit.

use faer::Mat;
use peftml_data::{DataError, linear};
use peftml_linalg::{Seed, Stream};
use peftml_theory::linear::Tasks;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::CompressionMethod::{self, Deflated, Stored};
use zip::write::{SimpleFileOptions, ZipWriter};

const T: usize = 3;
const D: usize = 4;
const N: usize = 9;

/// A folder for files that are read once.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("tasks.npz");
        // A new file each time: some file systems flush one that is cut and written again.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, bytes: &[u8]) -> Result<Tasks, DataError> {
        linear::read_tasks(&self.file(bytes))
    }

    /// The sentence of the error; its form is checked.
    fn refusal(&self, bytes: &[u8]) -> String {
        let error = self.read(bytes).expect_err("a refusal");
        sentence(&error, self.folder.path())
    }
}

fn sentence(error: &DataError, folder: &Path) -> String {
    let text = error.to_string();
    assert!(text.starts_with(&folder.display().to_string()), "names no file: {text}");
    assert!(!text.chars().any(char::is_control), "several lines: {text:?}");
    assert!(text.len() < 600, "no sentence: {text}");
    assert!(!text.contains(". "), "several sentences: {text}");
    text
}

fn header(dtype: &str, fortran: bool, shape: &str) -> String {
    let fortran = if fortran { "True" } else { "False" };
    format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

fn npy(version: u8, text: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    let padded = format!("{text:<117}\n");
    match version {
        1 => bytes.extend((padded.len() as u16).to_le_bytes()),
        _ => bytes.extend((padded.len() as u32).to_le_bytes()),
    }
    bytes.extend(padded.bytes());
    bytes.extend(data);
    bytes
}

fn npz(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn random(count: usize, label: &str) -> Vec<f64> {
    let mut stream = Seed::root(1).child(label).stream();
    (0..count).map(|_| stream.normal()).collect()
}

fn le(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `values` of shape (a, b, c) from C to Fortran order.
fn fortran(values: &[f64], [a, b, c]: [usize; 3]) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for k in 0..c {
        for j in 0..b {
            out.extend((0..a).map(|i| values[(i * b + j) * c + k]));
        }
    }
    out
}

fn second_moments() -> Vec<f64> {
    let factor = random(T * D * D, "S");
    let mut s = Vec::new();
    for t in 0..T {
        let at = |i: usize, j: usize| factor[(t * D + i) * D + j];
        for i in 0..D {
            for j in 0..D {
                s.push((0..D).map(|m| at(i, m) * at(j, m)).sum::<f64>());
            }
        }
    }
    s
}

fn exact() -> Vec<u8> {
    npy(1, &header("<f8", false, "(3, 4, 4)"), &le(&random(T * D * D, "A")))
}

/// One honest file of every kind, with a name.
fn honest_files() -> Vec<(&'static str, Vec<u8>)> {
    let a = random(T * D * D, "A");
    let big_fortran: Vec<u8> =
        fortran(&a, [T, D, D]).iter().flat_map(|v| v.to_be_bytes()).collect();
    let single: Vec<u8> = a.iter().flat_map(|v| (*v as f32).to_be_bytes()).collect();
    let integers: Vec<u8> = a.iter().flat_map(|v| ((v * 100.0) as i16).to_le_bytes()).collect();
    let moments = || npy(2, &header("<f8", false, "(3, 4, 4)"), &le(&second_moments()));
    let samples =
        |label| npy(1, &header("<f8", false, "(3, 4, 9)"), &le(&random(T * D * N, label)));
    vec![
        ("exact", npz(Stored, &[("A.npy", exact())])),
        ("moments", npz(Deflated, &[("A.npy", exact()), ("S.npy", moments())])),
        (
            "samples",
            npz(
                Deflated,
                &[("X.npy", samples("X")), ("Y.npy", samples("Y")), ("A_true.npy", exact())],
            ),
        ),
        (
            "fortran",
            npz(Stored, &[("A.npy", npy(3, &header(">f8", true, "(3, 4, 4)"), &big_fortran))]),
        ),
        ("single", npz(Stored, &[("A.npy", npy(1, &header(">f4", false, "(3, 4, 4)"), &single))])),
        (
            "integers",
            npz(Deflated, &[("A.npy", npy(1, &header("<i2", false, "(3, 4, 4)"), &integers))]),
        ),
    ]
}

/// Equal to the last bit.
fn same(a: &Tasks, b: &Tasks) -> bool {
    let bits = |m: faer::MatRef<'_, f64>| -> Vec<u64> {
        (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)].to_bits())).collect()
    };
    a.count() == b.count()
        && a.storage_roundoff() == b.storage_roundoff()
        && a.iter().zip(b.iter()).all(|(a, b)| {
            a.source() == b.source()
                && a.residual_loss().to_bits() == b.residual_loss().to_bits()
                && bits(a.least_squares()) == bits(b.least_squares())
                && a.second_moment().map(bits) == b.second_moment().map(bits)
        })
}

#[test]
fn honest_files_read_back_to_the_last_bit() {
    let folder = Folder::new();
    let a = random(T * D * D, "A");
    let expected = |convert: fn(f64) -> f64| {
        let matrix = |t: usize| Mat::from_fn(D, D, |i, j| convert(a[(t * D + i) * D + j]));
        Tasks::exact((0..T).map(matrix)).unwrap()
    };
    for (name, bytes) in honest_files() {
        let read = folder.read(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let truth = match name {
            "exact" | "fortran" => expected(|v| v),
            "single" => expected(|v| f64::from(v as f32)),
            "integers" => expected(|v| f64::from((v * 100.0) as i16)),
            _ => continue,
        };
        for t in 0..T {
            assert_eq!(read.task(t).least_squares(), truth.task(t).least_squares(), "{name}");
        }
        let single = name == "single";
        assert_eq!(read.storage_roundoff() > f64::EPSILON, single, "{name}");
    }
}

/// One corruption of `bytes`; it may by chance change nothing.
fn corrupt(bytes: &[u8], other: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len() as u64;
    let place = |stream: &mut Stream| stream.below(length) as usize;
    match stream.below(6) {
        0 => {
            for _ in 0..=stream.below(4) {
                let at = place(stream);
                bytes[at] ^= 1 << stream.below(8);
            }
        }
        1 => bytes.truncate(place(stream)),
        2 => {
            let (from, to) = (place(stream), place(stream));
            bytes.drain(from.min(to)..from.max(to));
        }
        3 => {
            let from = stream.below(other.len() as u64) as usize;
            let to = from + stream.below((other.len() - from) as u64 + 1) as usize;
            let at = place(stream);
            let end = (at + (to - from)).min(bytes.len());
            let end = if stream.below(2) == 0 { at } else { end };
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        4 => {
            // A field of one of the zip records says something else.
            let records: Vec<usize> =
                (0..bytes.len() - 4).filter(|i| bytes[*i..].starts_with(b"PK")).collect();
            let record = records[stream.below(records.len() as u64) as usize];
            let at = (record + 4 + stream.below(42) as usize).min(bytes.len() - 4);
            let value = [0, 1, 2, 0xff, 0xffff, 0x7fff_ffff, u32::MAX][stream.below(7) as usize];
            let width = [2, 4][stream.below(2) as usize];
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        _ => {
            let at = place(stream);
            let end = (at + 1 + stream.below(64) as usize).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|b| *b = stream.below(256) as u8);
        }
    }
    bytes
}

#[test]
fn corrupted_files_give_a_sentence_or_the_same_numbers() {
    let folder = Folder::new();
    let files = honest_files();
    let (mut refused, mut unharmed) = (0, 0);
    for (f, (name, bytes)) in files.iter().enumerate() {
        let original = folder.read(bytes).unwrap();
        let other = &files[(f + 1) % files.len()].1;
        for round in 0..1500_u64 {
            let mut stream = Seed::root(2).child(*name).child(round).stream();
            let corrupted = corrupt(bytes, other, &mut stream);
            match folder.read(&corrupted) {
                Ok(read) => {
                    assert!(same(&read, &original), "{name} {round}: other numbers");
                    unharmed += 1;
                }
                Err(error) => {
                    sentence(&error, folder.folder.path());
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused + unharmed, 9000);
    // What may pass unseen: times, attributes, comments, and corruptions that change nothing.
    assert!(refused > 8000, "only {refused} of 9000 were noticed");
}

#[test]
fn corrupted_points_give_a_sentence_or_the_same_numbers() {
    let folder = Folder::new();
    let array = |shape: &str, count: usize, label: &str| {
        npy(1, &header("<f8", false, shape), &le(&random(count, label)))
    };
    let point = |method, asymmetric: bool| {
        let mut members =
            vec![("A.npy", array("(4, 4)", 16, "A")), ("U.npy", array("(3, 4, 2)", 24, "U"))];
        if asymmetric {
            members.push(("V.npy", array("(3, 4, 2)", 24, "V")));
        }
        npz(method, &members)
    };
    let files = [point(Stored, false), point(Deflated, false), point(Stored, true)];
    let numbers = |p: &linear::Point| -> Vec<u64> {
        let adapters = p.adapters.iter().flat_map(|a| [a.left(), a.right()]);
        std::iter::once(p.base.as_ref())
            .chain(adapters)
            .flat_map(|m| (0..m.ncols()).flat_map(move |j| (0..m.nrows()).map(move |i| m[(i, j)])))
            .map(f64::to_bits)
            .collect()
    };
    let (mut refused, mut unharmed) = (0, 0);
    for round in 0..10_000_u64 {
        let mut stream = Seed::root(5).child(round).stream();
        let which = stream.below(3) as usize;
        let corrupted = corrupt(&files[which], &files[(which + 1) % 3], &mut stream);
        match linear::read_point(&folder.file(&corrupted)) {
            Ok(read) => {
                // Another file's whole end may have taken the place of this one's.
                let honest = files.iter().map(|f| linear::read_point(&folder.file(f)).unwrap());
                let same = honest
                    .into_iter()
                    .any(|p| p.kind == read.kind && numbers(&p) == numbers(&read));
                assert!(same, "{round}: other numbers");
                unharmed += 1;
            }
            Err(error) => {
                sentence(&error, folder.folder.path());
                refused += 1;
            }
        }
    }
    assert!(refused > 8500 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn lying_headers_with_honest_checksums_are_refused() {
    let folder = Folder::new();
    let honest = header("<f8", false, "(3, 4, 4)");
    let data = le(&random(T * D * D, "A"));
    let (mut refused, mut read) = (0, 0);
    for round in 0..2000_u64 {
        let mut stream = Seed::root(3).child(round).stream();
        let mut text = honest.clone().into_bytes();
        for _ in 0..=stream.below(3) {
            let at = stream.below(text.len() as u64) as usize;
            let printable = b' ' + stream.below(95) as u8;
            match stream.below(3) {
                0 => text[at] = printable,
                1 => text.insert(at, printable),
                _ => drop(text.remove(at)),
            }
        }
        let text = String::from_utf8(text).unwrap();
        let version = 1 + stream.below(3) as u8;
        let file = npz(Stored, &[("A.npy", npy(version, &text, &data))]);
        match folder.read(&file) {
            Ok(_) => read += 1,
            Err(error) => {
                sentence(&error, folder.folder.path());
                refused += 1;
            }
        }
    }
    // Blanks, the byte order and the like leave an honest header; most edits do not.
    assert!(refused > 1500 && read > 0, "{refused} refused, {read} read");
}

#[test]
fn hostile_archives_are_refused_with_their_reason() {
    let folder = Folder::new();
    let honest = npz(Stored, &[("A.npy", exact())]);
    let two = npz(Stored, &[("A.npy", exact()), ("B.npy", exact())]);
    let find = |bytes: &[u8], magic: &[u8]| {
        (0..bytes.len()).rev().find(|i| bytes[*i..].starts_with(magic)).unwrap()
    };
    let patched = |bytes: &[u8], patches: &[(usize, &[u8])]| {
        let mut bytes = bytes.to_vec();
        for (at, patch) in patches {
            bytes[*at..at + patch.len()].copy_from_slice(patch);
        }
        bytes
    };
    let (central, end) = (find(&honest, b"PK\x01\x02"), find(&honest, b"PK\x05\x06"));
    let renamed = {
        let mut bytes = two.clone();
        for i in 0..bytes.len() - 5 {
            if &bytes[i..i + 5] == b"B.npy" {
                bytes[i] = b'A';
            }
        }
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("is empty", vec![]),
        ("no .npz file", b"x,y\n1,2\n".to_vec()),
        ("single .npy array", exact()),
        ("truncated or damaged", honest[..honest.len() / 2].to_vec()),
        ("truncated or damaged", honest[..honest.len() - 1].to_vec()),
        ("two arrays called A", renamed),
        ("has two arrays called A", npz(Stored, &[("A.npy", exact()), ("A", exact())])),
        ("encrypted", patched(&honest, &[(6, &[1]), (central + 8, &[1])])),
        ("compressed by", patched(&honest, &[(8, &[12]), (central + 10, &[12])])),
        ("checksum", patched(&honest, &[(14, &[9; 4]), (central + 16, &[9; 4])])),
        ("checksum", patched(&honest, &[(300, &[9])])),
        ("members; at most", patched(&honest, &[(end + 8, &[0x10, 0x27, 0x10, 0x27])])),
        ("damaged", patched(&two, &[(find(&two, b"PK\x05\x06") + 8, &[1, 0, 1, 0])])),
        ("which its compression cannot give", patched(&honest, &[(central + 24, &[9; 3])])),
        ("has no array A", npz(Stored, &[("B.npy", exact())])),
        ("it has no arrays", npz(Stored, &[])),
        ("has A beside X", npz(Stored, &[("A.npy", exact()), ("X.npy", exact())])),
        ("has no array Y", npz(Stored, &[("X.npy", exact())])),
        ("is no .npy array", npz(Stored, &[("A.npy", b"not an array".to_vec())])),
        ("is no .npy array", npz(Stored, &[("A.npy", vec![])])),
    ];
    for (reason, bytes) in cases {
        let said = folder.refusal(&bytes);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    assert!(folder.read(&honest).is_ok() && folder.read(&two).is_ok());
}

#[test]
fn zip64_files_and_comments_are_read_and_lying_zip64_records_refused() {
    let folder = Folder::new();
    let zip64 = |count: u64, comment: &str| {
        let mut bytes = npz(Stored, &[("A.npy", exact())]);
        let at = |magic: &[u8], bytes: &[u8]| {
            (0..bytes.len()).rev().find(|i| bytes[*i..].starts_with(magic)).unwrap()
        };
        let (central, end) = (at(b"PK\x01\x02", &bytes), at(b"PK\x05\x06", &bytes));
        bytes.truncate(end);
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44_u64.to_le_bytes());
        bytes.extend([45, 0, 45, 0]);
        bytes.extend([0; 8]);
        bytes.extend(count.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(((end - central) as u64).to_le_bytes());
        bytes.extend((central as u64).to_le_bytes());
        bytes.extend(b"PK\x06\x07");
        bytes.extend([0; 4]);
        bytes.extend((end as u64).to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0, 0, 0, 0]);
        bytes.extend([0xff; 12]);
        bytes.extend((comment.len() as u16).to_le_bytes());
        bytes.extend(comment.bytes());
        bytes
    };
    let honest = folder.read(&npz(Stored, &[("A.npy", exact())])).unwrap();
    for comment in ["", "a comment", "with PK\x05\x06 inside"] {
        let read = folder.read(&zip64(1, comment)).unwrap_or_else(|e| panic!("{comment}: {e}"));
        assert!(same(&read, &honest));
    }
    for count in [2000, u64::MAX / 64, u64::MAX] {
        let said = folder.refusal(&zip64(count, ""));
        assert!(said.contains("members; at most 1024"), "{said}");
    }
}

#[test]
fn sizes_that_lie_or_explode_are_refused_without_the_memory() {
    let folder = Folder::new();
    let bytes = random(T * D * D, "A");
    let with = |shape: &str| {
        let array = npy(1, &header("<f8", false, shape), &le(&bytes));
        folder.refusal(&npz(Stored, &[("A.npy", array)]))
    };
    for shape in ["(3, 4, 5)", "(3, 4, 3)", "(1000000, 1000, 1000)", "(0, 4, 4)", "()"] {
        let said = with(shape);
        assert!(said.contains("has shape") && said.contains("but holds 384"), "{shape}: {said}");
    }
    // Honest, but more numbers than are read: 64 MiB of zeros that deflate to 64 KiB.
    let many = npy(1, &header("|i1", false, "(1, 8193, 8193)"), &vec![0; 8193 * 8193]);
    let said = folder.refusal(&npz(Deflated, &[("A.npy", many.clone())]));
    assert!(said.contains("numbers are read"), "{said}");
    // The same with sizes that claim a small array: inflating stops at the declared size.
    let mut lying = npz(Deflated, &[("A.npy", many)]);
    let central = (0..lying.len()).rev().find(|i| lying[*i..].starts_with(b"PK\x01\x02")).unwrap();
    for at in [22, central + 24] {
        lying[at..at + 4].copy_from_slice(&512_u32.to_le_bytes());
    }
    let said = folder.refusal(&lying);
    assert!(said.contains("A: is damaged: ") || said.contains("but holds"), "{said}");
    // Several members that declare more than a file may.
    let mut claims = npz(Deflated, &[("A.npy", vec![0; 4 << 20]), ("B.npy", vec![0; 4 << 20])]);
    for i in 0..claims.len() - 30 {
        let at = match &claims[i..i + 4] {
            b"PK\x03\x04" => i + 22,
            b"PK\x01\x02" => i + 24,
            _ => continue,
        };
        claims[at..at + 4].copy_from_slice(&(4_000_000_u32).to_le_bytes());
    }
    let said = folder.refusal(&claims);
    assert!(said.contains("is damaged"), "{said}");
}

#[test]
fn wrong_numbers_shapes_and_moments_are_refused_by_place() {
    let folder = Folder::new();
    let array = |shape: &str, values: &[f64]| npy(1, &header("<f8", false, shape), &le(values));
    let a = random(T * D * D, "A");
    let with = |at: usize, value: f64| {
        let mut values = a.clone();
        values[at] = value;
        folder.refusal(&npz(Stored, &[("A.npy", array("(3, 4, 4)", &values))]))
    };
    assert!(with(27, f64::NAN).contains("A: has the entry NaN at (1, 2, 3)"));
    assert!(with(0, f64::INFINITY).contains("inf at (0, 0, 0)"));
    assert!(with(47, 1e80).contains("at (2, 3, 3)"));
    let refused = |members: &[(&str, Vec<u8>)]| folder.refusal(&npz(Stored, members));
    assert!(refused(&[("A.npy", array("(12, 4)", &a))]).contains("(T, d, d)"));
    assert!(refused(&[("A.npy", array("(4, 3, 4)", &a))]).contains("(T, d, d)"));
    assert!(refused(&[("A.npy", array("(0, 4, 4)", &[]))]).contains("none of them 0"));
    let good = || ("A.npy", array("(3, 4, 4)", &a));
    let said = refused(&[good(), ("S.npy", array("(2, 4, 4)", &a[..32]))]);
    assert!(said.contains("S: has shape (2, 4, 4); (3, 4, 4) as of A"), "{said}");
    let said = refused(&[good(), ("S.npy", array("(3, 4, 4)", &a))]);
    assert!(said.contains("S of task 0 is not symmetric"), "{said}");
    let mut negative = second_moments();
    negative.iter_mut().for_each(|v| *v = -*v);
    let said = refused(&[good(), ("S.npy", array("(3, 4, 4)", &negative))]);
    assert!(said.contains("not positive semidefinite"), "{said}");
    let x = || ("X.npy", array("(3, 4, 4)", &a));
    let said = refused(&[x(), ("Y.npy", array("(3, 4, 3)", &a[..36]))]);
    assert!(said.contains("Y: has shape (3, 4, 3); (3, 4, 4) as of X"), "{said}");
    // Control.
    assert!(
        folder
            .read(&npz(Stored, &[good(), ("S.npy", array("(3, 4, 4)", &second_moments()))]))
            .is_ok()
    );
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = Folder::new();
    for path in [folder.folder.path().to_owned(), folder.folder.path().join("missing.npz")] {
        let error = linear::read_tasks(&path).expect_err("no file");
        sentence(&error, folder.folder.path());
    }
}

#[test]
fn bases_points_and_test_tasks_have_their_shapes() {
    let folder = Folder::new();
    let array = |shape: &str, count: usize| {
        npy(1, &header("<f8", false, shape), &le(&random(count, "any")))
    };
    let a = || ("A.npy", array("(4, 4)", 16));
    let file = |members: &[(&str, Vec<u8>)]| folder.file(&npz(Stored, members));
    let point = linear::read_point(&file(&[a(), ("U.npy", array("(3, 4, 2)", 24))])).unwrap();
    assert_eq!((point.adapters.len(), point.adapters[0].width()), (3, 2));
    assert_eq!(point.adapters[1].left(), point.adapters[1].right());
    for bad in ["(3, 5, 2)", "(4, 2)", "(0, 4, 2)"] {
        let count = if bad == "(0, 4, 2)" {
            0
        } else if bad == "(4, 2)" {
            8
        } else {
            30
        };
        let path = file(&[a(), ("U.npy", array(bad, count))]);
        let said = linear::read_point(&path).expect_err(bad).to_string();
        assert!(said.contains("d = 4 as in A"), "{said}");
    }
    let uneven = file(&[a(), ("U.npy", array("(3, 4, 2)", 24)), ("V.npy", array("(3, 4, 1)", 12))]);
    assert!(linear::read_point(&uneven).is_err());
    assert_eq!(linear::read_base(&file(&[a()])).unwrap().matrix.nrows(), 4);
    assert!(linear::read_base(&file(&[("A.npy", array("(4, 3)", 12))])).is_err());
    for shape in ["(4, 4)", "(1, 4, 4)"] {
        let test = linear::read_test_task(&file(&[("A.npy", array(shape, 16))])).unwrap();
        assert_eq!((test.count(), test.dimension()), (1, 4));
    }
    assert!(linear::read_test_task(&file(&[("A.npy", array("(2, 4, 4)", 32))])).is_err());
    let samples = file(&[("X.npy", array("(4, 3)", 12)), ("Y.npy", array("(4, 3)", 12))]);
    assert!(linear::read_test_task(&samples).is_ok());
}
