//! `peftml run .. --engine slurm`: submits, waits, and merges as a local run does.

use super::study::{Bar, conclude, say};
use super::{Common, Failure, print_line};
use crate::runs::{Merged, Mixtures, Progress, RunError, RunFolder, Study, merge, status};
use crate::slurm::{Engine, Settings, Slurm, SlurmError};
use std::path::PathBuf;
use std::time::Duration;

/// Longest time between two questions to the controller.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the cluster is asked for.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Slurm")]
#[group(id = "slurm")]
pub struct Arguments {
    /// Partition
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Quality of service
    #[arg(long, value_name = "NAME")]
    qos: Option<String>,
    /// Time limit of a shard
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Memory of a shard
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// Processors and threads of a shard (default: --threads, else 1)
    #[arg(long, value_name = "COUNT")]
    cpus_per_task: Option<usize>,
    /// Generic resources of a shard
    #[arg(long, value_name = "LIST")]
    gres: Option<String>,
    /// Features that nodes must have
    #[arg(long, value_name = "LIST")]
    constraint: Option<String>,
    /// Shards that may run at the same time
    #[arg(long, value_name = "COUNT")]
    array_limit: Option<usize>,
    /// Number of shards (default: as before, else at most 16)
    #[arg(long, value_name = "COUNT")]
    shards: Option<usize>,
    /// File of shell lines to put before the command
    #[arg(long, value_name = "FILE")]
    setup: Option<PathBuf>,
    /// Print the batch scripts and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// Return once the jobs are submitted
    #[arg(long)]
    detach: bool,
}

impl From<SlurmError> for Failure {
    fn from(error: SlurmError) -> Self {
        match error {
            SlurmError::Run(error) => error.into(),
            SlurmError::Setting { .. } | SlurmError::Folder { .. } => Failure::input(error),
            _ => Failure::refused(error),
        }
    }
}

/// Runs the study of a run folder on the cluster; the caller does not hold its lock.
pub fn run(
    study: &dyn Study,
    folder: &RunFolder,
    arguments: &Arguments,
    allowed: Mixtures,
    common: &Common,
) -> Result<(), Failure> {
    let settings = settings(arguments, common)?;
    let extra = mixture_flags(allowed);
    let engine = Engine { cluster: &Slurm, study, folder, settings: &settings, extra: &extra };
    if arguments.dry_run {
        return match engine.dry_run()? {
            Some([array, merge]) => print_line(format!("{array}\n{merge}").trim_end()),
            None => {
                say("no trial is missing");
                Ok(())
            }
        };
    }
    prepare(study, folder)?;
    let binary = std::env::current_exe().map_err(Failure::refused)?;
    match engine.submit(&binary)? {
        Some(submission) => say(&format!(
            "job {}: {} of {} shards",
            submission.array,
            submission.indices.len(),
            submission.shards
        )),
        None => say("no shard misses trials that does not wait or run already"),
    }
    print_line(&folder.path().display().to_string())?;
    if arguments.detach {
        return Ok(());
    }
    wait(&engine)?;
    let lock = folder.lock()?;
    let merged: Merged = merge(study, folder, allowed, 1, None)?;
    drop(lock);
    conclude(&merged, None)
}

/// Writes the configuration. Shards of an earlier submission may be at work on the same one.
fn prepare(study: &dyn Study, folder: &RunFolder) -> Result<(), Failure> {
    let held = match folder.lock() {
        Ok(_lock) => return Ok(folder.write_config(study)?),
        Err(held @ RunError::Held { .. }) => held,
        Err(error) => return Err(error.into()),
    };
    let found = std::fs::read_to_string(folder.file("config.toml")).unwrap_or_default();
    match found.parse::<toml::Table>() {
        Ok(table) if table == *study.config() => Ok(()),
        _ => Err(held.into()),
    }
}

fn settings(arguments: &Arguments, common: &Common) -> Result<Settings, Failure> {
    let setup = match &arguments.setup {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::input(format_args!("--setup {}: {error}", path.display()))
        })?),
    };
    let text = |value: &Option<String>| value.clone();
    Ok(Settings {
        partition: text(&arguments.partition),
        account: text(&arguments.account),
        qos: text(&arguments.qos),
        time: text(&arguments.time),
        mem: text(&arguments.mem),
        gres: text(&arguments.gres),
        constraint: text(&arguments.constraint),
        cpus_per_task: arguments.cpus_per_task.or(common.threads.map(usize::from)).unwrap_or(1),
        array_limit: arguments.array_limit,
        shards: arguments.shards,
        setup,
    })
}

fn mixture_flags(allowed: Mixtures) -> Vec<String> {
    [(allowed.revisions, "--allow-mixed-revisions"), (allowed.machines, "--allow-mixed-machines")]
        .into_iter()
        .filter(|(allowed, _)| *allowed)
        .map(|(_, flag)| flag.to_owned())
        .collect()
}

/// Waits until no job of the run is left. An unreachable controller is waited for, too: what runs
/// goes on without it.
fn wait(engine: &Engine<'_>) -> Result<(), Failure> {
    let mut bar = Bar::new(&engine.study.about().name);
    let mut pause = Duration::from_millis(500);
    let mut silent = false;
    loop {
        match engine.alive() {
            Ok(0) => break,
            Ok(_) => silent = false,
            Err(error @ SlurmError::Command { .. }) => {
                if !silent {
                    bar.note(&format!("{error}; waiting for an answer"));
                }
                silent = true;
            }
            Err(error) => {
                bar.clear();
                return Err(error.into());
            }
        }
        let found = status(engine.study, engine.folder)?;
        let open = found.missing as f64 / found.total.max(1) as f64;
        bar.advance(found.finished, found.total, open);
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
    }
    bar.clear();
    Ok(())
}
