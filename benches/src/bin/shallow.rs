//! The shallow network, ours beside the PyTorch peer in one run: a LoRA-ML retraining epoch at d = 10,
//! k = 1, T = 3, N = 1000 and a fine-tuning step with n = 100, AdamW both.
//!
//! Wall time on one thread, the best of many short repetitions on both sides; ours in double precision,
//! the peer in its default, single precision, by the better of its two AdamW implementations. A ratio is
//! void where the peer is slower than the reference's own code is known to be. The third figure is the
//! floor under ours: what the logistic functions alone take that an epoch or a step evaluates.

use clap::Parser;
use peftml_benches::peer;
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::{AdamW, Solver};
use peftml_theory::Objective;
use peftml_theory::linear::Kind;
use peftml_theory::shallow::{
    Adapters, FineTuningObjective, Network, RetrainingObjective, Samples, Sizes, sigmoid_in_place,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What is timed: key, name, the ratio that we owe, and the peer's known seconds (experiments.md
/// section 2), above which the ratio is void.
const STAGES: [(&str, &str, f64, f64); 2] = [
    ("retraining_epoch", "retraining epoch (T = 3, N = 1000)", 15.0, 1.3e-3),
    ("fine_tuning_step", "fine-tuning step (n = 100)", 100.0, 0.35e-3),
];

/// Dimension d, tasks T, samples N and n, rank k.
const SIZES: [(&str, usize); 5] =
    [("dimension", 10), ("tasks", 3), ("samples", 1000), ("fresh", 100), ("rank", 1)];

/// A retraining epoch and a fine-tuning step beside PyTorch.
#[derive(Parser)]
struct Arguments {
    /// Repetitions of each timing; the best counts
    #[arg(long, default_value_t = 2000)]
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
    match compare(&arguments) {
        Ok(report) if arguments.json => println!("{report}"),
        Ok(report) => print_text(&report),
        Err(message) => {
            eprintln!("peftml-bench-shallow: {message}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn samples(d: usize, count: usize, seed: &Seed) -> Result<Samples, String> {
    let mut stream = seed.stream();
    let x = stream.normal_matrix(d, count, 1.0);
    let y = stream.normal_matrix(count, 1, 1.0);
    Samples::new(Sizes::square(d), x.as_ref(), y.col(0)).map_err(|error| error.to_string())
}

/// Seconds of an AdamW step on `f`, the best of `repetitions` times `inner` steps.
fn step_seconds(
    f: &dyn Objective,
    seed: &Seed,
    inner: usize,
    repetitions: usize,
) -> Result<f64, String> {
    let mut x = Blocks::zeros(f.layout().clone());
    seed.stream().fill_normal(0.3, x.as_mut_slice());
    let solver = AdamW::default();
    let mut state = solver.init(f, x).map_err(|error| error.to_string())?;
    // A failing step would be a short one: checked once, outside the timer.
    solver.step(f, &mut state).map_err(|error| error.to_string())?;
    let seconds = peer::best_seconds(repetitions, || {
        for _ in 0..inner {
            let _ = solver.step(f, &mut state);
        }
    });
    Ok(seconds / inner as f64)
}

/// Seconds of `count` logistic functions, in pieces that stay in the first-level cache.
fn limit_seconds(count: usize, repetitions: usize) -> f64 {
    let mut values = vec![0.0; 1000.min(count)];
    let pieces = count / values.len();
    Seed::root(3).stream().fill_normal(2.0, &mut values);
    let arguments = values.clone();
    peer::best_seconds(repetitions, || {
        for _ in 0..pieces {
            sigmoid_in_place(std::hint::black_box(&mut values));
        }
        values.copy_from_slice(&arguments);
    })
}

fn compare(arguments: &Arguments) -> Result<Value, String> {
    let [d, tasks, count, fresh, rank] = SIZES.map(|(_, size)| size);
    let seed = Seed::root(1).child("bench");
    let data: Vec<Samples> =
        (0..tasks).map(|t| samples(d, count, &seed.child(t))).collect::<Result<_, _>>()?;
    let adapters = Adapters { kind: Kind::Asymmetric, rank };
    let text = |error: peftml_theory::shallow::ShallowError| error.to_string();
    let retraining =
        RetrainingObjective::new(Sizes::square(d), Some(adapters), &data).map_err(text)?;
    let test = samples(d, fresh, &seed.child("test"))?;
    let mut network = Network::zeros(Sizes::square(d)).map_err(text)?;
    seed.child("network").stream().fill_normal(0.5, network.weights_mut().as_mut_slice());
    let fine_tuning = FineTuningObjective::new(&network, adapters, &test).map_err(text)?;
    let repetitions = arguments.repetitions;
    let ours = [
        step_seconds(&retraining, &seed, 1, repetitions)?,
        step_seconds(&fine_tuning, &seed, 20, repetitions)?,
    ];
    let limits =
        [limit_seconds(tasks * count * d, repetitions), limit_seconds(fresh * d, 20 * repetitions)];
    let theirs = if arguments.no_peer {
        json!({ "skipped": "asked for with --no-peer" })
    } else {
        peer_times()?
    };
    let mut report = json!({ "id": format!("d{d}-k{rank}-T{tasks}-N{count}-n{fresh}") });
    for (index, (key, _, owed, known)) in STAGES.into_iter().enumerate() {
        let peer = theirs[format!("{key}_us")].as_f64().map(|us| 1e-6 * us);
        report[key] = json!({
            "seconds": ours[index],
            "limit_seconds": limits[index],
            "times_the_limit": ours[index] / limits[index],
            "peer_seconds": peer,
            "ratio": peer.map(|peer| peer / ours[index]),
            "owed": owed,
            "void": peer.map(|peer| peer > known),
        });
    }
    report["peer"] = theirs;
    Ok(report)
}

/// The peer's object, or why there is none.
fn peer_times() -> Result<Value, String> {
    let python = peer::python();
    if let Some(reason) = peer::missing(&python, &["torch"]) {
        return Ok(json!({ "skipped": reason }));
    }
    let sizes = SIZES.iter().flat_map(|(name, size)| [format!("--{name}"), size.to_string()]);
    peer::run(&python, "shallow_torch.py", &sizes.collect::<Vec<_>>())
}

fn print_text(report: &Value) {
    let micros =
        |value: &Value| value.as_f64().map_or("-".to_owned(), |s| format!("{:.2}", 1e6 * s));
    println!("{}, one thread, microseconds, best of many", report["id"].as_str().unwrap_or("?"));
    for (key, name, owed, known) in STAGES {
        let stage = &report[key];
        println!(
            "  {name:<36} ours {:>8}   its logistic functions alone {:>6} ({:.2} times that)",
            micros(&stage["seconds"]),
            micros(&stage["limit_seconds"]),
            stage["times_the_limit"].as_f64().unwrap_or(f64::NAN),
        );
        let Some(ratio) = stage["ratio"].as_f64() else { continue };
        let verdict = match stage["void"].as_bool() {
            Some(true) => format!("void: the peer needs more than {:.0}", 1e6 * known),
            _ if ratio >= owed => format!("owed {owed:.0}: kept"),
            _ => format!("owed {owed:.0}: NOT kept"),
        };
        println!(
            "  {:36} peer {:>8}   ratio {ratio:.1} ({verdict})",
            "",
            micros(&stage["peer_seconds"])
        );
    }
    match report["peer"]["skipped"].as_str() {
        Some(reason) => {
            println!("  PyTorch peer skipped: {reason}");
            println!("  (set PEFTML_PYTHON to a Python that has torch)");
        }
        None => println!(
            "  peer: PyTorch {}, {}",
            report["peer"]["torch"].as_str().unwrap_or("?"),
            report["peer"]["dtype"].as_str().unwrap_or("?")
        ),
    }
}
