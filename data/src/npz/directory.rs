//! What is checked of a zip archive before anything is inflated.
//!
//! The zip reader reserves memory for as many members as the end record declares; a few bytes could
//! thus ask for any amount. [`check_end_records`] bounds that number first, for every end record
//! that the reader may consider. [`names`] reads the directory a second time, since the reader keeps only
//! one of two members of a name and as many members as the end record admits.

use crate::error::FileProblem;
use std::io::{self, Read, Seek, SeekFrom};

/// Most members of an archive that are read.
const MOST_MEMBERS: u64 = 1024;

/// Longest comment of an archive.
const MOST_COMMENT: u64 = 0xffff;

/// Bytes of an end record without its comment.
const END_LENGTH: usize = 22;

/// Bytes of the locator of a zip64 end record, which stands before the end record.
const LOCATOR_LENGTH: u64 = 20;

/// Bytes of a zip64 end record without extensible data.
const END64_LENGTH: usize = 56;

/// Bytes of a member's entry in the directory without its names.
const ENTRY_LENGTH: usize = 46;

/// Checks magic number and the declared numbers of members; `example` says what would be right for a
/// single array.
pub(super) fn check_end_records(
    file: &mut (impl Read + Seek),
    example: &'static str,
) -> Result<(), FileProblem> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(FileProblem::Empty);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut start = Vec::with_capacity(8);
    file.by_ref().take(6).read_to_end(&mut start)?;
    if start == b"\x93NUMPY" {
        return Err(FileProblem::SingleArray { example });
    }
    if !start.starts_with(b"PK\x03\x04") && !start.starts_with(b"PK\x05\x06") {
        return Err(FileProblem::NotZip);
    }
    let tail_start = length.saturating_sub(MOST_COMMENT + END_LENGTH as u64 + 4);
    file.seek(SeekFrom::Start(tail_start))?;
    let mut tail = Vec::new();
    file.by_ref().take(length - tail_start).read_to_end(&mut tail)?;
    for position in 0..tail.len().saturating_sub(END_LENGTH - 1) {
        let record = &tail[position..position + END_LENGTH];
        if record.starts_with(b"PK\x05\x06") {
            check_end_record(file, record, tail_start + position as u64)?;
        }
    }
    Ok(())
}

fn check_end_record(
    file: &mut (impl Read + Seek),
    record: &[u8],
    position: u64,
) -> Result<(), FileProblem> {
    let mut found = u64::from(u16_at(record, 10));
    if let Some(record) = zip64_record(file, position)? {
        if u64_at(&record, 4) > MOST_COMMENT {
            return Err(FileProblem::Damaged { reason: "its zip64 end record is too long".into() });
        }
        // The larger one, whichever of the two the reader goes by.
        let stated = if found == 0xffff { 0 } else { found };
        found = stated.max(u64_at(&record, 32));
    }
    if found > MOST_MEMBERS {
        return Err(FileProblem::TooManyMembers { found, most: MOST_MEMBERS });
    }
    Ok(())
}

/// The zip64 end record that belongs to the end record at `position`, if there is one.
fn zip64_record(file: &mut (impl Read + Seek), position: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(locator_at) = position.checked_sub(LOCATOR_LENGTH) else { return Ok(None) };
    let locator = bytes_at(file, locator_at, LOCATOR_LENGTH as usize)?;
    if !locator.starts_with(b"PK\x06\x07") || locator.len() < LOCATOR_LENGTH as usize {
        return Ok(None);
    }
    let record = bytes_at(file, u64_at(&locator, 8), END64_LENGTH)?;
    let whole = record.starts_with(b"PK\x06\x06") && record.len() == END64_LENGTH;
    Ok(whole.then_some(record))
}

/// The names of the directory at `start`, in order and as often as they occur, and whether the
/// directory ends where an end record begins.
pub(super) fn names(file: &mut (impl Read + Seek), start: u64) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut names = Vec::new();
    let mut position = start;
    loop {
        let entry = bytes_at(file, position, ENTRY_LENGTH)?;
        let another = entry.starts_with(b"PK\x01\x02") && entry.len() == ENTRY_LENGTH;
        if !another || names.len() as u64 > MOST_MEMBERS {
            let ends = entry.starts_with(b"PK\x05\x06") || entry.starts_with(b"PK\x06\x06");
            return Ok((names, ends));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| u64::from(u16_at(&entry, at)));
        names.push(bytes_at(file, position + ENTRY_LENGTH as u64, name as usize)?);
        position += ENTRY_LENGTH as u64 + name + extra + comment;
    }
}

/// Up to `length` bytes from `position`; fewer where the file ends.
fn bytes_at(file: &mut (impl Read + Seek), position: u64, length: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::with_capacity(length);
    file.by_ref().take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
