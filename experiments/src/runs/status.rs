//! How far a run is, from its part files alone.

use super::parts::Finished;
use super::study::Study;
use super::{RunError, RunFolder};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A trial that failed and is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The trial.
    pub trial: String,
    /// Why.
    pub reason: String,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Trials of the configuration.
    pub total: usize,
    /// Finished ones.
    pub finished: usize,
    /// Ones that are not.
    pub missing: usize,
    /// Of these, the ones that were tried and failed.
    pub failed: Vec<Failure>,
    /// Finished ones in which a method refused.
    pub refused: usize,
    /// Part files.
    pub part_files: usize,
    /// Finished trials by machine.
    pub hosts: BTreeMap<String, usize>,
    /// CPU seconds that the missing trials will take, from the measured time of the finished ones and
    /// the estimated cost of all; `None` before the first is finished.
    pub remaining_cpu_seconds: Option<f64>,
}

/// Ids of the trials that are not finished.
///
/// # Errors
/// [`RunError`] where part files cannot be read or contradict each other.
pub fn unfinished(study: &dyn Study, folder: &RunFolder) -> Result<BTreeSet<String>, RunError> {
    let finished = Finished::read(folder)?;
    let ids = study.trials().into_iter().map(|trial| trial.id);
    Ok(ids.filter(|id| !finished.records.contains_key(id)).collect())
}

/// The status of a run folder.
///
/// # Errors
/// [`RunError`] where part files cannot be read or contradict each other.
pub fn status(study: &dyn Study, folder: &RunFolder) -> Result<Status, RunError> {
    let trials = study.trials();
    let finished = Finished::read(folder)?;
    let mut status = Status {
        total: trials.len(),
        finished: 0,
        missing: 0,
        failed: Vec::new(),
        refused: 0,
        part_files: finished.files,
        hosts: BTreeMap::new(),
        remaining_cpu_seconds: None,
    };
    let (mut done_cost, mut done_seconds, mut open_cost) = (0.0, 0.0, 0.0);
    for trial in &trials {
        if let Some((record, _)) = finished.records.get(&trial.id) {
            status.finished += 1;
            status.refused += usize::from(record.refused.is_some());
            *status.hosts.entry(record.origin.host.clone()).or_default() += 1;
            done_cost += trial.cost;
            done_seconds += record.seconds;
        } else {
            status.missing += 1;
            open_cost += trial.cost;
            if let Some(record) = finished.failures.get(&trial.id) {
                let reason = record.failed.clone().unwrap_or_default();
                status.failed.push(Failure { trial: trial.id.clone(), reason });
            }
        }
    }
    if done_cost > 0.0 {
        status.remaining_cpu_seconds = Some(open_cost * done_seconds / done_cost);
    }
    Ok(status)
}
