//! The shallow studies through the machinery of runs.

use super::pairs::several_tunings;
use super::*;
use crate::config::{StudyName, load, names, set};
use crate::recut;
use crate::runs::csv::Table as Csv;

fn small(edits: &[&str]) -> ShallowStudy {
    let fixed = ["seeds=0..3", "dimension=4", "samples_per_task=30", "test_samples=20"];
    let cheap = ["fresh_samples=50", "retraining.epochs=40", "fine_tuning.steps=30"];
    let edits = [&fixed[..], &cheap, edits].concat();
    ShallowStudy::new(&recut::table("shallow/sweep_t.quick", &edits)).unwrap()
}

fn run_all(study: &ShallowStudy, trials: &[Trial]) -> Vec<Outcome> {
    trials
        .iter()
        .map(|trial| {
            let mut found = None;
            study.run(&[trial], &mut |_, outcome| found = Some(outcome.unwrap()));
            found.unwrap()
        })
        .collect()
}

fn joined(header: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: String = lines.map(|line| line + "\n").collect();
    format!("{header}\n{lines}")
}

#[test]
fn every_configuration_of_the_suite_is_a_study() {
    let mut found = 0;
    for name in names().filter(|name| name.starts_with("shallow/")) {
        let study = ShallowStudy::new(&load(&StudyName(name.to_owned())).unwrap()).unwrap();
        assert_eq!(format!("{}/{}", study.about().suite, study.about().name), name);
        assert!(!study.trials().is_empty());
        found += 1;
    }
    assert_eq!(found, 16, "five sweeps in three presets, and the optimisers");
}

#[test]
fn presets_hold_the_numbers_of_the_experiments() {
    for preset in ["", ".authors"] {
        for (study, leaf, values) in [
            ("sweep_d", "dimension", vec![5, 10, 20]),
            ("sweep_t", "tasks", vec![2, 3, 5, 10]),
            ("sweep_samples", "samples_per_task", vec![100, 1000, 10000]),
            ("sweep_n", "test_samples", vec![50, 100, 1000]),
            ("sweep_k", "rank", vec![1, 2, 3]),
        ] {
            let table = load(&StudyName(format!("shallow/{study}{preset}"))).unwrap();
            let study = ShallowStudy::new(&table).unwrap();
            assert_eq!(study.frame.resolved.swept, [leaf]);
            let swept: Vec<i64> = study
                .frame
                .resolved
                .points
                .iter()
                .map(|(v, _)| v[0].1.as_integer().unwrap())
                .collect();
            assert_eq!(swept, values);
            let c = &study.frame.resolved.config;
            assert_eq!((c.dimension, c.rank, c.tasks), (10, 1, 3));
            assert_eq!((c.samples_per_task, c.test_samples, c.fresh_samples), (1000, 100, 10000));
            assert_eq!((c.noise_std, c.biases), (0.1, false));
            let (r, f) = (&c.retraining, &c.fine_tuning);
            assert_eq!((r.epochs, r.starts, r.step_size, r.weight_decay), (40_000, 1, 1e-3, 0.01));
            assert_eq!((f.steps, f.starts, f.step_size, f.weight_decay), (15_000, 1, 1e-3, 0.01));
            assert_eq!(r.methods, ["standard/adamw", "lora-ml/adamw"]);
            assert_eq!(f.methods, ["adamw"]);
            let seeds = study.frame.seeds.len();
            assert_eq!(seeds, if preset.is_empty() { 40 } else { 10 });
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    for (edit, named) in [
        ("noise_std=-1", "noise_std"),
        ("rank=11", "rank"),
        ("retraining.methods=[\"magic\"]", "lora-ml/l-bfgs"),
        ("retraining.methods=[]", "retraining.methods"),
        ("fine_tuning.methods=[\"adamw\",\"adamw\"]", "twice"),
        ("fine_tuning.starts=0", "fine_tuning.starts"),
        ("retraining.epochs=0", "retraining.epochs"),
        ("retraining.step_size=inf", "retraining.step_size"),
        ("fine_tuning.weight_decay=-0.1", "fine_tuning.weight_decay"),
        ("kind=diagonal", "asymmetric"),
        ("study=../elsewhere", "study"),
        ("samples_per_task=1000000000000", "samples_per_task"),
    ] {
        let mut table = load(&StudyName("shallow/sweep_d".into())).unwrap();
        set(&mut table, edit).unwrap();
        let error = ShallowStudy::new(&table).err().unwrap().to_string();
        assert!(error.contains(named), "{edit}: {error}");
    }
}

#[test]
fn results_do_not_depend_on_threads_shards_or_interruptions() {
    let edits = ["sweep.tasks=[2,3]", "retraining.starts=2"];
    let study = small(&edits);
    let other = small(&[&edits[..], &["seeds=1..4"]].concat());
    recut::independent_of_how_it_is_cut(&study, &other);
}

#[test]
fn every_leaf_refuses_or_obeys() {
    for name in ["shallow/sweep_t", "shallow/optimisers"] {
        recut::every_leaf_refuses_or_obeys(name, ShallowStudy::new);
    }
}

/// Rows, figures and summary of a whole small study; a trial's lines do not depend on its company.
#[test]
fn a_small_study_runs_from_trials_to_figures() {
    let methods = "retraining.methods=[\"standard/adamw\",\"lora-ml/adamw\",\"standard/l-bfgs\",\
                   \"lora-ml/l-bfgs\",\"lora-ml/trust-region\",\"lora-ml/levenberg-marquardt\"]";
    let study = small(&["sweep.tasks=[2,3]", methods, "retraining.starts=2"]);
    let trials = study.trials();
    assert_eq!(trials.len(), 2 * 3 * 6);
    let outcomes = run_all(&study, &trials);
    let group: Vec<&Trial> = trials.iter().filter(|trial| trial.group == 1).collect();
    let mut together = Vec::new();
    study.run(&group, &mut |_, outcome| together.push(outcome.unwrap()));
    for (outcome, alone) in together.iter().zip(&outcomes[6..12]) {
        assert_eq!((&outcome.trials, &outcome.curves), (&alone.trials, &alone.curves));
    }

    let headers = study.headers();
    let lines = |of: fn(&Outcome) -> &Vec<String>| outcomes.iter().flat_map(of).cloned();
    let trials_csv = joined(&headers.trials, lines(|o| &o.trials));
    let curves_csv = joined(&headers.curves, lines(|o| &o.curves));
    let tables = Tables {
        trials: Csv::parse(&trials_csv).unwrap(),
        curves: Csv::parse(&curves_csv).unwrap(),
    };
    assert!(Csv::parse(&joined(&headers.timings, lines(|o| &o.timings))).is_ok());
    // T = 2 is fine-tuned at ranks 1 and 3.
    assert_eq!(tables.trials.len(), 3 * 6 * (2 + 1));
    for measure in MEASURES {
        let column = tables.trials.column(measure);
        assert!((0..tables.trials.len()).all(|row| tables.trials.number(row, column).is_some()));
    }
    let figures = study.figures(&tables);
    let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
    let expected = ["reference_mse_tasks_2", "reference_mse_tasks_3", "final_reference_mse"];
    assert_eq!(names[..3], expected);
    assert_eq!(names[3..], ["final_test_mse", "paired"]);
    // T = 2 alone is fine-tuned at two ranks: elsewhere labels need not say the rank.
    let ranks = |figure: &Figure| figure.series.iter().any(|series| series.label.contains("rank"));
    assert!(ranks(&figures[0]));
    let three = small(&["sweep.tasks=[3]", "retraining.epochs=5", "fine_tuning.steps=3"]);
    let curves = run_all(&three, &three.trials());
    let curves = joined(&headers.curves, curves.iter().flat_map(|o| o.curves.clone()));
    let curves = Csv::parse(&curves).unwrap();
    assert!(!several_tunings(&curves) && several_tunings(&tables.curves));
    let paired = &figures[4];
    // Two optimisers have a baseline; T = 2 has two ranks; one diagonal.
    assert_eq!(paired.series.len(), 2 * 3 + 1);
    assert!(paired.series[..6].iter().all(|series| series.x.len() == 3));
    let summary = study.summary(&tables);
    assert!(summary.answer.contains("tasks 3"), "{}", summary.answer);
    let test = &summary.figures["reference_mse_sign_test"]["tasks 2, rank 3: lora-ml/adamw"];
    let part = &summary.figures["test_mse_optimisers_part"];
    let part = &part["tasks 3, rank 1: lora-ml/l-bfgs"];
    assert_eq!(part["against"], "tasks 3, rank 1: lora-ml/adamw");
    assert!(part["part"].as_f64().unwrap() < 1.0);
    assert_eq!(test["against"], "standard/adamw");
    assert_eq!(test["wins"].as_u64().unwrap() + test["losses"].as_u64().unwrap(), 3);
}
