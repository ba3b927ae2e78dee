//! `cargo xtask bench --compare REVISION`: Criterion's benches of two revisions, in pairs.
//!
//! The other revision is checked out below the target folder and built in it: its crates lie at another path and
//! keep apart, what they depend on is built once. With `--suite` only that suite's programs are built. Then the bench programs
//! run old, new, old, new, ..: whatever else the machine does meets both. For each id the logarithms
//! of new over old, one a pair, give a mean and Student's 99 % interval; a change counts where the interval
//! leaves 0, and stands beside that interval, which is the noise. Counts of allocations are compared
//! exactly.

use crate::failure::Failure;
use crate::workspace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two-sided 99 % quantiles of Student's distribution for 1, 2, .. degrees of freedom.
const STUDENT: [f64; 10] = [63.66, 9.92, 5.84, 4.60, 4.03, 3.71, 3.50, 3.36, 3.25, 3.17];

/// What `--compare` was given.
pub struct Request<'a> {
    /// The other revision, anything that git resolves.
    pub revision: &'a str,
    /// Only this bench target.
    pub suite: Option<&'a str>,
    /// Pairs of runs, at least 2.
    pub pairs: usize,
    /// Arguments of the bench programs, such as a filter.
    pub rest: &'a [String],
}

/// Times by id, one a pair, and allocations by id.
#[derive(Default)]
struct Side {
    times: BTreeMap<String, Vec<f64>>,
    allocations: BTreeMap<String, u64>,
}

/// Builds both revisions, runs their benches in turn and says what changed.
///
/// # Errors
/// [`Failure::Usage`] for a revision that git does not know; [`Failure::Work`], or what cargo and the
/// programs end with.
pub fn compare(request: &Request<'_>) -> Result<(), Failure> {
    let root = workspace::root()?;
    let commit = resolve(&root, request.revision)?;
    let folder = target(&root).join("compare");
    std::fs::create_dir_all(&folder).map_err(crate::compare::io(&folder))?;
    let tree = folder.join("tree");
    check_out(&root, &tree, &commit)?;
    let built = build(&tree, &target(&root), request.suite).and_then(|old| {
        let new = build(&root, &target(&root), request.suite)?;
        Ok((old, new))
    });
    let outcome = built.and_then(|(old, new)| measure(&folder, request, &old, &new));
    // The sources are not needed any more; what was built of them stays for the next time.
    let removed = git(&root).args(["worktree", "remove", "--force"]).arg(&tree).status();
    let (old, new) = outcome?;
    if !removed.is_ok_and(|status| status.success()) {
        eprintln!("xtask: {} could not be removed", tree.display());
    }
    print!("{}", report(request.revision, &old, &new));
    Ok(())
}

/// The folder for what is built.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(root);
    command
}

fn resolve(root: &Path, revision: &str) -> Result<String, Failure> {
    let unknown = || Failure::Usage(format!("--compare {revision}: git knows no such revision"));
    let mut command = git(root);
    command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
    command.arg(format!("{revision}^{{commit}}"));
    let (output, outcome) = workspace::capture(&mut command)?;
    outcome.map_err(|_| unknown())?;
    Ok(output.trim().to_owned())
}

fn check_out(root: &Path, tree: &Path, commit: &str) -> Result<(), Failure> {
    if tree.exists() {
        // Left over by a run that was killed.
        workspace::run(git(root).args(["worktree", "remove", "--force"]).arg(tree))?;
    }
    workspace::run(git(root).args(["worktree", "prune"]))?;
    let mut command = git(root);
    command.args(["worktree", "add", "--quiet", "--force", "--detach"]).arg(tree).arg(commit);
    workspace::run(&mut command)
}

/// Builds the benches of the workspace `root`, or those of one suite, and returns the programs by name.
fn build(
    root: &Path,
    target: &Path,
    suite: Option<&str>,
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut command = workspace::cargo()?;
    command.current_dir(root).env_remove("CARGO_MANIFEST_DIR").env("CARGO_TARGET_DIR", target);
    command.args(["bench", "--package", "peftml-benches", "--no-run"]);
    match suite {
        Some(suite) => command.args(["--bench", suite]),
        None => command.arg("--benches"),
    };
    command.arg("--message-format=json-render-diagnostics");
    let (output, outcome) = workspace::capture(&mut command)?;
    outcome?;
    Ok(programs(&output))
}

/// The bench programs in cargo's messages.
fn programs(messages: &str) -> BTreeMap<String, PathBuf> {
    let read = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let kinds = message["target"]["kind"].as_array()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        let path = PathBuf::from(message["executable"].as_str()?);
        kinds.iter().any(|kind| kind == "bench").then_some((name, path))
    };
    messages.lines().filter_map(read).collect()
}

fn measure(
    folder: &Path,
    request: &Request<'_>,
    old: &BTreeMap<String, PathBuf>,
    new: &BTreeMap<String, PathBuf>,
) -> Result<(Side, Side), Failure> {
    let wanted = |name: &&String| request.suite.is_none_or(|suite| suite == name.as_str());
    let names: Vec<&String> =
        new.keys().filter(|name| old.contains_key(*name)).filter(wanted).collect();
    if names.is_empty() {
        return Err(Failure::Work("the two revisions have no bench target in common".into()));
    }
    let mut sides = (Side::default(), Side::default());
    for pair in 1..=request.pairs {
        eprintln!("xtask: pair {pair} of {}", request.pairs);
        for name in &names {
            run(&old[*name], folder, request.rest, &mut sides.0)?;
            run(&new[*name], folder, request.rest, &mut sides.1)?;
        }
    }
    Ok(sides)
}

/// Runs one bench program and adds its medians and counts.
fn run(program: &Path, folder: &Path, rest: &[String], side: &mut Side) -> Result<(), Failure> {
    let home = folder.join("criterion");
    if home.exists() {
        std::fs::remove_dir_all(&home).map_err(crate::compare::io(&home))?;
    }
    let mut command = Command::new(program);
    command.args(["--bench", "--noplot"]).args(rest).env("CRITERION_HOME", &home);
    command.current_dir(folder);
    let (output, outcome) = workspace::capture(&mut command)?;
    outcome?;
    side.allocations.extend(counts(&output));
    let mut folders = vec![home];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for path in crate::compare::listing(&folder)? {
            if path.file_name().is_some_and(|name| name == "new") {
                if let Some((id, seconds)) = median(&path) {
                    side.times.entry(id).or_default().push(seconds);
                }
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// The lines `allocations ID COUNT`.
fn counts(output: &str) -> impl Iterator<Item = (String, u64)> + '_ {
    output.lines().filter_map(|line| {
        let (id, count) = line.strip_prefix("allocations ")?.rsplit_once(' ')?;
        Some((id.to_owned(), count.parse().ok()?))
    })
}

/// Id and median, in seconds, of one of Criterion's result folders.
fn median(folder: &Path) -> Option<(String, f64)> {
    let read = |name: &str| -> Option<serde_json::Value> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).ok()?).ok()
    };
    let id = read("benchmark.json")?["full_id"].as_str()?.to_owned();
    Some((id, 1e-9 * read("estimates.json")?["median"]["point_estimate"].as_f64()?))
}

/// Mean of the logarithms of new over old, and half the width of their 99 % interval.
fn change(old: &[f64], new: &[f64]) -> Option<(f64, f64)> {
    let logs: Vec<f64> = old.iter().zip(new).map(|(old, new)| (new / old).ln()).collect();
    let n = logs.len();
    let quantile = STUDENT[n.checked_sub(2)?.min(STUDENT.len() - 1)];
    let mean = logs.iter().sum::<f64>() / n as f64;
    let variance = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    Some((mean, quantile * (variance / n as f64).sqrt()))
}

/// The table, slowest first, then the counts that differ.
fn report(revision: &str, old: &Side, new: &Side) -> String {
    let mut rows = Vec::new();
    for (id, times) in &new.times {
        let Some(before) = old.times.get(id) else { continue };
        if let Some((mean, radius)) = change(before, times) {
            let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
            rows.push((mean, radius, id, least(before), least(times)));
        }
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let percent = |log: f64| 100.0 * (log.exp() - 1.0);
    let mut text = format!(
        "{:<64} {:>12} {:>12} {:>9} {:>9}\n",
        format!("against {revision}"),
        "old us",
        "new us",
        "change",
        "noise"
    );
    let (mut slower, mut faster) = (0, 0);
    for (mean, radius, id, before, after) in rows {
        let verdict = if mean > radius {
            slower += 1;
            "slower"
        } else if mean < -radius {
            faster += 1;
            "faster"
        } else {
            "within noise"
        };
        text += &format!(
            "{id:<64} {:>12.2} {:>12.2} {:>+8.1}% {:>8.1}%  {verdict}\n",
            1e6 * before,
            1e6 * after,
            percent(mean),
            percent(radius)
        );
    }
    text += &format!(
        "{slower} slower, {faster} faster than the noise (99 % intervals, best times shown)\n"
    );
    for (id, count) in &new.allocations {
        if let Some(before) = old.allocations.get(id).filter(|before| *before != count) {
            text += &format!("allocations of {id}: {before} before, {count} now\n");
        }
    }
    for id in new.times.keys().filter(|id| !old.times.contains_key(*id)) {
        text += &format!("only here: {id}\n");
    }
    for id in old.times.keys().filter(|id| !new.times.contains_key(*id)) {
        text += &format!("only at {revision}: {id}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_from_noise() {
        let old = [1.0, 1.1, 0.9, 1.05, 1.0];
        let doubled = old.map(|t| 2.02 * t);
        let (mean, radius) = change(&old, &doubled).unwrap();
        assert!((mean - 2.02_f64.ln()).abs() < 1e-12 && radius < 1e-12);
        // The control: other noise of a tenth with no change.
        let noisy = [1.1, 0.95, 1.0, 1.0, 1.05];
        let (mean, radius) = change(&old, &noisy).unwrap();
        assert!(mean.abs() < radius, "{mean} {radius}");
        assert_eq!(change(&old[..1], &noisy[..1]), None, "one pair shows no noise");
    }

    #[test]
    fn the_report_names_what_got_slower_first_and_counts_allocations() {
        let side = |factor: f64, count: u64| Side {
            times: [("a/d1".to_owned(), vec![1e-6, 1.1e-6]), ("b/d1".to_owned(), vec![factor; 2])]
                .into(),
            allocations: [("b/d1".to_owned(), count)].into(),
        };
        let text = report("HEAD~1", &side(1e-6, 0), &side(2e-6, 3));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("b/d1") && lines[1].ends_with("slower"), "{text}");
        assert!(lines[1].contains("+100.0%"), "{text}");
        assert!(lines[2].ends_with("within noise"), "{text}");
        assert!(text.contains("allocations of b/d1: 0 before, 3 now"));
    }

    #[test]
    fn results_are_read_from_criterions_files_and_lines() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("benchmark.json"), r#"{"full_id":"a b/d1"}"#).unwrap();
        let estimates = r#"{"median":{"point_estimate":1500.0}}"#;
        std::fs::write(folder.path().join("estimates.json"), estimates).unwrap();
        assert_eq!(median(folder.path()), Some(("a b/d1".to_owned(), 1.5e-6)));
        let lines = "noise\nallocations a b/d1 7\n";
        assert_eq!(counts(lines).collect::<Vec<_>>(), [("a b/d1".to_owned(), 7)]);
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"linear","kind":["bench"]},"executable":"/t/linear"}
{"reason":"compiler-artifact","target":{"name":"linear","kind":["bin"]},"executable":"/t/other"}"#;
        assert_eq!(programs(messages), [("linear".to_owned(), "/t/linear".into())].into());
    }

    #[test]
    fn a_revision_that_is_none_is_bad_usage() {
        let root = workspace::root().unwrap();
        assert!(matches!(resolve(&root, "no-such-revision"), Err(Failure::Usage(_))));
    }
}
