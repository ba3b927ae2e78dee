//! CIFAR-10: from its official home by curl, with resumption, or from files at hand; in both cases every
//! file's checksum is compared with the published one before it stands in its place.
//!
//! Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

use crate::failure::Failure;
use crate::scratch::Scratch;
use crate::workspace;
use md5::{Digest, Md5};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder that the archive makes.
pub const FOLDER: &str = "cifar-10-batches-bin";

/// Where a set is, and what its files' checksums are.
pub struct Set {
    url: &'static str,
    archive: Checked,
    files: &'static [Checked],
}

/// A file with its MD5.
#[derive(Clone, Copy)]
struct Checked {
    name: &'static str,
    md5: &'static str,
}

const fn checked(name: &'static str, md5: &'static str) -> Checked {
    Checked { name, md5 }
}

/// As published at <https://www.cs.toronto.edu/~kriz/cifar.html>.
pub const OFFICIAL: Set = Set {
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    archive: checked("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    files: &[
        checked("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
        checked("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
        checked("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
        checked("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
        checked("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
        checked("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d"),
    ],
};

/// Puts `set` into its folder below `data` and returns that folder; from the files or the archive in
/// `from`, else by a download that goes on where an earlier one broke off.
///
/// # Errors
/// [`Failure::Work`] for files that are not there, cannot be written or have another checksum, and where
/// curl or tar cannot be started; [`Failure::Child`] where they fail.
pub fn get(set: &Set, data: &Path, from: Option<&Path>) -> Result<PathBuf, Failure> {
    let place = data.join(FOLDER);
    if set.files.iter().all(|file| check(file, &place.join(file.name)).is_ok()) {
        return Ok(place);
    }
    std::fs::create_dir_all(data).map_err(|error| trouble(data, &error))?;
    let scratch = Scratch::new(data)?;
    let source = match from {
        Some(from) => at_hand(set, from, scratch.path())?,
        None => {
            let archive = download(set, data)?;
            let unpacked = unpack(&archive, scratch.path())?;
            // The unpacked files are what is needed from here on.
            let _ = std::fs::remove_file(&archive);
            unpacked
        }
    };
    let made = scratch.path().join("made");
    std::fs::create_dir(&made).map_err(|error| trouble(&made, &error))?;
    for file in set.files {
        let (old, new) = (source.join(file.name), made.join(file.name));
        std::fs::copy(&old, &new).map_err(|error| trouble(&old, &error))?;
        check(file, &new).map_err(|found| wrong(&old, file, &found))?;
    }
    // Whole or not at all: a folder of ours that is there holds files of another set.
    std::fs::create_dir_all(&place).map_err(|error| trouble(&place, &error))?;
    for file in set.files {
        let new = place.join(file.name);
        std::fs::rename(made.join(file.name), &new).map_err(|error| trouble(&new, &error))?;
    }
    Ok(place)
}

/// The folder of the files in `from`: itself, the official folder in it, or its archive unpacked.
fn at_hand(set: &Set, from: &Path, scratch: &Path) -> Result<PathBuf, Failure> {
    let first = set.files.first().map_or("", |file| file.name);
    for folder in [from.to_owned(), from.join(FOLDER)] {
        if folder.join(first).is_file() {
            return Ok(folder);
        }
    }
    let archive = from.join(set.archive.name);
    if !archive.is_file() {
        let message = format!("{} holds neither {first} nor {}", from.display(), set.archive.name);
        return Err(Failure::Work(message));
    }
    check(&set.archive, &archive).map_err(|found| wrong(&archive, &set.archive, &found))?;
    unpack(&archive, scratch)
}

/// The archive below `data`, complete.
fn download(set: &Set, data: &Path) -> Result<PathBuf, Failure> {
    let part = data.join(format!("{}.part", set.archive.name));
    if check(&set.archive, &part).is_err() {
        eprintln!("{}", set.url);
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--location", "--retry", "3", "--continue-at", "-", "--output"]);
        run("curl", curl.arg(&part).arg(set.url))?;
        check(&set.archive, &part).map_err(|found| {
            // What is wrong would be wrong again with more of it behind.
            let _ = std::fs::remove_file(&part);
            wrong(&part, &set.archive, &found)
        })?;
    }
    Ok(part)
}

/// The official folder in `archive`, unpacked below `scratch`.
fn unpack(archive: &Path, scratch: &Path) -> Result<PathBuf, Failure> {
    run("tar", Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(scratch))?;
    Ok(scratch.join(FOLDER))
}

fn run(tool: &str, command: &mut Command) -> Result<(), Failure> {
    match workspace::run(command.stdin(Stdio::null())) {
        Err(Failure::Work(reason)) => Err(Failure::Work(format!(
            "{reason}; install {tool}, or get {} yourself and name its folder with --from",
            OFFICIAL.url
        ))),
        other => other,
    }
}

/// Whether `path` has the checksum; what it has instead (or why that cannot be told) where not.
fn check(file: &Checked, path: &Path) -> Result<(), String> {
    let mut reader = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let (mut hash, mut buffer) = (Md5::new(), vec![0; 1 << 16]);
    loop {
        match reader.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == file.md5 { Ok(()) } else { Err(found) }
}

fn wrong(path: &Path, file: &Checked, found: &str) -> Failure {
    let (path, md5) = (path.display(), file.md5);
    Failure::Work(format!("{path}: its MD5 is {found}, that of {} is {md5}", file.name))
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Work(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two small files, `one\n` and `two\n`.
    const SMALL: Set = Set {
        url: "file:///no/such/archive",
        archive: checked("small.tar.gz", "00000000000000000000000000000000"),
        files: &[
            checked("data_batch_1.bin", "5bbf5a52328e7439ae6e719dfe712200"),
            checked("test_batch.bin", "c193497a1a06b2c72230e6146ff47080"),
        ],
    };

    fn files(folder: &Path, [one, two]: [&str; 2]) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("data_batch_1.bin"), one).unwrap();
        std::fs::write(folder.join("test_batch.bin"), two).unwrap();
    }

    #[test]
    fn files_at_hand_are_taken_where_their_checksums_are_right() {
        for inner in ["", FOLDER] {
            let [data, from] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            files(&from.path().join(inner), ["one\n", "two\n"]);
            let place = get(&SMALL, data.path(), Some(from.path())).unwrap();
            assert_eq!(place, data.path().join(FOLDER));
            assert_eq!(std::fs::read_to_string(place.join("test_batch.bin")).unwrap(), "two\n");
            // Nothing else is left there, and a second time needs no source.
            assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 1);
            assert_eq!(get(&SMALL, data.path(), None).unwrap(), place);
        }
    }

    #[test]
    fn a_wrong_file_is_named_and_nothing_is_put_in_place() {
        let [data, from] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let empty = get(&SMALL, data.path(), Some(from.path())).unwrap_err();
        assert!(empty.message().unwrap().contains("small.tar.gz"), "{empty:?}");
        files(from.path(), ["one\n", "twO\n"]);
        let failure = get(&SMALL, data.path(), Some(from.path())).unwrap_err();
        assert!(failure.message().unwrap().contains("test_batch.bin"), "{failure:?}");
        assert!(!data.path().join(FOLDER).exists());
        // An archive is judged before it is opened.
        let archive = tempfile::tempdir().unwrap();
        std::fs::write(archive.path().join("small.tar.gz"), "no archive").unwrap();
        let failure = get(&SMALL, data.path(), Some(archive.path())).unwrap_err();
        assert!(failure.message().unwrap().contains("MD5"), "{failure:?}");
    }

    /// A download from a file, broken off in the middle.
    #[cfg(unix)]
    #[test]
    fn a_download_goes_on_where_it_broke_off() {
        let there = |tool: &str| {
            Command::new(tool).arg("--version").output().is_ok_and(|found| found.status.success())
        };
        if !there("curl") || !there("tar") {
            return;
        }
        let [home, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        files(&home.path().join(FOLDER), ["one\n", "two\n"]);
        let archive = home.path().join("small.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(home.path()).arg(FOLDER);
        workspace::run(&mut tar).unwrap();
        let bytes = std::fs::read(&archive).unwrap();
        let md5: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // The set's addresses are constants elsewhere: these two live as long as the test's process.
        let set = Set {
            url: Box::leak(format!("file://{}", archive.display()).into_boxed_str()),
            archive: checked("small.tar.gz", Box::leak(md5.into_boxed_str())),
            files: SMALL.files,
        };
        let part = data.path().join("small.tar.gz.part");
        std::fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
        get(&set, data.path(), None).unwrap();
        assert!(!part.exists());
        // Control: a part of something else does not become the archive, and does not stay.
        let data = tempfile::tempdir().unwrap();
        let part = data.path().join("small.tar.gz.part");
        std::fs::write(&part, "something else").unwrap();
        let failure = get(&set, data.path(), None).unwrap_err();
        assert!(failure.message().unwrap().contains("MD5") && !part.exists(), "{failure:?}");
    }
}
