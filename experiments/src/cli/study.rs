//! What `run`, `shard`, `merge` and `status` share.

use super::{Common, Failure};
use crate::config::{ConfigError, StudyName, load};
use crate::runs::{Execution, Merged, Mixtures, PartName, Progress, RunError, RunFolder, Study};
use crate::suites;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options for results of several binaries or machines.
#[derive(Args, Clone, Copy, Debug)]
pub struct MixtureOptions {
    /// Use finished trials of other revisions of the program
    #[arg(long)]
    allow_mixed_revisions: bool,
    /// Use finished trials of machines with other CPU features
    #[arg(long)]
    allow_mixed_machines: bool,
}

impl From<MixtureOptions> for Mixtures {
    fn from(options: MixtureOptions) -> Self {
        Mixtures {
            revisions: options.allow_mixed_revisions,
            machines: options.allow_mixed_machines,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::input(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(_)
            | RunError::NotARun { .. }
            | RunError::NotReady { .. }
            | RunError::Shard { .. } => Failure::input(error),
            _ => Failure::refused(error),
        }
    }
}

/// The run folder `path` and its study, from its config.toml.
pub fn open(path: &Path) -> Result<(RunFolder, Box<dyn Study>), Failure> {
    let folder = RunFolder::open(path)?;
    let table = load(&StudyName(folder.file("config.toml").display().to_string()))?;
    Ok((folder, suites::open(&table)?))
}

/// Worker threads: as asked for, or one a processor.
pub fn threads(common: &Common) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    common.threads.map_or_else(processors, usize::from)
}

/// The folder of real data sets: `$PEFTML_DATA`, else `~/.cache/peftml`.
pub fn data_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PEFTML_DATA").or_else(|| set("HOME").map(|home| home.join(".cache/peftml")))
}

/// The part file's name: job, shard and restart count where a batch system gives them.
pub fn part_name(shard: Option<(usize, usize)>) -> PartName {
    let variable = |name: &str| {
        let value = std::env::var(name).unwrap_or_default();
        let clean: String = value.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        Some(clean).filter(|value| !value.is_empty())
    };
    let job = variable("SLURM_ARRAY_JOB_ID").or_else(|| variable("SLURM_JOB_ID"));
    PartName {
        job: job.unwrap_or_else(|| "local".to_owned()),
        shard: shard.map_or_else(|| "all".to_owned(), |(k, m)| format!("{k}of{m}")),
        restart: variable("SLURM_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
    }
}

/// A line for people. Nothing is left to be done where standard error is closed.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A bar with the time left, where standard error is a terminal.
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    /// An empty bar under the title `name`.
    pub fn new(name: &str) -> Self {
        let bar = ProgressBar::new(0);
        // The template is fixed; without it the library's own serves.
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        Self { bar, started: Instant::now() }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn advance(&mut self, done: usize, total: usize, remaining: f64) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if remaining < 1.0 {
            let left = self.started.elapsed().mul_f64(remaining / (1.0 - remaining));
            self.bar.set_message(format!("{} left", duration(left)));
        }
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| say(text));
    }
}

/// `3 s`, `4 min`, `2.5 h`, `3.1 days`.
pub fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Says what a merge found; a failure where trials are missing or methods refused.
pub fn conclude(merged: &Merged, execution: Option<&Execution>) -> Result<(), Failure> {
    let Merged { total, missing, failed, refused, outside } = merged;
    if let Some(execution) = execution {
        say(&format!(
            "{} trials, {} of them finished before, {:.1} s",
            total, execution.before, execution.seconds
        ));
    }
    if *outside > 0 {
        say(&format!(
            "{outside} finished trials lie outside of this configuration's seeds and sweep: they stay \
             in parts/ and out of the merged files"
        ));
    }
    for (trial, reason) in failed.iter().take(20) {
        say(&format!("failed: {trial}: {reason}"));
    }
    for (trial, reason) in refused.iter().take(20) {
        say(&format!("refused: {trial}: {reason}"));
    }
    if !missing.is_empty() {
        return Err(Failure::refused(format_args!(
            "{} of {total} trials are missing, {} of them failed; the same command computes them",
            missing.len(),
            failed.len()
        )));
    }
    if !refused.is_empty() {
        return Err(Failure::refused(format_args!(
            "in {} of {total} trials a method refused; their rows stand without numbers",
            refused.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_units_of_their_size() {
        let shown = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(shown(3), "3 s");
        assert_eq!(shown(240), "4 min");
        assert_eq!(shown(9000), "2.5 h");
        assert_eq!(shown(267_840), "3.1 days");
    }
}
