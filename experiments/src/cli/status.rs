//! `peftml status DIR`: how far a run is.

use super::study::{duration, open, threads};
use super::{Common, Failure, print_json, print_line};
use crate::runs::{Status, status};
use std::path::PathBuf;
use std::time::Duration;

/// How long `--watch` waits between looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Show how far a run is: trials done, missing and failed, and the time left.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Look again every two seconds until nothing is missing but what failed
    #[arg(long)]
    watch: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    loop {
        let (folder, study) = open(&arguments.folder)?;
        let found = status(&*study, &folder)?;
        if common.json {
            print_json(&serde_json::to_value(&found).unwrap_or_default())?;
        } else {
            show(&found, threads(common))?;
        }
        if !arguments.watch || found.missing == found.failed.len() {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn show(found: &Status, threads: usize) -> Result<(), Failure> {
    let Status { total, finished, missing, failed, refused, part_files, hosts, .. } = found;
    print_line(&format!(
        "{finished} of {total} trials finished, {missing} missing, {} of them failed, {refused} \
         refused; {part_files} part files",
        failed.len()
    ))?;
    for (host, count) in hosts {
        print_line(&format!("  {host}: {count} trials"))?;
    }
    if let Some(seconds) = found.remaining_cpu_seconds.filter(|_| *missing > 0) {
        let wall = Duration::from_secs_f64(seconds.max(0.0) / threads as f64);
        print_line(&format!("  about {} left on {threads} threads", duration(wall)))?;
    }
    for failure in failed {
        print_line(&format!("  failed: {}: {}", failure.trial, failure.reason))?;
    }
    Ok(())
}
