//! `peftml shard DIR K/M`: one of M parts of a run, for other machines or a job array.

use super::study::{Bar, MixtureOptions, data_folder, open, part_name, threads};
use super::{Common, Failure, print_json};
use crate::runs::{Options, Shard, execute};
use serde_json::json;
use std::path::PathBuf;

/// Run one of M shards of a prepared run folder; `peftml merge` joins them.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run folder, as `peftml run --prepare` makes it
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Which shard of how many: 1/M to M/M (0/M is M/M)
    #[arg(value_name = "K/M")]
    shard: String,
    #[command(flatten)]
    mixtures: MixtureOptions,
}

/// Runs the command.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let shard = Shard::parse(&arguments.shard)?;
    let (folder, study) = open(&arguments.folder)?;
    let (k, m) = shard.numbers();
    let lock = folder.lock_shard(k, m)?;
    let options = Options {
        threads: threads(common),
        allowed: arguments.mixtures.into(),
        part: part_name(Some((k, m))),
        shard: Some(shard),
        data: data_folder(),
    };
    let mut bar = Bar::new(&format!("{} {k}/{m}", study.about().name));
    let execution = execute(&*study, &folder, &options, &mut bar);
    bar.clear();
    let execution = execution?;
    drop(lock);
    print_json(&json!({
        "shard": format!("{k}/{m}"),
        "before": execution.before,
        "computed": execution.computed,
        "failed": execution.failed.len(),
        "seconds": execution.seconds,
    }))?;
    match execution.failed.first() {
        None => Ok(()),
        Some((trial, reason)) => Err(Failure::refused(format_args!(
            "{} trials failed, the first is {trial}: {reason}",
            execution.failed.len()
        ))),
    }
}
