//! Tests that every suite's studies share: results do not depend on how a run is cut, and no
//! configuration breaks anything.

use crate::config::{ConfigError, StudyName, load, set};
use crate::runs::{Mixtures, Options, PartName, RunFolder, Shard, Silent, Study, execute, merge};
use std::path::Path;
use toml::{Table, Value};

/// A configuration of the catalogue, edited.
pub fn table(name: &str, edits: &[&str]) -> Table {
    let mut table = load(&StudyName(name.to_owned())).unwrap();
    for edit in edits {
        set(&mut table, edit).unwrap();
    }
    table
}

/// Runs one shard, or all there is to do.
pub fn run_shard(study: &dyn Study, folder: &RunFolder, threads: usize, shard: Option<[usize; 2]>) {
    let text = |s: &str| s.to_owned();
    let [k, count] = shard.unwrap_or([0, 1]);
    let options = Options {
        threads,
        allowed: Mixtures::default(),
        part: PartName { job: text("local"), shard: k.to_string(), restart: text("0") },
        shard: shard.map(|_| Shard::parse(&format!("{k}/{count}")).unwrap()),
        data: None,
    };
    let execution = execute(study, folder, &options, &mut Silent).unwrap();
    assert!(execution.failed.is_empty(), "{:?}", execution.failed);
}

/// The run folder of `study` below `home`, made in that many shards and merged.
pub fn run(study: &dyn Study, home: &Path, threads: usize, shards: usize) -> RunFolder {
    let folder = RunFolder::create(home, study).unwrap();
    folder.write_config(study).unwrap();
    match shards {
        1 => run_shard(study, &folder, threads, None),
        _ => (1..=shards).for_each(|k| run_shard(study, &folder, threads, Some([k, shards]))),
    }
    merge(study, &folder, Mixtures::default(), threads, None).unwrap();
    folder
}

/// Name and bytes of every file that must not depend on how a run was cut.
pub fn results(folder: &RunFolder) -> Vec<(String, Vec<u8>)> {
    let mut files =
        vec!["trials.csv".to_owned(), "curves.csv".to_owned(), "summary.json".to_owned()];
    for entry in std::fs::read_dir(folder.figures()).unwrap() {
        files.push(format!("figures/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    files.sort();
    files
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(folder.file(&name)).unwrap()))
        .collect()
}

/// The same bytes for 1, 2 and 5 threads, for three shards, and for a run that stopped after its first
/// shard, whose part ends in a torn line, and went on; other bytes for `other`.
pub fn independent_of_how_it_is_cut(study: &dyn Study, other: &dyn Study) {
    let home = || tempfile::tempdir().unwrap();
    let homes: Vec<_> = (0..5).map(|_| home()).collect();
    let expected = results(&run(study, homes[0].path(), 1, 1));
    assert!(expected.iter().any(|(name, _)| name.ends_with(".svg")));
    for (home, (threads, shards)) in homes[1..4].iter().zip([(2, 1), (5, 1), (2, 3)]) {
        let found = results(&run(study, home.path(), threads, shards));
        assert!(found == expected, "{threads} threads, {shards} shards");
    }
    let folder = RunFolder::create(homes[4].path(), study).unwrap();
    run_shard(study, &folder, 2, Some([1, 3]));
    for entry in std::fs::read_dir(folder.parts()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 10);
        std::fs::write(&path, bytes).unwrap();
    }
    let resumed = results(&run(study, homes[4].path(), 2, 1));
    assert!(resumed == expected, "resumed");
    let control = home();
    assert!(results(&run(other, control.path(), 2, 1)) != expected, "no teeth");
}

/// Paths of all leaves.
fn leaves(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => leaves(inner, &path, out),
            _ => out.push(path),
        }
    }
}

/// What people and programs write where something else belongs.
const HOSTILE: [&str; 22] = [
    "-1",
    "0",
    "1",
    "2.5",
    "-0.0",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "\"\"",
    "\"..\"",
    "\"a/b\"",
    "\"0..18446744073709551615\"",
    "\"\\u0000\"",
    "[]",
    "[1, \"a\"]",
    "[[1]]",
    "[nan]",
];

/// Every leaf with every hostile value makes a study or an error of one line that names the leaf (or the
/// problem that its value spoils), never a panic; swept lists likewise.
pub fn every_leaf_refuses_or_obeys<S: Study>(
    name: &str,
    new: impl Fn(&Table) -> Result<S, ConfigError>,
) {
    let whole = table(name, &[]);
    let mut paths = Vec::new();
    leaves(&whole, "", &mut paths);
    let (mut refused, mut obeyed) = (0, 0);
    for path in &paths {
        for value in HOSTILE {
            let mut edited = whole.clone();
            if let Err(error) = set(&mut edited, &format!("{path}={value}")) {
                assert!(!error.to_string().contains('\n'), "{path}={value}: {error}");
                refused += 1;
                continue;
            }
            match new(&edited) {
                Ok(study) => {
                    obeyed += 1;
                    // A million seeds are allowed, but take their time to list.
                    if path != "seeds" {
                        assert!(study.trials().iter().all(|trial| trial.cost >= 0.0));
                    }
                    assert!(!study.folder_name().is_empty());
                }
                Err(error) => {
                    let text = error.to_string();
                    let leaf = path.rsplit('.').next().unwrap_or(path);
                    // Some errors name the table that the leaf is in.
                    let inside =
                        |(at, _): (usize, char)| text.contains(&format!("`{}`", &path[..at]));
                    let table = path.char_indices().filter(|(_, c)| *c == '.').any(inside);
                    let named = text.contains(leaf) || text.contains("the problem") || table;
                    assert!(named && !text.contains('\n'), "{path}={value}: {text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > obeyed && obeyed > paths.len() / 4, "{refused} refused, {obeyed} obeyed");
}
