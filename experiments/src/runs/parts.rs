//! Part files: one JSON line a finished or failed trial, appended by one process alone.
//!
//! Lines are written as trials finish and synced at most once a second, and at the end. A line is
//! whole if it ends in a line break; a last line that does not was torn by a kill or a full disk, and
//! its trial is computed again.

use super::provenance::{Origin, same_sources};
use super::study::{Instance, Outcome};
use super::{PartName, RunError, RunFolder};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Syncs are at least this far apart.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// One line of a part file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The trial's name.
    pub trial: String,
    /// Binary and machine.
    pub origin: Origin,
    /// When it was finished, seconds since 1970.
    pub at: u64,
    /// How long it took.
    pub seconds: f64,
    /// Lines of trials.csv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<String>,
    /// Lines of curves.csv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<String>,
    /// Lines of timings.csv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<String>,
    /// Why a method refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Cases that were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Why the trial failed; there are no lines then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Record {
    /// The record of a trial that ended with `outcome` after `seconds`.
    pub fn new(
        trial: &str,
        origin: Origin,
        at: u64,
        seconds: f64,
        outcome: Result<Outcome, String>,
    ) -> Self {
        let (outcome, failed) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(reason) => (Outcome::default(), Some(reason)),
        };
        let Outcome { trials, curves, timings, refused, instances } = outcome;
        Self {
            trial: trial.to_owned(),
            origin,
            at,
            seconds,
            trials,
            curves,
            timings,
            refused,
            instances,
            failed,
        }
    }

    /// Whether the results agree; times and origins may differ.
    fn agrees(&self, other: &Record) -> bool {
        self.trials == other.trials
            && self.curves == other.curves
            && self.refused == other.refused
            && self.instances == other.instances
    }
}

/// A part file under construction.
pub(super) struct PartWriter<W: Sink> {
    path: PathBuf,
    sink: W,
    written: u64,
    last_sync: Instant,
    dirty: bool,
}

/// Where lines go: a file, or in tests something that fails.
pub(super) trait Sink: Write {
    /// Forces what was written onto the disk.
    fn sync(&mut self) -> std::io::Result<()>;
    /// Cuts what was written after `length` bytes.
    fn cut(&mut self, length: u64) -> std::io::Result<()>;
}

impl Sink for File {
    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> std::io::Result<()> {
        self.set_len(length)
    }
}

impl PartWriter<File> {
    /// A new part file, which no other process writes.
    pub fn create(folder: &RunFolder, name: &PartName) -> Result<Self, RunError> {
        for attempt in 0.. {
            let path = folder.parts().join(name.file_name(attempt));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    sync_folder(&folder.parts());
                    return Ok(Self::new(path, file));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(RunError::Io { action: "make", path, source }),
            }
        }
        unreachable!("some number of attempts is free")
    }
}

impl<W: Sink> PartWriter<W> {
    /// Writes to `sink`, which `path` names in messages.
    pub fn new(path: PathBuf, sink: W) -> Self {
        Self { path, sink, written: 0, last_sync: Instant::now(), dirty: false }
    }

    /// Appends a record, and syncs if the last sync is a second ago. After an error nothing may be
    /// appended any more: the file may end in a torn line.
    pub fn append(&mut self, record: &Record) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        if let Err(source) = self.sink.write_all(&line) {
            // A full disk leaves room for less, never for more: the cut may fail, and need not work.
            let _ = self.sink.cut(self.written);
            return Err(RunError::Io { action: "write", path: self.path.clone(), source });
        }
        self.written += line.len() as u64;
        self.dirty = true;
        if self.last_sync.elapsed() >= SYNC_INTERVAL { self.sync() } else { Ok(()) }
    }

    /// Syncs what is not yet synced.
    pub fn sync(&mut self) -> Result<(), RunError> {
        if self.dirty {
            self.sink.sync().map_err(|source| RunError::Io {
                action: "sync",
                path: self.path.clone(),
                source,
            })?;
            self.dirty = false;
            self.last_sync = Instant::now();
        }
        Ok(())
    }
}

/// A new file's name is on the disk only when its folder is.
fn sync_folder(path: &Path) {
    // Not every file system can do this; where it cannot, a lost name means trials computed again.
    let _ = File::open(path).and_then(|folder| folder.sync_all());
}

/// All that the part files say.
#[derive(Default)]
pub(super) struct Finished {
    /// Finished trials with the file of each.
    pub records: HashMap<String, (Record, PathBuf)>,
    /// The last failure of trials that are not finished.
    pub failures: HashMap<String, Record>,
    /// Part files with a torn last line.
    pub torn: Vec<PathBuf>,
    /// Number of part files.
    pub files: usize,
}

impl Finished {
    /// Reads every part file.
    ///
    /// # Errors
    /// [`RunError::Io`], [`RunError::MalformedPart`], [`RunError::Conflict`].
    pub fn read(folder: &RunFolder) -> Result<Self, RunError> {
        let parts = folder.parts();
        let mut paths = Vec::new();
        let entries = match std::fs::read_dir(&parts) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(RunError::Io { action: "list", path: parts, source }),
        };
        for entry in entries {
            let path = entry.map_err(RunError::io("list", &parts))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut finished = Self { files: paths.len(), ..Self::default() };
        for path in paths {
            let bytes = std::fs::read(&path).map_err(RunError::io("read", &path))?;
            finished.add_file(&path, &bytes)?;
        }
        let Self { records, failures, .. } = &mut finished;
        failures.retain(|trial, _| !records.contains_key(trial));
        Ok(finished)
    }

    fn add_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), RunError> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            self.torn.push(path.to_owned());
        }
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            // The split leaves an empty piece after the last line break.
            if line.is_empty() {
                continue;
            }
            let record: Record =
                serde_json::from_slice(line).map_err(|error| RunError::MalformedPart {
                    path: path.to_owned(),
                    line: index + 1,
                    reason: format!("not a trial's record ({error})"),
                })?;
            self.add(record, path)?;
        }
        Ok(())
    }

    fn add(&mut self, record: Record, path: &Path) -> Result<(), RunError> {
        if record.failed.is_some() {
            let newer = self.failures.get(&record.trial).is_none_or(|old| old.at <= record.at);
            if newer {
                self.failures.insert(record.trial.clone(), record);
            }
            return Ok(());
        }
        match self.records.get(&record.trial) {
            Some((other, first)) if !other.agrees(&record) => Err(RunError::Conflict {
                trial: record.trial,
                first: first.clone(),
                second: path.to_owned(),
            }),
            Some(_) => Ok(()),
            None => {
                self.records.insert(record.trial.clone(), (record, path.to_owned()));
                Ok(())
            }
        }
    }

    /// Refuses a mixture of binaries or machines among `trials`, with `here` as another one where
    /// more is to be computed.
    ///
    /// # Errors
    /// [`RunError::Mixed`].
    pub fn check_origins<'t>(
        &self,
        trials: impl Iterator<Item = &'t str>,
        here: Option<&Origin>,
        allowed: Mixtures,
    ) -> Result<(), RunError> {
        let mut first: Option<&Origin> = here;
        for trial in trials {
            let Some((record, path)) = self.records.get(trial) else { continue };
            let expected = *first.get_or_insert(&record.origin);
            let found = &record.origin;
            let mixed = |what, found: &str, expected: &str, flag| RunError::Mixed {
                what,
                found: found.to_owned(),
                expected: expected.to_owned(),
                path: path.clone(),
                flag,
            };
            if !same_sources(&found.revision, &expected.revision) && !allowed.revisions {
                let flag = "--allow-mixed-revisions";
                return Err(mixed("revision", &found.revision, &expected.revision, flag));
            }
            if found.features != expected.features && !allowed.machines {
                let flag = "--allow-mixed-machines";
                return Err(mixed("CPU features", &found.features, &expected.features, flag));
            }
        }
        Ok(())
    }
}

/// Which mixtures of origins are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mixtures {
    /// Results of several binary revisions.
    pub revisions: bool,
    /// Results of machines with other CPU features.
    pub machines: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(trial: &str, line: &str) -> Record {
        let outcome = Outcome { trials: vec![line.to_owned()], ..Outcome::default() };
        Record::new(trial, Origin::here(), 1, 0.5, Ok(outcome))
    }

    fn bytes(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            out.extend(serde_json::to_vec(record).unwrap());
            out.push(b'\n');
        }
        out
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_lines_and_no_more() {
        let records = [record("a", "1"), record("b", "2"), record("c", "3")];
        let all = bytes(&records);
        for cut in 0..=all.len() {
            let mut finished = Finished::default();
            finished.add_file(Path::new("part"), &all[..cut]).unwrap();
            let whole = all[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(finished.records.len(), whole);
            let torn = cut > 0 && all[cut - 1] != b'\n';
            assert_eq!(finished.torn.len(), usize::from(torn), "cut at {cut}");
        }
    }

    #[test]
    fn duplicates_agree_bit_for_bit_or_both_files_are_named() {
        let mut finished = Finished::default();
        finished.add_file(Path::new("one"), &bytes(&[record("a", "0.1")])).unwrap();
        let slower =
            Record { seconds: 9.0, at: 7, timings: vec!["9".into()], ..record("a", "0.1") };
        finished.add_file(Path::new("two"), &bytes(&[slower])).unwrap();
        let other = bytes(&[record("a", "0.10000000000000002")]);
        let error = finished.add_file(Path::new("three"), &other).unwrap_err().to_string();
        assert!(error.contains("one") && error.contains("three"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_with_file_and_number() {
        let mut text = bytes(&[record("a", "1")]);
        text.extend(b"{\"trial\":3}\n");
        let error = Finished::default().add_file(Path::new("part"), &text).unwrap_err();
        assert!(matches!(error, RunError::MalformedPart { line: 2, .. }));
    }

    /// Takes `room` bytes, then fails as a full disk does: after part of a write.
    struct FullDisk {
        bytes: Vec<u8>,
        room: usize,
        syncs: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            let fits = data.len().min(self.room - self.bytes.len());
            if fits == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend(&data[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink for FullDisk {
        fn sync(&mut self) -> std::io::Result<()> {
            self.syncs += 1;
            Ok(())
        }

        fn cut(&mut self, length: u64) -> std::io::Result<()> {
            self.bytes.truncate(length as usize);
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_leaves_whole_lines_and_says_which_file() {
        let records = [record("a", "1"), record("b", "2")];
        let all = bytes(&records).len();
        for room in 0..=all {
            let sink = FullDisk { bytes: Vec::new(), room, syncs: 0 };
            let mut writer = PartWriter::new(PathBuf::from("part-7"), sink);
            let failure = records.iter().find_map(|record| writer.append(record).err());
            assert_eq!(failure.is_none(), room == all);
            if let Some(error) = failure {
                assert!(error.to_string().contains("part-7"));
            }
            assert!(writer.sink.bytes.is_empty() || writer.sink.bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn many_lines_within_a_second_share_one_sync() {
        let sink = FullDisk { bytes: Vec::new(), room: usize::MAX, syncs: 0 };
        let mut writer = PartWriter::new(PathBuf::from("part"), sink);
        // The clock is held back rather than waited for.
        writer.last_sync = Instant::now() + Duration::from_secs(3600);
        for _ in 0..100 {
            writer.append(&record("a", "1")).unwrap();
        }
        assert_eq!(writer.sink.syncs, 0);
        writer.sync().unwrap();
        writer.sync().unwrap();
        assert_eq!(writer.sink.syncs, 1, "a second sync would have nothing to do");
    }

    #[test]
    fn mixed_revisions_and_machines_are_refused_unless_allowed() {
        let mut finished = Finished::default();
        let mut other = record("b", "2");
        other.origin.revision = "another".to_owned();
        let mut third = record("c", "3");
        third.origin.features = "another".to_owned();
        finished.add_file(Path::new("part"), &bytes(&[record("a", "1"), other, third])).unwrap();
        let check = |trials: &[&str], here: Option<&Origin>, revisions, machines| {
            let allowed = Mixtures { revisions, machines };
            finished.check_origins(trials.iter().copied(), here, allowed)
        };
        assert!(check(&["a"], None, false, false).is_ok());
        assert!(check(&["b"], None, false, false).is_ok(), "one revision, if not this one");
        assert!(check(&["b"], Some(&Origin::here()), false, false).is_err());
        assert!(check(&["a", "b"], None, false, true).is_err());
        assert!(check(&["a", "b"], None, true, false).is_ok());
        assert!(check(&["a", "c"], None, true, false).is_err());
        assert!(check(&["a", "b", "c"], Some(&Origin::here()), true, true).is_ok());
    }
}
