//! `peftml bench`: solvers compared on drawn problems or on a person's own.

use super::study::{Bar, part_name, say};
use super::{Common, Failure, print_json, print_line};
use crate::comparison::{self, ComparisonStudy, Score, names, peers, scores};
use crate::config::{StudyName, load, set};
use crate::report;
use crate::runs::csv::Table as Csv;
use crate::runs::{self, Mixtures, Options, RunFolder, Study, execute, merge};
use clap::Args;
use peftml_data::linear;
use peftml_linalg::{compare, kernel};
use peftml_solvers::registry;
use peftml_theory::linear::{LinearError, Tasks};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use toml::Table;

/// Below this share of antisymmetric parts in the tasks' differences adapters are symmetric by default.
const SYMMETRIC: f64 = 0.3;

/// Compare solvers on the same problems, from the same starts, to the same test
///
/// Without --tasks the problems are those of a study (--study). The last line of standard output is
/// the run folder, which holds trials.csv, curves.csv, figures and report.html. Peers are Python
/// packages; one that is missing is skipped, with the reason on standard error.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A problem of one's own (.npz): A; A with S; or X and Y
    #[arg(long, value_name = "FILE", requires = "rank", conflicts_with = "study")]
    tasks: Option<PathBuf>,
    /// Width k of the adapters
    #[arg(long, value_name = "COUNT", requires = "tasks")]
    rank: Option<usize>,
    /// Adapters U U^T [default: where the tasks' differences are nearly symmetric]
    #[arg(long, conflicts_with = "asymmetric", requires = "tasks")]
    symmetric: bool,
    /// Adapters U V^T
    #[arg(long, requires = "tasks")]
    asymmetric: bool,
    /// Where all methods start (.npz): A, U, and V where asymmetric [default: random, one a seed]
    #[arg(long, value_name = "FILE", requires = "tasks")]
    start: Option<PathBuf>,
    /// The study whose problems are solved, or the path of a .toml file
    #[arg(long, default_value = "solvers/compare.quick", value_name = "NAME")]
    study: String,
    /// Methods with commas between: `all`, `ours`, `peers`, names of `peftml solvers` and of peers
    #[arg(long, default_value = "all", value_name = "NAMES")]
    solvers: String,
    /// Seeds: a half-open range, or several with commas between
    #[arg(long, value_name = "0..5")]
    seeds: Option<String>,
    /// Relative tolerance of the gradient
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    tolerance: Option<f64>,
    /// Most iterations
    #[arg(long, value_name = "COUNT")]
    max_iterations: Option<usize>,
    /// Most seconds of a peer's run
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_seconds: Option<f64>,
    /// Runs of which the shortest counts
    #[arg(long, value_name = "COUNT")]
    repetitions: Option<usize>,
    /// Change one leaf of the configuration
    #[arg(long = "set", value_name = "PATH.TO.LEAF=VALUE")]
    edits: Vec<String>,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let mut table = load(&StudyName(arguments.study.clone()))?;
    arguments.edit(&mut table)?;
    let own = match &arguments.tasks {
        Some(tasks) => Some(arguments.own_problem(tasks, &mut table)?),
        None => None,
    };
    let (methods, skipped) = arguments.methods()?;
    for (name, reason) in &skipped {
        say(&format!("skipped {name}: {reason}"));
    }
    if methods.is_empty() {
        return Err(Failure::refused("no method is left to compare; see what was skipped"));
    }
    let methods = methods.into_iter().map(|name| toml::Value::String(name.to_owned()));
    table.insert("methods".to_owned(), toml::Value::Array(methods.collect()));
    let study = ComparisonStudy::new(&table)?;
    let folder = RunFolder::create(&arguments.out, &study)?;
    let study = match own {
        Some(files) => kept(&files, &folder, table)?,
        None => study,
    };
    let lock = folder.lock()?;
    folder.write_config(&study)?;
    let allowed = Mixtures { revisions: true, machines: true };
    // One thread: trials that run side by side would disturb each other's times.
    let options = Options { threads: 1, allowed, part: part_name(None), shard: None, data: None };
    let mut bar = Bar::new(&study.about().name);
    let execution = execute(&study, &folder, &options, &mut bar);
    bar.clear();
    let execution = execution?;
    if execution.before > 0 {
        say(&format!(
            "{} trials stood in {} already; another --out measures them again",
            execution.before,
            folder.path().display()
        ));
    }
    let merged = merge(&study, &folder, allowed, 1, Some(&execution))?;
    drop(lock);
    let page = folder.file("report.html");
    report::write(&[folder.path().to_owned()], &page)?;
    let scores = read_scores(&folder, table_tolerance(&study))?;
    if common.json {
        print_json(&summary(&folder, &page, &scores, &skipped))?;
    } else {
        print_table(&scores)?;
        print_line(&folder.path().display().to_string())?;
    }
    match merged.failed.first() {
        Some((trial, reason)) => Err(Failure::refused(format_args!("{trial}: {reason}"))),
        None => Ok(()),
    }
}

fn table_tolerance(study: &ComparisonStudy) -> f64 {
    study.config().get("tolerance").and_then(toml::Value::as_float).unwrap_or(f64::NAN)
}

/// Files of a person's own problem.
struct Own {
    tasks: PathBuf,
    start: Option<PathBuf>,
}

/// Copies the problem into the run folder, so that it holds all that it takes to run again.
fn kept(files: &Own, folder: &RunFolder, mut table: Table) -> Result<ComparisonStudy, Failure> {
    let mut copy = |from: &Path, name: &str, key: &str| -> Result<(), Failure> {
        let bytes = read(from)?;
        let to = folder.file(name);
        runs::write_atomically(&to, &bytes)?;
        let path = std::path::absolute(&to).unwrap_or(to).display().to_string();
        if let Some(toml::Value::Table(file)) = table.get_mut("file") {
            file.insert(key.to_owned(), path.into());
        }
        Ok(())
    };
    copy(&files.tasks, "tasks.npz", "tasks")?;
    if let Some(start) = &files.start {
        copy(start, "start.npz", "start")?;
    }
    Ok(ComparisonStudy::new(&table)?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::input(format_args!("cannot read {}: {error}", path.display())))
}

fn read_scores(folder: &RunFolder, tolerance: f64) -> Result<Vec<Score>, Failure> {
    let text = String::from_utf8_lossy(&read(&folder.file("trials.csv"))?).into_owned();
    match Csv::parse(&text) {
        Ok(table) => Ok(scores(&table, tolerance)),
        Err((line, reason)) => {
            Err(Failure::refused(format_args!("trials.csv, line {line}: {reason}")))
        }
    }
}

fn summary(folder: &RunFolder, page: &Path, scores: &[Score], skipped: &[Skipped]) -> Value {
    let score = |score: &Score| {
        json!({
            "method": score.method,
            "problems": score.problems,
            "answered": score.answered,
            "stationary": score.stationary,
            "global": score.global,
            "global_low": score.interval.0,
            "global_high": score.interval.1,
            "median_seconds": Some(score.median_seconds).filter(|s| s.is_finite()),
        })
    };
    let skipped = skipped.iter().map(|(name, why)| json!({ "method": name, "reason": why }));
    json!({
        "folder": folder.path().display().to_string(),
        "report": page.display().to_string(),
        "methods": scores.iter().map(score).collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
    })
}

fn print_table(scores: &[Score]) -> Result<(), Failure> {
    print_line(&format!(
        "{:<32} {:>8} {:>10} {:>10}   {:<13} {:>12}",
        "method", "problems", "stationary", "global", "95 % of them", "median ms"
    ))?;
    for Score { method, problems, stationary, global, interval, median_seconds, .. } in scores {
        let interval = format!("{:.0} to {:.0} %", 100.0 * interval.0, 100.0 * interval.1);
        let median = Some(1e3 * median_seconds).filter(|ms| ms.is_finite());
        let median = median.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        print_line(&format!(
            "{method:<32} {problems:>8} {stationary:>10} {global:>10}   {interval:<13} {median:>12}"
        ))?;
    }
    Ok(())
}

type Skipped = (&'static str, String);

impl Arguments {
    fn edit(&self, table: &mut Table) -> Result<(), Failure> {
        let number = |value: Option<f64>| value.map(toml::Value::Float);
        let count = |value: Option<usize>| value.map(|n| toml::Value::Integer(n as i64));
        for (key, value) in [
            ("tolerance", number(self.tolerance)),
            ("max_iterations", count(self.max_iterations)),
            ("max_seconds", number(self.max_seconds)),
            ("repetitions", count(self.repetitions)),
            ("seeds", self.seeds.clone().map(toml::Value::String)),
        ] {
            if let Some(value) = value {
                table.insert(key.to_owned(), value);
            }
        }
        for edit in &self.edits {
            set(table, edit)?;
        }
        Ok(())
    }

    /// Checks a person's own problem and enters it into the configuration.
    fn own_problem(&self, path: &Path, table: &mut Table) -> Result<Own, Failure> {
        let tasks = linear::read_tasks(path)?;
        let (d, rank) = (tasks.dimension(), self.rank.unwrap_or(0));
        if rank == 0 || rank > d {
            return Err(LinearError::Rank { rank, dimension: d }.into());
        }
        let symmetric = if self.symmetric || self.asymmetric {
            self.symmetric
        } else {
            let symmetric = asymmetry(&tasks) < SYMMETRIC;
            let which = if symmetric { "symmetric" } else { "asymmetric" };
            say(&format!("adapters are {which}, as the tasks' differences are"));
            symmetric
        };
        let mut digest = Sha256::new();
        digest.update(read(path)?);
        if let Some(start) = &self.start {
            digest.update(read(start)?);
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let absolute = |path: &Path| {
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
        };
        let mut file = Table::new();
        file.insert("tasks".to_owned(), absolute(path).into());
        let start = self.start.as_deref().map(absolute).unwrap_or_default();
        file.insert("start".to_owned(), start.into());
        file.insert("digest".to_owned(), digest.into());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (key, value) in [
            ("study", toml::Value::from("own")),
            ("preset", "paper".into()),
            ("title", format!("Solvers compared on {stem}").into()),
            ("size", format!("d={d} k={rank} T={}", tasks.count()).into()),
            ("samples_per_task", 0.into()),
            ("kind", if symmetric { "symmetric" } else { "asymmetric" }.into()),
            ("family", "file".into()),
            ("file", toml::Value::Table(file)),
            ("sweep", toml::Value::Table(Table::new())),
        ] {
            table.insert(key.to_owned(), value);
        }
        if self.start.is_some() {
            // One start is one run.
            table.insert("seeds".to_owned(), "0".into());
        }
        comparison::check_file(table).map_err(Failure::input)?;
        Ok(Own { tasks: path.to_owned(), start: self.start.clone() })
    }

    /// The methods asked for that can run, and the others with the reason.
    fn methods(&self) -> Result<(Vec<&'static str>, Vec<Skipped>), Failure> {
        let mut wanted: Vec<&'static str> = Vec::new();
        for word in self.solvers.split(',').map(str::trim) {
            let ours = registry().iter().map(|entry| entry.name);
            let theirs = peers::PEERS.iter().map(|peer| peer.name);
            let found: Vec<&'static str> = match word {
                "all" => ours.chain(theirs).collect(),
                "ours" => ours.collect(),
                "peers" => theirs.collect(),
                name => names().filter(|known| *known == name).collect(),
            };
            if found.is_empty() {
                let known = names().collect::<Vec<_>>().join(", ");
                return Err(Failure::input(format_args!(
                    "there is no solver '{word}'; there are all, ours, peers, {known}"
                )));
            }
            for name in found {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
        }
        let python = peers::python();
        let mut skipped = Vec::new();
        let mut known: Vec<(&str, Option<String>)> = Vec::new();
        wanted.retain(|name| {
            let Some(peer) = peers::PEERS.iter().find(|peer| peer.name == *name) else {
                return true;
            };
            let reason = match known.iter().find(|(module, _)| *module == peer.module) {
                Some((_, reason)) => reason.clone(),
                None => {
                    let reason = peers::missing(&python, peer.module);
                    known.push((peer.module, reason.clone()));
                    reason
                }
            };
            if let Some(reason) = &reason {
                let remedy = "`cargo xtask bench --make-peers` makes an environment";
                skipped.push((*name, format!("{reason}; {remedy}")));
            }
            reason.is_none()
        });
        Ok((wanted, skipped))
    }
}

/// Share of the antisymmetric parts in `sum_t ||Ahat_t - Ahat_0||^2`, as a ratio of norms.
fn asymmetry(tasks: &Tasks) -> f64 {
    let (mut skew, mut all) = (0.0, 0.0);
    let first = tasks.task(0).least_squares();
    for task in tasks.iter() {
        let mut difference = task.least_squares().to_owned();
        kernel::add_scaled(difference.as_mut(), -1.0, first);
        skew += compare::distance(difference.as_ref(), difference.transpose()).powi(2) / 4.0;
        all += kernel::norm_squared(difference.as_ref());
    }
    if all > 0.0 { (skew / all).sqrt() } else { 0.0 }
}
