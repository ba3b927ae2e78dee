//! `peftml run SUITE/STUDY[.PRESET]`: a study from configuration to merged results.

use super::study::{Bar, MixtureOptions, conclude, data_folder, part_name, say, threads};
use super::{Common, Failure, print_json, print_line, slurm};
use crate::config::{StudyName, load, set};
use crate::runs::{Execution, Merged, Options, RunFolder, Study, execute, merge};
use crate::suites;
use serde_json::json;
use std::path::PathBuf;

/// Where trials run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// Threads of this process
    Local,
    /// A job array
    Slurm,
}

/// Run a study; a run that was interrupted goes on where it was.
///
/// Finished trials are never computed again; more seeds or swept values add to a run. The last line
/// of standard output is the run folder.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Name of the study, or path of a .toml file
    #[arg(value_name = "SUITE/STUDY[.PRESET]")]
    study: String,
    /// Seeds: a half-open range, or several with commas between
    #[arg(long, value_name = "0..5")]
    seeds: Option<String>,
    /// Change one leaf of the configuration
    #[arg(long = "set", value_name = "PATH.TO.LEAF=VALUE")]
    edits: Vec<String>,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Only make the run folder, for `peftml shard`
    #[arg(long)]
    prepare: bool,
    /// Where trials run
    #[arg(long, value_enum, default_value_t = Engine::Local)]
    engine: Engine,
    #[command(flatten)]
    mixtures: MixtureOptions,
    #[command(flatten)]
    slurm: slurm::Arguments,
}

/// Runs the command.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let mut table = load(&StudyName(arguments.study.clone()))?;
    for edit in &arguments.edits {
        set(&mut table, edit)?;
    }
    if let Some(seeds) = &arguments.seeds {
        set(&mut table, &format!("seeds={seeds}"))?;
    }
    let study = suites::open(&table)?;
    let folder = RunFolder::create(&arguments.out, &*study)?;
    if arguments.engine == Engine::Slurm {
        let allowed = arguments.mixtures.into();
        return slurm::run(&*study, &folder, &arguments.slurm, allowed, common);
    }
    let lock = folder.lock()?;
    folder.write_config(&*study)?;
    if arguments.prepare {
        return print_line(&folder.path().display().to_string());
    }
    let (execution, merged) = compute(&*study, &folder, arguments, common)?;
    drop(lock);
    if common.json {
        print_json(&json!({
            "folder": folder.path().display().to_string(),
            "trials": merged.total,
            "computed": execution.computed,
            "missing": merged.missing.len(),
            "failed": merged.failed.len(),
            "refused": merged.refused.len(),
            "seconds": execution.seconds,
        }))?;
    } else {
        print_line(&folder.path().display().to_string())?;
    }
    conclude(&merged, Some(&execution))
}

fn compute(
    study: &dyn Study,
    folder: &RunFolder,
    arguments: &Arguments,
    common: &Common,
) -> Result<(Execution, Merged), Failure> {
    let (threads, allowed) = (threads(common), arguments.mixtures.into());
    let (part, data) = (part_name(None), data_folder());
    let options = Options { threads, allowed, part, shard: None, data };
    let mut bar = Bar::new(&study.about().name);
    let execution = execute(study, folder, &options, &mut bar);
    bar.clear();
    let execution = execution?;
    let merged = merge(study, folder, allowed, threads, Some(&execution))?;
    if let Ok(text) = std::fs::read_to_string(folder.file("summary.json"))
        && let Ok(summary) = serde_json::from_str::<crate::runs::Summary>(&text)
    {
        say(&summary.answer);
    }
    Ok((execution, merged))
}
