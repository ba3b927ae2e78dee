//! Retraining on linear tasks, ours beside the numpy peer in one run: d = 10, k = 1, T = 3, N = 5000.
//!
//! Both sides by the same two clocks, CPU time and wall time, on one thread: ours the best of many, the peer's one
//! retraining of minutes. Ratios compare like with like, the one of CPU times counts. It is void where a step of
//! the peer takes longer than the reference's own code is known to take.

use clap::Parser;
use faer::Mat;
use peftml_benches::{peer, problem};
use peftml_linalg::compare;
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::Global;
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{Kind, Tasks};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Known times of the reference's steps at these sizes, seconds (experiments.md section 1).
const KNOWN_STEPS: [(&str, f64); 3] = [
    ("inner_step_seconds", 250e-6),
    ("outer_step_seconds", 180e-6),
    ("standard_step_seconds", 1200e-6),
];

/// The ratio that we owe for the authors' scheme.
const OWED_SCHEME: f64 = 300.0;

/// The ratio that we owe for the global solver against the peer's whole retraining.
const OWED_GLOBAL: f64 = 20_000.0;

const SIZES: (usize, usize, usize, usize) = (10, 1, 3, 5000);

/// Retraining on linear tasks beside its peer.
#[derive(Parser)]
struct Arguments {
    /// Rounds of the authors' scheme
    #[arg(long, default_value_t = 3000)]
    rounds: usize,
    /// Repetitions of our timings; the best counts
    #[arg(long, default_value_t = 30)]
    repetitions: usize,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Leave the peer out
    #[arg(long)]
    no_peer: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match compare_all(&arguments) {
        Ok(lines) => {
            if arguments.json {
                println!("{lines}");
            } else {
                print_text(&lines);
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("peftml-bench-linear: {message}");
            ExitCode::FAILURE
        }
    }
}

fn compare_all(arguments: &Arguments) -> Result<Value, String> {
    let (d, k, count, n) = SIZES;
    let sampled = problem::sampled(d, k, count, n);
    let statistics = peer::best_seconds(arguments.repetitions, || {
        Tasks::from_samples(sampled.samples.iter().map(|(x, y)| (x.as_ref(), y.as_ref())))
    });
    let linear = Problem { tasks: &sampled.tasks, kind: Kind::Symmetric, rank: k };
    let scheme = AuthorsScheme { rounds: arguments.rounds, ..Default::default() };
    let zero = Mat::zeros(d, d);
    let retrain = || scheme.retrain(&linear, zero.as_ref(), &sampled.start, &mut |_| {});
    let reached = retrain().map_err(|error| error.to_string())?;
    let ours = peer::best_of_both(arguments.repetitions, retrain);
    let global = Global::default();
    let optimum = || global.solve(&linear, None, &mut Silent);
    let solution = optimum().map_err(|error| error.to_string())?;
    let direct = peer::best_of_both(10 * arguments.repetitions, optimum);
    let mut report = json!({
        "id": problem::id(d, k, count, n),
        "rounds": arguments.rounds,
        "statistics_seconds": statistics,
        "authors_seconds": ours[0],
        "authors_wall_seconds": ours[1],
        "authors_loss": reached.loss,
        "global_seconds": direct[0],
        "global_wall_seconds": direct[1],
        "global_loss": solution.loss,
    });
    report["peer"] = peer_report(arguments, &sampled, &reached.base, [ours, direct])?;
    Ok(report)
}

/// Runs the peer on the same samples and starts; says why where it cannot.
fn peer_report(
    arguments: &Arguments,
    sampled: &problem::Sampled,
    base: &Mat<f64>,
    [ours, direct]: [[f64; 2]; 2],
) -> Result<Value, String> {
    let (d, k, count, n) = SIZES;
    if arguments.no_peer {
        return Ok(json!({ "skipped": "asked for with --no-peer" }));
    }
    let python = peer::python();
    if let Some(reason) = peer::missing(&python, &["numpy"]) {
        return Ok(json!({ "skipped": reason }));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let data = folder.path().join("tasks.raw");
    let samples = sampled.samples.iter().flat_map(|(x, y)| [x.as_ref(), y.as_ref()]);
    let starts = (0..count).map(|t| sampled.start.block(t));
    std::fs::write(&data, peer::raw(samples.chain(starts))).map_err(|error| error.to_string())?;
    let mut given = vec![data.to_string_lossy().into_owned()];
    let sizes = [("--d", d), ("--k", k), ("--tasks", count), ("--samples", n)];
    for (name, value) in sizes.into_iter().chain([("--rounds", arguments.rounds)]) {
        given.extend([name.to_owned(), value.to_string()]);
    }
    let theirs = peer::run(&python, "authors_numpy.py", &given)?;
    let number = |key: &str| theirs[key].as_f64().ok_or(format!("the peer gave no {key}"));
    let slow: Vec<String> = KNOWN_STEPS
        .iter()
        .filter(|(key, limit)| theirs[*key].as_f64().is_none_or(|seconds| seconds > *limit))
        .map(|(key, limit)| format!("{key} = {} above {limit}", theirs[*key]))
        .collect();
    let entries: Option<Vec<f64>> =
        theirs["base"].as_array().and_then(|row| row.iter().map(Value::as_f64).collect());
    let entries = entries.filter(|e| e.len() == d * d).ok_or("the peer gave no base")?;
    let their_base = Mat::from_fn(d, d, |i, j| entries[i * d + j]);
    let seconds = number("retraining_cpu_seconds")?;
    let wall = number("retraining_wall_seconds")?;
    Ok(json!({
        "numpy": theirs["numpy"],
        "inner_step_seconds": number("inner_step_seconds")?,
        "outer_step_seconds": number("outer_step_seconds")?,
        "standard_step_seconds": number("standard_step_seconds")?,
        "retraining_cpu_seconds": seconds,
        "retraining_wall_seconds": wall,
        "base_difference": compare::relative_error(base.as_ref(), their_base.as_ref()),
        "authors_ratio": seconds / ours[0],
        "authors_wall_ratio": wall / ours[1],
        "global_ratio": seconds / direct[0],
        "global_wall_ratio": wall / direct[1],
        "void": slow,
    }))
}

fn print_text(report: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    println!("{} ({} rounds), one thread, CPU time, best of many", report["id"], report["rounds"]);
    println!(
        "  statistics from samples    {:>10.3} ms",
        1e3 * number(&report["statistics_seconds"])
    );
    println!("  authors' scheme, ours      {:>10.3} ms", 1e3 * number(&report["authors_seconds"]));
    println!(
        "  global solver, ours        {:>10.3} ms (loss {:.6e}, the scheme's {:.6e})",
        1e3 * number(&report["global_seconds"]),
        number(&report["global_loss"]),
        number(&report["authors_loss"]),
    );
    let peer = &report["peer"];
    if let Some(reason) = peer["skipped"].as_str() {
        println!("  numpy peer skipped: {reason}");
        println!("  (set PEFTML_PYTHON to a Python that has numpy)");
        return;
    }
    println!(
        "  numpy {} peer            {:>10.3} ms CPU ({:.0} us an inner, {:.0} us an outer, {:.0} us an SR step)",
        peer["numpy"].as_str().unwrap_or("?"),
        1e3 * number(&peer["retraining_cpu_seconds"]),
        1e6 * number(&peer["inner_step_seconds"]),
        1e6 * number(&peer["outer_step_seconds"]),
        1e6 * number(&peer["standard_step_seconds"]),
    );
    println!("  relative difference of the bases {:.1e}", number(&peer["base_difference"]));
    let void = peer["void"].as_array().is_some_and(|reasons| !reasons.is_empty());
    let line = |what: &str, key: &str, owed: f64| {
        let ratio = number(&peer[format!("{key}_ratio")]);
        let wall = number(&peer[format!("{key}_wall_ratio")]);
        let verdict = if void {
            format!("void, the peer is too slow: {}", peer["void"])
        } else {
            format!("owed {owed:.0}: {}", if ratio >= owed { "kept" } else { "NOT kept" })
        };
        println!("  ratio {what}      {ratio:>10.0} x   ({verdict}; by the wall {wall:.0})");
    };
    line("authors' scheme", "authors", OWED_SCHEME);
    line("global solver  ", "global", OWED_GLOBAL);
}
