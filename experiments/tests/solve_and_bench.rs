//! Every solver through the binary, on exact and sampled, symmetric and asymmetric problems; and the
//! comparison on a person's own problem.

use peftml_data::linear::{read_point, read_tasks};
use peftml_linalg::{Blocks, Layout};
use peftml_solvers::{Order, Problem, registry};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn peftml(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peftml"))
        .args(line.split_whitespace())
        .current_dir(folder)
        // No peer, whatever this machine has.
        .env("PEFTML_PYTHON", "no-such-python")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `||grad F||` over the scale at the point of a solution's file.
fn gradient_ratio(folder: &Path, kind: Kind, rank: usize) -> f64 {
    let tasks = read_tasks(&folder.join("tasks.npz")).unwrap();
    let point = read_point(&folder.join("out.npz")).unwrap();
    let (d, count) = (tasks.dimension(), tasks.count());
    let mut layout = Layout::repeated("U", count, d, rank);
    if kind == Kind::Asymmetric {
        layout = layout.followed_by(&Layout::repeated("V", count, d, rank));
    }
    let mut x = Blocks::zeros(layout);
    for (t, adapter) in point.adapters.iter().enumerate() {
        x.block_mut(t).copy_from(adapter.left());
        if kind == Kind::Asymmetric {
            x.block_mut(count + t).copy_from(adapter.right());
        }
    }
    let f = ProfileObjective::new(&tasks, kind, rank).unwrap();
    let mut gradient = x.zeros_like();
    f.gradient(&x, &mut gradient, &mut vec![0.0; f.work_len()]);
    gradient.norm() / Problem { tasks: &tasks, kind, rank }.gradient_scale()
}

#[test]
fn every_iterative_solver_is_stationary_by_one_test_and_counts_what_its_trace_shows() {
    const TOLERANCE: f64 = 1e-6;
    let reasons =
        ["stationary", "second_order_stationary", "stagnated", "max_iterations", "diverging"];
    let mut stationary = 0;
    for (kind, flag, drawn) in
        [(Kind::Symmetric, "--symmetric", ""), (Kind::Asymmetric, "--asymmetric", "--asymmetric")]
    {
        for data in ["--exact", "--samples 200"] {
            let place = tempfile::tempdir().unwrap();
            let folder = place.path();
            let line =
                format!("generate linear --d 8 --k 1 --tasks 3 {data} {drawn} --out tasks.npz");
            assert!(peftml(folder, &line).status.success());
            for entry in registry().iter().filter(|entry| entry.order != Order::Direct) {
                let set: String = entry
                    .settings
                    .iter()
                    .map(|setting| format!(" --set {}={}", setting.name, setting.default))
                    .collect();
                let line = format!(
                    "solve --tasks tasks.npz --rank 1 {flag} --solver {} --start-std 0.5 --max-iterations 500 --tolerance {TOLERANCE} --trace trace.csv --out out.npz{set}",
                    entry.name
                );
                let run = peftml(folder, &line);
                assert!(run.status.success(), "{line}: {}", text(&run.stderr));
                let found: Value = serde_json::from_slice(&run.stdout).unwrap();
                let reason = found["stop_reason"].as_str().unwrap();
                assert!(reasons.contains(&reason), "{}: {reason}", entry.name);
                let ratio = gradient_ratio(folder, kind, 1);
                // The file's doubles are the solver's: the test is met to rounding of the norm.
                if reason == "stationary" {
                    stationary += 1;
                    assert!(ratio <= TOLERANCE * (1.0 + 1e-12), "{}: {ratio}", entry.name);
                } else {
                    assert!(ratio > 0.0, "{}", entry.name);
                }
                let trace = std::fs::read_to_string(folder.join("trace.csv")).unwrap();
                let last: Vec<&str> = trace.lines().last().unwrap().split(',').collect();
                let counts = &found["evaluations"];
                assert_eq!(last[0], found["iterations"].to_string(), "{}", entry.name);
                for (i, key) in
                    ["values", "gradients", "hessian_products", "factorisations"].iter().enumerate()
                {
                    assert_eq!(last[3 + i], counts[*key].to_string(), "{} {key}", entry.name);
                }
            }
        }
    }
    // L-BFGS, trust region, Gauss-Newton and scaled gradient at least, in all four cells.
    assert!(stationary >= 16, "{stationary}");
}

#[test]
fn a_problem_of_ones_own_is_compared_and_leaves_a_run_folder() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    assert!(
        peftml(folder, "generate linear --d 6 --k 1 --tasks 3 --exact --out mine.npz")
            .status
            .success()
    );
    let line = "bench --tasks mine.npz --rank 1 --solvers lbfgs,trust-region,global,scipy/lbfgs --seeds 0..2 --repetitions 1 --json";
    let run = peftml(folder, line);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let found: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(found["methods"].as_array().unwrap().len(), 3);
    for method in found["methods"].as_array().unwrap() {
        assert_eq!((&method["problems"], &method["answered"]), (&2.into(), &2.into()), "{method}");
    }
    assert_eq!(found["skipped"][0]["method"], "scipy/lbfgs");
    let said = text(&run.stderr);
    assert!(said.contains("skipped scipy/lbfgs") && said.contains("--make-peers"), "{said}");
    let results = folder.join(found["folder"].as_str().unwrap());
    for name in [
        "config.toml",
        "tasks.npz",
        "trials.csv",
        "curves.csv",
        "summary.json",
        "report.html",
        "figures/profile_stationary.svg",
        "figures/success.svg",
        "figures/accuracy_0.svg",
    ] {
        assert!(results.join(name).is_file(), "{name}");
    }
    // The folder holds all it takes to run again, without the file that it was made from.
    std::fs::remove_file(folder.join("mine.npz")).unwrap();
    let again = format!("run {} --out other", results.join("config.toml").display());
    assert!(peftml(folder, &again).status.success());
}

#[test]
fn bad_usage_of_the_comparison_is_one_sentence_and_status_2() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    for line in [
        "generate linear --d 4 --k 1 --tasks 3 --exact --out mine.npz",
        "solve --tasks mine.npz --rank 2 --asymmetric --solver lbfgs --max-iterations 1 --out other.npz",
    ] {
        assert!(peftml(folder, line).status.success());
    }
    for (line, word) in [
        ("bench --tasks mine.npz --rank 9", "rank"),
        ("bench --tasks mine.npz --rank 0", "rank"),
        ("bench --tasks mine.npz", "--rank"),
        ("bench --tasks none.npz --rank 1", "none.npz"),
        ("bench --tasks mine.npz --rank 1 --solvers lbfsg", "lbfsg"),
        ("bench --tasks mine.npz --rank 1 --seeds x", "seeds"),
        ("bench --tasks mine.npz --rank 1 --tolerance -1", "tolerance"),
        ("bench --tasks mine.npz --rank 1 --max-iterations 0", "max_iterations"),
        ("bench --tasks mine.npz --rank 1 --start other.npz", "other.npz"),
        ("bench --study solvers/none", "solvers/none"),
    ] {
        let run = peftml(folder, line);
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
        assert!(run.stdout.is_empty() && !folder.join("results").exists(), "{line}");
    }
}
