//! Merges the parts into the files that people read.

use super::parts::{Finished, Mixtures, Record};
use super::study::{self, Headers, Instance, Study, Tables, Trial};
use super::{Execution, RunError, RunFolder, folder, provenance, write_atomically};
use crate::figures::{Figure, FigureError};
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a merge found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Trials of the configuration.
    pub total: usize,
    /// Trials that are not finished.
    pub missing: Vec<String>,
    /// Unfinished trials that failed, with the reason.
    pub failed: Vec<(String, String)>,
    /// Finished trials in which a method refused, with the reason.
    pub refused: Vec<(String, String)>,
    /// Finished trials outside of the configuration's seeds and sweep; they are kept in the parts.
    pub outside: usize,
}

impl Merged {
    /// Whether every trial is finished and no method refused.
    pub fn is_success(&self) -> bool {
        self.missing.is_empty() && self.refused.is_empty()
    }
}

/// Writes trials.csv, curves.csv, timings.csv, summary.json, figures and run.json from the part
/// files. Trials that are missing leave no rows; everything else is as it will be with them.
///
/// `execution` is what this process did before, if anything, `threads` how many may draw figures.
///
/// # Errors
/// [`RunError`]: contradictory, mixed or malformed parts, files that cannot be written.
pub fn merge(
    study: &dyn Study,
    folder: &RunFolder,
    allowed: Mixtures,
    threads: usize,
    execution: Option<&Execution>,
) -> Result<Merged, RunError> {
    let trials = study.trials();
    let finished = Finished::read(folder)?;
    finished.check_origins(trials.iter().map(|trial| trial.id.as_str()), None, allowed)?;
    let merged = account(&trials, &finished);
    let records: Vec<&Record> = trials
        .iter()
        .filter_map(|trial| finished.records.get(&trial.id).map(|(record, _)| record))
        .collect();
    let texts = texts(study.headers(), &records);
    for (name, text) in [
        ("trials.csv", &texts.trials),
        ("curves.csv", &texts.curves),
        ("timings.csv", &texts.timings),
    ] {
        write_atomically(&folder.file(name), text.as_bytes())?;
    }
    let tables = Tables {
        trials: study::table(&folder.file("trials.csv"), &texts.trials)?,
        curves: study::table(&folder.file("curves.csv"), &texts.curves)?,
    };
    write_figures(folder, &study.figures(&tables), threads)?;
    write_instances(study, folder, &records)?;
    let summary = study.summary(&tables);
    let summary = serde_json::to_string_pretty(&summary).unwrap_or_default() + "\n";
    write_atomically(&folder.file("summary.json"), summary.as_bytes())?;
    write_run(study, folder, &merged, &records, threads, execution)?;
    Ok(merged)
}

fn account(trials: &[Trial], finished: &Finished) -> Merged {
    let mut merged = Merged { total: trials.len(), ..Merged::default() };
    for trial in trials {
        match finished.records.get(&trial.id) {
            Some((record, _)) => {
                if let Some(reason) = &record.refused {
                    merged.refused.push((trial.id.clone(), reason.clone()));
                }
            }
            None => {
                merged.missing.push(trial.id.clone());
                if let Some(record) = finished.failures.get(&trial.id) {
                    let reason = record.failed.clone().unwrap_or_default();
                    merged.failed.push((trial.id.clone(), reason));
                }
            }
        }
    }
    let known: HashSet<&str> = trials.iter().map(|trial| trial.id.as_str()).collect();
    merged.outside = finished.records.keys().filter(|id| !known.contains(id.as_str())).count();
    merged
}

/// The merged files' contents.
fn texts(headers: Headers, records: &[&Record]) -> Headers {
    fn join<'r>(header: String, lines: impl Iterator<Item = &'r Vec<String>>) -> String {
        let mut text = header;
        text.push('\n');
        for line in lines.flatten() {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
    Headers {
        trials: join(headers.trials, records.iter().map(|record| &record.trials)),
        curves: join(headers.curves, records.iter().map(|record| &record.curves)),
        timings: join(headers.timings, records.iter().map(|record| &record.timings)),
    }
}

/// Draws the figures, several at a time, and removes those of another configuration.
fn write_figures(folder: &RunFolder, figures: &[Figure], threads: usize) -> Result<(), RunError> {
    let path = folder.figures();
    std::fs::create_dir_all(&path).map_err(RunError::io("make the folder", &path))?;
    let next = AtomicUsize::new(0);
    let draw = || -> Result<(), RunError> {
        while let Some(figure) = figures.get(next.fetch_add(1, Ordering::Relaxed)) {
            draw(folder, figure)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.min(figures.len())).map(|_| scope.spawn(draw)).collect();
        let mut result = draw();
        for worker in workers {
            let theirs = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })?;
    let wanted: BTreeSet<String> = figures
        .iter()
        .flat_map(|figure| [format!("{}.svg", figure.name), format!("{}.png", figure.name)])
        .collect();
    for entry in std::fs::read_dir(&path).map_err(RunError::io("list", &path))? {
        let entry = entry.map_err(RunError::io("list", &path))?;
        if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_file(entry.path()).map_err(RunError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Makes a folder of each kept instance, and removes those of another configuration. A folder is filled
/// beside its place and then renamed: one that is there is whole, and stays where its bytes are right.
fn write_instances(
    study: &dyn Study,
    folder: &RunFolder,
    records: &[&Record],
) -> Result<(), RunError> {
    let path = folder.instances();
    let kept: Vec<&Instance> = records.iter().flat_map(|record| &record.instances).collect();
    if kept.is_empty() && !path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&path).map_err(RunError::io("make the folder", &path))?;
    for instance in &kept {
        let refused = |reason| RunError::Instance { name: instance.name.clone(), reason };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !instance.name.starts_with(char::is_alphanumeric) || !instance.name.chars().all(plain) {
            return Err(refused("its name is no name of a folder".to_owned()));
        }
        let place = path.join(&instance.name);
        let beside = tempfile::Builder::new()
            .prefix(folder::TEMPORARY)
            .tempdir_in(&path)
            .map_err(RunError::io("make a folder in", &path))?;
        study.write_instance(instance, beside.path()).map_err(refused)?;
        if place.is_dir() {
            if same_files(beside.path(), &place).map_err(RunError::io("read", &place))? {
                continue;
            }
            std::fs::remove_dir_all(&place).map_err(RunError::io("remove", &place))?;
        }
        // From here on the folder is ours to keep.
        let beside = beside.keep();
        folder::make_folder_readable(&beside).map_err(RunError::io("open", &beside))?;
        std::fs::rename(&beside, &place).map_err(RunError::io("make", &place))?;
    }
    let wanted: BTreeSet<&str> = kept.iter().map(|instance| instance.name.as_str()).collect();
    for entry in std::fs::read_dir(&path).map_err(RunError::io("list", &path))? {
        let entry = entry.map_err(RunError::io("list", &path))?;
        if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_dir_all(entry.path()).map_err(RunError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Whether two flat folders hold the same files.
fn same_files(a: &Path, b: &Path) -> std::io::Result<bool> {
    let names = |folder: &Path| -> std::io::Result<BTreeSet<std::ffi::OsString>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let all = names(a)?;
    if all != names(b)? {
        return Ok(false);
    }
    for name in all {
        if std::fs::read(a.join(&name))? != std::fs::read(b.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn draw(folder: &RunFolder, figure: &Figure) -> Result<(), RunError> {
    let file = |ending: &str| folder.figures().join(format!("{}.{ending}", figure.name));
    let (svg, png): (Result<String, FigureError>, _) = (figure.to_svg(), figure.to_png());
    write_atomically(&file("svg"), svg?.as_bytes())?;
    write_atomically(&file("png"), &png?)
}

/// Writes run.json: provenance and status.
fn write_run(
    study: &dyn Study,
    folder: &RunFolder,
    merged: &Merged,
    records: &[&Record],
    threads: usize,
    execution: Option<&Execution>,
) -> Result<(), RunError> {
    let distinct = |of: fn(&Record) -> &str| -> Vec<&str> {
        let all: BTreeSet<&str> = records.iter().map(|record| of(record)).collect();
        all.into_iter().collect()
    };
    let status = match merged {
        merged if merged.is_success() => "complete",
        merged if merged.failed.is_empty() && merged.refused.is_empty() => "incomplete",
        _ => "failed",
    };
    let revision = provenance::revision();
    let time = |at: Option<u64>| at.map(provenance::timestamp);
    let reasons = |list: &[(String, String)]| -> Vec<serde_json::Value> {
        list.iter().map(|(trial, reason)| json!({"trial": trial, "reason": reason})).collect()
    };
    let run = json!({
        "study": study.about(),
        "status": status,
        "revision": revision,
        "dirty": revision.contains("dirty") || revision.starts_with("unknown"),
        "versions": {
            "peftml": env!("CARGO_PKG_VERSION"),
            "rustc": env!("PEFTML_RUSTC"),
        },
        "cpu": provenance::cpu_name(),
        "cpu_features": provenance::cpu_features(),
        "threads": threads,
        "seeds": study.config().get("seeds").and_then(toml::Value::as_str),
        "command": command(),
        "revisions": distinct(|record| &record.origin.revision),
        "machines": distinct(|record| &record.origin.features),
        "hosts": distinct(|record| &record.origin.host),
        "first_trial": time(records.iter().map(|record| record.at).min()),
        "last_trial": time(records.iter().map(|record| record.at).max()),
        "trial_seconds": records.iter().map(|record| record.seconds).sum::<f64>(),
        "wall_seconds": execution.map(|execution| execution.seconds),
        "trials": {
            "total": merged.total,
            "finished": merged.total - merged.missing.len(),
            "computed_last": execution.map(|execution| execution.computed),
            "outside": merged.outside,
        },
        "failed": reasons(&merged.failed),
        "refused": reasons(&merged.refused),
    });
    let text = serde_json::to_string_pretty(&run).unwrap_or_default() + "\n";
    write_atomically(&folder.file("run.json"), text.as_bytes())
}

/// The command line, as far as it is text, with the program by its name alone.
fn command() -> String {
    let mut words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut()
        && let Some(name) = std::path::Path::new(&*program).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words.join(" ")
}
