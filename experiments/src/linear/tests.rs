//! The linear studies end to end: presets run, results do not depend on how a run is cut, and the
//! figures stand in the relation that theory says.

use super::*;
use crate::config::resolved::PointConfig;
use crate::config::{names, set};
use crate::recut::{self, results, table};
use crate::runs::RunFolder;
use crate::runs::csv::Table as Csv;
use std::path::Path;

/// A study small enough for tests.
const SMALL: [&str; 5] = [
    "samples_per_task=200",
    "retraining.rounds=20",
    "fine_tuning.steps=30",
    "seeds=0..3",
    "sweep.test_samples=[40, 80]",
];

fn run(table: &Table, home: &Path, threads: usize) -> RunFolder {
    recut::run(&LinearStudy::new(table).unwrap(), home, threads, 1)
}

#[test]
fn every_configuration_runs_a_few_iterations() {
    for name in names().filter(|name| name.starts_with("linear/")) {
        let edits = [
            "seeds=0..1",
            "retraining.rounds=2",
            "fine_tuning.steps=3",
            "fine_tuning.methods=[\"gradient\"]",
        ];
        let study = LinearStudy::new(&table(name, &edits)).unwrap();
        let trials = study.trials();
        let mut finished = 0;
        // Every group once would draw the large sample sizes; the first one stands for all.
        let first: Vec<&Trial> = trials.iter().filter(|trial| trial.group == 0).collect();
        study.run(&first, &mut |trial, outcome| {
            let outcome = outcome.unwrap_or_else(|reason| panic!("{name}, {}: {reason}", trial.id));
            assert_eq!(outcome.refused, None, "{name}, {}", trial.id);
            let columns = study.headers().trials.split(',').count();
            for row in &outcome.trials {
                assert_eq!(row.split(',').count(), columns, "{row}");
            }
            finished += 1;
        });
        assert_eq!(finished, first.len());
    }
}

#[test]
fn results_do_not_depend_on_threads_shards_or_interruptions() {
    let study = LinearStudy::new(&table("linear/sweep_n", &SMALL)).unwrap();
    let mut other = table("linear/sweep_n", &SMALL);
    set(&mut other, "seeds=1..4").unwrap();
    recut::independent_of_how_it_is_cut(&study, &LinearStudy::new(&other).unwrap());
}

#[test]
fn every_leaf_refuses_or_obeys() {
    for name in ["linear/sweep_t", "linear/sweep_d.authors"] {
        recut::every_leaf_refuses_or_obeys(name, LinearStudy::new);
    }
}

#[test]
fn a_trial_does_not_depend_on_the_others_of_its_group() {
    let study = LinearStudy::new(&table("linear/sweep_n", &SMALL)).unwrap();
    let trials = study.trials();
    let group: Vec<&Trial> = trials.iter().filter(|trial| trial.group == 1).collect();
    let collect = |group: &Group<'_>| {
        let mut found = Vec::new();
        study.run(group, &mut |trial, outcome| {
            // Times differ by nature.
            let outcome = Outcome { timings: Vec::new(), ..outcome.unwrap() };
            found.push((trial.id.clone(), outcome));
        });
        found
    };
    let together = collect(&group);
    assert_eq!(together.len(), 5);
    for (trial, expected) in group.iter().zip(&together) {
        assert_eq!(&collect(&[*trial])[0], expected);
    }
}

#[test]
fn the_written_configuration_gives_the_same_study_again() {
    let study = LinearStudy::new(&table("linear/sweep_k.authors", &["seeds=0..2"])).unwrap();
    let text = study.config().to_string();
    let again = LinearStudy::new(&text.parse::<Table>().unwrap()).unwrap();
    assert_eq!(again.config(), study.config());
    assert_eq!(again.folder_name(), study.folder_name());
    assert_eq!(again.trials(), study.trials());
}

#[test]
fn the_hash_leaves_out_what_no_trial_depends_on_and_nothing_else() {
    let hash =
        |name: &str, edits: &[&str]| LinearStudy::new(&table(name, edits)).unwrap().folder_name();
    let (paper, authors) = ("linear/sweep_d", "linear/sweep_d.authors");
    let base = hash(paper, &[]);
    assert!(base.starts_with("sweep_d-"));
    assert_eq!(base, hash(paper, &["seeds=3..9"]));
    assert_eq!(base, hash(paper, &["sweep.dimension=[5, 30]"]));
    for edit in
        ["noise_std=0.2", "retraining.rounds=10", "quirks.standard_gradient_times_tasks=true"]
    {
        assert_ne!(base, hash(paper, &[edit]), "{edit}");
    }
    // One truth for the sweep is drawn at its largest sizes: another size is another problem.
    let base = hash(authors, &[]);
    assert!(base.starts_with("sweep_d.authors-"));
    assert_eq!(base, hash(authors, &["sweep.dimension=[20]"]));
    assert_ne!(base, hash(authors, &["sweep.dimension=[5, 30]"]));
}

#[test]
fn swept_values_added_later_are_all_that_is_computed() {
    let home = tempfile::tempdir().unwrap();
    let small = table("linear/sweep_n", &[&SMALL[..4], &["sweep.test_samples=[80]"]].concat());
    let first = run(&small, home.path(), 2);
    let parts = std::fs::read_dir(first.parts()).unwrap().count();
    let all = table("linear/sweep_n", &SMALL);
    let folder = run(&all, home.path(), 2);
    assert_eq!(folder, first, "one run folder");
    let mut lines = 0;
    for entry in std::fs::read_dir(folder.parts()).unwrap() {
        lines += std::fs::read_to_string(entry.unwrap().path()).unwrap().lines().count();
    }
    let study = LinearStudy::new(&all).unwrap();
    assert_eq!(lines, study.trials().len(), "no trial is computed twice");
    assert_eq!(parts, 1);
    let fresh = tempfile::tempdir().unwrap();
    assert!(results(&run(&all, fresh.path(), 2)) == results(&folder));
}

#[test]
fn a_sweep_has_one_truth_per_sweep_and_others_per_seed() {
    let base_errors = |mode: &str| {
        let edits = [&format!("ground_truth={mode}")[..], "seeds=0..2"];
        let study = LinearStudy::new(&table("linear/sweep_d", &edits)).unwrap();
        let truth = |point, seed| study.scene(point, seed).unwrap().truth;
        let corner = |truth: GroundTruth| truth.base[(4, 3)];
        [corner(truth(0, 0)), corner(truth(0, 1)), corner(truth(2, 0))]
    };
    let [a, b, c] = base_errors("per-sweep");
    assert!(a == b && b == c, "cut from one matrix");
    let [a, b, c] = base_errors("per-seed");
    assert!(a != b && b != c && a != c);
}

#[test]
fn starts_are_paired_unless_the_quirk_is_on() {
    let config = LinearConfig::read(&table("linear/sweep_n", &SMALL)).unwrap();
    let spec = config.spec();
    let seed = spec.seed(3);
    let scene = Scene::new(&config, spec.ground_truth(&seed), seed).unwrap();
    assert_eq!(scene.fresh_adapters(1, None), scene.fresh_adapters(1, None));
    assert_ne!(scene.fresh_adapters(1, None), scene.fresh_adapters(1, Some("standard")));
    // Adapters of retraining, of the quirk and of fine-tuning have streams of their own.
    let entries = [
        scene.start().as_slice()[0],
        scene.standard_adapters().as_slice()[0],
        scene.fresh_adapters(1, None).as_slice()[0],
    ];
    assert!(entries[0] != entries[1] && entries[1] != entries[2] && entries[0] != entries[2]);
}

#[test]
fn the_reference_loss_is_the_sum_over_the_fine_tuning_inputs() {
    let config = LinearConfig::read(&table("linear/sweep_n", &SMALL)).unwrap();
    let spec = config.spec();
    let seed = spec.seed(1);
    let truth = spec.ground_truth(&seed);
    let scene = Scene::new(&config, truth.clone(), seed.clone()).unwrap();
    let (x, _) = spec.test_samples(&truth, &seed);
    let d = spec.dimension;
    let w = faer::Mat::<f64>::identity(d, d);
    let mut error = truth.task(spec.tasks);
    peftml_linalg::kernel::add_scaled(error.as_mut(), -1.0, w.as_ref());
    let mut image = faer::Mat::zeros(d, x.ncols());
    peftml_linalg::kernel::mul(image.as_mut(), error.as_ref(), x.as_ref(), 1.0);
    let plain = peftml_linalg::kernel::norm_squared(image.as_ref());
    let losses = scene.losses(w.as_ref());
    // Two orders of summation over n d terms of one sign: within n d roundings of each other.
    let allowed = (x.ncols() * d * d) as f64 * f64::EPSILON;
    assert!((losses.reference_loss / plain - 1.0).abs() < allowed);
    let excess_risk = truth.excess_risk(spec.tasks, w.as_ref());
    assert!((losses.excess_risk / excess_risk - 1.0).abs() < (d * d) as f64 * f64::EPSILON);
}

/// Mean over rows of a retraining method (with its solver) and a fine-tuning method.
fn mean(table: &Csv<'_>, method: [&str; 3], column: &str) -> f64 {
    let names = ["retraining", "solver", "fine_tuning"].map(|name| table.column(name));
    let values: Vec<f64> = (0..table.len())
        .filter(|row| names.iter().zip(method).all(|(c, name)| table.text(*row, *c) == name))
        .map(|row| table.number(row, table.column(column)).unwrap())
        .collect();
    assert!(!values.is_empty(), "{method:?}");
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn risks_stand_where_theory_puts_them() {
    let edits = [
        "seeds=0..40",
        "samples_per_task=1000",
        "sweep.test_samples=[100]",
        "retraining.methods=[\"standard/closed-form\", \"lora-ml/global\", \"lora-ml/exact\"]",
        "fine_tuning.methods=[\"reduced-rank-regression\", \"least-squares\"]",
    ];
    let home = tempfile::tempdir().unwrap();
    let folder = run(&table("linear/sweep_n", &edits), home.path(), 2);
    let text = std::fs::read_to_string(folder.file("trials.csv")).unwrap();
    let csv = Csv::parse(&text).unwrap();
    let ratio = |method: [&str; 3]| {
        mean(&csv, method, "excess_risk") / mean(&csv, method, "predicted_excess_risk")
    };
    let rrr = "reduced-rank-regression";
    // Excess risks after k = 1 are sums of about k (2d - k) = 19 squares (full least squares: 100):
    // relative standard deviation sqrt(2/19) = 0.32 a seed, 0.05 over 40 seeds; four of them.
    for (method, allowed) in [
        (["lora-ml", "exact", rrr], 0.2),
        (["lora-ml", "global", rrr], 0.2),
        (["lora-ml", "exact", "least-squares"], 0.1),
    ] {
        assert!((ratio(method) - 1.0).abs() < allowed, "{method:?}: {}", ratio(method));
    }
    // The floor of standard retraining is this truth's own tail, up to the base's sampling error (rate
    // / floor is below 1e-3). Reduced-rank regression truncates in the metric of n = 100 inputs, which
    // is off by sqrt(d/n): to second order a share d/n = 0.1 of the residual on top.
    let standard = ["standard", "closed-form", rrr];
    assert!((0.98..1.1).contains(&ratio(standard)), "{}", ratio(standard));
    // Control: what separates the methods is four orders of magnitude.
    let gap =
        mean(&csv, standard, "excess_risk") / mean(&csv, ["lora-ml", "global", rrr], "excess_risk");
    assert!(gap > 1e3, "{gap}");
    // C9: squared error of the base, 45/3 + trace degrees of freedom, relative spread below 0.2 a seed.
    let column = "base_error_squared";
    let base = mean(&csv, ["lora-ml", "global", rrr], column)
        / mean(&csv, ["lora-ml", "global", rrr], "predicted_base_error_squared");
    assert!((base - 1.0).abs() < 0.15, "{base}");
}
